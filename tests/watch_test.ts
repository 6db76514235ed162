/**
 * Time that is kept for hours, in virtual time. `deno task keep` prints the
 * same rows for hundreds of seeds.
 *
 * Replay: WATCH_SEED=N deno task test --filter kept
 *
 * @module
 */

import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { crossTimestamp } from "../src/clock/clock.ts";
import { systemClock } from "../src/clock/system_clock.ts";
import { compareTimes, SyncedClock, type SyncedTime } from "../src/clock/synced_clock.ts";
import { carry, OffsetTracker } from "../src/estimate/offset_tracker.ts";
import { Corrector, serve } from "../src/mod.ts";
import { type Update, Watch } from "../src/sync/watch.ts";
import { FakeSetter } from "./fake_setter.ts";
import { faults, keep, type Kept, ROWS } from "./simulation/keeping.ts";
import { type Host, S, World } from "./simulation/world.ts";
import "./libraries.ts";

const SEEDS = 2;
const first = Number(Deno.env.get("WATCH_SEED") ?? Date.now() % 2 ** 31);
console.log(`watch: seeds from ${first}`);

for (const row of ROWS) {
  Deno.test(`kept: ${row.name}`, async () => {
    for (let seed = first; seed < first + SEEDS; seed++) {
      const kept: Kept = await keep(seed, row);
      assertEquals(faults(row, kept), [], `seed ${seed}`);
    }
  });
}

Deno.test("Watch keeps one connection, and opens another quietly when it breaks", async () => {
  const world = new World(first);
  const server = world.host("server");
  const client = world.host("client");
  const serving = await world.run(serve({ hosts: ["server"], ...server.environment }));
  const stop = new AbortController();
  const watch = new Watch({ servers: ["server"], signal: stop.signal, ...client.environment });
  const states: string[] = [];
  const watching = (async () => {
    for await (const { state } of watch) states.push(state);
  })();
  await world.sleep(100);
  assertEquals(serving.counters.connections, 1);
  server.resetConnections();
  client.resetConnections();
  await world.sleep(100);
  assertEquals(serving.counters.connections, 2);
  assertEquals(new Set(states), new Set(["synchronised"]));
  stop.abort();
  await world.run(watching);
  assertEquals(watch.clock.now(), null, "it is not kept any more");
  await world.run(serving.stop());
});

Deno.test("Watch opens another connection after the machine slept: the other end may have gone", async () => {
  const world = new World(first);
  const server = world.host("server");
  const client = world.host("client");
  const serving = await world.run(serve({ hosts: ["server"], ...server.environment }));
  const polls = new Watch({ servers: ["server"], ...client.environment })[Symbol.asyncIterator]();
  await world.run(polls.next());
  client.suspend(5);
  const { value } = await world.run(polls.next());
  assertEquals([value!.news, serving.counters.connections], ["disturbed", 2]);
  await world.run(polls.return());
  await world.run(serving.stop());
});

Deno.test("Watch asks often again when the machine has slept, though nobody had answered for long", async () => {
  const world = new World(first);
  const server = world.host("server");
  const client = world.host("client");
  const serving = await world.run(serve({ hosts: ["server"], ...server.environment }));
  const polls = new Watch({ servers: ["server"], ...client.environment })[Symbol.asyncIterator]();
  const interval = async () => (await world.run(polls.next())).value!.interval;
  await interval();
  server.dead = true;
  while (await interval() < 32);
  client.suspend(600);
  assertEquals([await interval(), await interval()], [1, 2]);
  await world.run(polls.return());
  server.dead = false;
  await world.run(serving.stop());
});

Deno.test("Watch asks more often for a while when the frequency has changed, up or down", async () => {
  for (const ppm of [10, -10]) {
    const world = new World(first);
    const server = world.host("server");
    const client = world.host("client");
    const serving = await world.run(serve({ hosts: ["server"], ...server.environment }));
    const stop = new AbortController();
    const intervals: number[] = [];
    const watching = (async () => {
      const options = { servers: ["server"], signal: stop.signal, ...client.environment };
      for await (const { interval } of new Watch(options)) intervals.push(interval);
    })();
    await world.sleep(600);
    assertEquals(intervals.splice(0).at(-1), 32);
    client.clock.setFrequency(ppm);
    await world.sleep(600);
    assert(Math.min(...intervals) < 32, `${ppm} ppm: ${intervals}`);
    assertEquals(intervals.at(-1), 32);
    stop.abort();
    await world.run(watching);
    await world.run(serving.stop());
  }
});

