/**
 * ClockBound's shared memory: what is in it, in which order it is written, and
 * that no reader is ever told what is not true, whatever happens to tsync. The
 * reader is a program of its own, written from ClockBound's description.
 *
 * @module
 */

import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { commandLine, compiled, linesOf, run, SOURCE } from "../scripts/program.ts";
import { parseCommandLine, UsageError } from "../src/cli/args.ts";
import {
  ClockBoundFeed,
  encodeHeader,
  encodePayload,
  type ErrorBound,
  errorBoundOf,
  Slews,
} from "../src/cli/clockbound.ts";
import type { ClockOffset } from "../src/clock/synced_clock.ts";
import type { Libc } from "../src/libc/libc.ts";
import { Corrector, serve } from "../src/mod.ts";
import { linuxLibc } from "../src/net/linux/sockets.ts";
import { fromTimestamp } from "../src/ntp/timestamp.ts";
import { type Update, Watch } from "../src/sync/watch.ts";
import { answering, FakeServer, units } from "./fake_server.ts";
import "./libraries.ts";
import { SimulatedKernel } from "./simulation/kernel.ts";
import { trueOffset, World } from "./simulation/world.ts";

const program = compiled() ?? SOURCE;
const libc = linuxLibc()!;
if (libc === null) console.log("clockbound: most tests are skipped, there is no libc of Linux's");

function test(name: string, body: () => void | Promise<void>) {
  Deno.test({ name, ignore: libc === null, fn: body });
}

/** A file in a folder that is removed in the end. */
class Place implements AsyncDisposable {
  readonly #folder = Deno.makeTempDirSync({ dir: "/tmp" });
  readonly path = `${this.#folder}/shm0`;

  get segment(): Segment {
    return decode(Deno.readFileSync(this.path));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.#folder, { recursive: true });
  }
}

type Segment = ReturnType<typeof decode>;

function decode(bytes: Uint8Array) {
  assertEquals(bytes.length, 80);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const time = (at: number) =>
    view.getBigInt64(at, true) * 1_000_000_000n + view.getBigInt64(at + 8, true);
  return {
    head: [0, 4, 8].map((at) => view.getUint32(at, true).toString(16)),
    version: view.getUint16(12, true),
    generation: view.getUint16(14, true),
    asOf: time(16),
    voidAfter: time(32),
    bound: view.getBigInt64(48, true),
    drift: view.getUint32(64, true),
    status: view.getInt32(68, true),
    rest: [view.getBigUint64(56, true), view.getBigUint64(72, true)],
  };
}

/** Of a good segment, what is not the same each time. */
function changing({ head, version, rest, ...others }: Segment) {
  assertEquals([head, version, rest], [["414d5a4e", "43420200", "50"], 2, [0n, 0n]]);
  return others;
}

const OFFSET: ClockOffset = {
  localTime: 1_795_342_503_123_456_789n,
  offset: -0.25,
  errorBound: 1e-4,
  frequency: -20e-6,
  frequencyBound: 17e-6,
};

function updateOf(state: Update["state"], isFix = state === "synchronised"): Update {
  const fix = { synchronised: isFix };
  return { fix, state, rootDistance: 0.001, correction: null } as unknown as Update;
}

const coarse = () => {
  const time = new BigInt64Array(2);
  libc.clock_gettime(6, time);
  return time[0]! * 1_000_000_000n + time[1]!;
};

Deno.test("the memory is laid out as ClockBound describes it", () => {
  assertEquals([...encodeHeader(0x1234)], [80, 0, 0, 0, 2, 0, 0x34, 0x12]);
  const payload = encodePayload({
    asOf: 3_000_000_004n,
    voidAfter: 13_000_000_005n,
    bound: 6n,
    drift: 7,
    status: 2,
  });
  const expected = new Uint8Array(64);
  for (const [at, value] of [[0, 3], [8, 4], [16, 13], [24, 5], [32, 6], [48, 7], [52, 2]]) {
    expected[at!] = value!;
  }
  assertEquals(payload, expected);
});

Deno.test("the bound covers the offset, its own bound, and the server's distance", () => {
  const known = errorBoundOf(OFFSET, 5n, 0.001, false);
  const { bound, ...others } = known;
  assertEquals(others, { asOf: 5n, voidAfter: 10_000_000_005n, drift: 37370, status: 1 });
  // 251.1 ms, and a tick of 10 ms at 37.37 ppm.
  assert(bound >= 251_100_374n && bound <= 251_100_380n, `${bound}`);
  assertEquals(errorBoundOf(OFFSET, 5n, 0, true).status, 2);
});

