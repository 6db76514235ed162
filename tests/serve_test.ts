import { setImmediate } from "node:timers";
import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import {
  type Connection,
  type Listener,
  serve,
  type Server,
  type ServerEvent,
  sync,
} from "../src/mod.ts";
import type { SocketAddress } from "../src/net/address.ts";
import { linuxLibc } from "../src/net/linux/sockets.ts";
import { decodePacket, encodeRequest, viewOf } from "../src/ntp/packet.ts";
import { fromTimestamp } from "../src/ntp/timestamp.ts";
import { type Host, World } from "./simulation/world.ts";
import { StreamServing } from "./simulation/stream_sockets.ts";
import type { Limits } from "../src/serve/admission.ts";
import { FairQueue } from "../src/serve/fair_queue.ts";
import { replyTemplate, respond, stampTransmit } from "../src/serve/reply.ts";
import "./libraries.ts";

const now = 1795342503_123456789n;
const disciplined = {
  synchronised: true,
  leap: "insert",
  maximumError: 0.0015,
  estimatedError: 0.00002,
  frequency: 0,
} as const;

describe("replyTemplate()", () => {
  const announce = (...args: Parameters<typeof replyTemplate>) =>
    decodePacket(replyTemplate(...args));

  it("says of a synchronised host what the kernel says", () => {
    const { leap, stratum, rootDispersion, precision, referenceId, reference } = announce(
      disciplined,
      40e-9,
      now,
    );
    assertEquals([leap, stratum, precision], ["insert", 2, -24]);
    assert(rootDispersion >= 0.0015 && rootDispersion < 0.0016);
    assertEquals(referenceId, 0x4c4f434c);
    assertEquals(fromTimestamp(reference, now), now);
  });

  it("makes an unsynchronised host's clock the reference, at stratum 10", () => {
    for (const state of [null, { ...disciplined, synchronised: false, maximumError: 16 }]) {
      const { leap, stratum, rootDispersion } = announce(state, 1e-6, now);
      assertEquals([leap, stratum], ["none", 10]);
      assert(rootDispersion < 1e-4);
    }
  });

  it("announces the stratum that it is told", () => {
    assertEquals(announce(disciplined, 1e-6, now, 5).stratum, 5);
    assertEquals(announce(null, 1e-6, now, 1).stratum, 1);
  });
});

describe("respond()", () => {
  it("answers in the request's version and copies poll and transmit", () => {
    const request = new Uint8Array(48);
    encodeRequest(request, 0x0123456789abcdefn);
    request[0] = 0xdb; // Leap indicator 3, version 3, mode 3.
    request[2] = 6;
    const reply = new Uint8Array(48).fill(0xaa);
    respond(request, reply, replyTemplate(disciplined, 40e-9, now), now);
    stampTransmit(reply, now + 5n);
    const packet = decodePacket(reply);
    assertEquals([packet.leap, packet.version, packet.mode, packet.poll], ["insert", 3, 4, 6]);
    assertEquals(packet.origin, 0x0123456789abcdefn);
    assertEquals(fromTimestamp(packet.receive, now), now);
    assertEquals(fromTimestamp(packet.transmit, now), now + 5n);
  });
});

Deno.test("serve() counts refusals, and tells of them in the end at the latest", async () => {
  const events: ServerEvent[] = [];
  const server = await serve({
    hosts: ["127.0.0.1"],
    port: 0,
    timestamps: "user",
    onEvent: (event) => events.push(event),
  });
  const { port } = server.addresses[0]!;
  for (let i = 0; i < 3; i++) {
    using connection = await Deno.connect({ hostname: "127.0.0.1", port });
    await connection.write(Uint8Array.of(0xff));
    assertEquals(await connection.read(new Uint8Array(1)), null);
  }
  await server.stop();
  await server.stop();
  const [address, told] = [`127.0.0.1:${port}`, events.slice(1, -1)];
  assertEquals(events[0], { event: "listening", transport: "tcp", address, timestamps: "user" });
  assertEquals(events.at(-1), { event: "stopped", connections: 3, replies: 0 });
  assert(told.every((each) => each.event === "refused" && each.reason === "version"));
  assertEquals(told.reduce((sum, each) => sum + (each.event === "refused" ? each.count : 0), 0), 3);
  assertEquals(server.counters.refusals.version, 3);
});

