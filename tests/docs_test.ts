/**
 * What the documentation says: its links lead somewhere, its commands are
 * ones, what is generated is up to date, and the messages that it explains are
 * the program's.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import config from "../deno.json" with { type: "json" };
import { generated } from "../scripts/generate.ts";
import { howToInstall, releaseNotes } from "../scripts/release_notes.ts";
import { parseCommandLine } from "../src/cli/args.ts";
import { COMMANDS, dashed } from "../src/cli/flags.ts";
import { parseKeys } from "../src/ntp/keys.ts";

const files = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
for (const { name } of Deno.readDirSync("docs")) {
  if (name.endsWith(".md")) files.push(`docs/${name}`);
}
const texts = new Map(files.map((file) => [file, Deno.readTextFileSync(file)]));

const PAGES = ["releases/latest", "security/advisories/new"];

/** The anchors that GitHub makes of a text's headings. */
function anchors(text: string): Set<string> {
  const headings = text.replaceAll(/^```[^]*?^```/gm, "").matchAll(/^#+ (.*)$/gm);
  return new Set(
    [...headings].map(([, heading]) =>
      heading!.toLowerCase().replaceAll(/[^\p{L}\p{N} _-]/gu, "").replaceAll(" ", "-")
    ),
  );
}

Deno.test("links lead to files and headings that exist", () => {
  const broken: string[] = [];
  for (const [file, text] of texts) {
    for (const [, target] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target!)) continue;
      // Pages of the repository that shows the text, on GitHub: below OWNER/NAME, as the text itself
      // is below OWNER/NAME/blob/BRANCH.
      const top = "../".repeat(file.split("/").length + 1);
      if (PAGES.some((page) => target === top + page)) continue;
      const [path, anchor] = target!.split("#") as [string, string?];
      const resolved = path === "" ? file : new URL(path, `file:///${file}`).pathname.slice(1);
      try {
        Deno.statSync(resolved);
      } catch {
        broken.push(`${file}: ${target}`);
        continue;
      }
      if (anchor === undefined) continue;
      if (!anchors(Deno.readTextFileSync(resolved)).has(anchor)) broken.push(`${file}: ${target}`);
    }
  }
  assertEquals(broken, []);
});