Deno.test("Watch notices with a poll what has happened since the last check", async () => {
  const world = new World(first);
  const server = world.host("server");
  const client = world.host("client");
  const serving = await world.run(serve({ hosts: ["server"], ...server.environment }));
  // Checks are after 10 and 11 s, a poll just after 10.5 s.
  world.at(10.3 * S, () => client.clock.step(3));
  const news: string[] = [];
  await world.run((async () => {
    const options = { servers: ["server"], interval: 10.5, ...client.environment };
    for await (const update of new Watch(options)) if (news.push(update.news) === 2) break;
  })());
  assertEquals(news, ["first", "disturbed"]);
  await world.run(serving.stop());
});

Deno.test("Watch obeys a fixed interval, and does not ask an NTP server more often than once in 64 s", async () => {
  for (const [servers, interval, expected] of [["server", 7, 7], ["ntp://server", undefined, 64]]) {
    const world = new World(first);
    const server = world.host("server");
    const client = world.host("client");
    const serving = await world.run(
      serve({ hosts: ["server"], udpPort: 123, ...server.environment }),
    );
    const options = { servers: [servers as string], interval: interval as number | undefined };
    const intervals: number[] = [];
    const watching = (async () => {
      for await (const update of new Watch({ ...options, ...client.environment })) {
        intervals.push(update.interval);
        if (intervals.length === 3) return;
      }
    })();
    await world.run(watching);
    assertEquals(intervals, Array(3).fill(expected));
    await world.run(serving.stop());
  }
});

/** Three servers that are asked for so long, the last of which is ahead by 10 s. */
async function withLiar(seconds: number, happens: (good: Host[], world: World) => void) {
  const world = new World(first);
  const hosts = ["one", "two", "liar"].map((name) =>
    world.host(name, { offset: name === "liar" ? 10 : 0 })
  );
  const servers = await Promise.all(
    hosts.map((host) => world.run(serve({ hosts: [host.address], ...host.environment }))),
  );
  const client = world.host("client");
  const stop = new AbortController();
  const watch = new Watch({
    servers: ["one", "two", "liar"],
    timeout: 1,
    signal: stop.signal,
    ...client.environment,
  });
  const updates: Update[] = [];
  const watching = (async () => {
    for await (const update of watch) updates.push(update);
  })();
  happens(hosts.slice(0, 2), world);
  await world.sleep(seconds);
  const shown = watch.clock.now();
  const { start, count } = hosts[0]!.clock.exact();
  const truth = start + BigInt(Math.round(count));
  stop.abort();
  await world.run(watching);
  for (const server of servers) await world.run(server.stop());
  return { updates, shown, truth };
}

Deno.test("Watch does not believe a liar that is the last to answer, and does when most agree", async () => {
  const alone = await withLiar(2000, (good, world) => {
    world.at(1000 * S, () => good.forEach((host) => host.dead = true));
  });
  const { earliest, latest } = alone.shown!;
  assert(earliest <= alone.truth && alone.truth <= latest);
  const { state, news, fix } = alone.updates.at(-1)!;
  assertEquals([state, news], ["holdover", "minority"]);
  assertEquals(
    [fix.synchronised, fix.offset],
    [false, null],
    "nobody is shown what is not believed",
  );
  assertEquals(fix.servers[2]!.status, "falseticker");
  const together = await withLiar(2000, (good, world) => {
    world.at(1000 * S, () => good.forEach((host) => host.clock.step(5)));
  });
  assertEquals(together.updates.filter(({ news }) => news === "step").length, 1);
  const { earliest: least, latest: most } = together.shown!;
  assert(least <= together.truth && together.truth <= most);
});

