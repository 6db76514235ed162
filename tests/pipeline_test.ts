/**
 * Requests that are sent ahead over a long path, and servers that cannot take them.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { sync, type SyncOptions } from "../src/mod.ts";
import type { Channel } from "../src/net/channel.ts";
import type { Connection } from "../src/net/network.ts";
import { encodePacket, OFFSET, viewOf } from "../src/ntp/packet.ts";
import { toTimestamp } from "../src/ntp/timestamp.ts";
import { Pipeline } from "../src/sync/pipeline.ts";
import { GOOD_REPLY } from "./good_reply.ts";
import { constant } from "./simulation/random.ts";
import { type Path, World } from "./simulation/world.ts";

/** There and back, in seconds. */
const over = (roundTrip: number): Path => ({
  out: constant(roundTrip / 2),
  back: constant(roundTrip / 2),
});

/** What a server does with what it has read, the number of a connection's request from 0. */
type Answer = (requests: Uint8Array, index: number, server: Server) => Promise<void> | void;

/** A server's end of a connection. */
interface Server {
  readonly connection: Connection;
  reply(request: Uint8Array): Promise<unknown>;
  wait(seconds: number): Promise<void>;
}

/** Syncs with a server that is ahead by a second. @param size Bytes that it reads at once. */
async function ask(path: Path, answer: Answer, options: SyncOptions = {}, size = 48) {
  const world = new World(1);
  const host = world.host("server", { offset: 1 });
  world.host("dead").dead = true;
  const client = world.host("client");
  client.names.set("both", ["dead", "server"]);
  host.path = path;
  const listener = host.network.listen({ hostname: "server", port: 10085 });
  let [connections, requests] = [0, 0];
  const serve = async (connection: Connection) => {
    const server: Server = {
      connection,
      reply: (request) => {
        const now = toTimestamp(host.clock.realtime());
        const origin = viewOf(request).getBigUint64(OFFSET.transmit);
        const stamps = { origin, receive: now, transmit: now };
        return connection.write(encodePacket({ ...GOOD_REPLY, precision: -30, ...stamps }));
      },
      wait: (seconds) => new Promise((resolve) => host.timers.after(seconds, resolve)),
    };
    const into = new Uint8Array(size);
    for (let index = 0;; index++) {
      const count = await connection.read(into).catch(() => null);
      if (count === null) return;
      requests += count / 48;
      await answer(into.slice(0, count), index, server);
    }
  };
  (async () => {
    for (let peer = await listener.accept(); peer !== null; peer = await listener.accept()) {
      connections++;
      serve(peer);
    }
  })();
  const syncing = sync({ servers: ["server"], ...client.environment, ...options });
  const { synchronised, offset, errorBound, servers: [only] } = await world.run(syncing);
  if (synchronised) assert(Math.abs(offset! - 1) <= errorBound!, `${offset} ± ${errorBound}`);
  const exchanges = only!.figures?.exchanges.length ?? 0;
  return { exchanges, connections, requests, seconds: world.now / 1e9, error: only!.error };
}

const good: Answer = async (request, _, server) => {
  await server.reply(request);
};

Deno.test("over a long path all exchanges count, the first too", async () => {
  for (const samples of [1, 2, 20]) {
    const { exchanges, requests } = await ask(over(0.1), good, { samples });
    assertEquals([exchanges, requests], [samples, samples]);
  }
  const { exchanges, requests, seconds } = await ask(over(0.1), good);
  assertEquals([exchanges, requests], [32, 32]);
  // Connecting, 31 spacings, and the last exchange.
  assert(seconds < 0.52, `${seconds} s`);
});

Deno.test("over a short path the first does not, and none is sent ahead", async () => {
  const { exchanges, requests } = await ask(over(0.004), good);
  assertEquals([exchanges, requests], [16, 17]);
});

Deno.test("requests are a tenth of the round trip apart, of the second one's if connecting was quick", async () => {
  const { seconds } = await ask(over(0.3), good);
  assert(seconds > 1.5 && seconds < 1.6, `${seconds} s`);
  // Somebody nearby accepts connections for a server that is far away.
  const proxied = await ask(over(0.002), (request, _, server) => {
    server.wait(0.3).then(() => server.reply(request));
  });
  assertEquals([proxied.exchanges, proxied.requests], [32, 33]);
  assert(proxied.seconds > 1.5, `${proxied.seconds} s`);
});

Deno.test("waiting for a dead address is no part of the round trip", async () => {
  const alone = await ask(over(0.1), good);
  const { seconds, exchanges } = await ask(over(0.1), good, { servers: ["both"] });
  assertEquals(exchanges, 32);
  assert(Math.abs(seconds - alone.seconds - 0.25) < 0.01, `${seconds}, ${alone.seconds} s`);
});

Deno.test("a burst goes on while congestion lasts, unless its number of exchanges was given", async () => {
  const inWaves = () => {
    let i = 0;
    return { ...over(0.1), out: () => 0.055 + 0.005 * Math.sin(i++ / 5) };
  };
  assert((await ask(inWaves(), good)).exchanges > 32);
  assertEquals((await ask(inWaves(), good, { samples: 32 })).exchanges, 32);
});

