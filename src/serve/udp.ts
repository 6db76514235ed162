/**
 * NTP over UDP: on Linux a worker that waits in the kernel, elsewhere the event
 * loop.
 *
 * @module
 */

import type { Clock, Timers } from "../clock/clock.ts";
import type { SocketAddress } from "../net/address.ts";
import type { BoundSocket } from "../net/libc/socket.ts";
import type { DatagramListener } from "../net/udp.ts";
import { PACKET_SIZE } from "../ntp/packet.ts";
import { Admission, type Limits, unmapped } from "./admission.ts";
import {
  answerDatagram,
  DATAGRAM_REFUSALS,
  type DatagramRefusal,
  SHARED,
  SHARED_SIZE,
  type WorkerOrder,
} from "./datagram.ts";
import { stampTransmit } from "./respond.ts";

/** Answers datagrams that come to one address. */
export interface DatagramService {
  readonly address: SocketAddress;
  /** Requests answered since it was last asked, and those that were not, by reason. */
  count(): { readonly replies: number; readonly refusals: ReadonlyMap<DatagramRefusal, number> };
  /** Once a second: what the server says of its own clock. */
  announce(announced: Uint8Array, now: bigint): void;
  stop(): Promise<void>;
  /** Stops, and lets nobody wait. */
  close(): void;
}

/** Seconds before a worker that has died is replaced. */
const RESTART_PAUSE = 1;

/** A worker in the kernel. It looks at the clock by itself. */
export class WorkerService implements DatagramService {
  readonly address: SocketAddress;
  readonly #shared = new SharedArrayBuffer(SHARED_SIZE);
  readonly #figures = new Float64Array(this.#shared);
  readonly #order: WorkerOrder;
  readonly #socket: BoundSocket;
  readonly #timers: Timers;
  readonly #onFailure: (error: string) => void;
  readonly #stopped = Promise.withResolvers<void>();
  #cancelRestart = () => {};
  #running = false;
  #seen: readonly number[] = Array.from(this.#figures);

  /** @param onFailure Told why a worker has died, before another takes its place. */
  constructor(
    socket: BoundSocket,
    limits: Limits,
    stratum: number | undefined,
    timers: Timers,
    onFailure: (error: string) => void,
  ) {
    this.#socket = socket;
    this.address = socket.address;
    const { allow, deny, rate } = limits;
    this.#order = { fd: socket.fd, stratum, limits: { allow, deny, rate }, shared: this.#shared };
    this.#timers = timers;
    this.#onFailure = onFailure;
    this.#start();
  }

  count() {
    const now = Array.from(this.#figures);
    const grown = (i: number) => now[i]! - this.#seen[i]!;
    const refusals = new Map(
      DATAGRAM_REFUSALS.map((refusal, i) => [refusal, grown(SHARED.refusals + i)]),
    );
    const replies = grown(SHARED.replies);
    this.#seen = now;
    return { replies, refusals };
  }

  announce(): void {}

  stop(): Promise<void> {
    this.#figures[SHARED.stop] = 1;
    if (!this.#running) this.#end();
    return this.#stopped.promise;
  }

  close(): void {
    this.stop();
  }

  #start(): void {
    this.#running = true;
    const worker = new Worker(new URL("./udp_worker.ts", import.meta.url), { type: "module" });
    const failed = (error: string) => {
      this.#running = false;
      worker.terminate();
      if (this.#figures[SHARED.stop] !== 0) return this.#end();
      this.#cancelRestart = this.#timers.after(RESTART_PAUSE, () => this.#start());
      this.#onFailure(error);
    };
    worker.onmessage = ({ data }: MessageEvent<string | null>) =>
      data === null ? this.#end() : failed(data);
    worker.onerror = (event) => {
      event.preventDefault();
      failed(event.message);
    };
    worker.postMessage(this.#order);
  }

  #end(): void {
    this.#cancelRestart();
    this.#socket.close();
    this.#stopped.resolve();
  }
}

/** Datagrams that the program stamps itself. */
export class EventLoopService implements DatagramService {
  readonly address: SocketAddress;
  readonly #listener: DatagramListener;
  readonly #clock: Clock;
  readonly #admission: Admission;
  #running: Promise<void> | null = null;
  #announced: Uint8Array = new Uint8Array();
  #replies = 0;
  #refusals = new Map<DatagramRefusal, number>();

  constructor(listener: DatagramListener, limits: Limits, clock: Clock) {
    this.#listener = listener;
    this.address = listener.address;
    this.#clock = clock;
    this.#admission = new Admission(limits);
  }

  count() {
    const counts = { replies: this.#replies, refusals: this.#refusals };
    this.#replies = 0;
    this.#refusals = new Map();
    return counts;
  }

  announce(announced: Uint8Array, now: bigint): void {
    this.#announced = announced;
    this.#admission.forget(now);
    this.#running ??= this.#run(); // Before, it had nothing to say.
  }

  async stop(): Promise<void> {
    this.#listener.close();
    await this.#running;
  }

  close(): void {
    this.stop();
  }

  async #run(): Promise<void> {
    const reply = new Uint8Array(PACKET_SIZE);
    for (;;) {
      const datagram = await this.#listener.receive();
      const received = this.#clock.realtime();
      if (datagram === null) return;
      const { bytes, sender } = datagram;
      let answered = false;
      const refusal = answerDatagram(
        this.#admission,
        unmapped(sender.hostname),
        bytes.subarray(0, PACKET_SIZE),
        bytes.length,
        this.#announced,
        received,
        () => {
          answered = true;
          return reply;
        },
      );
      if (refusal === null) this.#replies++;
      else this.#refusals.set(refusal, (this.#refusals.get(refusal) ?? 0) + 1);
      if (!answered) continue;
      const bytesToSend = reply.slice(); // It may wait while the next is made.
      stampTransmit(bytesToSend, this.#clock.realtime());
      this.#listener.send(bytesToSend, sender);
    }
  }
}
