/**
 * What is shown of a server over HTTP, and that showing it hurts nobody.
 *
 * @module
 */

import { once } from "node:events";
import { lookup } from "node:dns/promises";
import { createConnection, type Socket } from "node:net";
import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import fc from "fast-check";
import config from "../deno.json" with { type: "json" };
import { type Program, programs, run, ServeProcess, SOURCE } from "../scripts/program.ts";
import { hostOf, parseListenAddress } from "../src/net/address.ts";
import { extrapolate, intersect, MAX_DRIFT } from "../src/estimate/envelope.ts";
import { HeadReader, MAX_HEAD, parseHead, TOO_LONG } from "../src/serve/status/http_message.ts";
import type { Timers } from "../src/clock/clock.ts";
import { openSite } from "../src/cli/watch_http.ts";
import { serve, Watch } from "../src/mod.ts";
import type { Connection, Listener } from "../src/net/network.ts";
import { Admission } from "../src/serve/admission.ts";
import { Counters, HOLD_BOUNDS_NS } from "../src/serve/counters.ts";
import {
  HttpServer,
  MAX_CONNECTIONS,
  MAX_CONNECTIONS_PER_ADDRESS,
} from "../src/serve/status/http_server.ts";
import { buckets, exposition } from "../src/serve/status/metrics.ts";
import { Site } from "../src/serve/status/site.ts";
import { type Client, connect } from "./attackers.ts";
import "./libraries.ts";
import { type Host, World } from "./simulation/world.ts";
import { SCRIPT } from "../src/serve/status/page.ts";
import { shown, verdict } from "../src/serve/status/page/format.js";
import { intersect as intersectOfPage } from "../src/serve/status/page/measure.js";

const seed = Number(Deno.env.get("FUZZ_SEED") ?? Date.now() % 2 ** 31);
console.log(`status: seed ${seed}`);
const bytesOf = (text: string) => new TextEncoder().encode(text);
const textOf = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
/** A request and its beginning. */
const START = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n";
const GET = `${START}\r\n`;
/** The statuses of responses, one after another. */
const statusesOf = (text: string) =>
  [...text.matchAll(/^HTTP\/1\.1 (\d+) /gm)].map(([, status]) => Number(status));

describe("parseListenAddress()", () => {
  for (
    const [text, hostname, port] of [
      ["9100", "127.0.0.1", 9100],
      ["0", "127.0.0.1", 0],
      ["0.0.0.0:80", "0.0.0.0", 80],
      ["[::]:80", "::", 80],
      ["localhost:65535", "localhost", 65535],
    ] as const
  ) it(`reads ${text}`, () => assertEquals(parseListenAddress(text), { hostname, port }));

  for (
    const text of ["", ":80", "host", "host:", "65536", "::1:80", "[x]:80", "-1", "1.5", "a b:1"]
  ) {
    it(`refuses "${text}"`, () => {
      assertThrows(() => parseListenAddress(text), SyntaxError, "cannot listen on");
    });
  }
});

describe("hostOf()", () => {
  for (
    const [authority, host] of [
      ["Time.Example", "time.example"],
      ["time.example.:80", "time.example"],
      ["a_b-c:", "a_b-c"],
      ["192.0.2.1:80", "192.0.2.1"],
      ["[2001:DB8::1]:80", "2001:db8::1"],
      ["[fe80::1%25eth0]", "fe80::1"],
      ["", null],
      [".", null],
      [":80", null],
      ["::1", null],
      ["a:b", null],
      ["a:80:80", null],
      ["a, b", null],
      ["user@a", null],
      ["[::1", null],
      ["[::1].", null],
      ["a/b", null],
    ] as const
  ) it(`of "${authority}" is ${host}`, () => assertEquals(hostOf(authority), host));
});

describe("parseHead()", () => {
  const get = { method: "GET", path: "/", hosts: ["a"], keepAlive: true };
  for (
    const [head, expected] of [
      ["GET / HTTP/1.1\r\nHost: a", get],
      ["GET /?a=/b HTTP/1.1\r\nHost: a", get],
      ["GET http://A.example:80/time?x HTTP/1.1\r\nHOST:\tB.", {
        ...get,
        path: "/time",
        hosts: ["a.example", "b"],
      }],
      ["GET / HTTP/1.0", { ...get, hosts: [], keepAlive: false }],
      ["GET / HTTP/1.0\r\nHost: a", { ...get, keepAlive: false }],
      ["GET / HTTP/1.1", null],
      ["GET http://a/ HTTP/1.1", null],
      ["GET / HTTP/1.1\r\nHost: a\r\nHost: a", null],
      ["GET / HTTP/1.0\r\nHost: a\r\nHost: a", null],
      ["GET / HTTP/1.1\r\nHost: a, b", null],
      ["GET / HTTP/1.1\r\nHost:", null],
      ["GET http://u@a/ HTTP/1.1\r\nHost: a", null],
      ["GET / HTTP/1.1\r\nHost: a\r\nConnection: TE,\tClose", { ...get, keepAlive: false }],
      ["GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nConnection: TE", {
        ...get,
        keepAlive: false,
      }],
      ["GET / HTTP/1.1\r\nHost: a\r\nConnection: close, keep-alive", null],
      ["GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close", null],
      ["GET / HTTP/1.1\r\nHost: a\r\nConnection: close;keep-alive", null],
      ["GET / HTTP/1.1\r\nHost: a\r\nX: y\rContent-Length: 44", null],
      ["GET / HTTP/1.1\r\nHost: a\r\nX: y\0", null],
      ["GET /\x7f HTTP/1.1\r\nHost: a", null],
      ["GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5", { ...get, keepAlive: false }],
      ["GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0", get],
      ["GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 0", null],
      ["GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0", null],
      ["GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 0", null],
      ["GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1", null],
      ["GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x0", null],
      ["GET / HTTP/1.1\r\nHost: a\r\nContent-Length:", null],
      ["GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked", null],
      ["GET / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING:\tchunked", { ...get, keepAlive: false }],
      ["OPTIONS * HTTP/1.1\r\nHost: a", { ...get, method: "OPTIONS", path: "*" }],
      ["GET / HTTP/2.0", null],
      ["GET /", null],
      ["", null],
      ["GET  / HTTP/1.1", null],
      ["GET a HTTP/1.1", null],
      ["GET / HTTP/1.1\r\nno header", null],
      ["GET / HTTP/1.1\r\n folded: header", null],
      ["GET / HTTP/1.1\n\nHost: a", null],
      ["GET / HTTP/1.1\nHost: a\r\nB: c", get],
      ["\x16\x03\x01", null],
    ] as const
  ) it(JSON.stringify(head), () => assertEquals(parseHead(head), expected));
});

