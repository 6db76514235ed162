/**
 * Flags: one table per command, from which both the parser and the help come.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import config from "../../deno.json" with { type: "json" };
import type { ServeOptions, WatchOptions } from "../mod.ts";
import {
  DEFAULT_PORT,
  hostOf,
  NTP_PORT,
  parseListenAddress,
  type SocketAddress,
} from "../net/address.ts";
import type { Timestamps } from "../net/network.ts";
import { parsePrefix } from "../serve/admission.ts";
import { PANIC_THRESHOLD_SECONDS as PANIC_THRESHOLD } from "../sync/correction.ts";

/** The version of this program. */
export const VERSION: string = config.version;

/** Exit statuses. */
export const EXIT = {
  ok: 0,
  failure: 1,
  usage: 2,
  offsetTooLarge: 3,
  interrupted: 130,
} as const;

/** The command line makes no sense. The message is a sentence about what is wrong with it. */
export class UsageError extends Error {
  override readonly name = "UsageError";

  /** @param command The command whose help would have said so, if it is known. */
  constructor(message: string, readonly command?: CommandName) {
    super(message);
  }
}

/** What can be asked of the program. */
export type CommandName = "serve" | "sync";

/** A flag of a command. */
export interface Flag {
  /** Without dashes; a name of one character has one dash, others have two. */
  readonly name: string;
  /** What stands for its value in the help. A flag without one is on or off. */
  readonly value?: string;
  /** May be given several times. */
  readonly repeatable?: true;
  readonly help: string;
}

/** What the help of a command says. */
export interface Command {
  readonly synopsis: string;
  readonly about: string;
  readonly flags: readonly Flag[];
  readonly epilogue: string;
}

const TIMESTAMPS: readonly Timestamps[] = ["auto", "kernel", "user"];

const HELP: Flag = { name: "help", help: "show this help" };

/** All commands and their flags. */
export const COMMANDS: Readonly<Record<CommandName, Command>> = {
  serve: {
    synopsis: "tsync serve [options]",
    about: "Answer time requests until SIGINT or SIGTERM.",
    flags: [
      {
        name: "host",
        value: "ADDR",
        repeatable: true,
        help: "address to listen on, repeatable (default: all, IPv4 and IPv6)",
      },
      { name: "port", value: "N", help: `TCP port, 0 picks one (default: ${DEFAULT_PORT})` },
      { name: "udp", help: "answer NTP clients over UDP too" },
      {
        name: "udp-port",
        value: "N",
        help: `the port for that, implies --udp (default: ${NTP_PORT})`,
      },
      {
        name: "tls-cert",
        value: "FILE",
        help: "answer over TLS only: the certificate and its chain, PEM; SIGHUP reads it again",
      },
      { name: "tls-key", value: "FILE", help: "the certificate's private key, PEM" },
      {
        name: "stratum",
        value: "N",
        help: "stratum to announce, 1 to 15 (default: by the kernel's own state)",
      },
      {
        name: "allow",
        value: "CIDR",
        repeatable: true,
        help: "answer these addresses and no others, repeatable",
      },
      {
        name: "deny",
        value: "CIDR",
        repeatable: true,
        help: "do not answer these; the longest matching prefix decides",
      },
      { name: "max-clients", value: "N", help: "open connections (default: 10000)" },
      {
        name: "max-clients-per-address",
        value: "N",
        help: "open connections from one address, of IPv6 from one /64 (default: 1000)",
      },
      {
        name: "rate",
        value: "N",
        help:
          "requests a second from one address (/64), by TCP and by UDP, 0: no limit (default: 1000)",
      },
      {
        name: "idle-timeout",
        value: "S",
        help: "seconds until a silent connection is closed (default: 300)",
      },
      {
        name: "timestamps",
        value: "WHO",
        help:
          "who says when requests come: auto, kernel (Linux, not with TLS) or user (default: auto)",
      },
      {
        name: "http",
        value: "[ADDR:]PORT",
        help: "serve a status page, /metrics and /healthz (default: off; ADDR: 127.0.0.1)",
      },
      {
        name: "http-host",
        value: "NAME",
        repeatable: true,
        help: "name to answer HTTP by, beside addresses and localhost, repeatable",
      },
      { name: "log", value: "FORMAT", help: "log lines on stderr: json or text (default: text)" },
      HELP,
    ],
    epilogue: "Exit status: 0 stopped by a signal; 1 could not start or go on; 2 usage.",
  },
  sync: {
    synopsis: "tsync sync [SERVER]... [options]",
    about: "Measure how far the local clock is from the servers'.\n" +
      "SERVER is host, host:port or [IPv6]:port, alone or after tcp:// or tls:// " +
      `(port ${DEFAULT_PORT}),\nor ntp:// (NTP over UDP, port ${NTP_PORT}). Default: localhost.`,
    flags: [
      {
        name: "samples",
        value: "N",
        help: "exchanges per server (default: 16; ntp:// 4, 2 s apart)",
      },
      {
        name: "timeout",
        value: "S",
        help: "seconds for a server; what it has answered by then counts (default: 5)",
      },
      { name: "json", help: "print one JSON object a fix" },
      { name: "watch", help: "keep a synchronised clock running, and show it, until interrupted" },
      {
        name: "interval",
        value: "S",
        help: "seconds between two polls of --watch (default: 1 to 64, as needed)",
      },
      {
        name: "set",
        help: "correct the system clock, which takes a privilege; with --watch keep it",
      },
      {
        name: "step-threshold",
        value: "S",
        help: "seconds beyond which it is set at once, within slewed (default: 0.128)",
      },
      {
        name: "max-offset",
        value: "S",
        help: "exit 3 unless |offset| + error bound is at most S seconds",
      },
      {
        name: "timestamps",
        value: "WHO",
        help:
          "who says when replies come: auto, kernel (Linux, not with TLS) or user (default: auto)",
      },
      {
        name: "ca",
        value: "FILE",
        help: "who may sign a tls:// server's certificate, PEM (default: the system's authorities)",
      },
      { name: "4", help: "use IPv4 only" },
      { name: "6", help: "use IPv6 only" },
      { name: "quiet", help: "print errors only (and what --json asks for)" },
      HELP,
    ],
    epilogue: "Exit status: 0 a fix was made; 1 no fix; 2 usage; 3 --max-offset not met;\n" +
      "130 interrupted before a fix.",
  },
};

