/**
 * The compiled program alone: in a root file system that holds nothing but it
 * and the libraries it is linked against, with no environment but `PATH`,
 * between two network namespaces, which have their addresses to themselves.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { compiled, type Program, run, ServeProcess } from "../scripts/program.ts";
import { namespacesObstacle, output, withNamespaces } from "./namespaces.ts";

/** Names of two joined network namespaces. */
interface Namespaces {
  readonly server: string;
  readonly client: string;
}

const SERVER = "10.85.0.1";
const CLIENT = "10.85.0.2";
const CLEAN = ["env", "-i", `PATH=${Deno.env.get("PATH")}`];

const program = compiled();
const obstacle = await findObstacle();
if (obstacle !== null) console.log(`standalone: all tests are skipped, ${obstacle}`);

for (const stamps of ["user", "kernel"]) {
  const flags = ["--timestamps", stamps];
  const name = `alone, stamped by ${stamps}: it serves and syncs between two namespaces`;
  Deno.test(
    { name, ignore: obstacle !== null },
    () =>
      withPair((namespaces) =>
        withRoot(async (root) => {
          const inside = (namespace: string): Program => ({
            name: "alone",
            executable: "ip",
            args: ["netns", "exec", namespace, ...CLEAN, "chroot", root, "/tsync"],
            flags,
          });
          const client = inside(namespaces.client);

          await using server = await ServeProcess.start(inside(namespaces.server), [
            ...["--udp", "--http", `${SERVER}:8080`],
          ]);
          assertEquals([server.transport, server.port], ["tcp", 10085]);
          for (const transport of ["udp", "http"]) {
            assertEquals((await server.nextEvent())!.transport, transport);
          }

          const tcp = await measure(client, `${SERVER}:10085`);
          assertEquals([tcp.transport, tcp.timestamps], ["tcp", stamps]);
          const udp = await measure(client, `ntp://${SERVER}`, "--samples", "1");
          assertEquals(udp.transport, "ntp");
          assertEquals(await get(namespaces.client, `http://${SERVER}:8080/healthz`), "ok\n");

          assertEquals((await server.stop()).code, 0);
        })
      ),
  );
}

/** Syncs, and sees to it that what comes out is right. @returns What it says of the server. */
async function measure(client: Program, ...args: string[]): Promise<Record<string, unknown>> {
  const { code, stdout, stderr } = await run(client, "sync", "--json", ...args);
  assertEquals(code, 0, stderr);
  const { synchronised, offset, error_bound, servers } = JSON.parse(stdout);
  assertEquals(synchronised, true);
  assert(Math.abs(offset) <= error_bound, stdout);
  return servers[0];
}

/** What Deno fetches in a namespace. */
function get(namespace: string, url: string): Promise<string> {
  const script = `await (await fetch("${url}")).body.pipeTo(Deno.stdout.writable)`;
  return output("ip", "netns", "exec", namespace, ...CLEAN, Deno.execPath(), "eval", script);
}

/** What keeps these tests from being run here. */
async function findObstacle(): Promise<string | null> {
  if (program === null) return "there is no compiled program";
  for (const name of ["ldd", "chroot"]) {
    try {
      await output("sh", "-c", `command -v ${name}`);
    } catch {
      return `${name} is not installed`;
    }
  }
  return await namespacesObstacle();
}

/** Two namespaces and a pair of interfaces, one in each. */
function withPair<T>(body: (namespaces: Namespaces) => Promise<T>): Promise<T> {
  return withNamespaces(2, async (server, client) => {
    const pair = ["type", "veth", "peer", "name", "veth", "netns", client];
    await output("ip", "-n", server, "link", "add", "veth", ...pair);
    for (const [namespace, address] of [[server, SERVER], [client, CLIENT]] as const) {
      await output("ip", "-n", namespace, "address", "add", `${address}/24`, "dev", "veth");
      await output("ip", "-n", namespace, "link", "set", "veth", "up");
    }
    return await body({ server, client });
  });
}

/** A folder that holds `/tsync` and what it is linked against, where that lies here. */
async function withRoot<T>(body: (root: string) => Promise<T>): Promise<T> {
  const { executable } = program!;
  const root = await Deno.makeTempDir();
  try {
    await Deno.copyFile(executable, `${root}/tsync`);
    for (const [library] of (await output("ldd", executable)).matchAll(/\/\S+/g)) {
      await Deno.mkdir(`${root}${library.replace(/\/[^/]*$/, "")}`, { recursive: true });
      await Deno.copyFile(library, `${root}${library}`);
    }
    // All that it wants of /proc: it looks into itself for what was compiled into it.
    await Deno.mkdir(`${root}/proc/self`, { recursive: true });
    await Deno.symlink("/tsync", `${root}/proc/self/exe`);
    return await body(root);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}
