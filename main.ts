/**
 * The program: finds out what is asked, has it done, and exits.
 *
 * @module
 */

import { parseCommandLine, UsageError } from "./src/cli/args.ts";
import { EXIT, helpText, VERSION } from "./src/cli/flags.ts";
import { sentenceOf } from "./src/cli/hints.ts";

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
        return await (await import("./src/cli/serve_command.ts")).runServe(parsed);
      case "sync":
        return await (await import("./src/cli/sync_command.ts")).runSync(parsed);
    }
  } catch (error) {
    console.error(`tsync: ${sentenceOf(error)}`);
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
// deno-lint-ignore no-process-global -- importing it takes 4 ms at each start
Object.assign(process, { noDeprecation: true });

if (import.meta.main) Deno.exit(await run(Deno.args));
