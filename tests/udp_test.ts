import { GOOD_REPLY } from "./good_reply.ts";
import { compiled, ServeProcess, SOURCE } from "../scripts/program.ts";
import { LIBC_PATHS } from "../src/libc/libc.ts";
import { systemClock } from "../src/clock/system_clock.ts";
import { serve, type ServerEvent, sync } from "../src/mod.ts";
import { DatagramBatch } from "../src/net/linux/datagram_sockets.ts";
import { linuxLibc } from "../src/net/linux/sockets.ts";
import { clientNetwork, systemNetwork } from "../src/net/system.ts";
import { decodePacket, encodePacket } from "../src/ntp/packet.ts";
import { fromTimestamp, toTimestamp } from "../src/ntp/timestamp.ts";
import { Admission } from "../src/serve/admission.ts";
import { answerDatagram, replyTemplate } from "../src/serve/reply.ts";
import { concat, CORPUS, requestOf } from "./attackers.ts";
import { World } from "./simulation/world.ts";
import { SLOWNESS } from "./slowness.ts";
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { existsSync } from "node:fs";
import "./libraries.ts";

const seed = Number(Deno.env.get("FUZZ_SEED") ?? Date.now() % 2 ** 31);
console.log(`udp: seed ${seed}`);
const DATAGRAMS = Math.ceil(200_000 / SLOWNESS);
const clock = systemClock();
linuxLibc();
const second = 1_000_000_000n;

const datagrams = fc.oneof(
  fc.uint8Array({ maxLength: 120 }),
  fc.tuple(fc.constantFrom(...Object.values(CORPUS)), fc.nat(200)).map(([bytes, length]) =>
    bytes.subarray(0, length)
  ),
  fc.tuple(fc.integer({ min: 0, max: 255 }), fc.uint8Array({ maxLength: 70 })).map(
    ([first, tail]) => {
      const bytes = concat([requestOf(), tail]);
      bytes[0] = first;
      return bytes;
    },
  ),
);

/** Is a datagram one that deserves an answer? */
function deserves(bytes: Uint8Array): boolean {
  const version = (bytes[0] ?? 0) >> 3 & 7;
  return bytes.length >= 48 && (bytes[0]! & 7) === 3 && version >= 1 && version <= 4;
}

Deno.test(`fuzz: of ${DATAGRAMS} datagrams those are answered that deserve it`, () => {
  const admission = new Admission({ rate: 0 });
  const template = replyTemplate(null, 1e-6, 0n);
  let answered = 0;
  fc.assert(
    fc.property(datagrams, (bytes) => {
      const reply = new Uint8Array(48);
      let asked = false;
      const first = new Uint8Array(48);
      first.set(bytes.subarray(0, 48));
      const refusal = answerDatagram(
        admission,
        "192.0.2.1",
        first,
        bytes.length,
        template,
        second,
        () => {
          asked = true;
          return reply;
        },
      );
      assertEquals([asked, refusal === null], [deserves(bytes), deserves(bytes)]);
      if (!asked) return;
      answered++;
      const { mode, version, origin } = decodePacket(reply);
      assertEquals([mode, version], [4, bytes[0]! >> 3 & 7]);
      assertEquals(origin, decodePacket(first).transmit);
    }),
    { numRuns: DATAGRAMS, seed },
  );
  assert(answered > DATAGRAMS / 30, `${answered} were answered`);
});

