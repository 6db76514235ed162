/**
 * A client's exchanges with a server over a stream: connecting, sending,
 * receiving and timestamping.
 *
 * @module
 */

import type { Clock, Timers } from "../clock/clock.ts";
import { PACKET_SIZE } from "../ntp/packet.ts";
import type { SocketAddress } from "./address.ts";
import { MessageReader, MessageWriter } from "./framing.ts";
import type { Connection, Network, Stamps } from "./network.ts";
import { errorText } from "./errors.ts";

/** Seconds before the next address is tried in parallel (RFC 8305, section 5). */
const ATTEMPT_DELAY_SECONDS = 0.25;

/** A connection that has just been opened. */
export interface Connected {
  readonly connection: Connection;
  /** Seconds that opening it took: about a round trip. */
  readonly roundTrip: number;
}

/**
 * Connects to whichever address answers first. Each is tried once the one
 * before has failed or been silent for a quarter of a second (RFC 8305).
 *
 * @param secure Whether TLS will be started on the connection.
 * @throws The first address's error if all fail; the signal's reason if it is aborted.
 */
export async function connectFirst(
  network: Network,
  addresses: readonly SocketAddress[],
  clock: Clock,
  timers: Timers,
  signal: AbortSignal,
  secure = false,
): Promise<Connected> {
  signal.throwIfAborted();
  const losers = new AbortController();
  const either = AbortSignal.any([signal, losers.signal]);
  const won = Promise.withResolvers<void>();
  const failures = new Map<SocketAddress, unknown>();
  const attempts: Promise<void>[] = [];
  let winner: Connected | undefined;
  const attempt = async (address: SocketAddress) => {
    try {
      const start = clock.monotonic();
      const connection = await network.connect(address, either, secure);
      const roundTrip = Number(clock.monotonic() - start) / 1e9;
      if (winner === undefined) winner = { connection, roundTrip };
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
    const patience = new Promise<void>((resolve) =>
      cancel = timers.after(ATTEMPT_DELAY_SECONDS, resolve)
    );
    await Promise.race([patience, current, won.promise]);
    cancel();
    if (winner !== undefined || signal.aborted) break;
  }
  await Promise.race([won.promise, Promise.all(attempts)]);
  losers.abort();
  if (signal.aborted) winner?.connection.close();
  signal.throwIfAborted();
  if (winner !== undefined) return winner;
  throw failures.get(addresses[0]!);
}

/** Sends requests to one server, receives its replies, and timestamps them. */
export interface Channel {
  /** The server's address. */
  readonly address: SocketAddress;
  /** What {@linkcode send} sends. */
  readonly request: Uint8Array;
  /** What {@linkcode receive} received last. */
  readonly reply: Uint8Array;
  /** Is the last request still being written? If so, its bytes must not change. */
  readonly congested: boolean;
  /**
   * Waits for the next whole reply, or for a header if nothing follows it. Call it before
   * {@linkcode send}, so that the read is posted first and nothing but the write follows T1.
   *
   * @returns T4.
   * @throws {ChannelError} if the server closes or breaks the connection.
   * @throws The signal's reason if it is aborted, which closes the channel.
   */
  receive(): Promise<Received>;
  /**
   * Sends the request. If that fails, so does {@linkcode receive}.
   *
   * @returns T1: nanoseconds, as {@linkcode Clock.monotonic}.
   */
  send(): bigint;
  /** Gives up the channel but leaves its connection open. */
  release(): void;
  close(): void;
}

/** When a reply arrived, and who says so. */
export type Received = Omit<Stamps, "departed">;

/** The server ended an exchange early. The message starts with a verb, to follow the server's name. */
export class ChannelError extends Error {
  override readonly name = "ChannelError";
}

/**
 * Opens a channel over a connection. Uses the connection's timestamps of arrival where it has them,
 * else the program's.
 *
 * @param signal Closes the connection when aborted.
 * @param size Bytes of a request, and of a reply. Default: those of a header.
 */
export function streamChannel(
  connection: Connection,
  clock: Clock,
  signal: AbortSignal,
  size: number = PACKET_SIZE,
): Channel {
  const release = () => signal.removeEventListener("abort", onAbort);
  const close = () => {
    release();
    connection.close();
  };
  // Some runtimes never settle a pending read when its connection is closed.
  const aborted = Promise.withResolvers<false>();
  const onAbort = () => {
    close();
    aborted.resolve(false);
  };
  if (signal.aborted) onAbort();
  else signal.addEventListener("abort", onAbort);
  const monotonic = () => clock.monotonic();
  const request = new Uint8Array(size);
  const reply = new Uint8Array(size);
  const reader = new MessageReader(connection, reply, monotonic);
  const writer = new MessageWriter(connection, request);
  return {
    address: connection.remote,
    request,
    reply,
    release,
    close,
    get congested() {
      return writer.writing !== null;
    },
    send() {
      const before = monotonic();
      writer.write();
      return connection.departed ?? before;
    },
    async receive() {
      const isWhole = await Promise.race([reader.read(), aborted.promise]);
      // A server that does not know the key may answer without a MAC.
      if (isWhole || reader.filled >= PACKET_SIZE) {
        return { arrived: reader.arrived, by: reader.stamper };
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
