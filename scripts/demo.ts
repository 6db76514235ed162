/**
 * `deno task demo`: a server on loopback, a client that syncs to it, and
 * nothing left behind.
 *
 * @module
 */

import { compiled, run, ServeProcess, SOURCE } from "./program.ts";

const program = compiled() ?? SOURCE;
await using server = await ServeProcess.start(program);
console.log(
  `$ tsync serve --host 127.0.0.1 --port 0\nlistening on ${server.transport} ${server.address}\n`,
);
const fix = await run(program, "sync", server.address);
console.log(`$ tsync sync ${server.address}\n${fix.stdout}${fix.stderr}`);
const { code } = await server.stop();
console.log(`The server has stopped (exit status ${code}).`);
Deno.exitCode = fix.code || code;