Deno.test("Watch does not believe a liar who is alone when nothing is known", async () => {
  const happenings: ((client: Host, world: World) => void)[] = [
    (client) => client.clock.step(0.3),
    (client) => client.suspend(30),
  ];
  for (const happens of happenings) {
    const world = new World(first);
    const hosts = [0, 0, 2].map((offset, i) => world.host(`server${i}`, { offset }));
    const servers = await Promise.all(
      hosts.map((host) => world.run(serve({ hosts: [host.address], ...host.environment }))),
    );
    const client = world.host("client");
    const setter = new FakeSetter();
    const corrector = new Corrector(setter);
    const stop = new AbortController();
    const watch = new Watch({
      servers: hosts.map(({ address }) => address),
      timeout: 1,
      signal: stop.signal,
      corrector,
      ...client.environment,
    });
    const updates: Update[] = [];
    const watching = (async () => {
      for await (const update of watch) updates.push(update);
    })();
    world.at(100 * S, () => {
      hosts[0]!.dead = hosts[1]!.dead = true;
    });
    world.at(200 * S, () => happens(client, world));
    await world.sleep(500);
    const { state, news, fix } = updates.at(-1)!;
    assertEquals([state, news, fix.offset], ["synchronising", "minority", null]);
    assertEquals([watch.clock.now(), setter.steps], [null, []]);
    assertEquals(setter.steered.at(-1)!.error, null);
    hosts[0]!.dead = hosts[1]!.dead = false;
    await world.sleep(100);
    assertEquals(updates.at(-1)!.state, "synchronised");
    assertEquals(updates.at(-1)!.fix.servers[2]!.status, "falseticker");
    stop.abort();
    await world.run(watching);
    for (const server of servers) await world.run(server.stop());
  }
});

Deno.test("Watch is not led astray by the last to answer, however slowly that goes", async () => {
  const world = new World(first);
  const hosts = ["one", "two", "liar"].map((name) => world.host(name));
  const servers = await Promise.all(
    hosts.map((host) => world.run(serve({ hosts: [host.address], ...host.environment }))),
  );
  const client = world.host("client");
  const setter = new FakeSetter();
  const stop = new AbortController();
  const watch = new Watch({
    servers: hosts.map(({ address }) => address),
    timeout: 1,
    signal: stop.signal,
    corrector: new Corrector(setter),
    ...client.environment,
  });
  let last: Update | undefined;
  const watching = (async () => {
    for await (const update of watch) last = update;
  })();
  world.at(1000 * S, () => {
    hosts[0]!.dead = hosts[1]!.dead = true;
    // Each of its steps is possible by what is known.
    hosts[2]!.clock.setFrequency(10);
  });
  await world.sleep(4 * 3600);
  const { earliest, latest } = watch.clock.now(true)!;
  const { start, count } = hosts[0]!.clock.exact();
  const truth = start + BigInt(Math.round(count));
  assert(earliest <= truth && truth <= latest, `${truth - earliest} of ${latest - earliest} ns`);
  assertEquals([last!.state, last!.news, setter.steps], ["holdover", "minority", []]);
  stop.abort();
  await world.run(watching);
  hosts.forEach((host) => host.dead = false);
  for (const server of servers) await world.run(server.stop());
});

Deno.test("Watch can be iterated over once at a time, and again afterwards", async () => {
  const world = new World(first);
  const server = world.host("server");
  const client = world.host("client");
  const serving = await world.run(serve({ hosts: ["server"], ...server.environment }));
  const watch = new Watch({ servers: ["server"], ...client.environment });
  const one = watch[Symbol.asyncIterator]();
  await world.run(one.next());
  await assertRejects(() => watch[Symbol.asyncIterator]().next(), TypeError, "make another Watch");
  assertEquals((await world.run(one.next())).value!.state, "synchronised");
  await world.run(one.return());
  await world.run((async () => {
    for await (const { state } of watch) {
      assertEquals(state, "synchronised");
      break;
    }
  })());
  await world.run(serving.stop());
});

Deno.test("Watch is not surprised by what happened before it was iterated over", async () => {
  const world = new World(first);
  const server = world.host("server");
  const client = world.host("client");
  const serving = await world.run(serve({ hosts: ["server"], ...server.environment }));
  const watch = new Watch({ servers: ["server"], ...client.environment });
  client.clock.step(5);
  await world.run((async () => {
    for await (const { news } of watch) {
      assertEquals(news, "first");
      break;
    }
  })());
  await world.run(serving.stop());
});

