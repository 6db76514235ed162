/**
 * Modules of Node's that Deno has. To import them takes 4 ms at each start,
 * whether they are used or not, so they are asked for when they are needed.
 *
 * @module
 */

// deno-lint-ignore-file no-process-global -- importing it would be what is avoided here

/** Addresses of names. */
export function dns(): typeof import("node:dns/promises") {
  return process.getBuiltinModule("node:dns/promises");
}

/** What the process has used: seconds of processor time, and bytes of memory that are resident. */
export function processUsage(): { readonly cpu: number; readonly residentMemory: number } {
  const { user, system } = process.cpuUsage();
  return { cpu: (user + system) / 1e6, residentMemory: Deno.memoryUsage().rss };
}

/** IP addresses and prefixes. */
export function net(): typeof import("node:net") {
  return process.getBuiltinModule("node:net");
}
