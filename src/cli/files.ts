/**
 * The files that the command line names: no others are ever read.
 *
 * @module
 */

import { errorText } from "../net/errors.ts";

/** Gives up the permission to read files, unless some are needed. */
export function mayReadFiles(needed: boolean): void {
  if (!needed) Deno.permissions.revokeSync({ name: "read" });
}

/**
 * Reads a text file.
 *
 * @param flag The flag that named it, for the error.
 * @throws {Error} a sentence, if it cannot be read.
 */
export function readFile(flag: string, path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    throw fileError(flag, path, error);
  }
}

/** An error for a file that cannot be read: a sentence. @param flag The flag that named it. */
export function fileError(flag: string, path: string, error: unknown): Error {
  return new Error(`cannot read ${path} for ${flag}: ${reason(error)}`, { cause: error });
}

function reason(error: unknown): string {
  if (error instanceof Deno.errors.NotFound) return "there is no such file";
  if (error instanceof Deno.errors.PermissionDenied) return "permission denied";
  if (error instanceof Deno.errors.IsADirectory) return "it is a folder";
  return errorText(error).replace(/ \(os error \d+\).*$/, "");
}
