/**
 * Things that happen to clocks and networks, each with what must come of it.
 * The product's own `sync()` and `serve()` run in them.
 *
 * @module
 */

import { GOOD_REPLY } from "../good_reply.ts";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { decodeTimex } from "../../src/clock/system_clock.ts";
import { type Fix, serve, sync, type SyncOptions } from "../../src/mod.ts";
import { MessageReader } from "../../src/net/framing.ts";
import { nanoseconds, toTimestamp } from "../../src/ntp/timestamp.ts";
import { encodePacket, encodeReferenceId, OFFSET, viewOf } from "../../src/ntp/packet.ts";
import { constant, type Delay, exponential } from "./random.ts";
import { type ClockOptions, type Host, type Path, trueOffset, World } from "./world.ts";

/** Something that can happen. `run` throws if what comes of it is not what must. */
export interface Scenario {
  readonly name: string;
  run(seed: number): Promise<void>;
}

const both = (delay: Delay): Path => ({ out: delay, back: delay });
const WAN = both(exponential(0.02, 0.005));
const LAN = both(exponential(0.0001, 0.0001));
const YEAR = 31_556_952n * 1_000_000_000n;

/** A client and servers in a world, and what the client finds out. */
class Stage {
  readonly world: World;
  readonly client: Host;
  readonly #stops: (() => Promise<void>)[] = [];

  constructor(seed: number, clock: ClockOptions = {}, epoch?: bigint) {
    this.world = new World(seed, epoch);
    const frequency = 7 * (2 * this.world.random.uniform() - 1);
    this.client = this.world.host("client", { frequency, precision: 50, ...clock });
  }

  /** Adds a host that serves the time. */
  async server(address: string, path: Path = WAN, clock: ClockOptions = {}): Promise<Host> {
    const frequency = 7 * (2 * this.world.random.uniform() - 1);
    const host = this.world.host(address, { frequency, precision: 50, ...clock });
    host.path = path;
    const server = await this.world.run(serve({ hosts: [address], ...host.environment }));
    this.#stops.push(() => server.stop());
    return host;
  }

  /** Seconds from now, while the client measures. */
  after(seconds: number, callback: () => void): void {
    this.world.at(this.world.now + seconds * 1e9, callback);
  }

  /** Has the client take a fix. */
  async sync(servers: readonly string[], options: SyncOptions = {}): Promise<Fix> {
    const fix = await this.world.run(sync({ servers, ...this.client.environment, ...options }));
    // The truth is that of this very moment, so it is noted before time goes on.
    this.#truths = [...this.world.hosts].map(([name, host]) => [
      name,
      trueOffset(host.clock.exact(), this.client.clock.exact()),
    ]);
    for (const stop of this.#stops) await this.world.run(stop());
    return fix;
  }
  #truths: [string, bigint][] = [];

  /** There is a fix, and its bound contains the true offset to a server's clock. */
  assertHolds(fix: Fix, server: string): void {
    const truth = new Map(this.#truths).get(server)!;
    assertEquals(fix.synchronised, true, JSON.stringify(fix.servers));
    const error = Math.abs(Number(nanoseconds(fix.offset!) - truth)) / 1e9;
    assert(error <= fix.errorBound!, `off by ${error} s, bound ${fix.errorBound} s`);
  }

  assertStatuses(fix: Fix, expected: Record<string, string>): void {
    assertEquals(
      Object.fromEntries(fix.servers.map(({ name, status }) => [name, status])),
      expected,
    );
  }
}

/** A fix from one good server, with something happening meanwhile. */
function one(
  name: string,
  settings: {
    readonly path?: Path;
    readonly client?: ClockOptions;
    readonly server?: ClockOptions;
    readonly epoch?: bigint;
    readonly options?: SyncOptions;
    readonly meanwhile?: (stage: Stage, server: Host) => void;
    readonly and?: (fix: Fix, stage: Stage) => void;
  },
): Scenario {
  return {
    name,
    async run(seed) {
      const stage = new Stage(seed, settings.client, settings.epoch);
      const server = await stage.server("server", settings.path, settings.server);
      settings.meanwhile?.(stage, server);
      const fix = await stage.sync(["server"], settings.options);
      stage.assertHolds(fix, "server");
      settings.and?.(fix, stage);
    },
  };
}

