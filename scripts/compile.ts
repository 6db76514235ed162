/**
 * Makes standalone programs: `deno task compile [--target TARGET]...`
 *
 * Each goes to `dist/tsync-TARGET`, with only the permissions that tsync needs.
 * It is made of few files, of which a command reads those that it needs: that
 * starts in two thirds of the time that seventy modules take. And it keeps no cache of
 * code: Deno would read that from a file in the shared temporary folder, the
 * name of which anybody can foresee, and so plant what others execute.
 *
 * The same sources, Deno and runtime make the same bytes.
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
// npm's @std is published by somebody else than JSR's: a release may not get it by a network's mishap.
if (Deno.env.has("GITHUB_ACTIONS") && stdComesFromNpm()) {
  fail("cannot compile a release with @std from npm: JSR did not answer; run the job again");
}
const targets = asked.length > 0 ? asked : TARGETS;
const failed: string[] = [];
const bundles = await Deno.makeTempDir();
let problem: string | null = null;
try {
  await bundle("--code-splitting", `--outdir=${bundles}`, "main.ts");
  // The program records when its files were changed: always at one moment, or no two would be alike.
  for await (const { name } of Deno.readDir(bundles)) await Deno.utime(`${bundles}/${name}`, 0, 0);
  for (const target of targets) {
    if (await compile(target)) console.log(`made ${outputOf(target)}`);
    else failed.push(target);
  }
} catch (error) {
  problem = (error as Error).message;
} finally {
  await Deno.remove(bundles, { recursive: true });
}
if (problem !== null) fail(problem);
if (failed.length > 0) {
  fail(
    `cannot compile for ${
      failed.join(", ")
    }: if the runtime could not be downloaded (see above), ` +
      "choose targets with --target, or set DENORT_BIN to a runtime for this machine's own",
  );
}

async function bundle(...args: string[]): Promise<void> {
  const map = stdComesFromNpm() ? [NPM_FLAG] : [];
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: ["bundle", "--quiet", ...map, "--minify", ...args],
    stderr: "inherit",
  }).output();
  if (!success) throw new Error(`cannot bundle ${args.at(-1)} (see above)`);
}

async function compile(target: string): Promise<boolean> {
  // DENORT_BIN names a runtime of one kind, this machine's: other targets cannot be made of it.
  const env = Deno.env.toObject();
  if (target !== Deno.build.target) delete env["DENORT_BIN"];
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: [
      "compile",
      "--no-code-cache",
      ...config.unstable.map((feature) => `--unstable-${feature}`),
      ...RUNTIME_FLAGS,
      `--target=${target}`,
      `--output=${outputOf(target)}`,
      `${bundles}/main.js`,
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
