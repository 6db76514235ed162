/**
 * One exchange with an NTP server over UDP.
 *
 * @module
 */

import type { Clock, Timers } from "../clock/clock.ts";
import { OFFSET, PACKET_SIZE } from "../ntp/packet.ts";
import type { SocketAddress } from "./address.ts";
import type { DatagramNetwork, Stamps } from "./network.ts";

/** Seconds until a request or its reply counts as lost. */
const LOST_SECONDS = 1;

/** A request or its reply was lost. The message starts with a verb. */
export class LostDatagram extends Error {
  override readonly name = "LostDatagram";
}

/**
 * Sends a request from a port of its own and waits for the reply. A datagram
 * whose origin is not the request's transmit field is late, duplicated or
 * forged, and ignored.
 *
 * @param reply Receives the reply, 48 bytes.
 * @throws {LostDatagram} if none comes in time.
 * @throws {Deno.errors.ConnectionRefused} if nothing listens on the server's port.
 * @throws The signal's reason if it is aborted.
 */
export async function exchangeDatagrams(
  network: DatagramNetwork,
  server: SocketAddress,
  request: Uint8Array<ArrayBuffer>,
  reply: Uint8Array,
  clock: Clock,
  timers: Timers,
  signal: AbortSignal,
): Promise<Stamps> {
  signal.throwIfAborted();
  const port = network.openDatagrams(server, clock);
  const close = () => port.close();
  const cancel = timers.after(LOST_SECONDS, close);
  signal.addEventListener("abort", close);
  try {
    const departed = clock.monotonic();
    port.send(request);
    for (;;) {
      const datagram = await port.receive(reply);
      signal.throwIfAborted();
      if (datagram === null) throw new LostDatagram("did not answer");
      if (datagram.length !== PACKET_SIZE || !belongs(reply, request)) continue;
      return { departed, arrived: datagram.arrived, by: datagram.by };
    }
  } finally {
    signal.removeEventListener("abort", close);
    cancel();
    port.close();
  }
}

function belongs(reply: Uint8Array, request: Uint8Array): boolean {
  for (let i = 0; i < 8; i++) {
    if (reply[OFFSET.origin + i] !== request[OFFSET.transmit + i]) return false;
  }
  return true;
}
