/**
 * Every scenario with several seeds, and every row of the tables with many.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { FAR_ROWS, farLine, isAsPromised, runFar } from "./simulation/far.ts";
import { isPromised, ROWS, runRow, worldsFor } from "./simulation/table.ts";
import { SCENARIOS } from "./simulation/scenarios.ts";

const SEEDS = 25;

for (const { name, run } of SCENARIOS) {
  Deno.test(`simulated: ${name}`, async () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      try {
        await run(seed);
      } catch (error) {
        console.error(`seed ${seed}: deno task simulate --scenario "${name}" --seed ${seed}`);
        throw error;
      }
    }
  });
}

for (const row of ROWS) {
  Deno.test(`simulated: bounds hold and are narrow, ${row.name}`, async () => {
    const { outside, error, filterError, excess, filterExcess } = await runRow(row, 1000);
    assertEquals(outside, 0);
    if (!isPromised(row)) return;
    assert(error <= 0.4 * filterError, `error ${error} s, of the filter ${filterError} s`);
    assert(excess <= 0.4 * filterExcess, `excess ${excess} s, of the filter ${filterExcess} s`);
  });
}

for (const row of FAR_ROWS) {
  Deno.test(`simulated: bounds hold, and errors are as promised, ${row.name}`, async () => {
    const figures = await runFar(row, worldsFor(row, 100));
    assert(isAsPromised(row, figures), farLine(row, figures));
  });
}

Deno.test("simulated: the same seed gives the same run", async () => {
  const { burst } = await import("./simulation/burst.ts");
  const [row] = ROWS;
  assertEquals(await burst(5, row!.path), await burst(5, row!.path));
});
