import { GOOD_REPLY } from "./good_reply.ts";
import {
  decodePacket,
  encodePacket,
  encodeReferenceId,
  encodeRequest,
  LEAP,
  type Packet,
  referenceIdText,
} from "../src/ntp/packet.ts";
import { assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import { printable } from "../src/ntp/printable.ts";
import {
  fromShort,
  fromTimestamp,
  SECOND,
  timestampDifference,
  toNanoseconds,
  toShort,
  toTimestamp,
} from "../src/ntp/timestamp.ts";
import { judgeReply, refuseRequest, rejectionText } from "../src/ntp/validation.ts";

const at = (iso: string) => BigInt(Date.parse(iso)) * 1_000_000n;
const YEAR = 31_556_952n * SECOND;

describe("toTimestamp()", () => {
  const rows: [string, bigint, bigint][] = [
    ["the NTP epoch", at("1900-01-01T00:00:00Z"), 0n],
    ["the Unix epoch", 0n, 0x83aa7e80_00000000n],
    ["half a second", SECOND / 2n, 0x83aa7e80_80000000n],
    ["one nanosecond, rounded down", 1n, 0x83aa7e80_00000004n],
    ["the last nanosecond of a second", SECOND - 1n, 0x83aa7e80_fffffffbn],
    ["the last second of era 0", at("2036-02-07T06:28:15Z"), 0xffffffff_00000000n],
    ["the first second of era 1", at("2036-02-07T06:28:16Z"), 0n],
    ["a nanosecond before 1900", at("1900-01-01T00:00:00Z") - 1n, 0xffffffff_fffffffbn],
  ];
  for (const [name, instant, timestamp] of rows) {
    it(`converts ${name}`, () => assertEquals(toTimestamp(instant), timestamp));
  }
});

describe("fromTimestamp()", () => {
  it("chooses the era nearest to the other instant", () => {
    const eraOne = at("2036-02-07T06:28:16Z");
    assertEquals(fromTimestamp(0n, at("2026-11-22T00:00:00Z")), eraOne);
    assertEquals(fromTimestamp(0n, at("1910-01-01T00:00:00Z")), at("1900-01-01T00:00:00Z"));
    const beforeRollover = fromTimestamp(0xffffffff_00000000n, eraOne + 5n * SECOND);
    assertEquals(beforeRollover, eraOne - SECOND);
  });

  it("is the inverse of toTimestamp() within 68 years, in any era", () => {
    fc.assert(fc.property(
      fc.bigInt({ min: -200n * YEAR, max: 1000n * YEAR }),
      fc.bigInt({ min: -68n * YEAR, max: 68n * YEAR }),
      (near, difference) => {
        assertEquals(fromTimestamp(toTimestamp(near + difference), near), near + difference);
      },
    ));
  });
});

describe("timestampDifference()", () => {
  it("is signed and crosses the end of an era", () => {
    assertEquals(timestampDifference(1n, 0xffffffff_ffffffffn), 2n);
    assertEquals(timestampDifference(0xffffffff_ffffffffn, 1n), -2n);
  });

  it("converts to nanoseconds by 2^32, not 2^32 - 1", () => {
    assertEquals(toNanoseconds(1n << 32n), SECOND);
    assertEquals(toNanoseconds(-(1n << 31n)), -SECOND / 2n);
    assertEquals(toNanoseconds(0xffffffffn), SECOND);
    assertEquals(toNanoseconds(0xfffffffdn), SECOND - 1n);
  });
});

describe("toShort()", () => {
  const rows: [number, number][] = [
    [0, 0],
    [1, 0x10000],
    [0.000012, 1],
    [-1, 0],
    [1e9, 0xffff_ffff],
  ];
  for (const [seconds, short] of rows) {
    it(`encodes ${seconds} s, rounded up and clamped`, () => assertEquals(toShort(seconds), short));
  }

  it("is undone by fromShort()", () => {
    fc.assert(fc.property(fc.nat(0xffff_ffff), (short) => {
      assertEquals(toShort(fromShort(short)), short);
    }));
  });
});

const u64 = fc.bigInt({ min: 0n, max: 0xffffffff_ffffffffn });
const packets: fc.Arbitrary<Packet> = fc.record({
  leap: fc.constantFrom(...LEAP),
  version: fc.nat(7),
  mode: fc.nat(7),
  stratum: fc.nat(255),
  poll: fc.integer({ min: -128, max: 127 }),
  precision: fc.integer({ min: -128, max: 127 }),
  rootDelay: fc.nat(0xffff_ffff).map(fromShort),
  rootDispersion: fc.nat(0xffff_ffff).map(fromShort),
  referenceId: fc.nat(0xffff_ffff),
  reference: u64,
  origin: u64,
  receive: u64,
  transmit: u64,
});

describe("encodePacket()", () => {
  it("is undone by decodePacket()", () => {
    fc.assert(fc.property(packets, (packet) => {
      assertEquals(decodePacket(encodePacket(packet)), packet);
    }));
  });

  it("undoes decodePacket(), whatever the bytes", () => {
    fc.assert(fc.property(fc.uint8Array({ minLength: 48, maxLength: 48 }), (bytes) => {
      assertEquals(encodePacket(decodePacket(bytes)), bytes);
    }));
  });

  it("writes the bytes of RFC 5905, figure 8", () => {
    const bytes = encodePacket({
      leap: "insert",
      version: 4,
      mode: 4,
      stratum: 2,
      poll: 6,
      precision: -24,
      rootDelay: 1.5,
      rootDispersion: 0.25,
      referenceId: encodeReferenceId("LOCL"),
      reference: 0x0102030405060708n,
      origin: 0x1112131415161718n,
      receive: 0x2122232425262728n,
      transmit: 0x3132333435363738n,
    });
    const hex = "640206e8" + "00018000" + "00004000" + "4c4f434c" +
      "0102030405060708" + "1112131415161718" + "2122232425262728" + "3132333435363738";
    assertEquals(bytes.toHex(), hex);
  });

  it("refuses too few bytes", () => {
    assertThrows(() => decodePacket(new Uint8Array(47)), RangeError);
  });
});

describe("encodeRequest()", () => {
  it("tells nothing but version, mode and the nonce", () => {
    const bytes = new Uint8Array(48).fill(0xaa);
    encodeRequest(bytes, 0x0123456789abcdefn);
    assertEquals(bytes.toHex(), "23000020" + "00".repeat(36) + "0123456789abcdef");
  });
});

describe("referenceIdText()", () => {
  const rows: [number, number, string][] = [
    [encodeReferenceId("GPS"), 1, "GPS"],
    [encodeReferenceId("RATE"), 0, "RATE"],
    [encodeReferenceId("LOCL"), 10, "LOCL"],
    [0x7f7f0101, 8, "127.127.1.1"],
    [0xc0000207, 3, "192.0.2.7"],
    [0x01ff4142, 1, "??AB"],
  ];
  for (const [id, stratum, text] of rows) {
    it(`shows ${text} at stratum ${stratum}`, () => {
      assertEquals(referenceIdText(id, stratum), text);
    });
  }
});

describe("printable()", () => {
  const rows: [string, string, string][] = [
    ["what can be read", 'time.example: "ä→時🕒" é', 'time.example: "ä→時🕒" é'],
    ["controls", "a\x1b]0;b\x07\r\n\t\0\x7f", "a\\x1b]0;b\\x07\\x0d\\x0a\\x09\\x00\\x7f"],
    ["controls of one byte", "\x9b31m\x85", "\\x9b31m\\x85"],
    ["what turns text round", "\u202eelpmaxe\u2066\u200f", "\\u{202e}elpmaxe\\u{2066}\\u{200f}"],
    ["separators", "a\u2028b\u2029c\xa0\u3000", "a\\u{2028}b\\u{2029}c\\xa0\\u{3000}"],
    ["what cannot be seen", "\u200b\ufeff\u3164\xad", "\\u{200b}\\u{feff}\\u{3164}\\xad"],
    ["beyond 16 bits", "\u{e0041}\u{f0000}", "\\u{e0041}\\u{f0000}"],
    ["half a character", "a\ud83d", "a\\u{d83d}"],
  ];
  for (const [name, text, shown] of rows) {
    it(`shows ${name}, the same if done twice`, () => {
      assertEquals(printable(text), shown);
      assertEquals(printable(shown), shown);
    });
  }
});

describe("refuseRequest()", () => {
  const rows: [string, number, string | null][] = [
    ["version 4", 0x23, null],
    ["version 4 with any leap indicator", 0xe3, null],
    ["version 3", 0x1b, null],
    ["version 1", 0x0b, null],
    ["version 0", 0x03, "version"],
    ["version 5", 0x2b, "version"],
    ["a server's reply", 0x24, "mode"],
    ["a control message", 0x26, "mode"],
    ["HTTP", "G".charCodeAt(0), "version"],
    ["a TLS handshake", 0x16, "mode"],
  ];
  for (const [name, byte, expected] of rows) {
    it(`${expected === null ? "takes" : "refuses"} ${name}`, () => {
      assertEquals(refuseRequest(byte), expected);
    });
  }
});

describe("judgeReply()", () => {
  const nonce = 0x1122334455667788n;
  // T3 is after T2, across the end of an era.
  const good = { ...GOOD_REPLY, origin: nonce, receive: 0xffffffff_ffffffffn, transmit: 5n };
  const rows: [string, Partial<Packet>, string | null][] = [
    ["a good reply", {}, null],
    ["T3 equal to T2", { receive: 5n }, null],
    ["stratum 15", { stratum: 15 }, null],
    ["root distance just below 16 s", { rootDelay: 31, rootDispersion: 0.49 }, null],
    ["a client's request", { mode: 3 }, "mode"],
    ["another version", { version: 3 }, "version"],
    ["another origin", { origin: nonce + 1n }, "origin"],
    ["a kiss", { stratum: 0 }, "kiss"],
    ["a kiss that says it is unsynchronised", { stratum: 0, leap: "unsynchronised" }, "kiss"],
    ["a forged kiss", { stratum: 0, origin: 0n }, "origin"],
    ["stratum 16", { stratum: 16 }, "unsynchronised"],
    ["stratum 17", { stratum: 17 }, "stratum"],
    ["leap indicator 3", { leap: "unsynchronised" }, "unsynchronised"],
    ["T2 zero", { receive: 0n }, "timestamp"],
    ["T3 zero", { transmit: 0n }, "timestamp"],
    ["T3 before T2", { receive: 6n }, "order"],
    ["root distance of 16 s", { rootDelay: 30, rootDispersion: 1 }, "root-distance"],
  ];
  for (const [name, changes, rejection] of rows) {
    it(`${rejection === null ? "believes" : "rejects"} ${name}`, () => {
      const bytes = encodePacket({ ...good, ...changes });
      assertEquals(judgeReply(bytes, nonce).rejection, rejection);
    });
  }

  it("rejects a reply of another length", () => {
    assertEquals(judgeReply(new Uint8Array(47), nonce).rejection, "length");
  });

  it("names the code of a kiss", () => {
    const kiss = { ...good, stratum: 0, referenceId: encodeReferenceId("DENY") };
    assertEquals(rejectionText("kiss", kiss), "refuses to serve this client (kiss DENY)");
  });
});
