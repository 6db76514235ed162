/**
 * The real programs in a real terminal, which is tmux's, with a shell in it.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { commandLine, compiled, type Program, ServeProcess, SOURCE } from "../scripts/program.ts";
import { encodePacket } from "../src/ntp/packet.ts";
import { answeringBytes, FakeServer } from "./fake_server.ts";
import { PATIENCE } from "./slowness.ts";

/** What is seen: lines, and whether on the other page and with a cursor. */
interface Look {
  readonly lines: readonly string[];
  readonly alternate: boolean;
  readonly cursor: boolean;
}

class Terminal implements AsyncDisposable {
  readonly #socket = `tsync-${crypto.randomUUID()}`;
  readonly #record = Deno.makeTempFileSync();

  /** An interactive shell. */
  static async open(): Promise<Terminal> {
    const terminal = new Terminal();
    const shell = ["env", "-u", "NO_COLOR", "PS1=$ ", "sh"];
    const size = ["-x", "70", "-y", "14"];
    await terminal.tmux("-f", "/dev/null", "new-session", "-d", ...size, ...shell);
    await terminal.tmux("pipe-pane", `cat >'${terminal.#record}'`);
    return terminal;
  }

  async tmux(...args: string[]): Promise<string> {
    const command = new Deno.Command("tmux", { args: ["-L", this.#socket, ...args] });
    return new TextDecoder().decode((await command.output()).stdout).trimEnd();
  }

  async type(line: string): Promise<void> {
    await this.tmux("send-keys", "-l", line);
    await this.press("Enter");
  }

  async press(key: string): Promise<void> {
    await this.tmux("send-keys", key);
  }

  /** Every byte that came. */
  get bytes(): string {
    return Deno.readTextFileSync(this.#record);
  }

  async look(): Promise<Look> {
    const show = ["display-message", "-p", "#{alternate_on} #{cursor_flag}"];
    // At once, so that all of it is of the same moment.
    const [flags, ...lines] = (await this.tmux(...show, ";", "capture-pane", "-p")).split("\n");
    const [alternate, cursor] = flags!.split(" ").map((flag) => flag === "1");
    return { lines, alternate: alternate!, cursor: cursor! };
  }

  /** Waits for bytes: lines may be wider than the terminal. */
  async said(text: string): Promise<void> {
    await this.until(() => this.bytes.includes(text));
  }

  async until(condition: (look: Look) => boolean | Promise<boolean>): Promise<Look> {
    for (let looks = 0;; looks++) {
      const look = await this.look();
      if (await condition(look)) return look;
      if (looks === 1000) {
        throw new Error(`it never showed what it should: ${JSON.stringify(look, null, 1)}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Has the shell run a command. @returns Its process. */
  async start(command: string): Promise<string> {
    const started = this.bytes.length;
    await this.type(`sh -c 'echo "pid: $$"; exec "$0" "$@"' ${command}; echo "it ended: $?"`);
    const pid = () => /pid: (\d+)\r\n/.exec(this.bytes.slice(started))?.[1];
    await this.until(() => pid() !== undefined);
    return pid()!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.tmux("kill-server");
    await Deno.remove(this.#record);
  }
}

const has = (text: string) => ({ lines }: Look) => lines.some((line) => line.includes(text));
const drawn = (look: Look) => look.alternate && !look.cursor && has("next poll")(look);
const givenBack = ({ alternate, cursor }: Look) => !alternate && cursor;

/** Is it stopped, as the system sees it? */
async function isStopped(pid: string): Promise<boolean> {
  const { stdout } = await new Deno.Command("ps", { args: ["-o", "stat=", "-p", pid] }).output();
  return new TextDecoder().decode(stdout).startsWith("T");
}

function hasTmux(): boolean {
  try {
    return new Deno.Command("tmux", { args: ["-V"] }).outputSync().success;
  } catch {
    return false;
  }
}

const TMUX = hasTmux();
if (!TMUX) console.log("there is no tmux here: the terminal is not tried");
for (const program of [SOURCE, ...compiled() === null ? [] : [compiled()!]]) {
  if (TMUX) testProgram(program);
}

function quoted({ executable, args }: Program, ...command: string[]): string {
  return [executable, ...commandLine({ name: "", executable, args }, command)]
    .map((word) => `'${word}'`).join(" ");
}

function testProgram(program: Program): void {
  const test = (name: string, body: (terminal: Terminal) => Promise<void>) =>
    Deno.test(`${program.name}: in a real terminal ${name}`, async () => {
      await using terminal = await Terminal.open();
      await body(terminal);
    });
  const sync = (...args: string[]) => quoted(program, "sync", ...args);

  test("the panel is drawn, fits when it is resized, and goes", async (terminal) => {
    await using server = await ServeProcess.start(program);
    await terminal.type(`echo before; ${sync("--watch", server.address)}; echo "it ended: $?"`);
    const first = await terminal.until(drawn);
    assertEquals(first.lines[0]!.trim(), "state        synchronised");
    assert(!has("before")(first), "it has a page of its own");
    await terminal.tmux("resize-window", "-x", "36", "-y", "8");
    const narrow = await terminal.until(({ lines }) =>
      lines.every((line) => line.length <= 36) &&
      /^server {7}127\.0\.0\.1:\d+ +tcp [\d.]*…$/.test(lines[1] ?? "") &&
      /^server time {2}\d{4}-/.test(lines[2] ?? "")
    );
    assertEquals(narrow.lines[0]!.trim(), "state        synchronised");
    await terminal.tmux("resize-window", "-x", "70", "-y", "14");
    await terminal.press("C-c");
    const after = await terminal.until(has("it ended: 0"));
    assert(givenBack(after) && has("before")(after) && has("offset")(after));
    assert(!has("next poll")(after));
  });

  test("it shows whom it tells the time, and leaves what chronyd should be told", async (terminal) => {
    await using server = await ServeProcess.start(program);
    const shared = await Deno.makeTempFile();
    const feeds = ["--refclock", "/nowhere/sock", "--clockbound", shared];
    const command = sync("--watch", ...feeds, server.address);
    await terminal.type(`${command}; echo "it ended: $?"`);
    await terminal.until((look) =>
      drawn(look) && has("chronyd      not fed: there is no socket /nowhere/sock;")(look) &&
      has(`clockbound   ${shared}`)(look)
    );
    assert(!terminal.bytes.includes("tsync: "), "the panel is not disturbed");
    await terminal.press("C-c");
    await terminal.until(has("it ended: 0"));
    await terminal.said("tsync: chrony.conf should say: refclock SOCK /nowhere/sock ");
    await Deno.remove(shared);
  });

  test("Ctrl-Z gives the terminal back and stops, and fg takes it again", async (terminal) => {
    await using server = await ServeProcess.start(program);
    const pid = await terminal.start(sync("--watch", server.address));
    await terminal.until(drawn);
    await terminal.press("C-z");
    await terminal.until((look) => givenBack(look) && has("it ended: 1")(look));
    assert(await isStopped(pid));
    await terminal.until(() => {
      const last = (sequence: string) => terminal.bytes.lastIndexOf(`\x1b[?${sequence}`);
      return last("25h\x1b[?1049l") > Math.max(last("25l"), last("1049h"));
    });
    // In the background it may not draw.
    await terminal.type("clear; bg; echo conti''nued");
    await terminal.until(has("continued"));
    await terminal.until(() => isStopped(pid));
    assert(givenBack(await terminal.look()));
    await terminal.type("clear");
    for (let i = 0; i < 2; i++) {
      await terminal.type(`fg; echo "it ended: $?"`);
      await terminal.until(drawn);
      await terminal.press("C-z");
      await terminal.until((look) => givenBack(look) && has("it ended: 1")(look));
      assert(await isStopped(pid));
      await terminal.type("clear");
      await terminal.until((look) => !has("it ended")(look));
    }
    await terminal.type(`fg; echo "it ended: $?"`);
    await terminal.until(drawn);
    await terminal.press("C-c");
    await terminal.until((look) => givenBack(look) && has("it ended: 0")(look));
  });

  test("Ctrl-Z stops nobody whom no shell could continue", async (terminal) => {
    await using server = await ServeProcess.start(program);
    const watch = sync("--watch", server.address);
    // A shell without job control.
    await terminal.type(`exec sh -c 'trap : INT; "$0" "$@"; echo "it ended: $?"; cat' ${watch}`);
    await terminal.until(drawn);
    await terminal.press("C-z");
    await terminal.until(() => terminal.bytes.split("\x1b[?1049h").length === 3);
    await terminal.until(drawn);
    await terminal.press("C-c");
    await terminal.until((look) => givenBack(look) && has("it ended: 0")(look));
  });

  test("Ctrl-Z does what it does anyway where no panel is drawn", async (terminal) => {
    await using server = await ServeProcess.start(program);
    const asked = Promise.withResolvers<void>();
    await using silent = new FakeServer(async (connection) => {
      while (await connection.read(new Uint8Array(48)) !== null) asked.resolve();
    });
    const continued = async (pid: string, status: number) => {
      await terminal.press("C-z");
      await terminal.until(() => isStopped(pid));
      await terminal.type(`clear; fg; echo "it ended: $?"`);
      await terminal.until(async () => !await isStopped(pid));
      await terminal.press("C-c");
      await terminal.until(has(`it ended: ${status}`));
    };
    const watch = await terminal.start(`env NO_COLOR=1 ${sync("--watch", server.address)}`);
    await terminal.said("  synchronised  next in ");
    await continued(watch, 0);
    const once = await terminal.start(sync("--timeout", "999", silent.address));
    await asked.promise;
    await continued(once, 130);
  });

  test("--watch says why it ends where nobody answers and --max-offset is to be met", async (terminal) => {
    const args = ["--watch", "--max-offset", "1", "127.0.0.1:1"];
    await terminal.type(`${sync(...args)}; echo "it ended: $?"`);
    const after = await terminal.until(has("it ended: 1"));
    assert(givenBack(after) && has("tsync: 127.0.0.1:1 cannot be reached")(after));
    await terminal.said("\x1b[?1049h");
  });

  for (const term of ["TERM=dumb", "TERM=", "env -u TERM"]) {
    test(`\`${term}\` makes lines of all`, async (terminal) => {
      await using server = await ServeProcess.start(program);
      let shown = "measuring\r\n";
      await using slow = new FakeServer(answeringBytes(
        (_, good) => encodePacket(good),
        async (connection, bytes) => {
          await terminal.said(shown);
          await connection.write(bytes);
        },
      ));
      const watch = sync("--watch", "--interval", "0.05", server.address);
      const once = sync("--samples", "1", "--timeout", PATIENCE, slow.address);
      await terminal.type(`${term} ${watch}; ${term} ${once}; echo "it ended: $?"`);
      await terminal.said("  synchronised  next in 50.0 ms\r\n");
      await terminal.press("C-c");
      await terminal.said("it ended: 0\r\n");
      for (const drawn of ["[?1049h", "[?25l", "[K", "[1m", "[2m"]) {
        assert(!terminal.bytes.includes(`\x1b${drawn}`), drawn);
      }
      // As it is for this terminal.
      shown = "\r\x1b[Kmeasuring";
      await terminal.type(`${once}; echo "it ended: again $?"`);
      await terminal.said("it ended: again 0\r\n");
      await terminal.said("\x1b[1m");
    });
  }
}

Deno.test("in a real terminal Ctrl-Z gives it back even without libc", async () => {
  if (!TMUX) return;
  const args = SOURCE.args.filter((arg) => !arg.startsWith("--allow-ffi"));
  await using terminal = await Terminal.open();
  await using server = await ServeProcess.start(SOURCE);
  const watch = quoted({ ...SOURCE, args }, "sync", "--watch", server.address);
  await terminal.type(`${watch}; echo "it ended: $?"`);
  await terminal.until(drawn);
  await terminal.press("C-z");
  await terminal.said("printing a line per poll instead");
  assert(givenBack(await terminal.look()));
  await terminal.said("  synchronised  next in ");
  await terminal.press("C-c");
  await terminal.until((look) => givenBack(look) && has("it ended: 0")(look));
});
