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

/**
 * Loads functions of libc. Never asks for a permission.
 *
 * @param paths Where to look for it. Default {@linkcode LIBC_PATHS}.
 * @returns `null` if it may not be loaded, or is at none of the paths.
 */
export function openLibc<const S extends Deno.ForeignLibraryInterface>(
  symbols: S,
  paths: readonly string[] = LIBC_PATHS,
): Deno.DynamicLibrary<S> | null {
  for (const path of paths) {
    if (Deno.permissions.querySync({ name: "ffi", path }).state !== "granted") continue;
    try {
      return Deno.dlopen(path, symbols);
    } catch {
      // Not this system's path.
    }
  }
  return null;
}