/** A source of given pieces. */
function pieces(parts: readonly Uint8Array[]) {
  const rest = [...parts];
  return {
    read(into: Uint8Array): Promise<number | null> {
      const part = rest.shift();
      if (part === undefined) return Promise.resolve(null);
      const taken = part.subarray(0, into.length);
      into.set(taken);
      if (taken.length < part.length) rest.unshift(part.subarray(taken.length));
      return Promise.resolve(taken.length);
    },
  };
}

Deno.test("HeadReader.read() finds heads however they are cut", async () => {
  const heads = fc.array(fc.stringMatching(/^[a-z \r]{0,20}$/), { maxLength: 5 });
  const cuts = fc.array(fc.integer({ min: 1, max: 9 }), { maxLength: 200 });
  const property = fc.asyncProperty(heads, cuts, async (heads, cuts) => {
    const bytes = bytesOf(heads.map((head) => `x${head}x\r\n\r\n`).join("") + "rest");
    const parts: Uint8Array[] = [];
    let at = 0;
    for (const cut of cuts) parts.push(bytes.subarray(at, at += cut));
    parts.push(bytes.subarray(at));
    const reader = new HeadReader(pieces(parts.filter(({ length }) => length > 0)), () => 7n);
    for (const head of heads) assertEquals(await reader.read(), `x${head}x`);
    assertEquals(await reader.read(), null);
    assert(reader.begun);
  });
  await fc.assert(property, { seed, numRuns: 300 });
});

Deno.test("HeadReader.read() refuses a head that is too long, and no other", async () => {
  const long = bytesOf("x".repeat(MAX_HEAD - 4) + "\r\n\r\n");
  assertEquals(await new HeadReader(pieces([long]), () => 0n).read(), "x".repeat(MAX_HEAD - 4));
  const longer = new HeadReader(pieces([bytesOf("x"), long]), () => 0n);
  assertEquals(await longer.read(), TOO_LONG);
});

