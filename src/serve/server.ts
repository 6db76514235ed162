/**
 * The server: accepts connections and answers on each for as long as it lasts.
 *
 * @module
 */

import type { Clock, Timers } from "../clock/clock.ts";
import { systemClock, systemTimers } from "../clock/system_clock.ts";
import { DEFAULT_PORT, formatAddress, type SocketAddress } from "../net/address.ts";
import { MessageReader, MessageWriter } from "../net/framing.ts";
import {
  type Connection,
  errorText,
  type Listener,
  type Network,
  systemNetwork,
} from "../net/transport.ts";
import { PACKET_SIZE } from "../ntp/packet.ts";
import { refuseRequest, type RequestRefusal } from "../ntp/validation.ts";
import { announcement, respond, stampTransmit } from "./respond.ts";

/** Why a connection was closed by the server, or lost. */
export type Refusal = RequestRefusal | "incomplete" | "reset";

/** Something that a log may tell. */
export type ServerEvent =
  | { readonly event: "listening"; readonly transport: "tcp"; readonly address: string }
  | { readonly event: "refused"; readonly reason: Refusal; readonly count: number }
  | { readonly event: "accept-failed"; readonly error: string }
  | {
    readonly event: "stopped";
    readonly connections: number;
    readonly replies: number;
  };

/** What a server is to do. */
export interface ServeOptions {
  /** Addresses or names to listen on. Default: all addresses, IPv4 and IPv6. */
  hosts?: readonly string[];
  /** TCP port; 0 picks a free one. Default 10085. */
  port?: number;
  /** Stratum to announce, 1 to 15. Default: by the kernel's own state. */
  stratum?: number;
  /** Told of everything worth a line in a log. */
  onEvent?: (event: ServerEvent) => void;
  /** The world outside. Default: the machine's. */
  clock?: Clock;
  network?: Network;
  timers?: Timers;
}

/** A server that is listening. */
export interface Server {
  /** Where: one for each socket. */
  readonly addresses: readonly SocketAddress[];
  /** What happened so far. */
  readonly counters: Readonly<Counters>;
  /** Stops accepting, lets finish what is in flight, and closes everything within a second. */
  stop(): Promise<void>;
}

/** What a server counts. */
export interface Counters {
  connections: number;
  replies: number;
  refusals: Record<Refusal, number>;
}

/** Seconds for which an announcement is used before the kernel is asked again. */
const ANNOUNCEMENT_AGE = 1;

/** Seconds between two log lines about the same refusal, and before a failed accept is tried again. */
const LOG_INTERVAL = 1;
const ACCEPT_PAUSE = 0.1;

/** Seconds that a request in flight has when the server is stopped. */
const GRACE = 0.5;

/**
 * Starts a server.
 *
 * @returns Once it listens on all its addresses.
 * @throws {Error} a sentence, if it cannot listen on one of them; none is left open then.
 * @throws {RangeError} if the stratum is not one from 1 to 15.
 */
export async function serve(options: ServeOptions = {}): Promise<Server> {
  const { stratum } = options;
  if (stratum !== undefined && !(Number.isInteger(stratum) && stratum >= 1 && stratum <= 15)) {
    throw new RangeError(
      `cannot serve: stratum must be an integer from 1 to 15: current value is ${stratum}`,
    );
  }
  const clock = options.clock ?? systemClock();
  const network = options.network ?? systemNetwork;
  const listeners = await listen(network, options.hosts ?? [], options.port ?? DEFAULT_PORT);
  const server = new TcpServer(listeners, clock, options);
  server.start();
  return server;
}

/** Opens a listener for each address, or none. */
async function listen(
  network: Network,
  hosts: readonly string[],
  port: number,
): Promise<Listener[]> {
  const listeners: Listener[] = [];
  try {
    for (const host of hosts) {
      for (const hostname of await resolve(network, host)) {
        listeners.push(open(network, { hostname, port }));
      }
    }
    if (hosts.length === 0) listeners.push(...openAll(network, port));
  } catch (error) {
    for (const listener of listeners) listener.close();
    throw error;
  }
  return listeners;
}