/** Five servers, some of which are wrong by a second or more, each in its own way. */
export function five(wrong: number): Scenario {
  return {
    name: `five servers, ${wrong} wrong`,
    async run(seed) {
      const stage = new Stage(seed);
      const names = ["a", "b", "c", "d", "e"];
      const liars = new Set<string>();
      while (liars.size < wrong) liars.add(stage.world.random.pick(names));
      let lie = 0;
      for (const name of names) {
        const offset = liars.has(name) ? 2 * ++lie + stage.world.random.uniform() : 0;
        await stage.server(name, WAN, { offset });
      }
      const fix = await stage.sync(names);
      if (wrong < 3) {
        const good = names.find((name) => !liars.has(name))!;
        // Good servers differ by what their frequencies make of the time since the beginning.
        stage.assertHolds(fix, good);
        const statuses = names.map((
          name,
        ) => [name, liars.has(name) ? "falseticker" : "truechimer"]);
        stage.assertStatuses(fix, Object.fromEntries(statuses));
      } else {
        assertEquals([fix.synchronised, fix.offset, fix.errorBound], [false, null, null]);
        assert(fix.servers.every(({ status }) => status === "falseticker"));
        assert(fix.servers.every(({ figures }) => figures !== null), "who says what is reported");
      }
    },
  };
}

/** A host that answers every request with a packet made for it. */
async function answerWith(host: Host, change: () => Partial<Parameters<typeof encodePacket>[0]>) {
  const listener = host.network.listen({ hostname: host.address, port: 10085 });
  for (let peer = await listener.accept(); peer !== null; peer = await listener.accept()) {
    const request = new Uint8Array(48);
    const reader = new MessageReader(peer, request, host.clock.realtime);
    while (await reader.read()) {
      await peer.write(encodePacket({
        ...GOOD_REPLY,
        origin: viewOf(request).getBigUint64(OFFSET.transmit),
        ...change(),
      }));
    }
  }
}

const ROLLOVER = BigInt(Date.parse("2036-02-07T06:28:16Z")) * 1_000_000n;

