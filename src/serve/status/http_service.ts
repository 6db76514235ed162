/**
 * HTTP on an address: its listeners, and who is answered.
 *
 * @module
 */

import type { Clock, Timers } from "../../clock/clock.ts";
import { hostOf, type SocketAddress } from "../../net/address.ts";
import type { Listener, Network } from "../../net/network.ts";
import { Admission, type Limits } from "../admission.ts";
import { listen } from "../listen.ts";
import { type HttpContext, HttpServer } from "./http_server.ts";

/** Options of {@linkcode HttpService.listen}. */
export interface HttpOptions extends Pick<HttpContext, "respond"> {
  /** Where to listen. */
  readonly address: SocketAddress;
  /** Host names to answer for, besides `localhost` and that in `address`. */
  readonly names: readonly string[];
  readonly limits: Pick<Limits, "allow" | "deny" | "rate">;
  readonly clock: Pick<Clock, "realtime">;
  readonly network: Network;
  readonly timers: Timers;
}

/** Answers until it is closed. */
export class HttpService {
  /** Where it listens, with the actual ports. */
  readonly addresses: readonly SocketAddress[];
  readonly #server: HttpServer;

  private constructor(listeners: readonly Listener[], options: HttpOptions) {
    const { address, names, limits, clock, timers, respond } = options;
    this.addresses = listeners.map(({ address }) => address);
    this.#server = new HttpServer(listeners, {
      admission: new Admission(limits),
      realtime: () => clock.realtime(),
      timers,
      names: new Set(
        ["localhost", address.hostname, ...names].flatMap((name) => hostOf(name) ?? []),
      ),
      respond,
    });
  }

  /** @throws {Error} a sentence, if it cannot listen. */
  static async listen(options: HttpOptions): Promise<HttpService> {
    const { network, address: { hostname, port } } = options;
    const listeners: Listener[] = [];
    const bind = (address: SocketAddress) => {
      const listener = network.listen(address);
      listeners.push(listener);
      return listener;
    };
    try {
      await listen(network, bind, [hostname], port, "http");
    } catch (error) {
      for (const listener of listeners) listener.close();
      throw error;
    }
    return new HttpService(listeners, options);
  }

  /** Closes the listeners and all connections at once. */
  close(): void {
    this.#server.close();
  }
}
