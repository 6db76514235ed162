/**
 * What `tsync sync --watch --http` shows: metrics, health and the time; and
 * what promtool and Prometheus make of it.
 *
 * @module
 */

import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import {
  commandLine,
  compiled,
  linesOf,
  type Program,
  run,
  ServeProcess,
  SOURCE,
} from "../scripts/program.ts";
import { parseCommandLine, UsageError } from "../src/cli/args.ts";
import { WatchSite } from "../src/cli/watch_http.ts";
import { systemClock } from "../src/clock/system_clock.ts";
import { type ClockOffset, SyncedClock, type SyncedTime } from "../src/clock/synced_clock.ts";
import type { ServerReport, Update } from "../src/mod.ts";
import { answering, FakeServer, units } from "./fake_server.ts";

const program = compiled() ?? SOURCE;

const NOW: SyncedTime = { time: 1_795_342_503_123_456_789n, earliest: 1n, latest: 2n };

const OFFSET: ClockOffset = {
  localTime: NOW.time,
  offset: -0.2,
  errorBound: 0.05,
  frequency: 12.5e-6,
  frequencyBound: 17e-6,
};

/** A clock that is kept, or not. */
class Kept {
  isValid = false;

  now(): SyncedTime | null {
    return this.isValid ? NOW : null;
  }

  systemOffset(): ClockOffset | null {
    return this.isValid ? OFFSET : null;
  }
}

function updateOf(
  news: Update["news"],
  state: Update["state"],
  ...servers: Pick<ServerReport, "status" | "error">[]
): Update {
  const synchronised = servers.some(({ status }) => status === "truechimer");
  const reports = servers.map((server) => ({ ...server, figures: null }));
  return { fix: { synchronised, servers: reports }, news, state } as unknown as Update;
}

const GOOD = { status: "truechimer", error: null } as const;
const GONE = { status: "unreachable", error: "cannot reach a: connection refused" } as const;

/** The values of a text of metrics, by what stands before them. */
function valuesOf(text: string): Map<string, number> {
  const lines = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(lines.map((line) => {
    const end = line.lastIndexOf(" ");
    return [line.slice(0, end), Number(line.slice(end + 1))];
  }));
}

Deno.test("/healthz and /now say what is wrong with a kept clock", () => {
  const clock = new Kept();
  const site = new WatchSite(clock, undefined, 0n);
  const health = () => {
    const { status, body } = site.respond("/healthz");
    const now = site.respond("/now");
    if (clock.isValid) assertEquals(now.status, 200);
    else assertEquals([now.status, now.body], [status, body], "/now says the same");
    assertEquals(valuesOf(site.respond("/metrics").body).get("tsync_healthy"), +(status === 200));
    return [status, body.trimEnd()];
  };
  assertEquals(health(), [503, "the time is not known: no poll has ended yet"]);
  site.update(updateOf("lost", "synchronising", GONE));
  assertEquals(health(), [503, "the time is not known: cannot reach a: connection refused"]);
  site.update(updateOf("first", "synchronised", GOOD));
  assertEquals(health(), [
    503,
    "the time is not known: the local clock was set, or the machine slept",
  ]);
  clock.isValid = true;
  assertEquals(health(), [200, "ok"]);
  assertEquals(
    site.respond("/now").body,
    `{"time":"${NOW.time}","earliest":"${NOW.earliest}","latest":"${NOW.latest}"}`,
  );
  site.update(updateOf("lost", "holdover", GONE, { status: "unreachable", error: "b is gone" }));
  assertEquals(health(), [
    503,
    "the last poll made no fix, and the kept clock goes on alone: cannot reach a: connection " +
    "refused; b is gone",
  ]);
  assertEquals(site.respond("/").status, 404);
});

Deno.test("/now does not stand still when a server was set back", () => {
  const at = 10n ** 18n;
  const clock = { realtime: () => at, monotonic: () => at, precision: 1e-9, state: () => null };
  const kept = new SyncedClock(clock);
  const site = new WatchSite(kept, undefined, 0n);
  for (const ahead of [3_600_000_000_000n, 0n]) {
    const bounds = { lower: ahead - 5n, upper: ahead + 5n };
    const frequency = { frequency: 0, frequencyBound: 0, frequencyRange: { lower: 0, upper: 0 } };
    kept.set({ at, offset: ahead, ...bounds, ...frequency });
    const [time, earliest, latest] = [ahead, ahead - 5n, ahead + 5n].map((each) => at + each);
    assertEquals(
      JSON.parse(site.respond("/now").body),
      { time: `${time}`, earliest: `${earliest}`, latest: `${latest}` },
    );
  }
});

