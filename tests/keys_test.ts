/**
 * Symmetric keys: the file, the MACs, and both ends that use them. What real
 * programs of others make of them is in `peers_test.ts`.
 *
 * @module
 */

import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import { type Program, programs, run, ServeProcess } from "../scripts/program.ts";
import { type Keys, parseKeys, serve, sync } from "../src/mod.ts";
import { MessageReader } from "../src/net/framing.ts";
import { linuxLibc } from "../src/net/linux/sockets.ts";
import { authenticatedSize, isAuthentic, type MessageKey, messageSize } from "../src/ntp/mac.ts";
import { decodePacket, encodePacket } from "../src/ntp/packet.ts";
import { judgeReply, refuseRequest } from "../src/ntp/validation.ts";
import { Admission } from "../src/serve/admission.ts";
import { Counters } from "../src/serve/counters.ts";
import { replyTemplate } from "../src/serve/reply.ts";
import { Session, SessionContext } from "../src/serve/session.ts";
import { concat, requestOf } from "./attackers.ts";
import { FakeServer } from "./fake_server.ts";
import { GOOD_REPLY } from "./good_reply.ts";
import { World } from "./simulation/world.ts";
import { SILENCE } from "./slowness.ts";
import "./libraries.ts";

const seed = Number(Deno.env.get("FUZZ_SEED") ?? Date.now() % 2 ** 31);
console.log(`keys: seed ${seed}`);

const FILE = `# Of chrony's documentation, and longer ones.
10 tulip
11 ASCII:hyacinth
20 MD5 ASCII:crocus
25 SHA1 HEX:933F62BE1D604E68A81B557F18CFA200483F5B70
26 SHA256 HEX:933F62BE1D604E68A81B557F18CFA200483F5B70
27 SHA512 HEX:933F62BE1D604E68A81B557F18CFA200483F5B70
30 AES128 HEX:7EA62AE64D190114D46D5A082F948EC1
31 AES256 HEX:37DDCBC67BB902BCB8E995977FAB4D2B5642F5B32EBCEEE421921D97E5CBFE39
`;
/** The key of {@linkcode FILE} that most tests use. */
const ID = 30;

const parse = (text: string) => parseKeys(new TextEncoder().encode(text));
const keys = parse(FILE);
const key = keys.get(ID)!;
const other = parse("30 AES128 HEX:00000000000000000000000000000000").get(ID)!;

/** A request with a MAC. */
function signed(key: MessageKey, version = 4, nonce = 1n): Uint8Array<ArrayBuffer> {
  const message = new Uint8Array(messageSize(key, version));
  message.set(requestOf(version, nonce));
  key.sign(message);
  return message;
}

const hex = (bytes: Uint8Array) => bytes.toHex();