for (const program of [SOURCE, ...compiled() === null ? [] : [compiled()!]]) {
  Deno.test(`${program.name}: fuzz: as many to the real program`, async () => {
    const args = ["--host", "127.0.0.1", "--port", "0", "--udp-port", "0", "--rate", "0"];
    await using server = await ServeProcess.start(program, args);
    const { address } = (await server.nextEvent())!;
    const port = Number(String(address).split(":")[1]);
    const to = { hostname: "127.0.0.1", port, transport: "udp" } as const;
    const socket = Deno.listenDatagram({ hostname: "127.0.0.1", port: 0, transport: "udp" });
    const all = fc.sample(datagrams, { numRuns: DATAGRAMS, seed });
    for (let i = 0; i < all.length; i += 20) {
      const some = all.slice(i, i + 20).filter((bytes) => bytes.length > 0);
      for (const bytes of some) await socket.send(bytes, to);
      // A request of our own: all that came before it has been looked at when it is answered.
      const nonce = BigInt(i) + 0x7357_0000_0000_0000n;
      await socket.send(requestOf(4, nonce), to);
      let replies = 0;
      for (;;) {
        const [reply] = await socket.receive();
        assertEquals(reply.length, 48);
        if (decodePacket(reply).origin === nonce) break;
        replies++;
      }
      assertEquals(replies, some.filter(deserves).length, `of those from ${i} on`);
    }
    socket.close();
    const { code, log } = await server.stop();
    assertEquals(code, 0);
    assertEquals((log.at(-1) as { event: string }).event, "stopped");
  });

  Deno.test(`${program.name}: a request over IPv4 to the IPv6 socket is answered from where it was sent`, async () => {
    const args = ["--port", "0", "--udp-port", "0"];
    await using server = await ServeProcess.start(program, args);
    const { address } = (await server.nextEvent())!;
    const port = Number(String(address).split(":").at(-1));
    // Each address of loopback is this machine: the answer must come from the one asked.
    for (const hostname of ["127.0.0.1", "127.0.0.77"]) {
      const socket = Deno.listenDatagram({ hostname: "127.0.0.1", port: 0, transport: "udp" });
      await socket.send(requestOf(3), { hostname, port, transport: "udp" });
      const [reply, sender] = await socket.receive();
      assertEquals((sender as Deno.NetAddr).hostname, hostname);
      assertEquals([reply[0]! & 0x3f, reply.length], [3 << 3 | 4, 48]);
      socket.close();
    }
  });
}

const inProcess = { sanitizeOps: false, sanitizeResources: false };

for (const kernel of [true, false]) {
  const timestamps = kernel ? "kernel" : "user";

  Deno.test(
    `serve() with ${timestamps} timestamps answers with the right time, and obeys the limits`,
    inProcess,
    async () => {
      if (kernel && linuxLibc() === null) return console.log("no libc here: not tried");
      const events: ServerEvent[] = [];
      const onEvent = (event: ServerEvent) => events.push(event);
      const options = { hosts: ["127.0.0.1"], port: 0, udpPort: 0, timestamps, onEvent } as const;
      const server = await serve({ ...options, rate: 1 });
      const port = server.addresses[1]!.port;
      const to = { hostname: "127.0.0.1", port, transport: "udp" } as const;
      const socket = Deno.listenDatagram({ hostname: "127.0.0.1", port: 0, transport: "udp" });
      let [sent, answers, kisses] = [0, 0, 0];
      // Of what is too much not all is answered, nor told so: it asks until it has been.
      const receiving = (async () => {
        while (kisses === 0) {
          const [reply] = await socket.receive();
          const { stratum, transmit } = decodePacket(reply);
          if (stratum === 0) {
            kisses++;
            continue;
          }
          answers++;
          const age = clock.realtime() - fromTimestamp(transmit, clock.realtime());
          assert(age >= 0n && age < 10n * second, `${age} ns`);
        }
      })();
      for (; kisses === 0; sent++) {
        await socket.send(requestOf(), to);
        await pause(1);
      }
      await receiving;
      socket.close();
      await server.stop();
      assert(answers >= 4, `${answers} answers`);
      const { replies, refusals } = server.counters;
      assert(replies >= answers && replies + refusals.rate <= sent, `${sent} were sent`);
      assert(refusals.rate >= 1);
      const [, listening] = events;
      assertEquals("timestamps" in listening! && listening.timestamps, timestamps);
      const refused = events.filter(({ event }) => event === "refused");
      assert(refused.every((event) => "transport" in event && event.transport === "udp"));
    },
  );

  Deno.test(
    `sync() over UDP with ${timestamps} timestamps finds no offset`,
    inProcess,
    async () => {
      if (kernel && linuxLibc() === null) return console.log("no libc here: not tried");
      const options = { hosts: ["127.0.0.1"], port: 0, udpPort: 0, timestamps, rate: 0 } as const;
      const server = await serve(options);
      const { port } = server.addresses[1]!;
      const { offset, errorBound, servers } = await sync({
        servers: [`ntp://127.0.0.1:${port}`],
        samples: 1,
        timestamps,
      });
      assert(Math.abs(offset!) <= errorBound!, `${offset} s ± ${errorBound} s`);
      assertEquals(servers[0]!.figures!.timestamps, timestamps);
      await server.stop();
    },
  );
}

