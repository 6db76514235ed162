/**
 * What is shown of a server over HTTP: a page, metrics, and whether it is
 * well. It keeps ten minutes of what the server counts.
 *
 * @module
 */

import type { Endpoint } from "../lifecycle.ts";
import { formatAddress } from "../../net/address.ts";
import config from "../../../deno.json" with { type: "json" };
import type { ProcessUsage } from "../../net/node.ts";
import type { Clock } from "../../clock/clock.ts";
import type { HttpResponse } from "./http_message.ts";
import {
  type CarrierTotals,
  type Counters,
  HOLD_BOUNDS,
  type Refusal,
  REFUSALS,
} from "../counters.ts";
import { stratumOf } from "../reply.ts";
import { History, STEP_SECONDS } from "./history.ts";
import { failure } from "./http_server.ts";
import { exposition, histogram, type Metric, METRICS_TYPE, type Sample } from "./metrics.ts";
import { PAGE, PAGE_HEADERS } from "./page.ts";

/** What a site is told of the server. */
export interface SiteOptions {
  /** Where it answers. */
  readonly endpoints: readonly Endpoint[];
  /** What it announces. Default: by the kernel's own state. */
  readonly stratum: number | undefined;
  /** When the server started, on both of the clock's timelines. */
  readonly started: { readonly monotonic: bigint; readonly realtime: bigint };
}

/** Places in a sample: replies and open connections; refusals by reason follow. */
const REPLIES = 0;
const OPEN = 1;
const REFUSED = 2;

/** Answers requests. All times are the clock's. */
export class Site {
  /** What is wrong with the server, as far as it knows itself: a sentence. */
  trouble: string | null = null;
  readonly #counters: Counters;
  readonly #options: SiteOptions;
  readonly #clock: Clock;
  readonly #process: () => ProcessUsage;
  readonly #history = new History(REFUSED + REFUSALS.length);
  /** The same as JSON: made once a sample, however many look. */
  #historyText = "";

  /** @param counters What the server counts. */
  constructor(
    counters: Counters,
    options: SiteOptions,
    clock: Clock,
    process: () => ProcessUsage,
  ) {
    this.#counters = counters;
    this.#options = options;
    this.#clock = clock;
    this.#process = process;
    this.sample();
  }

  /** Takes a sample. To be called every `STEP_SECONDS` seconds. */
  sample(): void {
    const { tcp, udp, open } = this.#counters.totals;
    const refusals = REFUSALS.map((reason) => tcp.refusals[reason] + udp.refusals[reason]);
    const at = this.#clock.monotonic();
    this.#history.record(Number(at) / 1e9, [tcp.replies + udp.replies, open, ...refusals]);
    this.#historyText = this.#describeHistory();
  }