for (const isSet of [false, true]) {
  const how = isSet ? "a clock that is set" : "a kept clock";
  Deno.test(`what is written of ${how} is true until it is void, in holdover too`, async () => {
    const world = new World(2);
    const server = world.host("server", { offset: isSet ? 0.05 : 3.7, frequency: -30 });
    const client = world.host("client", { frequency: 40 });
    const serving = await world.run(serve({ hosts: ["server"], ...server.environment }));
    const stop = new AbortController();
    const watch = new Watch({
      servers: ["server"],
      signal: stop.signal,
      corrector: isSet ? new Corrector(new SimulatedKernel(world, client.clock)) : undefined,
      ...client.environment,
    });
    const watching = (async () => {
      for await (const _ of watch) { /* It is looked at in between. */ }
    })();
    await world.sleep(2);
    const { monotonic } = client.environment.clock;
    const truth = () => Number(trueOffset(server.clock.exact(), client.clock.exact()));
    const first = truth();
    let written: ErrorBound[] = [];
    const slews = isSet ? new Slews() : null;
    for (let i = 0; i < 1000; i++) {
      if (i === 600) await world.run(serving.stop());
      if (i % 10 === 0) {
        const now = watch.clock.systemOffset()!;
        const added = slews?.add(monotonic(), now.offset);
        written.push(errorBoundOf(now, monotonic(), 0, i >= 600, added));
      }
      await world.sleep(0.1);
      // Each, as if none had followed.
      const now = monotonic();
      written = written.filter(({ voidAfter }) => voidAfter > now);
      for (const { bound, drift, asOf } of written) {
        const most = Number(bound) + Number(now - asOf) / 1e9 * drift;
        assert(Math.abs(truth()) <= most, `${i}: ${truth()} ns is not within ${most}`);
        assert(most < Math.abs(first) + 1e7, `${most} ns say nothing`);
      }
    }
    if (isSet) assert(Math.abs(truth()) < first / 10, "it was not slewed");
    stop.abort();
    await world.run(watching);
  });
}

for (const isKilled of [false, true]) {
  const how = isKilled ? "by a tsync that is killed then" : "meanwhile";
  Deno.test(`a slew that was begun on little knowledge is allowed for, ${how}`, async () => {
    for (let seed = 1; seed <= 5; seed++) {
      const world = new World(seed);
      const server = world.host("server");
      const client = world.host("client");
      // The first poll finds the clock to be 20 ms behind, plus or minus as much; the second, right.
      let out = 0.04;
      server.path = { out: () => out, back: () => 0.0003 };
      const serving = await world.run(serve({ hosts: ["server"], ...server.environment }));
      const stop = new AbortController();
      const watch = new Watch({
        servers: ["server"],
        signal: stop.signal,
        corrector: new Corrector(new SimulatedKernel(world, client.clock)),
        ...client.environment,
      });
      const { monotonic } = client.environment.clock;
      const slews = new Slews();
      const written: ErrorBound[] = [];
      const write = () => {
        const now = watch.clock.systemOffset()!;
        const asOf = monotonic();
        written.push(errorBoundOf(now, asOf, 0, false, slews.add(asOf, now.offset)));
      };
      let polls = 0;
      const watching = (async () => {
        for await (const _ of watch) {
          out = 0.0003;
          write();
          if (++polls === 2 && isKilled) client.dead = true;
        }
      })();
      while (written.length === 0) await world.sleep(0.01);
      let farthest = 0;
      for (let i = 0; i < (isKilled ? 900 : 2500); i++) {
        await world.sleep(0.01);
        if (i % 100 === 50 && !client.dead) write();
        const error = Math.abs(Number(trueOffset(server.clock.exact(), client.clock.exact())));
        const { bound, drift, asOf } = written.at(-1)!;
        const most = Number(bound) + Number(monotonic() - asOf) / 1e9 * drift;
        assert(error <= most, `seed ${seed}, ${i}: ${error} ns is not within ${most}`);
        farthest = Math.max(farthest, error);
      }
      assert(farthest > 1e6, `it was not led astray, only by ${farthest} ns`);
      if (!isKilled) {
        const { bound } = written.at(-1)!;
        assert(bound < 1_000_000n, `${bound} ns, and all is over`);
        stop.abort();
        await world.run(watching);
      }
      await world.run(serving.stop());
    }
  });
}

