import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { raiseDescriptorLimit } from "../src/libc/descriptor_limit.ts";
import { type Libc, openLibc } from "../src/libc/libc.ts";
import "./libraries.ts";
import { Random } from "./simulation/random.ts";
import { RUNTIME_FLAGS } from "../scripts/program.ts";
import { type Clock, crossTimestamp, stepped } from "../src/clock/clock.ts";
import { decodeTimex, granularity, openSystemClock } from "../src/clock/system_clock.ts";
import config from "../deno.json" with { type: "json" };

Deno.test("openSystemClock() reads libc's clock, which goes on and agrees with Date", () => {
  const clock = openSystemClock();
  const before = Date.now();
  const now = clock.realtime();
  const after = Date.now();
  assert(BigInt(before) * 1_000_000n <= now && now < BigInt(after + 1) * 1_000_000n);
  const [one, two] = [clock.monotonic(), clock.monotonic()];
  assert(one <= two);
  assert(clock.precision >= 1e-9 && clock.precision < 1e-3, `${clock.precision} s`);
  const state = clock.state();
  assert(state !== null && state.maximumError >= 0);
});

/** Compiles a fake libc, and opens it. */
async function withFake(
  source: string,
  flags: readonly string[],
  body: (libc: Libc, path: string) => void,
): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    const library = `${directory}/fake.so`;
    const args = ["-shared", "-fPIC", ...flags, "-o", library, `tests/fixtures/${source}`];
    const output = await new Deno.Command("cc", { args }).output().catch(() => null);
    if (output === null) return console.log("no C compiler here: not tried");
    assert(output.success, new TextDecoder().decode(output.stderr));
    using libc = openLibc([library]);
    body(libc!, library);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** macOS's, as {@linkcode withFake}, and what the test does to it. */
function withDarwin(
  body: (libc: Libc, symbols: Deno.StaticForeignLibraryInterface<typeof FAKE>) => void,
): Promise<void> {
  return withFake("fake_darwin.c", ["-nostdlib", "-ffreestanding"], (libc, path) => {
    const library = Deno.dlopen(path, FAKE);
    body(libc, library.symbols);
    library.close();
  });
}

const FAKE = {
  fake_pass: { parameters: ["i64", "i32"], result: "void" },
  fake_claim: { parameters: ["i64", "i32"], result: "void" },
} as const;

Deno.test("openSystemClock() reads the structures of C where C puts them", () =>
  withFake("fake_libc.c", [], (libc) => {
    const clock = openSystemClock(libc);
    assertEquals(clock.precision, 252e-9); // Its step may have been rounded.
    assertEquals(clock.realtime() / 1_000_000_000n, 1795342503n);
    assertEquals(clock.monotonic() / 1_000_000_000n, 1000n);
    assertEquals(clock.monotonic() - clock.monotonic(), -250n);
    assertEquals(clock.state(), {
      synchronised: true,
      leap: "insert",
      // What is still being slewed is in it: 300 ms, told in nanoseconds.
      maximumError: 0.3015,
      estimatedError: 0.00002,
      // 50 ppm slow, but with a tick that makes it 100 ppm fast.
      frequency: 50e-6,
    });
  }));

Deno.test("macOS: the monotonic clock stands still while the machine sleeps", () =>
  withDarwin((libc, { fake_pass }) => {
    const clock = openSystemClock(libc);
    // Realtime counts whole microseconds, of which 64 readings need not see one.
    assertEquals(clock.precision, 1002e-9);
    const start = crossTimestamp(clock);
    fake_pass(60_000_000_000n, 0);
    const awake = crossTimestamp(clock);
    assertEquals(stepped(start, awake), false, "a minute passes");
    fake_pass(10_000_000_000n, 1);
    assertEquals(stepped(awake, crossTimestamp(clock)), true, "it sleeps for ten seconds");
  }));

Deno.test("macOS: a clock is synchronised only while a program vouches for it", () =>
  withDarwin((libc, { fake_pass, fake_claim }) => {
    const clock = openSystemClock(libc);
    const state = () => {
      const { synchronised, maximumError } = clock.state()!;
      return [synchronised, maximumError];
    };
    const hour = 3_600_000_000_000n;
    fake_claim(-1n, 0x40);
    assertEquals(state(), [false, 16], "as it starts");
    fake_claim(-1n, 0);
    assertEquals(state(), [false, 16], "nobody said how wrong it can be, only that it is not");
    fake_claim(600_000n, 0);
    assertEquals(state(), [true, 0.6]);
    fake_pass(hour, 0);
    assertEquals(state(), [true, 2.4], "grown by 500 ppm, though nothing is slewed");
    fake_pass(8n * hour, 1);
    assertEquals(state(), [false, 16], "what was said eight hours ago is worth nothing");
  }));

for (
  const [system, withLibc, hard] of [
    ["Linux", (body: (libc: Libc) => void) => withFake("fake_libc.c", [], body), 4096],
    ["macOS", (body: (libc: Libc) => void) => withDarwin(body), 10240],
  ] as const
) {
  Deno.test(`${system}: raiseDescriptorLimit() raises the limit as far as it can`, () =>
    withLibc((libc) => {
      const soft = raiseDescriptorLimit(1, libc)!;
      assertEquals(soft, system === "Linux" ? 1024 : 256, "it is not lowered");
      assertEquals(raiseDescriptorLimit(2000, libc), 2000);
      assertEquals(raiseDescriptorLimit(1000, libc), 2000);
      assertEquals(raiseDescriptorLimit(20_000, libc), hard);
    }));
}

