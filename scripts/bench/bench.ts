/**
 * `deno task bench`: how accurate and how fast tsync is on this machine.
 *
 * Accuracy: server and client share a clock, so the true offset is 0. Medians
 * over {@linkcode RUNS} runs of separate processes; and with a server that sleeps before each
 * exchange. As it is, and with the program's own timestamps (`user`). Speed: a closed loop of
 * requests over many connections, against two other servers of the same
 * messages in turn, medians of {@linkcode ROUNDS} rounds. Then memory, what a
 * flood of datagrams from made-up addresses costs, and the time from a start to the first reply. Of the compiled program too, or
 * instead, if there is one in `dist/`.
 *
 * @module
 */

import { benchFar } from "./far.ts";
import { sync } from "../../src/mod.ts";
import { SECOND } from "../../src/ntp/timestamp.ts";
import { Admission } from "../../src/serve/admission.ts";
import {
  commandLine,
  compiled,
  type Program,
  run,
  ServeProcess,
  SOURCE,
  userStamped,
} from "../program.ts";

/** Runs of a measurement, and of what takes longer or says less. */
const RUNS = 100;
const FEW_RUNS = 20;
const ROUNDS = 5;
const SECONDS = 2;
const HELD = 10_000;

async function main(): Promise<void> {
  const program = compiled() ?? SOURCE;
  if (program === SOURCE) console.log("none in dist/: deno task compile makes one\n");
  const both = [program, userStamped(program)];
  console.log(`loopback, ${RUNS} runs of \`tsync sync\`, medians (least to greatest)\n`);
  console.log(
    "program                 |offset|                 error bound              0 outside  whole process",
  );
  for (const each of new Set([SOURCE, ...both])) await bench(each);
  for (const each of both) await benchIdle(each);
  const directory = await Deno.makeTempDir();
  try {
    await benchLoad(both, directory);
    await benchHttp(both, directory);
    console.log();
    for (const each of both) await benchMemory(each, directory);
    await benchUdp(program, directory);
    benchAdmission();
    console.log(
      `\nTCP over 10 connections, alone and beside ${IDLERS} that idle and ${FLOOD} datagrams/s from ` +
        "new addresses\n\n" +
        "                           median                     slowest 0.1 %",
    );
    for (const each of both) await benchFlood(each, directory);
    await benchStart(both, directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
  await benchNtp(program);
  await benchFar(program);
}

/** A server that sleeps until it is asked: the client, here, lets 20 ms pass before each exchange. */
async function benchIdle(program: Program): Promise<void> {
  await using server = await ServeProcess.start(program);
  const offsets: number[] = [];
  const bounds: number[] = [];
  for (let i = 0; i < RUNS; i++) {
    const { offset, errorBound } = await sync({
      servers: [server.address],
      timestamps: program.flags === undefined ? "auto" : "user",
      onProgress: () => {
        for (const until = performance.now() + IDLE; performance.now() < until;);
      },
    });
    offsets.push(Math.abs(offset!) * 1e6);
    bounds.push(errorBound! * 1e6);
  }
  printAccuracy(`${program.name}, idle`, offsets, bounds, "");
}

/** Milliseconds. */
const IDLE = 20;

function printAccuracy(name: string, offsets: number[], bounds: number[], time: string): void {
  const outside = offsets.filter((offset, i) => offset > bounds[i]!).length;
  const cells = [summary(offsets, "µs"), summary(bounds, "µs")].map((cell) => cell.padEnd(25));
  console.log(`${name.padEnd(24)}${cells.join("")}${String(outside).padEnd(11)}${time}`.trimEnd());
}

async function bench(program: Program): Promise<void> {
  await using server = await ServeProcess.start(program);
  const offsets: number[] = [];
  const bounds: number[] = [];
  const times: number[] = [];
  for (let i = 0; i < RUNS; i++) {
    const start = performance.now();
    const { stdout, stderr } = await run(program, "sync", server.address, "--json");
    times.push(performance.now() - start);
    if (stderr !== "") throw new Error(stderr);
    const fix = JSON.parse(stdout);
    offsets.push(Math.abs(fix.offset) * 1e6);
    bounds.push(fix.error_bound * 1e6);
  }
  printAccuracy(program.name, offsets, bounds, summary(times, "ms"));
}

function summary(numbers: number[], unit: string, decimals = 1): string {
  const [median, least, most] = [0.5, 0, 1].map((part) => at(numbers, part).toFixed(decimals));
  return `${median} ${unit} (${least} to ${most})`;
}

/** Of numbers in order, the one that so large a part is less than. */
function at(numbers: readonly number[], part: number): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor((numbers.length - 1) * part)]!;
}