/** The descriptor that a file has in this process. */
function descriptorOf(path: string): number {
  const all = [...Deno.readDirSync("/proc/self/fd")].map(({ name }) => name);
  const isIt = (name: string) => {
    try {
      return Deno.readLinkSync(`/proc/self/fd/${name}`) === path;
    } catch {
      return false; // It was that of the folder.
    }
  };
  return Number(all.filter(isIt).sort((a, b) => Number(b) - Number(a))[0]);
}

Deno.test(
  "a socket that breaks is told of and tried again, and TCP goes on meanwhile",
  inProcess,
  async () => {
    if (linuxLibc() === null) return console.log("no libc here: not tried");
    const path = LIBC_PATHS.find((path) => existsSync(path))!;
    const libc = Deno.dlopen(path, {
      dup: { parameters: ["i32"], result: "i32" },
      dup2: { parameters: ["i32", "i32"], result: "i32" },
      close: { parameters: ["i32"], result: "i32" },
    });
    let fd = -1;
    const network: typeof systemNetwork = {
      ...systemNetwork,
      bind(transport, address) {
        const socket = systemNetwork.bind(transport, address)!;
        fd = socket.fd;
        return socket;
      },
    };
    const failed = Promise.withResolvers<string>();
    const server = await serve({
      hosts: ["127.0.0.1"],
      port: 0,
      udpPort: 0,
      network,
      onEvent: (event) => event.event === "datagrams-failed" && failed.resolve(event.error),
    });
    const [tcp, udp] = server.addresses.map(({ port }) => port);
    const under = () => sync({ servers: [`ntp://127.0.0.1:${udp}`], samples: 1, timeout: 0.1 });
    while (!(await under()).synchronised); // It answers.
    // In place of its socket it finds something else.
    const spare = libc.symbols.dup(fd);
    using nothing = await Deno.open("/dev/null");
    libc.symbols.dup2(descriptorOf("/dev/null"), fd);
    assertEquals((await under()).synchronised, false);
    assertEquals(await failed.promise, "Socket operation on non-socket");
    const over = await sync({ servers: [`127.0.0.1:${tcp}`] });
    assertEquals(over.synchronised, true);
    libc.symbols.dup2(spare, fd);
    nothing.statSync(); // It was open until now.
    while (!(await under()).synchronised);
    await server.stop();
    libc.symbols.close(spare);
    libc.close();
  },
);

