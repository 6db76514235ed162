/**
 * Setting the clock: against a libc that has a clock of its own. The machine's
 * is never set.
 *
 * @module
 */

import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { commandLine, linesOf, type Program, run, SOURCE } from "../scripts/program.ts";
import { Journal } from "../src/cli/journal.ts";
import { type ClockSetter, openClockSetter, type Steering } from "../src/clock/clock_setter.ts";
import { type Fix, serve, type Update, Watch } from "../src/mod.ts";
import { Corrector, decide, leapToday, type Target } from "../src/sync/correction.ts";
import { answering, FakeServer } from "./fake_server.ts";
import { FakeSetter } from "./fake_setter.ts";
import { SimulatedKernel } from "./simulation/kernel.ts";
import { S, trueOffset, World } from "./simulation/world.ts";

const NOW = 1_795_342_503_123_456_789n;
const EPERM = 1;
const EINVAL = 22;

const NAMES = [
  ...["time", "ahead", "sets", "slews", "slewed", "writes", "offset", "freq", "maxerror"],
  ...["esterror", "status", "constant", "tick", "planned"],
] as const;
const STA = { PLL: 0x01, INS: 0x10, DEL: 0x20, UNSYNC: 0x40, FREQHOLD: 0x80, NANO: 0x2000 };

/** The fake's side of it. */
interface Fake {
  readonly open: () => ClockSetter & Disposable;
  readonly state: (what: typeof NAMES[number]) => bigint;
  readonly fail: (error: number) => void;
  /** What another program does. */
  readonly disturb: (freq: bigint, status: number, tick: bigint) => void;
  /** What it, or the kernel itself, makes of the errors, in microseconds. */
  readonly err: (maximum: bigint, estimated: bigint) => void;
}

