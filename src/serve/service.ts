/**
 * What answers beside Deno's own connections: a worker whose sockets the
 * kernel stamps, and where that cannot be, datagrams from the event loop.
 *
 * @module
 */

import type { Clock, Timers } from "../clock/clock.ts";
import type { BoundSocket } from "../net/libc/socket.ts";
import type { DatagramListener } from "../net/udp.ts";
import { PACKET_SIZE } from "../ntp/packet.ts";
import type { Admission, Limits } from "./admission.ts";
import { answerDatagram } from "./answer.ts";
import { Figures } from "./figures.ts";
import { stampTransmit } from "./respond.ts";
import type { StreamOptions } from "./streams.ts";
import { Thread } from "./thread.ts";

/** Answers by itself, and counts. */
export interface Service {
  readonly figures: Figures;
  /** Does it answer at present? */
  readonly running: boolean;
  start(): void;
  /** Once a second: what the server says of its own clock. */
  announce(announced: Uint8Array): void;
  /** Accepts nobody any more and finishes what is in flight. @returns When all is closed. */
  stop(): Promise<void>;
}

/** What a worker is told when it starts. */
export interface WorkerOrder extends StreamOptions {
  readonly sockets: readonly { readonly transport: "tcp" | "udp"; readonly fd: number }[];
  readonly limits: Limits;
  readonly shared: SharedArrayBuffer;
}

/** A worker in the kernel, for all sockets. It looks at the clock by itself. */
export class WorkerService implements Service {
  readonly figures = new Figures();
  readonly #order: WorkerOrder;
  readonly #sockets: readonly BoundSocket[];
  readonly #thread: Thread;
  readonly #stopped = Promise.withResolvers<void>();

  /** @param onFailure Told why a worker has died, before another takes its place. */
  constructor(
    sockets: readonly BoundSocket[],
    { stratum, idleTimeout }: StreamOptions,
    limits: Limits,
    timers: Timers,
    onFailure: (error: string) => void,
  ) {
    this.#sockets = sockets;
    const { allow, deny, maxClients, maxClientsPerAddress, rate } = limits;
    this.#order = {
      sockets: sockets.map(({ transport, fd }) => ({ transport, fd })),
      stratum,
      idleTimeout,
      limits: { allow, deny, maxClients, maxClientsPerAddress, rate },
      shared: this.figures.shared,
    };
    const thread = this.#thread = new Thread({
      module: new URL("./worker.ts", import.meta.url),
      onMessage: (failure) => failure === null ? this.#end() : thread.failed(failure as string),
      onFailure: (error) => this.figures.stopping ? this.#end() : onFailure(error),
    }, timers);
  }

  start(): void {
    this.#thread.start(this.#order);
  }

  get running(): boolean {
    return this.#thread.running;
  }

  announce(): void {}

  stop(): Promise<void> {
    this.figures.stop();
    for (const socket of this.#sockets) if (socket.transport === "tcp") socket.shut();
    if (!this.#thread.running) this.#end();
    return this.#stopped.promise;
  }

  #end(): void {
    this.#thread.end();
    for (const socket of this.#sockets) socket.close();
    this.#stopped.resolve();
  }
}

/** Datagrams that the program stamps itself. */
export class EventLoopService implements Service {
  readonly figures = new Figures();
  readonly #listener: DatagramListener;
  readonly #clock: Clock;
  readonly #admission: Admission;
  #running: Promise<void> | null = null;
  #announced: Uint8Array = new Uint8Array();

  constructor(listener: DatagramListener, admission: Admission, clock: Clock) {
    this.#listener = listener;
    this.#clock = clock;
    this.#admission = admission;
  }

  start(): void {
    this.#running = this.#run();
  }

  get running(): boolean {
    return this.#running !== null;
  }

  announce(announced: Uint8Array): void {
    this.#announced = announced;
    this.figures.beat();
  }

  async stop(): Promise<void> {
    this.#listener.close();
    await this.#running;
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
        sender.hostname,
        bytes.subarray(0, PACKET_SIZE),
        bytes.length,
        this.#announced,
        received,
        () => {
          answered = true;
          return reply;
        },
      );
      if (refusal !== null) this.figures.refuse("udp", refusal);
      if (!answered) continue;
      const bytesToSend = reply.slice(); // It may wait while the next is made.
      const transmitted = this.#clock.realtime();
      stampTransmit(bytesToSend, transmitted);
      this.#listener.send(bytesToSend, sender);
      if (refusal === null) this.figures.reply("udp", transmitted - received);
    }
  }
}