Deno.test("with --max-offset, /healthz goes by that alone, in holdover too", () => {
  const clock = new Kept();
  const rows: [number, number, string][] = [
    [0.2499, 503, "the local clock may be off by 250 ms, more than the 250 ms allowed by"],
    [0.25, 200, "ok"],
  ];
  for (const [most, status, body] of rows) {
    clock.isValid = false;
    const site = new WatchSite(clock, most, 0n);
    assertEquals(site.respond("/healthz").status, 503);
    clock.isValid = true;
    for (const state of ["synchronised", "holdover"] as const) {
      site.update(updateOf("agrees", state, state === "holdover" ? GONE : GOOD));
      const response = site.respond("/healthz");
      assertEquals(response.status, status, `${most}`);
      assert(response.body.startsWith(body), response.body);
    }
  }
});

Deno.test("/metrics of a kept clock", () => {
  const clock = new Kept();
  const site = new WatchSite(clock, undefined, 1_795_342_503_123_456_789n);
  const kept = () => {
    const values = [...valuesOf(site.respond("/metrics").body)];
    return Object.fromEntries(
      values.filter(([name, value]) =>
        /^tsync_sync|start/.test(name) && (value !== 0 || !name.includes("{"))
      ),
    );
  };
  const start = { process_start_time_seconds: 1795342503.123 };
  assertEquals(kept(), { ...start, 'tsync_sync_state{state="synchronising"}': 1 });
  site.update(updateOf("first", "synchronised", GOOD, GOOD, GONE));
  clock.isValid = true;
  const figures = {
    ...start,
    tsync_sync_offset_seconds: -0.2,
    tsync_sync_error_bound_seconds: 0.05,
    tsync_sync_frequency_ppm: 12.5,
    tsync_sync_frequency_bound_ppm: 17,
    'tsync_sync_polls_total{outcome="first"}': 1,
  };
  assertEquals(kept(), {
    ...figures,
    'tsync_sync_state{state="synchronised"}': 1,
    'tsync_sync_servers{status="truechimer"}': 2,
    'tsync_sync_servers{status="unreachable"}': 1,
  });
  for (let i = 0; i < 2; i++) site.update(updateOf("minority", "holdover"));
  site.update(updateOf("lost", "holdover", { status: "falseticker", error: null }));
  assertEquals(kept(), {
    ...figures,
    'tsync_sync_polls_total{outcome="minority"}': 2,
    'tsync_sync_polls_total{outcome="lost"}': 1,
    'tsync_sync_state{state="holdover"}': 1,
    'tsync_sync_servers{status="falseticker"}': 1,
  });
  clock.isValid = false;
  assertEquals(kept()['tsync_sync_state{state="synchronising"}'], 1, "it is not valid");
});