for (const timestamps of ["user", "kernel"] as const) {
  const name = `stamped by the ${timestamps === "kernel" ? "kernel" : "program"}`;
  if (timestamps === "kernel" && linuxLibc() === null) continue;

  Deno.test(
    `${name}: serve() finishes a request that is half here when it is stopped`,
    async () => {
      const server = await serve({ hosts: ["127.0.0.1"], port: 0, timestamps });
      const { port } = server.addresses[0]!;
      using connection = await Deno.connect({ hostname: "127.0.0.1", port });
      const request = new Uint8Array(48);
      encodeRequest(request, 1n);
      // A whole exchange first, so that the server is known to have accepted.
      await connection.write(request);
      await connection.read(new Uint8Array(48));
      await connection.write(request.subarray(0, 20));
      using other = await Deno.connect({ hostname: "127.0.0.1", port });
      await other.write(request);
      await other.read(new Uint8Array(48));
      const stopped = server.stop();
      await connection.write(request.subarray(20));
      const reply = new Uint8Array(48);
      assertEquals(await connection.read(reply), 48);
      assertEquals(viewOf(reply).getBigUint64(24), 1n);
      await stopped;
      assertEquals(server.counters.replies, 3);
    },
  );

  Deno.test(`${name}: serve() listens nowhere if it cannot listen everywhere`, async () => {
    const taken = Deno.listen({ hostname: "127.0.0.2", port: 0 });
    const { port } = taken.addr;
    let message = "";
    try {
      await serve({ hosts: ["127.0.0.1", "127.0.0.2"], port, timestamps });
    } catch (error) {
      message = (error as Error).message;
    }
    taken.close();
    assertEquals(
      message.startsWith(`cannot listen on 127.0.0.2:${port}: the address is in use`),
      true,
    );
    Deno.listen({ hostname: "127.0.0.1", port }).close();
  });

  Deno.test(`${name}: serve() closes at once whom it denies`, async () => {
    const server = await serve({
      hosts: ["127.0.0.1"],
      port: 0,
      deny: ["127.0.0.0/8"],
      timestamps,
    });
    using connection = await Deno.connect(server.addresses[0]!);
    assertEquals(await connection.read(new Uint8Array(1)), null);
    await server.stop();
    assertEquals(server.counters.refusals.denied, 1);
  });

  Deno.test(`${name}: serve() picks one port for several hosts`, async () => {
    const server = await serve({ hosts: ["127.0.0.1", "127.0.0.2"], port: 0, timestamps });
    const [one, two] = server.addresses;
    await server.stop();
    assertEquals(one!.port, two!.port);
  });
}

Deno.test("the kernel's stamps are asked for of the listener, not of a connection with its address", async () => {
  if (linuxLibc() === null) return console.log("no libc here: not tried");
  const before = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = before.addr;
  using _client = await Deno.connect({ hostname: "127.0.0.1", port });
  using _accepted = await before.accept();
  before.close();
  // It takes the lowest descriptor, so that the new listener comes after the connection.
  using _file = await Deno.open("/dev/null");
  const server = await serve({ hosts: ["127.0.0.1"], port, timestamps: "kernel" });
  const { synchronised } = await sync({ servers: [`127.0.0.1:${port}`] });
  assertEquals(synchronised, true);
  await server.stop();
});

Deno.test("what else a process does has its turn while the kernel's sockets are flooded", async () => {
  if (linuxLibc() === null) return console.log("no libc here: not tried");
  const server = await serve({ hosts: ["127.0.0.1"], port: 0, rate: 0, timestamps: "kernel" });
  const flood = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "-A", "tests/fixtures/flood.ts", `${server.addresses[0]!.port}`],
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const output = flood.stdout.getReader();
  await output.read();
  const echo = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const mine = await Deno.connect({ hostname: "127.0.0.1", port: echo.addr.port });
  const other = await echo.accept();
  const byte = new Uint8Array(1);
  const replies: number[] = [];
  for (let i = 0; i < 30; i++) {
    const before = server.counters.replies;
    await mine.write(byte);
    await other.read(byte);
    replies.push(server.counters.replies - before);
  }
  for (const each of [mine, other, echo]) each.close();
  flood.kill();
  await output.cancel();
  await flood.status;
  await server.stop();
  const median = replies.sort((a, b) => a - b)[15]!;
  // Where it had no turn, hundreds of thousands were answered meanwhile.
  assert(median < 20_000, `${replies.join(" ")} replies during each byte`);
  assert(server.counters.replies > 0);
});

