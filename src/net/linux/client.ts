/**
 * A client's sockets of which the kernel says when something came, however
 * late they are looked at. Nothing here blocks: they are looked at again and
 * again, from the event loop.
 *
 * @module
 */

import { type Clock, type CrossTimestamp, crossTimestamp } from "../../clock/clock.ts";
import type { SocketAddress } from "../address.ts";
import { connectionDescriptor, descriptorOf } from "../descriptors.ts";
import { DatagramSocket } from "./datagrams.ts";
import { stampedDescriptor } from "./sockets.ts";
import type { Libc } from "../../libc/libc.ts";
import { StreamSocket } from "./streams.ts";
import type { Arrival, Connection, DatagramPort } from "../network.ts";
import { openSocket } from "../deno/datagrams.ts";

/** Turns of the event loop for which an answer may come at any moment. */
const SOON_TURNS = 200;

/** Milliseconds between two looks after that: the kernel has stamped what came meanwhile. */
const LATER_MS = 1;

/** Nanoseconds for which it is looked again and again at first: about what a reply takes on a fast network. */
const AT_ONCE_NS = 250_000n;

/** Waits until it is time to look again. */
function untilNextLook(turn: number): Promise<void> {
  return new Promise((resolve) => {
    if (turn < SOON_TURNS) setImmediate(resolve);
    else setTimeout(resolve, LATER_MS);
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
  #empty: CrossTimestamp;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#empty = crossTimestamp(clock);
  }

  /**
   * Waits until something has come, or somebody has closed.
   *
   * @param receive Takes it; `null` if nothing has.
   * @returns `null` if it is closed.
   */
  async wait<T>(receive: () => T | null, isClosed: () => boolean): Promise<T | null> {
    let received = this.look(receive);
    if (received !== null) return received;
    await undefined; // Who reads before writing writes now.
    if (isClosed()) return null; // Its descriptor may be another's by now.
    // A turn of the event loop takes longer than a reply on a fast network.
    const start = this.#clock.monotonic();
    while (this.#empty.monotonic - start < AT_ONCE_NS) {
      received = this.look(receive);
      if (received !== null) return received;
    }
    for (let turn = 0;; turn++) {
      await untilNextLook(turn);
      if (isClosed()) return null;
      received = this.look(receive);
      if (received !== null) return received;
    }
  }

  /**
   * Looks whether something has come.
   *
   * @param receive Takes it; `null` if nothing has.
   */
  look<T>(receive: () => T | null): T | null {
    const before = crossTimestamp(this.#clock, 1);
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
    const { monotonic, realtime, error } = crossTimestamp(this.#clock);
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
   * Opens one.
   *
   * @returns `null` if the kernel does not stamp it.
   * @throws {Error} if the address cannot be reached from here.
   */
  static open(libc: Libc, server: SocketAddress, clock: Clock): KernelPort | null {
    const owner = openSocket(server);
    try {
      const fd = stampedDescriptor(libc, descriptorOf(owner.addr as Deno.NetAddr));
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
    const stamped = this.#arrivals.monotonic(datagram.arrived);
    return stamped === null
      ? { length, arrived: this.#clock.monotonic(), by: "user" }
      : { length, arrived: stamped, by: "kernel" };
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#owner.close();
  }
}

/** A connection to a server. */
export class KernelConnection implements Connection {
  stamped: bigint | null = null;
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
   * @param owner Nothing has been read from it, and nothing will be.
   * @param zone Of the other end's address, which Deno leaves out.
   * @returns `null` if the kernel does not stamp it.
   */
  static of(
    libc: Libc,
    owner: Deno.TcpConn,
    clock: Clock,
    zone: string,
  ): KernelConnection | null {
    const ends = { remote: owner.remoteAddr, local: owner.localAddr };
    const fd = stampedDescriptor(libc, connectionDescriptor(ends));
    return fd === null ? null : new KernelConnection(libc, fd, owner, clock, zone);
  }

  async read(into: Uint8Array): Promise<number | null> {
    const receive = () => this.#socket.receive(into);
    const received = this.#closed ? null : await this.#arrivals.wait(receive, () => this.#closed);
    if (received === null) throw new Deno.errors.Interrupted("the connection was closed");
    const { count, arrived } = received;
    this.stamped = count === 0 ? null : this.#arrivals.monotonic(arrived);
    return count === 0 ? null : count;
  }

  async write(bytes: Uint8Array<ArrayBuffer>): Promise<number> {
    for (let turn = 0; !this.#closed; turn++) {
      const count = this.#socket.send(bytes, this.#now);
      if (count > 0) return count;
      await untilNextLook(turn);
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
