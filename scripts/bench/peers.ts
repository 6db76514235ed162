/**
 * `deno task compare`: how exact and how quick tsync is, beside other tools that tell one machine
 * another's time.
 *
 * Each asks a server on this machine, so the true offset is 0, which flatters those that round to
 * steps. Medians over separate processes, one of each tool in turn. All only query or print:
 * **none is started so that it could set the clock**. A tool that is missing is skipped by name.
 *
 * Not among them: `ntpdate -q`. That of ntpsec is a shell script that runs `ntpdig -t 1`.
 *
 * @module
 */

import {
  commandLine,
  compiled,
  linesOf,
  type Program,
  ServeProcess,
  SOURCE,
  userStamped,
} from "../program.ts";

const RUNS = 10;
/** Of those that take seconds. */
const FEW_RUNS = 5;
/** Milliseconds. */
const TIMEOUT = 30_000;
/** ntpdig asks port 123 and no other: of an address that nothing else uses. */
const NTP_HOST = "127.0.0.9";
const TIMESYNC = "npm:timesync@1.0.11";

const UNITS = { "s": 1, "ms": 1e3, "µs": 1e6 };

interface Tool {
  readonly name: string;
  /** What its messages travel over. */
  readonly over: string;
  readonly command: readonly [executable: string, args: readonly string[]];
  /** Default: {@linkcode RUNS}. */
  readonly runs?: number;
  /** Where it prints the offset in seconds; 0 if this matches without a group. */
  readonly offset: RegExp;
  /** Where it prints the bound, in seconds, if it states one. */
  readonly bound?: RegExp;
  /** The unit and the decimals that it prints to. Default: ns, as µs. */
  readonly printed?: readonly [unit: keyof typeof UNITS, decimals: number];
  /** What limits its resolution to more than that of {@linkcode printed}. */
  readonly note?: string;
}

/** What came of a tool's runs: seconds, but for the times. */
interface Runs {
  readonly offsets: number[];
  readonly bounds: number[];
  /** Milliseconds. */
  readonly times: number[];
  readonly failures: string[];
}

async function main(): Promise<void> {
  const program = compiled() ?? SOURCE;
  await using resources = new AsyncDisposableStack();
  const tools = [
    ...await tsyncOverTcp(program, resources),
    ...await ntpTools(program, resources),
    htpdate(resources),
    rdate(resources),
    ...await timesync(resources),
  ];
  const results = new Map<Tool, Runs>();
  for (const tool of tools) {
    results.set(tool, { offsets: [], bounds: [], times: [], failures: [] });
  }
  for (let round = 0; round < RUNS; round++) {
    for (const [tool, runs] of results) {
      if (round < (tool.runs ?? RUNS)) await runOnce(tool, runs);
    }
  }
  print(program, results);
}

async function tsyncOverTcp(program: Program, resources: AsyncDisposableStack): Promise<Tool[]> {
  const tools: Tool[] = [];
  for (const each of [program, userStamped(program)]) {
    const { address } = resources.use(await ServeProcess.start(each));
    tools.push(tsync(each, ["tsync sync", ...each.flags ?? []].join(" "), "TCP", address));
  }
  return tools;
}

function tsync(program: Program, name: string, over: string, server: string): Tool {
  return {
    name,
    over,
    command: [program.executable, commandLine(program, ["sync", "--json", server])],
    offset: /"offset":([^,]+)/,
    bound: /"error_bound":([^,]+)/,
  };
}

/** Those that ask the same `tsync serve --udp`. */
async function ntpTools(program: Program, resources: AsyncDisposableStack): Promise<Tool[]> {
  const over = "UDP 123";
  try {
    const args = ["--host", NTP_HOST, "--port", "0", "--udp-port", "123"];
    resources.use(await ServeProcess.start(program, args));
  } catch (error) {
    console.log(`${over}: not tried: ${(error as Error).message}`);
    return [];
  }
  const directory = await Deno.makeTempDir();
  resources.defer(() => Deno.remove(directory, { recursive: true }));
  const config = `${directory}/conf`;
  const lines = [`server ${NTP_HOST} iburst`, "port 0", "cmdport 0", `pidfile ${directory}/pid`];
  await Deno.writeTextFile(config, lines.join("\n") + "\n");
  return [
    { ...tsync(program, "tsync sync ntp://", over, `ntp://${NTP_HOST}`), runs: FEW_RUNS },
    {
      name: "ntpdig",
      over,
      command: ["ntpdig", ["-j", NTP_HOST]],
      offset: /"offset":([^,]+)/,
      bound: /"precision":([^,]+)/,
      printed: ["µs", 0],
    },
    {
      name: "chronyd -Q, iburst",
      over,
      command: ["chronyd", ["-Q", "-x", "-u", "root", "-f", config]],
      runs: FEW_RUNS,
      offset: /System clock wrong by (\S+) seconds/,
      printed: ["µs", 0],
    },
    {
      name: "rdate -n",
      over,
      command: ["rdate", ["-n", "-p", "-v", NTP_HOST]],
      offset: /adjust local clock by (\S+) seconds/,
      printed: ["µs", 0],
    },
  ];
}