/** What `tsync serve` was told. */
export interface ServeArguments {
  readonly command: "serve";
  readonly options: ServeOptions;
  readonly log: "json" | "text";
  /** Files with the certificate and its key. */
  readonly tls: { readonly cert: string; readonly key: string } | undefined;
}

/** What `tsync sync` was told. */
export interface SyncArguments {
  readonly command: "sync";
  readonly options: WatchOptions & { readonly servers: readonly string[] };
  readonly json: boolean;
  /** Is time to be kept? */
  readonly watch: boolean;
  /** Is the system clock to be corrected, and beyond how many seconds at once? */
  readonly set: { readonly stepThreshold: number | undefined } | null;
  /** Seconds. */
  readonly maxOffset: number | undefined;
  /** File with the authorities for TLS. */
  readonly ca: string | undefined;
  readonly quiet: boolean;
}

/** What to do. */
export type Arguments =
  | ServeArguments
  | SyncArguments
  | { readonly command: "help"; readonly about: CommandName | undefined }
  | { readonly command: "version" };

/**
 * Reads a command line.
 *
 * @throws {UsageError} if it makes no sense.
 */
export function parseCommandLine(args: readonly string[]): Arguments {
  const [first, ...rest] = args;
  switch (first) {
    case "serve":
      return parseServe(new Flags("serve", rest));
    case "sync":
      return parseSync(new Flags("sync", rest));
    case "--help":
    case "--version":
      if (rest.length > 0) throw new UsageError(`unexpected argument "${rest[0]}" after ${first}`);
      return first === "--help" ? { command: "help", about: undefined } : { command: "version" };
    case undefined:
      throw new UsageError("expected a command: serve or sync");
    default:
      throw new UsageError(
        first.startsWith("-")
          ? `unknown flag ${first}: expected a command first, serve or sync`
          : `unknown command "${first}": expected serve or sync`,
      );
  }
}

