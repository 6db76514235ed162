/**
 * `tsync serve`.
 *
 * @module
 */

import { type Certificate, type Refusal, serve, type ServerEvent } from "../mod.ts";
import { EXIT, type ServeArguments } from "./args.ts";
import { mayReadFiles, readFile } from "./files.ts";

/** Serves until a signal comes. @returns The exit status. */
export async function runServe({ log, options, tls }: ServeArguments): Promise<number> {
  mayReadFiles(tls !== undefined);
  const certificate = (): Certificate | undefined =>
    tls && { cert: readFile("--tls-cert", tls.cert), key: readFile("--tls-key", tls.key) };
  const tell = (event: Parameters<typeof logLine>[0]) =>
    console.error(log === "json" ? JSON.stringify(event) : logLine(event));
  const { promise: signalled, resolve } = Promise.withResolvers<void>();
  const signals = ["SIGINT", "SIGTERM"] as const;
  for (const signal of signals) Deno.addSignalListener(signal, resolve);
  try {
    const starting = serve({ ...options, tls: certificate(), onEvent: tell });
    const server = await Promise.race([starting, signalled]);
    if (server === undefined) return EXIT.ok; // A name was still being looked up.
    const renew = () => {
      try {
        server.renew(certificate()!);
      } catch (error) {
        tell({ event: "renewal-failed", error: (error as Error).message });
      }
    };
    if (tls !== undefined) Deno.addSignalListener("SIGHUP", renew);
    await signalled;
    if (tls !== undefined) Deno.removeSignalListener("SIGHUP", renew);
    await server.stop();
    return EXIT.ok;
  } finally {
    for (const signal of signals) Deno.removeSignalListener(signal, resolve);
  }
}

/** The command's own events, beside the server's. */
type CommandEvent = { readonly event: "renewal-failed"; readonly error: string };

/** An event as a line for people. */
export function logLine(event: ServerEvent | CommandEvent): string {
  switch (event.event) {
    case "listening":
      return `listening on ${event.transport} ${event.address}`;
    case "refused":
      return `refused ${event.count} ${event.count === 1 ? "connection" : "connections"}: ` +
        REFUSALS[event.reason];
    case "accept-failed":
      return `cannot accept a connection: ${event.error}; trying again`;
    case "renewed":
      return "shows the certificate that was read again to new connections";
    case "renewal-failed":
      return `${event.error}; goes on with the old certificate`;
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
  incomplete: "the connection ended in the middle of a request",
  idle: "nothing came for as long as --idle-timeout allows",
  slow: "a message was begun and not finished within 10 s",
  tls: "the TLS handshake failed",
  reset: "the connection was reset",
};