function htpdate(resources: AsyncDisposableStack): Tool {
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    // The date that Deno would add can be most of two seconds old.
    () => new Response(null, { headers: { date: new Date().toUTCString() } }),
  );
  resources.use(server);
  return {
    name: "htpdate -p 9",
    over: "HTTP",
    // At most 9 steps, and that is the most exact; no proxy.
    command: ["htpdate", ["-q", "-n", "-p", "9", `http://127.0.0.1:${server.addr.port}/`]],
    offset: /Offset (\S+) seconds|No time correction needed/,
    printed: ["ms", 0],
    note: "steps of 2 ms",
  };
}

/** Of RFC 868: seconds since 1900. */
function rdate(resources: AsyncDisposableStack): Tool {
  const listener = resources.use(Deno.listen({ hostname: "127.0.0.1", port: 0 }));
  const serve = async () => {
    for await (const connection of listener) {
      const message = new DataView(new ArrayBuffer(4));
      message.setUint32(0, Math.floor(Date.now() / 1000) + 2_208_988_800);
      await connection.write(new Uint8Array(message.buffer));
      connection.close();
    }
  };
  serve();
  return {
    name: "rdate",
    over: "TCP, RFC 868",
    command: ["rdate", ["-p", "-v", "-o", String(listener.addr.port), "127.0.0.1"]],
    offset: /adjust local clock by (\S+) seconds/,
    printed: ["s", 0],
    note: "whole seconds",
  };
}

/** The package, its own server and its defaults: 5 requests, 1 s apart. */
async function timesync(resources: AsyncDisposableStack): Promise<Tool[]> {
  const server = new Deno.Command(Deno.execPath(), {
    args: evaluate(`
      import timesync from "${TIMESYNC}/server/index.js";
      const server = timesync.createServer();
      server.listen(0, "127.0.0.1", () => console.log(server.address().port));
    `),
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const { value: port, done } = await linesOf(server.stdout).next();
  if (done) {
    console.log(`${TIMESYNC}: not here`);
    return [];
  }
  resources.defer(async () => {
    server.kill("SIGKILL");
    await server.status;
  });
  return [{
    name: "timesync, of npm",
    over: "HTTP",
    command: [
      Deno.execPath(),
      // It takes window.Promise, or asks for a package that it does not depend on.
      evaluate(`
        globalThis.window = globalThis;
        const { create } = await import("${TIMESYNC}");
        const timesync = create({ server: "http://127.0.0.1:${port}/timesync", interval: null });
        let offset = null; // Its own is 0 until there is one.
        timesync.on("change", (milliseconds) => offset = milliseconds / 1000);
        await timesync.sync();
        console.log(JSON.stringify({ offset }));
        Deno.exit();
      `),
    ],
    runs: FEW_RUNS,
    offset: /"offset":([^}]+)/,
    printed: ["ms", 2],
    note: "from whole ms",
  }];
}

/** Arguments for Deno. */
function evaluate(code: string): string[] {
  return ["eval", "--quiet", "--no-config", code];
}

async function runOnce({ command, offset, bound }: Tool, runs: Runs): Promise<void> {
  const [executable, args] = command;
  const start = performance.now();
  let output: Deno.CommandOutput;
  try {
    const signal = AbortSignal.timeout(TIMEOUT);
    output = await new Deno.Command(executable, { args: [...args], signal }).output();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    runs.failures.push("not here");
    return;
  }
  const time = performance.now() - start;
  const text = [output.stdout, output.stderr].map((each) => new TextDecoder().decode(each)).join(
    "",
  );
  const figures = [offset, bound].filter((each) => each !== undefined).map((each) => {
    const match = each.exec(text);
    return match === null ? NaN : Number(match[1] ?? 0);
  });
  if (!figures.every(Number.isFinite)) {
    runs.failures.push(`said ${JSON.stringify(text.trim().split("\n").at(-1))}`);
    return;
  }
  runs.times.push(time);
  runs.offsets.push(Math.abs(figures[0]!));
  if (bound !== undefined) runs.bounds.push(figures[1]!);
}

function print(program: Program, results: ReadonlyMap<Tool, Runs>): void {
  console.log(`loopback, tsync ${program.name}, medians (least to greatest)\n`);
  printRow("tool", "|offset|", "bound it states", "whole process", "over", "runs");
  for (const [tool, { offsets, bounds, times, failures }] of results) {
    if (offsets.length === 0) continue;
    const { name, over, printed = ["µs", 1], note } = tool;
    const cell = (numbers: number[]) => summary(numbers, ...printed);
    const runs = offsets.length + failures.length;
    printRow(
      name,
      note === undefined ? cell(offsets) : `${cell(offsets)}, ${note}`,
      bounds.length === 0 ? "none" : cell(bounds),
      `${sortedAt(times, 0.5).toFixed(1)} ms`,
      over,
      failures.length === 0 ? String(runs) : `${offsets.length} of ${runs}`,
    );
  }
  for (const [{ name }, { failures }] of results) {
    for (const failure of new Set(failures)) console.log(`${name}: ${failure}`);
  }
}

const WIDTHS = [32, 40, 26, 16, 14, 0];

function printRow(...cells: string[]): void {
  console.log(cells.map((cell, i) => cell.padEnd(WIDTHS[i]!)).join("").trimEnd());
}

function summary(seconds: number[], unit: keyof typeof UNITS, decimals: number): string {
  const at = (fraction: number) => (sortedAt(seconds, fraction) * UNITS[unit]).toFixed(decimals);
  return `${at(0.5)} ${unit} (${at(0)} to ${at(1)})`;
}

function sortedAt(numbers: number[], fraction: number): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor((numbers.length - 1) * fraction)]!;
}

await main();
