/**
 * What only holds where the kernel stamps. That all else is as without is for
 * the tests that run with both.
 *
 * @module
 */

import { EpollStreams } from "../src/serve/epoll_streams.ts";
import { serve } from "../src/serve/server.ts";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import {
  commandLine,
  compiled,
  linesOf,
  type Program,
  run,
  ServeProcess,
  SOURCE,
  userStamped,
} from "../scripts/program.ts";
import type { Clock } from "../src/clock/clock.ts";
import { systemClock } from "../src/clock/system_clock.ts";
import { type Fix, sync } from "../src/mod.ts";
import { streamChannel } from "../src/net/channel.ts";
import { MessageReader } from "../src/net/framing.ts";
import { Arrivals, KernelConnection, KernelPort } from "../src/net/linux/client.ts";
import { Arena } from "../src/net/linux/message.ts";
import { bindSocket, linuxLibc } from "../src/net/linux/sockets.ts";
import { clientNetwork } from "../src/net/system.ts";
import { decodePacket } from "../src/ntp/packet.ts";
import { fromTimestamp } from "../src/ntp/timestamp.ts";
import { connect, request, requestOf } from "./attackers.ts";
import { StreamServing } from "./simulation/stream_sockets.ts";
import { World } from "./simulation/world.ts";
import { PATIENCE } from "./slowness.ts";
import "./libraries.ts";

const clock = systemClock();
const program: Program = compiled() ?? SOURCE;
const millisecond = 1_000_000n;
const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** The same, but for those who cannot have it. */
function test(name: string, body: (program: Program) => Promise<void>): void {
  Deno.test(name, async () => {
    if (linuxLibc() === null) return console.log("not Linux: not tried");
    await body(program);
  });
}

/** T2 of the next reply. */
async function receiveT2(tcp: Deno.TcpConn): Promise<bigint> {
  const reply = new Uint8Array(48);
  assertEquals(await tcp.read(reply), 48);
  return fromTimestamp(decodePacket(reply).receive, clock.realtime());
}

test("T2 is when the kernel received a request, though the server slept", async (program) => {
  await using server = await ServeProcess.start(program);
  const client = await connect(server);
  await client.exchange();
  Deno.kill(server.pid, "SIGSTOP");
  await client.write(request);
  const sent = clock.realtime();
  await pause(50);
  Deno.kill(server.pid, "SIGCONT");
  assert(await receiveT2(client.tcp) <= sent);
  client.close();
});

test("T2 is when the last byte of a request came, not the first", async (program) => {
  await using server = await ServeProcess.start(program);
  const client = await connect(server);
  client.tcp.setNoDelay();
  await client.exchange();
  for (const sleeps of [false, true]) {
    // Read in two pieces, and in one.
    if (sleeps) Deno.kill(server.pid, "SIGSTOP");
    await client.write(request.subarray(0, 20));
    await pause(30);
    const between = clock.realtime();
    await client.write(request.subarray(20));
    const sent = clock.realtime();
    if (sleeps) {
      await pause(30);
      Deno.kill(server.pid, "SIGCONT");
    }
    const t2 = await receiveT2(client.tcp);
    assert(t2 >= between, `${between - t2} ns before the rest was sent`);
    if (sleeps) assert(t2 <= sent, `${t2 - sent} ns after it was sent`);
  }
  client.close();
});

Deno.test("T4 is when the kernel received a reply, though the client slept", async () => {
  if (linuxLibc() === null) return console.log("no libc here: not tried");
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const signal = new AbortController().signal;
  const address = listener.addr as Deno.NetAddr;
  const connection = await clientNetwork("kernel", clock).connect(address, signal);
  const server = await listener.accept();
  const channel = streamChannel(connection, clock, signal);
  channel.request.set(requestOf());
  const receiving = channel.receive();
  const departed = channel.send();
  await server.read(new Uint8Array(48));
  await pause(20); // From now on it looks once a millisecond.
  const start = clock.monotonic();
  await server.write(new Uint8Array(48));
  const end = clock.monotonic();
  for (const asleep = end + 30n * millisecond; clock.monotonic() < asleep;);
  const { arrived, by } = await receiving;
  assertEquals(by, "kernel");
  assert(departed < start && arrived >= start, `${arrived - start} ns`);
  // Between two looks, of which the last was before it slept.
  assert(arrived <= end + 20n * millisecond, `${arrived - end} ns late`);
  channel.close();
  server.close();
  listener.close();
});

/** A clock on which time passes as it is told. */
class HandClock implements Clock {
  readonly precision = 1e-9;
  time = 1_000_000_000_000n;
  /** What the system clock shows beside. */
  ahead = 1_795_342_503n * 1_000_000_000n;

