/**
 * A client's sockets with kernel timestamps, which are right however late the
 * sockets are read. Nothing here blocks: the event loop polls them.
 *
 * @module
 */

import { type Clock, type CrossTimestamp, crossTimestamp } from "../../clock/clock.ts";
import type { SocketAddress } from "../address.ts";
import { connectionDescriptor, descriptorOf } from "../descriptors.ts";
import { Receiver, sendNow, WOULD_BLOCK } from "./message.ts";
import {
  check,
  enableTimestamps,
  encodeAddress,
  keepTimestampsEnabled,
  socketError,
} from "./sockets.ts";
import type { Libc } from "../../libc/libc.ts";
import { MSG_TRUNC } from "../../libc/structures.ts";
import type { Arrival, Connection, DatagramPort } from "../network.ts";
import { openSocket } from "../deno/datagrams.ts";

/** Busy polling comes first, for about as long as a reply takes on a fast network. */
const BUSY_POLL_NS = 250_000n;

/** Then one poll in each of this many turns of the event loop. */
const SOON_TURNS = 200;

/** Then pauses between polls: the kernel timestamps what arrives meanwhile. */
const POLL_PAUSE_MS = 1;

function untilNextPoll(turn: number): Promise<void> {
  return new Promise((resolve) => {
    if (turn < SOON_TURNS) setImmediate(resolve);
    else setTimeout(resolve, POLL_PAUSE_MS);
  });
}

/** How fast a system clock is slewed without that being measured, as a fraction: by `adjtime`. */
const MAX_SLEW = 500e-6;

/**
 * The fastest slew that is allowed for once it is seen, as a fraction: a kept clock's (5000 ppm),
 * `adjtime`'s and the frequency that the kernel is told (500 ppm each).
 */
const FASTEST_SLEW = 6000e-6;

/**
 * Converts kernel timestamps, which are of the system clock, to the monotonic
 * timeline. That works only if the system clock was not set between the last
 * look that found nothing and the one that found the message.
 */
