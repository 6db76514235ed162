/**
 * Prometheus' text format, version 0.0.4. Pure. No client library: those want to count themselves,
 * but these numbers are counted in memory that threads share.
 *
 * @module
 */

/** One metric, or a family of them that differ in their labels. */
export interface Metric {
  readonly name: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly help: string;
  readonly samples: readonly Sample[];
}

/** A value of a metric. */
export interface Sample {
  /** What tells it from the metric's other values. */
  readonly labels?: Readonly<Record<string, string>>;
  readonly value: number;
  /** What follows the name: `_bucket`, `_sum` or `_count` of a histogram. */
  readonly suffix?: string;
}

/** The media type of the format. */
export const METRICS_TYPE = "text/plain; version=0.0.4";

/** Writes metrics, except those without a sample. */
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
 * @param counts How many values are in each bucket: one more than there are bounds.
 * @param sum The sum of all values.
 */
export function histogram(
  labels: Readonly<Record<string, string>>,
  bounds: readonly number[],
  counts: readonly number[],
  sum: number,
): Sample[] {
  let count = 0;
  const buckets = counts.map((more, i): Sample => {
    count += more;
    const le = i < bounds.length ? String(bounds[i]) : "+Inf";
    return { suffix: "_bucket", labels: { ...labels, le }, value: count };
  });
  return [
    ...buckets,
    { suffix: "_sum", labels, value: sum },
    { suffix: "_count", labels, value: count },
  ];
}
