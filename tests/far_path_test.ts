import { assert, assertEquals } from "@std/assert";
import { compiled, type Program, run, ServeProcess, SOURCE } from "../scripts/program.ts";
import { FAR_ADDRESS, farPathObstacle, type PathOptions, withFarPath, within } from "./far_path.ts";
import { PATIENCE } from "./slowness.ts";
import "./libraries.ts";

const SEED = Math.floor(Date.now() / 1000);

/** What `tsync sync --json` says of one server at the far end, again and again. */
async function fixes(runs: number, path: PathOptions, ...args: string[]) {
  const program: Program = compiled() ?? SOURCE;
  return await withFarPath({ ...path, seed: SEED }, async ({ client, server }) => {
    const serving = within(server, program);
    await using _ = await ServeProcess.start(serving, ["--host", FAR_ADDRESS]);
    const all: { offset: number; error_bound: number; samples: number }[] = [];
    for (let i = 0; i < runs; i++) {
      const asking = within(client, program);
      const { stdout, stderr } = await run(asking, "sync", FAR_ADDRESS, "--json", ...args);
      const { offset, error_bound, servers: [{ samples }] } = JSON.parse(stdout);
      assert(Math.abs(offset) <= error_bound, `${stdout}${stderr}`);
      all.push({ offset, error_bound, samples });
    }
    return all;
  });
}

function testOver(name: string, body: () => Promise<void>): void {
  Deno.test(`over a long path, ${name}`, async () => {
    const obstacle = await farPathObstacle();
    if (obstacle !== null) return console.log(`not tried: ${obstacle}`);
    console.log(`seed ${SEED}`);
    await body();
  });
}

testOver("of 600 ms there and back, there is time for all exchanges", async () => {
  // One after another there would be time for nineteen.
  for (const { samples } of await fixes(2, { delay: 300 }, "--timeout", "12")) {
    assert(samples >= 32, `${samples} exchanges`);
  }
});

testOver("no more exchanges are made than --samples says", async () => {
  const [fix] = await fixes(1, { delay: 50 }, "--samples", "20", "--timeout", PATIENCE);
  assertEquals(fix!.samples, 20);
});

testOver("jitter and a loss of 2 % leave the bound true", async () => {
  for (
    const { samples } of await fixes(5, { delay: 50, jitter: 5, loss: 0.02 }, "--timeout", PATIENCE)
  ) {
    assert(samples >= 16, `${samples} exchanges`);
  }
});
