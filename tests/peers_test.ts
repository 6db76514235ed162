/**
 * NTP with programs that nobody here wrote: chronyd (always with -x, so that it
 * touches no clock), ntpdig, and faketime, which gives a chronyd another time.
 *
 * @module
 */

import { GOOD_REPLY } from "./good_reply.ts";
import { SILENCE, SLOWNESS } from "./slowness.ts";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { compiled, run, ServeProcess, SOURCE } from "../scripts/program.ts";
import { encodePacket, OFFSET, viewOf } from "../src/ntp/packet.ts";
import { toTimestamp } from "../src/ntp/timestamp.ts";
import { systemClock } from "../src/clock/system_clock.ts";

const program = compiled() ?? SOURCE;
const clock = systemClock();

const there = new Map<string, boolean>();
for (const name of ["chronyd", "chronyc", "ntpdig", "faketime"]) {
  there.set(name, await has(name));
  if (!there.get(name)) console.log(`peers: tests with ${name} are skipped, it is not installed`);
}

/** Tests that need a program that may be missing. */
function test(name: string, needs: readonly string[], body: () => Promise<void>): void {
  const ignore = !needs.every((each) => there.get(each));
  // Whoever waits for another program may have a timer left in the end.
  Deno.test({ name, ignore, sanitizeOps: false, sanitizeResources: false, fn: body });
}

async function has(name: string): Promise<boolean> {
  const { success } = await new Deno.Command("sh", { args: ["-c", `command -v ${name}`] }).output();
  return success;
}

/** A port that was free a moment ago. */
function freePort(): number {
  const socket = Deno.listenDatagram({ hostname: "127.0.0.1", port: 0, transport: "udp" });
  const { port } = socket.addr as Deno.NetAddr;
  socket.close();
  return port;
}

