import { systemNetwork } from "../src/net/system.ts";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { isIP } from "node:net";
import fc from "fast-check";
import { systemClock, systemTimers } from "../src/clock/system_clock.ts";
import { formatAddress, ipVersion, parseServerAddress } from "../src/net/address.ts";
import { MessageReader, MessageWriter } from "../src/net/framing.ts";
import { connectFirst } from "../src/net/channel.ts";
import type { Connection, Network } from "../src/net/network.ts";
import { errorText, isUnknownHost } from "../src/net/errors.ts";
import "./libraries.ts";

describe("parseServerAddress()", () => {
  const good: [string, string, string, number][] = [
    ["host", "tcp", "host", 10085],
    ["host:1", "tcp", "host", 1],
    ["192.0.2.7:65535", "tcp", "192.0.2.7", 65535],
    ["[2001:db8::7]:123", "tcp", "2001:db8::7", 123],
    ["[::1]", "tcp", "::1", 10085],
    ["::1", "tcp", "::1", 10085],
    ["fe80::1%eth0", "tcp", "fe80::1%eth0", 10085],
    ["tcp://host", "tcp", "host", 10085],
    ["TCP://host:5/", "tcp", "host", 5],
    ["tls://host", "tls", "host", 10085],
    ["ntp://time.example", "ntp", "time.example", 123],
    ["ntp://[::1]:124", "ntp", "::1", 124],
    ["zeit.größe.example", "tcp", "zeit.größe.example", 10085],
  ];
  for (const [name, transport, hostname, port] of good) {
    it(`reads ${name}`, () => {
      assertEquals(parseServerAddress(name), { name, transport, hostname, port });
    });
  }

  const bad: [string, string][] = [
    ["", "expected host"],
    ["host:", "port must be an integer from 1 to 65535"],
    ["host:0", "port must be an integer from 1 to 65535"],
    ["host:70000", 'current value is "70000"'],
    ["host:1e3", 'current value is "1e3"'],
    ["[::1]:", "port must be an integer"],
    ["[::1]x", "expected host"],
    ["[host]:5", "expected host"],
    [":::::", "expected host"],
    ["a b", "expected host"],
    ["user@host", "expected host"],
    ["tcp://host/path", "expected host"],
    ["http://host", '"http://" is not known, expected tcp://, tls:// or ntp://'],
  ];
  for (const [name, message] of bad) {
    it(`refuses "${name}"`, () => {
      assertThrows(() => parseServerAddress(name), Error, message);
    });
  }
});

describe("ipVersion()", () => {
  it("knows IP addresses as Node does", () => {
    const texts = [
      ...["127.0.0.1", "0.0.0.0", "255.255.255.255", "256.1.1.1", "08.1.1.1", "01.2.3.4", "1.2.3"],
      ...[
        "1.2.3.4.",
        "127.1",
        "0x7f.1",
        "::",
        "::1",
        "::ffff:1.2.3.4",
        "::FFFF:1.2.3.4",
        "1::2::3",
      ],
      ...["fe80::1%eth0", "fe80::1%", "::\t1", "::1]/x[", "1:2:3:4:5:6:7:8:9", "", ":", "a", "1"],
    ];
    for (const text of texts) assertEquals(ipVersion(text), isIP(text), JSON.stringify(text));
    const part = fc.oneof(fc.nat(300).map(String), fc.constantFrom("", "00", "01", "a", "1e"));
    fc.assert(fc.property(fc.array(part, { minLength: 3, maxLength: 5 }), (parts) => {
      assertEquals(ipVersion(parts.join(".")), isIP(parts.join(".")));
    }));
    const group = fc.constantFrom("", "0", "1", "ffff", "fffff", "g", "1.2.3.4");
    fc.assert(fc.property(fc.array(group, { minLength: 2, maxLength: 9 }), (groups) => {
      assertEquals(ipVersion(groups.join(":")), isIP(groups.join(":")));
    }));
  });
});

describe("formatAddress()", () => {
  it("puts IPv6 in brackets", () => {
    assertEquals(formatAddress({ hostname: "::1", port: 5 }), "[::1]:5");
    assertEquals(formatAddress({ hostname: "192.0.2.7", port: 5 }), "192.0.2.7:5");
  });
});

/** A source that hands out `bytes` in pieces of the given lengths, again and again. */
function inPieces(bytes: Uint8Array, lengths: readonly number[]) {
  let position = 0;
  let turn = 0;
  return {
    read(into: Uint8Array): Promise<number | null> {
      if (position === bytes.length) return Promise.resolve(null);
      const length = Math.min(lengths[turn++ % lengths.length]!, into.length);
      const piece = bytes.subarray(position, position + length);
      into.set(piece);
      position += piece.length;
      return Promise.resolve(piece.length);
    },
  };
}

