/**
 * What the programs tell a service manager: a real socket receives it.
 *
 * @module
 */

import { assert, assertEquals, assertMatch } from "@std/assert";
import {
  commandLine,
  compiled,
  linesOf,
  type Program,
  run,
  ServeProcess,
  SOURCE,
} from "../scripts/program.ts";
import { ServiceManager, watchdogInterval } from "../src/cli/service_manager.ts";
import { EAGAIN, ENAMETOOLONG } from "../src/libc/structures.ts";
import { linuxLibc, numberedErrorText } from "../src/net/linux/sockets.ts";
import { sendUnixDatagram } from "../src/net/linux/unix_datagram.ts";
import { answering, FakeServer, units } from "./fake_server.ts";
import "./libraries.ts";

const libc = linuxLibc();
if (libc === null) console.log("notify: all tests are skipped, there is no libc of Linux's");

function test(name: string, body: () => Promise<void>): void {
  Deno.test({ name, ignore: libc === null, fn: body });
}

/** A service manager's socket. */
class Receiver implements AsyncDisposable {
  readonly path: string;
  readonly #folder: string;
  readonly #socket: Deno.DatagramConn;

  constructor() {
    this.#folder = Deno.makeTempDirSync();
    this.path = `${this.#folder}/notify`;
    this.#socket = Deno.listenDatagram({ path: this.path, transport: "unixpacket" });
  }

