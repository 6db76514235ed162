/**
 * Prometheus' text format, version 0.0.4. Pure. Written out by hand, since the
 * numbers are counted elsewhere, in memory that threads share: a client library
 * wants to count itself.
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

/** A value and the labels that it has beside the metric's name. */
export interface Sample {
  readonly labels?: Readonly<Record<string, string>>;
  readonly value: number;
  /** Of a histogram: `_bucket`, `_sum` or `_count`. */
  readonly suffix?: string;
}

/** Media type of the format. */
export const METRICS_TYPE = "text/plain; version=0.0.4";

/** Writes metrics out; those without a sample are left out. */
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
 * @param bounds Upper bounds of the classes, but for the last, which has none.
 * @param counts How many are in each class, one more than there are bounds.
 * @param sum All values together.
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
