import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import { extrapolate, intersect, jitter, leastDelay, MAX_DRIFT } from "../src/estimate/envelope.ts";
import { delay, type Exchange, interval, offset } from "../src/estimate/exchange.ts";
import { select } from "../src/estimate/selection.ts";
import {
  fromTimestamp,
  SECOND,
  timestampDifference,
  toNanoseconds,
  toTimestamp,
} from "../src/ntp/timestamp.ts";

/** An exchange begun at `t1` with a clock that is off by `theta`, one delay each way. */
function exchange(t1: bigint, theta: bigint, out: bigint, hold: bigint, back: bigint): Exchange {
  const t2 = t1 + out + theta;
  return { t1, t2, t3: t2 + hold, t4: t1 + out + hold + back };
}

describe("interval()", () => {
  const sixtyEight = 68n * 31_556_952n * SECOND;
  const delays = fc.bigInt({ min: 0n, max: 3600n * SECOND });

  it("contains the true offset, whatever offset, era and delays", () => {
    fc.assert(fc.property(
      fc.bigInt({ min: -100n * 31_556_952n * SECOND, max: 500n * 31_556_952n * SECOND }),
      fc.bigInt({ min: -sixtyEight, max: sixtyEight }),
      delays,
      delays,
      delays,
      (t1, theta, out, hold, back) => {
        const { lower, upper } = interval(exchange(t1, theta, out, hold, back));
        assert(lower <= theta && theta <= upper);
      },
    ));
  });

  it("contains it after a journey through NTP timestamps, but for their last bit", () => {
    fc.assert(fc.property(
      fc.bigInt({ min: -60n * 31_556_952n * SECOND, max: 500n * 31_556_952n * SECOND }),
      fc.bigInt({ min: -67n * 31_556_952n * SECOND, max: 67n * 31_556_952n * SECOND }),
      delays,
      delays,
      delays,
      (t1, theta, out, hold, back) => {
        const sent = exchange(t1, theta, out, hold, back);
        const [receive, transmit] = [toTimestamp(sent.t2), toTimestamp(sent.t3)];
        const t2 = fromTimestamp(receive, sent.t4);
        const t3 = t2 + toNanoseconds(timestampDifference(transmit, receive));
        const { lower, upper } = interval({ ...sent, t2, t3 });
        assert(lower - 1n <= theta && theta <= upper + 1n);
      },
    ));
  });
});

describe("offset() and delay()", () => {
  it("follow RFC 5905 and keep their signs", () => {
    const fast = exchange(1000n, -500n, 40n, 7n, 60n);
    assertEquals(offset(fast), -510n); // Off by half of the asymmetry, 20.
    assertEquals(delay(fast), 100n);
  });

  it("show a server that was stepped back as a negative delay", () => {
    assertEquals(delay({ t1: 0n, t2: 0n, t3: 100n, t4: 10n }), -90n);
  });
});

describe("intersect()", () => {
  it("takes each bound from the exchange that was luckiest in that direction", () => {
    const slowBack = exchange(0n, 7n, 10n, 5n, 900n);
    const slowOut = exchange(2000n, 7n, 900n, 5n, 10n);
    const bounds = intersect([slowBack, slowOut], 0)!;
    // 7 - 10 and 7 + 10, the latter of which is carried from 0 to the T4 of the former.
    assertEquals(bounds, { lower: -3n, upper: 18n, at: slowOut.t4 });
  });

  it("carries the lower bound to the upper one, if that is later", () => {
    const fastBack = exchange(0n, 0n, 900_000n, 0n, 10n);
    const fastOut = exchange(SECOND, 0n, 10n, 0n, 900_000n);
    // 0.1 ms for the second between them, less the 0.9 ms that the first took.
    assertEquals(intersect([fastBack, fastOut], 0), { lower: -99_920n, upper: 10n, at: SECOND });
  });

  it("carries neither bound further than to the other", () => {
    const lucky = exchange(0n, 0n, 10n, 0n, 10n);
    const later = exchange(SECOND, 0n, 500_000n, 0n, 500_000n);
    assertEquals(intersect([lucky, later], 0), { lower: -10n, upper: 11n, at: lucky.t4 });
  });

  it("takes a later bound for an earlier one that would have grown beyond it", () => {
    const first = exchange(0n, 0n, 10n, 0n, 10n);
    // 50 µs wider, but of a second later, in which the first one's would grow by 100 µs.
    const second = exchange(SECOND, 0n, 50_010n, 0n, 50_010n);
    const at = second.t4;
    assertEquals(intersect([first, second], 0), { lower: -50_010n, upper: 50_021n, at });
  });

  it("widens by precision", () => {
    const only = exchange(0n, 0n, 10n, 0n, 10n);
    assertEquals(intersect([only], 100e-9), { lower: -110n, upper: 111n, at: only.t4 });
  });

  it("finds nothing when a clock was stepped in between", () => {
    const before = exchange(0n, 0n, 10n, 0n, 10n);
    const after = exchange(100n, 5000n, 10n, 0n, 10n);
    assertEquals(intersect([before, after], 0), null);
  });

  it("refuses an empty burst", () => {
    assertThrows(() => intersect([], 0), RangeError);
  });

  it("contains the true offset of clocks that drift apart by MAX_DRIFT at most", () => {
    const ppm = fc.double({ min: -MAX_DRIFT, max: MAX_DRIFT, noNaN: true });
    const delays = fc.bigInt({ min: 0n, max: 100_000_000n });
    const bursts = fc.array(fc.tuple(delays, delays, delays, delays), { minLength: 1 });
    fc.assert(fc.property(ppm, fc.bigInt(-SECOND, SECOND), bursts, (frequency, start, burst) => {
      // The server's clock shows `local + start + frequency * local`.
      const theta = (t: bigint) => start + BigInt(Math.round(frequency * Number(t)));
      const server = (t: bigint) => t + theta(t);
      let now = 0n;
      const exchanges = burst.map(([pause, out, hold, back]) => {
        const t1 = now += pause;
        const t2 = server(now += out);
        const t3 = server(now += hold);
        return { t1, t2, t3, t4: now += back };
      });
      const { lower, upper, at } = intersect(exchanges, 2e-9)!;
      assert(at <= now);
      assert(lower <= theta(at) && theta(at) <= upper);
    }));
  });
});

