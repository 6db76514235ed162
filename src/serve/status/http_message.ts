/**
 * As much of HTTP/1.1 (RFC 9112) as a status page needs: parses the heads of
 * requests and encodes responses. A request with a body is the last on its
 * connection, and the body is ignored.
 *
 * @module
 */

import { hostOf } from "../../net/address.ts";
import type { Source } from "../../net/network.ts";

/** The most bytes in the head of a request. */
export const MAX_HEAD = 8192;

/** The most bytes of empty lines before a request. */
const MAX_EMPTY = 8;

/** Returned in place of a head longer than {@linkcode MAX_HEAD}. */
export const TOO_LONG = Symbol("too long");

const CR = 13;
const LF = 10;

/** The parts of a request that matter here. */
export interface HttpRequest {
  readonly method: string;
  /** The target's path, without its query. */
  readonly path: string;
  /** The hosts in the target and in `Host`, as `hostOf` spells them. */
  readonly hosts: readonly string[];
  /** Whether another request may follow on the connection. */
  readonly keepAlive: boolean;
}

/**
 * Parses the head of a request.
 *
 * @param head Without the empty line at its end.
 * @returns `null` if it is not HTTP/1, or is ambiguous about where the request ends, which host it
 * is for, or whether another follows.
 */
export function parseHead(head: string): HttpRequest | null {
  // Some take a lone CR for the end of a line (RFC 9112, section 2.2), and NUL for that of a string.
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

/** Reads the heads of successive requests from a stream. */
export class HeadReader {
  /** When the last bytes arrived, by the clock given. */
  arrived = 0n;
  readonly #source: Source;
  readonly #now: () => bigint;
  /** Grows as needed: most heads are short, and there may be many readers. */
  #bytes = new Uint8Array(MAX_HEAD / 8);
  #filled = 0;

  /** @param now Read as soon as bytes have come. */
  constructor(source: Source, now: () => bigint) {
    this.#source = source;
    this.#now = now;
  }

  /** Whether part of the next head has come. */
  get begun(): boolean {
    return this.#filled > 0;
  }

  /**
   * Reads the next head. Lines may end in LF alone, and empty lines before a request are skipped
   * (RFC 9112, section 2.2).
   *
   * @returns The head without the empty line at its end; `null` at the end of the stream.
   */
  async read(): Promise<string | null | typeof TOO_LONG> {
    for (let searched = 0, empty = 0;;) {
      empty += this.#skipEmpty();
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

  /** Drops empty lines at the beginning. @returns The number of their bytes. */
  #skipEmpty(): number {
    let count = 0;
    while (count < this.#filled && (this.#bytes[count] === LF || this.#bytes[count] === CR)) {
      count++;
    }
    if (count > 0) this.#drop(count);
    return count;
  }

  /** The index of the empty line's last byte, searched from `from`; `null` if it has not come. */
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

export interface HttpResponse {
  readonly status: keyof typeof PHRASES;
  /** The media type of the body, which is UTF-8. */
  readonly type: string;
  /** Headers besides those of every response. */
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

/** Encodes a response. @param last Whether the connection is closed after it. */
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
