/**
 * Serves connections that epoll waits for.
 *
 * @module
 */

import type { Timers } from "../clock/clock.ts";
import { WOULD_BLOCK } from "../net/linux/message.ts";
import { NoRoom, type StreamSockets } from "../net/linux/stream_sockets.ts";
import { PACKET_SIZE } from "../ntp/packet.ts";
import { GRACE_SECONDS } from "./idle_monitor.ts";
import { ACCEPT_PAUSE_SECONDS, type Trouble } from "./lifecycle.ts";
import { Session, type SessionContext } from "./session.ts";

/** Connections accepted in a row before other sockets are served. */
const MAX_ACCEPTS = 64;

/**
 * The sessions of one descriptor, one after another. Reused, since the garbage collector seldom gets
 * to run in a loop that waits in the kernel.
 */
class Stream extends Session {
  /** The rest of a reply, when sending would have blocked. */
  unsent: Uint8Array<ArrayBuffer> | null = null;

  constructor(sessions: SessionContext, readonly fd: number) {
    super(sessions);
  }

  get idle(): boolean {
    return this.empty && this.unsent === null;
  }
}

/** Accepts connections and answers requests on them. */
export class EpollStreams {
  readonly #sockets: StreamSockets;
  readonly #sessions: SessionContext;
  readonly #timers: Timers;
  readonly #reply = new Uint8Array(PACKET_SIZE);
  /** By descriptor, open or not. */
  readonly #streams: (Stream | undefined)[] = [];
  #open = 0;
  readonly #listeners = new Set<number>();
  /** Listeners not waited for, for want of descriptors; each with a function that cancels the retry. */
  readonly #paused = new Map<number, () => void>();
  #trouble: Trouble | null = null;
  #cancelGrace = () => {};

  constructor(sockets: StreamSockets, sessions: SessionContext, timers: Timers) {
    this.#sockets = sockets;
    this.#sessions = sessions;
    this.#timers = timers;
  }

  /** The number of open connections. */
  get open(): number {
    return this.#open;
  }

  /** Starts to accept connections from a listener. */
  listen(listener: number): void {
    this.#listeners.add(listener);
    this.#sockets.addListener(listener);
  }

  /** Serves a descriptor that is ready; ignores one that was closed just before. */
  onReady(fd: number): void {
    const stream = this.#streams[fd];
    if (stream !== undefined && stream.client !== null) {
      if (stream.unsent === null) this.#receive(stream);
      else this.#sendRest(stream, stream.unsent);
    } else if (this.#listeners.has(fd)) this.#accept(fd);
  }

  /** Closes what is idle or slow. Call it once a second. @returns What has prevented accepting since. */
  tick(): Trouble | null {
    for (const stream of this.#opened()) {
      const refusal = stream.check(stream.idle, this.#sessions.idleTimeout);
      if (refusal === null) continue;
      stream.refusal ??= refusal;
      this.#close(stream);
    }
    const trouble = this.#trouble;
    this.#trouble = null; // A lasting error recurs before the next tick.
    return trouble;
  }

  /** Stops accepting, closes idle connections, and gives pending messages a while to finish. */
  stop(): void {
    for (const listener of this.#listeners) this.#sockets.removeListener(listener);
    this.#listeners.clear();
    this.#forgetPaused();
    for (const stream of this.#opened()) if (stream.idle) this.#close(stream);
    this.#cancelGrace = this.#timers.after(GRACE_SECONDS, () => this.close());
  }

  /** Closes all connections. */
  close(): void {
    this.#cancelGrace();
    this.#forgetPaused();
    for (const stream of this.#opened()) this.#close(stream);
  }

  #forgetPaused(): void {
    for (const cancel of this.#paused.values()) cancel();
    this.#paused.clear();
  }

  *#opened(): Generator<Stream> {
    for (const stream of this.#streams) {
      if (stream !== undefined && stream.client !== null) yield stream;
    }
  }

  #accept(listener: number): void {
    const sessions = this.#sessions;
    for (let i = 0; i < MAX_ACCEPTS; i++) {
      const accepted = this.#tryAccept(listener);
      if (accepted === null) return;
      if (accepted === "lost") {
        sessions.counters.refuse("tcp", "reset");
        continue;
      }
      const { fd, address } = accepted;
      const client = sessions.admit(address);
      if (client === null) {
        this.#sockets.close(fd);
        continue;
      }
      (this.#streams[fd] ??= new Stream(sessions, fd)).begin(client);
      this.#open++;
    }
  }

  #tryAccept(listener: number) {
    try {
      return this.#sockets.accept(listener);
    } catch (error) {
      if (!(error instanceof NoRoom)) throw error;
      this.#sockets.removeListener(listener);
      this.#pause(listener, error);
      return null;
    }
  }

  #pause(listener: number, error: NoRoom): void {
    this.#trouble = { event: "accept-failed", error: error.message };
    this.#listeners.delete(listener);
    const cancel = this.#timers.after(ACCEPT_PAUSE_SECONDS, () => {
      this.#paused.delete(listener);
      try {
        this.listen(listener);
      } catch (again) {
        if (!(again instanceof NoRoom)) throw again;
        this.#pause(listener, again);
      }
    });
    this.#paused.set(listener, cancel);
  }

  #receive(stream: Stream): void {
    const sockets = this.#sockets;
    const count = sockets.receive(stream.fd, stream.missing);
    if (count <= 0) {
      if (count !== WOULD_BLOCK) this.#close(stream, count < 0);
      return;
    }
    const taken = stream.take(sockets.received, count);
    if (taken === "refused") return this.#close(stream);
    if (taken === "more") return;
    let arrived = sockets.arrived();
    if (arrived === 0n) {
      arrived = this.#sessions.now();
      this.#sessions.counters.unstamped("tcp");
    }
    stream.answer(arrived, this.#reply);
    stream.stamp(this.#reply);
    const sent = sockets.send(stream.fd, this.#reply);
    stream.replied();
    if (sent < PACKET_SIZE) this.#keep(stream, this.#reply, sent);
    else if (stream.refusal !== null || this.#sessions.stopping) this.#close(stream);
  }

  /** Sending would block, since the client does not read: read nothing more until it does. */
  #keep(stream: Stream, bytes: Uint8Array<ArrayBuffer>, sent: number): void {
    if (sent < 0 && sent !== WOULD_BLOCK) return this.#close(stream, true);
    stream.unsent = bytes.slice(Math.max(sent, 0));
    this.#sockets.waitFor(stream.fd, "write");
  }

  #sendRest(stream: Stream, bytes: Uint8Array<ArrayBuffer>): void {
    const sent = this.#sockets.send(stream.fd, bytes);
    if (sent < bytes.length) return this.#keep(stream, bytes, sent);
    stream.unsent = null;
    if (stream.refusal !== null || this.#sessions.stopping) this.#close(stream);
    else this.#sockets.waitFor(stream.fd, "read");
  }

  #close(stream: Stream, broken = false): void {
    this.#open--;
    this.#sockets.close(stream.fd);
    stream.unsent = null;
    stream.end(broken);
  }
}
