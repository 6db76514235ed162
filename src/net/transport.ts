/**
 * Connections, and the path from a socket to a timestamp.
 *
 * @module
 */

import { lookup } from "node:dns/promises";
import type { Clock, Timers } from "../clock/clock.ts";
import { PACKET_SIZE } from "../ntp/packet.ts";
import type { SocketAddress } from "./address.ts";
import { BusyPoll } from "./busy_poll.ts";
import { MessageReader, MessageWriter, type Sink, type Source } from "./framing.ts";

/** A stream of bytes in both directions. */
export interface Connection extends Source, Sink {
  /** The other end. */
  readonly remote: SocketAddress;
  /** Ends it; a read or write that is under way is rejected. */
  close(): void;
}

/** Something that connections come from. */
export interface Listener {
  readonly address: SocketAddress;
  /** @returns The next connection; `null` once the listener is closed. */
  accept(): Promise<Connection | null>;
  close(): void;
}

/** Where connections come from: the operating system's network, or a simulated one. */
export interface Network {
  /**
   * The IP addresses of a name, in the order of preference.
   *
   * @param family Only addresses of this family; `undefined` for both.
   */
  resolve(hostname: string, family: 4 | 6 | undefined): Promise<string[]>;
  connect(address: SocketAddress, signal: AbortSignal): Promise<Connection>;
  listen(address: SocketAddress): Listener;
}

/** The operating system's network. */
export const systemNetwork: Network = {
  async resolve(hostname, family) {
    const found = await lookup(hostname, { all: true, ...family === undefined ? {} : { family } });
    // An address that is given as such comes back whatever the family.
    return found.filter((each) => family === undefined || each.family === family)
      .map(({ address }) => address);
  },
  async connect(address, signal) {
    return wrap(await Deno.connect({ ...address, signal }), awaitingReply);
  },
  listen(address) {
    const listener = Deno.listen({ ...address, ...BACKLOG });
    let closed = false;
    return {
      address: { hostname: listener.addr.hostname, port: listener.addr.port },
      async accept() {
        try {
          return wrap(await listener.accept(), awaitingRequest);
        } catch (error) {
          if (closed) return null;
          throw error;
        }
      },
      close() {
        closed = true;
        listener.close();
      },
    };
  },
};

/** Connections that may wait to be accepted. Deno knows this option, its types do not. */
const BACKLOG: object = { tcpBacklog: 4096 };

/** Seconds: about what a reply takes on a fast network. Longer, and the server's own process is kept from running. */
const awaitingReply = new BusyPoll(30e-6);

/** Seconds: about what a client on a fast network takes until its next request. */
const awaitingRequest = new BusyPoll(100e-6);

function wrap(tcp: Deno.TcpConn, busyPoll: BusyPoll): Connection {
  try {
    tcp.setNoDelay();
  } catch {
    // It is broken already, as the first read will say.
  }
  return {
    remote: { hostname: tcp.remoteAddr.hostname, port: tcp.remoteAddr.port },
    read: (into) => tcp.read(into),
    write(bytes) {
      const writing = tcp.write(bytes);
      busyPoll.start();
      return writing;
    },
    close() {
      busyPoll.stop();
      try {
        tcp.close();
      } catch {
        // It was closed already.
      }
    },
  };
}

/** Seconds until the next address is tried beside the first (RFC 8305, section 5). */
const ATTEMPT_DELAY = 0.25;

/**
 * Connects to whichever address answers first: the next one is tried when the
 * last has failed, or has been silent for a quarter of a second (RFC 8305).
 *
 * @throws The first address's error, if all fail; the signal's reason, if that comes first.
 */
