/**
 * A client's sockets with kernel timestamps, which are right however late the
 * sockets are read. Nothing here blocks: the event loop polls them.
 *
 * @module
 */

import { type Clock, type CrossTimestamp, crossTimestamp } from "../../clock/clock.ts";
import type { SocketAddress } from "../address.ts";
import { connectionDescriptor, descriptorOf } from "../descriptors.ts";
import { DatagramSocket } from "./datagram_sockets.ts";
import { enableTimestamps } from "./sockets.ts";
import type { Libc } from "../../libc/libc.ts";
import { StreamSocket } from "./stream_sockets.ts";
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

/** The fastest slew of a system clock, as a fraction. */
const MAX_SLEW = 500e-6;

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
    const doubt = error + this.#empty.error + BigInt(Math.ceil(MAX_SLEW * Number(elapsed)));
    const age = realtime - arrived - doubt;
    if (moved > doubt || -moved > doubt) return null;
    if (age < 0n) return monotonic;
    const stamped = monotonic - age;
    return stamped < this.#empty.monotonic ? this.#empty.monotonic : stamped;
  }
}

/** A client's datagram socket. */
export class KernelPort implements DatagramPort {
  readonly #owner: Deno.DatagramConn;
  readonly #socket: DatagramSocket;
  readonly #clock: Clock;
  readonly #arrivals: Arrivals;
  #closed = false;

  private constructor(socket: DatagramSocket, owner: Deno.DatagramConn, clock: Clock) {
    this.#owner = owner;
    this.#socket = socket;
    this.#clock = clock;
    this.#arrivals = new Arrivals(clock);
  }

  /**
   * Opens a socket.
   *
   * @returns `null` if the kernel does not timestamp it.
   * @throws {Error} if the server cannot be reached from here.
   */
  static open(libc: Libc, server: SocketAddress, clock: Clock): KernelPort | null {
    const owner = openSocket(server);
    try {
      const fd = enableTimestamps(libc, descriptorOf(owner.addr as Deno.NetAddr));
      if (fd !== null) return new KernelPort(new DatagramSocket(libc, fd, server), owner, clock);
    } catch (error) {
      owner.close();
      throw error;
    }
    owner.close();
    return null;
  }

  send(bytes: Uint8Array<ArrayBuffer>): void {
    this.#socket.send(bytes);
  }

  async receive(into: Uint8Array): Promise<Arrival | null> {
    if (this.#closed) return null;
    const receive = () => this.#socket.receive(into);
    const datagram = await this.#arrivals.wait(receive, () => this.#closed);
    if (datagram === null) return null;
    const { length } = datagram;
    const arrived = this.#arrivals.monotonic(datagram.arrived);
    return arrived === null
      ? { length, arrived: this.#clock.monotonic(), by: "user" }
      : { length, arrived, by: "kernel" };
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#owner.close();
  }
}

/** A client's connection. */
export class KernelConnection implements Connection {
  arrived: bigint | null = null;
  readonly remote: SocketAddress;
  readonly #owner: Deno.TcpConn;
  readonly #socket: StreamSocket;
  readonly #now: () => bigint;
  readonly #arrivals: Arrivals;
  #closed = false;

  private constructor(libc: Libc, fd: number, owner: Deno.TcpConn, clock: Clock, zone: string) {
    const { hostname, port } = owner.remoteAddr;
    this.remote = { hostname: hostname + zone, port };
    this.#owner = owner;
    this.#socket = new StreamSocket(libc, fd);
    this.#now = () => clock.monotonic();
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
    const receive = () => this.#socket.receive(into);
    const received = this.#closed ? null : await this.#arrivals.wait(receive, () => this.#closed);
    if (received === null) throw new Deno.errors.Interrupted("the connection was closed");
    const { count, arrived } = received;
    this.arrived = count === 0 ? null : this.#arrivals.monotonic(arrived);
    return count === 0 ? null : count;
  }

  async write(bytes: Uint8Array<ArrayBuffer>): Promise<number> {
    for (let turn = 0; !this.#closed; turn++) {
      const count = this.#socket.send(bytes, this.#now);
      if (count > 0) return count;
      await untilNextPoll(turn);
    }
    throw new Deno.errors.Interrupted("the connection was closed");
  }

  get departed(): bigint {
    return this.#socket.departed;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#owner.close();
  }
}
