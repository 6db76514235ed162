/**
 * The examples that README shows run as they stand, but for the server's name.
 *
 * @module
 */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { ServeProcess, SOURCE } from "../scripts/program.ts";

const readme = await Deno.readTextFile("README.md");
const examples = [...readme.matchAll(/```ts\n([^]*?)```/g)].map(([, code]) => code!);
const PRINTS = [
  /^-?[\d.e-]+ s ± [\d.e-]+ s\n$/,
  /^synchronised: \d{19} ns since 1970, \d{19} to \d{19}\n$/,
];

Deno.test("README has as many examples as are expected here", () => {
  assertEquals(examples.length, PRINTS.length);
});

for (const [i, code] of examples.entries()) {
  Deno.test(`README's example ${i + 1} runs`, async () => {
    await using server = await ServeProcess.start(SOURCE);
    assert(code.includes(`"time.example"`));
    const importMap = SOURCE.args.filter((arg) => arg.startsWith("--import-map"));
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--check", "-A", ...importMap, "-"],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const input = child.stdin.getWriter();
    await input.write(new TextEncoder().encode(code.replace("time.example", server.address)));
    await input.close();
    const { code: status, stdout, stderr } = await child.output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    assertEquals([status, text(stderr)], [0, ""]);
    assertMatch(text(stdout), PRINTS[i]!);
  });
}
