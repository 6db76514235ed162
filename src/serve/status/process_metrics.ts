/**
 * Metrics that every tsync with HTTP has: what program it is, whether it is
 * well, and what it uses.
 *
 * @module
 */

import config from "../../../deno.json" with { type: "json" };
import { processUsage } from "../../net/node.ts";
import type { HttpResponse } from "./http_message.ts";
import { failure } from "./http_server.ts";
import { counter, gauge, type Metric } from "./metrics.ts";

/** The answer on `/healthz`. @param trouble What is wrong: a sentence; `null` if nothing is. */
export function health(trouble: string | null): HttpResponse {
  return trouble === null
    ? { status: 200, type: "text/plain", body: "ok\n" }
    : failure(503, trouble);
}

/** A response of JSON. */
export function json(body: string): HttpResponse {
  return { status: 200, type: "application/json", body };
}

/** @param trouble As on `/healthz`. @param what When it is 1, in words. */
export function healthMetric(trouble: string | null, what: string): Metric {
  return gauge("tsync_healthy", `1 if ${what}, as on /healthz.`, [
    { value: trouble === null ? 1 : 0 },
  ]);
}

export function buildMetric(): Metric {
  const { version } = config;
  const labels = { version, target: Deno.build.target, deno_version: Deno.version.deno };
  return gauge("tsync_build_info", "Always 1; the labels give the version and the build target.", [
    { labels, value: 1 },
  ]);
}

/** @param started When the process did: nanoseconds since the Unix epoch. */
export function processMetrics(started: bigint): Metric[] {
  const { cpuSeconds, residentMemory } = processUsage();
  return [
    gauge(
      "process_start_time_seconds",
      "When the process started, in seconds since the Unix epoch.",
      [{ value: Number(started / 1_000_000n) / 1e3 }],
    ),
    counter("process_cpu_seconds_total", "Processor time used.", [{ value: cpuSeconds }]),
    gauge("process_resident_memory_bytes", "Memory in RAM.", [{ value: residentMemory }]),
  ];
}
