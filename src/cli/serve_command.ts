/**
 * `tsync serve`.
 *
 * @module
 */

import { raiseDescriptorLimit } from "../libc/descriptor_limit.ts";
import type { Certificate, Refusal, Server, ServerEvent } from "../mod.ts";
import { DEFAULT_LIMITS } from "../serve/admission.ts";
import { serve } from "../serve/server.ts";
import type { ServeArguments } from "./command_line.ts";
import { serviceManager } from "./environment.ts";
import { mayReadFiles, readFile } from "./files.ts";
import { EXIT } from "./flags.ts";

/** Serves until a signal comes. @returns The exit status. */
export async function runServe(args: ServeArguments): Promise<number> {
  const { log, options, tls } = args;
  mayReadFiles(tls !== undefined || args.keys !== undefined);
  const keys = args.keys === undefined
    ? undefined
    : (await import("./key_file.ts")).readKeys(args.keys);
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
  // Service managers send SIGHUP to have files read again, and would take an exit for a clean one. A
  // closing terminal sends it to end what was started there by hand.
  const hangsUp = tls === undefined && Deno.stdin.isTerminal();
  if (!hangsUp) Deno.addSignalListener("SIGHUP", renew);
  const { maxClients = DEFAULT_LIMITS.maxClients } = options;
  const wanted = maxClients + OTHER_FILES;
  const files = raiseDescriptorLimit(wanted) ?? wanted;
  const manager = await serviceManager((error) => tell({ event: "notification-failed", error }));
  try {
    const starting = serve({ ...options, keys, tls: certificate(), onEvent: tell });
    server = await Promise.race([starting, signalled]) ?? undefined;
    if (server === undefined) return EXIT.ok; // A name was still being looked up.
    manager?.ready();
    if (files < wanted) tell({ event: "too-few-files", files, wanted });
    await signalled;
    manager?.stopping();
    await server.stop();
    return EXIT.ok;
  } finally {
    manager?.stopping();
    for (const signal of signals) Deno.removeSignalListener(signal, resolve);
    if (!hangsUp) Deno.removeSignalListener("SIGHUP", renew);
    await lines.end();
  }
}

/** Files to be open beside the clients' connections: 64 over HTTP, and what the runtime needs. */
const OTHER_FILES = 128;

/** Lines that may wait until stderr is read; later ones are lost. */
const MAX_WAITING = 1000;

/** How long the last lines may take. */
const END_TIMEOUT_MS = 200;

/** Lines on stderr. If nobody reads them, the server does not wait. */
class Log {
  readonly #format: (event: LogEvent) => string;
  #waiting: LogEvent[] = [];
  #lost = 0;
  #writing: Promise<void> | null = null;

  constructor(format: (event: LogEvent) => string) {
    this.#format = format;
  }

  write(event: LogEvent): void {
    if (this.#waiting.length >= MAX_WAITING) this.#lost++;
    else this.#waiting.push(event);
    this.#writing ??= this.#drain();
  }

  /** Waits until everything is written, but not for long. */
  async end(): Promise<void> {
    let timer;
    const timeout = new Promise((resolve) => timer = setTimeout(resolve, END_TIMEOUT_MS));
    await Promise.race([this.#writing, timeout]);
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
        // There is nowhere left to say so.
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

/** The command's own events, besides the server's. */
type CommandEvent =
  | { readonly event: "renewal-failed"; readonly error: string }
  | { readonly event: "nothing-to-renew" }
  | { readonly event: "too-few-files"; readonly files: number; readonly wanted: number }
  | { readonly event: "notification-failed"; readonly error: string }
  | { readonly event: "lines-lost"; readonly count: number };

type LogEvent = ServerEvent | CommandEvent;

/** An event for people: one line. */
export function logLine(event: LogEvent): string {
  switch (event.event) {
    case "listening":
      return `listening on ${event.transport} ${event.address}` +
        (event.timestamps === undefined ? "" : ` (${event.timestamps} timestamps)`);
    case "refused":
      return `refused ${event.count} ${event.transport === "udp" ? "datagram" : "connection"}` +
        `${event.count === 1 ? "" : "s"}: ${REFUSALS[event.reason]}`;
    case "unstamped":
      return `${event.transport}: the kernel did not stamp ${event.count} ${
        event.count === 1 ? "request" : "requests"
      }; the program did`;
    case "datagrams-failed":
      return `cannot answer datagrams: ${event.error}; trying again`;
    case "accept-failed":
      return `cannot accept a connection: ${event.error}; trying again`;
    case "renewed":
      return "certificate read again: new connections get the new one";
    case "renewal-failed":
      return `${event.error}; keeping the old certificate`;
    case "nothing-to-renew":
      return "SIGHUP ignored: without --tls-cert there is nothing to read again";
    case "notification-failed":
      return event.error;
    case "too-few-files":
      return "fewer clients than --max-clients allows can be connected: the limit on open files is " +
        `${event.files}; raise it to ${event.wanted} (ulimit -n, or LimitNOFILE= for systemd), or ` +
        "lower --max-clients";
    case "lines-lost":
      return `${event.count} log lines lost here: nobody was reading them`;
    case "stopped":
      return `stopped after ${event.replies} replies on ${event.connections} connections`;
  }
}

const REFUSALS: Readonly<Record<Refusal, string>> = {
  version: "the first byte is not that of an NTP request of version 1 to 4",
  mode: "the first byte is not that of an NTP client's request",
  mac: "the MAC is wrong, or of a key that --keys does not have",
  denied: "--allow or --deny excludes the address",
  "max-clients": "as many connections are open as --max-clients allows",
  "max-clients-per-address":
    "the address has as many connections as --max-clients-per-address allows",
  rate: "the address asks more often than --rate allows",
  incomplete: "it ended in the middle of a request",
  idle: "it was silent for longer than --idle-timeout allows",
  slow: "a message was not finished within 10 s",
  tls: "the TLS handshake failed",
  reset: "the connection was reset",
};
