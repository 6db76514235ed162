/**
 * As much of HTTP/1.1 (RFC 9112) as it takes to be looked at: heads of
 * requests in, whole responses out. A request with a body has it ignored, and
 * is the last on its connection.
 *
 * @module
 */

import { hostOf } from "../../net/address.ts";
import type { Source } from "../../net/network.ts";

/** Bytes that the head of a request may have. */
export const MAX_HEAD = 8192;

/** Bytes of empty lines that may come before a request. */
const MAX_EMPTY = 8;

/** What is read in the place of a head that has more. */
export const TOO_LONG = Symbol("too long");

const CR = 13;
const LF = 10;

/** A request, as far as it is looked at. */
export interface HttpRequest {
  readonly method: string;
  /** Of the target, without a query. */
  readonly path: string;
  /** Whom it is for: of the target and of `Host`, where they say so, as `hostOf` spells them. */
  readonly hosts: readonly string[];
  /** May another request follow on the connection? */
  readonly keepAlive: boolean;
}

/**
 * Reads the head of a request.
 *
 * @param head Without the empty line at its end.
 * @returns `null` if it is none of HTTP/1, or if where it ends, who it is for or whether another
 * follows can be understood in two ways.
 */
export function parseHead(head: string): HttpRequest | null {
  // A lone CR ends a line for some (RFC 9112, section 2.2), and NUL a text.
  // deno-lint-ignore no-control-regex
  if (/[\0-\x08\v\f\x0e-\x1f\x7f]|\r(?!\n)/.test(head)) return null;
  const [first = "", ...lines] = head.split(/\r?\n/);
  const request = /^([!#$%&'*+.^_`|~\w-]+) (\S+) HTTP\/1\.([01])$/.exec(first);
  if (request === null) return null;
  const [, method = "", target = "", minor] = request;
  const [, authority, path] = /^(?:https?:\/\/([^/?#]+))?(\/[^?#]*)/i.exec(target) ?? [];
  if (path === undefined && target !== "*") return null;
  const headers: [name: string, value: string][] = [];
  for (const line of lines) {
    const colon = line.indexOf(":");
    const name = line.slice(0, Math.max(colon, 0));
    if (!/^[!#$%&'*+.^_`|~\w-]+$/.test(name)) return null;
    headers.push([name.toLowerCase(), line.slice(colon + 1).trim().toLowerCase()]);
  }
  const valuesOf = (wanted: string) =>
    headers.filter(([name]) => name === wanted).map(([, value]) => value);
  const named = valuesOf("host");
  if (named.length > 1 || named.length === 0 && minor === "1") return null;
  const hosts = [...authority === undefined ? [] : [authority], ...named].map(hostOf);
  if (!hosts.every((host) => host !== null)) return null;
  const lengths = valuesOf("content-length");
  const encoded = valuesOf("transfer-encoding").length > 0;
  if (lengths.length > (encoded ? 0 : 1) || lengths.some((each) => !/^\d+$/.test(each))) {
    return null;
  }
  const connection = valuesOf("connection").flatMap((value) => value.split(/[\s,]+/));
  const close = connection.includes("close");
  if (close && connection.includes("keep-alive")) return null;
  if (!connection.every((option) => /^[!#$%&'*+.^_`|~\w-]*$/.test(option))) return null;
  const hasBody = encoded || Number(lengths[0] ?? 0) > 0;
  return {
    method,
    path: path ?? target,
    hosts,
    keepAlive: minor === "1" && !close && !hasBody,
  };
}

/** Takes the heads of requests, one after another, out of a stream of bytes. */
export class HeadReader {
  /** When the last bytes came, by the clock given. */
  arrived = 0n;
  readonly #source: Source;
  readonly #now: () => bigint;
  /** Grows with what comes: most heads are short, and there may be many readers. */
  #bytes = new Uint8Array(MAX_HEAD / 8);
  #filled = 0;

  /** @param now Read as soon as bytes have come. */
  constructor(source: Source, now: () => bigint) {
    this.#source = source;
    this.#now = now;
  }

  /** Has a head begun to come that is not whole? */
  get begun(): boolean {
    return this.#filled > 0;
  }

  /**
   * Lines may end without a carriage return, and empty ones before a request are passed over
   * (RFC 9112, section 2.2).
   *
   * @returns The next head without the empty line at its end; `null` at the end of the stream.
   */
  async read(): Promise<string | null | typeof TOO_LONG> {
    for (let searched = 0, empty = 0;;) {
      empty += this.#passOver();
      if (empty > MAX_EMPTY) return "";
      const end = this.#end(searched);
      if (end !== null) return this.#take(end);
      searched = Math.max(0, this.#filled - 2);
      if (this.#filled === MAX_HEAD) return TOO_LONG;
      if (this.#filled === this.#bytes.length) this.#grow();
      const count = await this.#source.read(this.#bytes.subarray(this.#filled));
      this.arrived = this.#now();
      if (count === null) return null;
      this.#filled += count;
    }
  }

  /** Takes away empty lines at the beginning. @returns Their bytes. */
  #passOver(): number {
    let count = 0;
    while (count < this.#filled && (this.#bytes[count] === LF || this.#bytes[count] === CR)) {
      count++;
    }
    if (count > 0) this.#drop(count);
    return count;
  }

  /** The last byte of the empty line, at or after `from`; `null` if it has not come. */
  #end(from: number): number | null {
    const bytes = this.#bytes;
    for (let i = from; i < this.#filled; i++) {
      if (bytes[i] !== LF) continue;
      const next = bytes[i + 1] === CR ? i + 2 : i + 1;
      if (next < this.#filled && bytes[next] === LF) return next;
    }
    return null;
  }

  #take(end: number): string {
    const head = new TextDecoder("latin1").decode(this.#bytes.subarray(0, end));
    this.#drop(end + 1);
    return head.trimEnd();
  }

  #grow(): void {
    const bytes = new Uint8Array(2 * this.#bytes.length);
    bytes.set(this.#bytes);
    this.#bytes = bytes;
  }

  #drop(count: number): void {
    this.#bytes.copyWithin(0, count, this.#filled);
    this.#filled -= count;
  }
}

/** What is sent back. */
export interface HttpResponse {
  readonly status: keyof typeof PHRASES;
  /** Media type of the body, UTF-8. */
  readonly type: string;
  /** Beside those that every response has. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: string;
}

const PHRASES = {
  200: "OK",
  400: "Bad Request",
  404: "Not Found",
  405: "Method Not Allowed",
  421: "Misdirected Request",
  429: "Too Many Requests",
  431: "Request Header Fields Too Large",
  503: "Service Unavailable",
} as const;

/** Encodes a response. @param last Is the connection closed after it? */
export function encodeResponse(
  { status, type, headers = {}, body }: HttpResponse,
  last: boolean,
): Uint8Array {
  const encoder = new TextEncoder();
  const content = encoder.encode(body);
  const lines = Object.entries({
    "content-type": `${type}; charset=utf-8`,
    "content-length": content.length,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "connection": last ? "close" : "keep-alive",
    ...headers,
  }).map(([name, value]) => `${name}: ${value}\r\n`);
  const head = encoder.encode(`HTTP/1.1 ${status} ${PHRASES[status]}\r\n${lines.join("")}\r\n`);
  const bytes = new Uint8Array(head.length + content.length);
  bytes.set(head);
  bytes.set(content, head.length);
  return bytes;
}