test("a step ends the slews, and without --set there are none", async () => {
  await using place = new Place();
  let offset = 0.5;
  const clock = { systemOffset: () => ({ ...OFFSET, offset }) };
  const feed = new ClockBoundFeed(place.path, clock, assertNothing);
  const written = (correction: Update["correction"], now: number) => {
    offset = now;
    feed.update({ ...updateOf("synchronised"), correction });
    return Math.round(Number(place.segment.bound) / 1e6);
  };
  assertEquals(written(null, 0.5), 501);
  assertEquals(written(null, 0), 1);
  assertEquals(written({ action: "slew", offset: 0.02 }, 0.02), 21);
  assertEquals(written({ action: "slew", offset: 0 }, 0), 26, "25 ms are still added");
  assertEquals(written({ action: "step", offset: 0.5 }, 0), 1);
  feed.stop();
});

test("a reader is told what is known, once anything is, and in the end nothing", async () => {
  await using place = new Place();
  let now: ClockOffset | null = null;
  const mask = Deno.umask(0o077);
  const feed = new ClockBoundFeed(place.path, { systemOffset: () => now }, assertNothing);
  Deno.umask(mask);
  assertEquals((await Deno.stat(place.path)).mode! & 0o777, 0o644);
  const told = () => {
    const { asOf, voidAfter, ...others } = changing(place.segment);
    const age = coarse() - asOf;
    assert(age >= 0n && age < 60_000_000_000n, `${age} ns old`);
    return { ...others, validity: voidAfter - asOf };
  };
  const unknown = { bound: 10n ** 18n, drift: 0, status: 0, validity: 0n };
  assertEquals(told(), { ...unknown, generation: 2 });
  feed.update(updateOf("synchronising"));
  feed.write();
  assertEquals(told(), { ...unknown, generation: 2 }, "there is nothing to say");

  now = OFFSET;
  feed.update(updateOf("synchronised"));
  const { bound, drift } = errorBoundOf(OFFSET, 0n, 0.001, false);
  const known = { bound, drift, validity: 10_000_000_000n };
  assertEquals(told(), { ...known, status: 1, generation: 4 });
  feed.update(updateOf("holdover"));
  assertEquals(told(), { ...known, status: 2, generation: 6 });
  now = null;
  feed.write();
  assertEquals(told(), { ...unknown, generation: 8 });
  now = OFFSET;
  feed.update(updateOf("synchronised"));
  assertEquals(told(), { ...known, status: 1, generation: 10 });
  feed.stop();
  assertEquals(told(), { ...unknown, generation: 12 });
});

function assertNothing(sentence: string): void {
  throw new Error(`it said: ${sentence}`);
}

/** A libc that keeps a record of what is written, and can die. */
function watched(onWrite: (bytes: Uint8Array, at: number) => void): Libc {
  const pwrite: Libc["pwrite"] = (fd, bytes, count, at) => {
    onWrite(bytes as Uint8Array, Number(at));
    return libc.pwrite(fd, bytes, count, at);
  };
  return new Proxy(libc, {
    get: (target, name) => name === "pwrite" ? pwrite : target[name as keyof Libc],
  });
}

/** Its generation, which is the last two of eight bytes. */
const generationOf = (header: Uint8Array) => header[6]! + 256 * header[7]!;

test("the generation is odd before anything else changes, and even after all has", async () => {
  await using place = new Place();
  let writes: [number, Uint8Array][] = [];
  const recording = watched((bytes, at) => writes.push([at, bytes.slice()]));
  const clock = { systemOffset: () => OFFSET };
  const feed = new ClockBoundFeed(place.path, clock, assertNothing, recording);
  // The file's last byte, whether it is a file, and the magic number, by which it is known again.
  assertEquals(writes.map(([at]) => at), [79, 0, 8, 16, 8]);
  for (let generation = 2; generation !== 2 || writes.length !== 3;) {
    writes = [];
    feed.update(updateOf("synchronised"));
    assertEquals(writes.map(([at]) => at), [8, 16, 8]);
    const [odd, even] = [writes[0]!, writes[2]!].map(([, header]) => generationOf(header));
    assertEquals(odd, generation + 1);
    // Never 0.
    assertEquals(even, generation === 65534 ? 2 : generation + 2);
    generation = even!;
  }
  feed.stop();
});

