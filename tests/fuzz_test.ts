/**
 * What nobody means to send: random bytes, what other protocols open with, and
 * requests gone wrong. The server's own code answers over connections made of
 * arrays, and each answer is compared with what a plain reading of the stream
 * calls for; the real program gets the same openings over real sockets.
 *
 * Replay: FUZZ_SEED=N deno task test --filter fuzz
 *
 * @module
 */

import { systemNetwork } from "../src/net/system.ts";
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { programs, run, ServeProcess } from "../scripts/program.ts";
import { systemClock } from "../src/clock/system_clock.ts";
import { type Connection, type Network, type Refusal, serve } from "../src/mod.ts";
import { decodePacket, encodePacket } from "../src/ntp/packet.ts";
import { judgeReply } from "../src/ntp/validation.ts";
import { REFUSALS } from "../src/serve/counters.ts";
import { concat, CORPUS, requestOf } from "./attackers.ts";
import { GOOD_REPLY } from "./good_reply.ts";
import { StreamServing } from "./simulation/stream_sockets.ts";
import { SLOWNESS } from "./slowness.ts";
import "./libraries.ts";

const seed = Number(Deno.env.get("FUZZ_SEED") ?? Date.now() % 2 ** 31);
console.log(`fuzz: seed ${seed}`);

const STREAMS = Math.ceil(200_000 / SLOWNESS);

/** Something to send, and in what pieces. */
interface Stream {
  readonly bytes: Uint8Array;
  readonly cuts: readonly number[];
  /** Does the connection break in the end, or end? */
  readonly breaks: boolean;
}

const mutation = fc.record({
  at: fc.nat(200),
  change: fc.constantFrom("flip", "insert", "remove", "cut", "repeat"),
  byte: fc.nat(255),
});

function mutate(
  bytes: Uint8Array,
  mutations: readonly { at: number; change: string; byte: number }[],
): Uint8Array {
  let result = [...bytes];
  for (const { at, change, byte } of mutations) {
    const i = result.length === 0 ? 0 : at % result.length;
    if (change === "flip") result[i] = byte;
    else if (change === "insert") result.splice(i, 0, byte);
    else if (change === "remove") result.splice(i, 1 + byte % 8);
    else if (change === "cut") result = result.slice(0, i);
    else result = result.slice(0, 200).concat(result.slice(0, 200));
  }
  return Uint8Array.from(result);
}

const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 150 }),
  fc.tuple(fc.constantFrom(...Object.values(CORPUS)), fc.array(mutation, { maxLength: 3 }))
    .map(([opening, mutations]) => mutate(opening, mutations)),
  // Requests, and somewhere in them something else.
  fc.tuple(fc.integer({ min: 1, max: 5 }), fc.array(mutation, { maxLength: 2 }), fc.bigInt(0n, 9n))
    .map(([count, mutations, nonce]) =>
      mutate(
        concat(Array.from({ length: count }, (_, i) => requestOf(1 + i % 4, nonce))),
        mutations,
      )
    ),
);

/** What a server must make of a stream. */
function expected({ bytes, breaks }: Stream): { replies: Uint8Array[]; refusal: Refusal | null } {
  const replies: Uint8Array[] = [];
  for (let start = 0; start < bytes.length; start += 48) {
    const mode = bytes[start]! & 7;
    const version = bytes[start]! >> 3 & 7;
    if (version < 1 || version > 4) return { replies, refusal: "version" };
    if (mode !== 3) return { replies, refusal: "mode" };
    if (bytes.length - start < 48) return { replies, refusal: breaks ? "reset" : "incomplete" };
    replies.push(bytes.subarray(start, start + 48));
  }
  return { replies, refusal: breaks ? "reset" : null };
}

/** A connection that delivers a stream, and keeps what is written to it. */
class ArrayConnection implements Connection {
  readonly remote = { hostname: "192.0.2.1", port: 5 };
  readonly written: Uint8Array[] = [];
  readonly closed: Promise<void>;
  readonly close: () => void;
  #at = 0;
  #cut = 0;

