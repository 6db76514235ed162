import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { setColorEnabled } from "@std/fmt/colors";
import { panel, type PanelState } from "../src/cli/panel.ts";
import { describeUpdate, formatFrequency, updateToJson, worstOf } from "../src/cli/report.ts";
import type { Fix, Update } from "../src/mod.ts";

const fix: Fix = {
  synchronised: true,
  localTime: 1_795_342_503_123_456_789n,
  offset: 0.001284332,
  errorBound: 0.00064,
  delay: 0.041238,
  leap: "none",
  isMajority: true,
  servers: [{
    name: "host",
    address: "192.0.2.7:10085",
    transport: "tcp",
    sameAs: null,
    status: "truechimer",
    figures: {
      offset: 0.001284332,
      errorBound: 0.00064,
      delay: 0.041238,
      jitter: 0.0011,
      exchanges: [{ offset: 0.0013, delay: 0.041238 }],
      stratum: 2,
      referenceId: "LOCL",
      rootDelay: 0,
      rootDispersion: 0.000012,
      leap: "none",
      timestamps: "user",
    },
    error: null,
    option: null,
  }],
};

const update: Update = {
  fix,
  state: "synchronised",
  news: "agrees",
  frequency: 12.3456e-6,
  frequencyBound: 0.04e-6,
  clock: {
    localTime: fix.localTime,
    offset: 0.0012,
    errorBound: 0.0007,
    frequency: 12.3456e-6,
    frequencyBound: 0.04e-6,
  },
  rootDistance: 0.001,
  interval: 8,
  correction: null,
  isContested: false,
};

const lost: Update = {
  ...update,
  state: "holdover",
  news: "lost",
  fix: {
    ...fix,
    synchronised: false,
    offset: null,
    errorBound: null,
    delay: null,
    leap: null,
    servers: [{
      ...fix.servers[0]!,
      status: "unreachable",
      figures: null,
      error: "host cannot be reached at 192.0.2.7:10085: connection refused",
    }],
  },
};

const state: PanelState = {
  update,
  note: null,
  feeds: [],
  now: { time: fix.localTime, earliest: fix.localTime - 27_400n, latest: fix.localTime + 27_400n },
  clock: update.clock,
  left: 7.2,
  history: [0.001, 0.0012, 0.0011, -0.0002, 0.002],
};

/** What is left of a line without its time, which depends on where it is shown. */
const timeless = (line: string) =>
  line.replaceAll(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} [+-]\d\d:\d\d/g, "TIME");