test("killed between any two writes, it leaves nothing that is half another", async () => {
  await using place = new Place();
  let now: ClockOffset | null = { ...OFFSET, offset: 1 };
  const clock = { systemOffset: () => now };
  const first = new ClockBoundFeed(place.path, clock, assertNothing);
  first.update(updateOf("synchronised"));
  const old = Deno.readFileSync(place.path);
  first.stop();
  const seen = new Set<string>();
  for (let writes = 0; writes <= 3; writes++) {
    Deno.writeFileSync(place.path, old);
    let left = writes;
    let isDead = false;
    const dying = watched(() => {
      if (isDead) throw new Error("dead");
      if (left-- === 0) {
        isDead = true;
        throw new Error("killed");
      }
    });
    now = { ...OFFSET, offset: 2 };
    const feed = new ClockBoundFeed(place.path, clock, assertNothing, dying);
    if (writes < 3) assertThrows(() => feed.update(updateOf("synchronised")), Error, "killed");
    else feed.update(updateOf("synchronised"));
    const { generation, bound } = changing(place.segment);
    const what = bound < 2_000_000_000n ? "old" : "new";
    seen.add(`${writes}: ${generation % 2 === 1 ? "odd" : what}`);
    isDead = true;
    assertThrows(() => feed.stop(), Error, "dead"); // As the kernel would, closes the file.
    const again = new ClockBoundFeed(place.path, clock, assertNothing);
    // What is whole stays as long as it holds; of what is not, nothing is known.
    const after = changing(place.segment);
    if (generation % 2 === 0) assertEquals(after, changing(decode(Deno.readFileSync(place.path))));
    assertEquals([after.generation % 2, after.status], [0, generation % 2 === 1 ? 0 : 1]);
    assertEquals(after.generation === generation, generation % 2 === 0);
    now = null;
    again.write();
    assertEquals(changing(place.segment), after, "nothing is known yet");
    again.stop();
  }
  assertEquals([...seen], ["0: old", "1: odd", "2: odd", "3: new"]);
});

test("killed between any two writes of a new file, it can be started again", async () => {
  await using place = new Place();
  const clock = { systemOffset: () => null };
  for (let writes = 0; writes < 5; writes++) {
    let left = writes;
    const dying = watched(() => {
      if (left-- === 0) throw new Error("killed");
    });
    const open = () => new ClockBoundFeed(place.path, clock, assertNothing, dying);
    assertThrows(open, Error, "killed");
    new ClockBoundFeed(place.path, clock, assertNothing).stop();
    assertEquals(changing(place.segment).status, 0);
    await Deno.remove(place.path);
  }
});

test("a device is refused, and its permissions are left alone", () => {
  // As root, it would make /dev/null one that nobody else can write.
  const kept = new Proxy(libc, {
    get: (target, name) => {
      if (name === "fchmod") return () => assertNothing("its permissions are changed");
      return target[name as keyof Libc];
    },
  });
  const open = () => new ClockBoundFeed("/dev/null", { systemOffset: () => null }, () => {}, kept);
  assertThrows(open, Error, "cannot write /dev/null for --clockbound: it is no ordinary file");
});

test("what cannot be believed, or is of another layout, is taken over as unknown", async () => {
  await using place = new Place();
  const clock = { systemOffset: () => null };
  const good = new Uint8Array(80);
  good.set(new Uint8Array(new Uint32Array([0x414d5a4e, 0x43420200]).buffer));
  good.set(encodeHeader(6), 8);
  const now = coarse();
  const known = errorBoundOf(OFFSET, now, 0, false);
  const left = (change: (bytes: Uint8Array) => Uint8Array) => {
    Deno.writeFileSync(place.path, change(good.slice()));
    const feed = new ClockBoundFeed(place.path, clock, assertNothing);
    const { status, generation } = changing(place.segment);
    feed.stop();
    return [status, generation];
  };
  const payload = (change: Partial<typeof known>) => (bytes: Uint8Array) => {
    bytes.set(encodePayload({ ...known, ...change }), 16);
    return bytes;
  };
  assertEquals(left(payload({})), [1, 6]);
  const rows: [string, (bytes: Uint8Array) => Uint8Array, number][] = [
    ["before the machine was started again", payload({ asOf: now + 10n ** 12n }), 8],
    ["no longer believed", payload({ voidAfter: now }), 8],
    ["of version 1", (bytes) => payload({})(bytes).fill(1, 12, 13), 8],
    ["of another size", (bytes) => payload({})(bytes).fill(72, 8, 9), 8],
    ["shorter", (bytes) => payload({})(bytes).subarray(0, 72), 8],
    ["killed in between", (bytes) => payload({})(bytes).fill(7, 14, 15), 8],
    ["never written", (bytes) => payload({})(bytes).fill(0, 14, 15), 2],
    ["empty", () => new Uint8Array(0), 2],
    ["all zeros", () => new Uint8Array(80), 2],
  ];
  for (const [name, change, generation] of rows) assertEquals(left(change), [0, generation], name);
});

