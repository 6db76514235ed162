/**
 * The status page of the real program in a real browser: Debian's Chromium,
 * headless. `SCREENSHOTS=DIR` keeps what it looks like.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { type Browser, chromium, type Page } from "playwright-core";
import { compiled, run, ServeProcess, SOURCE } from "../scripts/program.ts";

const CHROMIUM = "/usr/bin/chromium";

/** It is to ask nobody but the page's server. */
const QUIET = [
  ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"],
  ...["--disable-background-networking", "--disable-component-update"],
];

const program = compiled() ?? SOURCE;
const LOOPBACK = ["--host", "127.0.0.1", "--port", "0"];

async function isThere(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch {
    console.log(`${path} is not here: the page is not tried in a browser`);
    return false;
  }
}

const there = await isThere(CHROMIUM);

/** A page that is watched, and what it did that it should not. */
async function openPage(browser: Browser, url: string, options = {}) {
  const page = await browser.newPage(options);
  const complaints: string[] = [];
  page.on("console", (message) => {
    if (message.type() === "error") complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith("data:")) {
      complaints.push(`it asks for ${request.url()}`);
    }
  });
  return { page, complaints };
}

/** The offset and its bound as they are displayed, in seconds. */
async function displayed(page: Page): Promise<{ offset: number; bound: number }> {
  await page.waitForFunction(() =>
    document.getElementById("details")!.textContent!.includes("offset")
  );
  const text = (await page.textContent("#details"))!.replaceAll("\u00a0", " ");
  const [, sign, offset, bound] = /^offset ([+−]?)(.*) ± (\S+ \S+) \(/.exec(text)!;
  const lengths: Record<string, number> = {
    "µs": 1e-6,
    ms: 1e-3,
    s: 1,
    min: 60,
    h: 3600,
    d: 86_400,
  };
  const seconds = (text: string) =>
    [...text.matchAll(/([\d.]+) (\S+)/g)].reduce(
      (sum, [, count, unit]) => sum + Number(count) * lengths[unit!]!,
      0,
    );
  return { offset: seconds(offset!) * (sign === "−" ? -1 : 1), bound: seconds(bound!) };
}

declare const document: {
  getElementById(id: string): { textContent: string | null } | null;
  querySelector(selector: string): { getAttribute(name: string): string | null } | null;
  documentElement: { scrollWidth: number };
};

/** A test with a browser and a server; a page is no resource of the test's own. */
function test(
  name: string,
  body: (browser: Browser, server: ServeProcess, url: string) => Promise<void>,
) {
  Deno.test({
    name: `the page, served by the ${program.name} program: ${name}`,
    ignore: !there,
    sanitizeOps: false,
    sanitizeResources: false,
    async fn() {
      await using server = await ServeProcess.start(program, [...LOOPBACK, "--http", "0"]);
      const url = `http://${await server.nextAddress()}/`;
      const browser = await chromium.launch({ executablePath: CHROMIUM, args: QUIET });
      try {
        await body(browser, server, url);
      } finally {
        await browser.close();
      }
    },
  });
}

test("its clock is the server's, and it shows so", async (browser, _, url) => {
  for (let i = 0; i < 5; i++) {
    const { page, complaints } = await openPage(browser, url);
    await page.goto(url);
    const { offset, bound } = await displayed(page);
    assert(Math.abs(offset) <= bound, `offset ${offset} s ± ${bound} s`);
    const shown = await page.textContent("#clock");
    await page.waitForFunction(
      (shown) => document.getElementById("clock")!.textContent !== shown,
      shown,
    );
    assertEquals(complaints, []);
    await page.close();
  }
});

for (const shift of [1000, -1000, 125_000, -90_061_000]) {
  test(`with a clock shifted by ${shift} ms it shows that`, async (browser, _, url) => {
    const { page, complaints } = await openPage(browser, url);
    await page.addInitScript((shift) => {
      const { now } = Date;
      Date.now = () => now() + shift;
    }, shift);
    await page.goto(url);
    const { offset, bound } = await displayed(page);
    assert(Math.abs(offset + shift / 1000) <= bound, `offset ${offset} s ± ${bound} s`);
    const verdict = (await page.textContent("#verdict"))!;
    assert(verdict.includes(shift > 0 ? "fast" : "slow"), verdict);
    assertEquals(complaints, []);
  });
}

test("a clock that is set is noticed at the next look", async (browser, _, url) => {
  const { page } = await openPage(browser, url);
  await page.addInitScript(() => {
    const { now } = Date;
    Date.now = () => now() + ((globalThis as { shift?: number }).shift ?? 0);
  });
  await page.goto(url);
  await displayed(page);
  await page.evaluate(() => {
    (globalThis as { shift?: number }).shift = 60_000;
  });
  await page.waitForSelector("#verdict:has-text('fast')");
  const { offset, bound } = await displayed(page);
  assert(Math.abs(offset + 60) <= bound, `offset ${offset} s ± ${bound} s`);
});

test("it shows the server even if the clock cannot be measured", async (browser, server, url) => {
  const { page } = await openPage(browser, url);
  await page.addInitScript(() => {
    Date.now = () => 0;
  });
  await page.goto(url);
  await page.waitForSelector("#verdict:has-text('Your clock cannot be measured')");
  assert(await page.isHidden("#trouble"));
  await page.waitForSelector(`#facts:has-text('${server.address}')`);
});

test("charts under load, at any width", async (browser, server, url) => {
  const { page, complaints } = await openPage(browser, url);
  await page.goto(url);
  const load = run(program, "sync", server.address, "--samples", "3500", "--quiet");
  await page.waitForFunction(() => {
    const points = document.querySelector("#replies-chart polyline")?.getAttribute("points") ?? "";
    const text = document.getElementById("replies-chart")?.textContent ?? "";
    return points.split(" ").length > 2 &&
      Number(/peak ([\d,]+)/.exec(text)?.[1]?.replace(",", "")) > 100;
  });
  assertEquals((await load).code, 0);
  const refused = await Deno.connect({ hostname: "127.0.0.1", port: server.port });
  await refused.write(new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"));
  refused.close();
  await page.waitForFunction(() =>
    document.getElementById("reasons")!.textContent!.includes("version")
  );
  assertEquals(complaints, []);
  const directory = Deno.env.get("SCREENSHOTS");
  for (const [name, width, height] of [["phone", 390, 844], ["desktop", 1100, 900]] as const) {
    for (const colorScheme of ["light", "dark"] as const) {
      const viewport = { width, height };
      const { page, complaints } = await openPage(browser, url, { viewport, colorScheme });
      await page.goto(url);
      await displayed(page);
      assert(await page.evaluate(() => document.documentElement.scrollWidth) <= width, name);
      if (directory !== undefined) {
        await page.screenshot({
          path: `${directory}/page-${name}-${colorScheme}.png`,
          fullPage: true,
        });
      }
      assertEquals(complaints, []);
      await page.close();
    }
  }
});

test("it says that the server cannot be reached, and recovers", async (browser, server, url) => {
  const { page } = await openPage(browser, url);
  await page.goto(url);
  await displayed(page);
  assert(await page.isHidden("#trouble"));
  assertEquals(await server.end(), 0);
  await page.waitForSelector("#trouble:has-text('cannot be reached')");
  const before = await page.textContent("#details");
  const port = new URL(url).port;
  await using _ = await ServeProcess.start(program, [...LOOPBACK, "--http", port]);
  await page.waitForSelector("#trouble", { state: "hidden" });
  await page.waitForFunction(
    (before) => document.getElementById("details")!.textContent !== before,
    before,
  );
  const { offset, bound } = await displayed(page);
  assert(Math.abs(offset) <= bound, `offset ${offset} s ± ${bound} s`);
});