describe("sign()", () => {
  // Computed by OpenSSL's `mac` and Python's hashlib.
  const aes256 = "37DDCBC67BB902BCB8E995977FAB4D2B5642F5B32EBCEEE421921D97E5CBFE39";
  const key160 = "933F62BE1D604E68A81B557F18CFA200483F5B70";
  const vectors: [string, string, string][] = [
    ["AES128", "7EA62AE64D190114D46D5A082F948EC1", "17c15ee15b36b8a79748de0896714c70"],
    ["AES256", aes256, "f91c1d3e1b1d563ef255f70f8112efc2"],
    ["MD5", key160, "29702fdf21f3905ac105b6187e4b1b89"],
    ["SHA1", key160, "c165775b5e02ad4a220b50c71b3b879741583b2a"],
    ["SHA256", key160, "1ec1e57807200046bd4b9bc81dd505af290b665c53740158abcaa9a2d4ba118e"],
    [
      "SHA384",
      key160,
      "5fab8ccdb262e1cb2048fd86136d7953dfa2f6aecfa03fe15a86f82736f57385bedbb58a7f0eb43b0fc671a6250cfe90",
    ],
    [
      "SHA512",
      key160,
      "2614144567bac825749b9c40b484a0a49f072c2f8680c96f00647520ab7aca3e08967ce13c26555a9367732c4290ac5449a88cc9c96e254685c1131f5bcead62",
    ],
    ["SHA3-224", key160, "1f1e4d64ab39371e6107cae4a9b0acf09e8fea33c52708089fe6fa60"],
    ["SHA3-256", key160, "9430854da26331c935d98261b6d23c4342ddee8445edc8faf391d0258b27f7f7"],
    [
      "SHA3-384",
      key160,
      "4974dde537c9697a81c376e6c364260cccc88823b11433273151ae4aedfbfb8517b3e352f00ad7eaec621f8b3e162568",
    ],
    [
      "SHA3-512",
      key160,
      "302f8c5175a80861e5762ccdd72864cb35ee6af0c819a6ce1784119a968605647fe49f629205fbccf3145868b6ae64caf141ca5b796b1cfc9d8f773951a2b1b6",
    ],
  ];
  for (const [type, secret, mac] of vectors) {
    it(`computes what others do: ${type}`, () => {
      const key = parse(`7 ${type} HEX:${secret}\n`).get(7)!;
      const header = Uint8Array.from({ length: 48 }, (_, i) => i);
      header[0] = 0; // Version 0: nothing is cut.
      for (let i = 0; i < 3; i++) {
        const message = new Uint8Array(messageSize(key, 0));
        message.set(header);
        key.sign(message);
        assertEquals(hex(message.subarray(48)), `00000007${mac}`);
        assert(key.verify(message));
        // Another in between must not change what comes next.
        key.sign(signed(key));
      }
      // RFC 7822, section 3: at most 24 bytes in version 4.
      assertEquals(messageSize(key, 4), Math.min(48 + 4 + mac.length / 2, 72));
    });
  }

  it("has a MAC of 20 bytes in 68 with AES128, as chrony", () => {
    assertEquals(signed(key).length, 68);
  });
});

describe("verify()", () => {
  it("refuses a message of which one bit is another", () => {
    for (const id of [20, 26, ID]) {
      const message = signed(keys.get(id)!);
      for (let bit = 0; bit < 8 * message.length; bit++) {
        message[bit >> 3]! ^= 1 << (bit & 7);
        assert(!keys.get(id)!.verify(message), `bit ${bit}`);
        message[bit >> 3]! ^= 1 << (bit & 7);
      }
      assert(keys.get(id)!.verify(message));
    }
  });

  it("is not asked about a MAC of another length", () => {
    const long = signed(keys.get(26)!, 3);
    assertEquals(long.length, 48 + 4 + 32);
    assert(isAuthentic(long, keys.get(26)));
    assert(!isAuthentic(long.subarray(0, 72), keys.get(26)));
    assert(!isAuthentic(long, undefined));
    assert(!isAuthentic(signed(key).subarray(0, 67), key));
  });
});