  async next(): Promise<string> {
    return new TextDecoder().decode((await this.#socket.receive())[0]);
  }

  /** All that comes up to and with a state. */
  async until(state: string): Promise<string[]> {
    const all = [];
    do all.push(await this.next()); while (all.at(-1) !== state);
    return all;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.close();
    await Deno.remove(this.#folder, { recursive: true });
  }
}

/** The program with these variables in its environment. */
function within(program: Program, ...variables: string[]): Program {
  const { name, executable, args } = program;
  return { name, executable: "env", args: [...variables, executable, ...args] };
}

function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  return port;
}

for (const program of [SOURCE, compiled()].filter((each) => each !== null)) {
  test(`${program.name}: serve is ready once it listens, and says that it stops`, async () => {
    await using manager = new Receiver();
    const port = freePort();
    const told = within(program, `NOTIFY_SOCKET=${manager.path}`);
    const { executable } = told;
    const args = commandLine(told, ["serve", "--host", "127.0.0.1", "--port", `${port}`]);
    const child = new Deno.Command(executable, { args, stderr: "null" }).spawn();
    assertEquals(await manager.next(), "READY=1");
    (await Deno.connect({ hostname: "127.0.0.1", port })).close();
    child.kill();
    assertEquals(await manager.next(), "STOPPING=1");
    assertEquals((await child.status).code, 0);
  });

  test(`${program.name}: serve that cannot listen is never ready`, async () => {
    await using manager = new Receiver();
    using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const told = within(program, `NOTIFY_SOCKET=${manager.path}`);
    const port = `${taken.addr.port}`;
    assertEquals((await run(told, "serve", "--host", "127.0.0.1", "--port", port)).code, 1);
    assertEquals(await manager.until("STOPPING=1"), ["STOPPING=1"]);
  });

  test(`${program.name}: sync --watch is ready after its first fix, and gives signs of life`, async () => {
    await using manager = new Receiver();
    const port = freePort();
    const told = within(program, `NOTIFY_SOCKET=${manager.path}`, "WATCHDOG_USEC=40000");
    const { executable } = told;
    const args = commandLine(told, ["sync", "--watch", "--json", `127.0.0.1:${port}`]);
    const child = new Deno.Command(executable, { args, stdout: "null", stderr: "piped" }).spawn();
    const lines = linesOf(child.stderr);
    assertMatch((await lines.next()).value!, /connection refused/);
    await using _server = await ServeProcess.start(program, [
      ...["--host", "127.0.0.1", "--port", `${port}`],
    ]);
    const first = [await manager.next(), await manager.next(), await manager.next()];
    assertEquals(first, ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
    child.kill();
    const last = await manager.until("STOPPING=1");
    assertEquals(last.filter((state) => state === "READY=1"), []);
    assertEquals((await child.status).code, 0);
    for (let line = await lines.next(); !line.done; line = await lines.next());
  });

  test(`${program.name}: with --http, a fix that misses --max-offset is not ready`, async () => {
    await using manager = new Receiver();
    let ahead = 0.25;
    await using server = new FakeServer(answering((_, { receive, transmit }) => ({
      receive: receive + units(ahead),
      transmit: transmit + units(ahead),
    })));
    const told = within(program, `NOTIFY_SOCKET=${manager.path}`);
    const flags = ["--json", "--quiet", "--http", "0", "--max-offset", "0.2"];
    const args = commandLine(told, ["sync", "--watch", ...flags, server.address]);
    const child = new Deno.Command(told.executable, { args, stdout: "piped" }).spawn();
    const lines = linesOf(child.stdout);
    for (let polls = 0; polls < 2; polls++) {
      assert(JSON.parse((await lines.next()).value!).offset > 0.2);
    }
    sendUnixDatagram(libc!, manager.path, new TextEncoder().encode("two polls"));
    ahead = 0;
    assertEquals(await manager.until("READY=1"), ["two polls", "READY=1"]);
    child.kill();
    for (let line = await lines.next(); !line.done; line = await lines.next());
    assertEquals((await child.status).code, 0);
  });

  test(`${program.name}: signs of life that another process is to give are not given`, async () => {
    await using manager = new Receiver();
    const told = within(
      program,
      ...[`NOTIFY_SOCKET=${manager.path}`, "WATCHDOG_USEC=2000", "WATCHDOG_PID=1"],
    );
    await using server = await ServeProcess.start(told);
    assertEquals((await run(program, "sync", server.address)).code, 0);
    assertEquals((await server.stop()).code, 0);
    assertEquals(await manager.until("STOPPING=1"), ["READY=1", "STOPPING=1"]);
  });

  test(`${program.name}: serve goes on where nobody listens to it, and says so once`, async () => {
    const told = within(program, "NOTIFY_SOCKET=/nowhere/notify", "WATCHDOG_USEC=2000");
    await using server = await ServeProcess.start(told);
    assertEquals(await server.nextEvent(), {
      event: "notification-failed",
      error: "cannot tell /nowhere/notify (NOTIFY_SOCKET) of READY=1: No such file or directory",
    });
    assertEquals((await run(program, "sync", server.address)).code, 0);
    const { code, log } = await server.stop();
    assertEquals([code, log.length], [0, 1]);
  });
}

test("a name in the abstract namespace is one of a socket", async () => {
  const script = "import socket, sys\n" +
    "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n" +
    "s.bind('\\0' + sys.argv[1]); print('bound', flush=True); print(s.recv(99), flush=True)\n";
  const name = `tsync-test-${crypto.randomUUID()}`;
  let child: Deno.ChildProcess;
  try {
    const args = ["-c", script, name];
    child = new Deno.Command("python3", { args, stdout: "piped" }).spawn();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return console.log("python3 is not here: no abstract socket is tried");
  }
  const lines = linesOf(child.stdout);
  assertEquals((await lines.next()).value, "bound");
  assertEquals(sendUnixDatagram(libc!, `@${name}`, new TextEncoder().encode("READY=1")), 0);
  assertEquals((await lines.next()).value, "b'READY=1'");
  assertEquals((await lines.next()).done, true);
  await child.status;
});

test("what a datagram cannot be sent to is told by its number", async () => {
  const send = (name: string) => sendUnixDatagram(libc!, name, new Uint8Array([1]));
  const text = (name: string) => numberedErrorText(libc!, send(name));
  const folder = await Deno.makeTempDir();
  assertEquals(text(`${folder}/nobody`), "No such file or directory");
  assertEquals(text("@tsync-nobody"), "Connection refused");
  Deno.listenDatagram({ path: `${folder}/left`, transport: "unixpacket" }).close();
  await Deno.writeTextFile(`${folder}/file`, "");
  assertEquals(text(`${folder}/file`), "Connection refused");
  await Deno.remove(folder, { recursive: true });
  // Of the 108 bytes of a path one ends it; an abstract name has no end but the address's.
  assertEquals(text(`/${"n".repeat(106)}`), "No such file or directory");
  assertEquals(send(`/${"n".repeat(107)}`), ENAMETOOLONG);
  assertEquals(text(`@${"n".repeat(107)}`), "Connection refused");
  assertEquals(send(`@${"n".repeat(108)}`), ENAMETOOLONG);
});

test("a manager that is busy is told later", async () => {
  await using receiver = new Receiver();
  let sent = 0;
  const filler = new TextEncoder().encode("STATUS=");
  while (sendUnixDatagram(libc!, receiver.path, filler) === 0) sent++;
  assertEquals(sendUnixDatagram(libc!, receiver.path, filler), EAGAIN);
  assert(sent > 0);
  const said: string[] = [];
  const manager = new ServiceManager(receiver.path, null, (sentence) => said.push(sentence));
  manager.ready();
  const all = await receiver.until("READY=1");
  assertEquals(all.length, sent + 1);
  manager.ready();
  manager.stopping();
  manager.stopping();
  assertEquals(await receiver.until("STOPPING=1"), ["STOPPING=1"]);
  assertEquals(said, []);
});

Deno.test("watchdogInterval() is half of what the manager allows, if it is for this process", () => {
  assertEquals(watchdogInterval("60000000"), 30_000);
  assertEquals(watchdogInterval("1000", `${Deno.pid}`), 0.5);
  assertEquals(watchdogInterval("60000000", "1"), null);
  assertEquals(watchdogInterval("99999999999999"), 2 ** 31 - 1);
  for (const none of [undefined, "", "0", "-1", "soon", "1e6"]) {
    assertEquals(watchdogInterval(none), null);
  }
});