export class Arrivals {
  readonly #clock: Clock;
  /** Taken just before the last look that found nothing. */
  #empty: CrossTimestamp;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#empty = crossTimestamp(clock);
  }

  /**
   * Waits until something has been received, or the socket is closed.
   *
   * @param receive Receives without waiting; `null` if it would block.
   * @returns What it received; `null` if the socket is closed.
   */
  async wait<T>(receive: () => T | null, isClosed: () => boolean): Promise<T | null> {
    let received = this.look(receive);
    if (received !== null) return received;
    await undefined; // A caller that posts its read first now writes.
    if (isClosed()) return null; // The descriptor may already be another socket's.
    // A turn of the event loop takes longer than a reply on a fast network.
    const start = this.#clock.monotonic();
    while (this.#empty.monotonic - start < BUSY_POLL_NS) {
      received = this.look(receive);
      if (received !== null) return received;
    }
    for (let turn = 0;; turn++) {
      await untilNextPoll(turn);
      if (isClosed()) return null;
      received = this.look(receive);
      if (received !== null) return received;
    }
  }

  /** Tries to receive once. */
  look<T>(receive: () => T | null): T | null {
    const before = crossTimestamp(this.#clock, 1);
    const received = receive();
    if (received === null) this.#empty = before;
    return received;
  }

  /**
   * Converts the timestamp of what was just received.
   *
   * @param arrived Nanoseconds since the Unix epoch; 0 if there is none.
   * @returns That moment or one just after it, never before; `null` if it cannot be known.
   */
  monotonic(arrived: bigint): bigint | null {
    if (arrived === 0n) return null;
    const { monotonic, realtime, error } = crossTimestamp(this.#clock);
    const elapsed = monotonic - this.#empty.monotonic;
    const moved = (realtime - this.#empty.realtime) - elapsed;
    const errors = error + this.#empty.error;
    const within = (slew: number) => errors + BigInt(Math.ceil(slew * Number(elapsed)));
    const distance = moved < 0n ? -moved : moved;
    if (distance > within(FASTEST_SLEW)) return null;
    let doubt = within(MAX_SLEW);
    // A fast slew lasts longer than this, and in one direction.
    if (distance > doubt) doubt = distance + errors;
    const age = realtime - arrived - doubt;
    if (age < 0n) return monotonic;
    const stamped = monotonic - age;
    return stamped < this.#empty.monotonic ? this.#empty.monotonic : stamped;
  }
}

/** A client's datagram socket. */
export class KernelPort implements DatagramPort {
  readonly #libc: Libc;
  readonly #fd: number;
  readonly #owner: Deno.DatagramConn;
  readonly #clock: Clock;
  readonly #receiver: Receiver;
  readonly #arrivals: Arrivals;
  #closed = false;

  private constructor(libc: Libc, fd: number, owner: Deno.DatagramConn, clock: Clock) {
    this.#libc = libc;
    this.#fd = fd;
    this.#owner = owner;
    this.#clock = clock;
    this.#receiver = new Receiver(libc);
    this.#arrivals = new Arrivals(clock);
  }

  /**
   * Opens a socket and connects it, which Deno cannot: a connected one receives from its server
   * only, and learns if nothing listens there.
   *
   * @returns `null` if the kernel does not timestamp it.
   * @throws {Error} if the server cannot be reached from here.
   */
  static open(libc: Libc, server: SocketAddress, clock: Clock): KernelPort | null {
    const owner = openSocket(server);
    try {
      const fd = enableTimestamps(libc, descriptorOf(owner.addr as Deno.NetAddr));
      if (fd !== null) {
        keepTimestampsEnabled(libc);
        const name = encodeAddress(libc, server);
        check(libc, libc.connect(fd, name, name.length));
        return new KernelPort(libc, fd, owner, clock);
      }
    } catch (error) {
      owner.close();
      throw error;
    }
    owner.close();
    return null;
  }

  send(bytes: Uint8Array<ArrayBuffer>): void {
    const count = sendNow(this.#libc, this.#fd, bytes);
    if (count < 0 && count !== WOULD_BLOCK) throw socketError(this.#libc, -count);
  }

  async receive(into: Uint8Array): Promise<Arrival | null> {
    if (this.#closed) return null;
    const length = await this.#arrivals.wait(() => this.#receive(into), () => this.#closed);
    if (length === null) return null;
    const arrived = this.#arrivals.monotonic(this.#receiver.arrived());
    return arrived === null
      ? { length, arrived: this.#clock.monotonic(), by: "user" }
      : { length, arrived, by: "kernel" };
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#owner.close();
  }

  /** Receives a datagram. @returns Its length in bytes; `null` if this would block. */
  #receive(into: Uint8Array): number | null {
    const { bytes } = this.#receiver;
    const length = this.#receiver.receive(this.#fd, bytes.length, MSG_TRUNC);
    if (length === WOULD_BLOCK) return null;
    if (length < 0) throw socketError(this.#libc, -length);
    into.set(bytes.subarray(0, Math.min(length, into.length)));
    return length;
  }
}

const NO_BYTES = new Uint8Array();

/** A client's connection. */
export class KernelConnection implements Connection {
  arrived: bigint | null = null;
  departed = 0n;
  readonly remote: SocketAddress;
  readonly #libc: Libc;
  readonly #fd: number;
  readonly #owner: Deno.TcpConn;
  readonly #clock: Clock;
  readonly #receiver: Receiver;
  readonly #arrivals: Arrivals;
  #closed = false;

  private constructor(libc: Libc, fd: number, owner: Deno.TcpConn, clock: Clock, zone: string) {
    const { hostname, port } = owner.remoteAddr;
    this.remote = { hostname: hostname + zone, port };
    this.#libc = libc;
    this.#fd = fd;
    this.#owner = owner;
    this.#clock = clock;
    this.#receiver = new Receiver(libc);
    this.#arrivals = new Arrivals(clock);
  }

  /**
   * Takes over a connection of Deno's.
   *
   * @param owner Deno must not have read from it, nor do so later.
   * @param zone The zone of the server's address, which Deno omits.
   * @returns `null` if the kernel does not timestamp it.
   */
  static of(
    libc: Libc,
    owner: Deno.TcpConn,
    clock: Clock,
    zone: string,
  ): KernelConnection | null {
    const ends = { remote: owner.remoteAddr, local: owner.localAddr };
    const fd = enableTimestamps(libc, connectionDescriptor(ends));
    return fd === null ? null : new KernelConnection(libc, fd, owner, clock, zone);
  }

  async read(into: Uint8Array): Promise<number | null> {
    const receive = () => this.#receive(into);
    const count = this.#closed ? null : await this.#arrivals.wait(receive, () => this.#closed);
    if (count === null) throw new Deno.errors.Interrupted("the connection was closed");
    this.arrived = count === 0 ? null : this.#arrivals.monotonic(this.#receiver.arrived());
    return count === 0 ? null : count;
  }

  async write(bytes: Uint8Array<ArrayBuffer>): Promise<number> {
    for (let turn = 0; !this.#closed; turn++) {
      const count = this.#send(bytes);
      if (count > 0) return count;
      await untilNextPoll(turn);
    }
    throw new Deno.errors.Interrupted("the connection was closed");
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#owner.close();
  }

  /** Receives bytes. @returns Their number, 0 at the end of the stream; `null` if this would block. */
  #receive(into: Uint8Array): number | null {
    const { bytes } = this.#receiver;
    const count = this.#receiver.receive(this.#fd, Math.min(into.length, bytes.length));
    if (count === WOULD_BLOCK) return null;
    if (count < 0) throw socketError(this.#libc, -count);
    into.set(bytes.subarray(0, count));
    return count;
  }

  /** Sends as much as fits. @returns The number of bytes. */
  #send(bytes: Uint8Array<ArrayBuffer>): number {
    // Code that has not run for a while is slow: run it once, sending nothing, before it counts.
    this.#clock.monotonic();
    sendNow(this.#libc, this.#fd, NO_BYTES);
    this.departed = this.#clock.monotonic();
    const count = sendNow(this.#libc, this.#fd, bytes);
    if (count < 0 && count !== WOULD_BLOCK) throw socketError(this.#libc, -count);
    return Math.max(count, 0);
  }
}