  monotonic(): bigint {
    return this.time;
  }

  realtime(): bigint {
    return this.time + this.ahead;
  }

  state(): null {
    return null;
  }
}

/** When a reply that comes a millisecond after a look is said to have come, at the next look. */
function arrivalOf(disturb: (clock: HandClock) => void) {
  const clock = new HandClock();
  const arrivals = new Arrivals(clock);
  arrivals.look(() => null);
  clock.time += millisecond;
  const arrived = { truly: clock.time, stamp: clock.realtime() };
  disturb(clock);
  clock.time += 2n * millisecond;
  return { truly: arrived.truly, said: arrivals.look(() => arrivals.monotonic(arrived.stamp)) };
}

Deno.test("the kernel's stamp of a reply is never made earlier than the reply came", () => {
  const undisturbed = arrivalOf(() => {});
  assert(undisturbed.said! >= undisturbed.truly, `${undisturbed.said}`);
  assert(undisturbed.said! <= undisturbed.truly + 10_000n, "but not much later");
  for (const microseconds of [-2_000_000, -500, 100, 500, 900, 5_000, 2_000_000]) {
    // The system clock is set before it is looked at: the program stamps it.
    const { said } = arrivalOf((clock) => clock.ahead += BigInt(microseconds) * 1000n);
    assertEquals(said, null, `set by ${microseconds} µs`);
  }
  for (const ppm of [-500, -100, 100, 500]) {
    const slew = 2n * millisecond * BigInt(ppm) / 1_000_000n;
    const { truly, said } = arrivalOf((clock) => clock.ahead += slew);
    assert(said! >= truly && said! <= truly + 10_000n, `slewed by ${ppm} ppm: ${said! - truly}`);
  }
  // As by another tsync that keeps the clock, from before the reply on.
  // The frequency that it is steered to comes on top of that, since the last look.
  for (const ppm of [-5900, -2000, 2000, 5900]) {
    const slew = 3n * millisecond * BigInt(ppm) / 1_000_000n;
    const { truly, said } = arrivalOf((clock) => clock.ahead += slew);
    assert(said! >= truly && said! <= truly + 40_000n, `slewed by ${ppm} ppm: ${said! - truly}`);
  }
});

Deno.test("where the kernel does not stamp, as in some sandboxes, its sockets are none", async () => {
  const real = linuxLibc();
  if (real === null) return console.log("no libc here: not tried");
  const libc: typeof real = new Proxy(real, {
    get: (target, name) => name === "setsockopt" ? () => -1 : Reflect.get(target, name),
  });
  const refused = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = refused.addr;
  assertEquals(bindSocket(libc, refused, ""), null);
  // It was closed: the address is free for a listener that the program reads.
  using listener = Deno.listen({ hostname: "127.0.0.1", port });
  using connection = await Deno.connect({ hostname: "127.0.0.1", port });
  using accepted = await listener.accept();
  assertEquals(KernelConnection.of(libc, connection, clock, ""), null);
  // And this one is left as it was.
  await connection.write(Uint8Array.of(7));
  assertEquals(await accepted.read(new Uint8Array(1)), 1);
  assertEquals(KernelPort.open(libc, { hostname: "127.0.0.1", port }, clock), null);
});

Deno.test("the server goes on after an error that nobody foresaw, and tells of it", async () => {
  if (linuxLibc() === null) return console.log("no libc here: not tried");
  const told = Promise.withResolvers<string>();
  const server = await serve({
    hosts: ["127.0.0.1"],
    port: 0,
    onEvent: (event) => event.event === "accept-failed" && told.resolve(event.error),
  });
  const { onReady } = EpollStreams.prototype;
  EpollStreams.prototype.onReady = function () {
    EpollStreams.prototype.onReady = onReady;
    throw new Error("of the test");
  };
  const { synchronised } = await sync({ servers: [`127.0.0.1:${server.addresses[0]!.port}`] });
  assertEquals([synchronised, await told.promise], [true, "of the test"]);
  await server.stop();
});

Deno.test("nothing is read by a descriptor that was closed: it may be another's by then", async () => {
  const arrivals = new Arrivals(clock);
  let [looks, closed] = [0, false];
  const receive = () => {
    looks++;
    return null;
  };
  const waiting = arrivals.wait(receive, () => closed);
  closed = true;
  assertEquals([await waiting, looks], [null, 1]);
});

Deno.test("memory that C keeps an address of is never small enough to be moved", () => {
  const libc = linuxLibc();
  if (libc === null) return console.log("no libc here: not tried");
  for (const size of [1, 16, 64, 5000]) {
    const arena = new Arena(libc, size);
    assert(arena.bytes.length >= 4096 && arena.slice(0, 8).buffer === arena.bytes.buffer);
  }
});