describe("parseKeys()", () => {
  it("reads what chrony reads", () => {
    assertEquals([...keys.keys()], [10, 11, 20, 25, 26, 27, 30, 31]);
    const text =
      "\r\n ! a\n;b\n% c\n\t4294967295\tSHA1   HEX:ab\r\n7 ASCII:ASCII:x\n 8 HEX:Ff  \n9 #9";
    assertEquals([...parse(text).keys()], [4294967295, 7, 8, 9]);
    const same = (a: string, b: string) => {
      const message = signed(parse(`1 ${a}`).get(1)!);
      assert(parse(`1 ${b}`).get(1)!.verify(message), `${a} is not ${b}`);
    };
    same("tulip", "MD5 ASCII:tulip");
    same("tulip", "HEX:74756C6970");
    same("AES128 sixteen-bytes-ok", "AES128 HEX:7369787465656e2d62797465732d6f6b");
    const latin = parseKeys(Uint8Array.of(0x31, 0x20, 0xff, 0xa0, 0x0a)).get(1)!;
    assert(latin.verify(signed(parse("1 HEX:ffa0").get(1)!)));
  });

  const wrong: [string, string][] = [
    ["", "there is no key in it"],
    ["# 1 MD5 a\n\n", "there is no key in it"],
    ["1 a\n2", "line 2 is not an ID, a type and a key"],
    ["1 AES128", "line 1 ends before the key"],
    ["1 AES128 HEX:", "line 1 ends before the key"],
    ["1 ASCII:", "line 1 ends before the key"],
    ["1 MD5 a b", "line 1 is not an ID, a type and a key"],
    ["a MD5 b", "line 1 does not begin with an ID from 1 to 4294967295"],
    ["0 b", "line 1 does not begin with an ID from 1 to 4294967295"],
    ["-1 b", "line 1 does not begin with an ID from 1 to 4294967295"],
    ["4294967296 b", "line 1 does not begin with an ID from 1 to 4294967295"],
    ["1 a\n1 b", "line 2 is another key 1"],
    [
      "587202592 b",
      "line 1 has an ID that could be the beginning of a request: choose one below 16777216",
    ],
    [
      "1 AES128 HEX:7EA62AE64D190114D46D5A082F948E",
      "line 1 has a key of 15 bytes, AES128 takes 16",
    ],
    [
      "1 AES128 HEX:7EA62AE64D190114D46D5A082F948EC",
      "line 1 has a key that is not a whole number of bytes in hexadecimal",
    ],
    ["1 MD5 HEX:xy", "line 1 has a key that is not a whole number of bytes in hexadecimal"],
    [
      "1 TIGER HEX:ab",
      "line 1 has a key of an unknown type: expected one of AES128, AES256, MD5, SHA1, SHA256, " +
      "SHA384, SHA512, SHA3-224, SHA3-256, SHA3-384, SHA3-512",
    ],
  ];
  for (const [text, message] of wrong) {
    it(`says what is wrong: ${JSON.stringify(text)}`, () => {
      assertEquals(assertThrows(() => parse(text), SyntaxError).message, message);
    });
  }

  it("never says a key", () => {
    fc.assert(
      fc.property(
        fc.array(fc.string({ minLength: 1, unit: fc.constantFrom(..."SECRT") })),
        (all) => {
          try {
            parse(`1 ${all.join(" ")}`);
          } catch (error) {
            assert(!/[SECRT]{5}/.test((error as Error).message.replaceAll(/SHA[\d-]+/g, "")));
          }
        },
      ),
      { seed },
    );
  });
});

Deno.test("authenticatedSize() tells a MAC from extension fields by its length", () => {
  const sizes = (version: number) => {
    const first = requestOf(version);
    return Array.from({ length: 90 }, (_, i) => 48 + i)
      .filter((length) => authenticatedSize(first, length) === length && length > 48);
  };
  assertEquals(sizes(4), [68, 72]);
  assertEquals(sizes(3), Array.from({ length: 49 }, (_, i) => 68 + i));
});

Deno.test("judgeReply() with a key believes nothing without the right MAC", () => {
  const judge = (changes: Partial<typeof GOOD_REPLY>, by: MessageKey | null, length = 68) => {
    const bytes = new Uint8Array(length);
    bytes.set(encodePacket({ ...GOOD_REPLY, origin: 5n, ...changes }).subarray(0, length));
    by?.sign(bytes);
    return judgeReply(bytes, 5n, key).rejection;
  };
  assertEquals(judge({}, key), null);
  assertEquals(judge({}, other), "mac");
  assertEquals(judge({}, keys.get(10)!), "mac");
  assertEquals(judge({}, null, 48), "mac");
  assertEquals(judge({}, null, 60), "mac");
  assertEquals(judge({}, null, 47), "length");
  // Not even that the server wants to be left alone.
  const kiss = { stratum: 0, referenceId: 0x44454e59, leap: "unsynchronised" } as const;
  assertEquals(judge(kiss, key), "kiss");
  assertEquals(judge(kiss, other), "mac");
  assertEquals(judge({ stratum: 16 }, null, 48), "mac");
  assertEquals(judge({ origin: 6n }, other), "origin");
});

