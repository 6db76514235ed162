/**
 * TLS between the real programs, and what a person is told when it fails.
 *
 * @module
 */

import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { compiled, run, ServeProcess, SOURCE } from "../scripts/program.ts";
import { serve, sync } from "../src/mod.ts";
import { FakeServer } from "./fake_server.ts";
import { MessageReader } from "../src/net/framing.ts";
import { TlsListener } from "../src/net/deno/streams.ts";
import { authorityError } from "../src/net/deno/tls.ts";
import { TlsError } from "../src/net/errors.ts";
import { systemNetwork } from "../src/net/system.ts";

const folder = "tests/fixtures/tls";
const text = (name: string) => Deno.readTextFileSync(`${folder}/${name}`);
const serving = (cert: string, key = "server.key") => [
  ...["--host", "127.0.0.1", "--port", "0"],
  ...["--tls-cert", `${folder}/${cert}`, "--tls-key", `${folder}/${key}`],
];

Deno.test("a certificate is renewed where there is TLS, and nowhere else", async () => {
  for (const timestamps of ["auto", "user"] as const) {
    const server = await serve({ hosts: ["127.0.0.1"], port: 0, timestamps });
    assertThrows(() => server.renew({ cert: "", key: "" }), TypeError, "TLS is not in use");
    await server.stop();
  }
});