function parseServe(flags: Flags): Arguments {
  if (flags.isOn("help")) return { command: "help", about: "serve" };
  const [superfluous] = flags.positionals;
  if (superfluous !== undefined) {
    throw new UsageError(`unexpected argument "${superfluous}": serve takes flags only`, "serve");
  }
  const log = flags.text("log") ?? "text";
  if (log !== "json" && log !== "text") throw flags.bad("log", "json or text");
  const [cert, key] = [flags.text("tls-cert"), flags.text("tls-key")];
  if ((cert === undefined) !== (key === undefined)) {
    const [given, missing] = cert === undefined ? ["key", "cert"] : ["cert", "key"];
    throw new UsageError(`--tls-${given} needs --tls-${missing} too`, "serve");
  }
  const timestamps = flags.timestamps();
  const udpPort = flags.integer("udp-port", 0, 65535) ?? (flags.isOn("udp") ? NTP_PORT : undefined);
  if (timestamps === "kernel" && cert !== undefined && udpPort === undefined) {
    throw new UsageError(
      "--timestamps kernel cannot be had with TLS, whose messages the kernel does not see: " +
        "leave out one of the two",
      "serve",
    );
  }
  if (flags.text("http-host") !== undefined && flags.text("http") === undefined) {
    throw new UsageError("--http-host needs --http", "serve");
  }
  return {
    command: "serve",
    options: {
      hosts: flags.texts("host"),
      allow: flags.prefixes("allow"),
      deny: flags.prefixes("deny"),
      port: flags.integer("port", 0, 65535),
      udpPort,
      timestamps,
      http: flags.address("http"),
      httpHosts: flags.hosts("http-host"),
      stratum: flags.integer("stratum", 1, 15),
      maxClients: flags.integer("max-clients", 1, 1_000_000),
      maxClientsPerAddress: flags.integer("max-clients-per-address", 1, 1_000_000),
      rate: flags.integer("rate", 0, 1_000_000_000),
      idleTimeout: flags.seconds("idle-timeout", false),
    },
    log,
    tls: cert === undefined ? undefined : { cert, key: key! },
  };
}

function parseSync(flags: Flags): Arguments {
  if (flags.isOn("help")) return { command: "help", about: "sync" };
  const both = flags.isOn("4") && flags.isOn("6");
  for (const [name, needed] of [["interval", "watch"], ["step-threshold", "set"]] as const) {
    if (flags.text(name) === undefined || flags.isOn(needed)) continue;
    throw new UsageError(`--${name} needs --${needed}`, "sync");
  }
  const stepThreshold = flags.seconds("step-threshold", true);
  if (stepThreshold !== undefined && stepThreshold > PANIC_THRESHOLD) {
    throw flags.bad("step-threshold", `at most ${PANIC_THRESHOLD} seconds`);
  }
  return {
    command: "sync",
    options: {
      servers: flags.positionals.length > 0 ? flags.positionals : ["localhost"],
      samples: flags.integer("samples", 1, 10_000),
      timeout: flags.seconds("timeout", false),
      timestamps: flags.timestamps(),
      interval: flags.seconds("interval", false),
      family: both ? undefined : flags.isOn("4") ? 4 : flags.isOn("6") ? 6 : undefined,
    },
    json: flags.isOn("json"),
    watch: flags.isOn("watch"),
    set: flags.isOn("set") ? { stepThreshold } : null,
    maxOffset: flags.seconds("max-offset", true),
    ca: flags.text("ca"),
    quiet: flags.isOn("quiet"),
  };
}

/** A command's flags and arguments as texts, checked against its table. */
class Flags {
  readonly positionals: readonly string[];
  readonly #command: CommandName;
  readonly #values = new Map<string, readonly string[]>();
  readonly #on = new Set<string>();

  constructor(command: CommandName, args: readonly string[]) {
    this.#command = command;
    const { flags } = COMMANDS[command];
    const valued = flags.filter(({ value }) => value !== undefined).map(({ name }) => name);
    const switches = flags.filter(({ value }) => value === undefined).map(({ name }) => name);
    const parsed = parseArgs(plain(args, command), {
      boolean: switches,
      string: [...valued, "_"],
      collect: valued,
    }) as Record<string, unknown> & { _: unknown[] };
    this.positionals = parsed._.map(String);
    for (const name of switches) if (parsed[name] === true) this.#on.add(name);
    for (const { name, value, repeatable, help } of flags) {
      if (value === undefined) continue;
      const values = (parsed[name] ?? []) as string[];
      if (values.includes("")) {
        throw new UsageError(`${dashed(name)} needs a value, ${value}: ${help}`, command);
      }
      if (values.length > 1 && repeatable === undefined) {
        throw new UsageError(`${dashed(name)} is given more than once`, command);
      }
      this.#values.set(name, values);
    }
  }