Deno.test("what is late for another reason does not make a path a long one", async () => {
  const late = (which: number[]): Answer => async (request, index, server) => {
    if (which.includes(index)) await server.wait(0.02);
    await server.reply(request);
  };
  let messages = 0;
  const slowToConnect = { out: () => messages++ === 0 ? 0.02 : 0.001, back: constant(0.001) };
  const counts = async (path: Path, which: number[]) => {
    const { exchanges, requests } = await ask(path, late(which));
    return [exchanges, requests];
  };
  assertEquals(await counts(over(0.002), [0]), [16, 17], "the first reply");
  assertEquals(await counts(over(0.002), [1, 2, 3]), [16, 17], "later ones");
  assertEquals(await counts(slowToConnect, []), [16, 17], "the connection");
});

Deno.test("a reply that a server passes over is lost, and another request is sent", async () => {
  const { exchanges, requests, connections } = await ask(over(0.1), async (...args) => {
    if (args[1] !== 3) await good(...args);
  });
  assertEquals([exchanges, requests, connections], [32, 33, 1]);
});

Deno.test("requests are lost after a second, or three times the longest delay", async () => {
  const silentAfter = (count: number, waits = 0): Answer => (request, index, server) => {
    if (index < count) server.wait(waits).then(() => server.reply(request));
  };
  // A connection, 31 spacings, the time in which they must be answered, a pause; 16 are enough.
  const near = await ask(over(0.1), silentAfter(20));
  assertEquals([near.exchanges, near.connections], [20, 1]);
  assert(near.seconds > 1.4 && near.seconds < 1.7, `${near.seconds} s`);
  const far = await ask(over(0.5), silentAfter(20));
  assert(far.seconds > 3.5 && far.seconds < 3.8, `${far.seconds} s`);
  const slow = await ask(over(0.1), silentAfter(20, 0.5));
  assert(slow.seconds > 2.7 && slow.seconds < 2.9, `${slow.seconds} s`);
});

Deno.test("a single request is not taken for lost, however late its reply is", async () => {
  const late: Answer = async (request, _, server) => {
    await server.wait(3);
    await server.reply(request);
  };
  const { exchanges, requests } = await ask(over(0.1), late, { samples: 1 });
  assertEquals([exchanges, requests], [1, 1]);
});

/** What comes together arrives in one piece: a second segment waits for the first to be acknowledged. */
const narrow: Path = { ...over(0.1), window: 1 };

Deno.test("a server that cannot take requests that come together is asked one at a time", async () => {
  const servers: Record<string, Answer> = {
    "closes the connection": async (requests, _, server) => {
      if (requests.length > 48) server.connection.close();
      else await server.reply(requests);
    },
    "answers the last first": async (requests, _, server) => {
      for (let end = requests.length; end > 0; end -= 48) {
        await server.reply(requests.subarray(end - 48, end));
      }
    },
    "answers none of them": async (requests, _, server) => {
      if (requests.length === 48) await server.reply(requests);
    },
    "answers the first of them": (requests, _, server) => {
      server.reply(requests.subarray(0, 48));
    },
  };
  for (const [what, answer] of Object.entries(servers)) {
    const { exchanges, error } = await ask(narrow, answer, {}, 1024);
    assert(exchanges >= 16, `${what}: ${exchanges}, ${error}`);
  }
});

Deno.test("while a request is still being written, no other is sent, and time passes", async () => {
  const world = new World(1);
  const { clock, timers, nonce, network } = world.host("client");
  let [timersSet, sent] = [0, 0];
  const after: typeof timers.after = (...args) => {
    timersSet++;
    return timers.after(...args);
  };
  const channel: Channel = {
    address: { hostname: "server", port: 1 },
    request: new Uint8Array(48),
    reply: new Uint8Array(48),
    congested: true,
    receive: () => new Promise((resolve) => timers.after(0.5, () => resolve(late()))),
    send() {
      sent++;
      return clock.monotonic();
    },
    release() {},
    close() {},
  };
  const late = () => ({ arrived: clock.monotonic(), by: "user" as const });
  const environment = { clock, timers: { after }, nonce, network };
  const pipeline = new Pipeline(channel, environment, null, 0.1, true);
  await world.run(pipeline.exchange({ wanted: 32, spacingSeconds: 0.01 }));
  assertEquals(sent, 1);
  assert(timersSet < 100, `${timersSet} timers`);
});

Deno.test("one connection that breaks does not make a server one to be asked one at a time", async () => {
  let requests = 0;
  const { exchanges, seconds } = await ask(over(0.1), async (request, _, server) => {
    if (++requests === 10) server.connection.close();
    else await server.reply(request);
  });
  assert(exchanges >= 32, `${exchanges} exchanges`);
  assert(seconds < 1.2, `${seconds} s`);
});