test("a file that cannot be written, or is another's, is refused", async () => {
  await using place = new Place();
  const refused = (path: string, why: string) => {
    const open = () => new ClockBoundFeed(path, { systemOffset: () => null }, assertNothing);
    assertThrows(open, Error, `cannot write ${path} for --clockbound: ${why}`);
  };
  refused("/nowhere/shm0", "there is no such folder");
  refused("/tmp", "it is a folder");
  for (const text of ["root:x:0:0", "0".repeat(80), "\0".repeat(81)]) {
    await Deno.writeTextFile(place.path, text);
    refused(place.path, "there is something else in it than ClockBound's shared memory; ");
    assertEquals(await Deno.readTextFile(place.path), text);
  }
  await Deno.remove(place.path);
  const feed = new ClockBoundFeed(place.path, { systemOffset: () => null }, assertNothing);
  refused(place.path, "another tsync writes it, or is stopped while it does");
  feed.stop();
  // Who may only read it must not keep tsync from writing it.
  const reader = await Deno.open(place.path);
  await reader.lock(true);
  new ClockBoundFeed(place.path, { systemOffset: () => null }, assertNothing).stop();
  reader.close();
  await Deno.remove(place.path);
  await new Deno.Command("mkfifo", { args: [place.path] }).output();
  refused(place.path, "it is no ordinary file");
});

test("where the kernel does not say how fast the clock runs, it is refused", async () => {
  await using place = new Place();
  const silent = new Proxy(libc, {
    get: (target, name) => name === "ntp_adjtime" ? () => -1 : target[name as keyof Libc],
  });
  const open = () => {
    new ClockBoundFeed(place.path, { systemOffset: () => OFFSET }, assertNothing, silent);
  };
  assertThrows(open, Error, "the kernel may not be asked how fast it makes the system clock run");
});

test("that it cannot be written any more is said once, and that it is over", async () => {
  await using place = new Place();
  const said: [string, boolean][] = [];
  let isFull = false;
  const full = new Proxy(libc, {
    get: (target, name) => name === "pwrite" && isFull ? () => 1 : target[name as keyof Libc],
  });
  const tell = (...each: [string, boolean]) => said.push(each);
  const feed = new ClockBoundFeed(place.path, { systemOffset: () => OFFSET }, tell, full);
  feed.update(updateOf("synchronised"));
  isFull = true;
  for (let i = 0; i < 3; i++) feed.write();
  const what = `cannot write ${place.path} for --clockbound: No space left on device`;
  assertEquals(said.splice(0), [[what, true]]);
  assertEquals(feed.status, what);
  isFull = false;
  feed.write();
  assertEquals(feed.status, place.path);
  assertEquals(said, [[`writing ${place.path} again`, false]]);
  assertEquals(place.segment.status, 1);
  feed.stop();
});

/** The true time: 0.25 s ahead of this machine's, and 200 ppm faster. */
const TRUTH = { offset: 0.25, start: BigInt(Date.now()) * 1_000_000n, rate: 200e-6 };

/** A server that tells it. */
function truthful(): FakeServer {
  return new FakeServer(answering((_, { receive, transmit }) => {
    const later = (timestamp: bigint) => {
      const since = Number(fromTimestamp(timestamp, TRUTH.start) - TRUTH.start) / 1e9;
      return timestamp + units(TRUTH.offset + TRUTH.rate * since);
    };
    return { receive: later(receive), transmit: later(transmit) };
  }));
}

