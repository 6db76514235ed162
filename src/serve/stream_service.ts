/**
 * Serves Deno's connections: those with TLS, and all where the kernel does not
 * take timestamps.
 *
 * @module
 */

import type { Timers } from "../clock/clock.ts";
import { errorText, isLost } from "../net/errors.ts";
import { MessageWriter } from "../net/framing.ts";
import type { Certificate, Connection, Listener } from "../net/network.ts";
import { PACKET_SIZE } from "../ntp/packet.ts";
import type { Client } from "./admission.ts";
import { FairQueue } from "./fair_queue.ts";
import { GRACE_SECONDS } from "./idle_monitor.ts";
import { ACCEPT_PAUSE_SECONDS, type Service, type Trouble } from "./lifecycle.ts";
import { Session, type SessionContext } from "./session.ts";

/** Accepts connections and answers requests on them. */
export class StreamService implements Service {
  readonly #listeners: readonly Listener[];
  readonly #sessions: SessionContext;
  readonly #timers: Timers;
  readonly #shared: Shared;
  readonly #connections = new Set<ServedConnection>();
  /** Accept loops and connections that have not ended. */
  #running = 0;
  readonly #ended = Promise.withResolvers<void>();
  readonly #stopping = Promise.withResolvers<void>();
  #trouble: Trouble | null = null;

  constructor(listeners: readonly Listener[], sessions: SessionContext, timers: Timers) {
    this.#listeners = listeners;
    this.#sessions = sessions;
    const onEnd = (served: ServedConnection) => {
      this.#connections.delete(served);
      this.#end();
    };
    this.#shared = { sessions, queue: new FairQueue(), onEnd };
    this.#timers = timers;
  }

  start(): void {
    for (const listener of this.#listeners) {
      this.#running++;
      this.#accept(listener).finally(() => this.#end());
    }
  }

  tick(): readonly Trouble[] {
    for (const served of this.#connections) served.checkTimeouts();
    const trouble = this.#trouble;
    this.#trouble = null; // A lasting error recurs before the next tick.
    return trouble === null ? [] : [trouble];
  }

  async stop(): Promise<void> {
    this.#stopping.resolve();
    for (const listener of this.#listeners) listener.close();
    if (this.#running === 0) return;
    // Between two requests nothing is in flight.
    for (const served of this.#connections) if (served.idle) served.close();
    const grace = Promise.withResolvers<void>();
    const cancel = this.#timers.after(GRACE_SECONDS, () => {
      for (const served of this.#connections) served.close();
      // A pending write may outlive its connection: do not wait for it.
      grace.resolve();
    });
    await Promise.race([this.#ended.promise, grace.promise]);
    cancel();
  }

  /** Shows another certificate from now on. All listeners must be TLS's. */
  renew(certificate: Certificate): void {
    for (const listener of this.#listeners) listener.renew!(certificate);
  }

  #end(): void {
    if (--this.#running === 0) this.#ended.resolve();
  }

  async #accept(listener: Listener): Promise<void> {
    const sessions = this.#sessions;
    while (!sessions.stopping) {
      try {
        const connection = await listener.accept();
        if (connection === null) return;
        if (sessions.stopping) return connection.close();
        const client = sessions.admit(connection.remote.hostname);
        if (client === null) {
          connection.close();
          continue;
        }
        const served = new ServedConnection(connection, client, this.#shared);
        this.#connections.add(served);
        this.#running++;
        served.start(listener.transport === "tls");
      } catch (error) {
        if (isLost(error)) {
          sessions.counters.refuse("tcp", "reset");
          continue;
        }
        // For want of file descriptors, say. Open connections stay open.
        this.#trouble = { event: "accept-failed", error: errorText(error) };
        const { promise, resolve } = Promise.withResolvers<void>();
        const cancel = this.#timers.after(ACCEPT_PAUSE_SECONDS, resolve);
        await Promise.race([promise, this.#stopping.promise]);
        cancel();
      }
    }
  }
}

/** What all connections share. */
interface Shared {
  readonly sessions: SessionContext;
  readonly queue: FairQueue;
  readonly onEnd: (served: ServedConnection) => void;
}

/**
 * Carries one session. There may be ten thousand, so callbacks replace async
 * functions, which saves 1 kB each.
 */
class ServedConnection {
  readonly #connection: Connection;
  readonly #session: Session;
  readonly #shared: Shared;
  readonly #writer: MessageWriter;
  readonly #reply = new Uint8Array(PACKET_SIZE);
  /** The buffer of the pending read. */
  #into = this.#reply;
  #handshaking = false;
  /** T2 of the last whole message. */
  #arrived = 0n;

  constructor(connection: Connection, client: Client, shared: Shared) {
    this.#connection = connection;
    this.#session = new Session(shared.sessions);
    this.#session.begin(client);
    this.#shared = shared;
    this.#writer = new MessageWriter(connection, this.#reply);
  }

  /** Whether it is between two requests. */
  get idle(): boolean {
    return this.#session.empty && this.#writer.writing === null && !this.#handshaking;
  }

  /** Ends it by failing its pending reads and writes. */
  close(): void {
    this.#connection.close(this.#writer.writing !== null);
  }

  /** @param secure Whether a TLS handshake comes first. */
  start(secure: boolean): void {
    if (secure) this.#awaitTls();
    else this.#read();
  }

  /** Closes the connection if it has been idle or slow for too long. Call it once a second. */
  checkTimeouts(): void {
    const refusal = this.#session.check(this.idle, this.#shared.sessions.idleTimeout);
    if (refusal === null) return;
    this.#session.refusal ??= refusal;
    this.close();
  }

  async #awaitTls(): Promise<void> {
    this.#handshaking = true;
    try {
      await this.#connection.awaitTls!();
    } catch {
      this.#session.refusal ??= "tls";
      return this.#end(true);
    }
    this.#handshaking = false;
    this.#read();
  }

  readonly #read = (): void => {
    if (this.#shared.sessions.stopping) {
      Promise.resolve(false).then(this.#end); // A reply may be about to leave: let it go first.
      return;
    }
    this.#into = this.#session.room;
    // Attached directly to the promise of the read, so that nothing else runs before the timestamp.
    this.#connection.read(this.#into).then(this.#onBytes, this.#onBroken);
  };

  readonly #onBytes = (count: number | null): void => {
    this.#arrived = this.#shared.sessions.now();
    const taken = count === null ? "refused" : this.#session.take(this.#into, count);
    if (taken === "refused") this.#end(false);
    else if (taken === "more") this.#read();
    else this.#answer();
  };

  readonly #onBroken = (): void => {
    this.#end(true);
  };

  readonly #answer = (): void => {
    const session = this.#session;
    const writer = this.#writer;
    const reply = this.#reply;
    if (writer.error !== undefined) {
      this.#end(true);
      return;
    }
    if (writer.writing !== null) {
      // The client sends and does not read.
      writer.writing.then(this.#answer);
      return;
    }
    session.answer(this.#arrived, reply);
    const isLast = session.refusal !== null;
    // The next read is posted before this reply is stamped, so that only the write follows T3.
    const wait = isLast ? null : this.#shared.queue.take();
    if (wait !== null) wait.then(this.#read);
    else if (!isLast) this.#read();
    session.stamp(reply);
    const writing = writer.write();
    session.replied();
    if (isLast) writing.then(() => this.#end(false));
  };

  readonly #end = async (broken: boolean): Promise<void> => {
    await this.#writer.writing;
    this.close();
    this.#session.end(broken || this.#writer.error !== undefined);
    this.#shared.onEnd(this);
  };
}