Deno.test("Watch ends with what onProgress throws", async () => {
  const world = new World(first);
  const server = world.host("server");
  const client = world.host("client");
  const serving = await world.run(serve({ hosts: ["server"], ...server.environment }));
  const onProgress = () => {
    throw new Error("the caller's own");
  };
  const watch = new Watch({ servers: ["server"], onProgress, ...client.environment });
  const next = watch[Symbol.asyncIterator]().next();
  await assertRejects(() => world.run(next), Error, "the caller's own");
  await world.run(serving.stop());
});

Deno.test("Watch stays with the machine that answered, though the name has others", async () => {
  for (const scheme of ["ntp", "tcp"]) {
    const world = new World(first);
    const hosts = ["one", "two"].map((name, i) => world.host(name, { offset: i * 0.03 }));
    const servers = await Promise.all(
      hosts.map((host) =>
        world.run(serve({ hosts: [host.address], udpPort: 123, ...host.environment }))
      ),
    );
    const client = world.host("client");
    let asked = 0;
    const network = {
      ...client.network,
      // Each time in another order, as the names of pools do.
      resolve: () => Promise.resolve(asked++ % 2 === 0 ? ["one", "two"] : ["two", "one"]),
    };
    const watch = new Watch({ servers: [`${scheme}://pool`], ...client.environment, network });
    const addresses = new Set<string | null>();
    const news = new Set<string>();
    await world.run((async () => {
      let polls = 0;
      for await (const { fix, news: what } of watch) {
        addresses.add(fix.servers[0]!.address);
        news.add(what);
        client.resetConnections();
        if (++polls === 6) return;
      }
    })());
    assertEquals([addresses.size, [...news]], [1, ["first", "agrees"]], scheme);
    for (const server of servers) await world.run(server.stop());
  }
});

Deno.test("Watch looks a name up again when the machine that answered has gone", async () => {
  for (const scheme of ["ntp", "tcp"]) {
    const world = new World(first);
    const [one, two] = ["one", "two"].map((name) => world.host(name)) as [Host, Host];
    const servers = await Promise.all(
      [one, two].map((host) =>
        world.run(serve({ hosts: [host.address], udpPort: 123, ...host.environment }))
      ),
    );
    const client = world.host("client");
    client.names.set("name", ["one"]);
    world.at(100 * S, () => {
      one.dead = true;
      client.names.set("name", ["two"]);
    });
    const addresses: (string | null)[] = [];
    const watch = new Watch({ servers: [`${scheme}://name`], ...client.environment });
    await world.run((async () => {
      for await (const { fix } of watch) {
        addresses.push(fix.synchronised ? fix.servers[0]!.address : null);
        if (addresses.at(-1)?.startsWith("two")) return;
        assert(addresses.length < 100, `${scheme}: ${addresses}`);
      }
    })());
    for (const server of servers) await world.run(server.stop());
  }
});

Deno.test("Watch leaves a server alone that does not want to be asked", async () => {
  const world = new World(first);
  const server = world.host("server");
  const client = world.host("client");
  const serving = await world.run(serve({ hosts: ["server"], rate: 1, ...server.environment }));
  const updates: Update[] = [];
  const watching = (async () => {
    for await (const update of new Watch({ servers: ["server"], ...client.environment })) {
      updates.push(update);
      if (updates.length === 8) return;
    }
  })();
  await world.run(watching);
  // Four of 17 are answered, then comes a kiss: for a while nobody asks.
  assertEquals(updates.slice(0, 2).map(({ state }) => state), ["synchronised", "holdover"]);
  const kisses = serving.counters.refusals.rate;
  assert(kisses <= 1 + world.now / S / 64, `${kisses} kisses in ${world.now / S} s`);
  await world.run(serving.stop());
});

