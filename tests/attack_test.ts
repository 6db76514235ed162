/**
 * What a server on a public address must live through, done to the real
 * program: while it happens and afterwards, others get right answers.
 *
 * @module
 */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { commandLine, type Program, programs, run, ServeProcess } from "../scripts/program.ts";
import { MessageReader } from "../src/net/framing.ts";
import { decodePacket } from "../src/ntp/packet.ts";
import { type Client, connect, openAndReset, received, request, requestOf } from "./attackers.ts";
import { namespacesObstacle, output, withNamespaces } from "./namespaces.ts";
import { SLOWNESS } from "./slowness.ts";

const LOOPBACK = ["--host", "127.0.0.1", "--port", "0"];

const obstacle = await namespacesObstacle();

for (const program of programs()) testProgram(program);

function testProgram(program: Program): void {
  const test = (name: string, body: () => Promise<void>) =>
    Deno.test(`${program.name}: ${name}`, body);

  const assertServes = async (address: string, ...args: string[]) => {
    const { code, stdout, stderr } = await run(
      program,
      "sync",
      "--json",
      "--quiet",
      address,
      ...args,
    );
    assertEquals([code, stderr], [0, ""]);
    const { offset, error_bound } = JSON.parse(stdout);
    assert(Math.abs(offset) <= error_bound, stdout);
  };

  test("a thousand connect at once, and none is overlooked", async () => {
    await using server = await ServeProcess.start(program, LOOPBACK);
    const before = await tcpCounters();
    // Stopped, it accepts nobody: they must find room.
    Deno.kill(server.pid, "SIGSTOP");
    const clients = await Promise.all(Array.from({ length: 1000 }, () => connect(server)));
    Deno.kill(server.pid, "SIGCONT");
    await Promise.all(clients.map((client) => client.exchange()));
    const after = await tcpCounters();
    for (const [name, count] of before) assertEquals(after.get(name), count, name);
    for (const client of clients) client.close();
    await assertServes(server.address);
  });

  test("five hundred that drip a byte at a time hold nobody up", async () => {
    await using server = await ServeProcess.start(program, LOOPBACK);
    const length = Math.ceil(500 / SLOWNESS);
    const clients = await Promise.all(Array.from({ length }, () => connect(server)));
    for (let i = 0; i < 20; i++) {
      await Promise.all(clients.map((client) => client.write(request.subarray(i, i + 1))));
      // Each takes a while: those who drip have ten seconds.
      if (i % 5 === 0 && i < 20 / SLOWNESS) await assertServes(server.address);
    }
    // Who finishes within ten seconds is answered.
    await Promise.all(
      clients.slice(0, length / 5).map((client) => client.write(request.subarray(20))),
    );
    await Promise.all(clients.slice(0, length / 5).map((client) => client.receive()));
    assertEquals((await server.stop()).code, 0);
    for (const client of clients) client.close();
  });

  test("five thousand connections are opened and reset", async () => {
    await using server = await ServeProcess.start(program, LOOPBACK);
    for (let round = 0; round < 25; round++) {
      await Promise.all(Array.from({ length: 200 }, (_, i) => openAndReset(server.port, i % 3)));
    }
    await assertServes(server.address);
    const { code, log } = await server.stop();
    assertEquals(code, 0);
    const { event, replies } = log.at(-1) as Record<string, unknown>;
    assertEquals(event, "stopped");
    assert(Number(replies) >= 17);
  });

  test("nobody reads its log, and it goes on and ends", async () => {
    if (Deno.build.os !== "linux") return console.log("needs Linux's pipes: not tried");
    const fifo = await Deno.makeTempFile();
    await Deno.remove(fifo);
    await new Deno.Command("mkfifo", { args: [fifo] }).output();
    const free = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = free.addr;
    free.close();
    // The pipe is full before the first line: 64 KiB are what it holds.
    const script = 'exec 3<>"$0"; head -c 65536 /dev/zero >&3; exec "$@" 2>"$0"';
    const command = commandLine(program, ["serve", "--host", "127.0.0.1"]);
    const args = [program.executable, ...command];
    const child = new Deno.Command("sh", {
      args: ["-c", script, fifo, ...args, "--port", String(port)],
    }).spawn();
    try {
      while ((await run(program, "sync", "--quiet", `127.0.0.1:${port}`)).code !== 0);
      for (let i = 0; i < 20; i++) await openAndReset(port, 1);
      await assertServes(`127.0.0.1:${port}`);
    } finally {
      child.kill("SIGTERM");
      assertEquals((await child.status).code, 0);
      await Deno.remove(fifo);
    }
  });

  test("a client that has said all it will is answered to the end", async () => {
    await using server = await ServeProcess.start(program, LOOPBACK);
    const client = await connect(server);
    for (let i = 0; i < 3; i++) await client.write(request);
    await client.tcp.closeWrite();
    for (let i = 0; i < 3; i++) await client.receive();
    assertEquals(await client.tcp.read(new Uint8Array(1)), null);
    client.close();
  });

  test("out of file descriptors, it serves whom it has, and others when it can again", async () => {
    if (Deno.build.os === "windows") return;
    const limited: Program = {
      ...program,
      executable: "sh",
      args: ["-c", 'ulimit -n 64; exec "$0" "$@"', program.executable, ...program.args],
    };
    await using server = await ServeProcess.start(limited, LOOPBACK);
    const waiting = new Set(await Promise.all(Array.from({ length: 200 }, () => connect(server))));
    const served: Client[] = [];
    for (const client of waiting) client.exchange().then(() => served.push(client), () => {});
    const few = await server.nextEvent();
    assertEquals(few, { event: "too-few-files", files: 64, wanted: 10_128 });
    const event = await server.nextEvent();
    assertEquals(event, { event: "accept-failed", error: "Too many open files" });
    let most = 0;
    while (waiting.size > 0) {
      await until(() => served.length > 0);
      most = Math.max(most, served.length);
      // It still answers them, all descriptors being taken.
      for (const client of served.splice(0)) {
        if (waiting.size > 100) await client.exchange();
        client.close();
        waiting.delete(client);
      }
    }
    assert(most <= 64, `${most} were served at once`);
    await assertServes(server.address);
    assertEquals((await server.stop()).code, 0);
  });

  test("it raises the limit on open files to what --max-clients takes", async () => {
    if (Deno.build.os !== "linux") return console.log("there is no /proc: not tried");
    const limited: Program = {
      ...program,
      executable: "sh",
      args: ["-c", 'ulimit -Sn 256; exec "$0" "$@"', program.executable, ...program.args],
    };
    await using server = await ServeProcess.start(limited, [...LOOPBACK, "--max-clients", "1000"]);
    const limits = await Deno.readTextFile(`/proc/${server.pid}/limits`);
    const soft = Number(/^Max open files +(\d+)/m.exec(limits)![1]);
    // Deno's own command has raised it before, as far as it goes.
    if (program.executable === Deno.execPath()) assert(soft >= 1128);
    else assertEquals(soft, 1128);
    assertEquals((await server.stop()).log.length, 1, "nothing is said of it");
  });

  test("it ends at once though a hundred clients ask without pause", async () => {
    await using server = await ServeProcess.start(program, [...LOOPBACK, "--rate", "0"]);
    const clients = await Promise.all(Array.from({ length: 100 }, () => connect(server)));
    let replies = 0;
    const loops = clients.map(async (client) => {
      try {
        for (;;) {
          await client.exchange();
          replies++;
        }
      } catch {
        client.close();
      }
    });
    await until(() => replies > 2000);
    const { code, log } = await server.stop();
    assertEquals(code, 0);
    const { event, connections } = log.at(-1) as Record<string, unknown>;
    assertEquals([event, connections], ["stopped", 100]);
    await Promise.all(loops);
  });

  test("datagrams in a client's name take nothing from its connections, nor all from it", async () => {
    const args = [...LOOPBACK, "--udp-port", "0", "--rate", "10"];
    await using server = await ServeProcess.start(program, args);
    const port = Number((await server.nextAddress()).split(":").at(-1));
    const listen = () => Deno.listenDatagram({ hostname: "127.0.0.1", port: 0, transport: "udp" });
    const [attacker, victim] = [listen(), listen()];
    const client = await connect(server);
    const to = { hostname: "127.0.0.1", port, transport: "udp" } as const;
    let heard = 0n;
    const hearing = (async () => {
      for await (const [reply] of attacker) heard = decodePacket(reply).origin;
    })();
    // Over TCP it asks no more often than it may: forty times at once.
    for (let round = 1n; round <= 30n; round++) {
      for (let i = 0; i < 10; i++) await victim.send(request, to);
      for (let i = 0; i < 100; i++) await attacker.send(requestOf(4, round), to);
      // They have been looked at when one that came after them is answered.
      while (heard < round) {
        await attacker.send(requestOf(4, round), to);
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      assert(decodePacket(await client.exchange()).stratum > 0, `request ${round}`);
    }
    assertEquals((await server.stop()).code, 0);
    let answers = 0;
    for (const reply of await received(victim)) {
      assertEquals(reply.length, 48);
      if (decodePacket(reply).stratum !== 0) answers++;
    }
    // A quarter of 300 leaks. Of what the rate allows, a tenth would be theirs.
    assert(answers > 30, `${answers} answers`);
    for (const each of [attacker, victim, client]) each.close();
    await hearing;
  });

  test("one who has many IPv6 addresses is one", async () => {
    if (obstacle !== null) return console.log(`${obstacle}: not tried`);
    await withNamespaces(1, async (name) => {
      await output("ip", "-n", name, "link", "set", "lo", "up");
      for (let i = 1; i <= 20; i++) {
        await output("ip", "-n", name, "address", "add", `2001:db8::${i}/64`, "dev", "lo");
      }
      await output("ip", "-n", name, "address", "add", "2001:db8:0:1::1/64", "dev", "lo");
      const inside = ["netns", "exec", name];
      const args = [...inside, program.executable, ...program.args];
      await using server = await ServeProcess.start({ ...program, executable: "ip", args }, [
        ...["--host", "::", "--port", "0", "--udp-port", "0"],
        ...["--max-clients-per-address", "10", "--rate", "5"],
      ]);
      const port = (await server.nextAddress()).split(":").at(-1)!;
      const script = [
        "run",
        "-A",
        "--no-config",
        "--unstable-net",
        "tests/fixtures/many_addresses.ts",
      ];
      const ports = [String(server.port), port];
      const said = await output("ip", ...inside, Deno.execPath(), ...script, ...ports);
      const { connections, others, datagrams } = JSON.parse(said);
      assertEquals([connections, others], [10, 1]);
      // Twenty may come at once, a few more by and by, and a quarter of the rest leaks.
      assert(datagrams >= 20 && datagrams < 130, `${datagrams} datagrams were answered`);
      assertEquals((await server.stop()).code, 0);
    });
  });

  test("a server stopped for a while in mid-measurement still gives a bound that holds", async () => {
    await using server = await ServeProcess.start(program, LOOPBACK);
    let exchanges = 0;
    await using proxy = new Proxy(server.port, () => {
      if (++exchanges !== 6) return;
      Deno.kill(server.pid, "SIGSTOP");
      setTimeout(() => Deno.kill(server.pid, "SIGCONT"), 300);
    });
    await assertServes(proxy.address);
    assert(exchanges >= 17, `${exchanges} exchanges`);
  });

  test("a server killed in mid-measurement leaves a fix from what it had answered", async () => {
    await using server = await ServeProcess.start(program, LOOPBACK);
    let exchanges = 0;
    await using proxy = new Proxy(server.port, () => {
      if (++exchanges === 6) Deno.kill(server.pid, "SIGKILL");
    });
    const { code, stdout } = await run(program, "sync", "--json", proxy.address);
    const { offset, error_bound, servers } = JSON.parse(stdout);
    assertEquals([code, servers[0].status], [0, "truechimer"]);
    assert(servers[0].samples >= 4 && servers[0].samples <= 6, stdout);
    assert(Math.abs(offset) <= error_bound, stdout);
  });

  test("a server killed before its first answer is named", async () => {
    await using server = await ServeProcess.start(program, LOOPBACK);
    await using proxy = new Proxy(server.port, () => {
      Deno.kill(server.pid, "SIGKILL");
    });
    const { code, stdout, stderr } = await run(program, "sync", proxy.address);
    assertEquals([code, stdout], [1, ""]);
    assertMatch(stderr, /^tsync: \S+ (closed the connection without an answer|broke the conn)/);
  });
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
}

/** What Linux counts of connections that had to wait or were dropped. */
async function tcpCounters(): Promise<Map<string, string>> {
  if (Deno.build.os !== "linux") return new Map();
  const text = await Deno.readTextFile("/proc/net/netstat");
  const [names, values] = text.split("\n").map((line) => line.split(" "));
  const wanted = ["ListenOverflows", "ListenDrops"];
  return new Map(wanted.map((name) => [name, values![names!.indexOf(name)]!]));
}

/** Passes messages on one at a time, and says so before it does. */
class Proxy implements AsyncDisposable {
  readonly address: string;
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #done: Promise<void>;

  constructor(port: number, onRequest: () => void) {
    this.address = `127.0.0.1:${this.#listener.addr.port}`;
    this.#done = this.#accept(port, onRequest);
  }

  async #accept(port: number, onRequest: () => void): Promise<void> {
    for await (const tcp of this.#listener) {
      using client = tcp;
      try {
        using server = await Deno.connect({ hostname: "127.0.0.1", port });
        const there = new MessageReader(client, new Uint8Array(48), () => 0n);
        const back = new MessageReader(server, new Uint8Array(48), () => 0n);
        while (await there.read()) {
          onRequest();
          await server.write(there.message);
          if (!await back.read()) break;
          await client.write(back.message);
        }
      } catch {
        // The server has gone: the client will see that.
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    await this.#done;
  }
}
