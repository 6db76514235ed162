/**
 * Prometheus' text format, version 0.0.4. Pure. Not a client library, since
 * those do their own counting.
 *
 * @module
 */

/** A family of samples with the same name. */
export interface Metric {
  readonly name: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly help: string;
  readonly samples: readonly Sample[];
}

/** A value with its labels. */
export interface Sample {
  /** What tells it from the metric's other values. */
  readonly labels?: Readonly<Record<string, string>>;
  readonly value: number;
  /** For a histogram: `_bucket`, `_sum` or `_count`. */
  readonly suffix?: string;
}

const maker =
  (type: Metric["type"]) => (name: string, help: string, samples: readonly Sample[]): Metric => (
    { name, type, help, samples }
  );
export const counter = maker("counter");
export const gauge = maker("gauge");
export const histogram = maker("histogram");

export const METRICS_TYPE = "text/plain; version=0.0.4";

/** Writes metrics, except those without samples. */
export function exposition(metrics: readonly Metric[]): string {
  return metrics.filter(({ samples }) => samples.length > 0).map(({ name, type, help, samples }) =>
    `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n` +
    samples.map(({ labels = {}, value, suffix = "" }) =>
      `${name}${suffix}${labelText(labels)} ${value === Infinity ? "+Inf" : value}\n`
    ).join("")
  ).join("");
}

function labelText(labels: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(labels).map(([name, value]) =>
    `${name}="${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n")}"`
  );
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

/**
 * The samples of a histogram.
 *
 * @param bounds Upper bounds of all buckets but the last, which has none.
 * @param counts The number of values in each bucket.
 * @param sum The sum of all values.
 */
export function buckets(
  labels: Readonly<Record<string, string>>,
  bounds: readonly number[],
  counts: readonly number[],
  sum: number,
): Sample[] {
  let count = 0;
  const upTo = counts.map((more, i): Sample => {
    count += more;
    const le = i < bounds.length ? String(bounds[i]) : "+Inf";
    return { suffix: "_bucket", labels: { ...labels, le }, value: count };
  });
  return [
    ...upTo,
    { suffix: "_sum", labels, value: sum },
    { suffix: "_count", labels, value: count },
  ];
}
