/**
 * HTTP proxies: a real one, and all that lie, are silent or refuse.
 *
 * @module
 */

import { assert, assertEquals, assertMatch, assertObjectMatch, assertThrows } from "@std/assert";
import {
  commandLine,
  compiled,
  linesOf,
  type Program,
  type Result,
  run,
  ServeProcess,
  SOURCE,
} from "../scripts/program.ts";
import { type Network, sync } from "../src/mod.ts";
import { isListed, parseProxy } from "../src/net/address.ts";
import { systemNetwork } from "../src/net/system.ts";
import { type Behaviour, FakeServer } from "./fake_server.ts";
import { PATIENCE, SILENCE } from "./slowness.ts";
import "./libraries.ts";

const folder = "tests/fixtures/tls";
const CA = ["--ca", `${folder}/authority.pem`];
const serving = (cert = "server.pem") => [
  ...["--host", "127.0.0.1", "--port", "0"],
  ...["--tls-cert", `${folder}/${cert}`, "--tls-key", `${folder}/server.key`],
];

const hasTinyproxy = (await new Deno.Command("sh", { args: ["-c", "command -v tinyproxy"] })
  .output()).success;
if (!hasTinyproxy) console.log("proxy: tests with tinyproxy are skipped, it is not installed");

/** tinyproxy as a process, with its log. */
class Tinyproxy implements AsyncDisposable {
  private constructor(
    readonly address: string,
    readonly folder: string,
    readonly child: Deno.ChildProcess,
  ) {}

