/**
 * The real programs as processes: from source, and compiled where `dist/` has
 * one. Sentences and exit statuses are checked as a person sees them.
 *
 * @module
 */

import { lookup } from "node:dns/promises";
import { once } from "node:events";
import { createConnection } from "node:net";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import {
  commandLine,
  compiled,
  linesOf,
  type Program,
  programs,
  run,
  ServeProcess,
  withoutProgress,
} from "../scripts/program.ts";
import { encodePacket, OFFSET, viewOf } from "../src/ntp/packet.ts";
import { answering, answeringBytes, type Behaviour, FakeServer, units } from "./fake_server.ts";
import { PATIENCE, SILENCE, SLOWNESS } from "./slowness.ts";

if (compiled() === null) console.log("end to end: no compiled program in dist/, only the source");
for (const program of programs()) testProgram(program);

/** Is there no name server here that could tell? */
async function isOffline(): Promise<boolean> {
  const error = await lookup("nosuch.invalid").catch((error) => error);
  return error.code === "EAI_AGAIN";
}

function testProgram(program: Program): void {
  const test = (name: string, body: () => Promise<void>) =>
    Deno.test(`${program.name}: ${name}`, body);
  const tsync = (...args: string[]) => run(program, ...args);

  test("sync prints an aligned report", async () => {
    await using server = await ServeProcess.start(program);
    const { code, stdout, stderr } = await tsync("sync", server.address);
    assertEquals(stderr, "");
    assertEquals(code, 0);
    const number = String.raw`\d+(\.\d+)?`;
    const lines = [
      String.raw`server      127\.0\.0\.1:\d+  tcp 127\.0\.0\.1:\d+, stratum \d+ \(LOCL\)`,
      `delay       ${number} [mµn]?s best of \\d+  [ ▁▂▃▄▅▆▇█]{12}  ${number} [mµn]?s worst`,
      `offset      [+-]${number} [mµn]?s ± ${number} [mµn]?s  no difference can be seen`,
      String.raw`local time  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} [+-]\d\d:\d\d`,
      String.raw`server time \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} [+-]\d\d:\d\d`,
    ];
    assertMatch(stdout, new RegExp(`^${lines.join("\n")}\n$`));
  });

  test("sync --json prints one line with the names of the contract", async () => {
    await using server = await ServeProcess.start(program);
    const { code, stdout } = await tsync("sync", "--json", "--samples", "5", server.address);
    assertEquals(code, 0);
    assertEquals(stdout.split("\n").length, 2);
    const fix = JSON.parse(stdout);
    const names = "time offset error_bound delay leap synchronised servers".split(" ");
    assertEquals(Object.keys(fix), names);
    const serverNames =
      ("name address transport status offset error_bound delay jitter samples stratum " +
        "reference_id root_delay root_dispersion timestamps error").split(" ");
    assertEquals(Object.keys(fix.servers[0]), serverNames);
    assertMatch(fix.time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$/);
    assert(Math.abs(fix.offset) <= fix.error_bound, "the same clock is off from itself");
    assertEquals(fix.synchronised, true);
    assertEquals(fix.leap, "none");
    const [only] = fix.servers;
    assertEquals(only.status, "truechimer");
    assertEquals(only.samples, 5);
    assertEquals(only.error, null);
    assertEquals(only.timestamps, program.flags === undefined ? "kernel" : "user");
    assertEquals([only.offset, only.error_bound], [fix.offset, fix.error_bound]);
    assert(!/\d[eE]/.test(stdout.replaceAll(/"[^"]*"/g, "")), "an exponent in the numbers");
  });

  test("sync asks several servers and has them vote", async () => {
    await using one = await ServeProcess.start(program);
    await using two = await ServeProcess.start(program, [
      "--host",
      "127.0.0.1",
      "--port",
      "0",
      "--stratum",
      "3",
    ]);
    await using liar = new FakeServer(answering((_, { receive, transmit }) => ({
      receive: receive + units(10),
      transmit: transmit + units(10),
    })));
    const args = ["sync", "--json", one.address, liar.address, two.address, "127.0.0.1:1"];
    const { code, stdout } = await tsync(...args);
    const { servers, synchronised, offset, error_bound } = JSON.parse(stdout);
    assertEquals(code, 0);
    assertEquals(synchronised, true);
    assert(Math.abs(offset) <= error_bound);
    assertEquals(servers.map((server: { status: string }) => server.status), [
      "truechimer",
      "falseticker",
      "truechimer",
      "unreachable",
    ]);
    assertEquals(servers[2].stratum, 3);
  });

  test("sync warns of a server that is named twice, and counts it once", async () => {
    await using server = await ServeProcess.start(program);
    const port = server.address.split(":").at(-1);
    const args = ["sync", "-4", `127.0.0.1:${port}`, `localhost:${port}`, "127.0.0.1:1"];
    const { code, stderr } = await tsync(...args);
    assertEquals(code, 0);
    assertStringIncludes(
      stderr,
      `tsync: warning: localhost:${port} is the same server as 127.0.0.1:${port} ` +
        `(127.0.0.1:${port}): together they have one vote\n`,
    );
    assertEquals((await tsync(...args, "--quiet")).stderr, "");
  });

  test("sync finds no fix where two servers disagree, and says who says what", async () => {
    await using good = new FakeServer(answering(() => ({})));
    await using bad = new FakeServer(answering((_, { receive, transmit }) => ({
      receive: receive + units(10),
      transmit: transmit + units(10),
    })));
    const { code, stdout, stderr } = await tsync("sync", good.address, bad.address);
    assertEquals(code, 1);
    assertEquals(stdout, "");
    assertMatch(
      stderr,
      /no majority of the servers agrees: 127\S+ says .*; 127\S+ says \+(9\.9|10\.0)\d* s ± /,
    );
  });

  test("a server ahead by 37.5 s, written in Python from the wire format, is understood", async () => {
    const python = new Deno.Command("python3", {
      args: ["tests/fixtures/server.py", "37.5"],
      stdout: "piped",
      stderr: "null",
    }).spawn();
    const output = python.stdout.getReader();
    try {
      const port = new TextDecoder().decode((await output.read()).value).trim();
      const { stdout } = await tsync("sync", "--json", `127.0.0.1:${port}`);
      const fix = JSON.parse(stdout);
      assert(Math.abs(fix.offset - 37.5) <= fix.error_bound, stdout);
      assert(fix.error_bound < 1, stdout);
      const { stdout: report } = await tsync("sync", `127.0.0.1:${port}`);
      assertMatch(
        report,
        /offset {6}\+37\.[45]\d* s ± \d.* {2}the local clock is slow by 37\.5 s/,
      );
    } finally {
      python.kill();
      await output.cancel();
      await python.status;
    }
  });

  test("--quiet prints nothing, and --max-offset decides the exit status", async () => {
    await using server = await ServeProcess.start(program);
    const quiet = await tsync("sync", "--quiet", "--max-offset", "10", server.address);
    assertEquals(quiet, { code: 0, stdout: "", stderr: "" });
    const strict = await tsync("sync", "--quiet", "--max-offset", "1e-9", server.address);
    assertEquals(strict.code, 3);
    assertMatch(
      strict.stderr,
      /^tsync: the local clock may be off by .* more than the 1 ns allowed by --max-offset\n$/,
    );
  });

  test("serve listens on IPv4 and IPv6 alike", async () => {
    await using server = await ServeProcess.start(program, ["--port", "0"]);
    const { code, stdout } = await tsync("sync", "--json", `127.0.0.1:${server.port}`);
    assertEquals(code, 0);
    assertEquals(JSON.parse(stdout).servers[0].address, `127.0.0.1:${server.port}`);
    if (!hasIPv6()) return console.log("this machine has no IPv6 loopback: not tried");
    const v6 = await tsync("sync", "--json", `[::1]:${server.port}`, "-6");
    assertEquals(JSON.parse(v6.stdout).servers[0].address, `[::1]:${server.port}`);
  });

  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    test(`serve ends on ${signal} with exit status 0, an idle connection open`, async () => {
      await using server = await ServeProcess.start(program);
      using _idle = await Deno.connect({ hostname: "127.0.0.1", port: server.port });
      await tsync("sync", "--quiet", server.address);
      const { code, log } = await server.stop(signal);
      assertEquals(code, 0);
      const { event, connections, replies } = log.at(-1) as Record<string, number | string>;
      assertEquals(event, "stopped");
      // More, if the machine is slow.
      assert(Number(connections) >= 2 && Number(replies) >= 17);
    });
  }

  test("serve goes on after SIGHUP, which has nothing to be read again", async () => {
    await using server = await ServeProcess.start(program);
    Deno.kill(server.pid, "SIGHUP");
    assertEquals(await server.nextEvent(), { event: "nothing-to-renew" });
    assertEquals((await tsync("sync", "--quiet", server.address)).code, 0);
    assertEquals((await server.stop()).code, 0);
  });

  test("serve in a terminal ends with it", async () => {
    const command = commandLine(program, ["serve", "--host", "127.0.0.1", "--port", "0"]);
    // The terminal's end is a signal to whoever leads its session: the program itself.
    const terminal = "import os, pty, sys; pty.spawn(sys.argv[1:])";
    const child = new Deno.Command("python3", {
      args: ["-c", terminal, "sh", "-c", 'echo $$; exec "$0" "$@"', program.executable, ...command],
      stdin: "null",
      stdout: "piped",
    }).spawn();
    const lines = linesOf(child.stdout);
    const pid = Number((await lines.next()).value);
    try {
      for (let line = ""; !line.startsWith("listening");) line = (await lines.next()).value!;
      Deno.kill(pid, "SIGHUP");
      const said: string[] = [];
      for await (const line of lines) {
        said.push(line);
        if (line.startsWith("there is nothing")) Deno.kill(pid, "SIGTERM");
      }
      assertEquals(said.filter((line) => !line.includes("stamped")), []);
    } finally {
      await child.status;
    }
  });

  test("serve ends though a client sends and never reads", async () => {
    const args = ["--host", "127.0.0.1", "--port", "0", "--rate", "0"];
    await using server = await ServeProcess.start(program, args);
    using client = await Deno.connect({ hostname: "127.0.0.1", port: server.port });
    const requests = new Uint8Array(48 * 1000);
    for (let i = 0; i < requests.length; i += 48) requests[i] = 0x23;
    // More than any buffers on the way hold: the write is stuck until the server ends.
    const stuck = (async () => {
      for (;;) await client.write(requests);
    })();
    stuck.catch(() => {});
    for (let i = 0; i < 3; i++) {
      const { code } = await tsync("sync", "--quiet", "--samples", "200", server.address);
      assertEquals(code, 0, "another client is served meanwhile");
    }
    const { code } = await server.stop();
    assertEquals(code, 0);
    await stuck.catch(() => {});
  });

  test("sync --watch says a line a poll until it is interrupted", async () => {
    await using server = await ServeProcess.start(program);
    const flags = ["--watch", "--interval", "0.05", server.address];
    const people = new Watching(program, flags);
    const line = String.raw`\d{4}-\d\d-\d\d \S+ [+-]\d\d:\d\d  [+-]\S+ [mµn]?s ± \S+ [mµn]?s` +
      String.raw`  [+-]\S+ ppm ± \S+ ppm  synchronised  next in 50\.0 ms`;
    for (let i = 0; i < 3; i++) assertMatch(await people.next(), new RegExp(`^${line}$`));
    assertEquals(await people.stop("SIGINT"), { code: 0, stderr: "" });

    const programs = new Watching(program, ["--json", ...flags]);
    const { offset, error_bound, state, frequency, frequency_bound, interval, servers } = JSON
      .parse(await programs.next());
    assert(Math.abs(offset) <= error_bound);
    assertEquals([state, interval, servers.length], ["synchronised", 0.05, 1]);
    assert(Math.abs(frequency) <= frequency_bound && frequency_bound <= 500);
    await programs.next();
    // The server goes: the clock goes on alone, and that is said.
    assertEquals((await server.stop()).code, 0);
    let last = JSON.parse(await programs.next());
    while (last.state === "synchronised") last = JSON.parse(await programs.next());
    assertEquals([last.state, last.offset, last.synchronised], ["holdover", null, false]);
    const { clock: before } = last;
    const { clock: after } = JSON.parse(await programs.next());
    assert(after.error_bound > before.error_bound, `${before.error_bound}, ${after.error_bound}`);
    assert(Math.abs(after.offset) <= after.error_bound);
    const { code, stderr } = await programs.stop("SIGTERM");
    assertEquals(code, 0);
    assertMatch(stderr, /^tsync: 127\.0\.0\.1:\d+ (cannot be reached|closed|broke)/);
  });

  test("sync --watch knows its exit statuses", async () => {
    const none = new Watching(program, ["--watch", "--json", "127.0.0.1:1"]);
    assertEquals(JSON.parse(await none.next()).state, "synchronising");
    const { code, stderr } = await none.stop("SIGINT");
    assertEquals([code, stderr.endsWith("tsync: interrupted before a fix\n")], [130, true]);
    await using server = await ServeProcess.start(program);
    const exact = ["sync", "--watch", "--quiet", "--max-offset", "0", server.address];
    const tooMuch = await tsync(...exact);
    assertEquals([tooMuch.code, tooMuch.stdout], [3, ""]);
    assertMatch(tooMuch.stderr, /^tsync: the local clock may be off by .* --max-offset\n$/);
  });

  test("sync --watch --max-offset ends where nobody answers, and in holdover by the kept clock", async () => {
    const unmet = ["sync", "--watch", "--max-offset", "1", "127.0.0.1:1"];
    const why = "tsync: 127.0.0.1:1 cannot be reached: connection refused; " +
      "is `tsync serve` running there?\n";
    assertEquals(await tsync(...unmet, "--quiet"), { code: 1, stdout: "", stderr: why });
    const { code, stdout, stderr } = await tsync(...unmet, "--json");
    assertEquals([code, stderr], [1, why]);
    const { state, synchronised } = JSON.parse(stdout);
    assertEquals([state, synchronised], ["synchronising", false]);

    // A clock of which so little is known can be off by a millisecond after two seconds; on a slow
    // machine, before it has lost its server.
    for (let most = 0.001;; most *= 4) {
      await using server = await ServeProcess.start(program);
      const flags = ["--watch", "--json", "--interval", "0.05", "--max-offset", String(most)];
      const watching = new Watching(program, [...flags, server.address]);
      const states = [JSON.parse(await watching.next()).state];
      await server.stop();
      const { code: met, lines, stderr: said } = await watching.end();
      states.push(...lines.map((line) => JSON.parse(line).state));
      assertEquals([met, states[0]], [3, "synchronised"]);
      if (states.at(-1) !== "holdover" && most < 0.2) continue;
      assertEquals(states.at(-1), "holdover");
      assertMatch(said, /\ntsync: the local clock may be off by .* by --max-offset\n$/);
      break;
    }
  });

  test("`sync --json true` asks a server named true", async () => {
    const { stdout } = await tsync("sync", "--json", "true", "127.0.0.1:1");
    const names = JSON.parse(stdout).servers.map(({ name }: { name: string }) => name);
    assertEquals(names, ["true", "127.0.0.1:1"]);
  });

  test("what cannot be written to stderr ends neither the server nor a fix", async () => {
    if (Deno.build.os !== "linux") return console.log("there is no /dev/full here: not tried");
    const quoted = (...command: string[]) =>
      [program.executable, ...commandLine(program, command)].map((arg) => `'${arg}'`).join(" ");
    const shell = (line: string) => new Deno.Command("sh", { args: ["-c", line] }).output();
    await using slow = new FakeServer(answeringBytes(
      (_, good) => encodePacket(good),
      async (connection, bytes) => {
        await new Promise((resolve) => setTimeout(resolve, 700));
        await connection.write(bytes);
      },
    ));
    const fix = await shell(
      `${quoted("sync", "--json", "--samples", "1", slow.address)} 2>/dev/full`,
    );
    assertEquals(fix.code, 0);
    assertEquals(JSON.parse(new TextDecoder().decode(fix.stdout)).synchronised, true);
    // Its log being lost, the server cannot say which port it picked.
    const free = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = free.addr;
    free.close();
    const served = await shell(
      `${
        quoted("serve", "--host", "127.0.0.1", "--port", String(port))
      } 2>/dev/full & server=$!; ` +
        `until ${quoted("sync", "--quiet", `127.0.0.1:${port}`)}; ` +
        `do kill -0 $server || exit 9; done; ` +
        `kill $server; wait $server`,
    );
    assertEquals(served.code, 0);
  });

  test("sync exits 130 when interrupted before a fix", async () => {
    const arrived = Promise.withResolvers<void>();
    await using silent = new FakeServer(async (connection) => {
      await connection.read(new Uint8Array(48));
      arrived.resolve();
      await connection.read(new Uint8Array(48));
    });
    const child = new Deno.Command(program.executable, {
      args: commandLine(program, ["sync", silent.address]),
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    await arrived.promise;
    child.kill("SIGINT");
    const { code, stderr } = await child.output();
    assertEquals(
      withoutProgress(new TextDecoder().decode(stderr)),
      "tsync: interrupted before a fix\n",
    );
    assertEquals(code, 130);
  });

  test("sync tells on stderr that it is still measuring after half a second", async () => {
    const told = Promise.withResolvers<void>();
    await using slow = new FakeServer(answeringBytes(
      (_, good) => encodePacket(good),
      async (connection, bytes) => {
        await told.promise;
        await connection.write(bytes);
      },
    ));
    const child = new Deno.Command(program.executable, {
      args: commandLine(program, ["sync", "--json", "--timeout", PATIENCE, slow.address]),
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const lines = linesOf(child.stderr);
    assertEquals((await lines.next()).value, "measuring");
    told.resolve();
    assertEquals((await lines.next()).done, true);
    assertEquals((await new Response(child.stdout).text()).split("\n").length, 2);
    assertEquals((await child.status).code, 0);
  });

  test("sync says nothing of a quick measurement, nor of any with --quiet", async () => {
    const stderrOf = async (...args: string[]) => {
      const command = commandLine(program, ["sync", "--json", ...args]);
      const output = await new Deno.Command(program.executable, { args: command }).output();
      return new TextDecoder().decode(output.stderr);
    };
    await using slow = new FakeServer(answeringBytes(
      (_, good) => encodePacket(good),
      async (connection, bytes) => {
        await new Promise((resolve) => setTimeout(resolve, 700));
        await connection.write(bytes);
      },
    ));
    assertEquals(await stderrOf("--quiet", "--samples", "1", slow.address), "");
    await using server = await ServeProcess.start(program);
    const said: string[] = [];
    // On a slow machine at least one of twenty is to be quick.
    while (said.at(-1) !== "" && said.length < 20) {
      said.push(await stderrOf("--samples", "1", server.address));
    }
    assertEquals(said.at(-1), "");
  });

  const usage: [string[], string][] = [
    [[], "tsync: expected a command: serve or sync"],
    [["frobnicate"], 'tsync: unknown command "frobnicate": expected serve or sync'],
    [
      ["serve", "--port", "70000"],
      '--port must be an integer from 0 to 65535: current value is "70000"',
    ],
    [["serve", "--frobnicate"], "unknown flag --frobnicate: expected one of --host, --port"],
    [
      ["sync", "--samples", "0"],
      '--samples must be an integer from 1 to 10000: current value is "0"',
    ],
    [["sync", "--samples", "abc"], 'current value is "abc"'],
    [["sync", "--samples"], "--samples needs a value, N: exchanges per server"],
    [["sync", "host:70000"], "port must be an integer from 1 to 65535"],
    [["serve", "--port", "1", "--port", "2"], "--port is given more than once"],
    [["serve", "--deny", "nonsense"], '--deny: cannot use "nonsense" as a prefix'],
    [
      ["serve", "--idle-timeout", "0"],
      'more than 0 and less than 1000000 seconds: current value is "0"',
    ],
    [["serve", "--host.a", "5"], "unknown flag --host.a"],
    [["sync", "--_", "x"], "unknown flag --_"],
    [["sync", "--json=no"], "--json takes no value"],
    [["sync", "-4=1"], "-4 takes no value"],
    [["sync", "--max-offset", "-1"], "--max-offset needs a value, S"],
    [["sync", "--interval", "5"], "--interval needs --watch"],
    [["sync", "--watch", "--interval", "0"], "--interval must be more than 0"],
    [["--version", "--bogus"], 'unexpected argument "--bogus" after --version'],
    [["serve", "--tls-key", "key.pem"], "--tls-key needs --tls-cert too"],
    [["serve", "--http-host", "a.example"], "--http-host needs --http"],
    [
      ["serve", "--http", "0", "--http-host", "a", "--http-host", "http://b/"],
      '--http-host must be a host name: current value is "http://b/"',
    ],
  ];
  for (const [args, sentence] of usage) {
    test(`\`tsync ${args.join(" ")}\` is a usage error`, async () => {
      const { code, stdout, stderr } = await tsync(...args);
      assertEquals(code, 2);
      assertEquals(stdout, "");
      assertStringIncludes(stderr, sentence);
    });
  }

  test("help and version go to stdout", async () => {
    for (const args of [["--help"], ["serve", "--help"], ["sync", "--help"]]) {
      const { code, stdout, stderr } = await tsync(...args);
      assertEquals([code, stderr], [0, ""]);
      assertStringIncludes(stdout, "Usage:");
    }
    assertMatch((await tsync("--version")).stdout, /^tsync \d+\.\d+\.\d+\n$/);
  });

  test("serve says why it cannot listen", async () => {
    await using server = await ServeProcess.start(program);
    const args = ["serve", "--host", "127.0.0.1", "--port", String(server.port)];
    const { code, stderr } = await tsync(...args);
    assertEquals(code, 1);
    assertEquals(
      stderr,
      `tsync: cannot listen on ${server.address}: the address is in use; ` +
        "stop the program that uses it, or choose another with --port\n",
    );
    const unknown = await tsync("serve", "--host", "nosuch.invalid");
    const why = await isOffline() ? "no name server could tell" : "there is no such host";
    assertEquals(unknown.stderr, `tsync: cannot listen on nosuch.invalid: ${why}\n`);
  });

  test("an unknown host is named", async () => {
    const { code, stderr } = await tsync("sync", "nosuch.invalid");
    assertEquals(code, 1);
    const why = await isOffline()
      ? "could not be looked up: no name server could tell"
      : "is not a known host";
    assertEquals(stderr, `tsync: nosuch.invalid ${why}\n`);
  });

  test("a refused connection is named, and the JSON object has null figures", async () => {
    const { code, stdout, stderr } = await tsync("sync", "--json", "127.0.0.1:1");
    const sentence =
      "127.0.0.1:1 cannot be reached: connection refused; is `tsync serve` running there?";
    assertEquals(code, 1);
    assertEquals(stderr, `tsync: ${sentence}\n`);
    const { synchronised, offset, error_bound, delay, servers } = JSON.parse(stdout);
    assertEquals([synchronised, offset, error_bound, delay], [false, null, null, null]);
    const { status, error, offset: its, stratum } = servers[0];
    assertEquals([status, error, its, stratum], ["unreachable", sentence, null, null]);
  });

  const bad: [string, Behaviour, RegExp][] = [
    [
      "accepts and stays silent",
      async (connection) => {
        while (await connection.read(new Uint8Array(48)) !== null);
      },
      new RegExp(`did not answer within ${SILENCE} s$`),
    ],
    [
      "closes at once",
      () => Promise.resolve(),
      /(closed the connection without an answer|broke the connection \(connection reset\))$/,
    ],
    [
      "closes in mid-reply",
      async (connection) => {
        await connection.read(new Uint8Array(48));
        await connection.write(new Uint8Array(20).fill(0x24));
      },
      /closed the connection after 20 of 48 bytes of its reply(: it sent "\$+")?$/,
    ],
    [
      "stops in mid-reply",
      async (connection) => {
        await connection.read(new Uint8Array(48));
        await connection.write(new Uint8Array(20).fill(0x24));
        await connection.read(new Uint8Array(48));
      },
      /sent 20 of 48 bytes of its reply and then nothing/,
    ],
    [
      "answers with text",
      answeringBytes(() =>
        new TextEncoder().encode(
          "HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nContent-Length: 0\r\n\r\n",
        )
      ),
      /is not an NTP server's reply .*it sent "HTTP\/1\.1 400 Bad Request"$/,
    ],
    [
      "answers in another version",
      answering(() => ({ version: 3 })),
      /answered in NTP version 3 when asked in version 4$/,
    ],
    [
      "answers another request",
      answering((_, { origin }) => ({ origin: origin ^ 1n })),
      /does not belong to the request \(wrong origin timestamp\)$/,
    ],
    [
      "sends a kiss",
      answering(() => ({ stratum: 0, referenceId: 0x44454e59 })),
      /refuses to serve this client \(kiss DENY\)$/,
    ],
    [
      "answers before it was asked",
      answering((_, { receive }) => ({ transmit: receive - 1n })),
      /\(T3 is before T2\)$/,
    ],
    [
      "leaves T2 empty",
      answering(() => ({ receive: 0n })),
      /sent a reply with an empty timestamp$/,
    ],
    [
      "leaves T3 empty",
      answering(() => ({ transmit: 0n })),
      /sent a reply with an empty timestamp$/,
    ],
    [
      "is not synchronised",
      answering(() => ({ leap: "unsynchronised" })),
      /is not synchronised itself, and says so$/,
    ],
  ];
  for (const [name, behaviour, sentence] of bad) {
    test(`a server that ${name} is named, and why`, async () => {
      await using server = new FakeServer(behaviour);
      // Only silence takes as long as this allows.
      const timeout = name === "accepts and stays silent"
        ? SILENCE
        : name === "stops in mid-reply"
        ? String(2 * SLOWNESS)
        : PATIENCE;
      const { code, stdout, stderr } = await tsync("sync", "--timeout", timeout, server.address);
      assertEquals(stdout, "");
      const lines = stderr.trim().split("\n");
      assertEquals(lines.length, 1, stderr);
      assertMatch(lines[0]!, /^tsync: 127\.0\.0\.1:\d+ /);
      assertMatch(lines[0]!, sentence);
      assertEquals(code, 1);
    });
  }

  test("a server that drips a byte at a time is understood", async () => {
    await using server = new FakeServer(answeringBytes(
      (_, good) => encodePacket(good),
      async (connection, bytes) => {
        for (const byte of bytes) {
          await connection.write(Uint8Array.of(byte));
          await new Promise((resolve) => setTimeout(resolve, 0));
        }
      },
    ));
    const { code, stdout } = await tsync("sync", "--json", "--samples", "2", server.address);
    assertEquals(code, 0);
    const { offset, error_bound } = JSON.parse(stdout);
    assert(Math.abs(offset) <= error_bound);
  });

  test("what clients do wrong is counted, and others are served meanwhile", async () => {
    await using server = await ServeProcess.start(program);
    const connect = () => Deno.connect({ hostname: "127.0.0.1", port: server.port });
    const served = async () => {
      const { code, stderr } = await tsync("sync", "--quiet", server.address);
      assertEquals([code, stderr], [0, ""]);
    };
    const atEnd = async (connection: Deno.TcpConn) => {
      assertEquals(await connection.read(new Uint8Array(48)), null);
    };

    using http = await connect();
    await http.write(new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"));
    await atEnd(http);
    assertEquals(await server.nextEvent(), { event: "refused", reason: "version", count: 1 });
    await served();

    using reply = await connect();
    await reply.write(new Uint8Array(48).fill(0x24));
    await atEnd(reply);
    assertEquals(await server.nextEvent(), { event: "refused", reason: "mode", count: 1 });

    const half = await connect();
    await half.write(new Uint8Array(20).fill(0x23));
    await served();
    half.close();
    assertEquals(await server.nextEvent(), { event: "refused", reason: "incomplete", count: 1 });

    await resetInMidRequest(server.port);
    assertEquals(await server.nextEvent(), { event: "refused", reason: "reset", count: 1 });
    await served();
  });

  test("more requests in one segment than a burst makes are all answered, in order", async () => {
    await using server = await ServeProcess.start(program);
    using connection = await Deno.connect({ hostname: "127.0.0.1", port: server.port });
    const COUNT = 200;
    const requests = new Uint8Array(48 * COUNT);
    for (let i = 0; i < COUNT; i++) {
      requests[48 * i] = 0x23 - 8 * (i % 4);
      viewOf(requests).setBigUint64(48 * i + OFFSET.transmit, BigInt(i));
    }
    await connection.write(requests);
    const replies = new Uint8Array(requests.length);
    for (let filled = 0; filled < replies.length;) {
      const count = await connection.read(replies.subarray(filled));
      assert(count !== null, `${filled / 48} of ${COUNT} replies`);
      filled += count!;
    }
    let [received, transmitted] = [0n, 0n];
    for (let i = 0; i < COUNT; i++) {
      const reply = viewOf(replies.subarray(48 * i, 48 * (i + 1)));
      const at = `reply ${i}`;
      assertEquals(reply.getUint8(0), 0x24 - 8 * (i % 4), `${at}: the version of its request`);
      assert(reply.getUint8(1) > 0, `${at} is a kiss`);
      assertEquals(reply.getBigUint64(OFFSET.origin), BigInt(i), `${at}: its request's nonce`);
      const [t2, t3] = [OFFSET.receive, OFFSET.transmit].map((at) => reply.getBigUint64(at));
      assert(received <= t2! && t2! <= t3! && transmitted <= t3!, `${at}: ${t2}, ${t3}`);
      [received, transmitted] = [t2!, t3!];
    }
  });
}

function hasIPv6(): boolean {
  try {
    Deno.listen({ hostname: "::1", port: 0 }).close();
    return true;
  } catch {
    return false;
  }
}

/** Sends half a request and resets the connection, which Deno's own sockets cannot. */
async function resetInMidRequest(port: number): Promise<void> {
  const socket = createConnection(port, "127.0.0.1");
  await once(socket, "connect");
  await new Promise((resolve) => socket.write(new Uint8Array(20).fill(0x23), resolve));
  socket.resetAndDestroy();
  await once(socket, "close");
}

/** `tsync sync --watch` as a process, of which one can wait for the next line. */
class Watching {
  readonly #child: Deno.ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #stderr: Promise<string>;

  constructor(program: Program, args: readonly string[]) {
    this.#child = new Deno.Command(program.executable, {
      args: commandLine(program, ["sync", ...args]),
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#lines = linesOf(this.#child.stdout);
    this.#stderr = new Response(this.#child.stderr).text();
  }

  async next(): Promise<string> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(await this.#stderr);
    return value;
  }

  async stop(signal: Deno.Signal): Promise<{ code: number; stderr: string }> {
    this.#child.kill(signal);
    const { code, stderr } = await this.end();
    return { code, stderr };
  }

  /** Waits for the end. @returns The rest of the lines, too. */
  async end(): Promise<{ code: number; lines: string[]; stderr: string }> {
    const lines: string[] = [];
    for (let line = await this.#lines.next(); !line.done; line = await this.#lines.next()) {
      lines.push(line.value);
    }
    const { code } = await this.#child.status;
    return { code, lines, stderr: await this.#stderr };
  }
}
