import { assert, assertEquals, assertMatch } from "@std/assert";
import { setColorEnabled } from "@std/fmt/colors";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import {
  describeFailure,
  describeFix,
  fixToJson,
  formatDuration,
  formatInstant,
  formatOffset,
  formatTimestamp,
  histogram,
  verdict,
} from "../src/cli/report.ts";
import type { Fix, ServerReport } from "../src/mod.ts";

setColorEnabled(false);

describe("formatDuration()", () => {
  const rows: [number, string][] = [
    [0, "0 ns"],
    [1e-9, "1 ns"],
    [35.4e-9, "35 ns"],
    [75.94e-6, "75.9 µs"],
    [0.000468, "468 µs"],
    [0.041238, "41.2 ms"],
    [1.5, "1.50 s"],
    [37.5, "37.5 s"],
    [86400, "86400 s"],
  ];
  for (const [seconds, text] of rows) {
    it(`shows ${seconds} s as ${text}`, () => assertEquals(formatDuration(seconds), text));
  }
});

describe("formatOffset()", () => {
  const rows: [number, number, string][] = [
    [0.001284332, 0.00064, "+1.28 ms ± 645 µs"],
    [-0.0000057, 0.0000402, "-6 µs ± 41 µs"],
    [-0.0000000004, 0.0000402, "+0 µs ± 41 µs"],
    [37.499996, 0.0000249, "+37.499996 s ± 25 µs"],
    [-946684800.5, 0.02, "-946684800.500 s ± 20 ms"],
    [0, 12e-9, "+0 ns ± 12 ns"],
    [0.0421, 1.9, "+0.0 s ± 2.0 s"],
  ];
  for (const [offset, bound, text] of rows) {
    it(`shows ${offset} s ± ${bound} s as ${text}`, () => {
      assertEquals(formatOffset(offset, bound), text);
    });
  }

  it("never shows less than what is known", () => {
    const sizes = { ns: 1e-9, "µs": 1e-6, ms: 1e-3, s: 1 } as Record<string, number>;
    const value = (text: string) => {
      const [number, unit] = text.split(" ");
      return Number(number) * sizes[unit!]!;
    };
    const numbers = fc.double({ min: -1e4, max: 1e4, noNaN: true });
    const bounds = fc.double({ min: 1e-9, max: 1e3, noNaN: true });
    fc.assert(fc.property(numbers, bounds, (offset, bound) => {
      const [shown, shownBound] = formatOffset(offset, bound).split(" ± ").map(value);
      const tolerance = 1e-9 * bound + 1e-15;
      assert(Math.abs(shown! - offset) + bound <= shownBound! + tolerance);
    }));
  });
});

describe("verdict()", () => {
  it("says which clock is slow, or that nobody can tell", () => {
    assertEquals(verdict(1.3, 0.1), "the local clock is slow by 1.30 s");
    assertEquals(verdict(-1.3, 0.1), "the local clock is fast by 1.30 s");
    assertEquals(verdict(0.05, 0.1), "no difference can be seen");
  });
});

describe("histogram()", () => {
  it("shows how numbers are spread", () => {
    assertEquals(histogram([1, 1, 1, 1, 2, 5], 5), "█▂  ▂");
    assertEquals(histogram([3, 3], 4), "█   ");
  });
});

describe("formatTimestamp()", () => {
  it("keeps every nanosecond", () => {
    assertEquals(formatTimestamp(1795342503123456789n), "2026-11-22T10:15:03.123456789Z");
  });
});

describe("formatTimestamp() and formatInstant()", () => {
  it("count on before 1970", () => {
    assertEquals(formatTimestamp(-1n), "1969-12-31T23:59:59.999999999Z");
    assertMatch(formatInstant(-1n), /^19\d\d-.*\.999999 [+-]\d\d:\d\d$/);
  });
});

const good: ServerReport = {
  name: "host",
  address: "192.0.2.7:10085",
  transport: "tcp",
  sameAs: null,
  status: "truechimer",
  figures: {
    offset: 0.001284332,
    errorBound: 0.00064,
    delay: 0.041238,
    jitter: 1e-7,
    exchanges: [{ offset: 0, delay: 0.041238 }, { offset: 0.001, delay: 0.05 }],
    stratum: 2,
    referenceId: "LOCL",
    rootDelay: 0,
    rootDispersion: 0.000012,
    leap: "none",
    timestamps: "user",
  },
  error: null,
  option: null,
};
const dead: ServerReport = {
  name: "dead",
  address: null,
  transport: "tcp",
  sameAs: null,
  status: "unreachable",
  figures: null,
  error: "dead is not a known host",
  option: null,
};
const fix: Fix = {
  synchronised: true,
  localTime: 1795342503_122172457n,
  offset: 0.001284332,
  errorBound: 0.00064,
  delay: 0.041238,
  leap: "none",
  isMajority: true,
  servers: [good],
};
const noFix: Fix = {
  ...fix,
  synchronised: false,
  offset: null,
  errorBound: null,
  delay: null,
  leap: null,
  isMajority: false,
};

describe("fixToJson()", () => {
  it("prints the names, units and order of the contract, and no exponents", () => {
    assertEquals(
      fixToJson(fix),
      '{"time":"2026-11-22T10:15:03.123456789Z","offset":0.001284332,"error_bound":0.00064,' +
        '"delay":0.041238,"leap":"none","synchronised":true,"servers":[{"name":"host",' +
        '"address":"192.0.2.7:10085","transport":"tcp","status":"truechimer",' +
        '"offset":0.001284332,"error_bound":0.00064,"delay":0.041238,"jitter":0.0000001,' +
        '"samples":2,"stratum":2,"reference_id":"LOCL","root_delay":0,' +
        '"root_dispersion":0.000012,"timestamps":"user","error":null}]}',
    );
  });

  it("prints null figures where there are none", () => {
    const { servers, ...rest } = JSON.parse(fixToJson({ ...noFix, servers: [dead] }));
    assertEquals(rest, {
      time: "2026-11-22T10:15:03.122172457Z",
      offset: null,
      error_bound: null,
      delay: null,
      leap: null,
      synchronised: false,
    });
    assertEquals(Object.keys(servers[0]).length, 15);
    assertEquals(servers[0].error, "dead is not a known host");
    assertEquals(servers[0].jitter, null);
  });
});

describe("describeFix()", () => {
  it("lists several servers with their status", () => {
    const lines = describeFix({ ...fix, servers: [good, dead] }).split("\n");
    assertEquals(lines.slice(0, 5), [
      "server      host  tcp 192.0.2.7:10085, stratum 2 (LOCL)",
      "            truechimer  +1.28 ms ± 645 µs",
      "            41.2 ms best of 2  █          █  50.0 ms worst",
      "server      dead  tcp",
      "            unreachable: dead is not a known host",
    ]);
    assertEquals(lines[5], "offset      +1.28 ms ± 645 µs  the local clock is slow by 1.28 ms");
  });
});

describe("describeFailure()", () => {
  it("says what failed and who says what", () => {
    const falsetickers = { ...good, status: "falseticker" as const };
    assertEquals(describeFailure({ ...noFix, servers: [dead, falsetickers] }), [
      "dead is not a known host",
      "no majority of the servers agrees: host says +1.28 ms ± 645 µs",
    ]);
  });
});
