/**
 * A client's sockets of which the kernel says when something came, however
 * late they are looked at. Nothing here blocks: they are looked at again and
 * again, from the event loop.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { type Clock, type Tie, tie } from "../clock/clock.ts";
import { canonical, type SocketAddress } from "./address.ts";
import { DatagramSocket } from "./libc/datagrams.ts";
import type { Libc } from "./libc/socket.ts";
import { StreamSocket } from "./libc/streams.ts";
import type { Connection } from "./transport.ts";
import type { Arrival, DatagramPort } from "./udp.ts";

/** Turns of the event loop for which an answer may come at any moment. */
const SOON = 200;

/** Milliseconds between two looks after that: the kernel has stamped what came meanwhile. */
const LATER = 1;

/** Waits until it is time to look again. */
function untilNextLook(turn: number): Promise<void> {
  return new Promise((resolve) => {
    if (turn < SOON) setImmediate(resolve);
    else setTimeout(resolve, LATER);
  });
}

/** By how much a system clock is slewed at most, as a fraction. */
const SLEW = 500e-6;

/**
 * From the kernel's stamps, which are the system clock's time, to the
 * monotonic timeline. A stamp counts only if the system clock was not set
 * between the last look that found nothing and this one: it came in between.
 */
export class Arrivals {
  readonly #clock: Clock;
  /** When nothing had come yet. */
  #empty: Tie;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#empty = tie(clock);
  }

  /**
   * Looks whether something has come.
   *
   * @param receive Takes it; `null` if nothing has.
   */
  look<T>(receive: () => T | null): T | null {
    const before = tie(this.#clock, 1);
    const received = receive();
    if (received === null) this.#empty = before;
    return received;
  }

  /**
   * @param arrived Nanoseconds since the Unix epoch, or 0: the kernel does not say.
   * @returns The moment, or one just after it; `null` if it cannot be said.
   */
  monotonic(arrived: bigint): bigint | null {
    if (arrived === 0n) return null;
    const { monotonic, realtime, error } = tie(this.#clock);
    const elapsed = monotonic - this.#empty.monotonic;
    const moved = (realtime - this.#empty.realtime) - elapsed;
    const doubt = error + this.#empty.error + BigInt(Math.ceil(SLEW * Number(elapsed)));
    const age = realtime - arrived - doubt;
    if (moved > doubt || -moved > doubt) return null;
    if (age < 0n) return monotonic;
    const stamped = monotonic - age;
    return stamped < this.#empty.monotonic ? this.#empty.monotonic : stamped;
  }
}

/** A port of its own, for datagrams from one server. */
export class KernelPort implements DatagramPort {
  readonly #socket: DatagramSocket;
  readonly #clock: Clock;
  readonly #arrivals: Arrivals;
  #closed = false;

  /** @throws {Error} if the address cannot be reached from here. */
  constructor(libc: Libc, server: SocketAddress, clock: Clock) {
    this.#socket = new DatagramSocket(libc, server);
    this.#clock = clock;
    this.#arrivals = new Arrivals(clock);
  }

  send(bytes: Uint8Array<ArrayBuffer>): void {
    this.#socket.send(bytes);
  }

  async receive(into: Uint8Array): Promise<Arrival | null> {
    for (let turn = 0; !this.#closed; turn++) {
      const datagram = this.#arrivals.look(() => this.#socket.receive(into));
      if (datagram !== null) {
        const { length } = datagram;
        const stamped = this.#arrivals.monotonic(datagram.arrived);
        return stamped === null
          ? { length, arrived: this.#clock.monotonic(), by: "user" }
          : { length, arrived: stamped, by: "kernel" };
      }
      await untilNextLook(turn);
    }
    return null;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket.close();
  }
}

/** A connection to a server. */
export class KernelConnection implements Connection {
  stamped: bigint | null = null;
  readonly #socket: StreamSocket;
  readonly #arrivals: Arrivals;
  #closed = false;

  private constructor(socket: StreamSocket, readonly remote: SocketAddress, clock: Clock) {
    this.#socket = socket;
    this.#arrivals = new Arrivals(clock);
  }

  static async open(
    libc: Libc,
    address: SocketAddress,
    clock: Clock,
    signal: AbortSignal,
  ): Promise<KernelConnection> {
    const socket = new StreamSocket(libc, address);
    try {
      for (let turn = 0; !socket.connect(); turn++) {
        await untilNextLook(turn);
        signal.throwIfAborted();
      }
    } catch (error) {
      socket.close();
      throw error;
    }
    return new KernelConnection(socket, { ...address, hostname: meant(address.hostname) }, clock);
  }

  async read(into: Uint8Array): Promise<number | null> {
    for (let turn = 0; !this.#closed; turn++) {
      const received = this.#arrivals.look(() => this.#socket.receive(into));
      if (received !== null) {
        const { count, arrived } = received;
        this.stamped = count === 0 ? null : this.#arrivals.monotonic(arrived);
        return count === 0 ? null : count;
      }
      await untilNextLook(turn);
    }
    throw new Deno.errors.Interrupted("the connection was closed");
  }

  async write(bytes: Uint8Array<ArrayBuffer>): Promise<number> {
    for (let turn = 0; !this.#closed; turn++) {
      const count = this.#socket.send(bytes);
      if (count > 0) return count;
      await untilNextLook(turn);
    }
    throw new Deno.errors.Interrupted("the connection was closed");
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket.close();
  }
}

/** Who connects to the unspecified address means this machine. */
function meant(hostname: string): string {
  const address = canonical(hostname);
  return address === "0.0.0.0" ? "127.0.0.1" : address === "::" ? "::1" : hostname;
}
