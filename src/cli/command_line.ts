/**
 * What a command line asks for.
 *
 * @module
 */

import type { ServeOptions, WatchOptions } from "../mod.ts";
import type { SocketAddress } from "../net/address.ts";
import type { CommandName } from "./flags.ts";

export interface ServeArguments {
  readonly command: "serve";
  readonly options: ServeOptions;
  readonly log: "json" | "text";
  /** Paths of the certificate and its key. */
  readonly tls: { readonly cert: string; readonly key: string } | undefined;
  /** Path of the key file. */
  readonly keys: string | undefined;
}

export interface SyncArguments {
  readonly command: "sync";
  readonly options: WatchOptions & { readonly servers: readonly string[] };
  readonly json: boolean;
  /** Keep time until interrupted? */
  readonly watch: boolean;
  /** How to correct the system clock, with the threshold in seconds; `null`: leave it alone. */
  readonly set: { readonly stepThreshold: number | undefined } | null;
  /** The most that the clock may be off, in seconds. */
  readonly maxOffset: number | undefined;
  /** Path of the socket at which chronyd receives samples. */
  readonly refclock: string | undefined;
  /** Path of the shared memory that ClockBound's clients read. */
  readonly clockbound: string | undefined;
  /** Where to show the kept clock over HTTP. */
  readonly http: SocketAddress | undefined;
  /** Host names to answer HTTP for, besides addresses and `localhost`. */
  readonly httpHosts: readonly string[];
  /** Path of the authorities for TLS. */
  readonly ca: string | undefined;
  /** Path of the key file, and which of its keys to use. */
  readonly key: { readonly file: string; readonly id: number } | undefined;
  readonly quiet: boolean;
}

export type Arguments =
  | ServeArguments
  | SyncArguments
  | { readonly command: "help"; readonly about: CommandName | undefined }
  | { readonly command: "version" };