Deno.test("what is shown as a command of tsync is one", () => {
  let seen = 0;
  for (const [file, text] of texts) {
    const blocks = [...text.matchAll(/^ *```(?:sh|console)\n([^]*?)^ *```/gm)].map(([, block]) =>
      block!
    );
    const inline = [...text.matchAll(/`(tsync (?:serve|sync) [^`\n]+)`/g)].map(([, code]) => code!);
    for (const line of [...blocks.flatMap((block) => block.split("\n")), ...inline]) {
      const command = /^(?:\$ |sudo )*(?:\.\/)?tsync ((?:serve|sync|--)[^#|>&]*)/.exec(line.trim())
        ?.[1];
      if (command === undefined || /["\[]|\.\.\.|ARGS/.test(command)) continue;
      const args = command.trim().split(/\s+/).map((arg) => arg.replace(/^S$|^N$/, "1"));
      try {
        parseCommandLine(args);
      } catch (error) {
        throw new Error(`${file}: tsync ${command}: ${(error as Error).message}`);
      }
      seen++;
    }
  }
  assert(seen > 40, `only ${seen} commands were found`);
});

Deno.test("the key file that is shown is one, and the types that are named are all", () => {
  const text = texts.get("docs/keys.md")!;
  const [, file] = /^```\n(# ID TYPE KEY\n[^]*?)^```/m.exec(text)!;
  using keys = parseKeys(new TextEncoder().encode(file));
  assertEquals([...keys.keys()], [10, 11]);
  const wrong = new TextEncoder().encode("1 NONE a");
  const { message } = assertThrows(() => parseKeys(wrong), SyntaxError);
  const types: string[] = message.split("one of ")[1]!.split(", ");
  const rows = text.split("\n").filter((line) => line.startsWith("| `"));
  const named = rows.flatMap((row) => [...row.matchAll(/`([^`]+)`/g)].map(([, name]) => name!));
  const isNamed = (type: string) => named.includes(type.replace(/^SHA3-.*/, "SHA3-..."));
  assertEquals(types.filter((type) => !isNamed(type)), []);
  assertEquals(named.length, types.filter((type) => !type.startsWith("SHA3-")).length + 1);
});

Deno.test("every flag is in the reference, and the generated files are up to date", async () => {
  for (const [path, content] of await generated()) {
    assertEquals(await Deno.readTextFile(path), content, `${path}: run deno task generate`);
  }
  const reference = texts.get("docs/commands.md")!;
  for (const { flags } of Object.values(COMMANDS)) {
    for (const { name } of flags) assert(reference.includes(`  ${dashed(name)}`));
  }
});

Deno.test("the messages that are explained are the program's", () => {
  let source = "";
  const read = (directory: string) => {
    for (const { name, isDirectory } of Deno.readDirSync(directory)) {
      if (isDirectory) read(`${directory}/${name}`);
      else if (name.endsWith(".ts")) source += Deno.readTextFileSync(`${directory}/${name}`);
    }
  };
  read("src");
  // As if each message were written on one line, with what is inserted left out.
  const said = source.replaceAll(/["`] ?\+\s+["`]/g, "").replaceAll(/\\?`/g, "");
  const others = ["Bad system call", "no /proc/self/exe available"];
  const explained = texts.get("docs/troubleshooting.md")! + texts.get("docs/chrony.md")!;
  const messages = [...explained.matchAll(/\*\*`([^`]+)`\*\*/g)];
  assert(messages.length > 30);
  for (const [, message] of messages) {
    if (others.includes(message!)) continue;
    assert(said.includes(message!), `"${message}" is said nowhere`);
  }
});

/** What a shell offers after some words. */
async function offered(shell: string, script: string): Promise<string[] | null> {
  try {
    const { stdout, stderr, success } = await new Deno.Command(shell, { args: ["-c", script] })
      .output();
    const text = new TextDecoder();
    assert(success, text.decode(stderr));
    return text.decode(stdout).split("\n").filter((line) => line !== "");
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    console.log(`${shell} is not here: its completions are not tried`);
    return null;
  }
}

for (const command of ["serve", "sync"] as const) {
  const all = COMMANDS[command].flags.map(({ name }) => dashed(name));

  Deno.test(`completions of tsync ${command}: bash offers the flags that exist`, async () => {
    const after = (...words: string[]) =>
      offered(
        "bash",
        `source scripts/completions/tsync.bash; COMP_WORDS=(tsync ${
          words.map((word) => `'${word}'`).join(" ")
        });
        COMP_CWORD=${words.length}; _tsync; printf '%s\\n' "\${COMPREPLY[@]}"`,
      );
    const flags = await after(command, "-");
    if (flags === null) return;
    assertEquals(flags.toSorted(), all.toSorted());
    assertEquals(await after(command.slice(0, 2)), [command]);
    if (command === "sync") {
      assertEquals(await after("sync", "--ca", "LIC"), ["LICENSE"]);
      return assertEquals(await after("sync", "--ca", "=", "LIC"), ["LICENSE"]);
    }
    assertEquals(await after("serve", "--log", "=", "j"), ["json"]);
    assertEquals(await after("serve", "--log", "="), ["json", "text"]);
    assertEquals(await after("serve", "--log", ""), ["json", "text"]);
    assertEquals(await after("serve", "--port", ""), []);
  });

  Deno.test(`completions of tsync ${command}: zsh offers the flags that exist`, async () => {
    const specs = await offered(
      "zsh",
      // What the file asks of zsh, without a terminal to ask it in.
      `_arguments() { print -rl -- "$@" }; _describe() { };
      words=(tsync ${command} -) CURRENT=3; source scripts/completions/_tsync`,
    );
    if (specs === null) return;
    const flags = specs.filter((spec) => /^\*?-/.test(spec)).map((spec) =>
      /-[\w-]+/.exec(spec)![0]
    );
    assertEquals(flags.toSorted(), all.toSorted());
  });

  Deno.test(`completions of tsync ${command}: fish offers the flags that exist`, async () => {
    const after = (words: string) =>
      offered("fish", `source scripts/completions/tsync.fish; complete -C 'tsync ${words}'`);
    const flags = await after(`${command} -`);
    if (flags === null) return;
    assertEquals(flags.map((line) => line.split("\t")[0]!).toSorted(), all.toSorted());
    if (command === "serve") {
      assertEquals((await after("serve --log "))!.map((line) => line.slice(0, 4)), [
        "json",
        "text",
      ]);
    }
  });
}

Deno.test("a release is of the version that deno.json and CHANGELOG name", () => {
  const changelog = texts.get("CHANGELOG.md")!;
  assert(
    releaseNotes(`v${config.version}`, config.version, changelog).startsWith("The first release."),
  );
  assertThrows(() => releaseNotes("v9.9.9", config.version, changelog), Error, "the tag is v9.9.9");
  assertThrows(() => releaseNotes("v9.9.9", "9.9.9", changelog), Error, "the top entry");
  const two = "# Changes\n\n## 2.0.0 (2026-12-01)\n\n- b\n\n## 1.0.0\n\n- a\n";
  assertEquals(releaseNotes("v2.0.0", "2.0.0", two), "- b");
  const says = howToInstall("v2.0.0", "someone/fork");
  assert(says.includes(
    "\ncurl -fsSL https://github.com/someone/fork/releases/latest/download/install.sh | sh\n",
  ));
  assertEquals(says.match(/github\.com\/(?!someone\/fork\/)/g), null);
});