describe("MessageReader", () => {
  it("reads the same messages however they are cut", async () => {
    const lengths = fc.array(fc.integer({ min: 1, max: 100 }), { minLength: 1 });
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), lengths, async (sent, cuts) => {
        const message = new Uint8Array(48);
        const reader = new MessageReader(inPieces(sent, cuts), message, () => 7n);
        const received: number[] = [];
        while (await reader.read()) received.push(...message);
        assertEquals(received.length, sent.length - sent.length % 48);
        assertEquals([...received, ...message.subarray(0, reader.filled)], [...sent]);
        assertEquals(reader.arrived, 7n);
      }),
    );
  });

  it("keeps the source's error instead of rejecting", async () => {
    const error = new Error("broken");
    const reader = new MessageReader(
      { read: () => Promise.reject(error) },
      new Uint8Array(48),
      () => 0n,
    );
    assertEquals(await reader.read(), false);
    assertEquals(reader.error, error);
  });
});

describe("MessageWriter", () => {
  it("writes all of a message to a sink that takes a little at a time, each time", async () => {
    const taken: number[] = [];
    const sink = {
      write(bytes: Uint8Array): Promise<number> {
        taken.push(...bytes.subarray(0, 5));
        return Promise.resolve(Math.min(bytes.length, 5));
      },
    };
    const writer = new MessageWriter(sink, Uint8Array.from({ length: 12 }, (_, i) => i));
    for (let i = 0; i < 2; i++) {
      const writing = writer.write();
      assert(writer.writing !== null);
      await writing;
      assertEquals([writer.writing, writer.error], [null, undefined]);
    }
    const message = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
    assertEquals(taken, [...message, ...message]);
  });
});

/** A network in which each address answers as it is told. */
function networkOf(answers: Record<string, "connects" | "refuses" | "hangs">) {
  const tried: string[] = [];
  const open = new Set<string>();
  const network: Network = {
    ...systemNetwork,
    connect({ hostname, port }, signal): Promise<Connection> {
      tried.push(hostname);
      const answer = answers[hostname]!;
      if (answer === "refuses") return Promise.reject(new Error(`${hostname} refuses`));
      if (answer === "hangs") {
        return new Promise((_, reject) => {
          signal.addEventListener("abort", () => reject(signal.reason));
        });
      }
      open.add(hostname);
      return Promise.resolve({
        remote: { hostname, port },
        read: () => Promise.resolve(null),
        write: () => Promise.resolve(0),
        close: () => open.delete(hostname),
      });
    },
  };
  return { network, tried, open };
}

const addresses = ["a", "b", "c"].map((hostname) => ({ hostname, port: 1 }));
/** Time that passes at once. */
const impatient = {
  after(_: number, callback: () => void) {
    const timer = setTimeout(callback, 0);
    return () => clearTimeout(timer);
  },
};
const never = new AbortController().signal;

Deno.test("connectFirst() tries the next address when one refuses", async () => {
  const { network, tried, open } = networkOf({ a: "refuses", b: "connects", c: "connects" });
  const { connection: { remote } } = await connectFirst(
    network,
    addresses,
    systemClock(),
    systemTimers,
    never,
  );
  assertEquals(remote.hostname, "b");
  assertEquals(tried, ["a", "b"]);
  assertEquals([...open], ["b"]);
});

Deno.test("connectFirst() tries the next address beside one that is silent", async () => {
  const { network, tried } = networkOf({ a: "hangs", b: "hangs", c: "connects" });
  const { connection: { remote } } = await connectFirst(
    network,
    addresses,
    systemClock(),
    impatient,
    never,
  );
  assertEquals(remote.hostname, "c");
  assertEquals(tried, ["a", "b", "c"]);
});

Deno.test("connectFirst() fails with the first address's error when all refuse", async () => {
  const { network } = networkOf({ a: "refuses", b: "refuses", c: "refuses" });
  await assertRejects(
    () => connectFirst(network, addresses, systemClock(), systemTimers, never),
    Error,
    "a refuses",
  );
});

Deno.test("connectFirst() ends with the signal's reason", async () => {
  const { network } = networkOf({ a: "hangs", b: "hangs", c: "hangs" });
  const controller = new AbortController();
  const connecting = connectFirst(
    network,
    addresses,
    systemClock(),
    systemTimers,
    controller.signal,
  );
  controller.abort(new Error("enough"));
  await assertRejects(() => connecting, Error, "enough");
});

describe("errorText()", () => {
  it("drops the operating system's number", () => {
    assertEquals(errorText(new Error("No route to host (os error 113)")), "No route to host");
    assertEquals(errorText(new Deno.errors.ConnectionRefused("x")), "connection refused");
    assertEquals(errorText(new Error("\x1b[2J")), "\\x1b[2J");
  });

  it("tells a name that does not exist from name servers that cannot tell, as offline", () => {
    const offline = Object.assign(new Error("getaddrinfo EAI_AGAIN a"), { code: "EAI_AGAIN" });
    assertEquals(isUnknownHost(offline), false);
    assertEquals(isUnknownHost(Object.assign(new Error("a"), { code: "ENOTFOUND" })), true);
    assertEquals(errorText(offline), "no name server could tell");
  });
});