test("who is refused can still read what was sent before", async (program) => {
  const args = ["--host", "127.0.0.1", "--port", "0", "--rate", "1"];
  await using server = await ServeProcess.start(program, args);
  const tcp = await Deno.connect({ hostname: "127.0.0.1", port: server.port });
  const many = new Uint8Array(48 * 500);
  for (let i = 0; i < many.length; i += 48) many.set(request, i);
  await tcp.write(many);
  const strata: number[] = [];
  const reader = new MessageReader(tcp, new Uint8Array(48), () => 0n);
  while (await reader.read()) strata.push(decodePacket(reader.message).stratum);
  assertEquals([reader.error, strata.length, strata.at(-1)], [undefined, 5, 0]);
  tcp.close();
});

test("an IPv4 address as mapped can be listened on", async (program) => {
  const args = ["--host", "::ffff:127.0.0.1", "--port", "0", "--udp-port", "0"];
  await using server = await ServeProcess.start(program, args);
  assertMatch(server.address, /^\[::ffff:127\.0\.0\.1\]:\d+$/);
  const { code, stderr } = await run(program, "sync", "--quiet", `127.0.0.1:${server.port}`);
  assertEquals([code, stderr], [0, ""]);
});

test("addresses are said as without", async (program) => {
  await using server = await ServeProcess.start(program, ["--port", "0"]);
  const names = [`0.0.0.0:${server.port}`, `[::]:${server.port}`];
  const { stdout } = await run(program, "sync", "--json", "--samples", "1", ...names);
  const { servers } = JSON.parse(stdout) as { servers: { address: string }[] };
  const { port } = server;
  assertEquals(servers.map(({ address }) => address), [
    `127.0.0.1:${port}`,
    `[::1]:${port}`,
  ]);
});

test("a server that the kernel stamps, one that it does not and one of NTP vote together", async (program) => {
  const args = ["--host", "127.0.0.1", "--port", "0", "--udp-port", "0"];
  await using stamped = await ServeProcess.start(program, args);
  const { address } = (await stamped.nextEvent())!;
  await using plain = await ServeProcess.start(userStamped(program));
  const names = [stamped.address, plain.address, `ntp://${address}`];
  const { code, stdout } = await run(program, "sync", "--json", "--samples", "1", ...names);
  const { offset, error_bound, servers } = JSON.parse(stdout);
  assertEquals(code, 0);
  assert(Math.abs(offset) <= error_bound, stdout);
  const stamps = servers.map(({ timestamps }: { timestamps: string }) => timestamps);
  assertEquals(stamps, ["kernel", "kernel", "kernel"]);
});

test("with TLS it cannot be had, and who asks for it is told", async (program) => {
  const folder = "tests/fixtures/tls";
  const tls = ["--tls-cert", `${folder}/server.pem`, "--tls-key", `${folder}/server.key`];
  const serving = await run(program, "serve", "--timestamps", "kernel", ...tls);
  assertEquals(serving.code, 2);
  assertStringIncludes(serving.stderr, "cannot use --timestamps kernel with TLS");
  const only = await run(program, "sync", "--timestamps", "kernel", "tls://127.0.0.1");
  assertEquals(only.code, 2);
  assertStringIncludes(only.stderr, "cannot use --timestamps kernel with TLS");
  // Beside others it is asked all the same, and it is said who stamps.
  await using plain = await ServeProcess.start(program);
  const secure = await ServeProcess.start(program, [
    "--host",
    "127.0.0.1",
    "--port",
    "0",
    ...tls,
  ]);
  await using _ = secure;
  const names = [plain.address, `tls://127.0.0.1:${secure.port}`];
  const ca = ["--ca", `${folder}/authority.pem`];
  const { code, stdout } = await run(program, "sync", "--json", ...ca, ...names);
  const { servers } = JSON.parse(stdout) as { servers: { timestamps: string }[] };
  assertEquals([code, servers.map(({ timestamps }) => timestamps)], [0, ["kernel", "user"]]);
});

Deno.test("where libc may not be loaded, who asks for it is told", async () => {
  if (Deno.build.os !== "linux") return console.log("not Linux: not tried");
  const args = SOURCE.args.filter((arg) => !arg.startsWith("--allow-ffi"));
  const without: Program = { ...SOURCE, args, flags: ["--timestamps", "kernel"] };
  for (const command of [["serve", "--port", "0"], ["sync", "127.0.0.1:1"]]) {
    const { code, stdout, stderr } = await run(without, ...command);
    assertEquals([code, stdout], [1, ""]);
    assertMatch(
      stderr,
      /^tsync: cannot use kernel timestamps: libc .*--timestamps kernel\n$/,
    );
  }
});