/** What reads the connections. */
type Reader = "the event loop" | "the kernel";
const READERS: readonly Reader[] = ["the event loop", "the kernel"];

type Options = Limits & { idleTimeout?: number };

/** What serves, and the refusals that it has told of. */
interface Serving {
  readonly server: Pick<Server, "stop"> & { readonly counters: Readonly<{ replies: number }> };
  readonly refusals: () => unknown[];
}

/** A server in virtual time, and a client's connection to it. */
async function simulated(
  reader: Reader,
  options: Options,
  path = { out: () => 0.001, back: () => 0.001 },
) {
  const world = new World(1);
  const host = world.host("server");
  const client = world.host("client");
  host.path = path;
  const serveIt = reader === "the event loop" ? inEventLoop : inKernel;
  const { server, refusals } = await world.run(serveIt(host, options));
  const connect = () =>
    world.run(
      client.network.connect({ hostname: "server", port: 10085 }, new AbortController().signal),
    );
  const ended = async (connection: Connection) => {
    const byte = new Uint8Array(48);
    while (await world.run(connection.read(byte)) !== null);
    return world.now / 1e9;
  };
  return { world, server, connect, ended, refusals };
}

async function inEventLoop(host: Host, options: Options): Promise<Serving> {
  const events: ServerEvent[] = [];
  const server = await serve({
    hosts: ["server"],
    ...host.environment,
    onEvent: (event) => events.push(event),
    ...options,
  });
  return { server, refusals: () => events.filter(({ event }) => event === "refused") };
}

function inKernel(host: Host, options: Options): Promise<Serving> {
  const server = new StreamServing(options, host.clock, host.timers);
  const listener = host.network.listen({ hostname: "server", port: 10085 });
  server.listen(listener);
  const refusals = () => {
    server.count();
    return server.refusals;
  };
  return Promise.resolve({ server, refusals });
}

const request = new Uint8Array(48);
encodeRequest(request, 1n);