async function resolve(network: Network, host: string): Promise<string[]> {
  try {
    return await network.resolve(host, undefined);
  } catch (error) {
    throw new Error(`cannot listen on ${host}: there is no such host`, { cause: error });
  }
}

function open(network: Network, address: SocketAddress): Listener {
  try {
    return network.listen(address);
  } catch (error) {
    throw new Error(`cannot listen on ${formatAddress(address)}: ${listenErrorText(error)}`, {
      cause: error,
    });
  }
}

/**
 * All addresses: the IPv6 wildcard takes IPv4 too on most systems. Where it
 * does not, IPv4's is opened beside it, and where there is no IPv6, alone.
 */
function openAll(network: Network, port: number): Listener[] {
  let v6: Listener;
  try {
    v6 = network.listen({ hostname: "::", port });
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse || error instanceof Deno.errors.PermissionDenied) {
      throw new Error(`cannot listen on port ${port}: ${listenErrorText(error)}`, { cause: error });
    }
    return [open(network, { hostname: "0.0.0.0", port })];
  }
  try {
    return [v6, network.listen({ hostname: "0.0.0.0", port: v6.address.port })];
  } catch {
    return [v6];
  }
}

/** Did a connection end before it was accepted? That is no trouble of the listener's. */
function isLost(error: unknown): boolean {
  return error instanceof Deno.errors.NotConnected ||
    error instanceof Deno.errors.ConnectionAborted ||
    error instanceof Deno.errors.ConnectionReset;
}

function listenErrorText(error: unknown): string {
  if (error instanceof Deno.errors.AddrInUse) {
    return "the address is in use; stop the program that uses it, or choose another with --port";
  }
  if (error instanceof Deno.errors.PermissionDenied) {
    return "permission denied; ports below 1024 need a privilege";
  }
  if (error instanceof Deno.errors.AddrNotAvailable) return "this machine has no such address";
  return errorText(error);
}

class TcpServer implements Server {
  readonly addresses: readonly SocketAddress[];
  readonly counters: Counters = {
    connections: 0,
    replies: 0,
    refusals: { version: 0, mode: 0, incomplete: 0, reset: 0 },
  };
  readonly #listeners: readonly Listener[];
  readonly #clock: Clock;
  readonly #timers: Timers;
  readonly #stratum: number | undefined;
  readonly #onEvent: (event: ServerEvent) => void;
  readonly #connections = new Map<Connection, MessageReader>();
  readonly #tasks = new Set<Promise<void>>();
  /** Refusals that no event has told of yet. */
  readonly #untold = new Map<Refusal, number>();
  readonly #cancels = new Map<string, () => void>();
  readonly #stopping = Promise.withResolvers<void>();
  #announced: Uint8Array;
  #stopped: Promise<void> | undefined;

  constructor(listeners: readonly Listener[], clock: Clock, options: ServeOptions) {
    this.#listeners = listeners;
    this.addresses = listeners.map(({ address }) => address);
    this.#clock = clock;
    this.#timers = options.timers ?? systemTimers;
    this.#stratum = options.stratum;
    this.#onEvent = options.onEvent ?? (() => {});
    this.#announced = this.#announce();
  }