/** A folder for a chronyd's files, which its own user could not write. */
async function withFolder<T>(body: (folder: string) => Promise<T>): Promise<T> {
  const folder = await Deno.makeTempDir({ dir: "/tmp" });
  try {
    return await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Waits for something that another program must bring about, but not for ever. */
async function until<T>(what: () => Promise<T | null>): Promise<T> {
  for (let i = 0; i < 600; i++) {
    const found = await what();
    if (found !== null) return found;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error("another program did not do its part");
}

/** chronyd as a server, or as a client that runs on. */
class Chronyd implements AsyncDisposable {
  private constructor(
    readonly child: Deno.ChildProcess,
    readonly folder: string,
    readonly port: number,
  ) {}

  /** @param fake Seconds by which its clock is ahead. */
  static async start(lines: readonly string[], fake = 0): Promise<Chronyd> {
    const folder = await Deno.makeTempDir({ dir: "/tmp" });
    await Deno.chmod(folder, 0o700);
    const port = freePort();
    const config = [
      `port ${port}`,
      "bindaddress 127.0.0.1",
      "allow 127.0.0.0/8",
      "cmdport 0",
      `bindcmdaddress ${folder}/socket`,
      `pidfile ${folder}/pid`,
      ...lines,
    ];
    await Deno.writeTextFile(`${folder}/conf`, config.join("\n") + "\n");
    const chronyd = ["chronyd", "-x", "-d", "-u", "root", "-f", `${folder}/conf`];
    const [command, ...args] = fake === 0 ? chronyd : ["faketime", "-f", `+${fake}s`, ...chronyd];
    const child = new Deno.Command(command!, { args, stdout: "null", stderr: "null" }).spawn();
    const started = new Chronyd(child, folder, port);
    await until(async () => await answers(port) || null);
    return started;
  }

  /** What chronyc says, line by line, as comma-separated values. */
  async ask(...args: string[]): Promise<string[][]> {
    const { stdout } = await new Deno.Command("chronyc", {
      args: ["-h", `${this.folder}/socket`, "-c", ...args],
      stderr: "null",
    }).output();
    return new TextDecoder().decode(stdout).trim().split("\n").map((line) => line.split(","));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // faketime would keep the signal to itself.
    Deno.kill(Number(await Deno.readTextFile(`${this.folder}/pid`)), "SIGTERM");
    await this.child.status;
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** Does anybody answer a request here? */
async function answers(port: number): Promise<boolean> {
  const socket = Deno.listenDatagram({ hostname: "127.0.0.1", port: 0, transport: "udp" });
  const request = new Uint8Array(48);
  request[0] = 0x23;
  request[47] = 1;
  try {
    await socket.send(request, { hostname: "127.0.0.1", port, transport: "udp" });
    setTimeout(() => socket.close(), 100); // Once only: nobody else does.
    await socket.receive();
    return true;
  } catch {
    return false;
  }
}

const serving = (host = "127.0.0.1", udpPort = 0) =>
  ServeProcess.start(program, [
    ...["--host", host, "--port", "0", "--udp-port", String(udpPort)],
  ]);

async function udpPort(server: ServeProcess): Promise<number> {
  const { transport, address } = (await server.nextEvent())!;
  assertEquals(transport, "udp");
  return Number(String(address).split(":").at(-1));
}

/** Noise can only make a measurement worse: the best of a few says what can be had. */
async function best(
  limit: number,
  attempts: number,
  measure: () => Promise<number>,
): Promise<void> {
  const seen: number[] = [];
  for (let i = 0; i < attempts; i++) {
    const offset = await measure();
    seen.push(offset);
    if (Math.abs(offset) <= limit) return;
  }
  assert(false, `${seen.join(", ")} s, none within ${limit} s`);
}

test("chronyd -Q with tsync as its only server sees no offset", ["chronyd"], async () => {
  await using server = await serving();
  const port = await udpPort(server);
  await best(20e-6 * SLOWNESS, 20, () =>
    withFolder(async (folder) => {
      const lines = [`server 127.0.0.1 port ${port} iburst`, "port 0", "cmdport 0"];
      await Deno.writeTextFile(
        `${folder}/conf`,
        [...lines, `pidfile ${folder}/pid`].join("\n") + "\n",
      );
      const { code, stdout, stderr } = await new Deno.Command("chronyd", {
        args: ["-Q", "-x", "-u", "root", "-f", `${folder}/conf`],
      }).output();
      const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
      assertEquals(code, 0, text);
      return Number(/wrong by (-?[\d.]+) seconds/.exec(text)![1]);
    }));
});

test("ntpdig sees no offset of tsync's, and its stratum and leap", ["ntpdig"], async () => {
  let server: ServeProcess;
  try {
    server = await serving("127.0.0.9", 123);
  } catch (error) {
    return console.log(`ntpdig asks port 123 only: ${(error as Error).message}: not tried`);
  }
  await using _ = server;
  await udpPort(server);
  await best(60e-6 * SLOWNESS, 20, async () => {
    const { stdout } = await new Deno.Command("ntpdig", { args: ["-j", "127.0.0.9"] }).output();
    const { offset, stratum, leap } = JSON.parse(new TextDecoder().decode(stdout));
    assert(stratum === 10 || stratum === 2, `stratum ${stratum}`);
    assertEquals(leap, "no-leap");
    return Number(offset);
  });
});

test("sync finds chronyd's time within its bound", ["chronyd"], async () => {
  await using chronyd = await Chronyd.start(["local stratum 3"]);
  const name = `ntp://127.0.0.1:${chronyd.port}`;
  const { code, stdout } = await run(program, "sync", "--json", name, "--samples", "2");
  const { offset, error_bound, servers } = JSON.parse(stdout);
  assertEquals([code, servers[0].transport, servers[0].stratum], [0, "ntp", 3]);
  assert(Math.abs(offset) <= error_bound, stdout);
});

test("sync finds the time of a chronyd that is 37.5 s ahead", ["chronyd", "faketime"], async () => {
  await using chronyd = await Chronyd.start(["local stratum 3"], 37.5);
  const name = `ntp://127.0.0.1:${chronyd.port}`;
  await best(0.01 * SLOWNESS, 20, async () => {
    const { stdout } = await run(program, "sync", "--json", name, "--samples", "1");
    const { offset, error_bound } = JSON.parse(stdout);
    assert(Math.abs(offset - 37.5) <= error_bound, stdout);
    return error_bound;
  });
});

/** A key file with a key of each type, for both; and the IDs. */
const KEYS = `1 tulip-tulip-tulip
2 SHA1 HEX:933F62BE1D604E68A81B557F18CFA200483F5B70
3 SHA256 HEX:933F62BE1D604E68A81B557F18CFA200483F5B70
4 SHA512 ASCII:a-rather-long-key,-longer-than-what-the-function-gives-and-than-one-of-its-blocks
5 SHA3-256 HEX:933F62BE1D604E68A81B557F18CFA200483F5B70
6 AES128 HEX:7EA62AE64D190114D46D5A082F948EC1
7 AES256 HEX:37DDCBC67BB902BCB8E995977FAB4D2B5642F5B32EBCEEE421921D97E5CBFE39
`;
const KEY_IDS = ["1", "2", "3", "4", "5", "6", "7"];

async function withKeys(body: (keys: string, wrong: string) => Promise<void>): Promise<void> {
  await withFolder(async (folder) => {
    const [keys, wrong] = [`${folder}/keys`, `${folder}/wrong`];
    await Deno.writeTextFile(keys, KEYS, { mode: 0o600 });
    await Deno.writeTextFile(wrong, KEYS.replaceAll(/.(?=\n)/g, "0"), { mode: 0o600 });
    await body(keys, wrong);
  });
}

test(
  "sync and chronyd have the same keys, of all types",
  ["chronyd"],
  () =>
    withKeys(async (keys, wrong) => {
      await using chronyd = await Chronyd.start(["local stratum 3", `keyfile ${keys}`]);
      const name = `ntp://127.0.0.1:${chronyd.port}`;
      for (const timestamps of ["auto", "user"]) {
        for (const id of KEY_IDS) {
          const flags = ["--json", "--samples", "1", "--timestamps", timestamps];
          const asked = [...flags, "--keys", keys, "--key", id, name];
          const { code, stdout } = await run(program, "sync", ...asked);
          const { offset, error_bound } = JSON.parse(stdout);
          assertEquals(code, 0, `key ${id}: ${stdout}`);
          assert(Math.abs(offset) <= error_bound, stdout);
        }
      }
      // chronyd does not answer who has another key.
      const asked = ["--quiet", "--timeout", SILENCE, "--keys", wrong, "--key", "6", name];
      const { code, stderr } = await run(program, "sync", ...asked);
      assertEquals([code, stderr], [
        1,
        `tsync: ${name} did not answer within ${SILENCE} s; does it have the same key 6?\n`,
      ]);
    }),
);

for (const timestamps of ["auto", "user"]) {
  test(
    `chronyd and serve (timestamps: ${timestamps}) have the same keys, of all types`,
    ["chronyd", "chronyc"],
    () =>
      withKeys(async (keys, wrong) => {
        const start = async (host: string, file: string) => {
          const where = ["--host", host, "--port", "0", "--udp-port", "0"];
          const how = ["--timestamps", timestamps, "--rate", "0", "--keys", file];
          const server = await ServeProcess.start(program, [...where, ...how]);
          return { server, port: await udpPort(server) };
        };
        const hosts = KEY_IDS.map((id) => [`127.0.0.${20 + Number(id)}`, id] as const);
        const good = await Promise.all(hosts.map(([host]) => start(host, keys)));
        const bad = await start("127.0.0.30", wrong);
        const poll = "iburst minpoll -2 maxpoll -2";
        await using chronyd = await Chronyd.start([
          `keyfile ${keys}`,
          ...hosts.map(([host, id], i) => `server ${host} port ${good[i]!.port} key ${id} ${poll}`),
          `server 127.0.0.30 port ${bad.port} key 6 ${poll}`,
          "local stratum 12",
        ]);
        // It has heard all of those with its keys, long enough to have heard the other too.
        const reach = await until(async () => {
          const sources = await chronyd.ask("sources");
          const reach = new Map(sources.map(([, , address, , , reach]) => [address!, reach!]));
          return hosts.every(([host]) => reach.get(host) === "377") ? reach : null;
        });
        assertEquals(reach.get("127.0.0.30"), "0");
        const data = await chronyd.ask("authdata");
        const types = new Map(data.map(([address, mode, id, type]) => [address, [mode, id, type]]));
        assertEquals(types.get("127.0.0.26"), ["SK", "6", "13"]);
        for (const { server } of good) {
          const { log } = await server.stop();
          assertEquals(log.filter((each) => (each as { event: string }).event === "refused"), []);
        }
        const { log } = await bad.server.stop();
        const [first, last] = [log.at(0), log.at(-1)] as Record<string, unknown>[];
        assertEquals([first!.reason, last!.replies], ["mac", 0]);
      }),
  );
}

test("sync believes no chronyd that is not synchronised", ["chronyd"], async () => {
  await using chronyd = await Chronyd.start([]);
  const { code, stdout, stderr } = await run(
    program,
    "sync",
    "--json",
    `ntp://127.0.0.1:${chronyd.port}`,
  );
  assertEquals([code, JSON.parse(stdout).servers[0].status], [1, "invalid"]);
  assertMatch(stderr, /is not synchronised itself, and says so\n$/);
});

test("of two chronyds and one under faketime, the last is the falseticker", [
  "chronyd",
  "faketime",
], async () => {
  await using one = await Chronyd.start(["local stratum 3"]);
  await using two = await Chronyd.start(["local stratum 3"]);
  await using liar = await Chronyd.start(["local stratum 3"], 10);
  await using tcp = await ServeProcess.start(program);
  const names = [one, liar, two].map(({ port }) => `ntp://127.0.0.1:${port}`);
  const args = ["sync", "--json", "--samples", "1", ...names, tcp.address];
  const { code, stdout } = await run(program, ...args);
  const { servers, offset, error_bound } = JSON.parse(stdout);
  assertEquals(servers.map(({ status }: { status: string }) => status), [
    "truechimer",
    "falseticker",
    "truechimer",
    "truechimer",
  ]);
  assertEquals(code, 0);
  assert(Math.abs(offset) <= error_bound, stdout);
});

test(
  "chronyd with two tsync servers and a liar finds the liar",
  ["chronyd", "chronyc"],
  async () => {
    await using one = await serving("127.0.0.11");
    await using two = await serving("127.0.0.12");
    const [first, second] = [await udpPort(one), await udpPort(two)];
    const liar = Deno.listenDatagram({ hostname: "127.0.0.13", port: 0, transport: "udp" });
    const lying = lie(liar, 10);
    const poll = "iburst minpoll -2 maxpoll -2";
    await using chronyd = await Chronyd.start([
      `server 127.0.0.11 port ${first} ${poll}`,
      `server 127.0.0.12 port ${second} ${poll}`,
      `server 127.0.0.13 port ${(liar.addr as Deno.NetAddr).port} ${poll}`,
      "local stratum 12",
    ]);
    const good = (state: string | undefined) => state !== undefined && "*+-".includes(state);
    await until(async () => {
      const sources = await chronyd.ask("sources");
      const states = new Map(sources.map(([, state, address]) => [address!, state!]));
      const found = states.get("127.0.0.13") === "x" && good(states.get("127.0.0.11")) &&
        good(states.get("127.0.0.12"));
      return found || null;
    });
    liar.close();
    await lying;
  },
);

/** Serves a time that is so many seconds ahead, until the socket is closed. */
async function lie(socket: Deno.DatagramConn, seconds: number): Promise<void> {
  const now = () => toTimestamp(clock.realtime() + BigInt(seconds) * 1_000_000_000n);
  try {
    for (;;) {
      const [request, client] = await socket.receive();
      const receive = now();
      const origin = viewOf(request).getBigUint64(OFFSET.transmit);
      const times = { origin, receive, transmit: now(), reference: receive };
      await socket.send(encodePacket({ ...GOOD_REPLY, ...times }), client);
    }
  } catch {
    // It is closed.
  }
}