describe("the page", () => {
  it("has one script, which needs nothing but a browser", async () => {
    assert(!/^\s*(\/[/*]|\*)|^(im|ex)port /m.test(SCRIPT));
    const module = import(`data:text/javascript,${encodeURIComponent(SCRIPT)}`);
    // It runs as far as it can here.
    await assertRejects(() => module, ReferenceError, "document is not defined");
  });

  it("intersects as the client does", () => {
    const ms = fc.double({ min: -50, max: 50, noNaN: true });
    const wait = fc.double({ min: 0, max: 20, noNaN: true });
    const exchanges = fc.array(fc.tuple(ms, wait, wait, wait, ms), { minLength: 1, maxLength: 20 });
    fc.assert(
      fc.property(exchanges, (drawn) => {
        const made = drawn.map(([t1, out, hold, back, offset]) => {
          const t2 = t1 + out + offset / 10;
          return { t1, t2, t3: t2 + hold, t4: t1 + out + hold + back };
        });
        const at = Math.max(...made.map(({ t4 }) => t4));
        const ns = (ms: number) => BigInt(Math.round(ms * 1e6));
        const proved = intersect(
          made.map(({ t1, t2, t3, t4 }) => ({ t1: ns(t1), t2: ns(t2), t3: ns(t3), t4: ns(t4) })),
          100e-6,
        );
        const ours = intersectOfPage(made, at, 0.1);
        // The page states all for the end, until when what is empty may have widened.
        const widest = 2 * MAX_DRIFT * (at - Math.min(...made.map(({ t1 }) => t1))) + 1e-5;
        if (proved === null) return ours === null || ours.upper - ours.lower < widest;
        const theirs = extrapolate(proved, ns(at));
        if (ours === null) return Number(theirs.upper - theirs.lower) / 1e6 < 1e-5;
        return Math.abs(ours.lower - Number(theirs.lower) / 1e6) < 1e-5 &&
          Math.abs(ours.upper - Number(theirs.upper) / 1e6) < 1e-5;
      }),
      { seed, numRuns: 1000 },
    );
  });

  for (
    const [offset, error, expected] of [
      [1301.2, 4.1, "Your clock is 1.3012 s slow, ± 4.1 ms."],
      [-1301.24, 40, "Your clock is 1.301 s fast, ± 41 ms."],
      [-0.4, 0.0123, "Your clock is 400 µs fast, ± 13 µs."],
      [0.2, 0.3, "Your clock agrees with the server's: no difference can be seen, ± 300 µs."],
      [0, 0, "Your clock agrees with the server's: no difference can be seen, ± 0.0 µs."],
      [90_061_000, 5, "Your clock is 1 d 1 h 1 min 1.0000 s slow, ± 5.0 ms."],
      [-125_000, 1.91, "Your clock is 2 min 5.0000 s fast, ± 2.0 ms."],
      [59_999.97, 1, "Your clock is 1 min 0.0000 s slow, ± 1.1 ms."],
      [999.996, 0.1, "Your clock is 1.00000 s slow, ± 110 µs."],
      [72_000_000, 30_000, "Your clock is 20 h 0 min 0 s slow, ± 30 s."],
    ] as const
  ) {
    it(`says of ${offset} ms ± ${error} ms: ${expected}`, () => {
      assertEquals(verdict(offset, error).replaceAll("\u00a0", " "), expected);
    });
  }

  it("shows an offset and a bound that hold, whatever they are rounded to", () => {
    const magnitude = (least: number, most: number) =>
      fc.double({ min: least, max: most, noNaN: true }).map((power) => 10 ** power);
    const lengths: Record<string, number> = {
      "µs": 1e-3,
      ms: 1,
      s: 1e3,
      min: 6e4,
      h: 36e5,
      d: 864e5,
    };
    const milliseconds = (text: string) =>
      text.replace("± ", "").replaceAll("\u00a0", " ").split(" ").reduce(
        (sum, word, i, words) => i % 2 === 0 ? sum + Number(word) * lengths[words[i + 1]!]! : sum,
        0,
      );
    fc.assert(
      fc.property(magnitude(-3, 11), magnitude(-2, 5), fc.boolean(), (size, error, fast) => {
        const { sign, size: text, bound } = shown(fast ? -size : size, error);
        const said = milliseconds(text);
        assert(said === 0 || sign === (fast ? "−" : "+"));
        const most = milliseconds(bound.replaceAll("±\u00a0", ""));
        assert(most < 1.2 * error + 0.001, `${bound} for ${error} ms`);
        return Math.abs(said - size) + error <= most * (1 + 1e-9) + size * 1e-14;
      }),
      { seed, numRuns: 2000 },
    );
  });
});

describe("Counters", () => {
  it("sorts replies by how long they took, and never counts below zero", () => {
    const counters = new Counters();
    for (const held of [-5n, 0n, 1000n, 1001n, 2_000_000_000n]) counters.reply("tcp", held);
    const { tcp, udp } = counters.totals;
    assertEquals([tcp.replies, udp.replies, tcp.heldNs], [5, 0, 2_000_002_001]);
    const expected = HOLD_BOUNDS_NS.map(() => 0);
    assertEquals(tcp.holds, [3, 1, ...expected.slice(2), 1]);
  });

  it("tells what has grown since the last look", () => {
    const counters = new Counters();
    counters.refuse("udp", "rate");
    counters.unstamped("tcp");
    assertEquals(counters.increases(), [
      { carrier: "tcp", unstamped: 1, refusals: [] },
      { carrier: "udp", unstamped: 0, refusals: [["rate", 1]] },
    ]);
    counters.connect();
    counters.connect();
    counters.disconnect();
    assert(
      counters.increases().every(({ unstamped, refusals }) => unstamped + refusals.length === 0),
    );
    const { connections, open, udp } = counters.totals;
    assertEquals([connections, open, udp.refusals.rate], [2, 1, 1]);
  });
});

describe("exposition()", () => {
  it("writes labels such that they can be read back", () => {
    const samples = [{ labels: { a: 'x"\\\n' }, value: 1.5 }, { value: Infinity }];
    assertEquals(
      exposition([{ name: "n", type: "gauge", help: "Help.", samples }, {
        name: "empty",
        type: "counter",
        help: "",
        samples: [],
      }]),
      '# HELP n Help.\n# TYPE n gauge\nn{a="x\\"\\\\\\n"} 1.5\nn +Inf\n',
    );
  });

  it("adds up a histogram's buckets", () => {
    const values = buckets({}, [0.1, 1], [2, 0, 3], 9).map((
      { suffix, labels, value },
    ) => [suffix, labels!.le, value]);
    assertEquals(values, [
      ["_bucket", "0.1", 2],
      ["_bucket", "1", 2],
      ["_bucket", "+Inf", 5],
      ["_sum", undefined, 9],
      ["_count", undefined, 5],
    ]);
  });
});

Deno.test("HTTP gives one response in a turn of the event loop, however many are asked for", async () => {
  const turns: number[] = [0];
  let counting = true;
  const turn = () => {
    turns.push(0);
    if (counting) setImmediate(turn);
  };
  const asked = 20;
  const requests = Array.from({ length: 5 }, () => {
    const bytes = bytesOf(GET.repeat(asked));
    let at = 0;
    let closed = () => {};
    const connection: Connection = {
      remote: { hostname: "127.0.0.1", port: 1 },
      read: async (into) => {
        const piece = bytes.subarray(at, at += Math.min(into.length, bytes.length - at));
        into.set(piece);
        return piece.length > 0 ? await Promise.resolve(piece.length) : null;
      },
      write: (bytes) => Promise.resolve(bytes.length),
      close: () => closed(),
    };
    return { connection, over: new Promise<void>((resolve) => closed = resolve) };
  });
  const coming = requests.map(({ connection }) => connection);
  const { promise: ended, resolve: end } = Promise.withResolvers<null>();
  const listener: Listener = {
    transport: "tcp",
    address: { hostname: "127.0.0.1", port: 1 },
    accept: () => coming.length > 0 ? Promise.resolve(coming.shift()!) : ended,
    close: () => end(null),
  };
  const timers: Timers = { after: () => () => {} };
  setImmediate(turn);
  const server = new HttpServer([listener], {
    admission: new Admission({ rate: 0 }),
    realtime: () => 0n,
    timers,
    names: new Set(["localhost"]),
    respond: () => {
      turns[turns.length - 1]!++;
      return { status: 200, type: "text/plain", body: "" };
    },
  });
  await Promise.all(requests.map(({ over }) => over));
  counting = false;
  server.close();
  assertEquals(turns.reduce((a, b) => a + b), requests.length * asked);
  // Two may fall between two of the test's own turns.
  assert(Math.max(...turns) <= 2, `${turns}`);
});

describe("Site", () => {
  const make = () => {
    const world = new World(1);
    const { clock } = world.host("server");
    const counters = new Counters();
    const address = { hostname: "127.0.0.1", port: 1 };
    const site = new Site({
      counters,
      clock,
      endpoints: [{ transport: "tcp", address, stamped: true }],
      stratum: undefined,
      started: { monotonic: clock.monotonic(), realtime: clock.realtime() },
    });
    const health = () => {
      const { status, body } = site.respond("/healthz", 0n);
      return `${status} ${body.trim()}`;
    };
    return { world, counters, site, health };
  };

  it("is well as long as the server does not say otherwise", () => {
    assertEquals(make().health(), "200 ok");
  });

  it("is not well if the server says so", () => {
    const { site, health } = make();
    site.trouble = "connections cannot be accepted: Too many open files";
    assertEquals(health(), `503 ${site.trouble}`);
    assertEquals(JSON.parse(site.respond("/status", 0n).body).trouble, site.trouble);
    assertMatch(site.respond("/metrics", 0n).body, /^tsync_healthy 0$/m);
  });

  it("remembers ten minutes, as rates", async () => {
    const { world, counters, site } = make();
    const history = () => JSON.parse(site.respond("/status", 0n).body).history;
    assertEquals(history(), { step: 2, replies: [], connections: [], refusals: {} });
    for (let i = 0; i < 400; i++) {
      await world.sleep(2);
      for (let n = 0; n < i; n++) counters.reply("tcp", 1n);
      if (i === 398) counters.refuse("udp", "rate");
      if (i === 399) counters.connect();
      site.sample();
    }
    const { replies, connections, refusals } = history();
    assertEquals([replies.length, connections.length], [300, 300]);
    assertEquals(replies.slice(-2), [199, 199.5]);
    assertEquals(connections.slice(-2), [0, 1]);
    assertEquals(Object.keys(refusals), ["rate"]);
    assertEquals(refusals.rate.slice(-2), [0.5, 0]);
  });

  it("states T2 as it was told, and T3 as late as it can", async () => {
    const { world, site } = make();
    await world.sleep(1);
    const { receive, transmit } = JSON.parse(site.respond("/time", 5n).body);
    assertEquals(receive, "5");
    assertEquals(BigInt(transmit), world.hosts.get("server")!.clock.realtime());
  });
});

/** A server of HTTP in virtual time, and a client's connection to it. */
function simulated(rate?: number) {
  const world = new World(1);
  const host = world.host("server");
  const hosts = ["client", "other", "third"].map((name) => world.host(name));
  const listener = host.network.listen({ hostname: "server", port: 80 });
  const server = new HttpServer([listener], {
    admission: new Admission({ rate }),
    realtime: () => host.clock.realtime(),
    timers: host.timers,
    names: new Set(["localhost"]),
    respond: () => ({ status: 200, type: "text/plain", body: "yes\n" }),
  });
  const open = (from: Host = hosts[0]!) =>
    world.run(
      from.network.connect({ hostname: "server", port: 80 }, new AbortController().signal),
    );
  const send = (connection: Connection, text: string) => world.run(connection.write(bytesOf(text)));
  /** What comes until the end of the connection. */
  const rest = async (connection: Connection) => {
    let text = "";
    const bytes = new Uint8Array(1000);
    for (;;) {
      const count = await world.run(connection.read(bytes)).catch(() => null);
      if (count === null) return text;
      text += textOf(bytes.subarray(0, count));
    }
  };
  const receive = async (connection: Connection) => {
    const bytes = new Uint8Array(1000);
    return textOf(bytes.subarray(0, (await world.run(connection.read(bytes)))!));
  };
  return { world, hosts, server, open, send, rest, receive };
}

Deno.test("HTTP: a head that is not finished ends after ten seconds, silence after sixty", async () => {
  const { world, server, open, send, rest } = simulated();
  const connection = await open();
  await send(connection, "GET /");
  await rest(connection);
  assert(world.now >= 9e9 && world.now < 13e9, `${world.now / 1e9} s`);
  const start = world.now;
  await rest(await open());
  const silent = (world.now - start) / 1e9;
  assert(silent >= 59 && silent < 63, `${silent} s`);
  server.close();
});

Deno.test("HTTP: one request after another is answered, however they come", async () => {
  const { server, open, send, rest } = simulated();
  const connection = await open();
  await send(connection, `${GET}${GET}GET /c HTT`);
  await send(connection, `P/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n${GET}`);
  assertEquals((await rest(connection)).match(/200 OK/g)?.length, 3);
  server.close();
});

Deno.test("HTTP: what is no request, too long or too much is told so, and is the last", async () => {
  const { server, open, send, rest } = simulated();
  for (
    const [text, status] of [
      ["\x16\x03\x01\r\n\r\n", 400],
      [`GET /${"x".repeat(MAX_HEAD)}`, 431],
      ["POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody", 405],
      ["DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405],
      ["HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405],
      ["HEAD / HTTP/1.1\r\nHost: elsewhere\r\n\r\n", 421],
    ] as const
  ) {
    const connection = await open();
    await send(connection, text);
    const response = await rest(connection);
    assertMatch(response, new RegExp(`^HTTP/1.1 ${status} .*\r\n`));
    assertMatch(response, /\r\nconnection: close\r\n/);
    if (text.startsWith("HEAD")) assertMatch(response, /content-length: 0\r\n[^]*\r\n\r\n$/);
  }
  server.close();
});

Deno.test("HTTP: lines may end without a carriage return, and empty ones come first", async () => {
  const { server, open, send, rest } = simulated();
  const connection = await open();
  await send(
    connection,
    "\r\n\nGET / HTTP/1.1\nHost: localhost\n\n" +
      "GET / HTTP/1.1\r\nHost: localhost\n\r\nGET / HTTP/1.0\n\n",
  );
  assertEquals((await rest(connection)).match(/200 OK/g)?.length, 3);
  server.close();
});

Deno.test("HTTP: empty lines without end are no request", async () => {
  const { server, open, send, receive } = simulated();
  const connection = await open();
  await send(connection, "\r\n".repeat(10));
  assertMatch(await receive(connection), /^HTTP\/1.1 400 /);
  server.close();
});

Deno.test("HTTP: what is no request counts towards --rate too", async () => {
  const { server, open, send, receive } = simulated(1);
  const statuses: string[] = [];
  for (let i = 0; i < 6; i++) {
    const connection = await open();
    await send(connection, "nonsense\r\n\r\n");
    statuses.push((await receive(connection)).slice(9, 12));
    connection.close();
  }
  assertEquals(statuses, ["400", "400", "400", "400", "429", "429"]);
  server.close();
});

Deno.test("HTTP: connections that are lost before they are accepted hold up no others", async () => {
  const host = new World(1).host("server");
  let served = 0;
  const { promise, resolve } = Promise.withResolvers<void>();
  const listener: Listener = {
    transport: "tcp",
    address: { hostname: "server", port: 80 },
    accept() {
      if (++served <= 1000) return Promise.reject(new Deno.errors.NotConnected());
      resolve();
      return Promise.resolve(null);
    },
    close() {},
  };
  const timers: Timers = {
    after: (seconds) => {
      assert(seconds >= 1, "it pauses");
      return () => {};
    },
  };
  const server = new HttpServer([listener], {
    admission: new Admission(),
    realtime: () => host.clock.realtime(),
    timers,
    names: new Set(),
    respond: () => ({ status: 200, type: "text/plain", body: "" }),
  });
  await promise;
  server.close();
});

Deno.test("parseHead() is done with heads that are made to be slow", () => {
  // A pattern that tries all ways took 60 ms for each: two minutes in all.
  const heads = [
    `GET / HTTP/1.1\r\na:${" ".repeat(8000)}\r\u0085x`,
    `${"A".repeat(8000)}\n`,
    `GET / HTTP/1.1\r\nHost:${"a.".repeat(4000)}:`,
    `GET / HTTP/1.1${"\r\na:".repeat(2000)}`,
  ];
  for (const head of heads) for (let i = 0; i < 2000; i++) parseHead(head);
});

Deno.test("HTTP: who asks more often than --rate allows is told so, and disconnected", async () => {
  const { server, open, send, rest } = simulated(2);
  const connection = await open();
  // Four seconds' worth may come at once.
  await send(connection, GET.repeat(20));
  assertEquals(statusesOf(await rest(connection)), [...Array(8).fill(200), 429]);
  server.close();
});

Deno.test("HTTP: of too many connections the longest inactive goes, whatever it sends", async () => {
  const { world, hosts, server, open, send, rest, receive } = simulated();
  const asks = async (connection: Connection) => {
    await send(connection, GET);
    assertMatch(await receive(connection), /^HTTP\/1.1 200/);
  };
  const [first, second, third] = hosts as [Host, Host, Host];
  const connections: Connection[] = [];
  for (let i = 0; i < MAX_CONNECTIONS_PER_ADDRESS; i++) {
    connections.push(await open(first));
    await send(connections[i]!, START);
  }
  // All have sent half a request. The first has an answer since, the second more of its half.
  await send(connections[0]!, "\r\n");
  await receive(connections[0]!);
  await send(connections[1]!, "A: b\r\n");
  await asks(await open(first));
  await asks(connections[0]!);
  assertEquals(await rest(connections[1]!), "");
  // One of another address, older than most of the rest, stays: it is alone.
  const alone = await open(third);
  for (let i = MAX_CONNECTIONS_PER_ADDRESS + 1; i < MAX_CONNECTIONS; i++) await open(second);
  for (let i = 0; i < 100; i++) await open(i % 2 === 0 ? first : second);
  await asks(alone);
  assertEquals(await rest(connections[0]!), "");
  assert(world.now < 5e9, "not for having taken too long");
  server.close();
});

for (const program of programs()) testProgram(program);

function testProgram(program: Program): void {
  const test = (name: string, body: () => Promise<void>) =>
    Deno.test(`${program.name}: ${name}`, body);
  const LOOPBACK = ["--host", "127.0.0.1", "--port", "0", "--http", "0"];
  const start = async (...args: string[]) => {
    const server = await ServeProcess.start(program, [...LOOPBACK, ...args]);
    const addresses: string[] = [];
    const transports = args.includes("--udp-port") ? 2 : 1;
    for (let i = 0; i < transports; i++) addresses.push(await server.nextAddress());
    const address = addresses.at(-1)!;
    return { server, address, url: `http://${address}` };
  };
  const text = async (url: string) => (await fetch(url)).text();

  test("--http shows what was counted", async () => {
    const { server, url } = await start("--udp-port", "0");
    await using _ = server;
    const before = await text(`${url}/metrics`);
    assertMatch(before, /^tsync_replies_total\{transport="tcp"\} 0$/m);
    const asking = await connect(server);
    for (let i = 0; i < 17; i++) await asking.exchange();
    asking.close();
    const client = await connect(server);
    await client.write(bytesOf(GET));
    assertEquals(await client.tcp.read(new Uint8Array(1)).catch(() => null), null);
    client.close();
    const held = await connect(server);
    await held.exchange();
    let metrics = "";
    const value = (name: string) => {
      const line = metrics.split("\n").find((line) => line.startsWith(`${name} `));
      return Number(line!.slice(name.length + 1));
    };
    // A reply is counted once it is written, a connection that goes once it has: soon.
    do metrics = await text(`${url}/metrics`); while (
      value('tsync_replies_total{transport="tcp"}') < 18 ||
      value('tsync_connections{transport="tcp"}') > 1
    );
    assertEquals(value('tsync_replies_total{transport="tcp"}'), 18);
    assertEquals(value('tsync_refusals_total{transport="tcp",reason="version"}'), 1);
    assertEquals(value('tsync_requests_total{transport="tcp"}'), 19);
    assertEquals(value('tsync_connections_accepted_total{transport="tcp"}'), 3);
    assertEquals(value('tsync_connections{transport="tcp"}'), 1);
    assertEquals(value('tsync_reply_time_seconds_count{transport="tcp"}'), 18);
    const spent = value('tsync_reply_time_seconds_sum{transport="tcp"}');
    assert(spent > 0 && spent < 18, `${spent} s`);
    assert(value("process_resident_memory_bytes") > 1e7);
    assert(value("process_cpu_seconds_total") > 0);
    assertEquals(value("tsync_healthy"), 1);
    held.close();
    const status = JSON.parse(await text(`${url}/status`));
    assertEquals(status.version, config.version);
    assertEquals(status.replies, 18);
    assertEquals(await text(`${url}/healthz`), "ok\n");
    const { receive, transmit } = JSON.parse(await text(`${url}/time`));
    assert(BigInt(receive) <= BigInt(transmit));
    const { code, log } = await server.stop();
    assertEquals(code, 0);
    assertEquals((log.at(-1) as Record<string, unknown>).replies, 18);
  });

  test("--http says what it is not asked for, and what it will not do", async () => {
    const { server, url } = await start();
    await using _ = server;
    const status = async (path: string, method = "GET", body?: string) => {
      const response = await fetch(`${url}${path}`, { method, ...body && { body } });
      await response.body?.cancel();
      return response.status;
    };
    assertEquals(await status("/nothing"), 404);
    assertEquals(await status("/favicon.ico"), 404);
    for (const method of ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"]) {
      assertEquals(await status("/", method), 405, method);
    }
    assertEquals(await status("/metrics", "POST", "x".repeat(60_000)), 405);
    const response = await fetch(url);
    assertMatch(response.headers.get("content-security-policy")!, /^default-src 'none'; /);
    assertMatch(await response.text(), /^<!DOCTYPE html>/i);
  });

  test("--http leaves time alone, whatever it is sent", async () => {
    const limited: Program = {
      ...program,
      executable: "sh",
      args: ["-c", 'ulimit -n 128; exec "$0" "$@"', program.executable, ...program.args],
    };
    await using server = await ServeProcess.start(limited, LOOPBACK);
    const port = Number((await server.nextAddress()).split(":").at(-1));
    const clients: Client[] = [];
    for (let i = 0; i < 300; i++) clients.push(await connect({ port }));
    const junk = bytesOf("GET /" + "x".repeat(100_000));
    const sent = clients.map((client, i) =>
      client.write(
        i % 3 === 0 ? bytesOf("GET / HTTP/1.1\r\nHo") : i % 3 === 1 ? junk : junk.slice(0, 3),
      )
        .catch(() => {}) // It was refused.
    );
    const { code, stdout } = await run(program, "sync", server.address, "--json");
    assertEquals(code, 0);
    const { offset, error_bound } = JSON.parse(stdout);
    assert(Math.abs(offset) <= error_bound);
    for (const client of clients) client.close();
    await Promise.all(sent);
    // And there is room again, for those who ask.
    while (await text(`http://127.0.0.1:${port}/healthz`).catch(() => "") !== "ok\n");
    assertEquals((await server.stop()).code, 0);
  });

  for (const half of ["", "GET /healthz HTTP/1.1\r\nHo"]) {
    test(`/healthz answers whoever holds 64 connections, with "${half}" sent`, async () => {
      if (Deno.build.os !== "linux") return console.log("127.0.0.2 is Linux's: not tried");
      const { server, address } = await start();
      await using _ = server;
      const port = Number(address.split(":").at(-1));
      const sockets: Socket[] = [];
      const open = async (localAddress: string, text = "") => {
        const socket = createConnection({ host: "127.0.0.1", port, localAddress });
        sockets.push(socket);
        await once(socket, "connect");
        socket.on("error", () => {}); // Closed with bytes unread, it is reset.
        if (text !== "") socket.write(text);
        return socket;
      };
      /** Is it answered, rather than closed? */
      const answers = async (socket: Socket, text: string) => {
        if (socket.destroyed) return false;
        const { promise, resolve } = Promise.withResolvers<string>();
        socket.once("data", (bytes) => resolve(String(bytes))).once("close", () => resolve(""));
        socket.write(text);
        return /^HTTP\/1\.1 200 [^]*ok\n$/.test(await promise);
      };
      const held: Socket[] = [];
      for (const from of ["127.0.0.1", "127.0.0.2"]) {
        for (let i = 0; i < 32; i++) held.push(await open(from, half));
      }
      for (const from of ["127.0.0.1", "127.0.0.2", "127.0.0.3"]) {
        assert(await answers(await open(from), GET), from);
      }
      const others = await Promise.all(Array.from({ length: 8 }, () => open("127.0.0.3")));
      for (const socket of others) assert(await answers(socket, GET));
      const kept = await Promise.all(held.map((socket) => answers(socket, GET.slice(half.length))));
      const closed = [...kept.keys()].filter((i) => !kept[i]);
      // The longest inactive of each address, and no more than had to.
      assertEquals(closed, [0, 1, 2, 3, 4, 5, 32, 33, 34, 35, 36]);
      for (const socket of sockets) socket.destroy();
      assertEquals((await server.stop()).code, 0);
    });
  }

  test("--http answers by its addresses and names, and by no other", async () => {
    const { server, address } = await start("--http-host", "Time.Example.", "--http-host", "b");
    await using _ = server;
    const port = Number(address.split(":").at(-1));
    const name = Deno.hostname();
    const statuses: [string, number[]][] = [];
    const expected: typeof statuses = [
      ...[
        "127.0.0.1",
        "127.0.0.1:1",
        "192.0.2.1",
        "[::1]:80",
        "[::1%25lo]",
        "LocalHost",
        "localhost.",
      ]
        .concat("time.example", "TIME.EXAMPLE.:443", "b")
        .map((host): [string, number[]] => [`Host: ${host}`, [200]]),
      ...["evil.example", "localhost.evil.example", "127.1", "0x7f000001", "2130706433"]
        .concat("127.0.0.1.evil.example", "a.localhost", `x${name}`)
        .map((host): [string, number[]] => [`Host: ${host}`, [421]]),
      ...["", "a b", "b, b", "b@b", "b/", "::1", "[::1", "b\r\nHost: b", "\x00"]
        .map((host): [string, number[]] => [`Host: ${host}`, [400]]),
      ["A: b", [400]],
    ];
    for (const [header] of expected) {
      statuses.push([
        header,
        statusesOf(await sent(port, `GET /status HTTP/1.1\r\n${header}\r\n\r\n`)),
      ]);
    }
    assertEquals(statuses, expected);
    const absolute = (host: string) =>
      sent(port, `GET http://${host}/status HTTP/1.1\r\nHost: localhost\r\n\r\n`);
    assertEquals(statusesOf(await absolute("b:80")), [200]);
    const response = await absolute("evil.example");
    assertMatch(response, /^HTTP\/1\.1 421 Misdirected Request\r\n/);
    assertMatch(
      response,
      /\r\n\r\nthis server does not answer to the name evil\.example: use its address, or add the name to its HTTP hosts\n$/,
    );
    assertEquals(statusesOf(await sent(port, "GET / HTTP/1.0\r\n\r\n")), [200]);
  });

  test("--http takes nothing for a request that may be the body of another", async () => {
    const { server, address } = await start();
    await using _ = server;
    const port = Number(address.split(":").at(-1));
    for (
      const headers of [
        [`Content-Length: ${GET.length}`, "Content-Length: 0"],
        ["Content-Length: 0", `Content-Length: ${GET.length}`],
        ["Content-Length: 0", "Content-Length: 0"],
        ["Content-Length: 0, 0"],
        ["Content-Length: +0"],
        ["Content-Length:"],
        ["Content-Length: 0", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 0"],
        ["Connection: close", "Connection: keep-alive"],
        ["Connection: keep-alive", "Connection: close"],
        ["Connection: close, keep-alive"],
        ["Content-Length : 0"],
        [" Content-Length: 0"],
      ]
    ) {
      const response = await sent(port, `${START}${headers.join("\r\n")}\r\n\r\n${GET}`);
      assertEquals(statusesOf(response), [400], headers.join(", "));
      assertMatch(response, /\r\nconnection: close\r\n/);
    }
    for (
      const last of [
        `Content-Length: ${GET.length}`,
        "Transfer-Encoding: chunked",
        "Connection: TE\r\nConnection:\tclose",
      ]
    ) assertEquals(statusesOf(await sent(port, `${START}${last}\r\n\r\n${GET}`)), [200], last);
  });

  test("/healthz says that no connection can be accepted", async () => {
    const limited: Program = {
      ...program,
      executable: "sh",
      args: ["-c", 'ulimit -n 64; exec "$0" "$@"', program.executable, ...program.args],
    };
    await using server = await ServeProcess.start(limited, [...LOOPBACK, "--rate", "0"]);
    const port = Number((await server.nextAddress()).split(":").at(-1));
    // Asked on a connection that there is already: there are no descriptors for another.
    const page = await connect({ port });
    const health = async () => {
      await page.write(bytesOf(GET));
      const bytes = new Uint8Array(1000);
      return textOf(bytes.subarray(0, (await page.tcp.read(bytes))!));
    };
    assertMatch(await health(), /^HTTP\/1.1 200/);
    const clients = await Promise.all(Array.from({ length: 100 }, () => connect(server)));
    let response = await health();
    while (!response.startsWith("HTTP/1.1 503")) response = await health();
    assertMatch(response, /connections cannot be accepted: Too many open files\n$/);
    for (const client of clients) client.close();
    while (!response.startsWith("HTTP/1.1 200")) response = await health();
    page.close();
    assertEquals((await server.stop()).code, 0);
  });

  test("promtool has nothing to say of /metrics, nor of the alerts", async () => {
    const { server, url } = await start("--udp-port", "0");
    await using _ = server;
    let promtool: Deno.ChildProcess;
    try {
      promtool = new Deno.Command("promtool", {
        args: ["check", "metrics"],
        stdin: "piped",
        stdout: "piped",
        stderr: "piped",
      }).spawn();
    } catch {
      return console.log("promtool is not here: not tried");
    }
    const input = promtool.stdin.getWriter();
    await input.write(bytesOf(await text(`${url}/metrics`)));
    await input.close();
    const { code, stdout, stderr } = await promtool.output();
    assertEquals([code, textOf(stdout), textOf(stderr)], [0, "", ""]);
    const rules = await new Deno.Command("promtool", {
      args: ["check", "rules", "docs/alerts.yml"],
    }).output();
    assertEquals(rules.code, 0, textOf(rules.stderr));
  });
}

/** What comes back, until the end, from a port of HTTP that is sent something and no more. */
async function sent(port: number, text: string): Promise<string> {
  const client = await connect({ port });
  await client.write(Uint8Array.from(text, (character) => character.charCodeAt(0)));
  await client.tcp.closeWrite();
  return await new Response(client.tcp.readable).text();
}

Deno.test("--http answers by the name that it listens on", async () => {
  const name = Deno.hostname();
  const args = ["--host", "127.0.0.1", "--port", "0", "--http"];
  const known = await lookup(name).then(() => !/^[\d.]+$|:/.test(name), () => false);
  if (!known) return console.log(`${name} is no name with an address: not tried`);
  await using server = await ServeProcess.start(SOURCE, [...args, `${name}:0`]);
  const { port } = new URL(`http://${await server.nextAddress()}`);
  const response = await fetch(`http://${name}:${port}/healthz`);
  assertEquals([response.status, await response.text()], [200, "ok\n"]);
});

Deno.test("httpHosts are names of hosts", async () => {
  for (const name of ["", "a b", "http://a/"]) {
    await assertRejects(
      () => serve({ httpHosts: [name] }),
      SyntaxError,
      "httpHosts must be host names",
    );
  }
});

Deno.test("--http is an error where it cannot be had, and nothing listens then", async () => {
  const taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = taken.addr;
  const args = ["serve", "--host", "127.0.0.1", "--port", "0", "--http"];
  const { code, stderr } = await run(SOURCE, ...args, String(port));
  taken.close();
  assertEquals(code, 1);
  assertEquals(
    stderr,
    `tsync: cannot listen on 127.0.0.1:${port}: the address is in use; stop the program that uses ` +
      "it, or choose another with --http\n",
  );
  const bad = await run(SOURCE, ...args, "host");
  assertEquals(bad.code, 2);
  assertMatch(bad.stderr, /^tsync: --http must be PORT, ADDR:PORT or \[IPv6\]:PORT, .*"host"\n/);
});

Deno.test("with TLS the counts are TLS's, and HTTP stays HTTP", async () => {
  await using server = await ServeProcess.start(SOURCE, [
    ...["--host", "127.0.0.1", "--port", "0", "--http", "localhost:0"],
    ...[
      "--tls-cert",
      "tests/fixtures/tls/server.pem",
      "--tls-key",
      "tests/fixtures/tls/server.key",
    ],
  ]);
  const address = await server.nextAddress();
  const ca = "tests/fixtures/tls/authority.pem";
  const { code } = await run(SOURCE, "sync", `tls://${server.address}`, "--ca", ca, "--quiet");
  assertEquals(code, 0);
  const metrics = await (await fetch(`http://${address}/metrics`)).text();
  const [, replies] = metrics.match(/^tsync_replies_total\{transport="tls"\} (\d+)$/m)!;
  assert(Number(replies) >= 17, "more, if the machine is slow");
  assertMatch(metrics, /^tsync_refusals_total\{transport="tls",reason="tls"\} 0$/m);
  assert(!metrics.includes('transport="tcp"'));
});

/** All that the documentation names, and all that there is. */
Deno.test("the documentation's metrics, alerts and dashboard name metrics that exist", async () => {
  await using server = await ServeProcess.start(SOURCE, [
    ...["--host", "127.0.0.1", "--port", "0", "--http", "0"],
  ]);
  const there = async (url: string) => {
    const metrics = await (await fetch(`${url}/metrics`)).text();
    return new Set([...metrics.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name!));
  };
  const named = async (file: string) => {
    const text = await Deno.readTextFile(`docs/${file}`);
    const names = text.matchAll(/\b(?:tsync|process)_\w+?(?=_bucket\b|\b)/g);
    return new Set([...names].map(([name]) => name));
  };
  const ofServers = await there(`http://${await server.nextAddress()}`);
  assertEquals(await named("status.md"), ofServers);

  const watch = new Watch({ servers: [server.address] });
  let url = "";
  const site = await openSite(
    { hostname: "127.0.0.1", port: 0 },
    { httpHosts: [], maxOffset: undefined },
    watch.clock,
    (sentence) => url = sentence.replace("listening on http ", "http://"),
  );
  let ofClients = new Set<string>();
  for await (const update of watch) {
    site.update(update);
    ofClients = await there(url);
    break;
  }
  site.close();
  assertEquals(await named("watch.md"), ofClients);
  const all = ofServers.union(ofClients);
  for (const file of ["alerts.yml", "grafana.json"]) {
    for (const name of await named(file)) assert(all.has(name), `${file}: ${name}`);
  }
});
