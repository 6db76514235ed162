/**
 * The program: finds out what is asked, has it done, and exits.
 *
 * @module
 */

import process from "node:process";
import { EXIT, helpText, parseCommandLine, UsageError, VERSION } from "./src/cli/args.ts";
import { runServe } from "./src/cli/serve.ts";
import { runSync } from "./src/cli/sync.ts";

async function run(args: readonly string[]): Promise<number> {
  try {
    const parsed = parseCommandLine(args);
    switch (parsed.command) {
      case "help":
        console.log(helpText(parsed.about));
        return EXIT.ok;
      case "version":
        console.log(`tsync ${VERSION}`);
        return EXIT.ok;
      case "serve":
        return await runServe(parsed);
      case "sync":
        return await runSync(parsed);
    }
  } catch (error) {
    console.error(`tsync: ${error instanceof Error ? error.message : error}`);
    if (!(error instanceof UsageError)) return EXIT.failure;
    console.error(
      error.command === undefined
        ? `\n${helpText(undefined)}`
        : `See \`tsync ${error.command} --help\`.`,
    );
    return EXIT.usage;
  }
}

// Deno's node:dns warns of a module that it uses itself.
Object.assign(process, { noDeprecation: true });

if (import.meta.main) Deno.exit(await run(Deno.args));
