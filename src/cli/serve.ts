/**
 * `tsync serve`.
 *
 * @module
 */

import { type Refusal, serve, type ServerEvent } from "../mod.ts";
import { EXIT, type ServeArguments } from "./args.ts";

/** Serves until a signal comes. @returns The exit status. */
export async function runServe({ log, options }: ServeArguments): Promise<number> {
  const { promise: signalled, resolve } = Promise.withResolvers<void>();
  const signals = ["SIGINT", "SIGTERM"] as const;
  for (const signal of signals) Deno.addSignalListener(signal, resolve);
  try {
    const starting = serve({
      ...options,
      onEvent: (event) => console.error(log === "json" ? JSON.stringify(event) : logLine(event)),
    });
    const server = await Promise.race([starting, signalled]);
    if (server === undefined) return EXIT.ok; // A name was still being looked up.
    await signalled;
    await server.stop();
    return EXIT.ok;
  } finally {
    for (const signal of signals) Deno.removeSignalListener(signal, resolve);
  }
}

/** An event as a line for people. */
export function logLine(event: ServerEvent): string {
  switch (event.event) {
    case "listening":
      return `listening on ${event.transport} ${event.address}`;
    case "refused":
      return `refused ${event.count} ${event.count === 1 ? "connection" : "connections"}: ` +
        REFUSALS[event.reason];
    case "accept-failed":
      return `cannot accept a connection: ${event.error}; trying again`;
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
  reset: "the connection was reset",
};
