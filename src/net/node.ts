/**
 * Node's modules, loaded on first use: importing them would add 4 ms to every
 * start.
 *
 * @module
 */

// deno-lint-ignore-file no-process-global -- importing it would take those 4 ms

export function dns(): typeof import("node:dns/promises") {
  return process.getBuiltinModule("node:dns/promises");
}

/** What this process has used so far: processor time, and bytes in RAM. */
export function processUsage(): { cpuSeconds: number; residentMemory: number } {
  const { user, system } = process.cpuUsage();
  return { cpuSeconds: (user + system) / 1e6, residentMemory: Deno.memoryUsage().rss };
}

export function net(): typeof import("node:net") {
  return process.getBuiltinModule("node:net");
}
