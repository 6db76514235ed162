/**
 * One exchange with an NTP server over UDP.
 *
 * @module
 */

import type { Clock, Timers } from "../clock/clock.ts";
import { isAuthentic, type MessageKey } from "../ntp/mac.ts";
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
 * @param reply Receives the reply, as long as the request.
 * @param key The key of its MAC; `null` if it has none. A reply without the right MAC is returned only
 * if no other comes in time: it may be somebody else's.
 * @throws {LostDatagram} if none comes in time.
 * @throws {Deno.errors.ConnectionRefused} if nothing listens on the server's port.
 * @throws The signal's reason if it is aborted.
 */
export async function exchangeDatagrams(
  network: DatagramNetwork,
  server: SocketAddress,
  request: Uint8Array<ArrayBuffer>,
  reply: Uint8Array,
  key: MessageKey | null,
  clock: Clock,
  timers: Timers,
  signal: AbortSignal,
): Promise<Stamps> {
  signal.throwIfAborted();
  const port = network.openDatagrams(server, clock);
  const close = () => port.close();
  const cancel = timers.after(LOST_SECONDS, close);
  signal.addEventListener("abort", close);
  let doubtful: { readonly stamps: Stamps; readonly bytes: Uint8Array } | null = null;
  try {
    const departed = clock.monotonic();
    port.send(request);
    for (;;) {
      const datagram = await port.receive(reply);
      if (datagram === null || signal.aborted) {
        if (doubtful !== null) {
          reply.set(doubtful.bytes);
          return doubtful.stamps;
        }
        signal.throwIfAborted();
        throw new LostDatagram("did not answer");
      }
      const { length, arrived, by } = datagram;
      if (length !== reply.length && length !== PACKET_SIZE || !belongs(reply, request)) continue;
      const stamps = { departed, arrived, by };
      if (key === null || length === reply.length && isAuthentic(reply, key)) return stamps;
      doubtful ??= { stamps, bytes: reply.slice() };
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
