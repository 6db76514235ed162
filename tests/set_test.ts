/**
 * Setting the clock: against a libc that has a clock of its own. The machine's
 * is never set.
 *
 * @module
 */

import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { commandLine, linesOf, type Program, run, SOURCE } from "../scripts/program.ts";
import { type ClockSetter, openClockSetter } from "../src/clock/clock_setter.ts";
import { type Fix, serve, type Update, Watch } from "../src/mod.ts";
import { Corrector, decide } from "../src/sync/correction.ts";
import { answering, FakeServer } from "./fake_server.ts";
import { World } from "./simulation/world.ts";

const NOW = 1_795_342_503_123_456_789n;
const EPERM = 1;
const EINVAL = 22;

/** Compiles the fake, and opens it from both sides. */
async function withFake(
  flags: readonly string[],
  body: (
    setter: ClockSetter,
    state: (what: "time" | "sets" | "slews" | "slewed") => bigint,
    fail: (error: number) => void,
  ) => void,
): Promise<void> {
  const directory = await Deno.makeTempDir();
  const path = `${directory}/fake_setting.so`;
  try {
    const args = ["-shared", "-fPIC", "-nostdlib", "-ffreestanding", ...flags, "-o", path];
    const { success, stderr } = await new Deno.Command("cc", {
      args: [...args, "tests/fixtures/fake_setting.c"],
    }).output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
    using setter = openClockSetter([path]);
    const fake = Deno.dlopen(path, {
      fake_state: { parameters: ["i32"], result: "i64" },
      fake_failure: { parameters: ["i32"], result: "void" },
    });
    const names = ["time", "sets", "slews", "slewed"];
    body(
      setter,
      (what) => fake.symbols.fake_state(names.indexOf(what)),
      (error) => fake.symbols.fake_failure(error),
    );
    fake.close();
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

for (const [name, flags] of Object.entries(LAYOUTS)) {
  Deno.test(`the clock is set with ${name} structures`, async () => {
    if (!await hasCompiler()) return console.log("there is no cc here: not tried");
    await withFake(flags, (setter, state, fail) => {
      assertEquals(state("time"), NOW, "nothing is set by opening it");
      setter.step(37_500_000_001n);
      assertEquals([state("time"), state("sets")], [NOW + 37_500_000_001n, 1n]);
      setter.step(-37_600_000_001n);
      assertEquals([state("time"), state("sets")], [NOW - 100_000_000n, 2n]);
      // Before the beginning of the epoch there is no whole second below zero.
      setter.step(-state("time") - 1n);
      assertEquals(state("time"), -1n);
      setter.step(NOW + 1n);
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
      assertEquals([state("slews"), state("sets"), state("time")], [6n, 4n, NOW]);

      fail(EPERM);
      for (const set of [() => setter.step(1n), () => setter.slew(1n)]) {
        const { message } = assertThrows(set, Error);
        assertStringIncludes(message, "sudo setcap cap_sys_time+ep");
        assertStringIncludes(message, "the system clock: it takes a privilege; use sudo");
      }
      fail(EINVAL);
      assertThrows(() => setter.slew(1n), Error, "the system refuses it (error 22)");
      assertThrows(() => setter.step(1n), Error, "cannot read the system clock");
      fail(0);
      assertThrows(() => setter.slew(-2_146_000_000_000n), Error, "cannot slew the system clock");
      assertEquals([state("slews"), state("sets"), state("time")], [6n, 4n, NOW]);
    });
  });
}

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

Deno.test("decide() steps beyond the threshold, slews within it, and leaves alone what it cannot tell", () => {
  const rows: [number | null, number, boolean, ReturnType<typeof decide>][] = [
    [0.0009, 0.128, true, "none"],
    [-0.001, 0.128, true, "none"],
    [0.0011, 0.128, true, "slew"],
    [-0.128, 0.128, false, "slew"],
    [0.1281, 0.128, false, "step"],
    [-0.1281, 0.128, true, "step"],
    [0.0011, 0, false, "step"],
    [900, 1000, false, "slew"],
    [4e-7, 0.128, false, "none"],
    [1000, 0.128, false, "step"],
    [1000.1, 0.128, false, "refused"],
    [1e9, 0.128, true, "step"],
    [null, 0.128, true, "none"],
  ];
  for (const [offset, threshold, isFirst, expected] of rows) {
    assertEquals(
      decide(fixOf(offset, offset === 4e-7 ? 1e-7 : 0.001), threshold, isFirst),
      expected,
      `${offset} s`,
    );
  }
});

Deno.test("Corrector takes one great step, the first, and no other", () => {
  const done: [string, bigint][] = [];
  const corrector = new Corrector({
    step: (by) => done.push(["step", by]),
    slew: (by) => done.push(["slew", by]),
  });
  const actions = [null, 5000, 0.05, 5000, -0.2, 0.0001].map((offset) =>
    corrector.correct(fixOf(offset)).action
  );
  assertEquals(actions, ["none", "step", "slew", "refused", "step", "none"]);
  assertEquals(done, [
    ["step", 5_000_000_000_000n],
    ["slew", 50_000_000n],
    ["slew", 0n],
    ["step", -200_000_000n],
  ]);
  // A bound so wide says nothing of whether it was right.
  const wide = new Corrector({ step: () => {}, slew: () => {} });
  assertEquals(wide.correct(fixOf(2000, 2500)).action, "none");
  assertEquals(wide.correct(fixOf(2000)).action, "step");
  // Once it is known to be right, it is not the first correction any more.
  const right = new Corrector({ step: () => {}, slew: () => {} });
  assertEquals([0, 5000].map((offset) => right.correct(fixOf(offset)).action), ["none", "refused"]);
});

Deno.test("Corrector ends a slew that is not wanted any more, but not because a fix is lost", () => {
  const slews: bigint[] = [];
  const corrector = new Corrector({ step: () => {}, slew: (by) => slews.push(by) });
  for (const [offset, bound] of [[0.1, 0.09], [null, 0], [-0.0005, 0.001], [0, 0.001]] as const) {
    corrector.correct(fixOf(offset, bound));
  }
  assertEquals(slews, [100_000_000n, 0n]);
  corrector.correct(fixOf(0.1));
  assertEquals(corrector.correct(fixOf(5000)).action, "refused");
  assertEquals(slews.slice(2), [100_000_000n, 0n]);
});

Deno.test("Watch corrects the clock and is not surprised by that", async () => {
  const world = new World(1);
  const server = world.host("server", { offset: 3.7 });
  const client = world.host("client");
  const serving = await world.run(serve({ hosts: ["server"], ...server.environment }));
  const done: [string, number][] = [];
  const corrector = new Corrector({
    step: (by) => {
      client.clock.step(Number(by) / 1e9);
      done.push(["step", Math.round(Number(by) / 1e6)]);
    },
    slew: (by) => done.push(["slew", Math.round(Number(by) / 1e6)]),
  });
  const watch = new Watch({ servers: ["server"], corrector, ...client.environment });
  const updates: Update[] = [];
  await world.run((async () => {
    for await (const update of watch) {
      updates.push(update);
      assert(watch.clock.now() !== null);
      if (updates.length === 5) return;
    }
  })());
  assertEquals(updates.map(({ news }) => news), ["first", ...Array(4).fill("agrees")]);
  assertEquals(updates.map(({ correction }) => correction!.action), [
    "step",
    ...Array(4).fill("none"),
  ]);
  assertEquals(done, [["step", 3700]]);
  await world.run(serving.stop());
});

Deno.test("sync --set warns if something keeps the clock already", async () => {
  await using server = ahead(0.05);
  const { executable } = setProgram;
  for (const [env, expected] of [[{ DISCIPLINED: "1" }, 1], [{}, 0]] as const) {
    const args = commandLine(setProgram, ["sync", "--set", server.address]);
    const { stderr } = await new Deno.Command(executable, { args, env }).output();
    const warnings = new TextDecoder().decode(stderr).match(
      /warning: something else keeps the system/g,
    );
    assertEquals(warnings?.length ?? 0, expected);
  }
});

Deno.test("Corrector has done nothing when the clock cannot be set", () => {
  const corrector = new Corrector({
    step: () => {
      throw new Error("cannot set the system clock");
    },
    slew: () => {},
  });
  for (let i = 0; i < 2; i++) {
    assertThrows(() => corrector.correct(fixOf(5000)), Error, "cannot set the system clock");
  }
  for (const threshold of [-1, NaN, 1001]) {
    assertThrows(() => new Corrector({ step: () => {}, slew: () => {} }, threshold), RangeError);
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
  const rows: [number, string[], string[]][] = [
    [37.5, [], ["step 37.50", "tsync: the system clock was stepped by +37.5 s"]],
    [0.05, [], ["slew 0.05", "tsync: the system clock is slewed by +50.0 ms"]],
    [-0.05, ["--step-threshold", "0.01", "--quiet"], ["step -0.05"]],
    [0, ["--json"], ["tsync: the system clock is left alone: no difference can be seen"]],
  ];
  for (const [seconds, flags, expected] of rows) {
    await using server = ahead(seconds);
    const args = ["sync", "--set", ...flags, server.address];
    const { code, stdout, stderr } = await run(setProgram, ...args);
    const told = lines(stderr).map((line) => line.replace(/49\.9\d* ms/, "50.0 ms"));
    assertEquals([code, told], [0, expected]);
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
  }).spawn();
  const events = linesOf(child.stderr);
  const until = async (pattern: RegExp) => {
    for (;;) {
      const { value, done } = await events.next();
      if (done) throw new Error(`it ended before ${pattern}`);
      if (pattern.test(value)) return;
      assert(/slew|left alone|step/.test(value), value);
    }
  };
  await until(/^slew 0\.05$/);
  await until(/^slew 0\.05$/);
  offset = 500n;
  await until(/^step 0\.50$/);
  await until(/^tsync: the system clock was stepped by \+(500|499\.9\d*|499) ms$/);
  offset = 5_000_000n;
  await until(/^tsync: the system clock is left alone: .* \+(5000|4999\.9\d*) s is more than/);
  offset = -500n;
  await until(/^step -0\.50$/);
  child.kill("SIGINT");
  while (!(await events.next()).done);
  assertEquals((await child.status).code, 0);
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