  start(): void {
    for (const listener of this.#listeners) {
      this.#run(this.#accept(listener));
      this.#onEvent({
        event: "listening",
        transport: "tcp",
        address: formatAddress(listener.address),
      });
    }
  }

  stop(): Promise<void> {
    return this.#stopped ??= this.#stop();
  }

  async #stop(): Promise<void> {
    this.#stopping.resolve();
    for (const cancel of this.#cancels.values()) cancel();
    for (const listener of this.#listeners) listener.close();
    // A connection between two requests has nothing in flight.
    for (const [connection, reader] of this.#connections) {
      if (reader.filled === 0) connection.close();
    }
    const cancel = this.#timers.after(GRACE, () => {
      for (const connection of this.#connections.keys()) connection.close();
    });
    await Promise.all(this.#tasks);
    cancel();
    for (const [reason, count] of this.#untold) this.#onEvent({ event: "refused", reason, count });
    const { connections, replies } = this.counters;
    this.#onEvent({ event: "stopped", connections, replies });
  }

  #run(task: Promise<void>): void {
    const tracked = task.finally(() => this.#tasks.delete(tracked));
    this.#tasks.add(tracked);
  }

  /** Makes the announcement, now and each second. */
  #announce(): Uint8Array {
    this.#after("announce", ANNOUNCEMENT_AGE, () => this.#announced = this.#announce());
    const { precision } = this.#clock;
    return announcement(
      this.#clock.discipline(),
      precision,
      this.#clock.realtime(),
      this.#stratum,
    );
  }

  async #accept(listener: Listener): Promise<void> {
    while (this.#stopped === undefined) {
      try {
        const connection = await listener.accept();
        if (connection === null) return;
        this.#run(this.#converse(connection));
      } catch (error) {
        if (isLost(error)) {
          this.#refuse("reset");
          continue;
        }
        // Out of file descriptors, say: the connections there are go on.
        this.#onEvent({ event: "accept-failed", error: errorText(error) });
        const pause = new Promise<void>((resolve) => this.#after("accept", ACCEPT_PAUSE, resolve));
        await Promise.race([pause, this.#stopping.promise]);
      }
    }
  }

  /** Answers on one connection until its end. */
  async #converse(connection: Connection): Promise<void> {
    this.counters.connections++;
    const bytes = new Uint8Array(2 * PACKET_SIZE);
    const request = bytes.subarray(0, PACKET_SIZE);
    const reply = bytes.subarray(PACKET_SIZE);
    const { realtime } = this.#clock;
    const reader = new MessageReader(
      connection,
      request,
      realtime,
      (first) => refuseRequest(first) !== null,
    );
    const writer = new MessageWriter(connection, reply);
    this.#connections.set(connection, reader);
    let reading = reader.read();
    let written = Promise.resolve(true);
    try {
      while (await reading) {
        if (!await written) break;
        respond(request, reply, this.#announced, reader.arrived);
        // The next read is under way before this reply leaves: after T3 nothing is left to do.
        reading = this.#stopped === undefined ? reader.read() : Promise.resolve(false);
        stampTransmit(reply, realtime());
        written = writer.write();
        this.counters.replies++;
      }
      await written;
    } finally {
      this.#connections.delete(connection);
      connection.close();
    }
    if (this.#stopped !== undefined) return;
    if (reader.error ?? writer.error !== undefined) this.#refuse("reset");
    else if (reader.filled > 0) this.#refuse(refuseRequest(request[0]!) ?? "incomplete");
  }

  /** Counts a refusal; tells of it now, or with all others of its kind a second after the last time. */
  #refuse(reason: Refusal): void {
    this.counters.refusals[reason]++;
    this.#untold.set(reason, (this.#untold.get(reason) ?? 0) + 1);
    if (this.#stopped === undefined && !this.#cancels.has(reason)) this.#tell(reason);
  }

  #tell(reason: Refusal): void {
    const count = this.#untold.get(reason);
    if (count === undefined) return;
    this.#untold.delete(reason);
    this.#onEvent({ event: "refused", reason, count });
    this.#after(reason, LOG_INTERVAL, () => this.#tell(reason));
  }

  /** Runs something later, unless the server is stopped before. */
  #after(name: string, seconds: number, callback: () => void): void {
    const cancel = this.#timers.after(seconds, () => {
      this.#cancels.delete(name);
      callback();
    });
    this.#cancels.set(name, cancel);
  }
}
