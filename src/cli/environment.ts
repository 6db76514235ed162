/**
 * What the environment says.
 *
 * @module
 */

import type { SyncOptions } from "../mod.ts";
import { parseProxy } from "../net/address.ts";
import { UsageError } from "./args.ts";
import type { ServiceManager } from "./service_manager.ts";

/** A variable of the environment; `undefined` if it is empty, or may not be read. */
export function variable(name: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable: name });
  return state === "granted" && Deno.env.get(name) || undefined;
}

/** What no proxy of the environment is asked for: to it, these would be itself. */
const HERE = ["localhost", "127.0.0.1", "::1"];

/**
 * The proxy that the environment names in `HTTPS_PROXY` or `https_proxy`, and what `NO_PROXY` or
 * `no_proxy` excepts.
 *
 * @throws {UsageError} if there is something else in it.
 */
export function proxyOfEnvironment(): Pick<SyncOptions, "proxy" | "noProxy"> {
  for (const name of ["HTTPS_PROXY", "https_proxy"]) {
    const proxy = variable(name);
    if (proxy === undefined) continue;
    try {
      parseProxy(proxy);
    } catch (error) {
      throw new UsageError(`${name}: ${(error as Error).message}`, "sync");
    }
    const exceptions = variable("NO_PROXY") ?? variable("no_proxy") ?? "";
    return { proxy, noProxy: [...HERE, ...exceptions.split(/[\s,]+/)] };
  }
  return {};
}

/**
 * The service manager that wants to be told how the service is, if there is one.
 *
 * @param onFailure Called once, with a sentence, if it cannot be told.
 */
export async function serviceManager(
  onFailure: (sentence: string) => void,
): Promise<ServiceManager | null> {
  const socket = variable("NOTIFY_SOCKET");
  if (socket === undefined) return null;
  const { ServiceManager, watchdogInterval } = await import("./service_manager.ts");
  const interval = watchdogInterval(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"));
  return new ServiceManager(socket, interval, onFailure);
}
