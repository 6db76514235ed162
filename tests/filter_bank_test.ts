import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { FilterBank, noise } from "../src/estimate/filter_bank.ts";
import { mix, predict, type State, update } from "../src/estimate/kalman.ts";
import { carry, OffsetTracker } from "../src/estimate/offset_tracker.ts";
import { Random } from "./simulation/random.ts";

const seed = Number(Deno.env.get("FUZZ_SEED") ?? Date.now() % 2 ** 31);
console.log(`filter bank: seed ${seed}`);

Deno.test("a Kalman filter of a steady frequency is the line of least squares", () => {
  const random = new Random(seed);
  const points = Array.from({ length: 50 }, (_, i) => {
    const at = 10 * i + random.uniform();
    return { at, offset: 5000 + 20 * at + 300 * random.normal() };
  });
  let state: State = { offset: 0, frequency: 0, covariance: [1e14, 0, 1e14] };
  let last = 0;
  for (const { at, offset } of points) {
    ({ state } = update(predict(state, at - last, 0), offset, 300 ** 2));
    last = at;
  }
  const sum = (each: (point: { at: number; offset: number }) => number) =>
    points.reduce((total, point) => total + each(point), 0);
  const { length: n } = points;
  const [x, y] = [sum(({ at }) => at) / n, sum(({ offset }) => offset) / n];
  const slope = sum(({ at, offset }) => (at - x) * (offset - y)) / sum(({ at }) => (at - x) ** 2);
  assertAlmostEquals(state.frequency, slope, 1e-3);
  assertAlmostEquals(state.offset, y + slope * (last - x), 0.1);
  assertAlmostEquals(state.covariance[2], 300 ** 2 / sum(({ at }) => (at - x) ** 2), 1e-3);
});

Deno.test("predict() adds what the frequency wanders, as the integral of white noise", () => {
  const state: State = { offset: 0, frequency: 0, covariance: [0, 0, 0] };
  assertEquals(predict(state, 6, 10).covariance, [100 * 216 / 3, 100 * 36 / 2, 600]);
  // In two steps as in one.
  const [whole, halves] = [predict(state, 6, 10), predict(predict(state, 2, 10), 4, 10)];
  for (const i of [0, 1, 2] as const) {
    assertAlmostEquals(halves.covariance[i], whole.covariance[i], 1e-9);
  }
});

Deno.test("mix() has the mean of several Gaussians, and what lies between them as variance", () => {
  const one: State = { offset: -1, frequency: 2, covariance: [1, 0, 4] };
  const two: State = { offset: 3, frequency: 2, covariance: [3, 0, 4] };
  assertEquals(mix([one, two], [2, 2]), { offset: 1, frequency: 2, covariance: [6, 0, 4] });
});

Deno.test("noise() is a poll's whole width at first, and in the end what is more than usual", () => {
  const floor = 20 ** 2;
  assertEquals(noise([600]), 600 ** 2 / 6 + floor);
  assertAlmostEquals(noise(Array(64).fill(600)), floor, 1e-6);
  const usual = Array<number>(63).fill(600);
  assertAlmostEquals(noise([...usual, 900]), 300 ** 2 / 6 + floor, 1e-6);
});

Deno.test("FilterBank follows a frequency that stays, and one that jumps", () => {
  const random = new Random(seed);
  const bank = new FilterBank();
  let [truth, polls] = [0, 0];
  for (const frequency of [10e-6, 30e-6]) {
    for (let i = 0; i < 60; i++) {
      truth += 16e9 * frequency;
      const at = BigInt(Math.round(polls++ * 16e9));
      const half = 5000 + 5000 * random.exponential();
      const [lower, upper] = [truth - half, truth + half].map((each) => BigInt(Math.round(each)));
      bank.add({ lower: { at, offset: lower! }, upper: { at, offset: upper! } });
    }
    assertAlmostEquals(bank.frequency, frequency, 0.5e-6);
  }
});

Deno.test("the likely offset is within the bounds, whatever the polls say and however late it is", () => {
  const random = new Random(seed);
  for (let run = 0; run < 50; run++) {
    const tracker = new OffsetTracker();
    for (let i = 1; i <= 40; i++) {
      const at = BigInt(i) * 10_000_000_000n;
      const middle = BigInt(Math.round(1e6 * random.normal() * (random.uniform() < 0.1 ? 50 : 1)));
      const half = BigInt(Math.round(3e6 * random.exponential()));
      tracker.poll({ at, lower: middle - half, upper: middle + half });
      for (const later of [0n, 1n, 5_000_000_000n, 3_600_000_000_000n]) {
        const { lower, offset, upper } = carry(tracker.estimate!, at + later);
        assert(lower <= offset && offset <= upper, `run ${run}, poll ${i}: ${offset}`);
      }
    }
  }
});
