/**
 * Time that is kept while all that can go wrong does. `deno task keep --row adversity --seeds N`
 * does the same for more seeds, and `--seed N` tells what happened.
 *
 * Replay: WATCH_SEED=N deno task test --filter adversity
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { survive } from "./simulation/adversity.ts";

const SEEDS = 200;
const first = Number(Deno.env.get("WATCH_SEED") ?? Date.now() % 2 ** 31);
console.log(`adversity: seeds from ${first}`);

Deno.test("adversity: no liar is followed, and the truth is never outside the bounds", async () => {
  for (let seed = first; seed < first + SEEDS; seed++) {
    const { outside, followed, log } = await survive(seed);
    assertEquals([outside, followed], [0, 0], `seed ${seed}\n${log.join("\n")}`);
  }
});
