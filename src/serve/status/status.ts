/**
 * Serves the status page, metrics and health on the server's own thread. A
 * separate worker took 15 MB and, under a flood on two processors, cost half of
 * the replies with the time.
 *
 * @module
 */

import type { Timers } from "../../clock/clock.ts";
import { hostOf, type SocketAddress } from "../../net/address.ts";
import type { Listener, Network } from "../../net/network.ts";
import { Admission, type Limits } from "../admission.ts";
import type { StatusPage } from "../lifecycle.ts";
import { listen } from "../listen.ts";
import { STEP_SECONDS } from "./history.ts";
import { HttpServer } from "./http_server.ts";
import { Site, type SiteOptions } from "./site.ts";

/** Options of {@linkcode StatusService.listen}. */
export interface StatusOptions extends SiteOptions {
  /** Where to listen. */
  readonly address: SocketAddress;
  /** Host names to answer for, besides `localhost` and that in `address`. */
  readonly names: readonly string[];
  readonly limits: Pick<Limits, "allow" | "deny" | "rate">;
  readonly network: Network;
  readonly timers: Timers;
}

/** Serves HTTP until it is stopped. */
export class StatusService implements StatusPage {
  readonly addresses: readonly SocketAddress[];
  readonly #site: Site;
  readonly #server: HttpServer;
  readonly #timers: Timers;
  #cancelSample = () => {};

  private constructor(listeners: readonly Listener[], options: StatusOptions) {
    const { address, names, limits, clock, timers } = options;
    this.addresses = listeners.map(({ address }) => address);
    this.#timers = timers;
    this.#site = new Site(options);
    this.#server = new HttpServer(listeners, {
      admission: new Admission(limits),
      realtime: () => clock.realtime(),
      timers,
      names: new Set(
        ["localhost", address.hostname, ...names].flatMap((name) => hostOf(name) ?? []),
      ),
      respond: (path, arrived) => this.#site.respond(path, arrived),
    });
    this.#sampleLater();
  }

  /** @throws {Error} a sentence, if it cannot listen. */
  static async listen(options: StatusOptions): Promise<StatusService> {
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
    return new StatusService(listeners, options);
  }

  set trouble(trouble: string | null) {
    this.#site.trouble = trouble;
  }

  stop(): void {
    this.#cancelSample();
    this.#server.close();
  }

  #sampleLater(): void {
    this.#cancelSample = this.#timers.after(STEP_SECONDS, () => {
      this.#site.sample();
      this.#sampleLater();
    });
  }
}
