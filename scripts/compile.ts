/**
 * Makes standalone programs: `deno task compile [--target TARGET]...`
 *
 * Each goes to `dist/tsync-TARGET`, with only the permissions that tsync needs.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import config from "../deno.json" with { type: "json" };
import { RUNTIME_FLAGS } from "./program.ts";
import { NPM_FLAG, stdComesFromNpm } from "./std_source.ts";

/** Every target that a release has. */
const TARGETS = [
  "x86_64-unknown-linux-gnu",
  "aarch64-unknown-linux-gnu",
  "x86_64-apple-darwin",
  "aarch64-apple-darwin",
];

const { target: asked } = parseArgs(Deno.args, {
  string: ["target"],
  collect: ["target"],
  unknown: (arg: string) => fail(`unknown argument ${arg}: expected --target TARGET`),
}) as { target: string[] };
for (const target of asked) {
  if (!TARGETS.includes(target)) {
    fail(`unknown target "${target}": expected ${TARGETS.join(", ")}`);
  }
}
const targets = asked.length > 0 ? asked : TARGETS;
const failed: string[] = [];
for (const target of targets) {
  if (await compile(target)) console.log(`made ${outputOf(target)}`);
  else failed.push(target);
}
if (failed.length > 0) {
  fail(
    `cannot compile for ${
      failed.join(", ")
    }: if the runtime could not be downloaded (see above), ` +
      "choose targets with --target, or set DENORT_BIN to a runtime for this machine's own",
  );
}

async function compile(target: string): Promise<boolean> {
  // DENORT_BIN names a runtime of one kind, this machine's: other targets cannot be made of it.
  const env = Deno.env.toObject();
  if (target !== Deno.build.target) delete env["DENORT_BIN"];
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: [
      "compile",
      ...stdComesFromNpm() ? [NPM_FLAG] : [],
      ...config.unstable.map((feature) => `--unstable-${feature}`),
      ...RUNTIME_FLAGS,
      `--target=${target}`,
      "--include=src/serve/worker.ts",
      "--include=src/serve/status/worker.ts",
      `--output=${outputOf(target)}`,
      "main.ts",
    ],
    env,
    clearEnv: true,
    stdout: "inherit",
    stderr: "inherit",
  }).output();
  return success && await runs(target);
}

/** A compilation can succeed and the program still not start: one for this machine is tried. */
async function runs(target: string): Promise<boolean> {
  if (target !== Deno.build.target) return true;
  const { success } = await new Deno.Command(outputOf(target), { args: ["--version"] }).output();
  if (success) return true;
  console.error(`${outputOf(target)} was made but does not start: it is removed`);
  await Deno.remove(outputOf(target));
  return false;
}

function outputOf(target: string): string {
  return `dist/tsync-${target}`;
}

function fail(message: string): never {
  console.error(`compile: ${message}`);
  Deno.exit(1);
}