Deno.test("granularity() is the step in which a clock counts, however long a reading takes", () => {
  // What counters of so many Hz make of moments about 400 ns apart.
  for (const hertz of [1e9, 3e9, 54e6, 24e6, 19.2e6, 3.579545e6, 1e6, 1e5]) {
    const step = 1e9 / hertz;
    for (let seed = 0; seed < 100; seed++) {
      const random = new Random(seed);
      const readings = Array.from({ length: 65 }, (_, i) => {
        const moment = 400 * (i + random.uniform());
        return BigInt(Math.floor(Math.floor(moment / step) * step));
      });
      const found = Number(granularity(readings));
      const seen = `${hertz} Hz, seed ${seed}: ${found} ns`;
      assert(found >= step && found <= Math.ceil(step) + 12, seen);
    }
  }
  assertEquals(granularity([5n, 5n, 5n]), 1_000_000_000n);
});

Deno.test("a kernel is not believed that was told that its clock has no error", () => {
  const words = (offset: bigint, maxError: bigint, estError: bigint, status: bigint) =>
    BigInt64Array.of(0n, offset, 0n, maxError, estError, status);
  const rows: [string, BigInt64Array, number][] = [
    // As systemd-timesyncd leaves it when it adjusts the clock, and the kernel some time later.
    ["at an adjustment", words(390_000_000n, 0n, 0n, 0x2001n), 1.39],
    ["100 s later", words(-10_000_000n, 50_000n, 0n, 0x2001n), 1.01],
    ["long after", words(0n, 1_024_000n, 0n, 0x2001n), 1.024],
    ["in microseconds", words(390_000n, 0n, 0n, 1n), 1.39],
    // As chronyd does, to which a clock of a microsecond is nothing.
    ["a good clock", words(0n, 37n, 0n, 0x2000n), 0.000037],
    ["a good clock at a whole half millisecond", words(0n, 500n, 0n, 0x2000n), 0.0005],
    // As OpenNTPD does, and leaves the kernel's first guess of 16 s beside it.
    ["OpenNTPD", words(0n, 0n, 16_000_000n, 0n), 1],
    ["ntpd", words(1_000_000n, 20_500n, 300n, 0x2001n), 0.0215],
  ];
  for (const [name, timex, expected] of rows) {
    assertAlmostEquals(decodeTimex(timex, 0).maximumError, expected, 1e-9, name);
  }
});

Deno.test("openSystemClock() falls back to Temporal where libc cannot be loaded", () => {
  const clock = openSystemClock(openLibc(["/nowhere/libc.so"]));
  assert(Math.abs(Number(clock.realtime() / 1_000_000n) - Date.now()) < 1000);
  assert(clock.monotonic() <= clock.monotonic());
  assertEquals(clock.state(), null);
});

Deno.test({
  name: "openSystemClock() asks for no permission that it does not have",
  permissions: { ffi: false },
  fn: () => {
    const clock = openSystemClock(openLibc());
    assertEquals(clock.state(), null);
  },
});

Deno.test("openSystemClock() says what is missing where there is neither", () => {
  const { Temporal } = globalThis;
  Object.assign(globalThis, { Temporal: undefined });
  try {
    assertThrows(() => openSystemClock(null), Error, "cannot read the system clock");
  } finally {
    Object.assign(globalThis, { Temporal });
  }
});

Deno.test("deno.json runs the program as it is compiled", () => {
  assertStringIncludes(config.tasks.tsync.command, ` ${RUNTIME_FLAGS.join(" ")} main.ts`);
});

/** A clock that is read in steps of 10 ns, its timelines 1 s apart. */
function steady(): Clock {
  let now = 0n;
  return {
    monotonic: () => now += 10n,
    realtime: () => (now += 10n) + 1_000_000_000n,
    precision: 10e-9,
    state: () => null,
  };
}

Deno.test("crossTimestamp() says by how much its two readings may be apart", () => {
  assertEquals(crossTimestamp(steady()), { monotonic: 20n, realtime: 1_000_000_020n, error: 10n });
});

Deno.test("stepped() tells a step or a suspended machine from a slew", () => {
  const second = 1_000_000_000n;
  const from = { monotonic: 0n, realtime: 0n, error: 0n };
  const after = (monotonic: bigint, realtime: bigint) =>
    stepped(from, { monotonic, realtime, error: 0n });
  assertEquals(after(10n * second, 10n * second), false);
  assertEquals(after(10n * second, 10n * second + 5_000_000n), false, "slewed by 500 ppm");
  assertEquals(after(10n * second, 11n * second), true, "stepped forward, or suspended for 1 s");
  assertEquals(after(10n * second, 9n * second), true, "stepped back");
  assertEquals(after(second / 100n, second / 100n + 2_000_000n), true, "by 2 ms within 10 ms");
  // What the readings may be apart is no step.
  for (const [before, now] of [[4_000_000n, 0n], [0n, 4_000_000n]] as const) {
    const later = { monotonic: second, realtime: second + 5_500_000n, error: now };
    assertEquals(stepped({ ...from, error: before }, later), false);
  }
  // Of an hour only twenty seconds may have been slewed: the rest was a sleep.
  const hour = 3600n * second;
  assertEquals(after(hour, hour + 20_900_000n), false, "by 21 ms within an hour");
  assertEquals(after(hour, hour - 21_100_000n), true, "and a little more");
});
