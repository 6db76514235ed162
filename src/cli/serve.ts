/**
 * `tsync serve`.
 *
 * @module
 */

import { serve, type ServerEvent } from "../mod.ts";
import { EXIT, type ServeArguments } from "./args.ts";

/** Serves until a signal comes. @returns The exit status. */
export async function runServe({ hosts, port, stratum, log }: ServeArguments): Promise<number> {
  const { promise: signalled, resolve } = Promise.withResolvers<void>();
  const signals = ["SIGINT", "SIGTERM"] as const;
  for (const signal of signals) Deno.addSignalListener(signal, resolve);
  try {
    const server = await serve({
      hosts,
      ...port === undefined ? {} : { port },
      ...stratum === undefined ? {} : { stratum },
      onEvent: (event) => console.error(log === "json" ? JSON.stringify(event) : logLine(event)),
    });
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

const REFUSALS = {
  version: "the first byte is not that of an NTP request of version 1 to 4",
  mode: "the first byte is not that of an NTP client's request",
  incomplete: "the connection ended in the middle of a request",
  reset: "the connection was reset",
} as const;
