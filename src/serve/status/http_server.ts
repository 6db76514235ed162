/**
 * A server of HTTP that cannot hurt the time's. Deno's own has no limit of
 * connections and no time for the head of a request: tried with 64 file
 * descriptors, 40 silent clients ended the process.
 *
 * @module
 */

import type { Timers } from "../../clock/clock.ts";
import { ipVersion } from "../../net/address.ts";
import {
  encodeResponse,
  HeadReader,
  type HttpRequest,
  type HttpResponse,
  MAX_HEAD,
  parseHead,
} from "./http_message.ts";
import type { Connection, Listener } from "../../net/network.ts";
import { isLost } from "../../net/errors.ts";
import type { Admission, Client } from "../admission.ts";
import { IdleMonitor } from "../idle_monitor.ts";

/** Open connections, in all and from one address: more take the place of others. */
export const MAX_CONNECTIONS = 64;
export const MAX_CONNECTIONS_PER_ADDRESS = 32;

/** Seconds between two requests on a connection. */
const IDLE_TIMEOUT_SECONDS = 60;

/** Seconds between two looks at what the connections do. */
const TICK_SECONDS = 1;

/** Seconds before a failed accept is tried again. */
const ACCEPT_PAUSE_SECONDS = 0.1;

/** After these nothing can be made of what follows on the connection, or should be. */
const FINAL: readonly HttpResponse["status"][] = [400, 405, 421, 429, 431];

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
  /** Who may connect and how often they may ask; it must allow more connections than are kept. */
  readonly admission: Admission;
  /** Nanoseconds since the Unix epoch. */
  readonly realtime: () => bigint;
  readonly timers: Timers;
  /**
   * By which names it answers, beside addresses, as `hostOf` spells them. Any other may have been
   * made to mean its address by a page that wants to read it through a browser (DNS rebinding).
   */
  readonly names: ReadonlySet<string>;
  readonly respond: Respond;
}

/** Answers GET requests on all connections of some listeners, until they are closed. */
export class HttpServer {
  readonly #context: HttpContext;
  readonly #listeners: readonly Listener[];
  /** The one without activity for longest comes first: that is arrival or a response, not bytes. */
  readonly #conversations = new Set<HttpConversation>();
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
      if (conversation.look() !== null) this.#end(conversation);
    }
    this.#cancelTick = timers.after(TICK_SECONDS, () => this.#tick());
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
        await new Promise<void>((resolve) =>
          this.#context.timers.after(ACCEPT_PAUSE_SECONDS, resolve)
        );
      }
    }
  }

  async #converse(connection: Connection, client: Client): Promise<void> {
    const conversation = new HttpConversation(connection, client, this.#context);
    this.#conversations.add(conversation);
    this.#makeRoom(client);
    while (await conversation.exchange() && this.#conversations.delete(conversation)) {
      this.#conversations.add(conversation);
    }
    this.#end(conversation);
  }

  /** Closes one where a new one is too many: of the address with the most, the longest inactive. */
  #makeRoom(client: Client): void {
    const { admission } = this.#context;
    if (
      client.connections <= MAX_CONNECTIONS_PER_ADDRESS && admission.connections <= MAX_CONNECTIONS
    ) return;
    const most = Math.max(...this.#conversations.values().map(({ client }) => client.connections));
    this.#end(this.#conversations.values().find(({ client }) => client.connections === most)!);
  }

  /** Its place is free at once. */
  #end(conversation: HttpConversation): void {
    if (this.#conversations.delete(conversation)) {
      this.#context.admission.disconnect(conversation.client);
    }
    conversation.close();
  }
}

/** One connection. */
class HttpConversation extends IdleMonitor {
  readonly client: Client;
  readonly #connection: Connection;
  readonly #context: HttpContext;
  readonly #reader: HeadReader;
  /** Is a response, or what comes after the last, under way? */
  #busy = false;
  #writing = false;

  constructor(connection: Connection, client: Client, context: HttpContext) {
    super();
    this.client = client;
    this.#connection = connection;
    this.#context = context;
    this.#reader = new HeadReader(connection, context.realtime);
  }

  /** @returns Why it should be closed, if it should. */
  override look(): "idle" | "slow" | null {
    return super.look(!this.#busy && !this.#reader.begun, IDLE_TIMEOUT_SECONDS);
  }

  close(): void {
    this.#connection.close(this.#writing);
  }

  /** Answers a request. Never rejected. @returns May another follow? */
  async exchange(): Promise<boolean> {
    try {
      return await this.#exchange();
    } catch {
      return false; // It was reset, or closed: nobody is there to be told.
    }
  }

  async #exchange(): Promise<boolean> {
    const head = await this.#reader.read();
    if (head === null) return false;
    const { arrived } = this.#reader;
    const request = typeof head === "string" ? parseHead(head) : null;
    const response = !this.#context.admission.request(this.client, arrived)
      ? failure(429, "this address asks more often than --rate allows")
      : typeof head !== "string"
      ? failure(431, `the head of a request may have ${MAX_HEAD} bytes`)
      : request === null
      ? failure(400, "this is no request of HTTP/1.1, or one that can be understood in two ways")
      : this.#respond(request, arrived);
    const last = FINAL.includes(response.status) || !request!.keepAlive;
    this.#busy = true;
    await this.#write(encodeResponse(response, last));
    if (last) await this.#end();
    this.#busy = false;
    this.replies++;
    return !last;
  }

  #respond({ method, path, hosts }: HttpRequest, arrived: bigint): HttpResponse {
    const { names, respond } = this.#context;
    const unknown = hosts.find((host) => ipVersion(host) === 0 && !names.has(host));
    if (unknown === undefined && method === "GET") return respond(path, arrived);
    const refusal = unknown === undefined
      ? { ...failure(405, "only GET is answered"), headers: { allow: "GET" } }
      : failure(
        421,
        `this server does not answer by the name ${unknown}: ask it by its address, ` +
          `or start it with --http-host ${unknown}`,
      );
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