  /** @param arrived When the request came, nanoseconds since the Unix epoch. */
  respond(path: string, arrived: bigint): HttpResponse {
    switch (path) {
      case "/time":
        return this.#time(arrived);
      case "/":
        return { status: 200, type: "text/html", headers: PAGE_HEADERS, body: PAGE };
      case "/status":
        return json(this.#status());
      case "/metrics":
        return { status: 200, type: METRICS_TYPE, body: exposition(this.#metrics()) };
      case "/healthz": {
        const { trouble } = this;
        return trouble === null
          ? { status: 200, type: "text/plain", body: "ok\n" }
          : failure(503, trouble);
      }
      default:
        return failure(404, "there is /, /metrics and /healthz");
    }
  }

  /** An exchange: T2, and T3, which is read as late as can be. */
  #time(received: bigint): HttpResponse {
    return json(`{"receive":"${received}","transmit":"${this.#clock.realtime()}"}`);
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

  /** Rates a second and counts, the newest last; of refusals those that there were. */
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
    const carriers: [string, CarrierTotals][] = [[stream, tcp]];
    if (stamped.has("udp")) carriers.push(["udp", udp]);
    const each = (figure: (totals: CarrierTotals) => number) =>
      carriers.map(([transport, totals]): Sample => ({
        labels: { transport },
        value: figure(totals),
      }));
    const state = this.#clock.state();
    const kernel = (figure: (known: NonNullable<typeof state>) => number): Sample[] =>
      state === null ? [] : [{ value: figure(state) }];
    const { cpuSeconds, residentMemory } = this.#process();
    const seconds = (count: number) => count / 1e9;
    return [
      {
        name: "tsync_build_info",
        type: "gauge",
        help: "Always 1: the version and what it was built for are in the labels.",
        samples: [{
          labels: {
            version: config.version,
            target: Deno.build.target,
            deno_version: Deno.version.deno,
          },
          value: 1,
        }],
      },
      {
        name: "tsync_requests_total",
        type: "counter",
        help: "Messages that came: those answered with the time, and those refused.",
        samples: carriers.map(([transport, { replies, refusals }]) => {
          const refused = transport === "udp" ? DATAGRAMS : MESSAGES;
          const value = refused.reduce((count, reason) => count + refusals[reason], replies);
          return { labels: { transport }, value };
        }),
      },
      {
        name: "tsync_replies_total",
        type: "counter",
        help: "Requests that were answered with the time.",
        samples: each(({ replies }) => replies),
      },
      {
        name: "tsync_refusals_total",
        type: "counter",
        help: "Connections that were refused or lost, and datagrams not answered with the time.",
        samples: carriers.flatMap(([transport, { refusals }]) =>
          reasonsOf(transport).map((reason): Sample => ({
            labels: { transport, reason },
            value: refusals[reason],
          }))
        ),
      },
      {
        name: "tsync_kernel_timestamps",
        type: "gauge",
        help: "Does the kernel say when requests come? If not, the program does.",
        samples: [...stamped].map(([transport, is]) => ({
          labels: { transport },
          value: is ? 1 : 0,
        })),
      },
      {
        name: "tsync_unstamped_requests_total",
        type: "counter",
        help: "Requests that the kernel was to stamp on arrival and did not.",
        samples: each(({ unstamped }) => unstamped),
      },
      {
        name: "tsync_reply_time_seconds",
        type: "histogram",
        help: "How long the server held requests that it answered: T3 - T2.",
        samples: carriers.flatMap(([transport, { holds, held }]) =>
          histogram({ transport }, HOLD_BOUNDS.map(seconds), holds, seconds(held))
        ),
      },
      {
        name: "tsync_connections",
        type: "gauge",
        help: "Open connections.",
        samples: [{ labels: { transport: stream }, value: open }],
      },
      {
        name: "tsync_connections_accepted_total",
        type: "counter",
        help: "Connections that were admitted.",
        samples: [{ labels: { transport: stream }, value: connections }],
      },
      {
        name: "tsync_healthy",
        type: "gauge",
        help: "Are connections accepted and requests answered? As /healthz.",
        samples: [{ value: this.trouble === null ? 1 : 0 }],
      },
      {
        name: "tsync_stratum",
        type: "gauge",
        help: "The stratum that is announced.",
        samples: [{ value: stratumOf(state, stratum) }],
      },
      {
        name: "tsync_clock_synchronised",
        type: "gauge",
        help: "Does something keep this machine's clock right, by what the kernel knows?",
        samples: kernel(({ synchronised }) => synchronised ? 1 : 0),
      },
      {
        name: "tsync_clock_estimated_error_seconds",
        type: "gauge",
        help: "The probable error of this machine's clock, by what the kernel knows.",
        samples: kernel(({ estimatedError }) => estimatedError),
      },
      {
        name: "tsync_clock_maximum_error_seconds",
        type: "gauge",
        help: "The greatest error of this machine's clock, by what the kernel knows.",
        samples: kernel(({ maximumError }) => maximumError),
      },
      {
        name: "process_start_time_seconds",
        type: "gauge",
        help: "When the process started, in seconds since the Unix epoch.",
        samples: [{ value: Number(this.#options.started.realtime / 1_000_000n) / 1e3 }],
      },
      {
        name: "process_cpu_seconds_total",
        type: "counter",
        help: "Processor time that the process has used.",
        samples: [{ value: cpuSeconds }],
      },
      {
        name: "process_resident_memory_bytes",
        type: "gauge",
        help: "Memory that the process has in RAM.",
        samples: [{ value: residentMemory }],
      },
    ];
  }
}

/** Refusals of a message, rather than of a connection or of what was none. */
const MESSAGES = ["version", "mode", "rate"] as const;

/** Refusals of a datagram. */
const DATAGRAMS = [...MESSAGES, "denied", "incomplete"] as const;

/** Why a transport refuses. */
function reasonsOf(transport: string): readonly Refusal[] {
  if (transport === "udp") return DATAGRAMS;
  return REFUSALS.filter((reason) => reason !== "tls" || transport === "tls");
}

function json(body: string): HttpResponse {
  return { status: 200, type: "application/json", body };
}
