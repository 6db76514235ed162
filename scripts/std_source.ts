/**
 * Prints the flag that makes `@std` come from the npm registry, if JSR cannot
 * be reached, and nothing if it can. For command substitution in tasks.
 *
 * @module
 */

/** Maps the names of `@std` to npm packages. The path is relative to the repository's top. */
export const NPM_FLAG = "--import-map=scripts/std_npm.json";

/** Does `@std` come from npm in the present process? Then it should in those that it starts. */
export function stdComesFromNpm(): boolean {
  return !import.meta.resolve("@std/assert").includes("jsr");
}

async function jsrAnswers(): Promise<boolean> {
  try {
    const url = "https://jsr.io/@std/assert/meta.json";
    const response = await fetch(url, { signal: AbortSignal.timeout(3000) });
    const { scope } = await response.json();
    return scope === "std";
  } catch {
    return false;
  }
}

if (import.meta.main && !await jsrAnswers()) console.log(NPM_FLAG);
