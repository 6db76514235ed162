/**
 * A world in which time is a number: hosts with clocks that are wrong in known
 * ways, and a network between them with known delays. The product's own
 * client and server run in it unmodified, for hours within seconds, and the
 * same seed gives the same run.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import type { Clock, ClockState, Timers } from "../../src/clock/clock.ts";
import { formatAddress, type SocketAddress } from "../../src/net/address.ts";
import type {
  Connection,
  Datagram,
  DatagramListener,
  DatagramPort,
  Listener,
  Network,
} from "../../src/net/network.ts";
import { SECOND } from "../../src/ntp/timestamp.ts";
import { Random } from "./random.ts";

/** Nanoseconds of true time since the world began. */
export type Moment = number;

/** Nanoseconds in a second, as a number. */
export const S = 1e9;

interface Event {
  readonly at: Moment;
  readonly order: number;
  readonly callback: () => void;
  cancelled: boolean;
}

/** True time, and what is yet to happen. */
export class World {
  /** Now. */
  now: Moment = 0;
  readonly random: Random;
  readonly hosts = new Map<string, Host>();
  readonly #queue: Event[] = [];
  #order = 0;

  /**
   * @param seed Everything that happens follows from it.
   * @param epoch True time at the beginning: nanoseconds since the Unix epoch.
   */
  constructor(readonly seed: number, readonly epoch = 1_795_342_503n * SECOND) {
    this.random = new Random(seed);
  }

  /** Adds a host. */
  host(address: string, clock: ClockOptions = {}): Host {
    const host = new Host(this, address, clock);
    this.hosts.set(address, host);
    return host;
  }

