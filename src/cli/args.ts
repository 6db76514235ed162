/**
 * Reads the command line.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import {
  hostOf,
  NTP_PORT,
  parseListenAddress,
  parseProxy,
  type SocketAddress,
} from "../net/address.ts";
import type { Timestamps } from "../net/network.ts";
import { parsePrefix } from "../serve/admission.ts";
import { PANIC_THRESHOLD_SECONDS } from "../sync/correction.ts";
import type { Arguments, SyncArguments } from "./command_line.ts";
import { type CommandName, COMMANDS, dashed } from "./flags.ts";

/** The command line is wrong. The message says how. */
export class UsageError extends Error {
  override readonly name = "UsageError";

  /** @param command The command whose help explains it, if it is known. */
  constructor(message: string, readonly command?: CommandName) {
    super(message);
  }
}

/**
 * Reads a command line.
 *
 * @throws {UsageError} if it is wrong.
 */
export function parseCommandLine(args: readonly string[]): Arguments {
  const [first, ...rest] = args;
  switch (first) {
    case "serve":
      return parseServe(new FlagValues("serve", rest));
    case "sync":
      return parseSync(new FlagValues("sync", rest));
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

function parseServe(flags: FlagValues): Arguments {
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
      "cannot use --timestamps kernel with TLS, whose messages the kernel does not see: " +
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
    keys: flags.text("keys"),
  };
}

function parseSync(flags: FlagValues): Arguments {
  if (flags.isOn("help")) return { command: "help", about: "sync" };
  const both = flags.isOn("4") && flags.isOn("6");
  for (const [name, needed] of NEEDS) {
    if (flags.text(name) === undefined || flags.isGiven(needed)) continue;
    throw new UsageError(`--${name} needs --${needed}`, "sync");
  }
  const stepThreshold = flags.seconds("step-threshold", true);
  if (stepThreshold !== undefined && stepThreshold > PANIC_THRESHOLD_SECONDS) {
    throw flags.bad("step-threshold", `at most ${PANIC_THRESHOLD_SECONDS} seconds`);
  }
  if (flags.isOn("set") && flags.text("refclock") !== undefined) {
    throw new UsageError(
      "cannot use --refclock with --set: chronyd and tsync would both steer the system clock; " +
        "leave out one of the two",
      "sync",
    );
  }
  return {
    command: "sync",
    options: {
      servers: flags.positionals.length > 0 ? flags.positionals : ["localhost"],
      samples: flags.integer("samples", 1, 10_000),
      timeout: flags.seconds("timeout", false),
      timestamps: flags.timestamps(),
      interval: flags.seconds("interval", false),
      proxy: flags.proxy(),
      family: both ? undefined : flags.isOn("4") ? 4 : flags.isOn("6") ? 6 : undefined,
    },
    json: flags.isOn("json"),
    watch: flags.isOn("watch"),
    set: flags.isOn("set") ? { stepThreshold } : null,
    maxOffset: flags.seconds("max-offset", true),
    refclock: flags.absolutePath("refclock"),
    clockbound: flags.absolutePath("clockbound"),
    http: flags.address("http"),
    httpHosts: flags.hosts("http-host"),
    ca: flags.text("ca"),
    key: flags.key(),
    quiet: flags.isOn("quiet"),
  };
}

/** Flags of sync that are of no use without another. */
const NEEDS = [
  ["interval", "watch"],
  ["refclock", "watch"],
  ["clockbound", "watch"],
  ["http", "watch"],
  ["http-host", "http"],
  ["step-threshold", "set"],
  ["keys", "key"],
  ["key", "keys"],
] as const;

const TIMESTAMPS: readonly Timestamps[] = ["auto", "kernel", "user"];

/** A command's flags and arguments, checked against its table and read one by one. */
class FlagValues {
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

  isGiven(name: string): boolean {
    return this.isOn(name) || this.text(name) !== undefined;
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

  proxy(): string | undefined {
    const text = this.text("proxy");
    try {
      if (text !== undefined) parseProxy(text);
    } catch (error) {
      throw new UsageError(`--proxy: ${(error as Error).message}`, this.#command);
    }
    return text;
  }

  /** One of the keys in a file. */
  key(): SyncArguments["key"] {
    const [file, id] = [this.text("keys"), this.integer("key", 1, 2 ** 32 - 1)];
    return file === undefined || id === undefined ? undefined : { file, id };
  }

  timestamps(): Timestamps | undefined {
    const text = this.text("timestamps");
    const found = TIMESTAMPS.find((each) => each === text);
    if (text !== undefined && found === undefined) {
      throw this.bad("timestamps", "auto, kernel or user");
    }
    return found;
  }

  /** An address with a port, or a port on the loopback address. */
  address(name: string): SocketAddress | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    try {
      return parseListenAddress(text);
    } catch {
      throw this.bad(name, "PORT, ADDR:PORT or [IPv6]:PORT, with a port from 0 to 65535");
    }
  }

  /** A path that means the same to another program. */
  absolutePath(name: string): string | undefined {
    const text = this.text(name);
    if (text === undefined || text.startsWith("/")) return text;
    throw this.bad(name, "an absolute path");
  }

  hosts(name: string): readonly string[] {
    const texts = this.texts(name);
    const wrong = texts.find((text) => hostOf(text) === null);
    if (wrong !== undefined) throw this.bad(name, "a host name", wrong);
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
 * Refuses flags that are not in the table, and rewrites the others so that `parseArgs` does not take
 * `--json true` for `--json=true`.
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