/** A session by itself, fed with bytes in pieces. @returns Its replies, and why it ended. */
function feed(pieces: readonly Uint8Array[], keys: Keys | null): [Uint8Array[], string | null] {
  const sessions = new SessionContext(
    new Admission({ rate: 0 }),
    new Counters(),
    () => 1n,
    300,
    keys,
  );
  sessions.template = replyTemplate(null, 1e-6, 0n);
  const session = new Session(sessions);
  const client = sessions.admission.connect("192.0.2.1", 0n);
  if (typeof client === "string") throw new Error(client);
  session.begin(client);
  const plain = new Uint8Array(48);
  const replies: Uint8Array[] = [];
  for (const piece of pieces) {
    for (let at = 0; at < piece.length;) {
      assert(session.missing > 0, "it can read nothing");
      const some = piece.subarray(at, at + session.missing);
      at += some.length;
      // As from a shared buffer, and as from its own.
      const { room } = session;
      assert(room.length === session.missing);
      if (at % 2 === 0) room.set(some);
      const taken = session.take(at % 2 === 0 ? room : Uint8Array.from(some), some.length);
      if (taken === "refused") return [replies, session.refusal];
      if (taken === "more") continue;
      const reply = session.answer(1n, plain);
      session.stamp(reply);
      replies.push(reply.slice());
    }
  }
  return [replies, null];
}

Deno.test("fuzz: a stream of requests with and without MACs is answered likewise, however it is cut", () => {
  const some = fc.tuple(fc.constantFrom(null, ...keys.values()), fc.integer({ min: 1, max: 4 }));
  fc.assert(
    fc.property(
      fc.array(some, { minLength: 1, maxLength: 8 }),
      fc.array(fc.nat(900), { maxLength: 12 }),
      (requests, cuts) => {
        const messages = requests.map(([key, version], i) =>
          key === null ? requestOf(version, BigInt(i)) : signed(key, version, BigInt(i))
        );
        // A cut between a header and its MAC would make it one without: nobody cuts there.
        const forbidden = new Set<number>();
        let end = 0;
        for (const message of messages) {
          if (message.length > 48) forbidden.add(end + 48);
          end += message.length;
        }
        const stream = concat(messages);
        const at = [...new Set(cuts)].filter((cut) => cut < end && !forbidden.has(cut))
          .sort((a, b) => a - b);
        const pieces = [0, ...at].map((cut, i) => stream.subarray(cut, at[i] ?? end));
        // The reader must not cut there either: it reads whole pieces, or as much as is missing.
        const [replies, refusal] = feed(pieces, keys);
        assertEquals(refusal, null);
        assertEquals(replies.map(({ length }) => length), messages.map(({ length }) => length));
        for (const [i, reply] of replies.entries()) {
          const [key, version] = requests[i]!;
          assertEquals([decodePacket(reply).origin, decodePacket(reply).version], [
            BigInt(i),
            version,
          ]);
          assert(key === null || isAuthentic(reply, key));
        }
      },
    ),
    { seed, numRuns: 3000 },
  );
});

