/**
 * The C library, where the system clock and the sockets are.
 *
 * @module
 */

/**
 * Where libc lies. Exact paths, since a permission for a bare name does not
 * let Deno load it. `deno.json` grants the same ones.
 */
export const LIBC_PATHS: readonly string[] = [
  "/lib/x86_64-linux-gnu/libc.so.6", // Debian, Ubuntu
  "/lib/aarch64-linux-gnu/libc.so.6",
  "/lib64/libc.so.6", // Fedora, RHEL, Amazon Linux, SUSE
  "/usr/lib/libc.so.6", // Arch
  "/usr/lib/libSystem.B.dylib", // macOS
];

/** Functions of libc. */
export interface Library<S extends Deno.ForeignLibraryInterface> {
  readonly symbols: Deno.StaticForeignLibraryInterface<S>;
  /** Unloads it. */
  close(): void;
}

/**
 * Loads libc. Never asks for a permission.
 *
 * @param paths Where to look for it. Default {@linkcode LIBC_PATHS}.
 * @returns Its functions, each made when it is first used: Deno compiles 0.4 ms for each, and a
 * start needs few. `null` if it may not be loaded, or is at none of the paths.
 */
export function openLibc<const S extends Deno.ForeignLibraryInterface>(
  symbols: S,
  paths: readonly string[] = LIBC_PATHS,
): Library<S> | null {
  const path = find(paths);
  if (path === null) return null;
  const opened: Deno.DynamicLibrary<S>[] = [];
  const functions = {} as Deno.StaticForeignLibraryInterface<S>;
  for (const name of Object.keys(symbols)) {
    let made: unknown;
    Object.defineProperty(functions, name, {
      get() {
        if (made !== undefined) return made;
        const library = Deno.dlopen(path, { [name]: symbols[name] } as unknown as S);
        opened.push(library);
        return made = library.symbols[name];
      },
    });
  }
  // From source there is no hurry, and tests see when something is opened.
  if (!Deno.build.standalone) { for (const name of Object.keys(symbols)) void functions[name]; }
  return {
    symbols: functions,
    close() {
      for (const library of opened) library.close();
    },
  };
}

/** Where it was found at first, of where it is always looked for. */
let known: string | undefined;

function find(paths: readonly string[]): string | null {
  if (paths !== LIBC_PATHS) return search(paths);
  if (known !== undefined) return mayLoad(known) ? known : null;
  const found = search(paths);
  known = found ?? undefined;
  return found;
}

function mayLoad(path: string): boolean {
  return Deno.permissions.querySync({ name: "ffi", path }).state === "granted";
}

function search(paths: readonly string[]): string | null {
  for (const path of paths) {
    if (!mayLoad(path)) continue;
    try {
      Deno.dlopen(path, {}).close();
      return path;
    } catch {
      // Not this system's path.
    }
  }
  return null;
}
