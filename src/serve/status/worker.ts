/**
 * The thread of the status page.
 *
 * @module
 */

import process from "node:process";
import { systemClock, systemTimers } from "../../clock/system_clock.ts";
import { hostOf } from "../../net/address.ts";
import { errorText } from "../../net/errors.ts";
import { systemNetwork } from "../../net/system.ts";
import { Admission } from "../admission.ts";
import { Figures } from "../counters.ts";
import { listen } from "../listen.ts";
import { STEP } from "./history.ts";
import { HttpServer } from "./http_server.ts";
import { Site } from "./site.ts";
import type { StatusMessage, StatusNews, StatusOrder } from "./status.ts";

// Deno's node:dns warns of a module that it uses itself.
Object.assign(process, { noDeprecation: true });

let site: Site | undefined;

async function start({ address, names, limits, figures, ...options }: StatusOrder): Promise<void> {
  const bind = (address: Parameters<typeof systemNetwork.listen>[0]) =>
    systemNetwork.listen(address);
  const listeners = await listen(systemNetwork, bind, [address.hostname], address.port, "--http");
  const clock = systemClock();
  const all = figures.map((shared) => new Figures(shared));
  const made = site = new Site(all, options, clock, () => {
    const { user, system } = process.cpuUsage();
    return { cpu: (user + system) / 1e6, residentMemory: Deno.memoryUsage().rss };
  });
  const sample = (): void => {
    made.sample();
    systemTimers.after(STEP, sample);
  };
  systemTimers.after(STEP, sample);
  new HttpServer(listeners, {
    admission: new Admission(limits),
    realtime: () => clock.realtime(),
    timers: systemTimers,
    names: new Set(["localhost", address.hostname, ...names].flatMap((name) => hostOf(name) ?? [])),
    respond: (path, arrived) => made.respond(path, arrived),
  });
  say({ addresses: listeners.map(({ address }) => address) });
}

/** This thread: Deno's types know of the main one only. */
const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<StatusOrder | StatusNews>) => void;
  postMessage(message: StatusMessage): void;
};

function say(message: StatusMessage): void {
  scope.postMessage(message);
}

scope.onmessage = ({ data }) => {
  if ("trouble" in data) {
    if (site !== undefined) site.trouble = data.trouble;
  } else start(data).catch((error) => say({ error: errorText(error) }));
};
