import { systemNetwork } from "../src/net/system.ts";
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import type { Clock } from "../src/clock/clock.ts";
import { systemClock } from "../src/clock/system_clock.ts";
import { type Network, serve, type ServeOptions, sync } from "../src/mod.ts";
import { answering, type Behaviour, FakeServer, units } from "./fake_server.ts";
import "./libraries.ts";

const system = systemClock();

/** The system's clock, off by what can be changed at any moment. */
function adjustable(): Clock & { shift: bigint } {
  const clock = { ...system, shift: 0n, realtime: () => system.realtime() + clock.shift };
  return clock;
}

const loopback = { hosts: ["127.0.0.1"], port: 0 };
const name = ({ addresses: [first] }: Awaited<ReturnType<typeof serve>>) =>
  `127.0.0.1:${first!.port}`;

Deno.test("sync() finds the offset of a clock that is 30 years off, to the bound", async () => {
  const server = await serve(loopback);
  const clock = adjustable();
  clock.shift = -946_684_800_123_456_789n;
  const { offset, errorBound } = await sync({ servers: [name(server)], clock });
  await server.stop();
  assert(Math.abs(offset! - 946_684_800.123456789) <= errorBound!);
  assert(errorBound! < 1);
});

Deno.test("sync() tries again where it was reset before it was accepted", async () => {
  const server = await serve(loopback);
  let attempts = 0;
  const network: Network = {
    ...systemNetwork,
    connect(...args) {
      if (++attempts === 1) throw new Deno.errors.ConnectionReset("connection reset");
      return systemNetwork.connect(...args);
    },
  };
  const { synchronised } = await sync({ servers: [name(server)], network });
  await server.stop();
  assertEquals([synchronised, attempts], [true, 2]);
});

Deno.test("sync() discards a burst during which the local clock is stepped", async () => {
  const server = await serve(loopback);
  const clock = adjustable();
  let samples = 0;
  const { offset, errorBound } = await sync({
    servers: [name(server)],
    clock,
    onProgress: () => {
      if (++samples === 5) clock.shift = 3_000_000_000n;
    },
  });
  await server.stop();
  // More, if the machine is slow.
  assert(samples >= 32, `${samples} samples`);
  assert(server.counters.replies >= 34);
  assert(Math.abs(offset! + 3) <= errorBound!);
});

Deno.test("sync() gives up when the local clock is stepped again and again", async () => {
  const server = await serve(loopback);
  const clock = adjustable();
  const fix = sync({
    servers: [name(server)],
    samples: 1,
    clock,
    onProgress: () => clock.shift += 3_000_000_000n,
  });
  const { synchronised, servers: [only] } = await fix;
  assertEquals([synchronised, only!.status], [false, "invalid"]);
  assertStringIncludes(only!.error!, "the local clock was set, or the machine suspended");
  await server.stop();
});

Deno.test("sync() discards a burst during which the server's clock is stepped", async () => {
  let requests = 0;
  await using server = new FakeServer(answering((_, { receive, transmit }) => {
    const step = ++requests > 5 ? units(2) : 0n;
    return { receive: receive + step, transmit: transmit + step };
  }));
  const { offset, errorBound } = await sync({ servers: [server.address] });
  assert(requests >= 34, "more, if the machine is slow");
  assert(Math.abs(offset! - 2) <= errorBound!);
});

Deno.test("sync() calls a server invalid whose clock is never consistent", async () => {
  let requests = 0;
  await using server = new FakeServer(answering((_, { receive, transmit }) => {
    const step = units(2 * ++requests);
    return { receive: receive + step, transmit: transmit + step };
  }));
  const { synchronised, servers } = await sync({ servers: [server.address] });
  assertEquals(synchronised, false);
  assertEquals(servers[0]!.status, "invalid");
  assertEquals(
    servers[0]!.error,
    `${server.address} contradicts itself: a clock was stepped whenever it was measured`,
  );
});

Deno.test("sync() goes on with a new connection when one breaks, and keeps what it has", async () => {
  let connections = 0;
  const good = answering(() => ({}));
  const breaking: Behaviour = (connection) => {
    if (++connections > 1) return good(connection);
    let replies = 0;
    return answering(() => {
      if (++replies > 10) throw new Error("broken");
      return {};
    })(connection);
  };
  await using server = new FakeServer(breaking);
  const { synchronised, servers } = await sync({ servers: [server.address], samples: 16 });
  assertEquals(synchronised, true);
  assertEquals(connections, 2);
  assertEquals(servers[0]!.figures!.exchanges.length, 16);
});

Deno.test("sync() makes a fix of what it has when the server dies", async () => {
  let replies = 0;
  await using server = new FakeServer(answering(() => {
    if (++replies > 6) throw new Error("dead");
    return {};
  }));
  const { synchronised, servers } = await sync({ servers: [server.address] });
  assertEquals(synchronised, true);
  // One of the six warms up, unless a slow machine makes the path look long.
  assert([5, 6].includes(servers[0]!.figures!.exchanges.length));
  assertEquals(server.connections, 3);
});