Deno.test(
  "sync() believes no reply but that to its own request, from the server it asked",
  inProcess,
  async () => {
    const listen = () => Deno.listenDatagram({ hostname: "127.0.0.1", port: 0, transport: "udp" });
    const server = listen();
    const stranger = listen();
    const { port } = server.addr as Deno.NetAddr;
    const ports = new Set<number>();
    const serving = (async () => {
      for (let i = 0; i < 2; i++) {
        const [request, client] = await server.receive();
        ports.add((client as Deno.NetAddr).port);
        const now = toTimestamp(clock.realtime());
        const origin = decodePacket(request).transmit;
        const good = { ...GOOD_REPLY, origin, receive: now, transmit: now };
        const wrong = toTimestamp(clock.realtime() + 10n * second);
        const lie = { ...good, receive: wrong, transmit: wrong };
        await stranger.send(encodePacket(lie), client);
        await server.send(encodePacket({ ...lie, origin: origin ^ 1n }), client);
        await server.send(encodePacket(lie).subarray(0, 40), client);
        await server.send(concat([encodePacket(lie), new Uint8Array(12)]), client);
        await server.send(
          encodePacket({ ...good, transmit: toTimestamp(clock.realtime()) }),
          client,
        );
      }
    })();
    const { offset, errorBound } = await sync({ servers: [`ntp://127.0.0.1:${port}`], samples: 2 });
    assert(Math.abs(offset!) <= errorBound!, `${offset} s ± ${errorBound} s`);
    await serving;
    assertEquals(ports.size, 2, "each request has a source port of its own");
    server.close();
    stranger.close();
  },
);

const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

Deno.test(
  "the kernel says when a datagram came, however late it is looked at",
  inProcess,
  async () => {
    const libc = linuxLibc();
    if (libc === null) return console.log("no libc here: not tried");
    const socket = Deno.listenDatagram({ hostname: "127.0.0.1", port: 0, transport: "udp" });
    const bound = systemNetwork.bind("udp", { hostname: "127.0.0.1", port: 0 })!;
    const batch = new DatagramBatch(libc, bound.fd, 48);
    const lengths: number[] = [];
    const before = clock.realtime();
    for (const length of [48, 68, 10]) {
      await socket.send(new Uint8Array(length), { ...bound.address, transport: "udp" });
    }
    const after = clock.realtime();
    await pause(50);
    const count = batch.receive();
    for (let i = 0; i < count; i++) {
      assert(batch.arrived(i) >= before && batch.arrived(i) <= after);
      assertEquals(batch.sender(i), "127.0.0.1");
      lengths.push(batch.length(i));
    }
    assertEquals(lengths, [48, 68, 10]);
    bound.close();

    const network = clientNetwork("kernel", clock);
    const port = network.openDatagrams(socket.addr as Deno.NetAddr, clock);
    port.send(requestOf());
    const [, client] = await socket.receive();
    const start = clock.monotonic();
    await socket.send(new Uint8Array(60), client);
    const end = clock.monotonic();
    await pause(50);
    const datagram = (await port.receive(new Uint8Array(48)))!;
    assertEquals(datagram.length, 60);
    assert(datagram.arrived >= start && datagram.arrived <= end + 20_000_000n);
    port.close();
    socket.close();
  },
);

Deno.test("T2 is when the kernel received a request, though the server slept", async () => {
  if (linuxLibc() === null) return console.log("no libc here: not tried");
  const program = compiled() ?? SOURCE;
  const args = ["--host", "127.0.0.1", "--port", "0", "--udp-port", "0"];
  await using server = await ServeProcess.start(program, args);
  const port = Number(String((await server.nextEvent())!["address"]).split(":")[1]);
  const to = { hostname: "127.0.0.1", port, transport: "udp" } as const;
  const socket = Deno.listenDatagram({ hostname: "127.0.0.1", port: 0, transport: "udp" });
  await socket.send(requestOf(), to);
  await socket.receive();
  Deno.kill(server.pid, "SIGSTOP");
  await socket.send(requestOf(), to);
  const sent = clock.realtime();
  await pause(50);
  Deno.kill(server.pid, "SIGCONT");
  const [reply] = await socket.receive();
  assert(fromTimestamp(decodePacket(reply).receive, sent) <= sent);
  socket.close();
});