/** Compiles the fake, and opens it from both sides. */
async function withFake(flags: readonly string[], body: (fake: Fake) => void): Promise<void> {
  const directory = await Deno.makeTempDir();
  const path = `${directory}/fake_setting.so`;
  try {
    const args = ["-shared", "-fPIC", "-nostdlib", "-ffreestanding", ...flags, "-o", path];
    const { success, stderr } = await new Deno.Command("cc", {
      args: [...args, "tests/fixtures/fake_setting.c"],
    }).output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
    const library = Deno.dlopen(path, {
      fake_state: { parameters: ["i32"], result: "i64" },
      fake_failure: { parameters: ["i32"], result: "void" },
      fake_errors: { parameters: ["i64", "i64"], result: "void" },
      fake_kernel: { parameters: ["i64", "i32", "i64"], result: "void" },
    });
    body({
      open: () => openClockSetter([path]),
      state: (what) => library.symbols.fake_state(NAMES.indexOf(what)),
      fail: (error) => library.symbols.fake_failure(error),
      disturb: (freq, status, tick) => library.symbols.fake_kernel(freq, status, tick),
      err: (maximum, estimated) => library.symbols.fake_errors(maximum, estimated),
    });
    library.close();
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function hasCompiler(): Promise<boolean> {
  try {
    return (await new Deno.Command("cc", { args: ["--version"] }).output()).success;
  } catch {
    return false;
  }
}

const LAYOUTS = { "Linux's": [], "macOS's": ["-DMACOS"] };

/** Runs a test with the structures of both systems. */
function testBoth(what: string, body: (fake: Fake, isLinux: boolean) => void): void {
  for (const [name, flags] of Object.entries(LAYOUTS)) {
    Deno.test(`${what}, with ${name} structures`, async () => {
      if (!await hasCompiler()) return console.log("there is no cc here: not tried");
      await withFake(flags, (fake) => body(fake, flags.length === 0));
    });
  }
}

testBoth("the clock is stepped, and no time is lost", ({ open, state, fail }, isLinux) => {
  const ahead = state("ahead");
  using setter = open();
  assertEquals([state("ahead"), state("sets")], [ahead, 0n], "nothing is set by opening it");
  let expected = ahead;
  for (const by of [37_500_000_001n, -37_600_000_001n, -999_999_999n, 5_000n]) {
    setter.slew(50_000_000n);
    setter.step(by);
    expected += by;
    const error = state("ahead") - expected;
    assert(error < 2000n && -error < 2000n, `${by} ns: ${error} ns off`);
    if (isLinux) assertEquals(error, 0n);
    assertEquals(state("slewed"), 0n, "what is left of an earlier slew is not added to it");
  }
  if (isLinux) assertEquals(state("sets"), 0n);
  assertThrows(() => setter.step(-state("time") - 1n), Error, "it does not go back beyond 1970");
  fail(EINVAL);
  assertThrows(() => setter.step(1n), Error, "cannot read the system clock");
  fail(EPERM);
  const { message } = assertThrows(() => setter.step(1n), Error);
  assertStringIncludes(message, "cannot set the system clock: it takes a privilege; use sudo");
  assertStringIncludes(message, "sudo setcap cap_sys_time+ep");
  fail(0);
});

testBoth("the clock is slewed by adjtime once", ({ open, state, fail }) => {
  using setter = open();
  for (
    const [by, microseconds] of [
      [50_000_000n, 50_000n],
      [-50_000_000n, -50_000n],
      [1_250_000_499n, 1_250_000n],
      [-1_250_000_500n, -1_250_001n],
      [-999n, -1n],
      [499n, 0n],
    ] as const
  ) {
    setter.slew(by);
    assertEquals(state("slewed"), microseconds, `${by} ns`);
  }
  fail(EINVAL);
  assertThrows(() => setter.slew(1n), Error, "the system refuses it (error 22)");
  fail(0);
  assertThrows(() => setter.slew(-2_146_000_000_000n), Error, "cannot slew the system clock");
  assertEquals([state("slews"), state("sets")], [6n, 0n]);
});

testBoth("the kernel is told all that it must know to steer", (fake, isLinux) => {
  const { open, state, disturb } = fake;
  using setter = open();
  assertEquals(setter.frequency, 0);
  setter.slew(50_000_000n);
  assertEquals([setter.gain, setter.steeringSeconds], isLinux ? [1 / 4, 1] : [1 / 16, 4]);
  const error = { maximum: 0.0012341, estimated: 0.0000004 };
  const steering = { phase: -1234.6, frequency: 50e-6, error, leap: "insert" } as const;
  assertEquals(setter.steer(steering), false, "nobody else has steered it");
  const steered = STA.PLL | STA.FREQHOLD | STA.NANO;
  const said = () =>
    (["offset", "freq", "maxerror", "esterror", "status", "constant"] as const)
      .map((what) => Number(state(what)));
  assertEquals(said(), [-1235, 50 << 16, 1235, 1, steered | STA.INS, 0]);
  assertEquals(state("slewed"), 0n, "what is left of an earlier slew is not added to it");
  setter.steer({ ...steering, leap: "delete" });
  assertEquals(state("status"), BigInt(steered | STA.DEL));
  assertEquals(state("slews"), 2n, "once is enough");
  assertAlmostEquals(setter.frequency, 50e-6, 1e-11);

  // Without an error it is not synchronised; without a frequency that stays as it is.
  setter.steer({ phase: 0, frequency: null, error: null, leap: "none" });
  assertEquals(said(), [0, 50 << 16, 1235, 1, steered | STA.UNSYNC, 0]);

  setter.steer({ phase: 0, frequency: 600e-6, error: null, leap: "none" });
  assertEquals(state("freq"), 500n << 16n, "the kernel goes no further");
  // It is no surprise that it differs from what was asked for.
  assertEquals(setter.steer({ ...steering, frequency: 1e-6 }), false);

  // Another program changes the frequency, or how the clock is steered.
  disturb(7n << 16n, steered, isLinux ? 10_000n : 0n);
  assertEquals([setter.steer(steering), setter.steer(steering)], [true, false]);
  disturb(50n << 16n, STA.PLL | STA.NANO, isLinux ? 10_000n : 0n);
  assertEquals([setter.steer(steering), setter.steer(steering)], [true, false]);

  if (!isLinux) return;
  // chronyd leaves a tick of another length behind.
  for (const frequency of [150e-6, null]) {
    disturb(0n, 0, 10_002n);
    assertAlmostEquals(setter.frequency, 200e-6, 1e-11);
    setter.steer({ ...steering, frequency });
    assertEquals(state("tick"), 10_000n);
    assertAlmostEquals(setter.frequency, frequency ?? 200e-6, 1e-11);
  }
});

testBoth("another program is noticed by the errors that it tells the kernel", (fake) => {
  using setter = fake.open();
  const error = { maximum: 0.0012, estimated: 0.00002 };
  const steering = { phase: 0, frequency: null, error, leap: "none" } as const;
  const rows: [bigint, bigint, boolean][] = [
    [1200n, 20n, false],
    // The kernel itself lets it grow, by so much a second, and forgets both when the clock is set.
    [1700n, 20n, false],
    [61_200n, 20n, false],
    [16_000_000n, 16_000_000n, false],
    [1200n, 21n, true],
    [1201n, 20n, true],
    [700n, 20n, true],
  ];
  for (const [maximum, estimated, expected] of rows) {
    setter.steer(steering);
    fake.err(maximum, estimated);
    assertEquals(setter.steer(steering), expected, `${maximum} and ${estimated} µs`);
  }
  // Neither who steps the clock nor who has let it go knows what has come of it.
  setter.step(1000n);
  assertEquals(setter.steer(steering), false);
  setter.steer({ ...steering, error: null });
  fake.err(1n, 1n);
  assertEquals(setter.steer(steering), false);
});

testBoth("a leap second is planned anew when the clock was set", (fake, isLinux) => {
  const { open, state } = fake;
  if (!isLinux) return; // macOS knows none.
  using setter = open();
  const error = { maximum: 0.0012, estimated: 0.00002 };
  const steering = { phase: 0, frequency: null, error, leap: "insert" } as const;
  const letGo = { ...steering, error: null, leap: "none" } as const;
  const happenings = [
    () => {},
    () => setter.step(5_000_000n),
    () => fake.err(16_000_000n, 16_000_000n), // Another program sets it.
    () => fake.err(16_000_000n, 16_000_000n) ?? setter.steer(letGo),
  ];
  for (const happens of happenings) {
    happens();
    setter.steer(steering);
    assertEquals(state("planned"), 1n, `${happens}`);
    assertEquals(Number(state("status")), STA.PLL | STA.FREQHOLD | STA.INS | STA.NANO);
  }
});

testBoth("whoever keeps the clock already is told from a tsync that was killed", (fake) => {
  using setter = fake.open();
  const rows: [number, boolean][] = [
    [STA.UNSYNC, false],
    [STA.PLL | STA.FREQHOLD | STA.NANO | STA.UNSYNC, false],
    [STA.PLL | STA.FREQHOLD | STA.NANO, false],
    [0, true],
    [STA.PLL | STA.NANO, true],
  ];
  for (const [status, expected] of rows) {
    fake.disturb(0n, status, 0n);
    assertEquals(setter.isKeptByOther, expected, `status ${status}`);
  }
});

testBoth("without the privilege the clock is not even opened for setting", (fake) => {
  fake.fail(EPERM);
  assertThrows(() => fake.open(), Error, "cannot set the system clock: it takes a privilege");
  fake.fail(0);
  const before = NAMES.filter((what) => !["time", "writes"].includes(what)).map(fake.state);
  using _setter = fake.open();
  const after = NAMES.filter((what) => !["time", "writes"].includes(what)).map(fake.state);
  assertEquals([after, fake.state("writes")], [before, 1n], "it is tried, and changes nothing");
});

Deno.test("where libc may not be loaded the clock cannot be set, and that is said", () => {
  assertThrows(() => openClockSetter(["/nowhere/libc.so"]), Error, "/nowhere/libc.so");
});

function fixOf(offset: number | null, errorBound = 0.001): Fix {
  const synchronised = offset !== null;
  return {
    synchronised,
    localTime: NOW,
    offset,
    errorBound: synchronised ? errorBound : null,
    delay: synchronised ? errorBound : null,
    leap: synchronised ? "none" : null,
    isMajority: synchronised,
    servers: [],
  };
}

Deno.test("decide() steps beyond the threshold what is beyond doubt, and slews the rest", () => {
  const rows: [number, number, boolean, ReturnType<typeof decide>][] = [
    [0, 0.128, true, "none"],
    [4.9e-7, 0.128, true, "none"],
    [5e-7, 0.128, true, "slew"],
    [-5.1e-7, 0.128, true, "slew"],
    [0.0009, 0.128, true, "slew"],
    [-0.128, 0.128, false, "slew"],
    [0.1281, 0.128, false, "step"],
    [-0.1281, 0.128, true, "step"],
    [0.0011, 0, false, "step"],
    [0.001, 0, false, "slew"],
    [0.0009, 0, false, "slew"],
    [900, 1000, false, "slew"],
    [1000, 0.128, false, "step"],
    [1000.1, 0.128, false, "refused"],
    [1e9, 0.128, true, "step"],
  ];
  for (const [offset, threshold, isFirst, expected] of rows) {
    const known = { offset, errorBound: 0.001 };
    assertEquals(decide(known, threshold, isFirst), expected, `${offset} s`);
  }
});

Deno.test("Corrector corrects by a fix once, whatever it was off by", () => {
  const rows: [Fix, string, bigint[], bigint[]][] = [
    [fixOf(null), "none", [], []],
    [fixOf(5000), "step", [5_000_000_000_000n], []],
    [fixOf(0.05), "slew", [], [50_000_000n]],
    [fixOf(-0.0001), "slew", [], [-100_000n]],
    [{ ...fixOf(5), isMajority: false }, "doubted", [], []],
  ];
  for (const [fix, action, steps, slews] of rows) {
    const setter = new FakeSetter();
    assertEquals(new Corrector(setter).correct(fix).action, action);
    assertEquals([setter.steps, setter.slews, setter.steered], [steps, slews, []]);
  }
});

/** What is known of the system clock: that it is so many seconds behind. */
function targetOf(offset: number, errorBound = 0.001, frequency = 20e-6): Target {
  return {
    clock: { localTime: 0n, offset, errorBound, frequency: 0, frequencyBound: 15e-6 },
    frequency,
    deviation: { offset: 2500, frequency: 1e-6 },
    rootDistance: 0,
    leap: "none",
  };
}

Deno.test("Corrector leaves to who keeps the clock what may be right", () => {
  const setter = Object.assign(new FakeSetter(), { isKeptByOther: true });
  const done = [0.001, -0.0011, 5].map((offset) => new Corrector(setter).correct(fixOf(offset)));
  assertEquals(done, [
    { action: "none", offset: 0.001 },
    { action: "slew", offset: -0.0011 },
    { action: "step", offset: 5 },
  ]);
  assertEquals([setter.slews, setter.steps], [[-1_100_000n], [5_000_000_000n]]);
});

Deno.test("Corrector takes one great step, the first, and no other", () => {
  const setter = new FakeSetter();
  const corrector = new Corrector(setter);
  const actions = [5000, 0.05, 5000, -0.2, 0.0001, 0].map((offset) =>
    corrector.follow(targetOf(offset)).action
  );
  assertEquals(actions, ["step", "slew", "refused", "step", "slew", "none"]);
  assertEquals(setter.steps, [5_000_000_000_000n, -200_000_000n]);
  assertEquals(setter.steered, []);
  const once = new Corrector(new FakeSetter());
  assertEquals([1, -1].map(() => once.follow(targetOf(5000, 1500)).action), ["step", "refused"]);
  // A bound so wide says nothing of whether it was right.
  for (const offset of [2000, 900]) {
    const wide = new Corrector(new FakeSetter());
    assertEquals(wide.follow(targetOf(offset, 2500)).action, "slew");
    assertEquals(wide.follow(targetOf(2000)).action, "step");
  }
  // Once it is known to be right, it is not the first correction any more.
  const right = new Corrector(new FakeSetter());
  assertEquals([0, 5000].map((offset) => right.follow(targetOf(offset)).action), [
    "none",
    "refused",
  ]);
});

Deno.test("Corrector steers no faster than it should, and says how wrong the clock is", () => {
  const setter = new FakeSetter();
  const corrector = new Corrector(setter);
  assertEquals([corrector.steer(null), setter.steered], [false, []], "it was left alone");
  for (const offset of [0.05, -0.05, 3e-6]) corrector.steer(targetOf(offset));
  assertEquals(setter.steered.map(({ phase }) => phase), [20e6, -20e6, 3000]);
  const { error, frequency } = setter.steered[2]!;
  // In its second the kernel goes on with 5 ms of what it was told before.
  assertAlmostEquals(error!.maximum, 0.001003 + 0.005, 1e-12);
  assertAlmostEquals(error!.estimated, 5.5e-6, 1e-12);
  assertEquals(frequency, null, "20 ppm were set before");
  // It cannot be told from what the kernel has, or it can.
  corrector.steer(targetOf(0, 0.001, 20.9e-6));
  corrector.steer(targetOf(0, 0.001, 21.1e-6));
  assertEquals(setter.steered.slice(3).map(({ frequency }) => frequency), [null, 21.1e-6]);
  // What is likely cannot be worse than what is possible; and who may be wrong by 16 s knows nothing.
  corrector.steer(targetOf(0, 1e-6));
  corrector.steer(targetOf(0, 15.9));
  corrector.steer({ ...targetOf(0, 1e-6), rootDistance: 0.25 });
  corrector.steer(targetOf(0, 16));
  const errors = setter.steered.splice(5).map(({ error }) => error);
  assertEquals(errors, [
    { maximum: 1e-6, estimated: 1e-6 },
    { maximum: 15.9, estimated: 2.5e-6 },
    { maximum: 0.250001, estimated: 2.5e-6 },
    null,
  ]);
  const nothing = { phase: 0, frequency: null, error: null, leap: "none" } as const;
  corrector.steer(null);
  corrector.steer(null);
  assertEquals(setter.steered.slice(5), [nothing], "the kernel is told once");
  corrector.steer(targetOf(0));
  corrector.steer(targetOf(1001));
  assertEquals(setter.steered.at(-1), nothing, "what is refused is not approached either");
});

Deno.test("Corrector steers as fast where the kernel adds less of a phase in a second", () => {
  const setter = Object.assign(new FakeSetter(), { gain: 1 / 16 });
  new Corrector(setter as FakeSetter).steer(targetOf(0.1));
  assertEquals(setter.steered[0]!.phase, 80e6);
});

Deno.test("leapToday() keeps a leap second for the end of June and December", () => {
  const rows: [string, string][] = [
    ["2026-06-30T00:00:00Z", "insert"],
    ["2026-06-30T23:59:59Z", "insert"],
    ["2026-07-01T00:00:00Z", "none"],
    ["2026-12-31T12:00:00Z", "insert"],
    ["2026-12-30T23:59:59Z", "none"],
    ["2026-03-31T12:00:00Z", "none"],
    ["2026-01-31T12:00:00Z", "none"],
  ];
  for (const [time, expected] of rows) {
    assertEquals(leapToday("insert", BigInt(Date.parse(time)) * 1_000_000n), expected, time);
  }
});

Deno.test("Watch steers the clock, is not surprised by that, and lets it go in the end", async () => {
  const world = new World(1);
  const server = world.host("server", { offset: 3.7 });
  const client = world.host("client", { frequency: 40 });
  const serving = await world.run(serve({ hosts: ["server"], ...server.environment }));
  const kernel = new SimulatedKernel(world, client.clock);
  const stop = new AbortController();
  const watch = new Watch({
    servers: ["server"],
    corrector: new Corrector(kernel),
    signal: stop.signal,
    ...client.environment,
  });
  const updates: Update[] = [];
  const watching = (async () => {
    for await (const update of watch) updates.push(update);
  })();
  const behind = () => Number(trueOffset(server.clock.exact(), client.clock.exact())) / 1e9;
  await world.sleep(100);
  assertEquals(new Set(updates.map(({ news }) => news)), new Set(["first", "agrees"]));
  assertEquals([updates[0]!.correction!.action, kernel.steps.length], ["step", 1]);
  assert(Math.abs(behind()) < 5e-6, `${behind()} s`);
  assertAlmostEquals(kernel.frequency, -40e-6, 0.5e-6);
  assertAlmostEquals(watch.clock.systemOffset()!.frequency, 0, 0.5e-6);
  assert(kernel.told!.error!.maximum > Math.abs(behind()));

  // A slew as fast as it gets does not look like a step; and who is killed does not run away.
  client.clock.step(0.001);
  client.clock.step(-0.001);
  server.clock.step(0.1);
  await world.sleep(100);
  assert(Math.abs(behind()) < 20e-6, `${behind()} s`);
  assertEquals(updates.filter(({ news }) => news === "disturbed"), []);
  server.clock.step(0.1);
  await world.sleep(40);
  stop.abort();
  await world.run(watching);
  assertEquals(kernel.told, { phase: 0, frequency: null, error: null, leap: "none" });
  const left = behind();
  await world.sleep(1000);
  assert(Math.abs(behind() - left) < 1e-3, `${behind() - left} s in 1000 s`);
  await world.run(serving.stop());
});

Deno.test("the kernel is told how wrong the clock can be by a slew that was begun on little knowledge", async () => {
  for (let seed = 1; seed <= 5; seed++) {
    const world = new World(seed);
    const server = world.host("server");
    const client = world.host("client");
    // The first poll finds the clock to be 20 ms behind, plus or minus as much; the second, right.
    let out = 0.04;
    server.path = { out: () => out, back: () => 0.0003 };
    const serving = await world.run(serve({ hosts: ["server"], ...server.environment }));
    const kernel = new SimulatedKernel(world, client.clock);
    const stop = new AbortController();
    const watch = new Watch({
      servers: ["server"],
      corrector: new Corrector(kernel),
      signal: stop.signal,
      ...client.environment,
    });
    const watching = (async () => {
      for await (const _ of watch) out = 0.0003;
    })();
    let told = kernel.told;
    let since = 0;
    for (let i = 0; i < 500; i++) {
      await world.sleep(0.01);
      if (kernel.told !== told) [told, since] = [kernel.told, world.now];
      if (told === null) continue;
      const error = Math.abs(Number(trueOffset(server.clock.exact(), client.clock.exact()))) / 1e9;
      // The kernel adds 500 µs a second.
      const most = told.error!.maximum + 500e-6 * (world.now - since) / 1e9;
      assert(error <= most, `seed ${seed}, ${i}: ${error} s is not within ${most}`);
    }
    stop.abort();
    await world.run(watching);
    await world.run(serving.stop());
  }
});

Deno.test("a clock whose keeper is killed in mid-slew does not run away", async () => {
  const world = new World(2);
  const { clock } = world.host("client");
  const kernel = new SimulatedKernel(world, clock);
  new Corrector(kernel).steer(targetOf(0.1, 0.001, 0));
  const before = clock.exact();
  await world.sleep(1000);
  const gone = Number(trueOffset(clock.exact(), before)) / 1e9 - 1000;
  assertAlmostEquals(gone, 0.02, 1e-6);
});

Deno.test("Watch ends with the reason when the clock cannot be steered any more", async () => {
  const world = new World(3);
  const server = world.host("server");
  const client = world.host("client");
  const serving = await world.run(serve({ hosts: ["server"], ...server.environment }));
  const setter = new FakeSetter();
  const corrector = new Corrector(setter);
  const watch = new Watch({ servers: ["server"], corrector, ...client.environment });
  let times = 0;
  world.at(100 * S, () => {
    setter.steer = () => {
      throw new Error(`cannot steer the system clock, ${++times}`);
    };
  });
  const states: boolean[] = [];
  const watching = (async () => {
    for await (const { isContested } of watch) {
      states.push(isContested);
      setter.isDisturbed = states.length === 3;
    }
  })();
  await assertRejects(() => world.run(watching), Error, "cannot steer the system clock, 1");
  assert(world.now < 102 * S, "it does not wait for the next poll");
  // It ends, too, if that happens once and the caller takes its time over an update.
  let failures = 0;
  let last: Steering | undefined;
  const before = world.now;
  setter.steer = (steering) => {
    last = steering;
    if (world.now < before + 5 * S || failures++ > 0) return false;
    throw new Error("cannot steer the system clock");
  };
  const held = watch[Symbol.asyncIterator]();
  await world.run(held.next());
  await world.sleep(10);
  assertEquals(failures, 1);
  await assertRejects(() => world.run(held.next()), Error, "cannot steer the system clock");
  assertEquals(last!.error, null, "the kernel is told that nobody keeps it, if it can be told");
  // That it could not be let go is said if nothing else is.
  setter.steer = ({ error }) => {
    if (error === null) throw new Error("cannot steer the system clock");
    return false;
  };
  const ended = watch[Symbol.asyncIterator]();
  await world.run(ended.next());
  await assertRejects(() => world.run(ended.return()), Error, "cannot steer the system clock");
  setter.steer = () => false;
  const { value } = await world.run(watch[Symbol.asyncIterator]().next());
  assertEquals(value?.state, "synchronised", "it can be iterated over again");
  assertEquals(states.slice(0, 5), [false, false, false, true, false]);
  await world.run(serving.stop());
});

Deno.test("Watch steers as often as the kernel wants, however often it polls", async () => {
  for (const [steeringSeconds, interval] of [[1, 0.25], [1, 32], [4, 0.25], [4, 32]] as const) {
    const world = new World(5);
    const server = world.host("server");
    const client = world.host("client");
    const serving = await world.run(serve({ hosts: ["server"], ...server.environment }));
    const setter = Object.assign(new FakeSetter(), { steeringSeconds });
    const corrector = new Corrector(setter as FakeSetter);
    const stop = new AbortController();
    const options = { servers: ["server"], interval, corrector, signal: stop.signal };
    const watch = new Watch({ ...options, ...client.environment });
    const watching = (async () => {
      for await (const _ of watch);
    })();
    await world.sleep(80);
    const times = setter.steered.length * steeringSeconds;
    assert(times >= 72 && times <= 84, `${setter.steered.length} times in 80 s`);
    stop.abort();
    await world.run(watching);
    await world.run(serving.stop());
  }
});

Deno.test("Watch says with the next poll that another program steered the clock, even once", async () => {
  const world = new World(7);
  const server = world.host("server");
  const client = world.host("client");
  const serving = await world.run(serve({ hosts: ["server"], ...server.environment }));
  const setter = new FakeSetter();
  const corrector = new Corrector(setter);
  setter.steer = function (steering) {
    this.steered.push(steering);
    return this.steered.length === 5;
  };
  const options = { servers: ["server"], interval: 10, corrector };
  const contested: boolean[] = [];
  await world.run((async () => {
    for await (const { isContested } of new Watch({ ...options, ...client.environment })) {
      if (contested.push(isContested) === 3) break;
    }
  })());
  assertEquals(contested, [false, true, false]);
  await world.run(serving.stop());
});

Deno.test("Watch tells the kernel at once that the clock is no longer known, however seldom it steers", async () => {
  const world = new World(8);
  const server = world.host("server");
  const client = world.host("client");
  const serving = await world.run(serve({ hosts: ["server"], ...server.environment }));
  const setter = Object.assign(new FakeSetter(), { steeringSeconds: 1000 });
  const corrector = new Corrector(setter as FakeSetter);
  const options = { servers: ["server"], interval: 100, corrector };
  const watch = new Watch({ ...options, ...client.environment });
  const polls = watch[Symbol.asyncIterator]();
  await world.run(polls.next());
  await world.sleep(10);
  client.clock.step(3);
  await world.sleep(1.5);
  assertEquals(setter.steered.map(({ error }) => error !== null), [true, false]);
  await world.run(polls.next());
  assertEquals(setter.steered.map(({ error }) => error !== null), [true, false, true]);
  // A step, too, ends what the kernel was told.
  server.clock.step(5);
  const { value } = await world.run(polls.next());
  assertEquals([value!.correction!.action, setter.steered.length], ["step", 4]);
  await world.run(polls.return());
  // Iterated over again, it does not wait either.
  server.clock.step(-2);
  const again = watch[Symbol.asyncIterator]();
  await world.run(again.next());
  assertEquals(setter.steered.map(({ error }) => error !== null).slice(4), [false, true]);
  await world.run(again.return());
  await world.run(serving.stop());
});

Deno.test("Watch ends before the next poll when the clock cannot be steered, if it asks seldom, too", async () => {
  const world = new World(9);
  const server = world.host("server");
  const client = world.host("client");
  const serving = await world.run(
    serve({ hosts: ["server"], udpPort: 123, ...server.environment }),
  );
  const setter = new FakeSetter();
  const options = { servers: ["ntp://server"], corrector: new Corrector(setter) };
  const polls = new Watch({ ...options, ...client.environment })[Symbol.asyncIterator]();
  await world.run(polls.next());
  const polled = world.now;
  world.at(polled + 5 * S, () => {
    setter.steer = () => {
      throw new Error("cannot steer the system clock");
    };
  });
  await assertRejects(() => world.run(polls.next()), Error, "cannot steer the system clock");
  assert(world.now < polled + 20 * S, `after ${(world.now - polled) / S} s`);
  await world.run(serving.stop());
});

Deno.test("Watch takes a fast slew for a step only if it does not slew the clock itself", async () => {
  for (const corrector of [undefined, new Corrector(new FakeSetter())]) {
    const world = new World(10);
    const server = world.host("server");
    const client = world.host("client");
    const serving = await world.run(serve({ hosts: ["server"], ...server.environment }));
    const options = { servers: ["server"], corrector };
    const polls = new Watch({ ...options, ...client.environment })[Symbol.asyncIterator]();
    await world.run(polls.next());
    client.clock.slew(5500);
    const { value } = await world.run(polls.next());
    assertEquals(value!.news, corrector === undefined ? "disturbed" : "agrees");
    await world.run(polls.return());
    await world.run(serving.stop());
  }
});

Deno.test("Watch notices a sleep after the clock could not be steered", async () => {
  const world = new World(6);
  const server = world.host("server");
  const client = world.host("client");
  const serving = await world.run(serve({ hosts: ["server"], ...server.environment }));
  const setter = new FakeSetter();
  const corrector = new Corrector(setter);
  const watch = new Watch({ servers: ["server"], corrector, ...client.environment });
  const polls = watch[Symbol.asyncIterator]();
  await world.run(polls.next());
  setter.steer = () => {
    throw new Error("cannot steer the system clock");
  };
  await world.sleep(10);
  client.clock.step(3);
  await world.sleep(1.5);
  client.clock.step(-3);
  assertEquals(watch.clock.now(), null);
  await assertRejects(() => world.run(polls.next()), Error, "cannot steer the system clock");
  await world.run(serving.stop());
});

Deno.test("Watch passes on a leap second, on its day", async () => {
  for (const [day, expected] of [["2026-06-30", "insert"], ["2026-06-29", "none"]] as const) {
    const world = new World(4, BigInt(Date.parse(`${day}T12:00:00Z`)) * 1_000_000n);
    const state = { synchronised: true, maximumError: 0.25, estimatedError: 0, frequency: 0 };
    const server = world.host("server", { state: { ...state, leap: "insert" } });
    const client = world.host("client");
    const serving = await world.run(serve({ hosts: ["server"], ...server.environment }));
    const setter = new FakeSetter();
    const corrector = new Corrector(setter);
    const watch = new Watch({ servers: ["server"], corrector, ...client.environment });
    await world.run((async () => {
      for await (const _ of watch) break;
    })());
    assertEquals(setter.steered.map(({ leap }) => leap), [expected, "none"]);
    const { maximum } = setter.steered[0]!.error!;
    assert(maximum > 0.25 && maximum < 0.26, "the server's own error counts");
    await world.run(serving.stop());
  }
});

Deno.test("sync --set warns if something keeps the clock already", async () => {
  await using server = ahead(0.05);
  const { executable } = setProgram;
  for (const [env, expected] of [[{ KEPT: "1" }, 1], [{}, 0]] as const) {
    const args = commandLine(setProgram, ["sync", "--set", server.address]);
    const { stderr } = await new Deno.Command(executable, { args, env }).output();
    const warnings = new TextDecoder().decode(stderr).match(
      /warning: something else keeps the system/g,
    );
    assertEquals(warnings?.length ?? 0, expected);
  }
});

Deno.test("Corrector has done nothing when the clock cannot be set", () => {
  const setter = new FakeSetter();
  setter.step = () => {
    throw new Error("cannot set the system clock");
  };
  const corrector = new Corrector(setter);
  for (let i = 0; i < 2; i++) {
    assertThrows(() => corrector.correct(fixOf(5000)), Error, "cannot set the system clock");
  }
  for (const threshold of [-1, NaN, 1001]) {
    assertThrows(() => new Corrector(setter, threshold), RangeError);
  }
});

/** A server that is ahead by so many seconds. */
function ahead(seconds: number): FakeServer {
  const units = BigInt(Math.round(seconds * 2 ** 32));
  return new FakeServer(answering((_, { receive, transmit }) => ({
    receive: receive + units,
    transmit: transmit + units,
  })));
}

const importMap = SOURCE.args.filter((arg) => arg.startsWith("--import-map"));
const setProgram: Program = {
  ...SOURCE,
  args: ["run", "--quiet", "-A", ...importMap, "tests/fixtures/set_program.ts"],
};
const lines = (text: string) => text.trim().split("\n");

Deno.test("sync --set corrects once, and says so", async () => {
  // On a slow machine the server is some milliseconds off.
  const rows: [number, string[], RegExp][] = [
    [37.5, [], /^step 37\.[45]\d\ntsync: the system clock was stepped by \+37\.[45]\d* s\n$/],
    [0.05, [], /^slew 0\.0[456]\ntsync: the system clock is slewed by \+[456]\d(\.\d+)? ms\n$/],
    [-0.05, ["--step-threshold", "0.01", "--quiet"], /^step -0\.0[345]\n$/],
    [0, ["--json"], /^slew -?0\.0[01]\ntsync: the system clock is slewed by [+-][\d.]+ [mµn]s\n$/],
  ];
  for (const [seconds, flags, expected] of rows) {
    await using server = ahead(seconds);
    const args = ["sync", "--set", ...flags, server.address];
    const { code, stdout, stderr } = await run(setProgram, ...args);
    assertMatch(stderr, expected);
    assertEquals(code, 0);
    if (flags.includes("--json")) assertEquals(JSON.parse(stdout).synchronised, true);
  }
});

Deno.test("sync --set never sets by what no majority says", async () => {
  await using one = ahead(0);
  await using two = ahead(10);
  const { code, stderr } = await run(setProgram, "sync", "--set", one.address, two.address);
  assertEquals(code, 1);
  assertStringIncludes(stderr, "no majority of the servers agrees");
  assert(!/step|slew/.test(stderr), stderr);
});

Deno.test("sync --set never sets by the word of the only server of three that answers", async () => {
  await using liar = ahead(10);
  const dead = ["127.0.0.1:1", "127.0.0.1:2"];
  const { code, stdout, stderr } = await run(setProgram, "sync", "--set", liar.address, ...dead);
  assertEquals(code, 1);
  assertMatch(stdout, /offset +\+(10\.0|9\.99)/);
  assertStringIncludes(stderr, "tsync: the system clock is left alone: too few of the servers");
  assert(!/^(step|slew)/m.test(stderr), stderr);
});

Deno.test("sync --set --watch keeps the clock, and refuses a late great step", async () => {
  let offset = 50n;
  await using server = new FakeServer(answering((_, { receive, transmit }) => ({
    receive: receive + (offset << 32n) / 1000n,
    transmit: transmit + (offset << 32n) / 1000n,
  })));
  const args = commandLine(setProgram, ["sync", "--set", "--watch", "--interval", "0.02"]);
  const child = new Deno.Command(setProgram.executable, {
    args: [...args, server.address],
    stdout: "null",
    stderr: "piped",
    env: { CONTESTED: "1" },
  }).spawn();
  const events = linesOf(child.stderr);
  const [said, steered]: [string[], string[]] = [[], []];
  const until = async (pattern: RegExp) => {
    for (;;) {
      const { value, done } = await events.next();
      if (done) throw new Error(`it ended before ${pattern}`);
      (value.startsWith("steer") ? steered : said).push(
        value.replace(/[+-][\d.]+ m?s/, "so much").replace(/0\.[45]\d$/, "0.50"),
      );
      if (pattern.test(value)) return;
    }
  };
  await until(/^steer .*"phase":(2000|1999)\d*\b.*"maximum":0\.0[456]/);
  await until(/^steer .*"phase":(2000|1999)\d*\b/);
  offset = 500n;
  await until(/^step 0\.[45]\d$/);
  offset = -500n;
  await until(/^step -0\.[45]\d$/);
  offset = 5_000_000n;
  await until(
    /^tsync: the system clock is left alone: .* \+(5000(\.\d+)?|4999\.\d+) s is more than/,
  );
  for await (const line of events) steered.push(line);
  assertEquals((await child.status).code, 1, "a service manager starts it again");
  assertEquals(said, [
    "tsync: warning: another program steers the system clock too, such as chronyd, ntpd or " +
    "systemd-timesyncd: stop it, or leave out --set",
    "tsync: synchronised",
    "tsync: the system clock is slewed by so much",
    "step 0.50",
    "tsync: the system clock was stepped by so much",
    "step -0.50",
    "tsync: the system clock was stepped by so much",
    "tsync: the system clock is left alone: it was right before, and so much is more than the " +
    "1000 s that are credible; starting tsync again sets it",
  ]);
  const released = 'steer {"phase":0,"frequency":null,"error":null,"leap":"none"}';
  assertEquals(steered.at(-1), released);
});

Deno.test("sync --set --watch --quiet says nothing of what goes well", async () => {
  await using server = ahead(0.05);
  const watching = ["sync", "--set", "--watch", "--max-offset", "1e-9", server.address];
  for (const more of [["--quiet"], ["--json"]]) {
    const { code, stderr } = await run(setProgram, ...watching, ...more);
    const said = lines(stderr).filter((line) => line.startsWith("tsync: "));
    assertEquals([code, said.length], [3, more[0] === "--quiet" ? 1 : 3], stderr);
    assertMatch(said.at(-1)!, /^tsync: the local clock may be off by /);
  }
});

Deno.test("sync --set --watch says once that a server is gone, and that it is back", () => {
  const journal = new Journal(true, () => now * 1000);
  let now = 0;
  const say = (at: number, fix: Fix, more: Partial<Update> = {}) => {
    now = at;
    const update = { fix, news: "agrees", correction: null, isContested: false, ...more } as Update;
    return [...journal.errors(update), ...journal.notes(update)];
  };
  const report = {
    name: "a",
    status: "unreachable",
    sameAs: null,
    figures: null,
    error: "a is dead",
  };
  const gone = { ...fixOf(null), servers: [report] } as unknown as Fix;
  const slew = { action: "slew", offset: 0.05 } as const;
  assertEquals(say(0, gone), ["a is dead"]);
  assertEquals(say(1, gone), []);
  assertEquals(say(2, fixOf(0), { correction: { action: "slew", offset: 1e-5 } }), [
    "synchronised",
  ]);
  assertEquals(say(3, fixOf(0.05), { correction: slew }), [
    "the system clock is slewed by +50.0 ms",
  ]);
  assertEquals(say(4, fixOf(0.04), { correction: { ...slew, offset: 0.04 } }), []);
  assertEquals(say(5, gone), ["a is dead"]);
  assertEquals(say(125, fixOf(0), { news: "disturbed" }), [
    "the local clock was set, or the machine slept",
    "synchronised again, 121 s after the last fix",
  ]);
  assertEquals(say(125.5, fixOf(0), { news: "disturbed" }), []);
  assertEquals(say(126, fixOf(0.05), { correction: slew }).length, 0, "it was being slewed");
  assertEquals(say(126.5, fixOf(0.05), { news: "disturbed", correction: slew }).length, 1);
  assertEquals(
    say(127, fixOf(9999), { correction: { action: "refused", offset: 9999 } }).length,
    1,
  );
});

Deno.test("sync --watch says what is new of failures, slews and servers named twice, once each", () => {
  const say = (journal: Journal, fix: Fix, correction: Update["correction"] = null) => {
    const update = { fix, news: "agrees", correction, isContested: false } as unknown as Update;
    return [...journal.errors(update), ...journal.notes(update)];
  };
  const report = { name: "a", transport: "tcp", sameAs: null, figures: null, error: null };
  const fixWith = (offset: number | null, ...changes: object[]) =>
    ({
      ...fixOf(offset),
      servers: changes.map((each) => ({ ...report, ...each })),
    }) as unknown as Fix;
  const journal = new Journal(false);
  // None has an error, and still there is no majority.
  const liar = { status: "falseticker", figures: { offset: 0, errorBound: 1 } };
  const split = fixWith(null, liar, { ...liar, name: "b" });
  assertEquals([1, 2].map(() => say(journal, split).length > 0), [true, false]);
  assertEquals(say(journal, fixOf(0)), ["synchronised"], "it was not before");
  assertEquals(say(journal, fixOf(-0.05), { action: "slew", offset: -0.05 }), [
    "the system clock is slewed by -50.0 ms",
  ]);
  const truechimer = { status: "truechimer", address: "192.0.2.7:10085" };
  const twice = fixWith(0, truechimer, { ...truechimer, name: "b", sameAs: "a" });
  assertEquals([1, 2].map(() => say(journal, twice).length), [1, 0]);
  assertEquals(say(new Journal(false), fixOf(0)), [], "that goes without saying");
});

Deno.test("sync --set without the privilege is an error, and so is a threshold without --set", async () => {
  await using server = ahead(37.5);
  const { executable } = setProgram;
  for (const more of [[], ["--watch"]]) {
    const args = commandLine(setProgram, ["sync", "--set", ...more, server.address]);
    const { code, stderr } = await new Deno.Command(executable, { args, env: { REFUSED: "1" } })
      .output();
    const text = new TextDecoder().decode(stderr);
    assertEquals([code, lines(text)], [1, ["tsync: cannot set the system clock: no privilege"]]);
  }
  const usage = await run(setProgram, "sync", "--step-threshold", "1", server.address);
  assertEquals(usage.stderr, "tsync: --step-threshold needs --set\n");
  const large = await run(setProgram, "sync", "--set", "--step-threshold", "1001", server.address);
  assertStringIncludes(large.stderr, "--step-threshold must be at most 1000 seconds");
});