describe("panel()", () => {
  it("shows state, time, offset, delay, frequency, history and what comes next", () => {
    setColorEnabled(false);
    assertEquals(panel(state, 100).map((line) => timeless(line).trimEnd()), [
      "state        synchronised",
      "server       host  tcp 192.0.2.7:10085, stratum 2 (LOCL)",
      "server time  TIME  ± 28 µs",
      "offset       +1.28 ms ± 645 µs  the local clock is slow by 1.28 ms",
      "delay        41.2 ms",
      "frequency    +12.346 ppm ± 0.041 ppm",
      "history      ▅▆▅▁█",
      "             -200 µs to +2.00 ms, 5 polls",
      "next poll    in 8 s",
    ]);
  });

  it("is never wider than the terminal, nor higher than what there is to say", () => {
    const many = {
      ...state,
      history: Array.from({ length: 500 }, (_, i) => Math.sin(i / 9) / 1e3),
    };
    for (const each of [state, many, { ...state, update: lost }]) {
      for (let columns = 1; columns <= 200; columns++) {
        const lines = panel(each, columns);
        for (const line of lines) assert(line.length <= columns, `${columns}: "${line}"`);
        assert(lines.length >= 5 && lines.length <= 12);
      }
    }
  });

  const nothing: PanelState = {
    update: null,
    note: null,
    feeds: [],
    now: null,
    clock: null,
    left: 0,
    history: [],
  };

  it("says before the first poll, and without a valid clock, that it knows nothing", () => {
    const lines = panel(nothing, 60);
    assertEquals(lines.map((line) => line.trimEnd()), [
      "state        synchronising",
      "server time  not known",
    ]);
  });

  it("says what was done with the system clock", () => {
    const lines = panel({ ...state, note: "the system clock is slewed by +1.28 ms" }, 100);
    assertEquals(lines[6], "system clock is slewed by +1.28 ms");
  });

  it("says that another program steers the system clock", () => {
    const lines = panel({ ...state, update: { ...update, isContested: true } }, 200);
    const said = lines.filter((line) => line.includes("another program steers the system clock"));
    assertEquals([said.length, said[0]?.includes("warning")], [1, false]);
    assert(!panel(state, 200).some((line) => line.includes("another program")));
  });

  it("says whether chronyd is fed", () => {
    const lines = panel(
      { ...state, feeds: [{ label: "chronyd", status: "fed through /run/a" }] },
      100,
    );
    assertEquals(lines[6], "chronyd      fed through /run/a");
  });

  it("goes on with the time in holdover, and says why", () => {
    const lines = panel({ ...state, update: lost }, 100).map((line) => timeless(line).trimEnd());
    assertEquals(lines.slice(0, 3), [
      "state        holdover",
      "server       host cannot be reached at 192.0.2.7:10085: connection refused",
      "server time  TIME  ± 28 µs",
    ]);
    assertEquals(lines.filter((line) => line.startsWith("offset")), [
      "offset       +1.20 ms ± 700 µs  by the kept clock",
    ]);
    const unknown = panel({ ...state, update: lost, clock: null }, 100);
    assert(!unknown.some((line) => line.startsWith("offset")));
  });

  it("has colours where they are wanted, and no wider lines for that", () => {
    if (Deno.noColor) return console.log("NO_COLOR is set: not tried");
    setColorEnabled(true);
    try {
      // deno-lint-ignore no-control-regex
      const colour = /\x1b\[[0-9;]*m/g;
      const lines = panel(state, 60);
      assert(colour.test(lines.join("")));
      for (const line of lines) assert(line.replaceAll(colour, "").length <= 60);
    } finally {
      setColorEnabled(false);
    }
  });
});

describe("a poll", () => {
  it("says how wrong the system clock can be, in holdover by the kept one", () => {
    const behind = { ...lost, clock: { ...update.clock!, offset: -0.0012 } };
    assertEquals([update, behind].map(worstOf), [0.001284332 + 0.00064, 0.0012 + 0.0007]);
    assertEquals(worstOf({ ...update, correction: { action: "step", offset: 0.5 } }), 0.00064);
    assertEquals(worstOf({ ...lost, clock: null }), null);
  });

  it("is one line for people", () => {
    assertEquals(
      timeless(describeUpdate(update)),
      "TIME  +1.28 ms ± 645 µs  +12.346 ppm ± 0.041 ppm  synchronised  next in 8.00 s",
    );
    assertEquals(
      timeless(describeUpdate({ ...update, news: "step" })),
      "TIME  +1.28 ms ± 645 µs  +12.346 ppm ± 0.041 ppm  synchronised  " +
        "the servers' clock was set or slewed  next in 8.00 s",
    );
    assertEquals(
      timeless(describeUpdate(lost)),
      "TIME  no fix, kept clock +1.20 ms ± 700 µs  +12.346 ppm ± 0.041 ppm  holdover  next in 8.00 s",
    );
    const nothing = { frequency: null, frequencyBound: null, clock: null };
    assertEquals(
      timeless(describeUpdate({ ...lost, ...nothing, state: "synchronising" })),
      "TIME  no fix  synchronising  next in 8.00 s",
    );
  });

  it("is one object for programs, with frequencies in ppm", () => {
    const object = JSON.parse(updateToJson(update));
    const names = "time offset error_bound delay leap synchronised servers".split(" ");
    assertEquals(Object.keys(object), [
      ...names,
      "state",
      "frequency",
      "frequency_bound",
      "interval",
      "clock",
    ]);
    const { state, frequency, frequency_bound, interval } = object;
    assertEquals([state, frequency, frequency_bound, interval], ["synchronised", 12.3456, 0.04, 8]);
    const kept = { offset: 0.0012, error_bound: 0.0007, frequency: 12.3456, frequency_bound: 0.04 };
    assertEquals(JSON.parse(updateToJson(lost)).offset, null);
    assertEquals(JSON.parse(updateToJson(lost)).clock, kept);
    assertEquals(JSON.parse(updateToJson({ ...lost, clock: null })).clock, null);
  });

  for (
    const [frequency, bound, text] of [
      [12.3456e-6, 0.04e-6, "+12.346 ppm ± 0.041 ppm"],
      [-3e-9, 5e-6, "+0.0 ppm ± 5.1 ppm"],
      [-100.04e-6, 500e-6, "-100 ppm ± 501 ppm"],
      [0, 0, "+0.000 ppm ± 0.000 ppm"],
    ] as const
  ) {
    it(`shows the frequency ${text}`, () => {
      assertEquals(formatFrequency(frequency, bound), text);
      const [, shown, most] = /^([+-][\d.]+) ppm ± ([\d.]+) ppm$/.exec(text)!;
      assert(
        Number(most) / 1e6 + 1e-15 >= bound + Math.abs(frequency - Number(shown) / 1e6) - 1e-12,
      );
    });
  }
});
