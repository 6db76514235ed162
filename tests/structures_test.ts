/**
 * What is known of C, against C's headers: Linux's by a compiler, macOS's by a
 * cross compiler that comes with them.
 *
 * @module
 */

import { assertEquals, assertStringIncludes } from "@std/assert";
import * as darwin from "../src/libc/darwin.ts";
import * as structures from "../src/libc/structures.ts";
import { SYMBOLS } from "../src/libc/symbols.ts";
import * as timex from "../src/libc/timex.ts";

const HEADERS = "#define _GNU_SOURCE\n" +
  [
    "errno.h",
    "fcntl.h",
    "netinet/in.h",
    "netinet/tcp.h",
    "signal.h",
    "stddef.h",
    "sys/epoll.h",
    "sys/resource.h",
    "sys/socket.h",
    "sys/timex.h",
    "sys/un.h",
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
    if (typeof value === "number" && !/^(FREQUENCY_UNITS|TICK)$/.test(name)) assert(name, value);
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

/** A call's argument in C++: 0 a pointer, else the bytes of an integer. A pointer may be given as one. */
const WIDTHS = { buffer: 0, usize: 8, i32: 4, u32: 4, i64: 8 } as const;

/** As {@linkcode assertions}, in C++: of all that is used on macOS, the functions' prototypes too. */
function darwinAssertions(): string {
  const lines = [
    ...["errno.h", "net/if.h", "netinet/in.h", "netinet/tcp.h", "signal.h", "stddef.h", "string.h"],
    ...["sys/resource.h", "sys/socket.h", "sys/sysctl.h", "sys/time.h", "sys/timex.h", "termios.h"],
    ...["time.h", "unistd.h"],
  ].map((name) => `#include <${name}>`);
  // Does not match what takes a variable number of arguments: on arm64 these are passed otherwise.
  lines.push(`
    template <typename T> constexpr bool is(int width) {
      return width == 0 ? __is_pointer(T) : sizeof(T) == width && !__is_floating_point(T);
    }
    template <int... widths> struct Takes {
      template <typename R, typename... A> static constexpr bool all(R (*)(A...)) {
        return (is<A>(widths) && ...);
      }
    };
    template <typename R, typename... A> constexpr int returns(R (*)(A...)) { return sizeof(R); }`);
  const assert = (expression: string) =>
    lines.push(`static_assert(${expression}, ${JSON.stringify(expression)});`);

  const names = Object.keys(SYMBOLS);
  const used = names.slice(0, names.indexOf("accept4")).filter((name) =>
    name !== "__errno_location"
  );
  for (const name of used as (keyof typeof SYMBOLS)[]) {
    const { parameters, result } = SYMBOLS[name];
    assert(`Takes<${parameters.map((each) => WIDTHS[each]).join(", ")}>::all(&${name})`);
    assert(`returns(&${name}) >= ${WIDTHS[result]}`);
  }

  const { words, time, tick, ...fields } = timex.timex;
  for (const [field, word] of Object.entries(fields)) {
    assert(`offsetof(struct timex, ${field}) == ${8 * word}`);
  }
  // Of those that only Linux has, `tick` reads as 0, and `time` is not read.
  assert(`sizeof(struct timex) <= ${8 * words} && offsetof(struct timex, ppsfreq) == ${8 * time}`);
  assert(`offsetof(struct timex, shift) == ${8 * tick}`);
  for (const [name, value] of [...Object.entries(timex), ...Object.entries(darwin)]) {
    if (typeof value !== "number" || /^(FREQUENCY_UNITS|TICK|ADJ_SETOFFSET|ADJ_TICK)$/.test(name)) {
      continue;
    }
    assert(`${name.replace(/^ADJ_/, "MOD_")} == ${value}`);
  }

  const { timespec, sockaddr_in, sockaddr_in6, IPPROTO_TCP, TCP_NODELAY, EPERM } = structures;
  for (const [name, value] of Object.entries({ IPPROTO_TCP, TCP_NODELAY, EPERM, SHUT_RDWR: 2 })) {
    assert(`${name} == ${value}`);
  }
  const { sin_port, sin_addr } = sockaddr_in;
  const { sin6_addr } = sockaddr_in6;
  const layouts = {
    timespec,
    timeval: { size: 16, tv_sec: 0, tv_usec: 8 },
    rlimit: { size: 16, rlim_cur: 0, rlim_max: 8 },
    sockaddr_in: { size: sockaddr_in.size, sin_port, sin_addr },
    sockaddr_in6: { size: sockaddr_in6.size, sin6_addr },
  };
  for (const [struct, layout] of Object.entries(layouts)) {
    for (const [field, offset] of Object.entries(layout)) {
      const what = field === "size" ? `sizeof(struct ${struct})` : `offsetof(${struct}, ${field})`;
      assert(`${what} == ${offset}`);
    }
  }
  assert("sizeof(suseconds_t) == 4 && sizeof(socklen_t) == 4 && sizeof(rlim_t) == 8");
  assert("sizeof(struct ntptimeval) <= 64 && sizeof(struct sigaction) <= 256");
  return `${lines.join("\n")}\n`;
}

/** What Zig, which comes with macOS's headers, says of a text of C++. @returns `null` without it. */
async function compileForDarwin(arch: string, source: string): Promise<string | null> {
  const directory = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${directory}/source.cpp`, source);
    const { stderr } = await new Deno.Command("zig", {
      args: ["c++", `-target`, `${arch}-macos`, "-std=c++17", "-c", "source.cpp"],
      cwd: directory,
      env: { ZIG_GLOBAL_CACHE_DIR: directory, ZIG_LOCAL_CACHE_DIR: directory },
    }).output();
    return new TextDecoder().decode(stderr);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

for (const arch of ["aarch64", "x86_64"]) {
  Deno.test(`functions, sizes, offsets and numbers of C are those of macOS on ${arch}`, async () => {
    const source = darwinAssertions();
    const complaints = await compileForDarwin(arch, source);
    if (complaints === null) return console.log("there is no zig here: not tried");
    assertEquals(complaints, "");
    const rows = [
      [
        "static_assert(Takes<4, 8>::all(&clock_gettime) && Takes<4, 4>::all(&clock_gettime));",
        "4, 4",
      ],
      ["static_assert(Takes<4, 4>::all(&fcntl));", "no matching function"],
      ["static_assert(offsetof(struct timex, status) == 44);", "status"],
    ] as const;
    for (const [wrong, complaint] of rows) {
      const said = (await compileForDarwin(arch, `${source}#include <fcntl.h>\n${wrong}\n`))!;
      assertStringIncludes(said, complaint, wrong);
    }
  });
}