/** What `load.c` prints of one round. */
interface Load {
  /** Replies a second. */
  readonly rate: number;
  /** Replies of the least and the most served connection. */
  readonly least: number;
  readonly most: number;
  /** Reply times in µs: the median, and the slowest thousandth. */
  readonly median: number;
  readonly slowest: number;
}

async function compileC(directory: string, name: string): Promise<string> {
  const target = `${directory}/${name}`;
  const args = ["-O2", "-o", target, `scripts/bench/${name}.c`];
  const { success } = await new Deno.Command("cc", { args }).output();
  if (!success) throw new Error(`cc could not compile ${name}.c`);
  return target;
}

/** Room for all connections. */
const ROOM = ["--host", "127.0.0.1", "--port", "0"]
  .concat("--max-clients", "20000", "--max-clients-per-address", "20000");

/** No limits but those of the machine. */
const UNLIMITED = [...ROOM, "--rate", "0"];

async function benchLoad(programs: readonly Program[], directory: string): Promise<void> {
  const load = await compileC(directory, "load");
  console.log(
    `\nclosed loop, ${ROUNDS} rounds of ${SECONDS} s, medians\n\n` +
      "server                  connections  replies/s   of C  most/least  median    slowest 0.1 %",
  );
  await using servers = new AsyncDisposableStack();
  const ports = new Map<string, number>();
  ports.set(C, servers.use(await Peer.start(await compileC(directory, "epoll_server"))).port);
  for (const program of programs) {
    const server = servers.use(await ServeProcess.start(program, UNLIMITED));
    ports.set(`tsync ${program.name}`, server.port);
  }
  const python = servers.use(await Peer.start("python3", "scripts/bench/threaded_server.py"));
  ports.set("Python", python.port);
  for (const connections of [100, 1000]) {
    const rounds = new Map<string, Load[]>();
    for (let round = 0; round < ROUNDS; round++) {
      for (const [name, port] of ports) {
        rounds.set(name, [...rounds.get(name) ?? [], await measure(load, port, connections)]);
      }
    }
    for (const [name, loads] of rounds) printLoad(name, connections, loads, rounds.get(C)!);
  }
}

/** Of runs with and without a scraper, whose cost is less than what one run differs from the next. */
const PAIRS = 10;

/** What it costs to be looked at: by a scraper that asks for the metrics each second. */
async function benchHttp(programs: readonly Program[], directory: string): Promise<void> {
  const load = await compileC(directory, "load");
  console.log(
    `\nwith --http and a scraper each second, of the replies without; ${PAIRS} pairs, medians`,
  );
  for (const program of programs) {
    await using plain = await ServeProcess.start(program, UNLIMITED);
    await using shown = await ServeProcess.start(program, [...UNLIMITED, "--http", "0"]);
    const url = `http://${await shown.nextAddress()}/metrics`;
    const ratios: number[] = [];
    let scrapes = 0;
    const scraped = async () => {
      const scraper = setInterval(async () => {
        await (await fetch(url)).text();
        scrapes++;
      }, 1000);
      const { rate } = await measure(load, shown.port, 100);
      clearInterval(scraper);
      return rate;
    };
    const alone = async () => (await measure(load, plain.port, 100)).rate;
    for (let pair = 0; pair < PAIRS; pair++) {
      // In turn, lest what comes first is always the one.
      const first = pair % 2 === 0 ? await scraped() : await alone();
      const second = pair % 2 === 0 ? await alone() : await scraped();
      ratios.push(pair % 2 === 0 ? first / second : second / first);
    }
    console.log(`${program.name.padEnd(24)}${summary(ratios, "times", 3)}, ${scrapes} scrapes`);
  }
}

/** The limit, to which the others are compared round by round. */
const C = "C, epoll";

