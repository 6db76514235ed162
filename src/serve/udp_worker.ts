/**
 * Answers NTP clients over UDP, in a thread of its own: it waits in the
 * kernel, so that it is awake as soon as a request is there.
 *
 * @module
 */

import { systemClock } from "../clock/system_clock.ts";
import { DatagramBatch } from "../net/libc/datagrams.ts";
import { libcSockets } from "../net/libc/socket.ts";
import { errorText } from "../net/transport.ts";
import { PACKET_SIZE } from "../ntp/packet.ts";
import { SECOND } from "../ntp/timestamp.ts";
import { Admission } from "./admission.ts";
import { answerDatagram, DATAGRAM_REFUSALS, SHARED, type WorkerOrder } from "./datagram.ts";
import { announcement, stampTransmit } from "./respond.ts";

/** Nanoseconds between two looks at the kernel's clock. */
const TICK = SECOND;

function serveDatagrams({ fd, stratum, limits, shared }: WorkerOrder): void {
  const figures = new Float64Array(shared);
  const clock = systemClock();
  const admission = new Admission(limits);
  const batch = new DatagramBatch(libcSockets()!, fd, PACKET_SIZE);
  let announced: Uint8Array = new Uint8Array();
  let due = 0n;
  while (figures[SHARED.stop] === 0) {
    const count = batch.receive();
    const now = clock.realtime();
    if (now >= due || now < due - TICK) {
      announced = announcement(clock.discipline(), clock.precision, now, stratum);
      admission.forget(now);
      due = now + TICK;
    }
    for (let i = 0; i < count; i++) {
      const request = batch.requests[i]!;
      // Where the kernel did not stamp it, it came before now.
      const arrived = batch.arrived(i) || now;
      const refusal = answerDatagram(
        admission,
        batch.sender(i),
        request,
        batch.length(i),
        announced,
        arrived,
        () => batch.reply(i),
      );
      if (refusal === null) figures[SHARED.replies]!++;
      else figures[SHARED.refusals + DATAGRAM_REFUSALS.indexOf(refusal)]!++;
    }
    if (batch.ready === 0) continue;
    const transmit = clock.realtime();
    for (let i = 0; i < batch.ready; i++) stampTransmit(batch.replies[i]!, transmit);
    batch.send();
  }
}

/** This thread: Deno's types know of the main one only. */
const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<WorkerOrder>) => void;
  postMessage(message: unknown): void;
  close(): void;
};

scope.onmessage = ({ data }) => {
  let failure: string | null = null;
  try {
    serveDatagrams(data);
  } catch (error) {
    failure = errorText(error);
  }
  scope.postMessage(failure);
  scope.close();
};
