import { assertEquals } from "@std/assert";
import { compiled, run, ServeProcess, SOURCE } from "../scripts/program.ts";
import { sync } from "../src/mod.ts";
import { DelayProxy } from "./delay_proxy.ts";
import { exponential, Random } from "./simulation/random.ts";
import { SLOWNESS } from "./slowness.ts";
import "./libraries.ts";

const RUNS = Math.ceil(50 / SLOWNESS);
const SEED = Math.floor(Date.now() / 1000);
const delay = exponential(0.0005, 0.001);
const median = (numbers: number[]) => numbers.sort((a, b) => a - b)[numbers.length >> 1]!;
const micro = (seconds: number) => `${(seconds * 1e6).toFixed(0)} µs`;

Deno.test("over random delays, the bound of the real programs contains 0 every time", async () => {
  console.log(`seed ${SEED}`);
  const program = compiled() ?? SOURCE;
  await using server = await ServeProcess.start(program);
  await using proxy = new DelayProxy(server.port, delay, new Random(SEED));
  const outside: string[] = [];
  for (let i = 0; i < RUNS; i++) {
    const { code, stdout } = await run(program, "sync", "--json", proxy.address);
    assertEquals(code, 0);
    const { offset, error_bound } = JSON.parse(stdout);
    if (Math.abs(offset) > error_bound) outside.push(stdout);
  }
  assertEquals(outside, []);
});

Deno.test("over random delays, the error beside the minimum-delay filter's of the same exchanges", async () => {
  console.log(`seed ${SEED}`);
  await using server = await ServeProcess.start(SOURCE);
  await using proxy = new DelayProxy(server.port, delay, new Random(SEED));
  const errors: number[] = [];
  const filterErrors: number[] = [];
  for (let i = 0; i < RUNS; i++) {
    const { offset, errorBound, servers } = await sync({ servers: [proxy.address] });
    assertEquals(Math.abs(offset!) <= errorBound!, true, `${offset} s ± ${errorBound} s`);
    const { exchanges } = servers[0]!.figures!;
    const least = exchanges.reduce((a, b) => b.delay < a.delay ? b : a);
    errors.push(Math.abs(offset!));
    filterErrors.push(Math.abs(least.offset));
  }
  console.log(
    `median error of ${RUNS} runs: ${micro(median(errors))}, ` +
      `minimum-delay filter ${micro(median(filterErrors))}`,
  );
});
