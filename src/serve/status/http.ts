/**
 * A server of HTTP that cannot hurt the time's. Deno's own has no limit of
 * connections and no time for the head of a request: tried with 64 file
 * descriptors, 40 silent clients ended the process.
 *
 * @module
 */

import type { Timers } from "../../clock/clock.ts";
import {
  encodeResponse,
  HeadReader,
  type HttpRequest,
  type HttpResponse,
  MAX_HEAD,
  parseHead,
} from "../../net/http.ts";
import { type Connection, isLost, type Listener } from "../../net/transport.ts";
import type { Admission, Client } from "../admission.ts";
import { Watched } from "../stillness.ts";

/** Open connections, in all and from one address. */
export const MAX_CONNECTIONS = { maxClients: 64, maxClientsPerAddress: 32 } as const;

/** Seconds between two requests on a connection. */
const IDLE_TIMEOUT = 60;

/** Seconds between two looks at what the connections do. */
const TICK = 1;

/** Seconds before a failed accept is tried again. */
const ACCEPT_PAUSE = 0.1;

/** After these nothing can be made of what follows on the connection, or should be. */
const FINAL: readonly HttpResponse["status"][] = [400, 405, 429, 431];

/** Bytes that are read and thrown away of what comes after the last request. */
const REST = 65_536;

/**
 * Makes a response: the last thing that is done before it is written.
 *
 * @param arrived When the request came, nanoseconds since the Unix epoch.
 */
export type Respond = (path: string, arrived: bigint) => HttpResponse;

/** What all connections share. */
export interface HttpContext {
  readonly admission: Admission;
  /** Nanoseconds since the Unix epoch. */
  readonly realtime: () => bigint;
  readonly timers: Timers;
  readonly respond: Respond;
}

/** Answers GET requests on all connections of some listeners, until they are closed. */
export class HttpServer {
  readonly #context: HttpContext;
  readonly #listeners: readonly Listener[];
  readonly #conversations = new Set<Conversation>();
  #closed = false;
  #cancelTick = () => {};

  constructor(listeners: readonly Listener[], context: HttpContext) {
    this.#listeners = listeners;
    this.#context = context;
    for (const listener of listeners) this.#accept(listener);
    this.#tick();
  }

  /** Closes everything at once. */
  close(): void {
    this.#closed = true;
    this.#cancelTick();
    for (const listener of this.#listeners) listener.close();
    for (const conversation of this.#conversations) conversation.close();
  }

  #tick(): void {
    const { admission, realtime, timers } = this.#context;
    admission.forget(realtime());
    for (const conversation of this.#conversations) {
      if (conversation.look(IDLE_TIMEOUT) !== null) conversation.close();
    }
    this.#cancelTick = timers.after(TICK, () => this.#tick());
  }

  async #accept(listener: Listener): Promise<void> {
    while (!this.#closed) {
      try {
        const connection = await listener.accept();
        if (connection === null) return;
        const { admission, realtime } = this.#context;
        const client = admission.connect(connection.remote.hostname, realtime());
        if (typeof client === "string") connection.close();
        else this.#converse(connection, client);
      } catch (error) {
        if (isLost(error)) continue;
        // There are no descriptors: there will be.
        await new Promise<void>((resolve) => this.#context.timers.after(ACCEPT_PAUSE, resolve));
      }
    }
  }

  async #converse(connection: Connection, client: Client): Promise<void> {
    const conversation = new Conversation(connection, client, this.#context);
    this.#conversations.add(conversation);
    await conversation.run();
    this.#conversations.delete(conversation);
    this.#context.admission.disconnect(client);
  }
}

/** One connection. */
class Conversation extends Watched {
  readonly #connection: Connection;
  readonly #client: Client;
  readonly #context: HttpContext;
  readonly #reader: HeadReader;
  /** Is a response, or what comes after the last, under way? */
  #busy = false;
  #writing = false;

  constructor(connection: Connection, client: Client, context: HttpContext) {
    super();
    this.#connection = connection;
    this.#client = client;
    this.#context = context;
    this.#reader = new HeadReader(connection, context.realtime);
  }

  override get idle(): boolean {
    return !this.#busy && !this.#reader.begun;
  }

  close(): void {
    this.#connection.close(this.#writing);
  }

  /** Answers for as long as there are requests. Never rejected. */
  async run(): Promise<void> {
    try {
      while (await this.#exchange());
    } catch {
      // It was reset, or closed for silence: nobody is there to be told.
    }
    this.close();
  }

  /** @returns May another request follow? */
  async #exchange(): Promise<boolean> {
    const head = await this.#reader.read();
    if (head === null) return false;
    const { arrived } = this.#reader;
    const request = typeof head === "string" ? parseHead(head) : null;
    const response = !this.#context.admission.request(this.#client, arrived)
      ? failure(429, "this address asks more often than --rate allows")
      : typeof head !== "string"
      ? failure(431, `the head of a request may have ${MAX_HEAD} bytes`)
      : request === null
      ? failure(400, "this is no request of HTTP/1.1")
      : this.#respond(request, arrived);
    const last = FINAL.includes(response.status) || !request!.keepAlive;
    this.#busy = true;
    await this.#write(encodeResponse(response, last));
    if (last) await this.#end();
    this.#busy = false;
    this.replies++;
    return !last;
  }

  #respond({ method, path }: HttpRequest, arrived: bigint): HttpResponse {
    if (method === "GET") return this.#context.respond(path, arrived);
    const refusal = { ...failure(405, "only GET is answered"), headers: { allow: "GET" } };
    // Whoever asks for a head alone takes no body.
    return method === "HEAD" ? { ...refusal, body: "" } : refusal;
  }

  async #write(bytes: Uint8Array): Promise<void> {
    this.#writing = true;
    for (let sent = 0; sent < bytes.length;) {
      sent += await this.#connection.write(bytes.subarray(sent));
    }
    this.#writing = false;
  }

  /** A connection that is closed with unread bytes is reset, and the client may lose the response. */
  async #end(): Promise<void> {
    await this.#connection.closeWrite?.();
    const rest = new Uint8Array(4096);
    for (let count = 0; count < REST;) {
      const more = await this.#connection.read(rest);
      if (more === null) return;
      count += more;
    }
  }
}

/** A response of one sentence. */
export function failure(status: HttpResponse["status"], sentence: string): HttpResponse {
  return { status, type: "text/plain", body: `${sentence}\n` };
}
