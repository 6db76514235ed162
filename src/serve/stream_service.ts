/**
 * Connections of Deno's: those with TLS, and all where the kernel does not stamp.
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
import { Session, type Sessions } from "./session.ts";

/** Accepts connections, and answers on each for as long as it lasts. */
export class StreamService implements Service {
  readonly #listeners: readonly Listener[];
  readonly #sessions: Sessions;
  readonly #timers: Timers;
  readonly #idleTimeout: number;
  readonly #queue = new FairQueue();
  readonly #conversations = new Set<Conversation>();
  /** Accept loops and conversations that have not ended. */
  #running = 0;
  readonly #ended = Promise.withResolvers<void>();
  readonly #stopping = Promise.withResolvers<void>();
  #trouble: Trouble | null = null;

  /** @param idleTimeout Seconds that may pass between two requests. */
  constructor(
    listeners: readonly Listener[],
    sessions: Sessions,
    timers: Timers,
    idleTimeout: number,
  ) {
    this.#listeners = listeners;
    this.#sessions = sessions;
    this.#timers = timers;
    this.#idleTimeout = idleTimeout;
  }

  start(): void {
    for (const listener of this.#listeners) {
      this.#running++;
      this.#accept(listener).finally(() => this.#end());
    }
  }

  tick(): Trouble | null {
    for (const conversation of this.#conversations) conversation.checkTimeouts(this.#idleTimeout);
    const trouble = this.#trouble;
    this.#trouble = null; // A lasting error is found again before the next tick.
    return trouble;
  }

  async stop(): Promise<void> {
    this.#stopping.resolve();
    for (const listener of this.#listeners) listener.close();
    if (this.#running === 0) return;
    // What is between two requests has nothing in flight.
    for (const conversation of this.#conversations) if (conversation.idle) conversation.close();
    const grace = Promise.withResolvers<void>();
    const cancel = this.#timers.after(GRACE_SECONDS, () => {
      for (const conversation of this.#conversations) conversation.close();
      // A write under way may outlive its connection: it is not waited for.
      grace.resolve();
    });
    await Promise.race([this.#ended.promise, grace.promise]);
    cancel();
  }

  /** @throws {TypeError} if there is no TLS. */
  renew(certificate: Certificate): void {
    for (const listener of this.#listeners) {
      if (listener.renew === undefined) throw new TypeError("cannot renew: there is no TLS");
      listener.renew(certificate);
    }
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
        if (client === null) connection.close();
        else this.#converse(connection, client, listener.transport === "tls");
      } catch (error) {
        if (isLost(error)) {
          sessions.counters.refuse("tcp", "reset");
          continue;
        }
        // Out of file descriptors, say: the connections that there are go on.
        this.#trouble = { event: "accept-failed", error: errorText(error) };
        const { promise, resolve } = Promise.withResolvers<void>();
        const cancel = this.#timers.after(ACCEPT_PAUSE_SECONDS, resolve);
        await Promise.race([promise, this.#stopping.promise]);
        cancel();
      }
    }
  }

  #converse(connection: Connection, client: Client, secure: boolean): void {
    const conversation = new Conversation(connection, client, this.#sessions, this.#queue, () => {
      this.#conversations.delete(conversation);
      this.#end();
    });
    this.#conversations.add(conversation);
    this.#running++;
    conversation.start(secure);
  }
}

/**
 * Carries one session. There may be ten thousand, so it is kept small:
 * callbacks in place of async functions saved 1 kB for each.
 */
class Conversation {
  readonly #connection: Connection;
  readonly #session: Session;
  readonly #sessions: Sessions;
  readonly #queue: FairQueue;
  readonly #onEnd: () => void;
  readonly #writer: MessageWriter;
  readonly #reply = new Uint8Array(PACKET_SIZE);
  /** Where bytes are read into. */
  #into = this.#reply;
  /** Is TLS being agreed on? */
  #handshaking = false;
  /** T2 of the message that is whole. */
  #arrived = 0n;

  constructor(
    connection: Connection,
    client: Client,
    sessions: Sessions,
    queue: FairQueue,
    onEnd: () => void,
  ) {
    this.#connection = connection;
    this.#session = new Session(sessions);
    this.#session.begin(client);
    this.#sessions = sessions;
    this.#queue = queue;
    this.#onEnd = onEnd;
    this.#writer = new MessageWriter(connection, this.#reply);
  }

  /** Is it between two requests? */
  get idle(): boolean {
    return this.#session.empty && this.#writer.writing === null && !this.#handshaking;
  }

  /** Ends it: what is being read or written fails. */
  close(): void {
    this.#connection.close(this.#writer.writing !== null);
  }

  /** @param secure Does TLS come first? */
  start(secure: boolean): void {
    if (secure) this.#awaitTls();
    else this.#read();
  }

  /** To be called once a second. Closes it if nothing has happened for too long. */
  checkTimeouts(idleTimeout: number): void {
    const refusal = this.#session.look(this.idle, idleTimeout);
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
    if (this.#sessions.stopping) {
      Promise.resolve(false).then(this.#end); // Not before the reply that may be about to leave.
      return;
    }
    this.#into = this.#session.room;
    // Hung on the very promise of the read, so that nothing else runs before the stamp.
    this.#connection.read(this.#into).then(this.#onBytes, this.#onBroken);
  };

  readonly #onBytes = (count: number | null): void => {
    this.#arrived = this.#sessions.now();
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
    // The next read is under way before this reply leaves: after T3 nothing is left to do.
    const turn = isLast ? null : this.#queue.take();
    if (turn !== null) turn.then(this.#read);
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
    this.#onEnd();
  };
}
