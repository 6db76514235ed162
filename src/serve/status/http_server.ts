/**
 * An HTTP server that cannot harm the time server. Deno's own limits neither
 * connections nor the time for a request's head: with 64 file descriptors, 40
 * silent clients ended the process.
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
import { FairQueue } from "../fair_queue.ts";
import { IdleMonitor } from "../idle_monitor.ts";
import { ACCEPT_PAUSE_SECONDS } from "../lifecycle.ts";

/** The most open connections. A new one beyond it replaces another. */
export const MAX_CONNECTIONS = 64;

/** The most open connections from one address, likewise. */
export const MAX_CONNECTIONS_PER_ADDRESS = 32;

/** The most time between two requests on a connection. */
const IDLE_TIMEOUT_SECONDS = 60;

/** Time between two checks of the connections. */
const TICK_SECONDS = 1;

/** Statuses after which the connection is closed, since what follows cannot be trusted. */
const FINAL: readonly HttpResponse["status"][] = [400, 405, 421, 429, 431];

/** Bytes after the last request that are read and discarded. */
const MAX_DISCARDED = 65_536;

/** What all connections share. */
export interface HttpContext {
  /** Limits connections and requests. It must allow more connections than {@linkcode MAX_CONNECTIONS}. */
  readonly admission: Admission;
  /** The time in nanoseconds since the Unix epoch. */
  readonly realtime: () => bigint;
  readonly timers: Timers;
  /**
   * Host names to answer for besides IP addresses, as `hostOf` spells them. With any other name, a
   * page in a browser may be trying to read from this server (DNS rebinding).
   */
  readonly names: ReadonlySet<string>;
  /** Makes a response, just before it is written. `arrived`: nanoseconds since the Unix epoch. */
  readonly respond: (path: string, arrived: bigint) => HttpResponse;
}

/** Answers GET requests on all connections to some listeners. */
export class HttpServer {
  readonly #context: HttpContext;
  readonly #listeners: readonly Listener[];
  /** One response in a turn of the event loop: the time is told by the same thread. */
  readonly #queue = new FairQueue(1);
  /** In the order of their last response or, without one, of arrival; bytes do not count. */
  readonly #conversations = new Set<HttpConversation>();
  #closed = false;
  #cancelTick = () => {};

  constructor(listeners: readonly Listener[], context: HttpContext) {
    this.#listeners = listeners;
    this.#context = context;
    for (const listener of listeners) this.#accept(listener);
    this.#tick();
  }

  /** Closes the listeners and all connections at once. */
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
      if (conversation.check() !== null) this.#end(conversation);
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
        // For want of file descriptors, say.
        await new Promise<void>((resolve) =>
          this.#context.timers.after(ACCEPT_PAUSE_SECONDS, resolve)
        );
      }
    }
  }

  async #converse(connection: Connection, client: Client): Promise<void> {
    const conversation = new HttpConversation(connection, client, this.#context, this.#queue);
    this.#conversations.add(conversation);
    this.#makeRoom(client);
    while (await conversation.exchange() && this.#conversations.delete(conversation)) {
      this.#conversations.add(conversation);
    }
    this.#end(conversation);
  }

  /** Closes a connection if there are too many: the longest inactive of the address with the most. */
  #makeRoom(client: Client): void {
    const { admission } = this.#context;
    if (
      client.connections <= MAX_CONNECTIONS_PER_ADDRESS && admission.connections <= MAX_CONNECTIONS
    ) return;
    const most = Math.max(...this.#conversations.values().map(({ client }) => client.connections));
    this.#end(this.#conversations.values().find(({ client }) => client.connections === most)!);
  }

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
  readonly #queue: FairQueue;
  /** Whether a response is being written, or bytes after the last request are being discarded. */
  #busy = false;
  #writing = false;

  constructor(connection: Connection, client: Client, context: HttpContext, queue: FairQueue) {
    super();
    this.#queue = queue;
    this.client = client;
    this.#connection = connection;
    this.#context = context;
    this.#reader = new HeadReader(connection, context.realtime);
  }

  override check(): "idle" | "slow" | null {
    return super.check(!this.#busy && !this.#reader.begun, IDLE_TIMEOUT_SECONDS);
  }

  close(): void {
    this.#connection.close(this.#writing);
  }

  /** Answers one request. Never rejects. @returns Whether another may follow. */
  async exchange(): Promise<boolean> {
    try {
      return await this.#exchange();
    } catch {
      return false; // The connection was reset or closed.
    }
  }

  async #exchange(): Promise<boolean> {
    const head = await this.#reader.read();
    if (head === null) return false;
    await this.#queue.take();
    const { arrived } = this.#reader;
    const request = typeof head === "string" ? parseHead(head) : null;
    const response = !this.#context.admission.request(this.client, arrived)
      ? failure(429, "too many requests from this address")
      : typeof head !== "string"
      ? failure(431, `a request's head may have at most ${MAX_HEAD} bytes`)
      : request === null
      ? failure(400, "not an HTTP/1.1 request, or an ambiguous one")
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
      ? { ...failure(405, "only GET is supported"), headers: { allow: "GET" } }
      : failure(
        421,
        `this server does not answer to the name ${unknown}: use its address, ` +
          "or add the name to its HTTP hosts",
      );
    // A response to HEAD has no body.
    return method === "HEAD" ? { ...refusal, body: "" } : refusal;
  }

  async #write(bytes: Uint8Array): Promise<void> {
    this.#writing = true;
    for (let sent = 0; sent < bytes.length;) {
      sent += await this.#connection.write(bytes.subarray(sent));
    }
    this.#writing = false;
  }

  /** Closing with bytes unread would reset the connection, and the client might lose the response. */
  async #end(): Promise<void> {
    await this.#connection.closeWrite?.();
    const rest = new Uint8Array(4096);
    for (let count = 0; count < MAX_DISCARDED;) {
      const more = await this.#connection.read(rest);
      if (more === null) return;
      count += more;
    }
  }
}

/** An error response of one sentence. */
export function failure(status: HttpResponse["status"], sentence: string): HttpResponse {
  return { status, type: "text/plain", body: `${sentence}\n` };
}