/** Resident memory with many connections, each of which has synced once. */
async function benchMemory(program: Program, directory: string): Promise<void> {
  const hold = await compileC(directory, "hold");
  await using server = await ServeProcess.start(program, UNLIMITED);
  const before = await server.residentMemory();
  const child = new Deno.Command(hold, {
    args: [server.port, HELD].map(String),
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const output = child.stdout.getReader();
  const { value } = await output.read();
  const during = await server.residentMemory();
  await output.cancel();
  await child.stdin.close();
  await child.status;
  if (value === undefined) throw new Error(`${HELD} connections could not be opened`);
  console.log(
    `resident memory, ${program.name}: ${before.toFixed(0)} MB without a connection, ` +
      `${during.toFixed(0)} MB with ${HELD} open that have each synced once`,
  );
}

/** From a start to the first reply, beside a program that does nothing, in turn. */
async function benchStart(programs: readonly Program[], directory: string): Promise<void> {
  const empty = await compileEmpty(directory);
  const times = new Map<string, number[]>();
  const add = (name: string, time: number) => times.set(name, [...times.get(name) ?? [], time]);
  for (let i = 0; i < FEW_RUNS; i++) {
    for (const program of programs) add(program.name, await timeToFirstReply(program));
    if (empty === null) continue;
    const start = performance.now();
    await new Deno.Command(empty).output();
    add(EMPTY, performance.now() - start);
  }
  console.log("\nstart to first reply, medians");
  const least = times.get(EMPTY);
  for (const [name, each] of times) {
    const ratios = each.map((time, i) => time / (least?.[i] ?? NaN));
    console.log(
      `${name.padEnd(35)}${summary(each, "ms").padEnd(30)}${least ? summary(ratios, "×") : ""}`,
    );
  }
}

const EMPTY = "a program that does nothing, whole";

/** @returns `null` if it cannot be made, or not of a runtime that starts. */
async function compileEmpty(directory: string): Promise<string | null> {
  const [source, target] = [`${directory}/empty.ts`, `${directory}/empty`];
  await Deno.writeTextFile(source, "");
  const args = ["compile", "--no-code-cache", `--output=${target}`, source];
  await new Deno.Command(Deno.execPath(), { args }).output();
  const made = await new Deno.Command(target).output().catch(() => null);
  return made?.success ? target : null;
}

async function timeToFirstReply(program: Program): Promise<number> {
  const port = freePort();
  const start = performance.now();
  const child = new Deno.Command(program.executable, {
    args: commandLine(program, ["serve", "--host", "127.0.0.1", "--port", String(port)]),
    stderr: "null",
  }).spawn();
  using connection = await untilAccepted(port);
  const request = new Uint8Array(48);
  request[0] = 0x23;
  await connection.write(request);
  await connection.read(new Uint8Array(48));
  const time = performance.now() - start;
  child.kill();
  await child.status;
  return time;
}

async function untilAccepted(port: number): Promise<Deno.TcpConn> {
  for (;;) {
    try {
      return await Deno.connect({ hostname: "127.0.0.1", port });
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 1)); // It does not listen yet.
    }
  }
}

async function measure(load: string, port: number, connections: number): Promise<Load> {
  const args = [port, connections, SECONDS].map(String);
  const { stdout, stderr } = await new Deno.Command(load, { args }).output();
  const text = new TextDecoder().decode(stdout);
  if (text === "") throw new Error(`load: ${new TextDecoder().decode(stderr)}`);
  return JSON.parse(text);
}

function printLoad(
  name: string,
  connections: number,
  loads: readonly Load[],
  limits: readonly Load[],
): void {
  const median = (figure: (load: Load, round: number) => number) =>
    loads.map(figure).sort((a, b) => a - b)[loads.length >> 1]!;
  console.log(
    name.padEnd(24) + String(connections).padStart(11) +
      median(({ rate }) => rate).toFixed(0).padStart(11) +
      median(({ rate }, round) => rate / limits[round]!.rate).toFixed(2).padStart(7) +
      median(({ most, least }) => most / least).toFixed(2).replace("Infinity", "∞").padStart(12) +
      `  ${(median((each) => each.median) / 1000).toFixed(2)} ms`.padEnd(12) +
      `${(median(({ slowest }) => slowest) / 1000).toFixed(2)} ms`,
  );
}

