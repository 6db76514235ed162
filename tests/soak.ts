/**
 * `deno task soak [--minutes N]`: mixed load, for twenty minutes unless told
 * otherwise, on a plain server, one with TLS and one that stamps for itself, each with a status
 * page that is looked at and scanned. Prints a line a minute; fails if a measurement was wrong, or
 * memory at the end is more than a twentieth above that of the tenth minute: until then the
 * runtime's heap finds its size.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { compiled, run, ServeProcess, SOURCE, userStamped } from "../scripts/program.ts";
import { type Client, connect, CORPUS, openAndReset, request } from "./attackers.ts";

const { minutes: asked } = parseArgs(Deno.args, {
  string: ["minutes"],
  default: { minutes: "20" },
});
const minutes = Number(asked);
if (!(minutes >= 2)) throw new RangeError(`--minutes must be 2 or more: current value is ${asked}`);

const program = compiled() ?? SOURCE;
const unstamped = userStamped(program);
const folder = "tests/fixtures/tls";
const PLAIN = ["--host", "127.0.0.1", "--port", "0", "--rate", "0", "--http", "0"]
  .concat("--max-clients-per-address", "5000");
const TLS = [...PLAIN, "--tls-cert", `${folder}/server.pem`, "--tls-key", `${folder}/server.key`];
const authority = await Deno.readTextFile(`${folder}/authority.pem`);

let over = false;
const figures = { exchanges: 0, syncs: 0, wrong: 0, resets: 0, openings: 0, drips: 0, views: 0 };
const sleep = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Does something again and again, whatever becomes of it, until it is over. */
async function again(what: () => Promise<void>, pause: number): Promise<void> {
  while (!over) {
    try {
      await what();
    } catch {
      // The server has closed it, as it should.
    }
    await sleep(pause);
  }
}

/** An honest client: asks without pause, then goes. */
async function honest(client: Client): Promise<void> {
  try {
    for (let i = 0; i < 500 && !over; i++) {
      await client.exchange();
      figures.exchanges++;
    }
  } finally {
    client.close();
  }
}

/** Sends a byte a second until the server has had enough. */
async function drip(server: ServeProcess): Promise<void> {
  const client = await connect(server);
  const bytes = server.transport === "tls" ? CORPUS["TLS 1.2 hello"]! : request;
  try {
    for (let i = 0; i < 40 && !over; i++) {
      await client.write(bytes.subarray(i, i + 1));
      figures.drips++;
      await sleep(1000);
    }
  } finally {
    client.close();
  }
}

/** Asks and never reads an answer. */
async function deaf(server: ServeProcess): Promise<void> {
  const client = await connect(server);
  const many = new Uint8Array(4800);
  for (let i = 0; i < many.length; i += 48) many.set(request, i);
  try {
    while (!over) await client.write(many);
  } finally {
    client.close();
  }
}

/** Says what other protocols open with, all that it has to say at once. */
async function opening(server: ServeProcess): Promise<void> {
  for (const bytes of Object.values(CORPUS)) {
    const client = await connect(server);
    try {
      await client.write(bytes);
      await client.tcp.closeWrite();
      while (await client.tcp.read(new Uint8Array(1024)) !== null);
    } catch {
      // It was reset.
    } finally {
      client.close();
    }
    figures.openings++;
  }
}

/** The real program, whose result must be right. */
async function measure(server: ServeProcess): Promise<void> {
  const name = `${server.transport}://127.0.0.1:${server.port}`;
  const ca = server.transport === "tls" ? ["--ca", `${folder}/authority.pem`] : [];
  const { code, stdout, stderr } = await run(
    server === user ? unstamped : program,
    "sync",
    "--json",
    name,
    ...ca,
  );
  if (over) return; // The server may have gone meanwhile.
  figures.syncs++;
  const { offset, error_bound } = JSON.parse(stdout);
  if (code === 0 && Math.abs(offset) <= error_bound) return;
  figures.wrong++;
  console.error(stdout, stderr);
}

async function secureExchanges(server: ServeProcess): Promise<void> {
  const tls = await Deno.connectTls({
    hostname: "127.0.0.1",
    port: server.port,
    caCerts: [authority],
  });
  const reply = new Uint8Array(48);
  try {
    for (let i = 0; i < 100 && !over; i++) {
      await tls.write(request);
      if (await tls.read(reply) === null) return;
      figures.exchanges++;
    }
  } finally {
    tls.close();
  }
}

/** Looks at a server as a scraper does and as a page does. */
async function view(url: string): Promise<void> {
  for (const path of ["metrics", "healthz", "status", "time", ""]) {
    const response = await fetch(`${url}/${path}`);
    await response.text();
    if (response.status === 200) figures.views++;
  }
}