  isOn(name: string): boolean {
    return this.#on.has(name);
  }

  texts(name: string): readonly string[] {
    return this.#values.get(name) ?? [];
  }

  text(name: string): string | undefined {
    return this.texts(name)[0];
  }

  integer(name: string, least: number, most: number): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= least && value <= most) return value;
    throw this.bad(name, `an integer from ${least} to ${most}`);
  }

  seconds(name: string, zeroAllowed: boolean): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const value = Number(text);
    const written = /^(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text);
    if (written && value < 1e6 && (value > 0 || zeroAllowed)) return value;
    throw this.bad(
      name,
      `${zeroAllowed ? "0 or more" : "more than 0"} and less than 1000000 seconds`,
    );
  }

  timestamps(): Timestamps | undefined {
    const text = this.text("timestamps");
    const found = TIMESTAMPS.find((each) => each === text);
    if (text !== undefined && found === undefined) {
      throw this.bad("timestamps", "auto, kernel or user");
    }
    return found;
  }

  /** An address with a port, or a port of the loopback address. */
  address(name: string): SocketAddress | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    try {
      return parseListenAddress(text);
    } catch {
      throw this.bad(name, "PORT, ADDR:PORT or [IPv6]:PORT, with a port from 0 to 65535");
    }
  }

  hosts(name: string): readonly string[] {
    const texts = this.texts(name);
    const wrong = texts.find((text) => hostOf(text) === null);
    if (wrong !== undefined) throw this.bad(name, "the name of a host", wrong);
    return texts;
  }

  prefixes(name: string): readonly string[] {
    const texts = this.texts(name);
    try {
      for (const text of texts) parsePrefix(text);
    } catch (error) {
      throw new UsageError(`${dashed(name)}: ${(error as Error).message}`, this.#command);
    }
    return texts;
  }

  bad(name: string, expected: string, value = this.text(name)): UsageError {
    return new UsageError(
      `${dashed(name)} must be ${expected}: current value is "${value}"`,
      this.#command,
    );
  }
}

/**
 * Refuses flags that are not in the table, and writes the others such that
 * `parseArgs` does not take `--json true` for `--json=true`.
 */
function plain(args: readonly string[], command: CommandName): string[] {
  const { flags } = COMMANDS[command];
  const end = args.includes("--") ? args.indexOf("--") : args.length;
  let needed = false;
  const rest = args.slice(0, end).map((arg) => {
    const isValue = needed;
    needed = false;
    if (isValue || !/^-./.test(arg)) return arg;
    const [written, value] = arg.split(/=(.*)/s);
    const flag = flags.find(({ name }) => dashed(name) === written);
    if (flag === undefined) {
      const known = flags.map(({ name }) => dashed(name)).join(", ");
      throw new UsageError(`unknown flag ${written}: expected one of ${known}`, command);
    }
    if (flag.value !== undefined) {
      needed = value === undefined;
      return arg;
    }
    if (value === undefined) return `--${flag.name}=true`;
    throw new UsageError(`${written} takes no value`, command);
  });
  return [...rest, ...args.slice(end)];
}

function dashed(name: string): string {
  return name.length === 1 ? `-${name}` : `--${name}`;
}

/** The help, of one command or of all. */
export function helpText(command: CommandName | undefined): string {
  if (command === undefined) {
    const lines = Object.values(COMMANDS).map(({ synopsis, about }) =>
      `  ${synopsis.padEnd(34)}${about.split("\n")[0]!}`
    );
    return `tsync ${VERSION}: make two machines agree on the time\n\n` +
      `Usage:\n${lines.join("\n")}\n  tsync --help | --version\n\n` +
      "`tsync serve --help` and `tsync sync --help` list the options.";
  }
  const { synopsis, about, flags, epilogue } = COMMANDS[command];
  const width = 5 +
    Math.max(...flags.map(({ name, value = "" }) => `${dashed(name)} ${value}`.length));
  const rows = flags.map(({ name, value = "", help }) => {
    return `  ${`${dashed(name)} ${value}`.padEnd(width)}${help}`;
  });
  return `Usage: ${synopsis}\n\n${about}\n\nOptions:\n${rows.join("\n")}\n\n${epilogue}`;
}