/** Over UDP, beside chronyd; and what a thread that waits for datagrams costs TCP. */
async function benchUdp(program: Program, directory: string): Promise<void> {
  const load = await compileC(directory, "load");
  const loadUdp = await compileC(directory, "load_udp");
  const port = freePort();
  const config = `${directory}/chrony.conf`;
  const lines = [
    `port ${port}`,
    "bindaddress 127.0.0.1",
    "allow 127.0.0.0/8",
    "local stratum 3",
    "cmdport 0",
    "bindcmdaddress /",
    `pidfile ${directory}/pid`,
  ];
  await Deno.writeTextFile(config, lines.join("\n") + "\n");
  await using both = await ServeProcess.start(program, [...UNLIMITED, "--udp-port", "0"]);
  const { address } = (await both.nextEvent())!;
  const ports: Record<string, number> = { "tsync": Number(String(address).split(":").at(-1)) };
  const chronyd = spawnIfThere("chronyd", ["-x", "-d", "-u", "root", "-f", config]);
  if (chronyd !== null) ports["chronyd"] = port;
  const rates = new Map<string, number[]>();
  const add = (name: string, rate: number) => rates.set(name, [...rates.get(name) ?? [], rate]);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, port] of Object.entries(ports)) {
      const args = [port, 100, SECONDS].map(String);
      const { stdout } = await new Deno.Command(loadUdp, { args }).output();
      add(name, JSON.parse(new TextDecoder().decode(stdout)).rate);
    }
  }
  chronyd?.kill();
  await chronyd?.status;
  await using alone = await ServeProcess.start(program, UNLIMITED);
  for (let round = 0; round < 2 * ROUNDS; round++) {
    add("TCP alone", (await measure(load, alone.port, 100)).rate);
    add("TCP beside UDP that idles", (await measure(load, both.port, 100)).rate);
  }
  console.log("\nUDP, closed loop over 100 sockets, replies/s, medians");
  for (const [name, each] of rates) console.log(`${name.padEnd(27)}${summary(each, "")}`);
}

/** Datagrams a second that a flood brings. */
const FLOOD = 20_000;

/** Datagrams of which the cost is measured at once. */
const STRANGERS = 200_000;

/** What it takes to judge a datagram from an address not seen before, however many are connected. */
function benchAdmission(): void {
  const dotted = (net: number, i: number) => `${net}.${i >> 16}.${i >> 8 & 255}.${i & 255}`;
  const strangers = Array.from({ length: STRANGERS }, (_, i) => dotted(127, i));
  const measure = (connected: number): number => {
    const admission = new Admission({ maxClients: connected });
    for (let i = 0; i < connected; i++) admission.connect(dotted(10, i), 0n);
    const start = performance.now();
    for (const [i, stranger] of strangers.entries()) {
      const now = BigInt(i) * SECOND / BigInt(FLOOD);
      if (i % FLOOD === 0) admission.forget(now);
      admission.datagram(stranger, now);
    }
    return (performance.now() - start) * 1000 / STRANGERS;
  };
  console.log("\na datagram from a new address, beside so many that are connected, medians");
  const times = new Map<number, number[]>([[0, []], [HELD, []]]);
  for (const each of times.keys()) measure(each);
  for (let round = 0; round < 2 * ROUNDS; round++) {
    for (const [connected, each] of times) each.push(measure(connected));
  }
  for (const [connected, each] of times) {
    console.log(`${String(connected).padEnd(27)}${summary(each, "µs", 2)}`);
  }
  const ratios = times.get(HELD)!.map((time, round) => time / times.get(0)![round]!);
  console.log(`${"ratio".padEnd(27)}${summary(ratios, "times", 2)}`);
}

/** Connections that idle, each from an address of its own, while others ask. */
const IDLERS = 8000;