  constructor(readonly stream: Stream) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    this.close = resolve;
  }

  read(into: Uint8Array): Promise<number | null> {
    const { bytes, cuts, breaks } = this.stream;
    const left = bytes.length - this.#at;
    if (left === 0) {
      return breaks ? Promise.reject(new Error("connection reset")) : Promise.resolve(null);
    }
    const piece = cuts.length === 0 ? left : cuts[this.#cut++ % cuts.length]!;
    const count = Math.min(left, into.length, piece);
    into.set(bytes.subarray(this.#at, this.#at + count));
    this.#at += count;
    return Promise.resolve(count);
  }

  write(bytes: Uint8Array): Promise<number> {
    this.written.push(bytes.slice());
    return Promise.resolve(bytes.length);
  }
}

/** A network on which one server listens and is handed connections. */
class ArrayNetwork {
  #waiting: ((connection: ArrayConnection | null) => void) | null = null;

  readonly network: Network = {
    ...systemNetwork,
    resolve: () => Promise.resolve(["192.0.2.2"]),
    connect: () => Promise.reject(new Error("nobody connects from here")),
    bind: () => null,
    listen: (address) => ({
      transport: "tcp",
      address,
      accept: () => new Promise((resolve) => this.#waiting = resolve),
      close: () => this.#waiting?.(null),
    }),
  };

  async deliver(stream: Stream): Promise<ArrayConnection> {
    const connection = new ArrayConnection(stream);
    while (this.#waiting === null) await Promise.resolve();
    const accept = this.#waiting;
    this.#waiting = null;
    accept(connection);
    await connection.closed;
    return connection;
  }
}

/** A server that is handed connections, and what it has counted. */
interface Target {
  deliver(stream: Stream): Promise<ArrayConnection>;
  refusals(): Record<Refusal, number>;
  connections(): number;
  stop(): Promise<void>;
}

const TARGETS: Readonly<Record<string, () => Promise<Target>>> = {
  "the event loop": async () => {
    const arrays = new ArrayNetwork();
    const server = await serve({ hosts: ["server"], network: arrays.network, rate: 0 });
    return {
      deliver: (stream) => arrays.deliver(stream),
      refusals: () => server.counters.refusals,
      connections: () => server.counters.connections,
      stop: () => server.stop(),
    };
  },
  "the kernel": () => {
    const timers = { after: () => () => {} };
    const server = new StreamServing({ rate: 0 }, systemClock(), timers);
    const refusals = Object.fromEntries(REFUSALS.map((reason) => [reason, 0]));
    return Promise.resolve({
      async deliver(stream) {
        const connection = new ArrayConnection(stream);
        server.sockets.arrive(connection);
        await connection.closed;
        return connection;
      },
      refusals: () => {
        server.count();
        for (const { reason, count } of server.refusals.splice(0)) refusals[reason]! += count;
        return refusals as Record<Refusal, number>;
      },
      connections: () => server.counters.connections,
      stop: () => Promise.resolve(),
    });
  },
};

for (const [name, start] of Object.entries(TARGETS)) {
  Deno.test(`fuzz: ${name} answers what is a request in ${STREAMS} streams, and nothing else`, async () => {
    const target = await start();
    const check = async (stream: Stream) => {
      const before = { ...target.refusals() };
      const { written } = await target.deliver(stream);
      await Promise.resolve();
      const { replies, refusal } = expected(stream);
      assertEquals(written.length, replies.length);
      for (const [i, reply] of written.entries()) {
        assertEquals(reply.length, 48);
        assertEquals(reply[0]! & 0x3f, replies[i]![0]! & 0x38 | 4);
        assertEquals(reply.subarray(24, 32), replies[i]!.subarray(40, 48));
      }
      if (refusal !== null) before[refusal]++;
      assertEquals(target.refusals(), before);
    };
    const honest = { bytes: requestOf(4, 0x0123456789abcdefn), cuts: [], breaks: false };
    const cuts = fc.array(fc.integer({ min: 1, max: 60 }), { maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(bytes, cuts, fc.boolean(), async (bytes, cuts, breaks) => {
        await check({ bytes, cuts, breaks });
        await check(honest);
      }),
      { numRuns: STREAMS, seed },
    );
    assertEquals(target.connections(), 2 * STREAMS);
    await target.stop();
  });
}

Deno.test(`fuzz: no reply of ${STREAMS} is believed that breaks a rule`, () => {
  const nonce = 0x0123456789abcdefn;
  const { origin: _, ...good } = GOOD_REPLY;
  const encoded = encodePacket({ ...good, origin: nonce });
  let believed = 0;
  fc.assert(
    fc.property(fc.array(mutation, { maxLength: 3 }), fc.boolean(), (mutations, whole) => {
      const bytes = new Uint8Array(48);
      bytes.set(mutate(encoded, mutations).subarray(0, 48));
      if (!whole) bytes.set(encoded.subarray(24, 32), 24);
      const packet = decodePacket(bytes);
      const { rejection } = judgeReply(bytes, nonce);
      if (rejection !== null) return;
      believed++;
      assert(packet.mode === 4 && packet.version === 4 && packet.origin === nonce);
      assert(packet.stratum >= 1 && packet.stratum <= 15 && packet.leap !== "unsynchronised");
      assert(packet.receive !== 0n && packet.transmit !== 0n);
      assert(BigInt.asIntN(64, packet.transmit - packet.receive) >= 0n);
      assert(packet.rootDelay / 2 + packet.rootDispersion < 16);
    }),
    { numRuns: STREAMS, seed },
  );
  assert(believed > STREAMS / 10 && believed < STREAMS * 0.9, `${believed} were believed`);
});

for (const program of programs()) {
  for (const tls of program.flags === undefined ? [false, true] : [false]) {
    Deno.test(`${program.name}: fuzz: openings of other protocols ${tls ? "over" : "without"} TLS`, async () => {
      const folder = "tests/fixtures/tls";
      const args = ["--host", "127.0.0.1", "--port", "0"];
      if (tls) args.push("--tls-cert", `${folder}/server.pem`, "--tls-key", `${folder}/server.key`);
      await using server = await ServeProcess.start(program, args);
      const mutated = fc.sample(bytes, { numRuns: 300, seed });
      for (const stream of [...Object.values(CORPUS), ...mutated]) {
        using connection = await Deno.connect({ hostname: "127.0.0.1", port: server.port });
        const received = await converse(connection, stream);
        if (tls) assert(received <= 7, "only an alert comes back");
        else assert(received <= stream.length, `${received} bytes for ${stream.length}`);
      }
      const name = `${tls ? "tls" : "tcp"}://127.0.0.1:${server.port}`;
      const ca = tls ? ["--ca", `${folder}/authority.pem`] : [];
      const { code, stderr } = await run(program, "sync", "--quiet", name, ...ca);
      assertEquals([code, stderr], [0, ""]);
    });
  }
}

/** Sends a stream and closes that direction. @returns How many bytes come back until the end. */
async function converse(connection: Deno.TcpConn, stream: Uint8Array): Promise<number> {
  let received = 0;
  try {
    for (let sent = 0; sent < stream.length;) {
      sent += await connection.write(stream.subarray(sent));
    }
    await connection.closeWrite();
    const into = new Uint8Array(1024);
    for (;;) {
      const count = await connection.read(into);
      if (count === null) return received;
      received += count;
    }
  } catch {
    return received; // It was reset: the server did not want the rest.
  }
}
