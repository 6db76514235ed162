import { assertEquals } from "@std/assert";
import * as structures from "../src/libc/structures.ts";
import * as timex from "../src/libc/timex.ts";

const HEADERS = "#define _GNU_SOURCE\n" +
  [
    "errno.h",
    "netinet/in.h",
    "netinet/tcp.h",
    "stddef.h",
    "sys/epoll.h",
    "sys/socket.h",
    "sys/timex.h",
    "time.h",
  ]
    .map((name) => `#include <${name}>\n`).join("");

/** What a C compiler for a processor refuses if a size, an offset or a number is another. */
function assertions(arch: keyof typeof structures.EPOLL_EVENT): string {
  const lines: string[] = [];
  const assert = (expression: string, value: number) =>
    lines.push(`_Static_assert(${expression} == ${value}, "${expression}");`);
  const { EPOLL_EVENT, ...others } = structures;
  const all = { ...others, epoll_event: EPOLL_EVENT[arch] };
  for (const [name, value] of Object.entries(all)) {
    if (typeof value === "number") {
      assert(name, value);
      continue;
    }
    for (const [field, offset] of Object.entries(value)) {
      assert(
        field === "size" ? `sizeof(struct ${name})` : `offsetof(struct ${name}, ${field})`,
        offset,
      );
    }
  }
  for (const [name, value] of Object.entries(timex)) {
    if (typeof value === "number" && name !== "FREQUENCY_UNITS") assert(name, value);
  }
  for (const [field, word] of Object.entries(timex.timex)) {
    const what = field === "words" ? "sizeof(struct timex)" : `offsetof(struct timex, ${field})`;
    assert(what, 8 * word);
  }
  return `${HEADERS}${lines.join("\n")}\n`;
}

async function compile(compiler: string, source: string): Promise<string | null> {
  try {
    const child = new Deno.Command(compiler, {
      args: ["-fsyntax-only", "-x", "c", "-"],
      stdin: "piped",
      stderr: "piped",
      stdout: "null",
    }).spawn();
    const input = child.stdin.getWriter();
    await input.write(new TextEncoder().encode(source));
    await input.close();
    const { stderr } = await child.output();
    return new TextDecoder().decode(stderr);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

const COMPILERS = [["cc", Deno.build.arch], ["aarch64-linux-gnu-gcc", "aarch64"]] as const;

for (const [compiler, arch] of COMPILERS) {
  Deno.test(`sizes, offsets and numbers of C are those of ${compiler}`, async () => {
    if (Deno.build.os !== "linux") return console.log("they are Linux's: not tried");
    const complaints = await compile(compiler, assertions(arch));
    if (complaints === null) return console.log(`there is no ${compiler} here: not tried`);
    assertEquals(complaints, "");
    const wrong = `${assertions(arch)}_Static_assert(sizeof(struct msghdr) == 1, "wrong");\n`;
    assertEquals((await compile(compiler, wrong))!.includes("static assertion failed"), true);
  });
}