  /** Has something happen later. @returns A function that prevents it. */
  at(moment: Moment, callback: () => void): () => void {
    const event = {
      at: Math.max(moment, this.now),
      order: this.#order++,
      callback,
      cancelled: false,
    };
    push(this.#queue, event);
    return () => {
      event.cancelled = true;
    };
  }

  /** Lets time pass until a promise is settled. */
  async run<T>(promise: Promise<T>): Promise<T> {
    let settled = false;
    const settle = () => {
      settled = true;
    };
    promise.then(settle, settle);
    for (;;) {
      await everythingElse();
      if (settled) return promise;
      let event = pop(this.#queue);
      while (event?.cancelled) event = pop(this.#queue);
      if (event === undefined) throw new Error("nothing is left to happen, but it is not settled");
      this.now = event.at;
      event.callback();
    }
  }

  /** Lets time pass. */
  sleep(seconds: number): Promise<void> {
    return this.run(new Promise((resolve) => this.at(this.now + seconds * S, resolve)));
  }
}

/** Resolved when all promises that can be resolved now have been, and what waits for them has run. */
function everythingElse(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function before(a: Event, b: Event): boolean {
  return a.at < b.at || a.at === b.at && a.order < b.order;
}

/** Adds to a binary heap. */
function push(heap: Event[], event: Event): void {
  let i = heap.push(event) - 1;
  while (i > 0) {
    const parent = (i - 1) >> 1;
    if (!before(event, heap[parent]!)) break;
    heap[i] = heap[parent]!;
    i = parent;
  }
  heap[i] = event;
}

/** Takes the first from a binary heap. */
function pop(heap: Event[]): Event | undefined {
  const first = heap[0];
  const last = heap.pop();
  if (first === undefined || last === undefined || heap.length === 0) return first;
  let i = 0;
  for (;;) {
    let child = 2 * i + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
    if (!before(heap[child]!, last)) break;
    heap[i] = heap[child]!;
    i = child;
  }
  heap[i] = last;
  return first;
}

/** How a host's clock is wrong. */
export interface ClockOptions {
  /** Seconds that it is ahead at the beginning. Default 0. */
  readonly offset?: number;
  /** Nanoseconds beside, for what a number of seconds cannot say. Default 0. */
  readonly offsetNanoseconds?: bigint;
  /** By how much its oscillator is fast, in ppm. Default 0. */
  readonly frequency?: number;
  /** Random walk of the frequency: standard deviation of a second's change, as a fraction. Default 0. */
  readonly wander?: number;
  /** Nanoseconds between readings that differ. Default 1. */
  readonly precision?: number;
  /** What the kernel says. Default: synchronised, error 0. */
  readonly state?: ClockState | null;
}

const SYNCHRONISED: ClockState = {
  synchronised: true,
  leap: "none",
  maximumError: 0,
  estimatedError: 0,
  frequency: 0,
};

/** A clock of which the simulation knows the truth. */
export class SimulatedClock implements Clock {
  readonly precision: number;
  /** By how much the kernel makes it run faster than its oscillator, as a fraction, but for slews. */
  steered = 0;
  readonly #world: World;
  readonly #state: ClockState | null;
  readonly #wander: number;
  readonly #random: Random;
  readonly #start: bigint;
  readonly #quantum: number;
  /** Nanoseconds that the oscillator has counted since the beginning, at `#counted`. */
  #count = 0;
  #counted: Moment = 0;
  /** When the frequency changes next. */
  #walk: Moment = S;
  #frequency: number;
  /** What has been added to the system clock beside the oscillator's count: steps and slews. */
  #added = 0;
  #slew = 0;
  /** Counted time during which the machine was suspended: only the system clock knows of it. */
  #suspended = 0;

  constructor(world: World, options: ClockOptions, random: Random) {
    this.#world = world;
    this.#quantum = options.precision ?? 1;
    this.precision = this.#quantum / 1e9;
    this.#state = options.state === undefined ? SYNCHRONISED : options.state;
    this.#wander = options.wander ?? 0;
    this.#random = random;
    this.#frequency = (options.frequency ?? 0) / 1e6;
    this.#start = world.epoch + (options.offsetNanoseconds ?? 0n) +
      BigInt(Math.round((options.offset ?? 0) * 1e9));
    this.realtime = this.realtime.bind(this);
    this.monotonic = this.monotonic.bind(this);
  }

  realtime(): bigint {
    return this.#read(this.#start, this.#advance() + this.#added);
  }

  monotonic(): bigint {
    return this.#read(1_000_000_000_000n, this.#advance() - this.#suspended);
  }

  state(): ClockState | null {
    return this.#state && { ...this.#state, frequency: this.steered };
  }

  /** True time against the oscillator, now: as a fraction, how fast the offset to it grows. */
  drift(): number {
    this.#advance();
    return 1 / (1 + this.#frequency) - 1;
  }

  /** What the system clock shows, exactly and unquantised, less its start: nanoseconds. */
  exact(): { start: bigint; count: number } {
    return { start: this.#start, count: this.#advance() + this.#added };
  }

  /** What the monotonic timeline shows, likewise. */
  exactMonotonic(): { start: bigint; count: number } {
    return { start: 1_000_000_000_000n, count: this.#advance() - this.#suspended };
  }

  /** Sets the system clock. */
  step(seconds: number): void {
    this.#added += seconds * S;
  }

  /** Makes the system clock run fast by so many ppm beside its oscillator's error, from now on. */
  slew(ppm: number): void {
    this.#advance();
    this.#slew = ppm / 1e6;
  }

  /** Makes the oscillator's error another one, from now on. */
  setFrequency(ppm: number): void {
    this.#advance();
    this.#frequency = ppm / 1e6;
  }

  /** From now on only the system clock goes on. @returns What ends that. */
  suspend(): () => void {
    const from = this.#advance();
    return () => {
      this.#suspended += this.#advance() - from;
    };
  }

  #read(start: bigint, count: number): bigint {
    return start + BigInt(Math.floor(count / this.#quantum) * this.#quantum);
  }

  #advance(): number {
    const { now } = this.#world;
    // Each second, however often it is read.
    while (this.#wander > 0 && now >= this.#walk) {
      this.#tick(this.#walk);
      this.#frequency += this.#wander * this.#random.normal();
      this.#walk += S;
    }
    this.#tick(now);
    return this.#count;
  }

  #tick(until: Moment): void {
    const elapsed = (until - this.#counted) * (1 + this.#frequency);
    this.#count += elapsed;
    this.#added += elapsed * this.#slew;
    this.#counted = until;
  }
}

/** `theirs - mine`, exactly, in nanoseconds. */
export function trueOffset(
  theirs: { start: bigint; count: number },
  mine: { start: bigint; count: number },
): bigint {
  return theirs.start - mine.start + BigInt(Math.round(theirs.count - mine.count));
}

/** A way from one host to another and back. */
export interface Path {
  /** Draws the delay of one message from client to server, in seconds. */
  readonly out: (random: Random) => number;
  /** Draws the delay of one message from server to client, in seconds. */
  readonly back: (random: Random) => number;
  /** Probability that a segment is lost: it comes a retransmission timeout later, and so does all behind it. */
  readonly loss?: number;
  /** Probability that a datagram comes twice. */
  readonly duplicated?: number;
  /**
   * How many segments a new connection may have in flight each way (TCP: ten, RFC 6928); with each
   * that is acknowledged it may have one more. What is sent beyond them waits, and then leaves as
   * one segment. Default: any number.
   */
  readonly window?: number;
}

/** Seconds until a lost segment is sent again (Linux's least), doubled each time. */
const RETRANSMISSION_TIMEOUT = 0.2;

/** A machine: a clock, and programs that run on it unless it is suspended, stalled or dead. */
export class Host {
  readonly clock: SimulatedClock;
  readonly timers: Timers;
  readonly network: Network;
  /** What names mean, on this host. Others are taken for addresses. A promise that never resolves is a dead DNS. */
  readonly names = new Map<string, string[] | Promise<string[]>>();
  /** From when on nothing is heard of it. */
  dead = false;
  /** The way to it from any client. */
  path: Path = { out: () => 0.001, back: () => 0.001 };
  readonly #world: World;
  readonly #random: Random;
  readonly #listeners = new Map<number, SimulatedListener>();
  readonly #streams = new Set<Stream>();
  readonly #mailboxes = new Map<number, Mailbox>();
  #ports = 50000;
  #asleepUntil: Moment = 0;

  constructor(world: World, readonly address: string, options: ClockOptions) {
    this.#world = world;
    this.#random = world.random.fork();
    this.clock = new SimulatedClock(world, options, world.random.fork());
    this.timers = {
      after: (seconds, callback) => {
        let cancelled = false;
        world.at(world.now + seconds * S, () => this.wake(() => cancelled || callback()));
        return () => {
          cancelled = true;
        };
      },
    };
    this.network = {
      resolve: (name, family) => this.#resolve(name, family),
      connect: (address, signal) => this.#connect(address, signal),
      listen: (address) => this.#listen(address),
      listenDatagrams: (address) => {
        const listener = new Mailbox(address, (datagram, to) => this.#mail(datagram, to));
        this.#mailboxes.set(address.port, listener);
        return listener;
      },
      bind: () => null,
      openDatagrams: (server) => this.#openDatagrams(server),
    };
  }

  /** 64 bits that follow from the seed. */
  readonly nonce = (): bigint => this.#random.bits64();

  /** What the product's `sync()` and `serve()` are given. */
  get environment() {
    const { clock, network, timers, nonce } = this;
    return { clock, network, timers, nonce };
  }

  /** Nothing runs here for so long; all clocks go on. */
  stall(seconds: number): void {
    this.#asleepUntil = Math.max(this.#asleepUntil, this.#world.now + seconds * S);
  }

  /** Nothing runs here for so long, and the monotonic clock stands still (Linux's does). */
  suspend(seconds: number): void {
    this.stall(seconds);
    this.#world.at(this.#asleepUntil, this.clock.suspend());
  }

  /** Breaks all its connections. */
  resetConnections(): void {
    for (const stream of this.#streams) stream.reset();
  }

  /** Runs something here, now or when the host is awake again. */
  wake(callback: () => void): void {
    if (this.dead) return;
    if (this.#asleepUntil > this.#world.now) {
      this.#world.at(this.#asleepUntil, () => this.wake(callback));
    } else callback();
  }

  #resolve(name: string, family: 4 | 6 | undefined): Promise<string[]> {
    const found = this.names.get(name) ?? [name];
    return Promise.resolve(found).then((addresses) =>
      addresses.filter((each) => family === undefined || each.includes(":") === (family === 6))
    );
  }

  #openDatagrams(server: SocketAddress): DatagramPort {
    const port = this.#ports++;
    const mailbox = new Mailbox({ hostname: this.address, port }, () => {});
    this.#mailboxes.set(port, mailbox);
    return {
      send: (bytes) => {
        this.#post({ bytes: bytes.slice(), sender: mailbox.address }, server, "out");
      },
      receive: async (into) => {
        const datagram = await mailbox.receive();
        const arrived = this.clock.monotonic();
        if (datagram === null) return null;
        into.set(datagram.bytes.subarray(0, into.length));
        return { length: datagram.bytes.length, arrived, by: "user" as const };
      },
      close: () => {
        this.#mailboxes.delete(port);
        mailbox.close();
      },
    };
  }

  /** A server's answer: the way is that to the server, back. */
  #mail(datagram: Datagram, to: SocketAddress): void {
    this.#post(datagram, to, "back");
  }

  /** Sends a datagram, which may get lost, come twice, or be overtaken. */
  #post(datagram: Datagram, to: SocketAddress, way: "out" | "back"): void {
    const peer = this.#world.hosts.get(to.hostname);
    if (peer === undefined) return;
    const path = way === "out" ? peer.path : this.path;
    const copies = this.#random.uniform() < (path.duplicated ?? 0) ? 2 : 1;
    for (let i = 0; i < copies; i++) {
      if (this.#random.uniform() < (path.loss ?? 0)) continue;
      const at = this.#world.now + path[way](this.#random) * S;
      this.#world.at(at, () => peer.wake(() => peer.#mailboxes.get(to.port)?.arrive(datagram)));
    }
  }

  #listen(address: SocketAddress): Listener {
    const listener = new SimulatedListener(address, () => this.#listeners.delete(address.port));
    this.#listeners.set(address.port, listener);
    return listener;
  }

  #connect({ hostname, port }: SocketAddress, signal: AbortSignal): Promise<Connection> {
    const server = this.#world.hosts.get(hostname);
    const { promise, resolve, reject } = Promise.withResolvers<Connection>();
    const onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    if (server === undefined) return promise;
    // The way may change while they are connected.
    const direction = (to: Host, way: "out" | "back") =>
      new Direction(this.#world, server, this.#random, to, way);
    const [out, back] = [direction(server, "out"), direction(this, "back")];
    out.deliver(() => {
      const listener = server.#listeners.get(port);
      if (listener === undefined) {
        back.deliver(() => reject(new Deno.errors.ConnectionRefused("Connection refused")));
        return;
      }
      const client = new Stream({ hostname, port }, out);
      const accepted = new Stream({ hostname: this.address, port: 50000 }, back);
      client.peer = accepted;
      accepted.peer = client;
      this.#streams.add(client);
      server.#streams.add(accepted);
      listener.arrive(accepted);
      back.deliver(() => {
        signal.removeEventListener("abort", onAbort);
        if (signal.aborted) client.close();
        else resolve(client);
      });
    });
    return promise;
  }
}

/** One direction of a connection: in order, so that what is late holds up what is behind it. */
class Direction {
  #last: Moment = 0;
  readonly #loss: number;
  #window: number;
  /** Segments that are not acknowledged. */
  #inFlight = 0;
  /** Bytes for which there is no room in the window, and who is to get them. */
  readonly #waiting: number[] = [];
  #receive: (bytes: number[]) => void = () => {};

  /** @param server Whose path it is; it may change meanwhile. */
  constructor(
    readonly world: World,
    readonly server: Host,
    readonly random: Random,
    readonly to: Host,
    readonly way: "out" | "back",
  ) {
    const { loss = 0, window = Infinity } = server.path;
    this.#loss = loss;
    this.#window = window;
  }

  /** Has something happen at the far end after a delay. */
  deliver(callback: () => void): void {
    let seconds = this.server.path[this.way](this.random);
    let timeout = RETRANSMISSION_TIMEOUT;
    while (this.random.uniform() < this.#loss) {
      seconds += timeout;
      timeout *= 2;
    }
    this.#last = Math.max(this.#last, this.world.now + seconds * S);
    this.world.at(this.#last, () => this.to.wake(callback));
  }

  /** Sends bytes as soon as the window allows it. */
  send(bytes: readonly number[], receive: (bytes: number[]) => void): void {
    this.#waiting.push(...bytes);
    this.#receive = receive;
    this.#sendWaiting();
  }

  #sendWaiting(): void {
    if (this.#waiting.length === 0 || this.#inFlight >= this.#window) return;
    const segment = this.#waiting.splice(0);
    this.#inFlight++;
    this.deliver(() => {
      if (this.#window < Infinity) this.#acknowledge();
      this.#receive(segment);
    });
  }

  /** The reply carries it, so it takes as long as one does. */
  #acknowledge(): void {
    const seconds = this.server.path[this.way === "out" ? "back" : "out"](this.random);
    this.world.at(this.world.now + seconds * S, () => {
      this.#inFlight--;
      this.#window++;
      this.#sendWaiting();
    });
  }
}

class Stream implements Connection {
  peer: Stream | undefined;
  #received: number[] = [];
  #ended = false;
  #error: Error | undefined;
  #waiting: (() => void) | undefined;

  constructor(readonly remote: SocketAddress, readonly direction: Direction) {}

  async read(into: Uint8Array): Promise<number | null> {
    if (this.#received.length === 0 && !this.#ended && this.#error === undefined) {
      if (this.#waiting !== undefined) throw new Error("two reads at once");
      await new Promise<void>((resolve) => this.#waiting = resolve);
    }
    if (this.#error !== undefined) throw this.#error;
    if (this.#received.length === 0) return null;
    const piece = this.#received.splice(0, into.length);
    into.set(piece);
    return piece.length;
  }

  write(bytes: Uint8Array): Promise<number> {
    if (this.#error !== undefined) return Promise.reject(this.#error);
    this.direction.send([...bytes], (segment) => this.peer!.#receive(segment));
    return Promise.resolve(bytes.length);
  }

  close(): void {
    if (this.#error !== undefined) return;
    this.#fail(new Deno.errors.BadResource("Bad resource ID"));
    this.direction.deliver(() => this.peer!.#end());
  }

  /** Both ends learn that the connection is broken. */
  reset(): void {
    const error = new Deno.errors.ConnectionReset("Connection reset by peer");
    this.#fail(error);
    this.direction.deliver(() => this.peer!.#fail(error));
  }

  #receive(bytes: number[]): void {
    this.#received.push(...bytes);
    this.#resume();
  }

  #end(): void {
    this.#ended = true;
    this.#resume();
  }

  #fail(error: Error): void {
    this.#error ??= error;
    this.#resume();
  }

  #resume(): void {
    const resume = this.#waiting;
    this.#waiting = undefined;
    resume?.();
  }
}

class SimulatedListener implements Listener {
  readonly transport = "tcp";
  readonly #arrived: Connection[] = [];
  #waiting: (() => void) | undefined;
  #closed = false;

  constructor(readonly address: SocketAddress, readonly onClose: () => void) {}

  async accept(): Promise<Connection | null> {
    while (this.#arrived.length === 0 && !this.#closed) {
      await new Promise<void>((resolve) => this.#waiting = resolve);
    }
    return this.#arrived.shift() ?? null;
  }

  arrive(connection: Connection): void {
    if (this.#closed) throw new Error(`${formatAddress(this.address)} is closed`);
    this.#arrived.push(connection);
    this.#waiting?.();
  }

  close(): void {
    this.#closed = true;
    this.onClose();
    this.#waiting?.();
  }
}

/** Datagrams that have come to a port. */
class Mailbox implements DatagramListener {
  readonly #arrived: Datagram[] = [];
  #waiting: (() => void) | undefined;
  #closed = false;

  constructor(
    readonly address: SocketAddress,
    readonly post: (datagram: Datagram, to: SocketAddress) => void,
  ) {}

  async receive(): Promise<Datagram | null> {
    while (this.#arrived.length === 0 && !this.#closed) {
      await new Promise<void>((resolve) => this.#waiting = resolve);
    }
    return this.#closed ? null : this.#arrived.shift()!;
  }

  arrive(datagram: Datagram): void {
    this.#arrived.push(datagram);
    this.#waiting?.();
  }

  send(bytes: Uint8Array, to: SocketAddress): void {
    this.post({ bytes: bytes.slice(), sender: this.address }, to);
  }

  close(): void {
    this.#closed = true;
    this.#waiting?.();
  }
}
