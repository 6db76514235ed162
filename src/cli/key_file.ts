/**
 * Symmetric keys from a file. Loaded only if one is named.
 *
 * @module
 */

import { parseKeys } from "../ntp/keys.ts";
import type { Keys, MessageKey } from "../ntp/mac.ts";
import { fileError } from "./files.ts";

/** The permissions that others have. */
const OTHERS = 0o007;

/**
 * Reads the keys of `--keys`.
 *
 * @throws {Error} a sentence, if it cannot be read, others may, or it is no key file.
 */
export function readKeys(path: string): Keys {
  let file: Uint8Array;
  let mode: number | null;
  try {
    mode = Deno.statSync(path).mode;
    file = Deno.readFileSync(path);
  } catch (error) {
    throw fileError("--keys", path, error);
  }
  const name = /^[\w./@%+-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`;
  if (((mode ?? 0) & OTHERS) !== 0) {
    throw new Error(
      `cannot use ${path} for --keys: every user of this machine may open it; run: chmod o= ${name}`,
    );
  }
  try {
    return parseKeys(file);
  } catch (error) {
    throw new Error(`cannot use ${path} for --keys: ${(error as Error).message}`, { cause: error });
  }
}

/** Reads one of them. @throws {Error} a sentence, if there is no such key. */
export function readKey({ file, id }: { readonly file: string; readonly id: number }): MessageKey {
  const key = readKeys(file).get(id);
  if (key === undefined) throw new Error(`cannot use --key ${id}: ${file} has no such key`);
  return key;
}