Deno.test("sync() obeys a kiss at once", async () => {
  await using server = new FakeServer(answering(() => ({ stratum: 0, referenceId: 0x52415445 })));
  const { servers } = await sync({ servers: [server.address] });
  assertEquals(server.connections, 1);
  assertEquals(
    servers[0]!.error,
    `${server.address} was asked too often (kiss RATE): wait before asking again`,
  );
});

Deno.test("sync() counts a server's root distance only when servers vote", async () => {
  const behaviour = answering(() => ({ rootDelay: 0.5, rootDispersion: 0.25, precision: -30 }));
  await using one = new FakeServer(behaviour);
  await using two = new FakeServer(behaviour);
  for (const servers of [[one.address], [one.address, one.address]]) {
    const alone = await sync({ servers });
    assert(alone.errorBound! < 0.25, "one server, however often it is named");
  }
  const both = await sync({ servers: [one.address, two.address] });
  assertAlmostEquals(both.errorBound!, 0.5, 0.1);
});

Deno.test("sync() ends with the signal's reason and leaves nothing open", async () => {
  const asked = Promise.withResolvers<void>();
  await using silent = new FakeServer(async (connection) => {
    while (await connection.read(new Uint8Array(48)) !== null) asked.resolve();
  });
  const controller = new AbortController();
  const syncing = sync({ servers: [silent.address], signal: controller.signal });
  await asked.promise;
  controller.abort(new Error("enough"));
  await assertRejects(() => syncing, Error, "enough");
});

Deno.test("sync() refuses numbers that make no sense", async () => {
  await assertRejects(() => sync({ samples: 0 }), RangeError, "samples must be a positive integer");
  await assertRejects(() => sync({ timeout: -1 }), RangeError, "timeout must be a positive number");
  await assertRejects(() => sync({ servers: [] }), RangeError, "expected at least one server");
});

Deno.test("serve() refuses numbers that make no sense, before it listens", async () => {
  const range = "must be an integer from 0 to 65535: current value is";
  const rows: [ServeOptions, string][] = [
    [{ stratum: 16 }, "stratum must be an integer from 1 to 15: current value is 16"],
    [{ port: 65536 }, `port ${range} 65536`],
    [{ port: -1 }, `port ${range} -1`],
    [{ ...loopback, udpPort: 99_999 }, `udpPort ${range} 99999`],
    [{ ...loopback, udpPort: 0.5 }, `udpPort ${range} 0.5`],
    [{ ...loopback, http: { hostname: "127.0.0.1", port: NaN } }, `http.port ${range} NaN`],
  ];
  for (const [options, sentence] of rows) {
    await assertRejects(() => serve(options), RangeError, `cannot serve: ${sentence}`);
  }
});

Deno.test("serve() names a host that has no address", async () => {
  const network: Network = { ...systemNetwork, resolve: () => Promise.resolve([]) };
  const rows: [ServeOptions, string][] = [
    [{ ...loopback, hosts: [""] }, '""'],
    [{ ...loopback, hosts: ["127.0.0.1", ""] }, '""'],
    [{ ...loopback, http: { hostname: "", port: 0 } }, '""'],
    [{ hosts: ["empty.example"], network }, "empty.example"],
  ];
  for (const [options, name] of rows) {
    const sentence = `cannot listen on ${name}: it has no address`;
    await assertRejects(() => serve(options), Error, sentence);
  }
});

Deno.test("sync() keeps the reason that it found before the deadline", async () => {
  await using server = new FakeServer(answering(() => ({ version: 3 })));
  const { servers } = await sync({ servers: [server.address], timeout: 60 });
  assertEquals(servers[0]!.status, "invalid");
  assertStringIncludes(servers[0]!.error!, "answered in NTP version 3");
});

Deno.test("sync() asks only addresses of the family wanted", async () => {
  const asked: unknown[] = [];
  const network: Network = {
    ...systemNetwork,
    resolve: (_, family) => {
      asked.push(family);
      return Promise.resolve([]);
    },
    connect: () => Promise.reject(new Error("not to be called")),
    listen: () => {
      throw new Error("not to be called");
    },
  };
  const { servers } = await sync({ servers: ["host"], family: 6, network });
  assertEquals(asked, [6]);
  assertEquals(servers[0]!.error, "host is not a known host with an IPv6 address");
});

Deno.test("sync() does not believe a server that reads its clock so coarsely that it could say anything", async () => {
  for (const precision of [4, 32, 127]) {
    await using server = new FakeServer(answering(() => ({ precision })));
    const { synchronised, servers } = await sync({ servers: [server.address] });
    assertEquals([synchronised, servers[0]!.status], [false, "invalid"], `precision ${precision}`);
    assertStringIncludes(servers[0]!.error!, "root distance and precision of 16 s or more");
  }
});

