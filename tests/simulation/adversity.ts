/**
 * All that can go wrong at once: servers that lie, die and come back, delays in
 * one direction, a client that is suspended and whose clock is set and slewed.
 * The product's own code keeps time through it.
 *
 * @module
 */

import { Corrector, serve, Watch } from "../../src/mod.ts";
import { SimulatedKernel } from "./kernel.ts";
import { exponential } from "./random.ts";
import { type Host, S, trueOffset, World } from "./world.ts";

/** Seconds that are simulated. */
const LENGTH = 1000;

/** How it went. */
export interface Survived {
  /** Looks at the clock when it was valid, and fixes. */
  readonly looks: number;
  /** Those that found the truth outside the bounds. */
  readonly outside: number;
  /** Of these, those that were off by as much as only liars are. */
  readonly followed: number;
  /** What happened, for whoever replays it. */
  readonly log: readonly string[];
}

/** Seconds that a liar is off at least, and more than any honest error here. */
const LIE = 1;

/** Keeps time for a while. */
export async function survive(seed: number): Promise<Survived> {
  const world = new World(seed);
  const random = world.random.fork();
  const between = (least: number, most: number) => least + (most - least) * random.uniform();
  const either = (value: number) => random.uniform() < 0.5 ? value : -value;
  const log: string[] = [];
  const note = (what: string) => log.push(`${(world.now / S).toFixed(1)} s: ${what}`);

  const count = random.pick([3, 3, 5]);
  const liars = 1 + Math.floor(random.uniform() * ((count - 1) / 2));
  /** A liar whose interval overlaps the others' cannot be told from them, so none comes near. */
  const lie = () => either(between(2 * LIE, 5 * LIE));
  const lies = Array.from({ length: liars }, lie);
  const servers = Array.from({ length: count }, (_, i) => {
    const offset = lies[i];
    const host = world.host(`${offset === undefined ? "good" : "liar"}${i}`, {
      offset: offset ?? 0,
      frequency: offset === undefined ? 0 : between(-200, 200),
    });
    const [base, noise] = [between(1e-4, 2e-2), between(1e-4, 5e-3)];
    host.path = { out: exponential(base, noise), back: exponential(base, noise) };
    return host;
  });
  const truth = servers.at(-1)!;
  const frequency = between(-80, 80);
  const client = world.host("client", { offset: either(3), frequency, wander: 1e-9 });
  const serving = await Promise.all(
    servers.map((host) => world.run(serve({ hosts: [host.address], ...host.environment }))),
  );

  let [looks, outside, followed] = [0, 0, 0];
  const judge = (what: string, error: number, bound: number) => {
    looks++;
    // A nanosecond is lost where the truth is rounded.
    if (Math.abs(error) <= bound + 2e-9) return;
    outside++;
    if (Math.abs(error) > LIE / 2) followed++;
    note(`${what}: ${error} s ± ${bound} s`);
  };
  /** Seconds that the client's clock is behind. */
  const behind = () => Number(trueOffset(truth.clock.exact(), client.clock.exact())) / 1e9;
  const kernel = new SimulatedKernel(world, client.clock);
  const corrector = random.uniform() < 0.5 ? new Corrector(kernel) : undefined;
  const stop = new AbortController();
  const watch = new Watch({
    servers: servers.map(({ address }) => address),
    timeout: 2,
    signal: stop.signal,
    corrector,
    ...client.environment,
  });
  const watching = (async () => {
    for await (const { fix, news, correction } of watch) {
      if (news !== "agrees") note(news);
      if (!fix.synchronised) continue;
      const corrected = correction?.action === "step" ? correction.offset : 0;
      judge("fix", behind() + corrected - fix.offset!, fix.errorBound!);
      // What the kernel has just been told.
      const error = correction === null ? null : kernel.told!.error;
      if (error !== null) judge("system clock", behind(), error.maximum);
    }
  })();

  let asleepUntil = 0;
  const happenings: (() => void)[] = [
    () => {
      const by = either(between(0.05, 4));
      note(`somebody sets the clock by ${by} s`);
      client.clock.step(by);
    },
    () => {
      const seconds = between(5, 120);
      note(`the client sleeps ${seconds} s`);
      asleepUntil = world.now + seconds * S;
      client.suspend(seconds);
    },
    () => {
      note("the clock is slewed");
      kernel.disturb(either(500));
      world.at(world.now + between(5, 100) * S, () => kernel.disturb(0));
    },
    () => {
      // Any two are within 15 ppm of each other, as is promised.
      const ppm = frequency + between(-7, 7);
      note(`${ppm} ppm`);
      client.clock.setFrequency(ppm);
    },
    () => client.stall(between(0.1, 3)),
    () => random.pick(servers).resetConnections(),
    () => {
      const host = random.pick(servers);
      const seconds = between(10, 300);
      note(`${host.address} is dead for ${seconds} s`);
      host.dead = true;
      world.at(world.now + seconds * S, () => host.dead = false);
    },
    () => {
      note("the good servers are dead for a while");
      const good = servers.slice(liars);
      for (const host of good) host.dead = true;
      world.at(world.now + between(30, 300) * S, () => good.forEach((host) => host.dead = false));
    },
    () => {
      const host = random.pick(servers);
      const { path } = host;
      const way = random.pick(["out", "back"] as const);
      const more = between(0.01, 0.3);
      note(`${way} of ${host.address} is ${more} s longer`);
      host.path = { ...path, [way]: (from: typeof random) => path[way](from) + more };
      world.at(world.now + between(10, 200) * S, () => host.path = path);
    },
    () => {
      const which = Math.floor(random.uniform() * liars);
      const before = lies[which]!;
      servers[which]!.clock.step((lies[which] = lie()) - before);
    },
  ];
  for (let at = between(10, 200); at < LENGTH; at += between(5, 200)) {
    world.at(at * S, () => random.pick(happenings)());
  }
  const look = () => {
    const shown = world.now < asleepUntil ? null : watch.clock.now(true);
    if (shown !== null) {
      const { start, count } = truth.clock.exact();
      const now = start + BigInt(Math.round(count));
      const middle = (shown.earliest + shown.latest) / 2n;
      const bound = Number(shown.latest - shown.earliest) / 2e9;
      judge("kept clock", Number(now - middle) / 1e9, bound);
    }
    world.at(world.now + between(0.5, 1.5) * S, look);
  };
  world.at(S, look);
  await world.sleep(LENGTH);
  stop.abort();
  await world.run(watching);
  servers.forEach((host: Host) => host.dead = false);
  for (const server of serving) await world.run(server.stop());
  return { looks, outside, followed, log };
}
