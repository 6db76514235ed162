/**
 * What the environment says.
 *
 * @module
 */

import type { ServiceManager } from "./service_manager.ts";

/** A variable of the environment; `undefined` if it is empty, or may not be read. */
export function variable(name: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable: name });
  return state === "granted" && Deno.env.get(name) || undefined;
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