for (const reader of READERS) {
  Deno.test(`${reader}: serve() tells of refusals of one kind at most once a second`, async () => {
    const { world, server, connect, ended, refusals } = await simulated(reader, {});
    const refuse = async (count: number) => {
      for (let i = 0; i < count; i++) {
        const connection = await connect();
        await connection.write(Uint8Array.of(0xff));
        await ended(connection);
      }
      await world.sleep(1);
    };
    await refuse(3);
    const told = { event: "refused", reason: "version" };
    assertEquals(refusals(), [{ ...told, count: 3 }]);
    await refuse(2);
    assertEquals(refusals(), [{ ...told, count: 3 }, { ...told, count: 2 }]);
    await world.run(server.stop());
  });

  Deno.test(`${reader}: serve() closes a connection that is silent for the idle timeout, not before`, async () => {
    const { world, server, connect, ended, refusals } = await simulated(reader, {
      idleTimeout: 30,
    });
    const connection = await connect();
    await world.sleep(25);
    await connection.write(request);
    const at = await ended(connection);
    assert(at >= 55 && at <= 57, `closed after ${at} s`);
    await world.sleep(1);
    assertEquals(refusals(), [{ event: "refused", reason: "idle", count: 1 }]);
    await world.run(server.stop());
  });

  Deno.test(`${reader}: serve() gives a message ten seconds, however it drips`, async () => {
    const { world, server, connect, ended, refusals } = await simulated(reader, {});
    const connection = await connect();
    for (let i = 0; i < 20; i++) {
      world.at((5 + i) * 1e9, () => connection.write(request.subarray(i, i + 1)));
    }
    const at = await ended(connection);
    assert(at >= 15 && at <= 17, `closed after ${at} s`);
    await world.sleep(1);
    assertEquals(refusals(), [{ event: "refused", reason: "slow", count: 1 }]);
    await world.run(server.stop());
  });

  Deno.test(`${reader}: serve() answers a client over its rate with one RATE kiss and closes`, async () => {
    const { world, server, connect, refusals } = await simulated(reader, { rate: 1 });
    const connection = await connect();
    const replies: ReturnType<typeof decodePacket>[] = [];
    for (;;) {
      await connection.write(request);
      const reply = new Uint8Array(48);
      if (await world.run(connection.read(reply)) === null) break;
      replies.push(decodePacket(reply));
    }
    assertEquals(replies.map(({ stratum }) => stratum), [2, 2, 2, 2, 0]);
    const { leap, referenceId, origin } = replies[4]!;
    assertEquals([leap, referenceId, origin], ["unsynchronised", 0x52415445, 1n]);
    await world.sleep(1);
    assertEquals(refusals(), [{ event: "refused", reason: "rate", count: 1 }]);
    assertEquals(server.counters.replies, 4);
    await world.run(server.stop());
  });

  for (const limit of ["maxClients", "maxClientsPerAddress"] as const) {
    Deno.test(`${reader}: serve() closes at once who is one more than ${limit} allows`, async () => {
      const { world, server, connect, ended, refusals } = await simulated(reader, { [limit]: 1 });
      const first = await connect();
      assert(await ended(await connect()) < 0.1);
      await first.write(request);
      assertEquals(await world.run(first.read(new Uint8Array(48))), 48);
      const reason = limit === "maxClients" ? "max-clients" : "max-clients-per-address";
      await world.sleep(1);
      assertEquals(refusals(), [{ event: "refused", reason, count: 1 }]);
      first.close();
      await world.sleep(0.1);
      const third = await connect();
      await third.write(request);
      assertEquals(await world.run(third.read(new Uint8Array(48))), 48, "there is room again");
      await world.run(server.stop());
    });
  }

  Deno.test(`${reader}: serve() gives a connection that never asks the whole idle timeout`, async () => {
    const { world, server, connect, ended } = await simulated(reader, { idleTimeout: 3 });
    await world.sleep(0.99); // Just before the server looks around.
    const since = world.now / 1e9;
    const lived = await ended(await connect()) - since;
    assert(lived >= 3 && lived <= 5, `closed after ${lived} s`);
    await world.run(server.stop());
  });

  Deno.test(`${reader}: serve() closes idle connections at once when it is stopped, others after half a second`, async () => {
    const { world, server, connect, ended } = await simulated(reader, {});
    const idle = await connect();
    const busy = await connect();
    await busy.write(request.subarray(0, 20));
    await world.sleep(0.1);
    const since = world.now / 1e9;
    const stopped = server.stop();
    assert(await ended(idle) - since < 0.1);
    const grace = await ended(busy) - since;
    assert(grace >= 0.5 && grace < 0.6, `closed after ${grace} s`);
    await world.run(stopped);
  });
}

/** A client that sends requests without end and never reads a reply. */
class Deaf implements Connection {
  readonly remote = { hostname: "192.0.2.1", port: 5 };
  reads = 0;
  closed = false;

  read(into: Uint8Array): Promise<number> {
    this.reads++;
    into.set(request);
    return Promise.resolve(request.length);
  }

  write(): Promise<number> {
    return new Promise(() => {});
  }

  close(): void {
    this.closed = true;
  }
}

for (const reader of READERS) {
  Deno.test(`${reader}: serve() reads no more of a client that does not read its replies, and closes it`, async () => {
    const { world, host } = worldWithServer();
    const deaf = new Deaf();
    if (reader === "the kernel") {
      new StreamServing({}, host.clock, host.timers).sockets.arrive(deaf);
    } else {
      const accepted: Connection[] = [deaf];
      const accept = (): Promise<Connection> =>
        accepted.length > 0 ? Promise.resolve(accepted.pop()!) : new Promise(() => {});
      const listen = (address: SocketAddress): Listener => (
        { transport: "tcp", address, accept, close: () => {} }
      );
      const network = { ...host.network, listen };
      await world.run(serve({ hosts: ["server"], ...host.environment, network }));
    }
    await world.sleep(9.5);
    const { closed, reads } = deaf;
    assertEquals(closed, false);
    assert(reads >= 2 && reads <= 3, `${reads} reads`);
    await world.sleep(3);
    assertEquals([deaf.closed, deaf.reads], [true, reads]);
  });
}

Deno.test("the kernel: serve() goes on accepting when there is room again, ten times a second", async () => {
  const { world, host } = worldWithServer();
  const server = new StreamServing({}, host.clock, host.timers);
  server.listen(host.network.listen({ hostname: "server", port: 10085 }));
  server.sockets.full = true;
  const client = world.host("client");
  const fix = sync({ servers: ["server"], timeout: 20, ...client.environment });
  await world.sleep(5);
  const { refused } = server.sockets;
  assert(refused >= 45 && refused <= 51, `${refused} attempts in 5 s`);
  server.sockets.full = false;
  assertEquals((await world.run(fix)).synchronised, true);
  await world.run(server.stop());
});

