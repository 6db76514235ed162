/**
 * Runs tsync as a process of its own: for the demonstration, the benchmark and
 * the end-to-end tests.
 *
 * @module
 */

import { LIBC_PATHS } from "../src/libc/libc.ts";
import { NPM_FLAG, stdComesFromNpm } from "./std_source.ts";

/** A way to start tsync: an executable and the arguments that come before tsync's own. */
export interface Program {
  readonly name: string;
  readonly executable: string;
  readonly args: readonly string[];
  /** Flags that both commands are always given. Default: none. */
  readonly flags?: readonly string[];
}

/** The variables that it may set or read. */
const ENVIRONMENT = [
  ...["DENO_TLS_CA_STORE", "TERM", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"],
  ...["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"],
];

/** What the program may do, and how its heap grows: compiled, and from source by `deno.json`. */
export const RUNTIME_FLAGS: readonly string[] = [
  "--no-prompt",
  "--allow-net",
  "--allow-read", // Given up at once unless a certificate is named.
  `--allow-env=${ENVIRONMENT.join(",")}`,
  `--allow-ffi=${LIBC_PATHS.join(",")}`,
  // Half the memory under load, and no less speed that could be measured.
  "--v8-flags=--max-semi-space-size=4,--heap-growing-percent=10",
];

/** The program from source. */
export const SOURCE: Program = {
  name: "source",
  executable: Deno.execPath(),
  args: [
    "run",
    "--quiet",
    ...RUNTIME_FLAGS,
    ...stdComesFromNpm() ? [NPM_FLAG] : [],
    "main.ts",
  ],
};

/** The compiled program for this machine, if `deno task compile` has made one. */
export function compiled(): Program | null {
  const executable = `dist/tsync-${Deno.build.target}`;
  try {
    Deno.statSync(executable);
    return { name: "compiled", executable, args: [] };
  } catch {
    return null;
  }
}

/** The same with `--timestamps user`: all that Deno's own sockets do, as with TLS and on macOS. */
export function userStamped(program: Program): Program {
  return { ...program, name: `${program.name}, user`, flags: ["--timestamps", "user"] };
}

/**
 * All that a user can have on this machine: from source, compiled, and stamped by the program
 * (compiled if there is one: that is what most will run).
 */
export function programs(): Program[] {
  const program = compiled();
  return [SOURCE, program, userStamped(program ?? SOURCE)].filter((each) => each !== null);
}

/** The command line after the executable. */
export function commandLine({ args, flags = [] }: Program, command: readonly string[]): string[] {
  const [name = "", ...rest] = command;
  const isCommand = name === "serve" || name === "sync";
  return [...args, ...command.slice(0, 1), ...isCommand ? flags : [], ...rest];
}

/** What came of a run. */
export interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `tsync ARGS` to its end. Progress (`measuring`) is left out of stderr. */
export async function run(program: Program, ...args: string[]): Promise<Result> {
  const { executable } = program;
  const output = await new Deno.Command(executable, { args: commandLine(program, args) }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  const stderr = withoutProgress(text(output.stderr));
  return { code: output.code, stdout: text(output.stdout), stderr };
}

/** Stderr without `measuring`, which a slow machine prints after half a second. */
export function withoutProgress(stderr: string): string {
  return stderr.replace(/^measuring.*\n/m, "");
}

/** `tsync serve` as a process. */
export class ServeProcess implements AsyncDisposable {
  /** The first address that it listens on. */
  readonly address: string;
  /** `tcp` or `tls`. */
  readonly transport: string;
  readonly #child: Deno.ChildProcess;
  readonly #lines: AsyncIterator<string>;

  private constructor(
    child: Deno.ChildProcess,
    lines: AsyncIterator<string>,
    listening: { readonly address: string; readonly transport: string },
  ) {
    this.#child = child;
    this.#lines = lines;
    this.address = listening.address;
    this.transport = listening.transport;
  }

  /**
   * Starts `tsync serve ARGS` and waits until it listens.
   *
   * @param args Default: a free port on 127.0.0.1.
   * @throws {Error} with what it said, if it ended instead.
   */
  static async start(
    program: Program,
    args: readonly string[] = ["--host", "127.0.0.1", "--port", "0"],
  ): Promise<ServeProcess> {
    const child = new Deno.Command(program.executable, {
      args: commandLine(program, ["serve", "--log", "json", ...args]),
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    const lines = linesOf(child.stderr);
    const first = await lines.next();
    try {
      return new ServeProcess(child, lines, JSON.parse(first.value ?? ""));
    } catch {
      await child.status;
      throw new Error(`tsync serve did not start: ${first.value ?? "it said nothing"}`);
    }
  }

  /** The next line of its log, decoded; `null` when there are no more. */
  async nextEvent(): Promise<Record<string, unknown> | null> {
    const line = await this.#lines.next();
    return line.done ? null : JSON.parse(line.value);
  }

  /** The next address that it listens on, `http` or what else was asked for beside TCP. */
  async nextAddress(): Promise<string> {
    return String((await this.nextEvent())!.address);
  }

  get port(): number {
    return Number(this.address.split(":").at(-1));
  }

  /** Resident memory in MB, on Linux. */
  async residentMemory(): Promise<number> {
    const status = await Deno.readTextFile(`/proc/${this.pid}/status`);
    return Number(/VmRSS:\s+(\d+)/.exec(status)![1]) / 1024;
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** Sends SIGTERM and waits for the end; the log is somebody else's. @returns The exit status. */
  async end(): Promise<number> {
    this.#child.kill("SIGTERM");
    return (await this.#child.status).code;
  }

  /** Sends a signal and waits for the end. @returns The exit status and the rest of the log. */
  async stop(signal: Deno.Signal = "SIGTERM"): Promise<{ code: number; log: unknown[] }> {
    this.#child.kill(signal);
    const log: unknown[] = [];
    for (let event = await this.nextEvent(); event !== null; event = await this.nextEvent()) {
      log.push(event);
    }
    const { code } = await this.#child.status;
    return { code, log };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    for (let line = await this.#lines.next(); !line.done; line = await this.#lines.next());
    await this.#child.status;
  }
}

/** The lines of a stream of UTF-8. */
export async function* linesOf(
  stream: ReadableStream<BufferSource>,
): AsyncGenerator<string, undefined> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
  if (rest !== "") yield rest;
  return undefined;
}
