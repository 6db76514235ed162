/**
 * Samples for a reference clock: what they are, when they are sent, and what
 * the real chronyd makes of them. It is run with -x always, so that it touches
 * no clock.
 *
 * @module
 */

import { assert, assertAlmostEquals, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { commandLine, compiled, linesOf, ServeProcess, SOURCE } from "../scripts/program.ts";
import { parseCommandLine, UsageError } from "../src/cli/args.ts";
import { encodeSample, RefclockFeed } from "../src/cli/refclock.ts";
import type { ClockOffset } from "../src/clock/synced_clock.ts";
import { serve } from "../src/mod.ts";
import { linuxLibc } from "../src/net/linux/sockets.ts";
import { sendUnixDatagram } from "../src/net/linux/unix_datagram.ts";
import { type Update, Watch } from "../src/sync/watch.ts";
import { answering, FakeServer, units } from "./fake_server.ts";
import "./libraries.ts";
import { trueOffset, World } from "./simulation/world.ts";

const program = compiled() ?? SOURCE;
const libc = linuxLibc();
if (libc === null) console.log("refclock: most tests are skipped, there is no libc of Linux's");

async function has(name: string): Promise<boolean> {
  const { success } = await new Deno.Command("sh", { args: ["-c", `command -v ${name}`] }).output();
  return success;
}

/** Tests on Linux, and that need programs that may be missing. */
async function test(name: string, needs: readonly string[], body: () => Promise<void>) {
  const missing = [];
  for (const each of needs) if (!await has(each)) missing.push(each);
  if (missing.length > 0) console.log(`refclock: "${name}" is skipped, no ${missing.join(", ")}`);
  Deno.test({ name, ignore: libc === null || missing.length > 0, fn: body });
}

/** A folder, to be removed in the end. */
class Folder implements AsyncDisposable {
  readonly path = Deno.makeTempDirSync({ dir: "/tmp" });
  readonly socket = `${this.path}/chrony.tsync.sock`;

  /** A socket where chronyd's would be. */
  listen(): Deno.DatagramConn {
    return Deno.listenDatagram({ path: this.socket, transport: "unixpacket" });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

/** What is in a sample: microseconds since 1970, seconds. */
function decode(bytes: Uint8Array) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  assertEquals([bytes.length, view.getInt32(24, true), view.getInt32(32, true)], [40, 0, 0]);
  assertEquals(new TextDecoder().decode(bytes.subarray(36)), "KCOS", "its magic number");
  return {
    time: view.getBigInt64(0, true) * 1_000_000n + view.getBigInt64(8, true),
    offset: view.getFloat64(16, true),
    leap: view.getInt32(28, true),
  };
}

const OFFSET: ClockOffset = {
  localTime: 1_795_342_503_123_456_789n,
  offset: 0.25,
  errorBound: 1e-4,
  frequency: 0,
  frequencyBound: 15e-6,
};

Deno.test("a sample is of the last whole microsecond", () => {
  const bytes = encodeSample({ ...OFFSET, frequency: 0.1 }, "none");
  assertEquals(
    [...new BigInt64Array(bytes.buffer, 0, 2)],
    [1_795_342_503n, 123_456n],
    "seconds and microseconds",
  );
  const { time, offset, leap } = decode(bytes);
  assertEquals([time, leap], [1_795_342_503_123_456n, 0]);
  assertAlmostEquals(offset, 0.25 - 0.1 * 789e-9, 1e-15);
  assertEquals(decode(encodeSample(OFFSET, "insert")).leap, 1);
  assertEquals(decode(encodeSample(OFFSET, "delete")).leap, 2);
});

Deno.test("a sample of a kept clock is right to within its bound", async () => {
  const world = new World(1);
  const server = world.host("server", { offset: 3.7 });
  const client = world.host("client", { frequency: 40 });
  const serving = await world.run(serve({ hosts: ["server"], ...server.environment }));
  const stop = new AbortController();
  const watch = new Watch({ servers: ["server"], signal: stop.signal, ...client.environment });
  const watching = (async () => {
    for await (const _ of watch);
  })();
  await world.sleep(100);
  const now = watch.clock.systemOffset()!;
  const { time, offset } = decode(encodeSample(now, "none"));
  const shown = client.environment.clock.realtime();
  assert(time * 1000n <= shown && shown - time * 1000n < 2000n, `${time} is not now, ${shown}`);
  const truth = Number(trueOffset(server.clock.exact(), client.clock.exact())) / 1e9;
  assert(Math.abs(offset - truth) <= now.errorBound, `${offset} is not ${truth}`);
  stop.abort();
  await world.run(watching);
  await world.run(serving.stop());
});

/** A poll of servers with these strata, each 1 ms from its source: the bounds know of several's. */
function updateOf(clock: ClockOffset | null, ...strata: number[]): Update {
  const servers = strata.map((stratum) => ({
    status: "truechimer",
    figures: { stratum },
  }));
  const fix = { synchronised: strata.length > 0, leap: "insert", servers };
  const rootDistance = strata.length === 1 ? 1e-3 : 0;
  return { fix, clock, rootDistance, interval: 1 } as unknown as Update;
}

await test("what is less certain than chronyd assumes is not sent", [], async () => {
  await using folder = new Folder();
  const socket = folder.listen();
  const said: [string, boolean][] = [];
  let now: ClockOffset | null = null;
  const feed = new RefclockFeed(
    folder.socket,
    { systemOffset: () => now },
    (...each) => said.push(each),
  );
  const received = async () => decode((await socket.receive())[0]);
  feed.send();
  feed.update(updateOf(null, 2));
  assertEquals([said, feed.suggestion, feed.status], [[], null, "no sample yet"]);
  const line = (delay: string, stratum: number) =>
    `chrony.conf should say: refclock SOCK ${folder.socket} refid TSYN poll 4 delay ${delay} precision 1e-5 ` +
    `stratum ${stratum}`;

  now = OFFSET;
  feed.update(updateOf(now, 2));
  // Twice: twice 0.1 ms, 30 ppm of 32 s, and 1 ms between the server and its source.
  assertEquals(said.splice(0), [
    [line("0.0044", 2), false],
    [`feeding chronyd through ${folder.socket}`, false],
  ]);
  assertEquals(feed.suggestion, line("0.0044", 2));
  assertEquals(feed.status, `fed through ${folder.socket}`);
  assertEquals(await received(), { time: 1_795_342_503_123_456n, offset: 0.25, leap: 0 });

  // In holdover, until its bound is larger.
  now = { ...OFFSET, offset: 1, errorBound: 0.00115 };
  feed.update(updateOf(now));
  assertEquals((await received()).offset, 1);
  now = { ...OFFSET, offset: 2, errorBound: 0.00117 };
  feed.send();
  now = { ...OFFSET, offset: 3, errorBound: 0.00118 };
  feed.update(updateOf(now));
  const uncertain = "the kept clock can be off by more than the ± 1.2 ms " +
    "that delay in chrony.conf stands for";
  assertEquals(said.splice(0), [[`cannot feed chronyd: ${uncertain}`, true]]);
  assertEquals(feed.status, `not fed: ${uncertain}`);
  now = null;
  feed.send();
  now = { ...OFFSET, offset: 4 };
  feed.send();
  assertEquals(said.splice(0), [[`feeding chronyd through ${folder.socket}`, false]]);
  assertEquals((await received()).offset, 4, "nothing was sent in between");

  // A fix that is less certain, of several servers: their distances are in the bound.
  now = { ...OFFSET, offset: 5, errorBound: 0.02 };
  feed.update({ ...updateOf(now, 1, 3, 2), interval: 600 });
  assertEquals(said, [
    [`the bound has grown: ${line("0.12", 3)}`, false],
  ]);
  assertEquals((await received()).offset, 5);
  feed.stop();
  socket.close();
});

await test("a leap second is announced on its day", [], async () => {
  await using folder = new Folder();
  const socket = folder.listen();
  const at = (time: string) => ({ ...OFFSET, localTime: BigInt(Date.parse(time)) * 1_000_000n });
  let now = at("2026-12-31T23:59:00Z");
  const feed = new RefclockFeed(folder.socket, { systemOffset: () => now }, () => {});
  feed.update(updateOf(now, 2));
  now = at("2027-01-01T00:00:00Z");
  feed.send();
  const leaps = [await socket.receive(), await socket.receive()].map(([each]) => decode(each).leap);
  assertEquals(leaps, [1, 0]);
  feed.stop();
  socket.close();
});

await test("what keeps samples from being sent is said once, and that it is over", [], async () => {
  await using folder = new Folder();
  const said: [string, boolean][] = [];
  const feed = new RefclockFeed(
    folder.socket,
    { systemOffset: () => OFFSET },
    (...each) => said.push(each),
  );
  const send = () => {
    for (let i = 0; i < 3; i++) feed.send();
    return said.splice(0).map(([sentence, isError]) =>
      `${isError}: ${sentence.replaceAll(folder.path, "")}`
    );
  };
  const fed = "false: feeding chronyd through /chrony.tsync.sock";
  feed.update(updateOf(OFFSET, 2));
  assertEquals(send().slice(1), [
    "true: cannot feed chronyd: there is no socket /chrony.tsync.sock; chronyd makes it when it " +
    "starts, if chrony.conf says so",
  ]);
  const first = folder.listen();
  assertEquals(send(), [fed]);
  first.close();
  assertEquals(send(), [
    "true: cannot feed chronyd: nobody receives at /chrony.tsync.sock: is chronyd running?",
  ]);
  await Deno.remove(folder.socket);
  const second = folder.listen();
  assertEquals(send(), [fed]);
  while (sendUnixDatagram(libc!, folder.socket, new Uint8Array(1)) === 0);
  assertEquals(send(), [
    "true: cannot feed chronyd: chronyd does not read what it is sent to /chrony.tsync.sock",
  ]);
  second.close();
  await Deno.remove(folder.socket);
  const stream = Deno.listen({ path: folder.socket, transport: "unix" });
  assertEquals(send(), [
    "true: cannot feed chronyd: nothing can be sent to /chrony.tsync.sock: Protocol wrong type for " +
    "socket",
  ]);
  stream.close();
  feed.stop();
});

/** `tsync sync --watch --refclock` as a process, and what it says on stderr. */
class Feeding implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(
    folder: Folder,
    server: string,
    prefix: readonly string[] = [],
    flags: readonly string[] = ["--json"],
  ) {
    const args = ["sync", "--watch", ...flags, "--refclock", folder.socket, server];
    const [executable, ...rest] = [...prefix, program.executable, ...commandLine(program, args)];
    this.#child = new Deno.Command(executable!, { args: rest, stdout: "null", stderr: "piped" })
      .spawn();
    this.#lines = linesOf(this.#child.stderr);
  }

  async next(): Promise<string> {
    const { value, done } = await this.#lines.next();
    assert(!done, "it ended");
    return value;
  }

  /** @returns The exit status, and what else it said. */
  async end(): Promise<[number, string[]]> {
    this.#child.kill("SIGTERM");
    const rest: string[] = [];
    for (let line = await this.#lines.next(); !line.done; line = await this.#lines.next()) {
      rest.push(line.value);
    }
    return [(await this.#child.status).code, rest];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.end();
    } catch {
      // It has ended.
    }
  }
}

/** chronyd with a reference clock and nothing else. */
class Chronyd implements AsyncDisposable {
  private constructor(readonly child: Deno.ChildProcess, readonly folder: string) {}

  static async start({ path: folder }: Folder, line: string): Promise<Chronyd> {
    const config = [
      "port 0",
      "cmdport 0",
      `bindcmdaddress ${folder}/command`,
      `pidfile ${folder}/pid`,
      `logdir ${folder}`,
      "log refclocks",
      line,
    ];
    await Deno.chmod(folder, 0o700);
    await Deno.writeTextFile(`${folder}/conf`, config.join("\n") + "\n");
    const args = ["-x", "-d", "-u", "root", "-f", `${folder}/conf`];
    const quiet = { stdout: "null", stderr: "null" } as const;
    return new Chronyd(new Deno.Command("chronyd", { args, ...quiet }).spawn(), folder);
  }

  /** Waits until its only source is selected. */
  async selected(): Promise<void> {
    const args = ["-h", `${this.folder}/command`, "-c", "sources"];
    for (let i = 0; i < 600; i++) {
      const { stdout } = await new Deno.Command("chronyc", { args, stderr: "null" }).output();
      const text = new TextDecoder().decode(stdout);
      if (/^#,\*,TSYN,/.test(text)) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error("chronyd did not select it");
  }

  /** The samples that it took: true time less system time, in seconds. */
  async offsets(): Promise<number[]> {
    const log = await Deno.readTextFile(`${this.folder}/refclocks.log`);
    return log.split("\n").map((line) => line.split(/ +/))
      .filter(([, , refid, count]) => refid === "TSYN" && count !== "-")
      .map((fields) => Number(fields[6]));
  }

  async end(signal: Deno.Signal): Promise<void> {
    this.child.kill(signal);
    await this.child.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.end("SIGTERM");
    } catch {
      // It has ended.
    }
  }
}

/** A server that is ahead by so many seconds. */
function ahead(seconds: number): FakeServer {
  return new FakeServer(answering((_, { receive, transmit }) => ({
    receive: receive + units(seconds),
    transmit: transmit + units(seconds),
  })));
}

await test(
  "chronyd, killed and started again, takes the samples",
  ["chronyd", "chronyc"],
  async () => {
    await using server = ahead(0.025);
    await using folder = new Folder();
    await using feeding = new Feeding(folder, server.address);
    const [, line, delay] = /^tsync: chrony\.conf should say: (refclock .* delay ([\d.]+) .*)$/
      .exec(await feeding.next())!;
    assertMatch(await feeding.next(), /^tsync: cannot feed chronyd: there is no socket /);
    // As is suggested, but that sixteen seconds and four samples would be long.
    const quick = line!.replace("poll 4", "poll 0 filter 1");
    const fed = `tsync: feeding chronyd through ${folder.socket}`;
    for (const signal of ["SIGKILL", "SIGTERM"] as const) {
      await using chronyd = await Chronyd.start(folder, quick);
      assertEquals(await feeding.next(), fed);
      await chronyd.selected();
      const offsets = await chronyd.offsets();
      assert(offsets.length >= 3, "it was selected for something else");
      for (const offset of offsets) assertAlmostEquals(offset, 0.025, Number(delay) / 2);
      await chronyd.end(signal);
      const left = signal === "SIGKILL" ? "nobody receives at " : "there is no socket ";
      assert((await feeding.next()).startsWith(`tsync: cannot feed chronyd: ${left}`));
    }
    assertEquals(await feeding.end(), [0, []]);
  },
);

/** With a path of its own, and no numbers. */
const form = (line: string) => line.replace(/SOCK \S+/, "SOCK PATH").replaceAll(/ \d\S*/g, " N");

await test("chronyd can read the suggestion, and the page shows one", ["chronyd"], async () => {
  await using server = await ServeProcess.start(program);
  await using folder = new Folder();
  await using feeding = new Feeding(folder, server.address);
  const line = (await feeding.next()).replace(/^.*: refclock/, "refclock");
  const { success, stdout, stderr } = await new Deno.Command("chronyd", {
    args: ["-x", "-p", "-u", "root", line],
  }).output();
  assert(success, new TextDecoder().decode(stderr));
  assertEquals(new TextDecoder().decode(stdout).trim(), line);
  const page = await Deno.readTextFile("docs/chrony.md");
  assertEquals(form(/refclock SOCK .*/.exec(page)![0]), form(line));
});

await test("a socket that may not be written to is told of", ["setpriv"], async () => {
  if (Deno.uid() !== 0) return console.log("only root can give a socket away: not tried");
  await using server = await ServeProcess.start(program);
  await using folder = new Folder();
  const socket = folder.listen();
  await Deno.chown(folder.socket, 65534, 65534);
  await using feeding = new Feeding(folder, server.address, [
    ...["setpriv", "--bounding-set=-dac_override,-dac_read_search"],
  ]);
  await feeding.next();
  assertEquals(
    await feeding.next(),
    `tsync: cannot feed chronyd: this user may not write to ${folder.socket}, which chronyd makes ` +
      "for root: run tsync as root, or have a group of its user's own the socket and write to it",
  );
  await Deno.chmod(folder.socket, 0o777);
  assertEquals(await feeding.next(), `tsync: feeding chronyd through ${folder.socket}`);
  socket.close();
});

await test("--quiet leaves obstacles, and nothing else", [], async () => {
  await using server = await ServeProcess.start(program);
  await using folder = new Folder();
  await using feeding = new Feeding(folder, server.address, [], ["--quiet"]);
  assertMatch(await feeding.next(), /^tsync: cannot feed chronyd: there is no socket /);
  const socket = folder.listen();
  await socket.receive();
  assertEquals(await feeding.end(), [0, []]);
  socket.close();
});

Deno.test("--refclock is refused where it makes no sense", () => {
  const rows: [string[], string][] = [
    [["--refclock", "/run/a"], "--refclock needs --watch"],
    [["--watch", "--refclock"], "--refclock needs a value, SOCKET: "],
    [["--watch", "--refclock", "a"], '--refclock must be an absolute path: current value is "a"'],
    [["--watch", "--set", "--refclock", "/run/a"], "cannot use --refclock with --set: "],
  ];
  for (const [flags, sentence] of rows) {
    // Not run: without the refusal it would set this machine's clock.
    assertThrows(() => parseCommandLine(["sync", ...flags]), UsageError, sentence);
  }
});