Deno.test("serve() goes on accepting when it could not for a while, and says so once a second", async () => {
  const { world, host } = worldWithServer();
  let failures = 0;
  const events: ServerEvent[] = [];
  const server = await world.run(serve({
    hosts: ["server"],
    ...host.environment,
    network: {
      ...host.network,
      listen(address) {
        const listener = host.network.listen(address);
        const accept = () => {
          if (world.now >= 5e9) return listener.accept();
          failures++;
          return Promise.reject(new Error("Too many open files (os error 24)"));
        };
        return { ...listener, address, accept, close: () => listener.close() };
      },
    },
    onEvent: (event) => events.push(event),
  }));
  await world.sleep(6);
  const client = world.host("client");
  const fix = await world.run(sync({ servers: ["server"], ...client.environment }));
  assertEquals(fix.synchronised, true);
  assert(failures >= 45 && failures <= 51, `${failures} attempts in 5 s`);
  const told = events.filter(({ event }) => event === "accept-failed");
  assert(told.length >= 5 && told.length <= 6, `${told.length} lines in 5 s`);
  assertEquals(told[0], { event: "accept-failed", error: "Too many open files" });
  await world.run(server.stop());
});

function worldWithServer() {
  const world = new World(1);
  return { world, host: world.host("server") };
}

Deno.test("serve() goes on when an event cannot be told", async () => {
  const { world, host } = worldWithServer();
  const server = await world.run(serve({
    hosts: ["server"],
    ...host.environment,
    onEvent: () => {
      throw new Error("the disk is full");
    },
  }));
  const client = world.host("client");
  const connection = await world.run(
    client.network.connect({ hostname: "server", port: 10085 }, new AbortController().signal),
  );
  await connection.write(Uint8Array.of(0xff));
  assertEquals(await world.run(connection.read(new Uint8Array(1))), null);
  const fix = await world.run(sync({ servers: ["server"], ...client.environment }));
  assertEquals(fix.synchronised, true);
  await world.run(server.stop());
});

Deno.test("serve() says anew each second what the kernel says", async () => {
  const { world, host } = worldWithServer();
  let synchronised = true;
  const clock = {
    ...host.clock,
    realtime: host.clock.realtime,
    monotonic: host.clock.monotonic,
    state: () => ({ ...disciplined, synchronised }),
  };
  const server = await world.run(serve({ hosts: ["server"], ...host.environment, clock }));
  const client = world.host("client");
  const stratum = async () => {
    const fix = await world.run(sync({ servers: ["server"], ...client.environment }));
    return fix.servers[0]!.figures!.stratum;
  };
  assertEquals(await stratum(), 2);
  synchronised = false;
  await world.sleep(1.5);
  assertEquals(await stratum(), 10);
  await world.run(server.stop());
});

Deno.test("FairQueue lets 32 go on in each turn that follows", async () => {
  const turns = new FairQueue();
  let gone = 0;
  for (let i = 0; i < 132; i++) turns.take()?.then(() => gone++);
  for (const expected of [32, 64, 96, 100]) {
    await new Promise<void>((resolve) => setImmediate(resolve));
    assertEquals(gone, expected);
  }
});

Deno.test("FairQueue keeps nothing of those that had theirs, though others always wait", async () => {
  const turns = new FairQueue();
  let gone = 0;
  const before = Deno.memoryUsage().heapUsed;
  await Promise.all(Array.from({ length: 200 }, async () => {
    while (gone++ < 300_000) await turns.take();
  }));
  const grown = Deno.memoryUsage().heapUsed - before;
  assert(grown < 20e6, `${grown} bytes more`);
});

Deno.test("FairQueue lets 32 go on at once, and the others in turn, none forgotten", async () => {
  const turns = new FairQueue();
  const order: number[] = [];
  const waits = Array.from({ length: 100 }, (_, i) => turns.take()?.then(() => order.push(i)));
  assertEquals(waits.filter((wait) => wait === undefined).length, 32);
  await Promise.all(waits);
  assertEquals(order, Array.from({ length: 68 }, (_, i) => i + 32));
});
