import { assert, assertEquals } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { serve } from "../src/mod.ts";
import { systemClock } from "../src/clock/system_clock.ts";
import { decodePacket, encodeRequest, viewOf } from "../src/ntp/packet.ts";
import { fromTimestamp } from "../src/ntp/timestamp.ts";
import { announcement, respond, stampTransmit } from "../src/serve/respond.ts";

systemClock(); // Opened here once, not in the first test that needs it.

const now = 1795342503_123456789n;
const disciplined = {
  synchronised: true,
  leap: "insert",
  maximumError: 0.0015,
  estimatedError: 0.00002,
} as const;

describe("announcement()", () => {
  const announce = (...args: Parameters<typeof announcement>) =>
    decodePacket(announcement(...args));

  it("says of a synchronised host what the kernel says", () => {
    const { leap, stratum, rootDispersion, precision, referenceId, reference } = announce(
      disciplined,
      40e-9,
      now,
    );
    assertEquals([leap, stratum, precision], ["insert", 2, -24]);
    assert(rootDispersion >= 0.0015 && rootDispersion < 0.0016);
    assertEquals(referenceId, 0x4c4f434c);
    assertEquals(fromTimestamp(reference, now), now);
  });

  it("makes an unsynchronised host's clock the reference, at stratum 10", () => {
    for (const discipline of [null, { ...disciplined, synchronised: false, maximumError: 16 }]) {
      const { leap, stratum, rootDispersion } = announce(discipline, 1e-6, now);
      assertEquals([leap, stratum], ["none", 10]);
      assert(rootDispersion < 1e-4);
    }
  });

  it("announces the stratum that it is told", () => {
    assertEquals(announce(disciplined, 1e-6, now, 5).stratum, 5);
    assertEquals(announce(null, 1e-6, now, 1).stratum, 1);
  });
});

describe("respond()", () => {
  it("answers in the request's version and copies poll and transmit", () => {
    const request = new Uint8Array(48);
    encodeRequest(request, 0x0123456789abcdefn);
    request[0] = 0xdb; // Leap indicator 3, version 3, mode 3.
    request[2] = 6;
    const reply = new Uint8Array(48).fill(0xaa);
    respond(request, reply, announcement(disciplined, 40e-9, now), now);
    stampTransmit(reply, now + 5n);
    const packet = decodePacket(reply);
    assertEquals([packet.leap, packet.version, packet.mode, packet.poll], ["insert", 3, 4, 6]);
    assertEquals(packet.origin, 0x0123456789abcdefn);
    assertEquals(fromTimestamp(packet.receive, now), now);
    assertEquals(fromTimestamp(packet.transmit, now), now + 5n);
  });
});

Deno.test("serve() counts, tells of refusals at most once a second, and of the rest in the end", async () => {
  const events: unknown[] = [];
  const server = await serve({
    hosts: ["127.0.0.1"],
    port: 0,
    onEvent: (event) => events.push(event),
  });
  const { port } = server.addresses[0]!;
  for (let i = 0; i < 3; i++) {
    using connection = await Deno.connect({ hostname: "127.0.0.1", port });
    await connection.write(Uint8Array.of(0xff));
    assertEquals(await connection.read(new Uint8Array(1)), null);
  }
  await server.stop();
  await server.stop();
  assertEquals(events, [
    { event: "listening", transport: "tcp", address: `127.0.0.1:${port}` },
    { event: "refused", reason: "version", count: 1 },
    { event: "refused", reason: "version", count: 2 },
    { event: "stopped", connections: 3, replies: 0 },
  ]);
  assertEquals(server.counters.refusals.version, 3);
});

Deno.test("serve() finishes a request that is half here when it is stopped", async () => {
  const server = await serve({ hosts: ["127.0.0.1"], port: 0 });
  const { port } = server.addresses[0]!;
  using connection = await Deno.connect({ hostname: "127.0.0.1", port });
  const request = new Uint8Array(48);
  encodeRequest(request, 1n);
  // A whole exchange first, so that the server is known to have accepted.
  await connection.write(request);
  await connection.read(new Uint8Array(48));
  await connection.write(request.subarray(0, 20));
  using other = await Deno.connect({ hostname: "127.0.0.1", port });
  await other.write(request);
  await other.read(new Uint8Array(48));
  const stopped = server.stop();
  await connection.write(request.subarray(20));
  const reply = new Uint8Array(48);
  assertEquals(await connection.read(reply), 48);
  assertEquals(viewOf(reply).getBigUint64(24), 1n);
  await stopped;
  assertEquals(server.counters.replies, 3);
});

Deno.test("serve() listens nowhere if it cannot listen everywhere", async () => {
  const taken = Deno.listen({ hostname: "127.0.0.2", port: 0 });
  const { port } = taken.addr;
  let message = "";
  try {
    await serve({ hosts: ["127.0.0.1", "127.0.0.2"], port });
  } catch (error) {
    message = (error as Error).message;
  }
  taken.close();
  assertEquals(
    message.startsWith(`cannot listen on 127.0.0.2:${port}: the address is in use`),
    true,
  );
  Deno.listen({ hostname: "127.0.0.1", port }).close();
});
