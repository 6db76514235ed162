/**
 * Loads the C library, for the system clock and for sockets.
 *
 * @module
 */

import { SYMBOLS } from "./symbols.ts";

/**
 * Where libc may be. Full paths, since permission for a bare name does not let
 * Deno load a library. `deno.json` grants permission for the same paths.
 */
export const LIBC_PATHS: readonly string[] = [
  "/lib/x86_64-linux-gnu/libc.so.6", // Debian, Ubuntu
  "/lib/aarch64-linux-gnu/libc.so.6",
  "/lib64/libc.so.6", // Fedora, RHEL, Amazon Linux, SUSE
  "/usr/lib/libc.so.6", // Arch
  "/usr/lib/libSystem.B.dylib", // macOS
];

/** Functions of libc. Those the system lacks are `null`, whatever their types say. */
export type Libc = Deno.StaticForeignLibraryInterface<typeof SYMBOLS>;

let shared: Libc | undefined;

/**
 * The process's libc, opened on the first call. Never prompts for permission.
 *
 * @returns `null` if it may not be loaded, or is not at any of {@linkcode LIBC_PATHS}.
 */
export function sharedLibc(): Libc | null {
  shared ??= openLibc() ?? undefined;
  return shared ?? null;
}

/**
 * Opens libc. Never prompts for permission.
 *
 * @param paths Where to look. Default {@linkcode LIBC_PATHS}.
 * @returns Its functions, each created on first use: Deno takes 0.4 ms to compile one, and startup
 * needs few. Disposing of them unloads the library. `null` if it may not be loaded, or is not at any
 * of the paths.
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
  // When run from source, startup time matters less than tests seeing every library as it is opened.
  if (!Deno.build.standalone) { for (const name in SYMBOLS) void functions[name as never]; }
  const dispose = { [Symbol.dispose]: () => opened.forEach((library) => library.close()) };
  return Object.assign(functions as Libc, dispose);
}

const lastError = new Int32Array(1);

/**
 * The error number of the last call; read it before calling anything else. Call this once before
 * the first call that may fail: creating the functions it uses could change the number.
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
      // It is somewhere else on this system.
    }
  }
  return null;
}
