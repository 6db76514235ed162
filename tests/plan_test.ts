/**
 * How many exchanges a burst makes over a long path, and how fast.
 *
 * @module
 */

import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { isCongestionLasting, meanWaiting } from "../src/estimate/congestion.ts";
import type { Exchange } from "../src/estimate/exchange.ts";
import { nextStep } from "../src/sync/plan.ts";
import { Random } from "./simulation/random.ts";

const MS = 1_000_000;

/** Exchanges over a path of 100 ms, 10 ms apart, that wait so many milliseconds on the way out. */
function exchanges(count: number, waiting: (i: number) => number): Exchange[] {
  return Array.from({ length: count }, (_, i) => {
    const at = (ms: number) => BigInt(Math.round(ms * MS));
    const t1 = 10 * i;
    const t2 = t1 + 50 + waiting(i);
    return { t1: at(t1), t2: at(t2), t3: at(t2), t4: at(t2 + 50) };
  });
}

const independent = (i: number) => new Random(i).exponential();
/** Ten exchanges long. */
const wave = (i: number) => 5 + 5 * Math.sin(i / 5);

describe("congestion lasts", () => {
  it("if what is next waits about as long", () => {
    assert(isCongestionLasting(exchanges(32, wave)));
    assert(!isCongestionLasting(exchanges(32, independent)));
  });
  it("in either direction", () => {
    const reversed = exchanges(32, wave).map(({ t1, t4, ...each }) => ({
      ...each,
      t1: -t4,
      t2: -each.t3,
      t3: -each.t2,
      t4: -t1,
    })).toReversed();
    assert(isCongestionLasting(reversed));
  });
  it("if it matters, and if so many exchanges say so", () => {
    assert(!isCongestionLasting(exchanges(32, (i) => wave(i) / 100)));
    assert(!isCongestionLasting(exchanges(15, wave)));
    assert(isCongestionLasting(exchanges(16, wave)));
    assert(isCongestionLasting(exchanges(32, (i) => wave(i) / 10)));
  });
  it("though some of it does not", () => {
    const mixed = (part: number) => (i: number) => wave(i) + (i % 2 === 0 ? part : -part);
    assert(isCongestionLasting(exchanges(32, mixed(2))));
    assert(!isCongestionLasting(exchanges(32, mixed(3))));
  });
  it("judged by how they scatter, not by how far they are from the first", () => {
    assert(!isCongestionLasting(exchanges(32, (i) => i === 0 ? 0 : 2.5 + independent(i))));
  });
});

describe("a burst over a long path", () => {
  const samples = { near: 16, far: 32, mayGrow: true };
  const progress = { isFar: true, roundTrip: 0.3, inFlight: 0 };
  const step = (made: Exchange[], inFlight = 0, mayGrow = true, roundTrip = 0.3) =>
    nextStep({ ...samples, mayGrow }, { ...progress, inFlight, roundTrip }, made);

  it("has 32 exchanges, a tenth of the round trip apart, and 10 ms at least", () => {
    assertEquals(step([]), { wanted: 32, spacingSeconds: 0.03 });
    assertEquals(step([], 0, true, 0.05).spacingSeconds, 0.01);
    assertEquals(step(exchanges(20, independent), 5).wanted, 12);
    assertEquals(step(exchanges(32, independent)).wanted, 0);
  });
  it("does not go on because the first, which woke everything, was late", () => {
    const late = (i: number) => i === 0 ? 30 : independent(i);
    assertEquals(step(exchanges(32, late)).wanted, 0);
  });
  it("counts as long until the first reply says otherwise", () => {
    assertEquals(nextStep(samples, { ...progress, isFar: null }, []).wanted, 32);
    const near = { ...progress, isFar: false };
    assertEquals(nextStep(samples, near, []).wanted, 16);
    assertEquals(nextStep(samples, near, exchanges(40, wave)).wanted, 0, "it does not go on");
  });
  it("waits for those in flight", () => {
    assertEquals(step(exchanges(32, independent), 3).wanted, 3);
  });
  it("goes on twice as fast for half a second while congestion lasts", () => {
    assertEquals(step(exchanges(32, wave), 3, true, 0.3), { wanted: 19, spacingSeconds: 0.015 });
    assertEquals(step(exchanges(32 + 45, wave)).wanted, 16);
    assertEquals(step(exchanges(32 + 55, wave)).wanted, 0);
    // The last reply comes 504 ms after the 32nd, and its request 500 ms.
    assertEquals(step(exchanges(82, (i) => i === 81 ? 9 : wave(i))).wanted, 0);
    assertEquals(step(exchanges(32, wave), 3, false).wanted, 3, "not if its number was given");
  });
  it("then spaces requests by half the time that messages wait, if that is more", () => {
    const late = exchanges(32, (i) => 10 * wave(i));
    assertAlmostEquals(meanWaiting(late), 0.05, 0.01);
    assertAlmostEquals(step(late).spacingSeconds, meanWaiting(late) / 2, 1e-9);
  });
});
