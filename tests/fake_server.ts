/**
 * Servers that misbehave, on loopback.
 *
 * @module
 */

import { GOOD_REPLY } from "./good_reply.ts";
import { systemClock } from "../src/clock/system_clock.ts";
import { MessageReader } from "../src/net/framing.ts";
import { encodePacket, OFFSET, type Packet, viewOf } from "../src/ntp/packet.ts";
import { toTimestamp } from "../src/ntp/timestamp.ts";

/** What a server does with a connection, until it returns. */
export type Behaviour = (connection: Deno.TcpConn) => Promise<void>;

const clock = systemClock();

/** A TCP server that treats every connection alike and closes it afterwards. */
export class FakeServer implements AsyncDisposable {
  readonly address: string;
  /** How many connections there were. */
  connections = 0;
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #open = new Set<Deno.TcpConn>();
  readonly #done: Promise<void>;

  constructor(behaviour: Behaviour) {
    this.address = `127.0.0.1:${this.#listener.addr.port}`;
    this.#done = this.#accept(behaviour);
  }

  async #accept(behaviour: Behaviour): Promise<void> {
    const tasks: Promise<void>[] = [];
    for await (const connection of this.#listener) {
      this.connections++;
      this.#open.add(connection);
      tasks.push(this.#converse(behaviour, connection));
    }
    await Promise.all(tasks);
  }

  async #converse(behaviour: Behaviour, connection: Deno.TcpConn): Promise<void> {
    try {
      await behaviour(connection);
    } catch {
      // The client has gone.
    }
    if (this.#open.delete(connection)) connection.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const connection of this.#open) connection.close();
    this.#open.clear();
    await this.#done;
  }
}

/**
 * Answers each request as a good server would, but for what `change` makes
 * different.
 *
 * @param change Given the number of the request from 0, the fields to replace.
 */
export function answering(change: (index: number, good: Packet) => Partial<Packet>): Behaviour {
  return answeringBytes((index, good) => encodePacket({ ...good, ...change(index, good) }));
}

/** Answers each request with whatever bytes `reply` makes of the right one. */
export function answeringBytes(
  reply: (index: number, good: Packet) => Uint8Array,
  write = async (connection: Deno.TcpConn, bytes: Uint8Array) => {
    await connection.write(bytes);
  },
): Behaviour {
  return async (connection) => {
    const request = new Uint8Array(48);
    const reader = new MessageReader(connection, request, clock.realtime);
    for (let index = 0; await reader.read(); index++) {
      const origin = viewOf(request).getBigUint64(OFFSET.transmit);
      await write(connection, reply(index, goodReply(origin, reader.arrived)));
    }
  };
}

function goodReply(origin: bigint, arrived: bigint): Packet {
  return {
    ...GOOD_REPLY,
    reference: toTimestamp(arrived),
    origin,
    receive: toTimestamp(arrived),
    transmit: toTimestamp(clock.realtime()),
  };
}

/** Seconds in the units of a 64-bit timestamp. */
export function units(seconds: number): bigint {
  return BigInt(Math.round(seconds * 2 ** 32));
}