Deno.test("Watch asks an NTP server no more often because the clock is set all the time", async () => {
  const world = new World(first);
  const server = world.host("server");
  const client = world.host("client");
  const serving = await world.run(
    serve({ hosts: ["server"], udpPort: 123, ...server.environment }),
  );
  const stop = new AbortController();
  const watching = (async () => {
    const options = { servers: ["ntp://server"], signal: stop.signal, ...client.environment };
    for await (const _ of new Watch(options));
  })();
  const set = () => {
    client.clock.step(0.5);
    world.at(world.now + 3 * S, set);
  };
  world.at(10 * S, set);
  await world.sleep(300);
  stop.abort();
  await world.run(watching);
  assert(serving.counters.replies <= 160, `${serving.counters.replies} requests in 300 s`);
  await world.run(serving.stop());
});

Deno.test("Watch refuses what makes no sense", () => {
  for (const interval of [0, -1, NaN, 1e7]) {
    assertThrows(() => new Watch({ interval }), RangeError, "interval must be");
  }
  assertThrows(() => new Watch({ servers: [] }), RangeError);
  const often = { servers: ["ntp://server"], interval: 15 };
  assertThrows(() => new Watch(often), RangeError, "once in 16 s");
});

Deno.test("Watch goes on when no server can even be looked up", async () => {
  const world = new World(first);
  const client = world.host("client");
  const network = {
    ...client.network,
    resolve: () => Promise.reject(new TypeError("no network at all")),
  };
  const watch = new Watch({ servers: ["server"], ...client.environment, network });
  const { value } = await world.run(watch[Symbol.asyncIterator]().next());
  assertEquals([value!.state, value!.news], ["synchronising", "lost"]);
});

/** A clock that is told its time. */
function handClock() {
  const clock = {
    time: 5_000_000_000n,
    ahead: 1_795_342_503_000_000_000n,
    precision: 1e-9,
    monotonic: () => clock.time,
    realtime: () => clock.time + clock.ahead,
    state: () => null,
  };
  return clock;
}

Deno.test("OffsetTracker carries bounds on by what the frequency is and can be, and keeps what was better", () => {
  const second = 1_000_000_000n;
  const tracker = new OffsetTracker();
  const poll = (seconds: bigint, offset: bigint, bound: bigint) =>
    tracker.poll({ at: seconds * second, lower: offset - bound, upper: offset + bound });
  assertEquals(poll(0n, 0n, 10_000n), "first");
  assertEquals(poll(10n, 100_000n, 10_000n), "agrees");
  const { frequency, frequencyBound, frequencyRange } = tracker.estimate!;
  // What is likely is a little nearer to what it was likely to be before: 0.
  assertAlmostEquals(frequency, 10e-6, 0.01e-6);
  assertAlmostEquals(frequencyBound, 17e-6, 0.01e-6);
  assertAlmostEquals(frequencyRange.lower, -7e-6, 1e-12);
  assertAlmostEquals(frequencyRange.upper, 27e-6, 1e-12);
  const carried = carry(tracker.estimate!, 20n * second);
  // 2 ppm that are not known and 15 ppm that it can change by, for 10 s, each way.
  const near = (value: bigint, expected: bigint) =>
    assert(value - expected <= 2n && expected - value <= 2n, `${value}, not ${expected}`);
  assertAlmostEquals(Number(carried.offset), 200_000, 100);
  near(carried.lower, 20_000n);
  near(carried.upper, 380_000n);
  // A poll that says less takes nothing back.
  assertEquals(poll(20n, 200_000n, 1_000_000n), "agrees");
  const { lower, upper } = tracker.estimate!;
  near(lower, 20_000n);
  near(upper, 380_000n);
  const outside = { at: 21n * second, lower: 500_000n, upper: 600_000n };
  assertEquals(tracker.poll(outside), "step");
  assertEquals([tracker.estimate!.lower, tracker.estimate!.upper], [500_000n, 600_000n]);
});

Deno.test("OffsetTracker presumes nothing of the frequency but that it is within 15 ppm of what it last was", () => {
  const tracker = new OffsetTracker();
  let offset = 0;
  const poll = (ppm: number) => {
    offset += ppm * 1e3 * 64;
    const at = BigInt(polls++ * 64) * 1_000_000_000n;
    const middle = BigInt(Math.round(offset));
    return tracker.poll({ at, lower: middle - 100_000n, upper: middle + 100_000n });
  };
  let polls = 0;
  for (let i = 0; i < 50; i++) poll(0);
  const { frequency, frequencyBound } = tracker.estimate!;
  // What two polls 64 s apart leave: 200 µs in 64 s, each way.
  assertAlmostEquals(frequency, 0, 1e-9);
  assertAlmostEquals(frequencyBound, 15e-6 + 200e-6 / 64, 1e-9);
  // Too little to be seen in one poll, and in the bounds all the same, with 14 ppm more to come.
  assertEquals(poll(2), "agrees");
  const after = tracker.estimate!;
  assert(Math.abs(16e-6 - after.frequency) <= after.frequencyBound);
});

