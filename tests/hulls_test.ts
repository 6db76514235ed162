import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { type Bound, Hulls } from "../src/estimate/hulls.ts";
import { Random } from "./simulation/random.ts";

const seed = Number(Deno.env.get("HULLS_SEED") ?? Date.now() % 2 ** 31);
console.log(`hulls: seed ${seed}`);
const LIMIT = 500e-6;
const second = 1_000_000_000n;

/** Bounds on a line, and how far off the line they are. */
function polls(random: Random, count: number, frequency: number, start = 0): [Bound, Bound][] {
  const result: [Bound, Bound][] = [];
  let at = BigInt(start) * second;
  for (let i = 0; i < count; i++) {
    at += BigInt(Math.ceil((1 + 63 * random.uniform()) * 1e9));
    const truth = (at: bigint) => 10n ** 18n + BigInt(Math.round(Number(at) * frequency));
    const spread = () => BigInt(Math.round(-1e5 * Math.log(1 - random.uniform())));
    const later = at + 1_000_000n;
    result.push([
      { at: later, offset: truth(later) - spread() },
      { at, offset: truth(at) + spread() },
    ]);
  }
  return result;
}

/** The same by comparing all with all. */
function plainly(pairs: readonly [Bound, Bound][]) {
  const origin = pairs[0]![1];
  const point = ({ at, offset }: Bound) => ({
    x: Number(at - origin.at) / 1e9,
    y: Number(offset - origin.offset),
  });
  let lower = -LIMIT * 1e9;
  let upper = LIMIT * 1e9;
  for (const [low] of pairs) {
    for (const [, high] of pairs) {
      const [a, b] = [point(low), point(high)];
      const slope = (b.y - a.y) / (b.x - a.x);
      if (b.x > a.x) upper = Math.min(upper, slope);
      else lower = Math.max(lower, slope);
    }
  }
  return { lower, upper };
}

Deno.test("Hulls bounds the frequency as comparing all bounds with all does", () => {
  const random = new Random(seed);
  for (let run = 0; run < 300; run++) {
    const frequency = (2 * random.uniform() - 1) * 100e-6;
    const hulls = new Hulls(64, LIMIT);
    const all = polls(random, 1 + Math.floor(60 * random.uniform()), frequency);
    for (const [i, [low, high]] of all.entries()) {
      assertEquals(hulls.add(low, high), 0, "a line always fits");
      const { lower, upper } = plainly(all.slice(0, i + 1));
      assertAlmostEquals(hulls.frequency.lower * 1e9, lower, 1e-6);
      assertAlmostEquals(hulls.frequency.upper * 1e9, upper, 1e-6);
      const truth = frequency * 1e9;
      assert(lower <= truth + 1e-3 && truth <= upper + 1e-3, "the truth is possible");
    }
  }
});

Deno.test("Hulls forgets what the frequency was when it changes, and as little as it must", () => {
  const random = new Random(seed);
  for (let run = 0; run < 100; run++) {
    const hulls = new Hulls(64, LIMIT);
    const before = polls(random, 30, 20e-6);
    const end = before.at(-1)![0].at;
    const shift = BigInt(Math.round(Number(end) * (20e-6 - 30e-6)));
    const after = polls(random, 30, 30e-6, Number(end / second) + 1)
      .map(([low, high]): [Bound, Bound] => [
        { at: low.at, offset: low.offset + shift },
        { at: high.at, offset: high.offset + shift },
      ]);
    for (const [low, high] of before) assertEquals(hulls.add(low, high), 0);
    let forgotten = 0;
    for (const [low, high] of after) forgotten += hulls.add(low, high);
    assert(forgotten >= 20 && forgotten <= 45, `${forgotten} forgotten`);
    const { lower, upper } = hulls.frequency;
    assert(lower < 30.1e-6 && upper > 29.9e-6 && upper - lower < 1e-6, `${lower} to ${upper}`);
  }
});

Deno.test("Hulls keeps a window of polls, however many there are", () => {
  const random = new Random(seed);
  const hulls = new Hulls(16, LIMIT);
  for (const [low, high] of polls(random, 1000, 5e-6)) {
    hulls.add(low, high);
    assert(hulls.polls <= 32);
  }
  assert(hulls.polls >= 16);
});

Deno.test("Hulls knows no more of the frequency than the limit after the first poll", () => {
  const hulls = new Hulls(16, LIMIT);
  hulls.add({ at: 1_000n, offset: 4_000n }, { at: 0n, offset: 6_000n });
  assertEquals(hulls.frequency, { lower: -LIMIT, upper: LIMIT });
});