/** What others wait for a reply by TCP, while datagrams come from ever new addresses. */
async function benchFlood(program: Program, directory: string): Promise<void> {
  const load = await compileC(directory, "load");
  const flood = await compileC(directory, "flood");
  // Without a limit nobody has an account.
  const args = [...ROOM, "--rate", "1000000", "--udp-port", "0"];
  await using server = await ServeProcess.start(program, args);
  const udpPort = (await server.nextAddress()).split(":").at(-1);
  const row = async (name: string) => {
    const loads: Load[] = [];
    for (let round = 0; round < ROUNDS; round++) loads.push(await measure(load, server.port, 10));
    const cells = (["median", "slowest"] as const).map((figure) =>
      summary(loads.map((each) => each[figure] / 1000), "ms", 2)
    );
    console.log(name.padEnd(27) + cells[0]!.padEnd(27) + cells[1]);
  };
  await row(program.name);
  const child = new Deno.Command(flood, {
    args: [server.port, udpPort, IDLERS, FLOOD].map(String),
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const output = child.stdout.getReader();
  const { value } = await output.read();
  if (value === undefined) throw new Error(`${IDLERS} connections could not be opened`);
  await row(`${program.name}, flooded`);
  await output.cancel();
  await child.stdin.close();
  await child.status;
}

/** Whole processes and what they say, beside ntpdig and chronyd, which ask the same server. */
async function benchNtp(program: Program): Promise<void> {
  const host = "127.0.0.9";
  let server: ServeProcess;
  try {
    // ntpdig asks port 123 and no other.
    server = await ServeProcess.start(program, [
      "--host",
      host,
      "--port",
      "0",
      "--udp-port",
      "123",
    ]);
  } catch (error) {
    return console.log(`\nntpdig and chronyd: not tried: ${(error as Error).message}`);
  }
  await using _ = server;
  const directory = await Deno.makeTempDir();
  const config = `${directory}/conf`;
  const lines = [`server ${host} iburst`, "port 0", "cmdport 0", `pidfile ${directory}/pid`];
  await Deno.writeTextFile(config, lines.join("\n") + "\n");
  const tsync = (...args: string[]): [string, string[]] => [
    program.executable,
    [...program.args, "sync", "--json", ...args],
  ];
  const commands: Record<string, [[string, string[]], number, ((text: string) => number)?]> = {
    "tsync sync, 16 samples": [tsync(server.address), FEW_RUNS],
    "tsync sync ntp://, 4 samples": [
      tsync(`ntp://${host}`),
      5,
      (text) => JSON.parse(text).error_bound,
    ],
    "ntpdig, 1 sample": [["ntpdig", ["-j", host]], FEW_RUNS, (text) => JSON.parse(text).precision],
    "chronyd -Q, iburst": [["chronyd", ["-Q", "-x", "-u", "root", "-f", config]], 3],
  };
  console.log("\nwhole process, medians             time                          error bound");
  const times = new Map<string, number[]>();
  const bounds = new Map<string, number[]>();
  for (let round = 0; round < FEW_RUNS; round++) {
    for (const [name, [[command, args], runs, bound]] of Object.entries(commands)) {
      if (round >= runs) continue;
      const start = performance.now();
      let output: Deno.CommandOutput;
      try {
        output = await new Deno.Command(command, { args }).output();
      } catch {
        continue; // It is not here.
      }
      times.set(name, [...times.get(name) ?? [], performance.now() - start]);
      const text = new TextDecoder().decode(output.stdout);
      if (bound !== undefined) bounds.set(name, [...bounds.get(name) ?? [], bound(text) * 1e6]);
    }
  }
  for (const [name, each] of times) {
    const bound = bounds.get(name);
    console.log(
      name.padEnd(35) + summary(each, "ms").padEnd(30) + (bound ? summary(bound, "µs") : ""),
    );
  }
  const [ours, theirs] = [times.get("tsync sync, 16 samples"), times.get("ntpdig, 1 sample")];
  if (ours !== undefined && theirs !== undefined) {
    const ratios = ours.map((time, i) => time / theirs[i]!);
    console.log(`${"tsync sync, of ntpdig".padEnd(35)}${summary(ratios, "×")}`);
  }
  await Deno.remove(directory, { recursive: true });
}

function freePort(): number {
  const free = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = free.addr;
  free.close();
  return port;
}

function spawnIfThere(command: string, args: string[]): Deno.ChildProcess | null {
  try {
    return new Deno.Command(command, { args, stdout: "null", stderr: "null" }).spawn();
  } catch {
    return null;
  }
}

/** Another server, which prints its port and serves until it is killed. */
class Peer implements AsyncDisposable {
  private constructor(readonly child: Deno.ChildProcess, readonly port: number) {}

  static async start(command: string, ...args: string[]): Promise<Peer> {
    const child = new Deno.Command(command, { args, stdout: "piped" }).spawn();
    const reader = child.stdout.getReader();
    const { value } = await reader.read();
    reader.releaseLock();
    return new Peer(child, Number(new TextDecoder().decode(value)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill("SIGKILL");
    await this.child.stdout.cancel();
    await this.child.status;
  }
}

await main();
