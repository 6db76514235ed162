/**
 * `tsync sync --watch --http`: the kept clock over HTTP.
 *
 * @module
 */

import type { SyncedClock } from "../clock/synced_clock.ts";
import { systemClock, systemTimers } from "../clock/system_clock.ts";
import type { ServerReport, State, Update } from "../mod.ts";
import { formatAddress, type SocketAddress } from "../net/address.ts";
import { systemNetwork } from "../net/system.ts";
import type { HttpResponse } from "../serve/status/http_message.ts";
import { failure } from "../serve/status/http_server.ts";
import { HttpService } from "../serve/status/http_service.ts";
import {
  counter,
  exposition,
  gauge,
  type Metric,
  METRICS_TYPE,
  type Sample,
} from "../serve/status/metrics.ts";
import {
  buildMetric,
  health,
  healthMetric,
  json,
  processMetrics,
} from "../serve/status/process_metrics.ts";
import type { SyncArguments } from "./command_line.ts";
import { describeFailure, tooLarge } from "./report.ts";

/** What is shown of a kept clock. */
export class WatchSite {
  readonly #clock: Pick<SyncedClock, "now" | "systemOffset">;
  readonly #maxOffset: number | undefined;
  readonly #started: bigint;
  #update: Update | null = null;
  readonly #polls: Record<Update["news"], number> = {
    first: 0,
    agrees: 0,
    frequency: 0,
    step: 0,
    disturbed: 0,
    minority: 0,
    lost: 0,
  };

  /**
   * @param maxOffset The most seconds that the system clock may be off for all to be well. Default:
   * all is well while servers can be believed.
   * @param started When the program was: nanoseconds since the Unix epoch.
   */
  constructor(
    clock: Pick<SyncedClock, "now" | "systemOffset">,
    maxOffset: number | undefined,
    started: bigint,
  ) {
    this.#clock = clock;
    this.#maxOffset = maxOffset;
    this.#started = started;
  }

  /** Takes in a poll. */
  update(update: Update): void {
    this.#update = update;
    this.#polls[update.news]++;
  }

  respond(path: string): HttpResponse {
    switch (path) {
      case "/now":
        return this.#now();
      case "/metrics":
        return { status: 200, type: METRICS_TYPE, body: exposition(this.#metrics()) };
      case "/healthz":
        return health(this.#trouble);
      default:
        return failure(404, "not found: try /metrics, /healthz or /now");
    }
  }

  #now(): HttpResponse {
    // Who asks should see at once that servers were set back; the bounds say what came first.
    const now = this.#clock.now(true);
    if (now === null) return failure(503, this.#unknown);
    return json(`{"time":"${now.time}","earliest":"${now.earliest}","latest":"${now.latest}"}`);
  }

  get #state(): State {
    const isValid = this.#clock.systemOffset() !== null;
    return isValid && this.#update !== null ? this.#update.state : "synchronising";
  }

  /** What is wrong: a sentence; `null` if nothing is. */
  get #trouble(): string | null {
    const offset = this.#clock.systemOffset();
    if (offset === null) return this.#unknown;
    if (this.#maxOffset !== undefined) {
      return tooLarge(Math.abs(offset.offset) + offset.errorBound, this.#maxOffset);
    }
    if (this.#state !== "holdover") return null;
    return `the last poll made no fix, and the kept clock goes on alone: ${this.#failures}`;
  }

  /** Why the time is not known, if it is not: a sentence. */
  get #unknown(): string {
    const why = this.#update === null
      ? "no poll has ended yet"
      : this.#update.fix.synchronised
      ? "the local clock was set, or the machine slept"
      : this.#failures;
    return `the time is not known: ${why}`;
  }

  get #failures(): string {
    return describeFailure(this.#update!.fix).join("; ");
  }

  #metrics(): Metric[] {
    const offset = this.#clock.systemOffset();
    const kept = (valueOf: (known: NonNullable<typeof offset>) => number): Sample[] =>
      offset === null ? [] : [{ value: valueOf(offset) }];
    const state = this.#state;
    const servers = this.#update?.fix.servers ?? [];
    return [
      buildMetric(),
      healthMetric(this.#trouble, "the clock is synchronised or meets --max-offset"),
      gauge(
        "tsync_sync_state",
        "1 for the state that the kept clock is in.",
        STATES.map((each) => ({ labels: { state: each }, value: each === state ? 1 : 0 })),
      ),
      gauge(
        "tsync_sync_offset_seconds",
        "How far the system clock is behind the kept clock.",
        kept((clock) => clock.offset),
      ),
      gauge(
        "tsync_sync_error_bound_seconds",
        "The most by which the offset can be wrong.",
        kept((clock) => clock.errorBound),
      ),
      gauge(
        "tsync_sync_frequency_ppm",
        "How much faster the servers' clock runs than the system clock.",
        kept((clock) => clock.frequency * 1e6),
      ),
      gauge(
        "tsync_sync_frequency_bound_ppm",
        "The most by which the frequency can be wrong.",
        kept((clock) => clock.frequencyBound * 1e6),
      ),
      counter(
        "tsync_sync_polls_total",
        "Polls of all servers, by what came of them.",
        Object.entries(this.#polls).map(([outcome, value]) => ({ labels: { outcome }, value })),
      ),
      gauge(
        "tsync_sync_servers",
        "Servers by their status at the last poll.",
        STATUSES.map((status) => ({
          labels: { status },
          value: servers.filter((server) => server.status === status).length,
        })),
      ),
      ...processMetrics(this.#started),
    ];
  }
}

const STATES: readonly State[] = ["synchronising", "synchronised", "holdover"];

const STATUSES: readonly ServerReport["status"][] = [
  "truechimer",
  "falseticker",
  "unreachable",
  "invalid",
];

/** What is shown, for as long as it is open. */
export interface OpenSite {
  /** Takes in a poll. */
  update(update: Update): void;
  close(): void;
}

/**
 * Shows this machine's kept clock.
 *
 * @param tell Told of the addresses.
 * @throws {Error} a sentence, if it cannot listen.
 */
export async function openSite(
  address: SocketAddress,
  { httpHosts, maxOffset }: Pick<SyncArguments, "httpHosts" | "maxOffset">,
  kept: SyncedClock,
  tell: (sentence: string, isError: boolean) => void,
): Promise<OpenSite> {
  const clock = systemClock();
  const site = new WatchSite(kept, maxOffset, clock.realtime());
  const service = await HttpService.listen({
    address,
    names: httpHosts,
    limits: {},
    clock,
    network: systemNetwork,
    timers: systemTimers,
    respond: (path) => site.respond(path),
  });
  for (const each of service.addresses) tell(`listening on http ${formatAddress(each)}`, false);
  return { update: (update) => site.update(update), close: () => service.close() };
}
