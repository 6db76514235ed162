/**
 * `tsync serve`.
 *
 * @module
 */

import type { Certificate, Refusal, Server, ServerEvent } from "../mod.ts";
import { serve } from "../serve/server.ts";
import type { ServeArguments } from "./args.ts";
import { mayReadFiles, readFile } from "./files.ts";
import { EXIT } from "./flags.ts";

/** Serves until a signal comes. @returns The exit status. */
export async function runServe({ log, options, tls }: ServeArguments): Promise<number> {
  mayReadFiles(tls !== undefined);
  const certificate = (): Certificate | undefined =>
    tls && { cert: readFile("--tls-cert", tls.cert), key: readFile("--tls-key", tls.key) };
  const lines = new Log(log === "json" ? JSON.stringify : logLine);
  const tell = (event: LogEvent) => lines.write(event);
  const { promise: signalled, resolve } = Promise.withResolvers<void>();
  const signals = ["SIGINT", "SIGTERM"] as const;
  for (const signal of signals) Deno.addSignalListener(signal, resolve);
  let server: Server | undefined;
  const renew = () => {
    if (tls === undefined) return tell({ event: "nothing-to-renew" });
    try {
      server?.renew(certificate()!);
    } catch (error) {
      tell({ event: "renewal-failed", error: (error as Error).message });
    }
  };
  // Service managers send it to have a program read its files again, and take its end for a clean
  // one. A terminal sends it as it closes, which ends a server that was started there by hand.
  const hangsUp = tls === undefined && Deno.stdin.isTerminal();
  if (!hangsUp) Deno.addSignalListener("SIGHUP", renew);
  try {
    const starting = serve({ ...options, tls: certificate(), onEvent: tell });
    server = await Promise.race([starting, signalled]) ?? undefined;
    if (server === undefined) return EXIT.ok; // A name was still being looked up.
    await signalled;
    await server.stop();
    return EXIT.ok;
  } finally {
    for (const signal of signals) Deno.removeSignalListener(signal, resolve);
    if (!hangsUp) Deno.removeSignalListener("SIGHUP", renew);
    await lines.end();
  }
}

/** Lines that may wait for somebody to read stderr. */
const WAITING = 1000;

/** Milliseconds that the last lines have. */
const PATIENCE = 200;

/** Lines on stderr. Whoever does not read them does not hold up the server. */
class Log {
  readonly #format: (event: LogEvent) => string;
  #waiting: LogEvent[] = [];
  #lost = 0;
  #writing: Promise<void> | null = null;

  constructor(format: (event: LogEvent) => string) {
    this.#format = format;
  }

  write(event: LogEvent): void {
    if (this.#waiting.length >= WAITING) this.#lost++;
    else this.#waiting.push(event);
    this.#writing ??= this.#drain();
  }

  /** Waits until all is written, but not for long. */
  async end(): Promise<void> {
    let timer;
    const patience = new Promise((resolve) => timer = setTimeout(resolve, PATIENCE));
    await Promise.race([this.#writing, patience]);
    clearTimeout(timer);
  }

  async #drain(): Promise<void> {
    while (this.#waiting.length > 0) {
      const events = this.#waiting;
      this.#waiting = this.#lost > 0 ? [{ event: "lines-lost", count: this.#lost }] : [];
      this.#lost = 0;
      const text = events.map((event) => `${this.#format(event)}\n`).join("");
      try {
        await this.#writeAll(new TextEncoder().encode(text));
      } catch {
        // There is no place left to say so.
      }
    }
    this.#writing = null;
  }

  async #writeAll(bytes: Uint8Array): Promise<void> {
    for (let sent = 0; sent < bytes.length;) {
      sent += await Deno.stderr.write(bytes.subarray(sent));
    }
  }
}

/** The command's own events, beside the server's. */
type CommandEvent =
  | { readonly event: "renewal-failed"; readonly error: string }
  | { readonly event: "nothing-to-renew" }
  | { readonly event: "lines-lost"; readonly count: number };

type LogEvent = ServerEvent | CommandEvent;

/** An event as a line for people. */
export function logLine(event: LogEvent): string {
  switch (event.event) {
    case "listening":
      return `listening on ${event.transport} ${event.address}` +
        (event.timestamps === undefined ? "" : ` (${event.timestamps} timestamps)`);
    case "refused":
      return `refused ${event.count} ${event.transport === "udp" ? "datagram" : "connection"}` +
        `${event.count === 1 ? "" : "s"}: ${REFUSALS[event.reason]}`;
    case "unstamped":
      return `${event.transport}: ${event.count} ${
        event.count === 1 ? "request was" : "requests were"
      } stamped by this program: the kernel had not`;
    case "datagrams-failed":
      return `cannot answer datagrams: ${event.error}; trying again`;
    case "accept-failed":
      return `cannot accept a connection: ${event.error}; trying again`;
    case "renewed":
      return "shows the certificate that was read again to new connections";
    case "renewal-failed":
      return `${event.error}; goes on with the old certificate`;
    case "nothing-to-renew":
      return "there is nothing to read again at SIGHUP without --tls-cert; goes on";
    case "lines-lost":
      return `${event.count} lines were lost here: nobody read them`;
    case "stopped":
      return `stopped after ${event.replies} replies on ${event.connections} connections`;
  }
}

const REFUSALS: Readonly<Record<Refusal, string>> = {
  version: "the first byte is not that of an NTP request of version 1 to 4",
  mode: "the first byte is not that of an NTP client's request",
  denied: "the address is not to be answered",
  "max-clients": "there are as many connections as --max-clients allows",
  "max-clients-per-address": "the address has as many as --max-clients-per-address allows",
  rate: "the address asks more often than --rate allows",
  incomplete: "it ended in the middle of a request",
  idle: "nothing came for as long as --idle-timeout allows",
  slow: "a message was begun and not finished within 10 s",
  tls: "the TLS handshake failed",
  reset: "the connection was reset",
};