describe("extrapolate()", () => {
  it("widens by MAX_DRIFT times the time until then", () => {
    const later = extrapolate({ lower: -5n, upper: 5n, at: 0n }, 10n * SECOND);
    assertEquals(later, { lower: -1_000_005n, upper: 1_000_005n, at: 10n * SECOND });
  });
});

describe("jitter() and leastDelay()", () => {
  const burst = [
    exchange(0n, 0n, 10_000n, 0n, 10_000n),
    exchange(0n, 0n, 30_000n, 0n, 10_000n),
    exchange(0n, 0n, 10_000n, 0n, 30_000n),
  ];

  it("compare all exchanges with the one of least delay", () => {
    assertEquals(leastDelay(burst), 20_000n);
    assertAlmostEquals(jitter(burst), 10e-6, 1e-12);
  });

  it("is 0 for one exchange", () => assertEquals(jitter(burst.slice(0, 1)), 0));
});

describe("select()", () => {
  const good = { lower: -10n, upper: 10n };
  const better = { lower: -2n, upper: 4n };
  const liar = { lower: 100n, upper: 110n };
  const rows: [string, { lower: bigint; upper: bigint }[], string, [bigint, bigint] | null][] = [
    ["no server", [], "", null],
    ["one", [good], "+", [-10n, 10n]],
    ["two that agree", [good, better], "++", [-2n, 4n]],
    ["two that touch", [good, { lower: 10n, upper: 12n }], "++", [10n, 10n]],
    ["two that disagree", [good, liar], "", null],
    ["one liar of three", [liar, good, better], "-++", [-2n, 4n]],
    ["two liars of five", [liar, good, better, good, liar], "-+++-", [-2n, 4n]],
    ["two of four", [liar, good, better, liar], "", null],
    ["a chain", [good, { lower: 5n, upper: 20n }, { lower: 15n, upper: 30n }], "+++", [5n, 20n]],
    [
      "a chain and a liar",
      [good, { lower: 5n, upper: 20n }, { lower: 15n, upper: 30n }, liar],
      "",
      null,
    ],
  ];
  for (const [name, intervals, members, expected] of rows) {
    it(`decides for ${name}`, () => {
      const selection = select(intervals);
      const truechimers = selection?.truechimers.map((is) => is ? "+" : "-").join("") ?? "";
      assertEquals(truechimers, members);
      const found = selection && [selection.interval.lower, selection.interval.upper];
      assertEquals(found, expected);
    });
  }

  it("counts how many share a point, not how many are in one of several such sets", () => {
    const chain = [good, { lower: 5n, upper: 20n }, { lower: 15n, upper: 30n }];
    assertEquals(select(chain)!.agreeing, 2);
    assertEquals(select([good, better, liar])!.agreeing, 2);
  });

  it("contains the truth where most are right and no larger set is wrong", () => {
    const around = fc.tuple(fc.bigInt(0n, 20n), fc.bigInt(0n, 20n));
    const anywhere = fc.tuple(fc.bigInt(-60n, 60n), fc.bigInt(0n, 20n));
    const some = fc.tuple(
      fc.array(around, { minLength: 2, maxLength: 4 }),
      fc.array(anywhere, { maxLength: 1 }),
    );
    fc.assert(fc.property(some, ([right, wrong]) => {
      const selection = select([
        ...right.map(([below, above]) => ({ lower: -below, upper: above })),
        ...wrong.map(([lower, width]) => ({ lower, upper: lower + width })),
      ])!;
      if (selection.agreeing > right.length) return; // The wrong one cannot be told from the right.
      assert(selection.interval.lower <= 0n && 0n <= selection.interval.upper);
    }));
  });

  it("does not depend on the order", () => {
    const ends = fc.tuple(fc.bigInt(-20n, 20n), fc.bigInt(0n, 20n));
    const intervals = fc.array(ends.map(([lower, width]) => ({ lower, upper: lower + width })));
    fc.assert(fc.property(intervals, (some) => {
      assertEquals(select(some)?.interval, select(some.toReversed())?.interval);
    }));
  });
});
