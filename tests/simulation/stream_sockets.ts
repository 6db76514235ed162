/**
 * Sockets as epoll has them, made of a network's connections: level-triggered,
 * never waiting. What is done with them then runs in virtual time too.
 *
 * @module
 */

import type { Clock, Timers } from "../../src/clock/clock.ts";
import { WOULD_BLOCK } from "../../src/net/linux/message.ts";
import { type Accepted, NoRoom, type StreamSockets } from "../../src/net/linux/stream_sockets.ts";
import type { Connection, Listener } from "../../src/net/network.ts";
import { Counters, type Refusal } from "../../src/serve/counters.ts";
import { EpollStreams } from "../../src/serve/epoll_streams.ts";
import { replyTemplate } from "../../src/serve/reply.ts";
import { SessionContext } from "../../src/serve/session.ts";
import { Admission, type Limits } from "../../src/serve/admission.ts";

/** A message that is sent to a broken connection. */
const EPIPE = -32;

/** The descriptor of the listener. */
const LISTENER = 0;

interface Socket {
  readonly connection: Connection;
  /** What has come and was not received yet; afterwards the stream is open, over or broken. */
  arrived: number[];
  state: "open" | "over" | "broken";
  /** Is something being written? */
  writing: boolean;
  awaited: "read" | "write";
  /** Has somebody been told, who has not looked yet? */
  told: boolean;
}

/** Calls a server when one of its sockets is ready. */
export class ConnectionSockets implements StreamSockets {
  readonly received = new Uint8Array(48);
  /** Who is told. */
  onReady: (fd: number) => void = () => {};
  /** Is there no room for another connection? */
  full = false;
  /** Refused for want of room, in all. */
  refused = 0;
  readonly #sockets = new Map<number, Socket>();
  readonly #accepted: Connection[] = [];
  #listening = false;
  #next = LISTENER + 1;

  /** Something has connected. */
  arrive(connection: Connection): void {
    this.#accepted.push(connection);
    this.addListener();
  }

  addListener(): void {
    this.#listening = true;
    if (this.#accepted.length > 0) this.onReady(LISTENER);
  }

  removeListener(): void {
    this.#listening = false;
  }

  accept(): Accepted | null {
    if (!this.#listening || this.#accepted.length === 0) return null;
    if (this.full) {
      this.refused++;
      throw new NoRoom("Too many open files");
    }
    const connection = this.#accepted.shift()!;
    const fd = this.#next++;
    const socket: Socket = {
      connection,
      arrived: [],
      state: "open",
      writing: false,
      awaited: "read",
      told: false,
    };
    this.#sockets.set(fd, socket);
    this.#read(fd, socket);
    return { fd, address: connection.remote.hostname };
  }

  receive(fd: number, most: number): number {
    const socket = this.#sockets.get(fd)!;
    const piece = socket.arrived.splice(0, most);
    this.received.set(piece);
    if (piece.length === 0 && socket.state === "open") return WOULD_BLOCK;
    if (piece.length === 0) return socket.state === "over" ? 0 : EPIPE;
    if (socket.arrived.length === 0 && socket.state === "open") this.#read(fd, socket);
    return piece.length;
  }

  arrived(): bigint {
    return 0n;
  }

  send(fd: number, bytes: Uint8Array): number {
    const socket = this.#sockets.get(fd)!;
    if (socket.state === "broken") return EPIPE;
    if (socket.writing) return WOULD_BLOCK;
    socket.writing = true;
    socket.connection.write(bytes.slice()).then(() => {
      socket.writing = false;
      this.#tell(fd, socket);
    }, () => {
      socket.state = "broken";
      this.#tell(fd, socket);
    });
    return bytes.length;
  }

  waitFor(fd: number, what: "read" | "write"): void {
    const socket = this.#sockets.get(fd)!;
    socket.awaited = what;
    this.#tell(fd, socket);
  }

  close(fd: number): void {
    this.#sockets.get(fd)!.connection.close();
    this.#sockets.delete(fd);
  }

  async #read(fd: number, socket: Socket): Promise<void> {
    const into = new Uint8Array(48);
    try {
      const count = await socket.connection.read(into);
      if (count === null) socket.state = "over";
      else socket.arrived.push(...into.subarray(0, count));
    } catch {
      socket.state = "broken";
    }
    this.#tell(fd, socket);
  }

  /** As long as a socket is ready, again and again, with others in between. */
  #tell(fd: number, socket: Socket): void {
    if (socket.told || this.#sockets.get(fd) !== socket || !isReady(socket)) return;
    socket.told = true;
    queueMicrotask(() => {
      socket.told = false;
      if (this.#sockets.get(fd) !== socket || !isReady(socket)) return;
      this.onReady(fd);
      this.#tell(fd, socket);
    });
  }
}

function isReady({ arrived, state, writing, awaited }: Socket): boolean {
  if (state === "broken") return true;
  return awaited === "read" ? arrived.length > 0 || state === "over" : !writing;
}

/** A server's part for streams, without the rest: what `serve()` would say of it. */
export class StreamServing {
  readonly sockets = new ConnectionSockets();
  counters = { connections: 0, replies: 0 };
  /** Requests without a kernel's stamp: all. */
  unstamped = 0;
  readonly refusals: { event: "refused"; reason: Refusal; count: number }[] = [];
  readonly #sessions: SessionContext;
  readonly #streams: EpollStreams;
  #cancelTick = () => {};

  constructor(
    options: Limits & { idleTimeout?: number },
    readonly clock: Clock,
    readonly timers: Timers,
  ) {
    const { idleTimeout = 300, ...limits } = options;
    this.#sessions = new SessionContext(
      new Admission(limits),
      new Counters(),
      () => clock.realtime(),
      idleTimeout,
    );
    this.#streams = new EpollStreams(this.sockets, this.#sessions, timers);
    this.sockets.onReady = (fd) => this.#streams.onReady(fd);
    this.#streams.listen(LISTENER);
    this.#tick();
  }

  /** Serves what connects to a listener. */
  async listen(listener: Listener): Promise<void> {
    for (;;) {
      const connection = await listener.accept();
      if (connection === null) return;
      this.sockets.arrive(connection);
    }
  }

  async stop(): Promise<void> {
    this.#cancelTick();
    this.#sessions.stopping = true;
    this.#streams.stop();
    while (this.#streams.open > 0) {
      await new Promise<void>((resolve) => this.timers.after(0.1, resolve));
    }
    this.#streams.close();
    this.count();
  }

  /** Takes what has been counted since. */
  count(): void {
    const { counters } = this.#sessions;
    const [tcp] = counters.increases();
    const totals = counters.totals;
    this.counters = { connections: totals.connections, replies: totals.tcp.replies };
    this.unstamped += tcp!.unstamped;
    for (const [reason, count] of tcp!.refusals) {
      this.refusals.push({ event: "refused", reason, count });
    }
  }

  #tick(): void {
    const realtime = this.clock.realtime();
    this.#sessions.template = replyTemplate(this.clock.state(), this.clock.precision, realtime);
    this.#sessions.admission.forget(realtime);
    this.#streams.tick();
    this.#cancelTick = this.timers.after(1, () => this.#tick());
  }
}