Deno.test("fuzz: of streams with something wrong nothing is answered that should not be", () => {
  const known = [...keys.values()];
  fc.assert(
    fc.property(
      fc.constantFrom(...known),
      fc.integer({ min: 1, max: 4 }),
      fc.nat(),
      fc.uint8Array({ maxLength: 200 }),
      fc.array(fc.nat(300), { maxLength: 5 }),
      (key, version, bit, tail, cuts) => {
        const message = signed(key, version);
        const at = 8 * 48 + bit % (8 * (message.length - 48));
        message[at >> 3]! ^= 1 << (at & 7);
        const stream = concat([message, tail]);
        const places = [...new Set(cuts)].filter((cut) => cut < stream.length && cut !== 48)
          .sort((a, b) => a - b);
        const pieces = [0, ...places].map((cut, i) =>
          stream.subarray(cut, places[i] ?? stream.length)
        );
        const [replies] = feed(pieces, keys);
        // A bit of the ID may make it the beginning of another request: the one before has no MAC.
        const isAnother = refuseRequest(message[48]!) === null;
        assertEquals(replies.map(({ length }) => length), isAnother ? [48] : []);
      },
    ),
    { seed, numRuns: 3000 },
  );
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 200 })), (pieces) => {
      feed(pieces, keys);
    }),
    { seed, numRuns: 3000 },
  );
});

const inProcess = { sanitizeOps: false, sanitizeResources: false };

Deno.test("with a key, and TLS's way to read, time goes over a simulated network", async () => {
  const world = new World(1);
  const [server, client] = [world.host("192.0.2.1", { offset: 1 }), world.host("192.0.2.2")];
  const { network, clock, timers } = server;
  const options = { hosts: ["192.0.2.1"], udpPort: 123, clock, network, timers, keys };
  const serving = await world.run(serve(options));
  for (const name of ["192.0.2.1", "ntp://192.0.2.1"]) {
    for (const id of [10, 25, 26, 30]) {
      const { offset, errorBound } = await world.run(sync({
        servers: [name],
        key: keys.get(id),
        clock: client.clock,
        network: client.network,
        timers: client.timers,
        samples: 2,
      }));
      assert(Math.abs(offset! - 1) <= errorBound!, `${offset} ± ${errorBound}`);
    }
    const { servers: [asked] } = await world.run(sync({
      servers: [name],
      key: other,
      clock: client.clock,
      network: client.network,
      timers: client.timers,
    }));
    assertEquals(asked!.status, "unreachable");
    assertMatch(asked!.error!, /; does it have the same key 30\?$/);
  }
  await world.run(serving.stop());
  const { refusals } = serving.counters;
  assert(refusals.mac >= 2, `${refusals.mac}`);
});

Deno.test("requests with a MAC are sent ahead over a long path, as those without", async () => {
  const world = new World(1);
  const [server, client] = [world.host("192.0.2.1", { offset: 1 }), world.host("192.0.2.2")];
  server.path = { out: () => 0.05, back: () => 0.05 };
  const { network, clock, timers } = server;
  const options = { hosts: ["192.0.2.1"], clock, network, timers, keys };
  const serving = await world.run(serve(options));
  const taken: number[] = [];
  for (const key of [undefined, keys.get(26), keys.get(ID)]) {
    const start = world.now;
    const { offset, errorBound, servers: [asked] } = await world.run(sync({
      servers: ["192.0.2.1"],
      key,
      clock: client.clock,
      network: client.network,
      timers: client.timers,
    }));
    assert(Math.abs(offset! - 1) <= errorBound!, `${offset} ± ${errorBound}`);
    taken.push((world.now - start) / 1e9 / asked!.figures!.exchanges.length);
  }
  await world.run(serving.stop());
  assertEquals(serving.counters.refusals.mac, 0);
  // Far less than the round trip of 0.1 s that each would take by itself.
  assert(taken.every((seconds) => seconds < 0.05), `${taken} s an exchange`);
});

