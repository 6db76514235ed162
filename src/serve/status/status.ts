/**
 * Serves the status page, metrics and health on the server's own thread. A
 * separate worker took 15 MB and, under a flood on two processors, cost half of
 * the replies with the time.
 *
 * @module
 */

import type { Timers } from "../../clock/clock.ts";
import type { SocketAddress } from "../../net/address.ts";
import type { StatusPage } from "../lifecycle.ts";
import { STEP_SECONDS } from "./history.ts";
import { type HttpOptions, HttpService } from "./http_service.ts";
import { Site, type SiteOptions } from "./site.ts";

/** Options of {@linkcode StatusService.listen}. */
export type StatusOptions = SiteOptions & Omit<HttpOptions, "respond">;

/** Serves HTTP until it is stopped. */
export class StatusService implements StatusPage {
  readonly #site: Site;
  readonly #service: HttpService;
  readonly #timers: Timers;
  #cancelSample = () => {};

  private constructor(site: Site, service: HttpService, timers: Timers) {
    this.#site = site;
    this.#service = service;
    this.#timers = timers;
    this.#sampleLater();
  }

  /** @throws {Error} a sentence, if it cannot listen. */
  static async listen(options: StatusOptions): Promise<StatusService> {
    const site = new Site(options);
    const respond = (path: string, arrived: bigint) => site.respond(path, arrived);
    const service = await HttpService.listen({ ...options, respond });
    return new StatusService(site, service, options.timers);
  }

  get addresses(): readonly SocketAddress[] {
    return this.#service.addresses;
  }

  set trouble(trouble: string | null) {
    this.#site.trouble = trouble;
  }

  stop(): void {
    this.#cancelSample();
    this.#service.close();
  }

  #sampleLater(): void {
    this.#cancelSample = this.#timers.after(STEP_SECONDS, () => {
      this.#site.sample();
      this.#sampleLater();
    });
  }
}