Deno.test("sync() gives a server that is named twice one vote", async () => {
  await using liar = new FakeServer(answering((_, { receive, transmit }) => ({
    receive: receive + units(3600),
    transmit: transmit + units(3600),
  })));
  await using good = new FakeServer(answering(() => ({})));
  const port = liar.address.split(":")[1];
  for (const other of [`localhost:${port}`, `[::ffff:127.0.0.1]:${port}`, `0.0.0.0:${port}`]) {
    const servers = [liar.address, other, good.address];
    const fix = await sync({ servers, family: other.startsWith("[") ? undefined : 4 });
    assertEquals(fix.synchronised, false, other);
    assertEquals(fix.servers.map(({ status }) => status), Array(3).fill("falseticker"));
    assertEquals(fix.servers.map(({ sameAs }) => sameAs), [null, liar.address, null]);
  }
  const alone = await sync({ servers: [good.address, good.address] });
  assertEquals([alone.synchronised, alone.isMajority], [true, true]);
  assertEquals(alone.servers.map(({ status }) => status), ["truechimer", "truechimer"]);
});

Deno.test("sync() and serve() take the kernel's timestamps only with the machine's clock", async () => {
  const clock = adjustable();
  const options = { clock, timestamps: "kernel" } as const;
  await assertRejects(() => sync({ servers: ["127.0.0.1:1"], ...options }), TypeError, "clock");
  await assertRejects(() => serve({ ...loopback, ...options }), TypeError, "clock");
  const server = await serve(loopback);
  const { servers } = await sync({ servers: [name(server)], clock });
  assertEquals(servers[0]!.figures!.timestamps, "user");
  await server.stop();
});

Deno.test("sync() knows this machine by its IPv4 and IPv6 address for one server", async () => {
  const server = await serve({ hosts: ["127.0.0.1", "::1"], port: 0 });
  const { port } = server.addresses[0]!;
  const servers = [`127.0.0.1:${port}`, `[::1]:${port}`];
  const { servers: [one, two] } = await sync({ servers });
  assertEquals([one!.sameAs, two!.sameAs], [null, servers[0]]);
  await server.stop();
});

Deno.test("sync() takes nothing but a status from a server that does not vote, and judges it by what it says", async () => {
  let answers = 0;
  // Behind one address there are two machines.
  await using server = new FakeServer((connection) => {
    const ahead = answers++ === 0 ? 0n : units(3600);
    return answering((_, { receive, transmit }) => ({
      receive: receive + ahead,
      transmit: transmit + ahead,
      ...ahead > 0n ? { leap: "insert" } : {},
    }))(connection);
  });
  const { servers, leap } = await sync({ servers: [server.address, server.address] });
  const statuses = servers.map(({ status }) => status);
  assertEquals([statuses.toSorted(), leap === "insert"], [
    ["falseticker", "truechimer"],
    servers[0]!.figures!.leap === "insert",
  ]);
});

Deno.test("sync() counts a chain of servers for as many as share a point", async () => {
  const servers = [0, 0.5, 1].map((offset) =>
    new FakeServer(answering((_, { receive, transmit }) => ({
      receive: receive + units(offset),
      transmit: transmit + units(offset),
      rootDispersion: 0.3,
      precision: -30,
    })))
  );
  const names = servers.map(({ address }) => address);
  const fix = await sync({ servers: [...names, "127.0.0.1:1", "127.0.0.1:2"] });
  for (const server of servers) await server[Symbol.asyncDispose]();
  assertEquals([fix.synchronised, fix.isMajority], [true, false], "2 of 3, but not of 5");
  assertEquals(fix.servers.filter(({ status }) => status === "truechimer").length, 3);
  assertAlmostEquals(fix.offset!, 0.5, 0.05);
  assertAlmostEquals(fix.errorBound!, 0.3, 0.05);
});

Deno.test("sync() tells a majority of the servers asked from one of those that answered", async () => {
  await using one = new FakeServer(answering(() => ({})));
  await using two = new FakeServer(answering(() => ({})));
  const dead = ["127.0.0.1:1", "127.0.0.1:2"];
  const few = await sync({ servers: [one.address, ...dead] });
  assertEquals([few.synchronised, few.isMajority], [true, false]);
  const most = await sync({ servers: [one.address, two.address, dead[0]!] });
  assertEquals([most.synchronised, most.isMajority], [true, true]);
});

Deno.test("sync() is rejected with what onProgress throws, and leaves nothing open", async () => {
  const server = await serve(loopback);
  for (const at of [1, 5, 16]) {
    const onProgress = (done: number) => {
      if (done === at) throw new Error("the caller's own");
    };
    await assertRejects(
      () => sync({ servers: [name(server), name(server)], onProgress }),
      Error,
      "the caller's own",
    );
  }
  await server.stop();
});

Deno.test("sync() widens by both clocks' precision", async () => {
  await using server = new FakeServer(answering(() => ({ precision: -3 })));
  const clock = { ...system, precision: 0.25 };
  const { errorBound } = await sync({ servers: [server.address], clock });
  assertAlmostEquals(errorBound!, 0.375, 0.05);
});