for (const timestamps of ["kernel", "user"] as const) {
  Deno.test(
    `stamped by ${timestamps}: who has the key is answered, who has another is not`,
    inProcess,
    async () => {
      if (timestamps === "kernel" && linuxLibc() === null) return console.log("no libc: not tried");
      const loopback = { hosts: ["127.0.0.1"], port: 0, udpPort: 0, rate: 0, timestamps };
      const server = await serve({ ...loopback, keys });
      const [tcp, udp] = server.addresses.map(({ port }) => port);
      const ask = async (port: number, request: Uint8Array<ArrayBuffer>) => {
        const reply = new Uint8Array(200);
        if (port === udp) {
          const to = { hostname: "127.0.0.1", port, transport: "udp" } as const;
          const local = { hostname: "127.0.0.1", port: 0, transport: "udp" } as const;
          const socket = Deno.listenDatagram(local);
          await socket.send(request, to);
          await socket.send(signed(key, 4, 99n), to); // Those with a MAC are answered last, in order.
          const [bytes] = await socket.receive(reply);
          socket.close();
          return decodePacket(bytes).origin === 99n ? null : bytes;
        }
        using connection = await Deno.connect({ hostname: "127.0.0.1", port });
        await connection.write(request);
        const count = await connection.read(reply);
        return count === null ? null : reply.subarray(0, count);
      };
      for (const port of [tcp!, udp!]) {
        for (const version of [1, 3, 4]) {
          for (const key of keys.values()) {
            const reply = await ask(port, signed(key, version));
            assert(isAuthentic(reply!, key), `key ${key.id}, version ${version}`);
            assertEquals([reply!.length, decodePacket(reply!).version], [
              messageSize(key, version),
              version,
            ]);
          }
          assertEquals(await ask(port, signed(other, version)), null);
        }
        assertEquals((await ask(port, requestOf()))!.length, 48);
      }
      assertEquals(server.counters.refusals.mac, 6);
      await server.stop();
    },
  );

  Deno.test(
    `stamped by ${timestamps}: too many requests with a MAC get a kiss with one`,
    inProcess,
    async () => {
      if (timestamps === "kernel" && linuxLibc() === null) return console.log("no libc: not tried");
      const loopback = { hosts: ["127.0.0.1"], port: 0, rate: 1, timestamps };
      const server = await serve({ ...loopback, keys });
      const { port } = server.addresses[0]!;
      using connection = await Deno.connect({ hostname: "127.0.0.1", port });
      const reply = new Uint8Array(68);
      let stratum = 1;
      for (let nonce = 1n; stratum !== 0; nonce++) {
        await connection.write(signed(key, 4, nonce));
        for (let filled = 0; filled < reply.length;) {
          filled += (await connection.read(reply.subarray(filled)))!;
        }
        assert(isAuthentic(reply, key));
        assertEquals(judgeReply(reply, nonce, key).rejection, reply[1] === 0 ? "kiss" : null);
        stratum = reply[1]!;
      }
      assertEquals(await connection.read(reply), null);
      await server.stop();
    },
  );
}

Deno.test(
  "a reply that somebody else sends first does not count, nor does it keep out the right one",
  inProcess,
  async () => {
    const local = { hostname: "127.0.0.1", port: 0, transport: "udp" } as const;
    const socket = Deno.listenDatagram(local);
    const serving = (async () => {
      for await (const [request, client] of socket) {
        const { transmit: origin } = decodePacket(request);
        const forged = new Uint8Array(68);
        const good = { ...GOOD_REPLY, origin, receive: 7n, transmit: 8n };
        forged.set(encodePacket(good));
        await socket.send(forged.subarray(0, 48), client);
        other.sign(forged);
        await socket.send(forged, client);
        forged.set(encodePacket({ ...good, stratum: 3 }));
        key.sign(forged);
        await socket.send(forged, client);
      }
    })();
    const { port } = socket.addr as Deno.NetAddr;
    for (const timestamps of ["auto", "user"] as const) {
      const servers = [`ntp://127.0.0.1:${port}`];
      const fix = await sync({ servers, key, samples: 1, timestamps });
      assertEquals(fix.servers[0]!.figures?.stratum, 3, fix.servers[0]!.error ?? "");
    }
    socket.close();
    await serving;
  },
);