/** What a scanner sends to a web server: a request without an end, one without sense, a reset. */
async function scan(port: number): Promise<void> {
  const client = await connect({ port });
  try {
    await client.write(new TextEncoder().encode("GET / HTTP/1.1\r\n"));
    for (let i = 0; i < 15 && !over; i++) {
      await client.write(Uint8Array.of(97));
      await sleep(1000);
    }
  } finally {
    client.close();
    await openAndReset(port, 1);
  }
}

/** Counts what a server tells. */
async function listen(server: ServeProcess, refusals: Map<string, number>): Promise<void> {
  for (let event = await server.nextEvent(); event !== null; event = await server.nextEvent()) {
    if (event["event"] !== "refused") continue;
    const reason = String(event["reason"]);
    refusals.set(reason, (refusals.get(reason) ?? 0) + Number(event["count"]));
  }
}

await using plain = await ServeProcess.start(program, PLAIN);
await using secure = await ServeProcess.start(program, TLS);
await using user = await ServeProcess.start(unstamped, PLAIN);
const servers = [plain, secure, user];
const pages = [await plain.nextAddress(), await secure.nextAddress(), await user.nextAddress()];
const refusals = new Map<string, number>();
const logs = servers.map((server) => listen(server, refusals));
const repeat = (count: number, what: () => Promise<void>, pause: number) =>
  Array.from({ length: count }, () => again(what, pause));
const median = (numbers: number[]) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1]!;
console.log(`${program.name} program, ${minutes} minutes\n`);
// A thread's heap grows to its size with what it does, not with time.
for (const address of pages) {
  const views = async () => {
    for (let i = 0; i < 500; i++) {
      await view(`http://${address}`);
      for (let n = 0; n < 4; n++) await openAndReset(Number(address.split(":").at(-1)), 1);
    }
  };
  await Promise.all([views(), views(), views(), views(), views(), views(), views(), views()]);
}
figures.views = 0;
const load = [
  ...repeat(200, async () => honest(await connect(plain)), 20),
  ...repeat(200, async () => honest(await connect(user)), 20),
  ...repeat(5, () => secureExchanges(secure), 20),
  ...repeat(250, () => drip(plain), 1000),
  ...repeat(250, () => drip(secure), 1000),
  ...repeat(250, () => drip(user), 1000),
  ...repeat(5, () => deaf(plain), 100),
  ...repeat(5, () => deaf(secure), 100),
  ...repeat(5, () => deaf(user), 100),
  ...repeat(1, () => opening(plain), 200),
  ...repeat(1, () => opening(secure), 200),
  ...repeat(1, () => opening(user), 200),
  ...repeat(2, async () => {
    await openAndReset(plain.port, figures.resets++ % 3);
    await openAndReset(secure.port, figures.resets++ % 3);
    await openAndReset(user.port, figures.resets++ % 3);
  }, 5),
  ...repeat(1, () => measure(plain), 1000),
  ...repeat(1, () => measure(secure), 1000),
  ...repeat(1, () => measure(user), 1000),
  ...pages.flatMap((address) => [
    ...repeat(3, () => view(`http://${address}`), 500),
    ...repeat(30, () => scan(Number(address.split(":").at(-1))), 100),
  ]),
  ...repeat(1, () => Promise.resolve(Deno.kill(secure.pid, "SIGHUP")), 5000),
];
console.log(
  "minute  exchanges  syncs  wrong  drips    resets  openings  views  plain     TLS       user",
);
const after: number[][] = [];
for (let minute = 1; minute <= minutes; minute++) {
  const seen: number[][] = servers.map(() => []);
  for (let second = 0; second < 60; second++) {
    await sleep(1000);
    if (second < 40) continue;
    for (const [i, server] of servers.entries()) seen[i]!.push(await server.residentMemory());
  }
  const resident = seen.map(median);
  after.push(resident);
  const { exchanges, syncs, wrong, drips, resets, openings, views } = figures;
  console.log(
    [minute, exchanges, syncs, wrong, drips, resets, openings, views]
      .map((figure, i) => String(figure).padEnd([8, 11, 7, 7, 9, 8, 10, 7][i]!)).join("") +
      resident.map((megabytes) => `${megabytes.toFixed(1)} MB`.padEnd(10)).join(""),
  );
}
over = true;
const ends = await Promise.all(servers.map((server) => server.end()));
await Promise.all([...load, ...logs]);
console.log(
  "\nrefused: " + [...refusals].map(([reason, count]) => `${count} ${reason}`).sort().join(", "),
);
const settled = Math.min(10, minutes - 1);
const growth = servers.map((_, i) => after.at(-1)![i]! / after[settled - 1]![i]!);
console.log(
  `memory at the end against that of minute ${settled}: ${
    growth.map((ratio) => ratio.toFixed(2)).join(", ")
  }`,
);
const good = growth.every((ratio) => ratio <= 1.05) && figures.wrong === 0 &&
  ends.every((code) => code === 0);
console.log(good ? "good" : "NOT good");
Deno.exit(good ? 0 : 1);
