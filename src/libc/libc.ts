/**
 * The C library, where the system clock and the sockets are.
 *
 * @module
 */

import { SYMBOLS } from "./symbols.ts";

/**
 * Where libc is. Exact paths, since a permission for a bare name does not let
 * Deno load it. `deno.json` grants the same ones.
 */
export const LIBC_PATHS: readonly string[] = [
  "/lib/x86_64-linux-gnu/libc.so.6", // Debian, Ubuntu
  "/lib/aarch64-linux-gnu/libc.so.6",
  "/lib64/libc.so.6", // Fedora, RHEL, Amazon Linux, SUSE
  "/usr/lib/libc.so.6", // Arch
  "/usr/lib/libSystem.B.dylib", // macOS
];

/** Functions of libc. One that the system lacks is `null`, whatever its type says. */
export type Libc = Deno.StaticForeignLibraryInterface<typeof SYMBOLS>;

let shared: Libc | undefined;

/**
 * The process's libc, opened at the first call. Never asks for a permission.
 *
 * @returns `null` if it may not be loaded, or is at none of {@linkcode LIBC_PATHS}.
 */
export function sharedLibc(): Libc | null {
  shared ??= openLibc() ?? undefined;
  return shared ?? null;
}

/**
 * Opens libc. Never asks for a permission.
 *
 * @param paths Where to look for it. Default {@linkcode LIBC_PATHS}.
 * @returns Its functions, each made when it is first used: Deno takes 0.4 ms to compile one, and a
 * start needs few. Disposing of them unloads the library. `null` if it may not be loaded, or is at
 * none of the paths.
 */
export function openLibc(paths: readonly string[] = LIBC_PATHS): Libc & Disposable | null {
  const path = find(paths);
  if (path === null) return null;
  const opened: Deno.DynamicLibrary<Deno.ForeignLibraryInterface>[] = [];
  const functions = {};
  for (const [name, description] of Object.entries(SYMBOLS)) {
    let made: unknown;
    Object.defineProperty(functions, name, {
      enumerable: true,
      get() {
        if (made !== undefined) return made;
        const library = Deno.dlopen(path, { [name]: { ...description, optional: true } });
        opened.push(library);
        return made = library.symbols[name];
      },
    });
  }
  // Run from source there is no hurry, and tests see when something is opened.
  if (!Deno.build.standalone) { for (const name in SYMBOLS) void functions[name as never]; }
  const dispose = { [Symbol.dispose]: () => opened.forEach((library) => library.close()) };
  return Object.assign(functions as Libc, dispose);
}

const lastError = new Int32Array(1);

/**
 * The number of the last call's error: to be read before anything else is called. To be called once
 * before the first call that may fail, since making the functions it takes could change the number.
 */
export function errno(libc: Libc): number {
  libc.memcpy(lastError, (libc.__error ?? libc.__errno_location)(), 4n);
  return lastError[0]!;
}

function find(paths: readonly string[]): string | null {
  for (const path of paths) {
    if (Deno.permissions.querySync({ name: "ffi", path }).state !== "granted") continue;
    try {
      Deno.dlopen(path, {}).close();
      return path;
    } catch {
      // Not this system's path.
    }
  }
  return null;
}