Deno.test("OffsetTracker goes by the last two polls when the frequency has changed by more than it presumes", () => {
  const tracker = new OffsetTracker();
  const poll = (seconds: number, milliseconds: number) => {
    const middle = BigInt(milliseconds) * 1_000_000n;
    const at = BigInt(seconds) * 1_000_000_000n;
    return tracker.poll({ at, lower: middle - 1_000_000n, upper: middle + 1_000_000n });
  };
  for (let seconds = 0; seconds <= 6400; seconds += 64) poll(seconds, 0);
  // 25 ppm, give or take 5.
  assert(poll(6800, 10) !== "step");
  assert(tracker.estimate!.frequency >= 20e-6, `${tracker.estimate!.frequency}`);
});

const estimate = {
  at: 5_000_000_000n,
  offset: 1000n,
  lower: -9000n,
  upper: 11_000n,
  frequency: 20e-6,
  frequencyBound: 16e-6,
  frequencyRange: { lower: 4e-6, upper: 36e-6 },
};

Deno.test("SyncedClock goes on with the frequency, and its bounds grow", () => {
  const clock = handClock();
  const synced = new SyncedClock(clock);
  assertEquals(synced.now(), null, "nobody has said what the time is");
  synced.set(estimate);
  assertEquals(synced.now(), {
    time: 5_000_001_000n,
    earliest: 4_999_991_000n,
    latest: 5_000_011_000n,
  });
  clock.time += 1_000_000_000n;
  const { time, earliest, latest } = synced.now()!;
  assertEquals(time, 6_000_001_000n + 20_000n);
  // 20 ppm, give or take 16.
  assertEquals([time - earliest, latest - time], [10_000n + 16_000n, 10_000n + 16_000n]);
});

Deno.test("SyncedClock does not go backward, unless it may", () => {
  const synced = new SyncedClock(handClock());
  synced.set(estimate);
  const { time } = synced.now()!;
  synced.set({ ...estimate, offset: -5000n, lower: -9000n, upper: -1000n });
  const held = synced.now()!;
  assertEquals(held.time, time);
  assert(held.earliest <= time && held.latest >= time, "its bounds still hold it");
  assertEquals(synced.now(true)!.time, time - 6000n);
});

Deno.test("SyncedClock is not valid from the moment that the local clock is set or has slept", () => {
  const clock = handClock();
  const synced = new SyncedClock(clock);
  synced.set(estimate);
  clock.ahead += 5_000_000n;
  assertEquals(synced.now(), null);
  assertEquals(synced.check(), false);
  assertEquals(synced.check(), true);
  assertEquals(synced.now(), null, "nobody has said what the time is");
  synced.set(estimate);
  assert(synced.now() !== null);
});

Deno.test("compareTimes() tells what came first, if that can be told", () => {
  const at = (earliest: bigint, latest: bigint): SyncedTime => (
    { time: (earliest + latest) / 2n, earliest, latest }
  );
  assertEquals(compareTimes(at(0n, 10n), at(11n, 20n)), "before");
  assertEquals(compareTimes(at(11n, 20n), at(0n, 10n)), "after");
  assertEquals(compareTimes(at(0n, 10n), at(10n, 20n)), null);
});

Deno.test("SyncedClock reads the real clock", () => {
  const clock = systemClock();
  const synced = new SyncedClock(clock);
  const { realtime, monotonic } = crossTimestamp(clock);
  const offset = realtime - monotonic;
  synced.set({ ...estimate, at: monotonic, offset, lower: offset, upper: offset });
  const before = clock.realtime();
  const { time } = synced.now()!;
  assert(time >= before - 1_000_000n && time <= clock.realtime() + 1_000_000n);
});