/** The reader, compiled. */
class Reader implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #lines: AsyncIterator<string>;

  private constructor(executable: string, path: string) {
    const { offset, start, rate } = TRUTH;
    const args = [path, String(offset * 1e9), String(start), String(rate * 1e9)];
    this.#child = new Deno.Command("nice", {
      args: [executable, ...args],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#lines = linesOf(this.#child.stdout);
  }

  /** @returns `null` without a C compiler. */
  static async start(path: string): Promise<Reader | null> {
    const source = "tests/fixtures/clockbound_reader.c";
    try {
      const args = ["-O2", "-o", `${path}.reader`, source];
      const { success } = await new Deno.Command("cc", { args }).output();
      assert(success, `${source} cannot be compiled`);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      console.log("there is no C compiler here: not tried");
      return null;
    }
    return new Reader(`${path}.reader`, path);
  }

  /** Waits until it is told a status. A slow machine may have it told others before. */
  async until(status: number): Promise<void> {
    for (;;) {
      const { value, done } = await this.#lines.next();
      assert(!done, "the reader has ended");
      if (value === `status ${status}`) return;
    }
  }

  /** What it has counted. */
  async end(): Promise<Record<string, number>> {
    await this.#child.stdin.close();
    for (;;) {
      const { value, done } = await this.#lines.next();
      assert(!done, "it has counted nothing");
      if (value.startsWith("{")) return JSON.parse(value);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await this.#child.stdin.close().catch(() => {});
    for (let line = await this.#lines.next(); !line.done; line = await this.#lines.next());
    await this.#child.status;
  }
}

/** `tsync sync --watch --clockbound` as a process. */
class Keeper implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;

  constructor(path: string, server: string, ...flags: string[]) {
    const args = ["sync", "--watch", "--json", ...flags, "--clockbound", path, server];
    this.#child = new Deno.Command(program.executable, {
      args: commandLine(program, args),
      stdout: "null",
      stderr: "null",
    }).spawn();
  }

  send(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  /** @returns The exit status. */
  async end(signal: Deno.Signal): Promise<number> {
    this.send(signal);
    return (await this.#child.status).code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end("SIGKILL").catch(() => {});
  }
}

test("no reader is told a wrong interval, whatever happens to tsync", async () => {
  await using place = new Place();
  await using reader = await Reader.start(place.path);
  if (reader === null) return;
  await using serving = new AsyncDisposableStack();
  const server = serving.use(truthful());
  for (let kills = 0; kills < 3; kills++) {
    await using keeper = new Keeper(place.path, server.address);
    // What the one before left still holds when the next takes over.
    if (kills === 0) await reader.until(1);
    const { generation } = place.segment;
    while (place.segment.generation === generation) {
      await new Promise((resolve) => setTimeout(resolve, 20 + 7 * kills));
    }
    await keeper.end("SIGKILL");
  }
  await using keeper = new Keeper(place.path, server.address);
  const { generation } = place.segment;
  while (place.segment.generation === generation) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  keeper.send("SIGSTOP");
  await reader.until(0); // What is not renewed becomes void.
  keeper.send("SIGCONT");
  await reader.until(1);
  await serving.disposeAsync();
  await reader.until(2); // The clock runs free.
  assertEquals(await keeper.end("SIGTERM"), 0);
  assertEquals(place.segment.status, 0, "it says that it ends");
  const { reads, believed, wrong, updates, busy, least } = await reader.end();
  console.log(`clockbound: ${reads} reads, ${believed} believed, ${updates} updates, ${busy} busy`);
  assertEquals(wrong, 0);
  assert(
    updates! > 4 && believed! > 10_000,
    `${believed} of ${reads} believed, ${updates} updates`,
  );
  assert(least! < 0.5e9, `a bound of ${least} ns says nothing`);
});

Deno.test("--clockbound is refused where it makes no sense", () => {
  const rows: [string[], string][] = [
    [["--clockbound", "/run/a"], "--clockbound needs --watch"],
    [["--watch", "--clockbound"], "--clockbound needs a value, FILE: "],
    [
      ["--watch", "--clockbound", "a"],
      '--clockbound must be an absolute path: current value is "a"',
    ],
  ];
  for (const [flags, sentence] of rows) {
    assertThrows(() => parseCommandLine(["sync", ...flags]), UsageError, sentence);
  }
});

test("tsync says why it cannot write, before it asks a server", async () => {
  await using place = new Place();
  await Deno.writeTextFile(place.path, "something");
  await using server = new FakeServer(answering(() => ({})));
  const { code, stderr } = await run(
    program,
    ...["sync", "--watch", "--clockbound", place.path, server.address],
  );
  assertEquals(code, 1);
  assertMatch(stderr, /^tsync: cannot write \S+ for --clockbound: there is something else in it/);
  assertEquals(server.connections, 0);
});