for (const program of [SOURCE, ...compiled() === null ? [] : [compiled()!]]) {
  const test = (name: string, body: () => Promise<void>) =>
    Deno.test(`${program.name}: ${name}`, body);
  const tsync = (...args: string[]) => run(program, "sync", ...args);
  const tlsSync = (server: ServeProcess, ca = "authority.pem", host = "127.0.0.1") =>
    tsync(`tls://${host}:${server.port}`, "--json", "--ca", `${folder}/${ca}`);

  test("sync over TLS finds the offset, by name and by address", async () => {
    await using server = await ServeProcess.start(program, serving("server.pem"));
    assertEquals(server.transport, "tls");
    for (const host of ["127.0.0.1", "localhost"]) {
      const { code, stdout, stderr } = await tlsSync(server, "authority.pem", host);
      assertEquals([code, stderr], [0, ""]);
      const { offset, error_bound, servers } = JSON.parse(stdout);
      assert(Math.abs(offset) <= error_bound);
      assertEquals(servers[0].transport, "tls");
      assert(servers[0].samples >= 16, "more, if the machine is slow");
    }
    const { log } = await server.stop();
    const [{ event, connections, replies }] = log as [Record<string, number | string>];
    assertEquals([log.length, event], [1, "stopped"], "nobody was refused");
    assert(Number(connections) >= 2 && Number(replies) >= 34, `${replies} replies`);
  });

  test("the system's authorities are believed without --ca, and only then", async () => {
    if (Deno.build.os !== "linux") return console.log("SSL_CERT_FILE is Linux's: not tried");
    await using server = await ServeProcess.start(program, serving("server.pem"));
    const args = [...program.args, "sync", "--quiet", `tls://127.0.0.1:${server.port}`];
    const env = { SSL_CERT_FILE: `${folder}/authority.pem` };
    const codeOf = async (...more: string[]) => {
      const command = new Deno.Command(program.executable, { args: [...args, ...more], env });
      return (await command.output()).code;
    };
    assertEquals(await codeOf(), 0);
    assertEquals(await codeOf("--ca", `${folder}/successor.pem`), 1);
  });

  const bad: [string, string, RegExp][] = [
    [
      "other-name.pem",
      "server.key",
      /another name: not for 127\.0\.0\.1, it is for other\.example$/,
    ],
    [
      "terminal.pem",
      "server.key",
      /for aaa\\x1b\]0;owned\\x07\\x0d\\x0atsync: all is well\\x9bm\\u\{202e\}\.example$/,
    ],
    ["expired.pem", "server.key", /has expired \(valid until 2020-01-31\), or the local clock/],
    ["future.pem", "server.key", /is not valid yet \(valid from 2119-01-01\), or the local clock/],
    ["renewed.pem", "server.key", /an unknown authority; name its authority's with --ca$/],
    ["authority.pem", "authority.key", /an authority's certificate as its own \(CA:TRUE\)/],
  ];
  for (const [cert, key, sentence] of bad) {
    test(`sync says what is wrong with ${cert}`, async () => {
      await using server = await ServeProcess.start(program, serving(cert, key));
      const { code, stdout, stderr } = await tlsSync(server);
      assertMatch(stderr, /^tsync: tls:\/\/127\.0\.0\.1:\d+ (has|shows) [^\n]*\n$/);
      assertMatch(stderr.trim(), sentence);
      const [{ status, error }] = JSON.parse(stdout).servers;
      assertEquals([code, status, `tsync: ${error}\n`], [1, "invalid", stderr]);
      assertEquals(await server.nextEvent(), { event: "refused", reason: "tls", count: 1 });
    });
  }

  test("TLS to a plain port and plain to one of TLS are told apart", async () => {
    await using plain = await ServeProcess.start(program);
    const over = await tlsSync(plain);
    assertMatch(
      over.stderr,
      /^tsync: tls:\S+ (closed|broke) the connection in the TLS handshake.*; does it speak TLS\?\n$/,
    );
    const refused = (await plain.nextEvent())!;
    assertEquals([refused.event, refused.reason], ["refused", "mode"]);
    await using text = new FakeServer(async (connection) => {
      await connection.write(new TextEncoder().encode("220 mail.example ESMTP\r\n"));
      await connection.read(new Uint8Array(1000));
    });
    const { stderr } = await tsync(`tls://${text.address}`, "--ca", `${folder}/authority.pem`);
    assertMatch(stderr, /^tsync: tls:\S+ does not speak TLS; ask it as tcp:\/\/\n$/);
    await using secure = await ServeProcess.start(program, serving("server.pem"));
    const under = await tsync(secure.address);
    assertMatch(under.stderr, /; it speaks TLS: ask it as tls:\/\/\n$/);
    assertEquals(await secure.nextEvent(), { event: "refused", reason: "tls", count: 1 });
  });

  test("SIGHUP has the certificate read again, and no connection is lost", async () => {
    if (Deno.build.os === "windows") return;
    const directory = await Deno.makeTempDir();
    try {
      const [cert, key] = [`${directory}/cert.pem`, `${directory}/key.pem`];
      await Deno.writeTextFile(cert, text("server.pem"));
      await Deno.writeTextFile(key, text("server.key"));
      const args = ["--host", "127.0.0.1", "--port", "0", "--tls-cert", cert, "--tls-key", key];
      await using server = await ServeProcess.start(program, args);
      using connection = await Deno.connectTls({
        hostname: "127.0.0.1",
        port: server.port,
        caCerts: [text("authority.pem")],
      });
      const reader = new MessageReader(connection, new Uint8Array(48), () => 0n);
      const exchange = async () => {
        await connection.write(new Uint8Array(48).fill(0x23));
        assertEquals(await reader.read(), true);
      };
      await exchange();

      await Deno.writeTextFile(cert, "not a certificate");
      Deno.kill(server.pid, "SIGHUP");
      const failed = await server.nextEvent();
      assertEquals(failed, {
        event: "renewal-failed",
        error: "cannot use the certificate: there is no certificate in it",
      });
      await Deno.remove(cert);
      Deno.kill(server.pid, "SIGHUP");
      assertMatch(String((await server.nextEvent())!["error"]), /^cannot read .* no such file$/);
      assertEquals((await tlsSync(server)).code, 0, "the old certificate is still shown");

      await Deno.writeTextFile(cert, text("renewed.pem"));
      Deno.kill(server.pid, "SIGHUP");
      assertEquals(await server.nextEvent(), { event: "renewed" });
      assertEquals((await tlsSync(server, "successor.pem")).code, 0);
      assertEquals((await tlsSync(server)).code, 1);
      await exchange();
      const { code } = await server.stop();
      assertEquals(code, 0);
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  });

  test("serve names what is wrong with its certificate, or with another's port", async () => {
    const start = async (...args: string[]) => (await run(program, "serve", ...args)).stderr;
    assertEquals(
      await start(...serving("server.pem", "authority.key")),
      "tsync: cannot use the certificate: the key belongs to another certificate\n",
    );
    assertEquals(
      await start(...serving("server.key")),
      "tsync: cannot use the certificate: there is no certificate in it\n",
    );
    assertEquals(
      await start(...serving("nosuch.pem")),
      `tsync: cannot read ${folder}/nosuch.pem for --tls-cert: there is no such file\n`,
    );
    await using server = await ServeProcess.start(program, serving("server.pem"));
    const args = serving("server.pem").with(3, String(server.port));
    assertMatch(await start(...args), /^tsync: cannot listen on \S+: the address is in use;/);
  });

  test("sync names what is wrong with --ca", async () => {
    const ca = async (file: string) => (await tsync("tls://127.0.0.1:1", "--ca", file)).stderr;
    assertEquals(
      await ca(`${folder}/server.key`),
      `tsync: cannot use ${folder}/server.key for --ca: there is no certificate in it (expected PEM)\n`,
    );
    assertEquals(await ca("nosuch"), "tsync: cannot read nosuch for --ca: there is no such file\n");
    const { code, stderr } = await tsync("localhost", "--ca", `${folder}/authority.pem`);
    assertEquals([code, stderr.split("\n")[0]], [2, "tsync: --ca needs a tls:// server"]);
  });
}

/** libc stays open, and a second after a connection with TLS was closed it is looked after. */
const inProcess = { sanitizeOps: false, sanitizeResources: false };

Deno.test(
  "a client that begins TLS and says no more is closed after ten seconds",
  inProcess,
  async () => {
    let tick = () => {};
    const server = await serve({
      hosts: ["127.0.0.1"],
      port: 0,
      tls: { cert: text("server.pem"), key: text("server.key") },
      timers: { after: (_, callback) => (tick = callback, () => {}) },
    });
    using connection = await Deno.connect(server.addresses[0]!);
    const closed = connection.read(new Uint8Array(1));
    while (server.counters.connections === 0) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    for (let second = 0; second < 10; second++) tick();
    assertEquals(server.counters.refusals.slow, 0);
    tick();
    assertEquals(await closed, null);
    while (server.counters.refusals.slow === 0) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    assertEquals(server.counters.refusals.slow, 1);
    await server.stop();
  },
);

Deno.test(
  "macOS: a certificate is renewed where no two listeners can have one port",
  inProcess,
  async () => {
    const key = text("server.key");
    const server = await serve({
      hosts: ["127.0.0.1"],
      port: 0,
      tls: { cert: text("server.pem"), key },
      network: {
        ...systemNetwork,
        listen: (address, certificate) => new TlsListener(address, certificate!, false),
      },
    });
    const { port } = server.addresses[0]!;
    const connect = (ca: string) =>
      Deno.connectTls({ hostname: "127.0.0.1", port, caCerts: [text(ca)] });
    /** As the port is closed, connections that wait are reset, and then others refused. */
    const handshake = async (ca: string): Promise<void> => {
      try {
        using connection = await connect(ca);
        await connection.handshake();
      } catch (error) {
        const { ConnectionRefused, ConnectionReset, UnexpectedEof } = Deno.errors;
        if (
          [ConnectionRefused, ConnectionReset, UnexpectedEof].every((lost) =>
            !(error instanceof lost)
          )
        ) {
          throw error;
        }
        await handshake(ca);
      }
    };
    using kept = await connect("authority.pem");
    const reader = new MessageReader(kept, new Uint8Array(48), () => 0n);
    const exchange = async () => {
      await kept.write(new Uint8Array(48).fill(0x23));
      assertEquals(await reader.read(), true);
    };
    await exchange();
    assertThrows(() => server.renew({ cert: "", key }), Error, "there is no certificate in it");
    await handshake("authority.pem");
    for (let i = 0; i < 10; i++) {
      server.renew({ cert: text("renewed.pem"), key });
      await handshake("successor.pem");
      await assertRejects(() => handshake("authority.pem"), Error, "UnknownIssuer");
      // Twice before it is open again: the last one counts.
      server.renew({ cert: text("renewed.pem"), key });
      server.renew({ cert: text("server.pem"), key });
      await handshake("authority.pem");
      await exchange();
    }
    server.renew({ cert: text("renewed.pem"), key });
    await server.stop();
    const gone = await Deno.connect({ hostname: "127.0.0.1", port }).then(() => null, String);
    assertMatch(gone!, /ConnectionRefused/);
  },
);

Deno.test(
  "sync() takes authorities that are no certificates for what they are",
  inProcess,
  async () => {
    const tls = { cert: text("server.pem"), key: text("server.key") };
    const server = await serve({ hosts: ["127.0.0.1"], port: 0, tls });
    const ca = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const fix = await sync({ servers: [`tls://127.0.0.1:${server.addresses[0]!.port}`], ca });
    assertMatch(
      fix.servers[0]!.error!,
      /the authority's certificate cannot be read \(BadEncoding\)$/,
    );
    await server.stop();
  },
);

Deno.test(
  "connections that are refused in mid-handshake end, and no other does",
  inProcess,
  async () => {
    const tls = { cert: text("server.pem"), key: text("server.key") };
    const server = await serve({ hosts: ["127.0.0.1"], port: 0, tls, maxClients: 1 });
    const { port } = server.addresses[0]!;
    const caCerts = [text("authority.pem")];
    using first = await Deno.connectTls({ hostname: "127.0.0.1", port, caCerts });
    const reader = new MessageReader(first, new Uint8Array(48), () => 0n);
    const exchange = async () => {
      await first.write(new Uint8Array(48).fill(0x23));
      assertEquals(await reader.read(), true);
    };
    await exchange();
    for (let i = 0; i < 100; i++) {
      using refused = await Deno.connect({ hostname: "127.0.0.1", port });
      assertEquals(await refused.read(new Uint8Array(1)).catch(() => null), null);
    }
    await exchange();
    assertEquals(server.counters.refusals["max-clients"], 100);
    await server.stop();
  },
);

Deno.test("a connection that breaks before TLS is not said to have a wrong name", () => {
  const lost = new Deno.errors.NotConnected("Socket is not connected");
  assertEquals(authorityError(lost, "127.0.0.1"), lost);
  const named = authorityError(new TypeError("Invalid hostname: 'a b'"), "a b");
  assert(named instanceof TlsError);
  const { message } = named as TlsError;
  assertEquals(message, "cannot be asked: a b is not a valid host name");
});
