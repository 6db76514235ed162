/**
 * What a server shows over HTTP: the status page with ten minutes of history,
 * metrics, and health.
 *
 * @module
 */

import type { Endpoint } from "../lifecycle.ts";
import { formatAddress } from "../../net/address.ts";
import config from "../../../deno.json" with { type: "json" };
import type { Clock } from "../../clock/clock.ts";
import type { HttpResponse } from "./http_message.ts";
import {
  type CarrierTotals,
  type Counters,
  HOLD_BOUNDS_NS,
  type Refusal,
  REFUSALS,
} from "../counters.ts";
import type { RequestRefusal } from "../../ntp/validation.ts";
import { type DatagramRefusal, stratumOf } from "../reply.ts";
import { History, STEP_SECONDS } from "./history.ts";
import { failure } from "./http_server.ts";
import {
  buckets,
  counter,
  exposition,
  gauge,
  histogram,
  type Metric,
  METRICS_TYPE,
  type Sample,
} from "./metrics.ts";
import { PAGE, PAGE_HEADERS } from "./page.ts";
import { buildMetric, health, healthMetric, json, processMetrics } from "./process_metrics.ts";

/** The server that a site describes. */
export interface SiteOptions {
  readonly counters: Counters;
  readonly clock: Clock;
  readonly endpoints: readonly Endpoint[];
  /** The stratum to announce. Default: 2 or 10, by the clock state. */
  readonly stratum: number | undefined;
  /** When the server started, on both of the clock's timelines. */
  readonly started: { readonly monotonic: bigint; readonly realtime: bigint };
}

/** Indices of a sample's values; refusals by reason come last. */
const REPLIES = 0;
const OPEN = 1;
const REFUSED = 2;

export class Site {
  /** What is wrong with the server: a sentence; `null` if nothing is. */
  trouble: string | null = null;
  readonly #counters: Counters;
  readonly #options: SiteOptions;
  readonly #clock: Clock;
  readonly #history = new History(REFUSED + REFUSALS.length);
  /** The history as JSON, made once per sample. */
  #historyText = "";

  constructor(options: SiteOptions) {
    this.#counters = options.counters;
    this.#options = options;
    this.#clock = options.clock;
    this.sample();
  }

  /** Takes a sample. Call it every `STEP_SECONDS` seconds. */
  sample(): void {
    const { tcp, udp, open } = this.#counters.totals;
    const refusals = REFUSALS.map((reason) => tcp.refusals[reason] + udp.refusals[reason]);
    const at = this.#clock.monotonic();
    this.#history.record(Number(at) / 1e9, [tcp.replies + udp.replies, open, ...refusals]);
    this.#historyText = this.#describeHistory();
  }