/** `tsync sync --watch --http` as a process. */
class Watching implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #lines: AsyncIterator<string>;
  #url = "";

  private constructor(by: Program, args: readonly string[]) {
    this.#child = new Deno.Command(by.executable, {
      args: commandLine(by, ["sync", "--watch", "--json", "--http", "0", ...args]),
      stdout: "null",
      stderr: "piped",
    }).spawn();
    this.#lines = linesOf(this.#child.stderr);
  }

  static async start(...args: string[]): Promise<Watching> {
    const watching = new Watching(program, args);
    const line = await watching.next();
    const [, address] = /^tsync: listening on http (127\.0\.0\.1:\d+)$/.exec(line) ?? [];
    assert(address !== undefined, line);
    watching.#url = `http://${address}`;
    return watching;
  }

  get address(): string {
    return this.#url.slice("http://".length);
  }

  /** The next line that it says on stderr. */
  async next(): Promise<string> {
    const { value, done } = await this.#lines.next();
    assert(!done, "it ended");
    return value;
  }

  async get(path: string): Promise<[status: number, body: string]> {
    const response = await fetch(this.#url + path);
    return [response.status, (await response.text()).trimEnd()];
  }

  /** Asks `/healthz` until it says so. */
  async health(status: number): Promise<string> {
    for (;;) {
      const [now, body] = await this.get("/healthz");
      if (now === status) return body;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** @returns The exit status. */
  async end(): Promise<number> {
    this.#child.kill("SIGTERM");
    for (let line = await this.#lines.next(); !line.done; line = await this.#lines.next());
    return (await this.#child.status).code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end().catch(() => {}); // It has ended.
  }
}

Deno.test("--http shows a clock that is kept, lost, and found again", async () => {
  await using serving = new AsyncDisposableStack();
  const server = serving.use(await ServeProcess.start(program));
  await using watching = await Watching.start(server.address);
  assertEquals(await watching.health(200), "ok");
  const before = systemClock().realtime();
  const [status, body] = await watching.get("/now");
  const after = systemClock().realtime();
  assertEquals(status, 200);
  const { time, earliest, latest } = JSON.parse(body);
  // The server's clock is this machine's.
  assert(BigInt(earliest) <= after && BigInt(latest) >= before, `${body}, not ${before}-${after}`);
  assert(BigInt(earliest) <= BigInt(time) && BigInt(time) <= BigInt(latest), body);
  const values = valuesOf((await watching.get("/metrics"))[1]);
  assertEquals(values.get('tsync_sync_polls_total{outcome="first"}'), 1);
  assertEquals(values.get('tsync_sync_servers{status="truechimer"}'), 1);
  const offset = Math.abs(values.get("tsync_sync_offset_seconds")!);
  assert(offset <= values.get("tsync_sync_error_bound_seconds")!, "it is 0");
  const { port } = server;
  await serving.disposeAsync();
  assertMatch(await watching.health(503), /^the last poll made no fix, .*connection refused/);
  assertEquals((await watching.get("/now"))[0], 200, "it goes on alone");
  const again = ["--host", "127.0.0.1", "--port", String(port)];
  await using _ = await ServeProcess.start(program, again);
  assertEquals(await watching.health(200), "ok");
  assertEquals(await watching.end(), 0);
});

Deno.test("with --http, it is /healthz that says that --max-offset is not met", async () => {
  let ahead = 0.25;
  await using server = new FakeServer(answering((_, { receive, transmit }) => ({
    receive: receive + units(ahead),
    transmit: transmit + units(ahead),
  })));
  await using watching = await Watching.start("--max-offset", "0.2", server.address);
  const sentence = /^the local clock may be off by \d+ ms, more than the 200 ms allowed by /;
  let body = await watching.health(503);
  while (body.startsWith("the time is not known")) body = await watching.health(503);
  assertMatch(body, sentence);
  ahead = 0;
  assertEquals(await watching.health(200), "ok");
  assertEquals(await watching.end(), 0);
});

Deno.test("with --http and --max-offset, it goes on without a server", async () => {
  const taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const address = `127.0.0.1:${taken.addr.port}`;
  taken.close();
  await using watching = await Watching.start("--max-offset", "1", address);
  assertMatch(await watching.next(), /connection refused/);
  assertMatch(await watching.health(503), /^the time is not known: .*connection refused/);
  assertEquals(await watching.end(), 130);
});

Deno.test("--http of a client answers by the names that it is given", async () => {
  await using server = await ServeProcess.start(program);
  await using watching = await Watching.start("--http-host", "time.example", server.address);
  const port = Number(watching.address.split(":").at(-1));
  const answered = async (host: string) => {
    await using stack = new AsyncDisposableStack();
    const connection = await Deno.connect({ hostname: "127.0.0.1", port });
    stack.defer(() => connection.close());
    await connection.write(
      new TextEncoder().encode(`GET /metrics HTTP/1.1\r\nHost: ${host}\r\n\r\n`),
    );
    const bytes = new Uint8Array(12);
    await connection.read(bytes);
    return new TextDecoder().decode(bytes).slice(-3);
  };
  const statuses = await Promise.all(["time.example", "localhost", "evil.example"].map(answered));
  assertEquals(statuses, ["200", "200", "421"]);
});

Deno.test("--http of a client is an error where it cannot be had, and no server is asked", async () => {
  const taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = taken.addr;
  await using server = new FakeServer(answering(() => ({})));
  const args = ["sync", "--watch", "--http", String(port), server.address];
  const { code, stdout, stderr } = await run(program, ...args);
  taken.close();
  assertEquals([code, stdout], [1, ""]);
  assertEquals(
    stderr,
    `tsync: cannot listen on 127.0.0.1:${port}: the address is in use; stop the program that uses ` +
      "it, or choose another with --http\n",
  );
  assertEquals(server.connections, 0);
  const rows: [string[], string][] = [
    [["--http", "9123"], "--http needs --watch"],
    [["--watch", "--http-host", "a"], "--http-host needs --http"],
    [["--watch", "--http"], "--http needs a value, [ADDR:]PORT: "],
    [["--watch", "--http", "host"], "--http must be PORT, ADDR:PORT or [IPv6]:PORT, "],
    [["--watch", "--http", "1", "--http-host", "a b"], "--http-host must be a host name: "],
  ];
  for (const [flags, sentence] of rows) {
    assertThrows(() => parseCommandLine(["sync", ...flags]), UsageError, sentence);
  }
});

const textOf = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** Is there such a program? If not, says so. */
async function has(name: string): Promise<boolean> {
  const { success } = await new Deno.Command("sh", { args: ["-c", `command -v ${name}`] }).output();
  if (!success) console.log(`${name} is not here: not tried`);
  return success;
}

Deno.test("promtool has nothing to say of a client's /metrics", async () => {
  if (!await has("promtool")) return;
  await using server = await ServeProcess.start(program);
  await using watching = await Watching.start(server.address);
  await watching.health(200);
  const child = new Deno.Command("promtool", {
    args: ["check", "metrics"],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const input = child.stdin.getWriter();
  await input.write(new TextEncoder().encode(`${(await watching.get("/metrics"))[1]}\n`));
  await input.close();
  const { code, stdout, stderr } = await child.output();
  assertEquals([code, textOf(stdout), textOf(stderr)], [0, "", ""]);
});

/** Prometheus with this project's alerts, scraping one address each second. */
class Prometheus implements AsyncDisposable {
  readonly #folder: string;
  readonly #child: Deno.ChildProcess;
  readonly #lines: AsyncIterator<string>;
  #url = "";

  private constructor(folder: string) {
    this.#folder = folder;
    const args = [
      ...["--config.file", `${folder}/prometheus.yml`, "--storage.tsdb.path", `${folder}/data`],
      ...["--web.listen-address", "127.0.0.1:0"],
    ];
    this.#child = new Deno.Command("prometheus", { args, stdout: "null", stderr: "piped" }).spawn();
    this.#lines = linesOf(this.#child.stderr);
  }

  static async start(target: string): Promise<Prometheus> {
    const folder = await Deno.makeTempDir();
    const config = {
      global: { scrape_interval: "1s", evaluation_interval: "1s" },
      rule_files: [await Deno.realPath("docs/alerts.yml")],
      scrape_configs: [{ job_name: "tsync", static_configs: [{ targets: [target] }] }],
    };
    await Deno.writeTextFile(`${folder}/prometheus.yml`, JSON.stringify(config)); // Which is YAML.
    const prometheus = new Prometheus(folder);
    for (;;) {
      const { value, done } = await prometheus.#lines.next();
      if (done) throw new Error("prometheus did not start");
      const [, address] = /msg="Listening on".* address=(\S+)/.exec(value) ?? [];
      if (address !== undefined) prometheus.#url = `http://${address}`;
      if (/msg="Server is ready/.test(value)) return prometheus;
    }
  }

  /** The values of an expression, by their labels. */
  async query(expression: string): Promise<{ metric: Record<string, string>; value: number }[]> {
    const response = await fetch(
      `${this.#url}/api/v1/query?query=${encodeURIComponent(expression)}`,
    );
    const { status, data } = await response.json();
    assertEquals(status, "success", expression);
    return data.result.map((
      { metric, value }: { metric: Record<string, string>; value: string[] },
    ) => ({
      metric,
      value: Number(value[1]),
    }));
  }

  /** Asks until there is such a value. */
  async until(expression: string): Promise<void> {
    while ((await this.query(expression)).length === 0) {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGTERM");
    for (let line = await this.#lines.next(); !line.done; line = await this.#lines.next());
    await this.#child.status;
    await Deno.remove(this.#folder, { recursive: true });
  }
}

Deno.test("Prometheus scrapes a client, and its alerts notice that the server is lost", async () => {
  if (!await has("prometheus")) return;
  await using serving = new AsyncDisposableStack();
  const server = serving.use(await ServeProcess.start(program));
  await using watching = await Watching.start(server.address);
  await watching.health(200);
  await using prometheus = await Prometheus.start(watching.address);
  await prometheus.until('up{job="tsync"} == 1');
  await prometheus.until('tsync_sync_state{state="synchronised"} == 1');
  await prometheus.until("abs(tsync_sync_offset_seconds) <= tsync_sync_error_bound_seconds");
  await prometheus.until("absent(ALERTS)");
  // What the dashboard asks can be asked.
  const dashboard = await Deno.readTextFile("docs/grafana.json");
  for (const [, expression] of dashboard.matchAll(/"expr": "((?:[^"\\]|\\.)*)"/g)) {
    const asked = JSON.parse(`"${expression}"`).replaceAll("$__rate_interval", "1m")
      .replaceAll(/\$\w+/g, ".*");
    const found = await prometheus.query(asked);
    if (/tsync_sync_(?!polls)/.test(asked)) assert(found.length > 0, `nothing is found: ${asked}`);
  }
  await serving.disposeAsync();
  await prometheus.until('ALERTS{alertname="TsyncWithoutFix",alertstate="pending"}');
  await prometheus.until('ALERTS{alertname="TsyncUnhealthy",alertstate="pending"}');
});