/** A client in virtual time that knows several addresses of one name. */
async function severalAddresses(behaviours: Record<string, "refuses" | "once" | "answers">) {
  const world = new World(seed);
  const host = world.host("good");
  const client = world.host("client");
  client.names.set("several", Object.keys(behaviours));
  const server = await world.run(serve({ hosts: ["good"], udpPort: 123, ...host.environment }));
  const asked: string[] = [];
  const network: typeof client.network = {
    ...client.network,
    openDatagrams(to, clock) {
      const behaviour = behaviours[to.hostname]!;
      const before = asked.filter((each) => each === to.hostname).length;
      asked.push(to.hostname);
      if (behaviour === "refuses" || behaviour === "once" && before > 0) {
        throw new Deno.errors.ConnectionRefused("Connection refused");
      }
      return client.network.openDatagrams({ hostname: "good", port: 123 }, clock);
    },
  };
  const { servers } = await world.run(
    sync({ servers: ["ntp://several"], ...client.environment, network }),
  );
  await world.run(server.stop());
  return { asked, report: servers[0]! };
}

Deno.test("sync() goes on to another address when one refuses, and stays with the one that answers", async () => {
  const { asked, report } = await severalAddresses({ one: "refuses", two: "answers" });
  assertEquals(asked, ["one", "two", "two", "two", "two"]);
  assertEquals(report.status, "truechimer");
});

Deno.test("sync() does not keep asking an address that has begun to refuse", async () => {
  const { asked, report } = await severalAddresses({ one: "refuses", two: "once" });
  assertEquals(asked, ["one", "two", "two"]);
  assertEquals([report.status, report.figures!.exchanges.length], ["truechimer", 1]);
});

/** A server and a client that ask and answer in virtual time. */
async function simulated(path: Parameters<typeof Object.assign>[1], options = {}) {
  const world = new World(seed);
  const host = world.host("server");
  const client = world.host("client");
  Object.assign(host.path, path);
  Object.assign(client.path, path);
  const server = await world.run(
    serve({ hosts: ["server"], udpPort: 123, ...host.environment, ...options }),
  );
  const ask = (more = {}) =>
    world.run(sync({ servers: ["ntp://server"], ...client.environment, ...more }));
  return { world, server, client, ask };
}

Deno.test("sync() asks an NTP server four times, two seconds apart", async () => {
  const { world, server, ask } = await simulated({});
  // The timeout is for an answer, not for the pauses.
  const { synchronised, servers } = await ask({ timeout: 0.5 });
  assertEquals([synchronised, servers[0]!.figures!.exchanges.length], [true, 4]);
  const seconds = world.now / 1e9;
  assert(seconds >= 6 && seconds < 6.5, `${seconds} s`);
  await world.run(server.stop());
  assertEquals(server.counters.replies, 4);
});

Deno.test("sync() sends again what is lost, and believes nothing that comes twice or late", async () => {
  const { world, server, ask } = await simulated({
    loss: 0.4,
    duplicated: 0.5,
    out: (random: { uniform(): number }) => random.uniform() < 0.2 ? 1.5 : 0.001,
  });
  const { synchronised, servers, offset, errorBound } = await ask({ timeout: 60 });
  assertEquals([synchronised, servers[0]!.figures!.exchanges.length], [true, 4]);
  assert(Math.abs(offset!) <= errorBound!);
  await world.run(server.stop());
});

Deno.test("sync() gives a silent NTP server its timeout, no more", async () => {
  const { world, server, ask } = await simulated({ loss: 1 });
  const { servers } = await ask();
  assertEquals(servers[0]!.error, "ntp://server did not answer within 5 s");
  assert(world.now / 1e9 < 5.1);
  await world.run(server.stop());
});

Deno.test("sync() obeys the kiss of an NTP server", async () => {
  const { world, server, client } = await simulated({}, { rate: 1, random: () => 0.3 });
  // All at once: four are answered, one is told that this is too often, the others wait.
  const fixes = await world.run(
    Promise.all(
      Array.from(
        { length: 6 },
        () => sync({ servers: ["ntp://server"], samples: 1, ...client.environment }),
      ),
    ),
  );
  const errors = fixes.map(({ servers }) => servers[0]!.error).filter((error) => error !== null);
  assertEquals(errors, [
    "ntp://server was asked too often (kiss RATE): wait before asking again",
  ]);
  await world.run(server.stop());
});