  /** @param arrived When the request arrived: nanoseconds since the Unix epoch. */
  respond(path: string, arrived: bigint): HttpResponse {
    switch (path) {
      case "/time":
        // The page's own time exchange: T2 and T3.
        return json(`{"receive":"${arrived}","transmit":"${this.#clock.realtime()}"}`);
      case "/":
        return { status: 200, type: "text/html", headers: PAGE_HEADERS, body: PAGE };
      case "/status":
        return json(this.#status());
      case "/metrics":
        return { status: 200, type: METRICS_TYPE, body: exposition(this.#metrics()) };
      case "/healthz":
        return health(this.trouble);
      default:
        return failure(404, "not found: try /, /metrics or /healthz");
    }
  }

  get #uptime(): number {
    return Number(this.#clock.monotonic() - this.#options.started.monotonic) / 1e9;
  }

  #status(): string {
    const { tcp, udp, connections, open } = this.#counters.totals;
    const state = this.#clock.state();
    const { stratum, endpoints } = this.#options;
    const addresses = endpoints.map(({ transport, address }) =>
      `${transport} ${formatAddress(address)}`
    );
    const now = JSON.stringify({
      version: config.version,
      uptime: this.#uptime,
      trouble: this.trouble,
      addresses,
      stratum: stratumOf(state, stratum),
      clock: state && {
        synchronised: state.synchronised,
        estimated_error: state.estimatedError,
        maximum_error: state.maximumError,
      },
      replies: tcp.replies + udp.replies,
      connections: { open, total: connections },
    });
    return `${now.slice(0, -1)},"history":${this.#historyText}}`;
  }

  /** Without refusals that have not occurred. */
  #describeHistory(): string {
    const history = this.#history;
    const refusals = REFUSALS.map((reason, i) => [reason, history.rates(REFUSED + i)] as const);
    return JSON.stringify({
      step: STEP_SECONDS,
      replies: history.rates(REPLIES),
      connections: history.values(OPEN),
      refusals: Object.fromEntries(
        refusals.filter(([, values]) => values.some((value) => value > 0)),
      ),
    });
  }

  #metrics(): Metric[] {
    const { tcp, udp, connections, open } = this.#counters.totals;
    const { endpoints, stratum } = this.#options;
    const stamped = new Map(endpoints.map(({ transport, stamped }) => [transport, stamped]));
    const stream = stamped.has("tls") ? "tls" : "tcp";
    const labels = { transport: stream };
    const carriers: [string, CarrierTotals][] = [[stream, tcp]];
    if (stamped.has("udp")) carriers.push(["udp", udp]);
    const each = (valueOf: (totals: CarrierTotals) => number) =>
      carriers.map(([transport, totals]) => ({ labels: { transport }, value: valueOf(totals) }));
    const state = this.#clock.state();
    const kernel = (valueOf: (known: NonNullable<typeof state>) => number): Sample[] =>
      state === null ? [] : [{ value: valueOf(state) }];
    const seconds = (count: number) => count / 1e9;
    return [
      buildMetric(),
      counter(
        "tsync_requests_total",
        "Messages received, answered with the time or refused.",
        carriers.map(([transport, { replies, refusals }]) => {
          const refused = transport === "udp" ? DATAGRAMS : MESSAGES;
          const value = refused.reduce((count, reason) => count + refusals[reason], replies);
          return { labels: { transport }, value };
        }),
      ),
      counter(
        "tsync_replies_total",
        "Requests answered with the time.",
        each(({ replies }) => replies),
      ),
      counter(
        "tsync_refusals_total",
        "Connections refused or lost, and datagrams not answered with the time.",
        carriers.flatMap(([transport, { refusals }]) =>
          reasonsOf(transport).map((reason) => (
            { labels: { transport, reason }, value: refusals[reason] }
          ))
        ),
      ),
      gauge(
        "tsync_kernel_timestamps",
        "1 if the kernel takes the timestamps of arrival, 0 if the program does.",
        [...stamped].map(([transport, is]) => ({ labels: { transport }, value: is ? 1 : 0 })),
      ),
      counter(
        "tsync_unstamped_requests_total",
        "Requests without a kernel timestamp where there should have been one.",
        each(({ unstamped }) => unstamped),
      ),
      histogram(
        "tsync_reply_time_seconds",
        "How long the server held the requests that it answered: T3 - T2.",
        carriers.flatMap(([transport, { holds, heldNs }]) =>
          buckets({ transport }, HOLD_BOUNDS_NS.map(seconds), holds, seconds(heldNs))
        ),
      ),
      gauge("tsync_connections", "Open connections.", [{ labels, value: open }]),
      counter(
        "tsync_connections_accepted_total",
        "Connections admitted.",
        [{ labels, value: connections }],
      ),
      healthMetric(this.trouble, "connections are accepted and requests answered"),
      gauge("tsync_stratum", "The stratum announced.", [{ value: stratumOf(state, stratum) }]),
      gauge(
        "tsync_clock_synchronised",
        "1 if this machine's clock is synchronised, according to the kernel.",
        kernel(({ synchronised }) => synchronised ? 1 : 0),
      ),
      gauge(
        "tsync_clock_estimated_error_seconds",
        "The probable error of this machine's clock, according to the kernel.",
        kernel(({ estimatedError }) => estimatedError),
      ),
      gauge(
        "tsync_clock_maximum_error_seconds",
        "The greatest error of this machine's clock, according to the kernel.",
        kernel(({ maximumError }) => maximumError),
      ),
      ...processMetrics(this.#options.started.realtime),
    ];
  }
}

/** Refusals of a whole message, as opposed to those of a connection or of other bytes. */
const MESSAGES = keysOf<RequestRefusal | "mac" | "rate">({ version: 0, mode: 0, mac: 0, rate: 0 });

/** Refusals of a datagram. */
const DATAGRAMS = keysOf<DatagramRefusal>({
  version: 0,
  mode: 0,
  mac: 0,
  rate: 0,
  denied: 0,
  incomplete: 0,
});

/** All values of a type: a record of one that is not complete does not compile. */
function keysOf<T extends string>(record: Readonly<Record<T, 0>>): readonly T[] {
  return Object.keys(record) as T[];
}

/** The refusals that a transport can have. */
function reasonsOf(transport: string): readonly Refusal[] {
  if (transport === "udp") return DATAGRAMS;
  return REFUSALS.filter((reason) => reason !== "tls" || transport === "tls");
}