export async function connectFirst(
  network: Network,
  addresses: readonly SocketAddress[],
  timers: Timers,
  signal: AbortSignal,
): Promise<Connection> {
  signal.throwIfAborted();
  const losers = new AbortController();
  const either = AbortSignal.any([signal, losers.signal]);
  const won = Promise.withResolvers<void>();
  const failures = new Map<SocketAddress, unknown>();
  const attempts: Promise<void>[] = [];
  let winner: Connection | undefined;
  const attempt = async (address: SocketAddress) => {
    try {
      const connection = await network.connect(address, either);
      if (winner === undefined) winner = connection;
      else connection.close();
      won.resolve();
    } catch (error) {
      failures.set(address, error);
    }
  };
  for (const address of addresses) {
    const current = attempt(address);
    attempts.push(current);
    let cancel = () => {};
    const patience = new Promise<void>((resolve) => cancel = timers.after(ATTEMPT_DELAY, resolve));
    await Promise.race([patience, current, won.promise]);
    cancel();
    if (winner !== undefined || signal.aborted) break;
  }
  await Promise.race([won.promise, Promise.all(attempts)]);
  losers.abort();
  if (signal.aborted) winner?.close();
  signal.throwIfAborted();
  if (winner !== undefined) return winner;
  throw failures.get(addresses[0]!);
}

/** A way to put a question to one server and to stamp when it left and when the answer came. */
export interface Channel {
  /** The server's end. */
  readonly address: SocketAddress;
  /** What the next exchange sends, 48 bytes. */
  readonly request: Uint8Array;
  /** What the last exchange received, 48 bytes. */
  readonly reply: Uint8Array;
  /**
   * Sends the request and waits until the whole reply has come.
   *
   * @throws {ChannelError} if the server closes or breaks the connection.
   * @throws The signal's reason if it is aborted; the channel is closed then.
   */
  exchange(): Promise<Stamps>;
  close(): void;
}

/** When a request left and its reply arrived, as {@linkcode Clock.monotonic}. */
export interface Stamps {
  /** T1. */
  readonly departed: bigint;
  /** T4. */
  readonly arrived: bigint;
}

/** A conversation that ended before its time. The message begins with a verb: the server's name goes before it. */
export class ChannelError extends Error {
  override readonly name = "ChannelError";
}

/**
 * Opens a channel over a connection, stamped by the program itself.
 *
 * @param signal Closes the connection when it is aborted.
 */
export function streamChannel(connection: Connection, clock: Clock, signal: AbortSignal): Channel {
  const close = () => {
    signal.removeEventListener("abort", onAbort);
    connection.close();
  };
  // Some runtimes leave a read that is under way unanswered when its connection is closed.
  const aborted = Promise.withResolvers<false>();
  const onAbort = () => {
    close();
    aborted.resolve(false);
  };
  if (signal.aborted) onAbort();
  else signal.addEventListener("abort", onAbort);
  const monotonic = () => clock.monotonic();
  const request = new Uint8Array(PACKET_SIZE);
  const reply = new Uint8Array(PACKET_SIZE);
  const reader = new MessageReader(connection, reply, monotonic);
  const writer = new MessageWriter(connection, request);
  return {
    address: connection.remote,
    request,
    reply,
    close,
    async exchange() {
      // The read is under way before the request leaves: after T1 nothing is left to do.
      const reading = reader.read();
      const departed = monotonic();
      writer.write(); // If it fails, so does the read.
      if (await Promise.race([reading, aborted.promise])) {
        return { departed, arrived: reader.arrived };
      }
      const part = `${reader.filled} of ${reply.length} bytes of its reply`;
      if (signal.aborted) {
        if (reader.filled === 0) throw signal.reason;
        throw new ChannelError(`sent ${part} and then nothing`, { cause: signal.reason });
      }
      if (reader.error !== undefined) {
        const { error } = reader;
        throw new ChannelError(`broke the connection (${errorText(error)})`, { cause: error });
      }
      throw new ChannelError(
        reader.filled === 0
          ? "closed the connection without an answer"
          : `closed the connection after ${part}`,
      );
    },
  };
}

/** What went wrong, in words: of the operating system's errors only the sentence. */
export function errorText(error: unknown): string {
  if (error instanceof Deno.errors.ConnectionRefused) return "connection refused";
  if (error instanceof Deno.errors.ConnectionReset) return "connection reset";
  const text = error instanceof Error ? error.message : String(error);
  return text.replace(/ \(os error \d+\)$/, "");
}

/** Does an error of `resolve` say that there is no such name, rather than that nobody could be asked? */
export function isUnknownHost(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOTFOUND";
}
