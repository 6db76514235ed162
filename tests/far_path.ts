/**
 * A long path between two network namespaces: real sockets with real windows, which a program
 * delays, since the kernel here may not know how to.
 *
 * @module
 */

import { linesOf, type Program } from "../scripts/program.ts";
import { namespacesObstacle, output, withNamespaces } from "./namespaces.ts";

/** What a path does to packets. */
export interface PathOptions {
  /** Milliseconds each way. */
  readonly delay: number;
  /** Milliseconds beside, on average; exponential. Default 0. */
  readonly jitter?: number;
  /** The probability that a packet is lost. Default 0. */
  readonly loss?: number;
  /** What jitter and loss follow from. Default 1. */
  readonly seed?: number;
}

/** Both ends of a path. */
export interface FarPath {
  /** Namespaces. */
  readonly client: string;
  readonly server: string;
}

/** The server's address. */
export const FAR_ADDRESS = "10.85.0.1";

/** What keeps a path from being made here. */
export async function farPathObstacle(): Promise<string | null> {
  const obstacle = await namespacesObstacle();
  if (obstacle !== null) return obstacle;
  for (const [path, what] of [["/dev/net/tun", "TUN devices"], ["/usr/bin/cc", "a C compiler"]]) {
    if (await Deno.stat(path!).catch(() => null) === null) return `there are no ${what} here`;
  }
  return null;
}

/** Makes a path, and removes it when the body is over. */
export async function withFarPath<T>(
  { delay, jitter = 0, loss = 0, seed = 1 }: PathOptions,
  body: (path: FarPath) => Promise<T>,
): Promise<T> {
  const directory = await Deno.makeTempDir();
  try {
    await output("cc", "-O2", "-o", `${directory}/path`, "tests/fixtures/path.c", "-lm");
    return await withNamespaces(2, async (client, server) => {
      const unique = client!.slice(6, 14);
      const devices = [`far${unique}c`, `far${unique}s`];
      const child = new Deno.Command(`${directory}/path`, {
        args: [...devices, ...[delay, jitter, loss, seed].map(String)],
        stdin: "piped",
        stdout: "piped",
      }).spawn();
      const lines = linesOf(child.stdout);
      try {
        if ((await lines.next()).done) throw new Error("the path could not be made");
        await join(client!, devices[0]!, "10.85.0.2", FAR_ADDRESS);
        await join(server!, devices[1]!, FAR_ADDRESS, "10.85.0.2");
        return await body({ client: client!, server: server! });
      } finally {
        await child.stdin.close();
        await lines.return(undefined);
        await child.status;
      }
    });
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function join(namespace: string, device: string, own: string, peer: string): Promise<void> {
  await output("ip", "link", "set", device, "netns", namespace);
  const ip = (...args: string[]) => output("ip", "-n", namespace, ...args);
  await ip("link", "set", "lo", "up");
  await ip("address", "add", own, "peer", peer, "dev", device);
  await ip("link", "set", device, "up");
}

/** The same program, but in a namespace. */
export function within(namespace: string, program: Program): Program {
  const { executable, args } = program;
  return {
    ...program,
    executable: "ip",
    args: ["netns", "exec", namespace, executable, ...args],
  };
}