Deno.test("the log says who stamps, and `auto` is silent where the kernel cannot be asked", async () => {
  const kernel = linuxLibc() === null ? "user" : "kernel";
  const withoutLibc = SOURCE.args.filter((arg) => !arg.startsWith("--allow-ffi"));
  const rows: [Program, string][] = [
    [program, kernel],
    [userStamped(program), "user"],
    [{ ...SOURCE, args: withoutLibc }, "user"],
  ];
  for (const [program, who] of rows) {
    const args = ["serve", "--host", "127.0.0.1", "--port", "0", "--udp-port", "0"];
    const child = new Deno.Command(program.executable, {
      args: commandLine(program, args),
      stderr: "piped",
    }).spawn();
    const lines = linesOf(child.stderr);
    for (const transport of ["tcp", "udp"]) {
      const { value } = await lines.next();
      const line = new RegExp(
        `^listening on ${transport} 127\\.0\\.0\\.1:\\d+ \\(${who} timestamps\\)$`,
      );
      assertMatch(value!, line);
    }
    child.kill();
    while (!(await lines.next()).done);
    await child.status;
  }
});

Deno.test("a request that the kernel did not stamp is stamped by the program, and counted", async () => {
  const world = new World(1);
  const host = world.host("server");
  const client = world.host("client");
  const server = new StreamServing({}, host.clock, host.timers);
  server.listen(host.network.listen({ hostname: "server", port: 10085 }));
  const fix: Fix = await world.run(
    sync({ servers: ["server"], samples: 4, ...client.environment }),
  );
  assert(Math.abs(fix.offset!) <= fix.errorBound!);
  await world.run(server.stop());
  assertEquals(server.unstamped, 5);
});

Deno.test("collections of garbage under load move nothing that C has the address of", async () => {
  if (linuxLibc() === null) return console.log("not Linux: not tried");
  // Each collection moves whatever V8 can move, and says that it was there. (Some versions of Deno
  // pin a small array once C has its address; that arenas are not small has a test of its own.)
  const flags =
    "--v8-flags=--max-semi-space-size=1,--stress-compaction,--stress-scavenge=10,--trace-gc";
  const args = SOURCE.args.map((arg) => arg.startsWith("--v8-flags") ? flags : arg);
  const stressed: Program = { ...SOURCE, args };
  const child = new Deno.Command(stressed.executable, {
    args: commandLine(
      stressed,
      ["serve", "--log", "json", "--host", "127.0.0.1"]
        .concat("--port", "0", "--udp-port", "0", "--rate", "0"),
    ),
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const collections = new Response(child.stdout).text();
  const reader = child.stderr.pipeThrough(new TextDecoderStream()).getReader();
  let log = "";
  while (log.split("\n").length < 3) log += (await reader.read()).value!;
  const [tcp, udp] = [...log.matchAll(/"address":"127\.0\.0\.1:(\d+)"/g)].map(([, port]) => port);
  await Promise.all(Array.from({ length: 20 }, async () => {
    const client = await connect({ port: Number(tcp) });
    for (let i = 0; i < 1000; i++) await client.exchange();
    client.close();
  }));
  const { code, stdout, stderr } = await run(stressed, "sync", "--json", `127.0.0.1:${tcp}`);
  const [line] = /\{"time".*\}$/m.exec(stdout) ?? [stderr];
  assertEquals(code, 0, line);
  const { offset, error_bound } = JSON.parse(line);
  assert(Math.abs(offset) <= error_bound, stdout);
  const datagram = await run(stressed, "sync", "--samples", "1", `ntp://127.0.0.1:${udp}`);
  assertEquals(datagram.code, 0);
  child.kill();
  for (let read = await reader.read(); !read.done; read = await reader.read()) log += read.value;
  assert(!/unstamped|failed|refused/.test(log), log);
  assertEquals((await child.status).code, 0);
  const count = (await collections).match(/Mark-Compact/g)?.length ?? 0;
  assert(count >= 50, `${count} collections`);
});

test("Ctrl-C ends a measurement at once whose server is silent", async (program) => {
  // It takes connections and never looks at them.
  const silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = silent.addr as Deno.NetAddr;
  const child = new Deno.Command(program.executable, {
    args: commandLine(program, ["sync", "--timeout", PATIENCE, `127.0.0.1:${port}`]),
    stdout: "null",
    stderr: "piped",
  }).spawn();
  const reader = child.stderr.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (!text.includes("measuring")) text += (await reader.read()).value!;
  child.kill("SIGINT");
  for (let read = await reader.read(); !read.done; read = await reader.read()) text += read.value;
  assertEquals(text, "measuring\ntsync: interrupted before a fix\n");
  assertEquals((await child.status).code, 130);
  silent.close();
});