/** Everything that is tried. */
export const SCENARIOS: readonly Scenario[] = [
  one("offset of microseconds", { client: { offset: 3e-6 } }),
  one("offset of seconds", { client: { offset: -2.5 } }),
  one("offset of 100 s", { client: { offset: 100 } }),
  one("30 years slow", { client: { offsetNanoseconds: -30n * YEAR - 123n } }),
  one("30 years fast", { client: { offsetNanoseconds: 30n * YEAR + 123n } }),
  one("before the end of the era", { epoch: ROLLOVER - 10_000_000_000n }),
  one("across the end of the era", { epoch: ROLLOVER - 300_000_000n }),
  one("after the end of the era", { epoch: ROLLOVER + 1n }),
  one("client an era behind", { epoch: ROLLOVER + 1n, client: { offset: -60 } }),
  one("client an era ahead", { epoch: ROLLOVER - 30_000_000_000n, client: { offset: 60 } }),
  one("in 2060", { epoch: BigInt(Date.parse("2060-01-01")) * 1_000_000n }),
  one("clocks that wander", { client: { wander: 1e-8 }, server: { wander: 1e-8 } }),
  one("client's clock stepped in mid-burst", {
    meanwhile: (stage) => stage.after(0.2, () => stage.client.clock.step(3600)),
    and: (_, { world }) => assert(world.now > 0.7e9, "the burst was not repeated"),
  }),
  one("server's clock stepped in mid-burst", {
    meanwhile: (stage, server) => stage.after(0.2, () => server.clock.step(-1)),
    and: (_, { world }) => assert(world.now > 0.7e9, "the burst was not repeated"),
  }),
  one("client's clock slewed by 500 ppm", {
    meanwhile: (stage) => stage.after(0.1, () => stage.client.clock.slew(500)),
  }),
  one("laptop suspended in mid-burst", {
    meanwhile: (stage) => stage.after(0.2, () => stage.client.suspend(60)),
    and: (_, { world }) => assert(world.now > 60.5e9, "the burst was not repeated"),
  }),
  one("server stalled in mid-burst", {
    meanwhile: (stage, server) => stage.after(0.2, () => server.stall(3)),
  }),
  one("a path too slow for all samples", {
    path: both(exponential(0.9, 0.1)),
    and: ({ servers }, { world }) => {
      const { length } = servers[0]!.figures!.exchanges;
      assert(length >= 1 && length < 32, `${length} exchanges`);
      assert(world.now <= 5.001e9, "it took longer than the timeout");
    },
  }),
  one("33 % loss", { path: { ...WAN, loss: 0.33 }, options: { timeout: 60 } }),
  one("jitter ten times the delay", { path: both(exponential(0.005, 0.05)) }),
  one("asymmetric jitter", {
    path: { out: exponential(0.02, 0.02), back: exponential(0.02, 0.0002) },
  }),
  one("asymmetric by construction", {
    path: { out: constant(0.001), back: constant(0.039) },
    and: ({ offset, errorBound }) => {
      // The two ways differ by 38 ms, half of which is the error; half of the delay is the bound.
      assert(Math.abs(Math.abs(offset!) - 0.019) < 1e-4, `${offset}`);
      assert(errorBound! >= 0.02 && errorBound! < 0.0201, `${errorBound}`);
    },
  }),
  one("connection broken in mid-burst", {
    meanwhile: (stage, server) => stage.after(0.2, () => server.resetConnections()),
    and: ({ servers }) => assert(servers[0]!.figures!.exchanges.length >= 32),
  }),
  one("server dead in mid-burst", {
    meanwhile: (stage, server) => stage.after(0.2, () => server.dead = true),
    and: ({ servers }, { world }) => {
      assert(servers[0]!.figures!.exchanges.length < 32);
      assert(world.now < 6e9, "it took longer than the timeout");
    },
  }),
  five(0),
  five(1),
  five(2),
  five(3),
  five(4),
  {
    name: "two servers that disagree",
    async run(seed) {
      const stage = new Stage(seed);
      await stage.server("a");
      await stage.server("b", WAN, { offset: 1 });
      const fix = await stage.sync(["a", "b"]);
      assertEquals(fix.synchronised, false);
      stage.assertStatuses(fix, { a: "falseticker", b: "falseticker" });
    },
  },
  {
    name: "one of three servers dead in mid-burst",
    async run(seed) {
      const stage = new Stage(seed);
      await stage.server("a");
      await stage.server("b");
      const dying = await stage.server("c");
      stage.after(0.03, () => dying.dead = true);
      const fix = await stage.sync(["a", "b", "c"]);
      stage.assertHolds(fix, "a");
      stage.assertStatuses(fix, { a: "truechimer", b: "truechimer", c: "unreachable" });
    },
  },
  {
    name: "all servers unreachable",
    async run(seed) {
      const stage = new Stage(seed);
      (await stage.server("a")).dead = true;
      stage.world.host("b");
      stage.client.names.set("nameless", new Promise(() => {}));
      const fix = await stage.sync(["a", "b", "nameless"]);
      assertEquals(fix.synchronised, false);
      assert(fix.servers.every(({ status }) => status === "unreachable"));
      const [a, b, nameless] = fix.servers.map(({ error }) => error!);
      assertEquals(a, "a did not answer within 5 s");
      assertMatch(b!, /^b cannot be reached at b:10085: connection refused/);
      assertEquals(nameless, "nameless could not be looked up within 5 s");
      assert(stage.world.now < 5.1e9, "it took longer than the timeout");
    },
  },
  {
    name: "two of four servers wrong, each in its own way",
    async run(seed) {
      const stage = new Stage(seed);
      for (const [i, name] of ["a", "b", "c", "d"].entries()) {
        await stage.server(name, WAN, { offset: Math.max(0, i - 1) });
      }
      const fix = await stage.sync(["a", "b", "c", "d"]);
      assertEquals(fix.synchronised, false);
    },
  },
  ...["suspended", "stepped"].map((what): Scenario => ({
    name: `fast server's clock or client ${what} while a dead server is waited for`,
    async run(seed) {
      const stage = new Stage(seed);
      const fast = await stage.server("fast", LAN);
      (await stage.server("dead")).dead = true;
      stage.after(2, () => {
        if (what === "suspended") stage.client.suspend(0.005);
        else fast.clock.step(1);
      });
      const fix = await stage.sync(["fast", "dead"]);
      stage.assertHolds(fix, "fast");
      stage.assertStatuses(fix, { fast: "truechimer", dead: "unreachable" });
    },
  })),
  {
    name: "the nearest truechimer's delay is the fix's",
    async run(seed) {
      const stage = new Stage(seed);
      await stage.server("far");
      await stage.server("near", LAN);
      const fix = await stage.sync(["far", "near"]);
      stage.assertHolds(fix, "near");
      assertEquals(fix.delay, fix.servers[1]!.figures!.delay);
      assert(fix.delay! < fix.servers[0]!.figures!.delay);
    },
  },
  {
    name: "another machine answers for the name after the first has died",
    async run(seed) {
      const stage = new Stage(seed);
      const first = await stage.server("192.0.2.1");
      await stage.server("192.0.2.2", WAN, { offset: 0.03 });
      stage.client.names.set("both", ["192.0.2.1", "192.0.2.2"]);
      stage.after(0.2, () => {
        first.resetConnections();
        first.dead = true;
      });
      const fix = await stage.sync(["both"]);
      stage.assertHolds(fix, "192.0.2.2");
      assertEquals(fix.servers[0]!.address, "192.0.2.2:10085");
    },
  },
  {
    name: "a connection breaks, and the name's first address is dead",
    async run(seed) {
      const stage = new Stage(seed);
      stage.world.host("192.0.2.1").dead = true;
      const host = await stage.server("192.0.2.2");
      stage.client.names.set("both", ["192.0.2.1", "192.0.2.2"]);
      stage.after(0.45, () => host.resetConnections());
      const fix = await stage.sync(["both"], { timeout: 0.65 });
      stage.assertHolds(fix, "192.0.2.2");
      const [{ address, status, figures }] = fix.servers as [Fix["servers"][number]];
      assertEquals([address, status], ["192.0.2.2:10085", "truechimer"]);
      assert(figures!.exchanges.length < 32, "it was not cut off while it tried the dead address");
    },
  },
  {
    name: "servers that systemd-timesyncd keeps, and that are still being slewed",
    async run(seed) {
      const stage = new Stage(seed);
      stage.world.host("truth");
      const names = ["a", "b", "c"];
      for (const name of names) {
        // It has told the kernel to add this, and that there is no error.
        const left = 0.4 * stage.world.random.uniform();
        const timex = BigInt64Array.of(0n, nanoseconds(left), 0n, 500n, 0n, 0x2001n);
        await stage.server(name, WAN, { offset: -left, state: decodeTimex(timex, 0) });
      }
      const fix = await stage.sync(names);
      stage.assertHolds(fix, "truth");
      stage.assertStatuses(fix, { a: "truechimer", b: "truechimer", c: "truechimer" });
    },
  },
  {
    name: "a server that takes back what it said",
    async run(seed) {
      const stage = new Stage(seed);
      const host = stage.world.host("server");
      let answers = 0;
      answerWith(host, () => {
        const now = toTimestamp(host.clock.realtime());
        const good = { receive: now, transmit: now };
        return ++answers > 3 ? { ...good, leap: "unsynchronised" } : good;
      });
      const fix = await stage.sync(["server"]);
      assertEquals(fix.servers[0]!.status, "invalid");
      assertEquals(fix.servers[0]!.error, "server is not synchronised itself, and says so");
    },
  },
  {
    name: "a kiss of death",
    async run(seed) {
      const stage = new Stage(seed);
      const host = stage.world.host("server");
      answerWith(host, () => ({ stratum: 0, referenceId: encodeReferenceId("RSTR") }));
      const fix = await stage.sync(["server"]);
      assertEquals(fix.servers[0]!.status, "invalid");
      assertEquals(fix.servers[0]!.error, "server refuses to serve this client (kiss RSTR)");
      assert(stage.world.now < 0.1e9, "it was asked again");
    },
  },
  {
    name: "a name with a dead IPv6 address and a good IPv4 one",
    async run(seed) {
      const stage = new Stage(seed);
      await stage.server("192.0.2.7");
      stage.world.host("2001:db8::7").dead = true;
      stage.client.names.set("both", ["2001:db8::7", "192.0.2.7"]);
      const fix = await stage.sync(["both"]);
      stage.assertHolds(fix, "192.0.2.7");
      assertEquals(fix.servers[0]!.address, "192.0.2.7:10085");
      assert(stage.world.now < 2e9, "the dead address was waited for");
    },
  },
];