  static async start(...lines: string[]): Promise<Tinyproxy> {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = listener.addr;
    listener.close();
    const folder = await Deno.makeTempDir();
    const config = [
      ...[`Port ${port}`, "Listen 127.0.0.1", "Timeout 60", "Allow 127.0.0.1"],
      ...[`LogFile "${folder}/log"`, "LogLevel Connect", ...lines],
    ];
    await Deno.writeTextFile(`${folder}/conf`, config.join("\n") + "\n");
    const args = ["-d", "-c", `${folder}/conf`];
    const child = new Deno.Command("tinyproxy", { args, stdout: "null", stderr: "null" }).spawn();
    for (let i = 0;; i++) {
      try {
        (await Deno.connect({ hostname: "127.0.0.1", port })).close();
        return new Tinyproxy(`127.0.0.1:${port}`, folder, child);
      } catch (error) {
        if (i === 200) throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }

  log(): Promise<string> {
    return Deno.readTextFile(`${this.folder}/log`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill();
    await this.child.status;
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** Reads a request's head. */
async function head(connection: Deno.TcpConn): Promise<string> {
  let text = "";
  const bytes = new Uint8Array(1000);
  while (!text.endsWith("\r\n\r\n")) {
    const count = await connection.read(bytes);
    if (count === null) break;
    text += new TextDecoder().decode(bytes.subarray(0, count));
  }
  return text;
}

const send = (connection: Deno.TcpConn, text: string) =>
  connection.write(new TextEncoder().encode(text));

/** A proxy that connects to one port of loopback, whatever it is asked for, and keeps what it was. */
function connecting(
  port: number,
  heads: string[] = [],
  answer = "HTTP/1.1 200 Connection established\r\n\r\n",
  delays = { there: 0, back: 0 },
): Behaviour {
  return async (connection) => {
    heads.push(await head(connection));
    using server = await Deno.connect({ hostname: "127.0.0.1", port });
    for (const byte of answer) await send(connection, byte);
    const pass = async (from: Deno.TcpConn, to: Deno.TcpConn, delay: number) => {
      const bytes = new Uint8Array(65536);
      for (;;) {
        const count = await from.read(bytes).catch(() => null);
        if (count === null) break;
        if (delay > 0) await new Promise((resolve) => setTimeout(resolve, delay));
        await to.write(bytes.subarray(0, count)).catch(() => {});
      }
      await to.closeWrite().catch(() => {});
    };
    await Promise.all([
      pass(connection, server, delays.there),
      pass(server, connection, delays.back),
    ]);
  };
}

/** The sentence about the only server. */
function errorOf({ stdout }: Result): string {
  return JSON.parse(stdout).servers[0].error;
}

for (const program of [SOURCE, compiled()].filter((each) => each !== null)) testProgram(program);

function testProgram(program: Program): void {
  const test = (name: string, body: () => Promise<void>, ignore = false) =>
    Deno.test({ name: `${program.name}: ${name}`, ignore, fn: body });
  const sync = (...args: string[]) => run(program, "sync", "--json", "--quiet", ...CA, ...args);

  test("through tinyproxy the time is right, within the bound", async () => {
    await using server = await ServeProcess.start(program, serving());
    await using proxy = await Tinyproxy.start();
    for (const host of ["127.0.0.1", "localhost"]) {
      const name = `tls://${host}:${server.port}`;
      const { code, stdout, stderr } = await sync("--proxy", `http://${proxy.address}`, name);
      assertEquals([code, stderr], [0, ""]);
      const { offset, error_bound, servers } = JSON.parse(stdout);
      assert(Math.abs(offset) <= error_bound, stdout);
      assertEquals(servers[0].address, `${host}:${server.port}`);
      assert(servers[0].samples >= 16, stdout); // More, if the proxy is slow.
      assertMatch(await proxy.log(), new RegExp(`CONNECT ${host}:${server.port} HTTP/1.1`));
    }
    const { log } = await server.stop();
    assertObjectMatch(log[0]!, { event: "stopped" });
    assert((log[0] as { connections: number }).connections >= 2);
  }, !hasTinyproxy);

  test("tinyproxy demands a password, and gets it", async () => {
    await using server = await ServeProcess.start(program, serving());
    await using proxy = await Tinyproxy.start("BasicAuth me secret");
    const name = `tls://127.0.0.1:${server.port}`;
    const as = async (user: string) => {
      for (let attempt = 1;; attempt++) {
        const result = await sync("--proxy", `http://${user}${proxy.address}`, name);
        // It resets the connection after its answer, which a client that reads late has then lost.
        if (!result.stderr.includes("connection reset") || attempt === 5) return result;
      }
    };
    const [plain, wrong, right] = [await as(""), await as("me:guess@"), await as("me:s%65cret@")];
    const demands = `the proxy ${proxy.address} demands a user name and ` +
      "a password: write them into its URL, http://USER:PASSWORD@HOST:PORT";
    const sentence = `${name} cannot be reached at ${name.slice(6)}: ${demands}`;
    assertEquals([plain.code, plain.stderr], [1, `tsync: ${sentence}\n`]);
    assertEquals(wrong.code, 1);
    assertMatch(errorOf(wrong), /the proxy \S+ does not (accept the user|connect to it: 401)/);
    assertEquals(right.code, 0, right.stderr);
  }, !hasTinyproxy);

  test("tinyproxy refuses, and says why", async () => {
    await using server = await ServeProcess.start(program, serving());
    await using proxy = await Tinyproxy.start("ConnectPort 443");
    const name = `tls://127.0.0.1:${server.port}`;
    const { code, stderr } = await sync("--proxy", `http://${proxy.address}`, name);
    const where = name.replace("tls://", "");
    assertEquals([code, stderr.replace(/403 .*/, "403")], [
      1,
      `tsync: ${name} cannot be reached at ${where}: the proxy ${proxy.address} does not connect to it: 403\n`,
    ]);
  }, !hasTinyproxy);

  test("a proxy looks up names that are not known here", async () => {
    await using server = await ServeProcess.start(program, serving("other-name.pem"));
    const heads: string[] = [];
    await using proxy = new FakeServer(connecting(server.port, heads));
    const { code, stdout } = await sync("--proxy", proxy.address, "tls://other.example:7");
    assertEquals([code, JSON.parse(stdout).servers[0].address], [0, "other.example:7"]);
    assertEquals(heads, [
      "CONNECT other.example:7 HTTP/1.1\r\nHost: other.example:7\r\n\r\n",
    ]);
  });

  test("two servers through one proxy have two votes", async () => {
    await using one = await ServeProcess.start(program, serving());
    await using two = await ServeProcess.start(program, serving());
    await using proxy = await Tinyproxy.start();
    const names = [one, two].map(({ port }) => `tls://127.0.0.1:${port}`);
    const args = ["--json", ...CA, "--proxy", `http://${proxy.address}`, ...names];
    const { code, stderr } = await run(program, "sync", ...args);
    assertEquals([code, stderr], [0, ""]);
  }, !hasTinyproxy);

  test("a delay in one direction only is within the bound", async () => {
    await using server = await ServeProcess.start(program, serving());
    const delays = { there: 50, back: 0 };
    await using proxy = new FakeServer(connecting(server.port, [], undefined, delays));
    const name = `tls://127.0.0.1:${server.port}`;
    const { code, stdout } = await sync("--proxy", `http://${proxy.address}`, name);
    const { offset, error_bound } = JSON.parse(stdout);
    assertEquals(code, 0);
    assert(Math.abs(offset) <= error_bound && offset > 0.005, stdout);
  });

  test("sync --watch keeps its connection through a proxy", async () => {
    await using server = await ServeProcess.start(program, serving());
    const heads: string[] = [];
    await using proxy = new FakeServer(connecting(server.port, heads));
    const args = [
      ...["--watch", "--json", "--quiet", ...CA, "--proxy", proxy.address],
      `tls://127.0.0.1:${server.port}`,
    ];
    const child = new Deno.Command(program.executable, {
      args: commandLine(program, ["sync", ...args]),
      stdout: "piped",
    }).spawn();
    const lines = linesOf(child.stdout);
    for (let i = 0; i < 3; i++) {
      assertEquals(JSON.parse((await lines.next()).value!).state, "synchronised");
    }
    child.kill();
    while (!(await lines.next()).done);
    assertEquals((await child.status).code, 0);
    // One that has not answered for a second is given up: that may happen once.
    assert(heads.length < 3, `${heads.length} connections for three polls`);
  });

  const head200 = "HTTP/1.1 200 OK\r\n";
  const sentences: [string, Behaviour, RegExp][] = [
    ["is silent", async (connection) => {
      while (await connection.read(new Uint8Array(1000)) !== null);
    }, new RegExp(`did not answer within ${SILENCE} s \\(through the proxy PROXY\\)$`)],
    ["never ends its answer", async (connection) => {
      await head(connection);
      await send(connection, `${head200}X: ${"x".repeat(20_000)}\r\n`);
      while (await connection.read(new Uint8Array(1000)) !== null);
    }, /the proxy PROXY sent an answer that does not end$/],
    ["closes", async (connection) => {
      await head(connection);
    }, /the proxy PROXY closed the connection without an answer$/],
    ["closes after it has agreed", async (connection) => {
      await head(connection);
      await send(connection, `${head200}\r\n`);
      await connection.read(new Uint8Array(1000));
    }, /(closed|broke) the connection in the TLS handshake.* \(through the proxy PROXY\)$/],
    ["is none", async (connection) => {
      await send(connection, "220 mail.example \x1b]0;ESMTP\r\n\r\n");
      await head(connection);
    }, /the proxy PROXY does not speak HTTP: it sent "220 mail\.example \\x1b\]0;ESMTP\\x0d\\x0a/],
    ["refuses with a control character", async (connection) => {
      await head(connection);
      await send(connection, "HTTP/1.0 502 No \x1b[2Jway\r\nContent-Length: 3\r\n\r\nNo!");
    }, /the proxy PROXY does not connect to it: 502 No \\x1b\[2Jway$/],
    ["refuses without a word", async (connection) => {
      await head(connection);
      await send(connection, "HTTP/1.1 503\r\n\r\n");
    }, /the proxy PROXY does not connect to it: 503$/],
    ["speaks for the server", async (connection) => {
      await head(connection);
      await send(connection, `${head200}\r\n\x16\x03\x03`);
      await connection.read(new Uint8Array(1000));
    }, /the proxy PROXY speaks in the server's place$/],
    ["answers itself, not with TLS", async (connection) => {
      await head(connection);
      await send(connection, `${head200}\r\n`);
      await connection.read(new Uint8Array(1000));
      await send(connection, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    }, /does not speak TLS; ask it as tcp:\/\/ \(through the proxy PROXY\)$/],
    ["closes in the middle of its answer", async (connection) => {
      await head(connection);
      await send(connection, `${head200}X`);
    }, /the proxy PROXY sent an answer that does not end$/],
  ];
  for (const [what, behaviour, sentence] of sentences) {
    test(`a proxy that ${what} is told of`, async () => {
      await using proxy = new FakeServer(behaviour);
      const name = "tls://time.example";
      const url = `http://${proxy.address}`;
      // Only silence takes as long as this allows.
      const timeout = what === "is silent" ? SILENCE : PATIENCE;
      const { code, stdout, stderr } = await sync("--timeout", timeout, "--proxy", url, name);
      const error = errorOf({ code, stdout, stderr });
      assertEquals([code, stderr], [1, `tsync: ${error}\n`]);
      assert(error.startsWith(`${name} `), error);
      assertMatch(error.replaceAll(proxy.address, "PROXY"), sentence);
    });
  }

  test("a proxy that leads to another server, or reads along, is found out", async () => {
    await using liar = await ServeProcess.start(program, serving("other-name.pem"));
    await using reader = await ServeProcess.start(program, serving("renewed.pem"));
    for (
      const [server, sentence] of [
        [liar, "another name: not for localhost, it is for other.example"],
        [reader, "a certificate of an unknown authority"],
      ] as const
    ) {
      await using proxy = new FakeServer(connecting(server.port));
      const result = await sync("--proxy", `http://${proxy.address}`, "tls://localhost");
      const through = `${sentence} (through the proxy ${proxy.address})`;
      assert(errorOf(result).includes(through), errorOf(result));
      assertEquals([result.code, JSON.parse(result.stdout).servers[0].status], [1, "invalid"]);
    }
  });

  test("a proxy that cannot be reached is told of", async () => {
    const refused = await sync("--proxy", "http://127.0.0.1:1", "tls://time.example");
    assertEquals(
      errorOf(refused),
      "tls://time.example cannot be reached at time.example:10085: " +
        "the proxy 127.0.0.1:1 cannot be reached: connection refused",
    );
    const other = await sync("-6", "--proxy", "http://127.0.0.1:1", "tls://time.example");
    assertMatch(
      errorOf(other),
      /the proxy 127\.0\.0\.1:1 cannot be reached: it has no IPv6 address$/,
    );
  });

  test("HTTPS_PROXY is for tls:// servers, but for those of NO_PROXY", async () => {
    await using server = await ServeProcess.start(program, serving());
    await using plain = await ServeProcess.start(program);
    await using named = await ServeProcess.start(program, serving("other-name.pem"));
    await using proxy = new FakeServer(connecting(named.port));
    await using unasked = new FakeServer(connecting(named.port));
    const within = async (env: Record<string, string>, ...names: string[]) => {
      const before = proxy.connections;
      const args = commandLine(program, ["sync", "--json", "--quiet", ...names]);
      const all = Deno.env.toObject();
      for (const name of ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"]) delete all[name];
      const command = new Deno.Command(program.executable, {
        args,
        clearEnv: true,
        // Deno itself looks for a newer version, through the proxy.
        env: { ...all, DENO_NO_UPDATE_CHECK: "1", ...env },
      });
      const { code, stderr } = await command.output();
      if (code === 1 && names.includes(PATIENCE)) throw new Error(new TextDecoder().decode(stderr));
      // A server may be asked again, and then so is the proxy.
      return [code, proxy.connections > before];
    };
    const url = `http://${proxy.address}`;
    // Without a proxy, this name is not known.
    const name = [...CA, "tls://other.example"];
    const [far, unknown] = [[...name, "--timeout", PATIENCE], [...name, "--timeout", "1"]];
    assertEquals(await within({ HTTPS_PROXY: url }, ...far), [0, true]);
    assertEquals(await within({ https_proxy: proxy.address }, ...far), [0, true]);
    assertEquals(await within({ HTTPS_PROXY: "" }, ...unknown), [1, false]);
    const elsewhere = `http://${unasked.address}`;
    assertEquals(await within({ HTTPS_PROXY: elsewhere }, "--proxy", url, ...far), [0, true]);
    assertEquals(await within({ HTTPS_PROXY: url, https_proxy: elsewhere }, ...far), [0, true]);
    assertEquals(unasked.connections, 0);
    assertEquals(await within({ HTTPS_PROXY: url, NO_PROXY: "a, .example" }, ...unknown), [
      1,
      false,
    ]);
    assertEquals(await within({ HTTPS_PROXY: url, no_proxy: "*" }, ...unknown), [1, false]);
    assertEquals(await within({ HTTPS_PROXY: url, NO_PROXY: "b.other.example" }, ...far), [
      0,
      true,
    ]);
    // This machine would be another to the proxy.
    const near = [...CA, `tls://127.0.0.1:${server.port}`];
    assertEquals(await within({ HTTPS_PROXY: url }, ...near), [0, false]);
    assertEquals(await within({ HTTPS_PROXY: url }, plain.address), [0, false]);
    // What nobody needs may be wrong.
    assertEquals(await within({ HTTPS_PROXY: "socks5://x:1" }, plain.address), [0, false]);
    assertEquals((await within({ HTTPS_PROXY: "socks5://x:1" }, ...far))[0], 2);
  });

  test("what is no proxy is a usage error", async () => {
    const expected = "as a proxy: expected http://HOST:PORT";
    for (
      const [args, sentence] of [
        [["--proxy", "http://p", "tls://h"], `--proxy: cannot use "http://p" ${expected}`],
        [["--proxy", "https://p:1", "tls://h"], `--proxy: cannot use "https://p:1" ${expected}`],
        [["--proxy", "http://p:1"], "--proxy needs a tls:// server"],
        [["--proxy", "http://p:1", "tcp://h", "ntp://h"], "--proxy needs a tls:// server"],
      ] as const
    ) {
      const { code, stdout, stderr } = await run(program, "sync", ...args);
      const help = "See `tsync sync --help`.";
      assertEquals([code, stdout, stderr], [2, "", `tsync: ${sentence}\n${help}\n`]);
    }
  });
}

Deno.test("the timeout holds where the proxy's name cannot be looked up", async () => {
  const network: Network = { ...systemNetwork, resolve: () => new Promise(() => {}) };
  const options = { servers: ["tls://time.example"], proxy: "proxy.example:1", timeout: 0.05 };
  const { servers: [asked] } = await sync({ ...options, network });
  assertEquals(
    asked!.error,
    "tls://time.example did not answer within 0.05 s (through the proxy proxy.example:1)",
  );
});

Deno.test("parseProxy() takes what curl takes, but for what it could not use", () => {
  const parsed = (url: string) => Object.values(parseProxy(url));
  assertEquals(parsed("http://proxy.example:3128"), ["proxy.example", 3128, null]);
  assertEquals(parsed("HTTP://10.0.0.1:80/"), ["10.0.0.1", 80, null]);
  assertEquals(parsed("proxy:8080"), ["proxy", 8080, null]);
  assertEquals(parsed("http://[2001:db8::1]:3128"), ["2001:db8::1", 3128, null]);
  assertEquals(parsed("http://me:pass@proxy:1"), ["proxy", 1, btoa("me:pass")]);
  assertEquals(parsed("me:p@ss/w:rd@proxy:1"), ["proxy", 1, btoa("me:p@ss/w:rd")]);
  assertEquals(parsed("http://m%40e:%C3%A9@proxy:1"), ["proxy", 1, btoa("m@e:\xc3\xa9")]);
  const wrong = [
    ...["", "proxy", "http://proxy", "http://proxy:", "http://:1", "proxy:0", "proxy:65536"],
    ...["http://proxy:x", "https://proxy:1", "socks5://proxy:1", "http://proxy:1/path", "::1:3128"],
    ...["http://a b:1", "http://me:secret@proxy", "me:%zz-secret@proxy:1", "http://p\r\n:1"],
  ];
  for (const url of wrong) {
    const { message } = assertThrows(() => parseProxy(url), SyntaxError);
    assertMatch(message, /^cannot use "[^]*" as a proxy: expected http:\/\/HOST:PORT$/);
    assert(!message.includes("secret"), message);
  }
});

Deno.test("isListed() knows hosts, what is in domains, addresses and *", () => {
  const list = ["time.example", ".org", "*.Net", "192.0.2.7", ""];
  for (const host of ["time.example", "a.time.example", "TIME.example", "a.org", "x.y.net"]) {
    assert(isListed(host, list), host);
  }
  for (const host of ["mytime.example", "example", "192.0.2.70", "2.7", "organ"]) {
    assert(!isListed(host, list), host);
  }
  assert(isListed("192.0.2.7", list) && isListed("anything", ["*"]) && !isListed("a", []));
});
