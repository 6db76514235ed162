/**
 * Connections through an HTTP proxy: CONNECT (RFC 9110, section 9.3.6). The proxy looks up the
 * server's name, and passes on bytes that TLS keeps it from reading. Loaded only where there is one.
 *
 * @module
 */

import type { Clock, Timers } from "../clock/clock.ts";
import { printable } from "../ntp/printable.ts";
import { formatAddress, type ProxyAddress, type SocketAddress } from "./address.ts";
import { connectFirst } from "./channel.ts";
import { errorText, isUnknownHost } from "./errors.ts";
import type { Connection, Network } from "./network.ts";

/** The most bytes of a proxy's answer. */
const MAX_ANSWER = 16384;

/**
 * Connects to a server through a proxy.
 *
 * @param proxy Its name is looked up on `network`.
 * @param family Use only addresses of the proxy that are of this family.
 * @param address The server's: a name or an IP address.
 * @throws {Error} with a text that begins with "the proxy", if there is no connection.
 * @throws The signal's reason if it is aborted.
 */
export async function connectThrough(
  proxy: ProxyAddress,
  network: Network,
  clock: Clock,
  timers: Timers,
  family: 4 | 6 | undefined,
  address: SocketAddress,
  signal: AbortSignal,
): Promise<Connection> {
  signal.throwIfAborted();
  const name = `the proxy ${formatAddress(proxy)}`;
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(signal.reason);
  signal.addEventListener("abort", onAbort);
  let connection: Connection | undefined;
  try {
    const resolving = Promise.race([network.resolve(proxy.hostname, family), aborted]);
    connection = await reach(proxy, name, resolving, network, clock, timers, family, signal);
    await Promise.race([ask(connection, proxy, name, formatAddress(address)), aborted]);
  } catch (error) {
    connection?.close();
    throw error;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
  // Who is at the other end now.
  return Object.assign(connection, { remote: address });
}

async function reach(
  { port }: ProxyAddress,
  name: string,
  resolving: Promise<string[]>,
  network: Network,
  clock: Clock,
  timers: Timers,
  family: 4 | 6 | undefined,
  signal: AbortSignal,
): Promise<Connection> {
  try {
    const found = await resolving;
    if (found.length === 0) throw new Error(`it has no ${family ? `IPv${family} ` : ""}address`);
    const addresses = found.map((hostname) => ({ hostname, port }));
    return (await connectFirst(network, addresses, clock, timers, signal, true)).connection;
  } catch (error) {
    signal.throwIfAborted();
    const why = isUnknownHost(error)
      ? "is not a known host"
      : `cannot be reached: ${errorText(error)}`;
    throw new Error(`${name} ${why}`, { cause: error });
  }
}

/** Has the proxy connect to the server. */
async function ask(
  connection: Connection,
  { credentials }: ProxyAddress,
  name: string,
  server: string,
): Promise<void> {
  const lines = [`CONNECT ${server} HTTP/1.1`, `Host: ${server}`];
  if (credentials !== null) lines.push(`Proxy-Authorization: Basic ${credentials}`);
  const request = new TextEncoder().encode(`${lines.join("\r\n")}\r\n\r\n`);
  const answer = await exchange(connection, request).catch((error) => {
    throw new Error(`${name} broke the connection: ${errorText(error)}`, { cause: error });
  });
  const status = /^HTTP\/1\.[01] (\d{3})(?: ([^\r\n]*))?\r?\n/.exec(answer);
  if (status === null) {
    const what = answer === ""
      ? "closed the connection without an answer"
      : `does not speak HTTP: it sent "${printable(answer.slice(0, 40))}"`;
    throw new Error(`${name} ${what}`);
  }
  const [, code, reason = ""] = status;
  if (code === "407") {
    const how = credentials === null
      ? "demands a user name and a password: write them into its URL, http://USER:PASSWORD@HOST:PORT"
      : "does not accept the user name and the password in its URL";
    throw new Error(`${name} ${how}`);
  }
  if (!code!.startsWith("2")) {
    const text = printable(`${code} ${reason}`.trim().slice(0, 80));
    throw new Error(`${name} does not connect to it: ${text}`);
  }
  const end = /\r?\n\r?\n/.exec(answer);
  if (end === null) throw new Error(`${name} sent an answer that does not end`);
  // The server does not speak before it has been greeted.
  if (end.index + end[0].length < answer.length) {
    throw new Error(`${name} speaks in the server's place`);
  }
}

/** Sends a request and reads the answer's head, or as much as there is, as Latin-1. */
async function exchange(connection: Connection, request: Uint8Array): Promise<string> {
  for (let sent = 0; sent < request.length;) {
    sent += await connection.write(request.subarray(sent));
  }
  const bytes = new Uint8Array(1024);
  let answer = "";
  while (answer.length < MAX_ANSWER && !/\r?\n\r?\n/.test(answer)) {
    const count = await connection.read(bytes);
    if (count === null) break;
    answer += String.fromCharCode(...bytes.subarray(0, count));
  }
  return answer;
}