/** A folder with key files. */
async function withKeys(body: (file: string, wrong: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    const [file, wrong] = [`${folder}/keys`, `${folder}/wrong keys`];
    await Deno.writeTextFile(file, FILE, { mode: 0o640 });
    await Deno.writeTextFile(wrong, FILE.replace("7EA6", "0000"), { mode: 0o600 });
    await body(file, wrong);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const LOOPBACK = ["--host", "127.0.0.1", "--port", "0", "--udp-port", "0"];

for (const program of programs()) testProgram(program);

function testProgram(program: Program): void {
  const test = (name: string, body: (file: string, wrong: string) => Promise<void>) =>
    Deno.test(`${program.name}: ${name}`, () => withKeys(body));

  test("serve and sync with the same key agree, over TCP and UDP", async (file, wrong) => {
    await using server = await ServeProcess.start(program, [...LOOPBACK, "--keys", file]);
    const udp = String((await server.nextEvent())!.address);
    for (const name of [server.address, `ntp://${udp}`]) {
      for (const id of ["10", "26", `${ID}`]) {
        const args = ["--json", "--samples", "1", "--keys", file, "--key", id, name];
        const { code, stdout, stderr } = await run(program, "sync", ...args);
        assertEquals([code, stderr], [0, ""]);
        const { offset, error_bound } = JSON.parse(stdout);
        assert(Math.abs(offset) <= error_bound && error_bound < 1, stdout);
      }
      // Without a key it is answered as ever.
      assertEquals((await run(program, "sync", "--samples", "1", name)).code, 0);
      const args = ["--keys", wrong, "--key", `${ID}`, "--timeout", SILENCE, "--quiet"];
      const { code, stdout, stderr } = await run(program, "sync", ...args, name);
      assertEquals([code, stdout], [1, ""]);
      assertMatch(
        stderr,
        /(did not answer|without an answer).*; does it have the same key 30\?\n$/,
      );
    }
    const { code, log } = await server.stop();
    assertEquals(code, 0);
    const refused = log.filter((each) => (each as { event: string }).event === "refused");
    assertEquals(
      new Set(refused.map((each) => (each as { reason: string }).reason)),
      new Set(["mac"]),
    );
  });

  test("sync believes no server without the key", async (file) => {
    await using server = await ServeProcess.start(program, LOOPBACK);
    const udp = String((await server.nextEvent())!.address);
    for (const name of [server.address, `ntp://${udp}`]) {
      const args = ["--json", "--quiet", "--timeout", "3", "--keys", file, "--key", `${ID}`, name];
      const { code, stdout, stderr } = await run(program, "sync", ...args);
      assertEquals(code, 1);
      const [asked] = JSON.parse(stdout).servers;
      const sentence = `${name} sent a reply without the right MAC; does it have the same key 30?`;
      assertEquals([asked.status, asked.error, stderr], [
        "invalid",
        sentence,
        `tsync: ${sentence}\n`,
      ]);
    }
  });

  test("sync --watch keeps time by a server with the key", async (file) => {
    await using server = await ServeProcess.start(program, [...LOOPBACK, "--keys", file]);
    const args = ["sync", "--watch", "--json", "--keys", file, "--key", `${ID}`];
    const command = [...program.args, ...args, ...program.flags ?? [], server.address];
    const child = new Deno.Command(program.executable, {
      args: command,
      stdout: "piped",
      stderr: "null",
    }).spawn();
    const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    while (text.split("\n").length < 3) text += (await reader.read()).value ?? "";
    child.kill("SIGINT");
    while (!(await reader.read()).done);
    assertEquals((await child.status).code, 0);
    assertEquals(JSON.parse(text.split("\n")[1]!).state, "synchronised");
  });

  test("what is wrong with the key file is said, and how to mend it", async (file, wrong) => {
    const folder = file.replace(/\/keys$/, "");
    const cut = `${folder}/cut`;
    await Deno.writeTextFile(cut, FILE.slice(0, -20), { mode: 0o600 });
    const unknown = `${folder}/unknown`;
    await Deno.writeTextFile(unknown, "1 WHIRLPOOL HEX:ab\n", { mode: 0o600 });
    const refusal = (path: string, why: string) => `cannot use ${path} for --keys: ${why}`;
    const cases: [string, string][] = [
      [`${folder}/none`, `cannot read ${folder}/none for --keys: there is no such file`],
      [folder, `cannot read ${folder} for --keys: it is a folder`],
      [cut, refusal(cut, "line 9 has a key that is not a whole number of bytes in hexadecimal")],
      [
        unknown,
        refusal(
          unknown,
          "line 1 has a key of an unknown type: expected one of AES128, AES256, MD5, SHA1, SHA256, " +
            "SHA384, SHA512, SHA3-224, SHA3-256, SHA3-384, SHA3-512",
        ),
      ],
      [
        "/dev/null",
        refusal("/dev/null", "every user of this machine may open it; run: chmod o= /dev/null"),
      ],
    ];
    for (const mode of [0o604, 0o602, 0o661]) {
      const path = `${folder}/open ${mode}`;
      await Deno.copyFile(file, path);
      await Deno.chmod(path, mode);
      const command = `chmod o= '${path}'`;
      cases.push([path, refusal(path, `every user of this machine may open it; run: ${command}`)]);
    }
    for (const [path, sentence] of cases) {
      for (const command of [["serve", ...LOOPBACK], ["sync", "--key", "1", "127.0.0.1:1"]]) {
        const { code, stdout, stderr } = await run(program, ...command, "--keys", path);
        assertEquals([code, stdout, stderr], [1, "", `tsync: ${sentence}\n`]);
      }
    }
    // The command that the sentence gives does mend it.
    const path = `${folder}/open ${0o604}`;
    const { success } = await new Deno.Command("sh", { args: ["-c", `chmod o= '${path}'`] })
      .output();
    assert(success);
    const missing = await run(program, "sync", "--keys", path, "--key", "7", "127.0.0.1:1");
    assertEquals([missing.code, missing.stderr], [
      1,
      `tsync: cannot use --key 7: ${path} has no such key\n`,
    ]);
    for (
      const [args, sentence] of [
        [["--keys", wrong], "--keys needs --key"],
        [["--key", "30"], "--key needs --keys"],
        [
          ["--keys", wrong, "--key", "0"],
          '--key must be an integer from 1 to 4294967295: current value is "0"',
        ],
        [
          ["--keys", wrong, "--key", "x"],
          '--key must be an integer from 1 to 4294967295: current value is "x"',
        ],
      ] as const
    ) {
      const { code, stderr } = await run(program, "sync", ...args);
      assertEquals([code, stderr], [2, `tsync: ${sentence}\nSee \`tsync sync --help\`.\n`]);
    }
  });
}

Deno.test("a reply that was changed after its MAC was computed does not count", async () => {
  await using server = new FakeServer(async (connection) => {
    const request = new Uint8Array(68);
    const reader = new MessageReader(connection, request, () => 0n);
    const reply = new Uint8Array(68);
    while (await reader.read()) {
      assert(isAuthentic(request, key));
      const { transmit: origin } = decodePacket(request);
      reply.set(encodePacket({ ...GOOD_REPLY, origin, receive: 7n << 32n, transmit: 8n << 32n }));
      key.sign(reply);
      reply[43]! ^= 1; // T3, by a second.
      await connection.write(reply);
    }
  });
  const { servers: [asked] } = await sync({ servers: [server.address], key });
  assertMatch(asked!.error!, /sent a reply without the right MAC/);
  assertEquals([asked!.status, server.connections], ["invalid", 3]);
});
