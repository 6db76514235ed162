/**
 * What `run.sh system` needs of the host besides tsync itself: a release over
 * HTTP, laid out as GitHub's are, and a server before a leap second. It ends
 * when its input does.
 *
 * @module
 */

import { systemClock } from "../../src/clock/system_clock.ts";
import { SECOND, toTimestamp } from "../../src/ntp/timestamp.ts";
import { answering, FakeServer } from "../fake_server.ts";

const [release] = Deno.args;
const { port } = Deno.serve(
  { hostname: "127.0.0.1", port: 0, onListen: () => {} },
  async (request) => {
    const [, name] = new URL(request.url).pathname.split("/latest/download/");
    try {
      return new Response((await Deno.open(`${release}/${name}`)).readable);
    } catch {
      return new Response(null, { status: 404 });
    }
  },
).addr;
console.log(`releases=http://10.0.2.2:${port}`);

/** Seconds before the leap second at which the first request finds the clock. */
const BEFORE = 60n;

const LEAP = BigInt(Date.UTC(2028, 11, 31, 24)) * 1_000_000n;
const clock = systemClock();
let ahead: bigint | null = null;
const server = new FakeServer(answering(() => {
  ahead ??= LEAP - BEFORE * SECOND - clock.realtime();
  const time = clock.realtime() + ahead;
  const isOver = time >= LEAP + SECOND;
  const stamp = toTimestamp(time >= LEAP ? time - SECOND : time);
  return { leap: isOver ? "none" : "insert", reference: stamp, receive: stamp, transmit: stamp };
}));
console.log(`leaping=${server.address.replace("127.0.0.1", "10.0.2.2")}`);
for await (const _ of Deno.stdin.readable);
Deno.exit();
