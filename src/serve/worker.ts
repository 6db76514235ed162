/**
 * Answers clients of TCP and of UDP in a thread of its own, from one loop that
 * waits in the kernel: so that it is awake as soon as a request is there, and
 * nothing else keeps it from answering.
 *
 * @module
 */

import type { Clock } from "../clock/clock.ts";
import { systemClock } from "../clock/system_clock.ts";
import { DatagramBatch } from "../net/libc/datagrams.ts";
import { Epoll } from "../net/libc/epoll.ts";
import { libcSockets } from "../net/libc/socket.ts";
import { LinuxStreams } from "../net/libc/streams.ts";
import { errorText } from "../net/transport.ts";
import { PACKET_SIZE } from "../ntp/packet.ts";
import { nanoseconds, SECOND } from "../ntp/timestamp.ts";
import { Admission } from "./admission.ts";
import { answerDatagram } from "./answer.ts";
import { Figures } from "./figures.ts";
import { announcement, stampTransmit } from "./respond.ts";
import type { WorkerOrder } from "./service.ts";
import { GRACE } from "./stillness.ts";
import { StreamServer } from "./streams.ts";

/** Nanoseconds between two looks at the kernel's clock and at what connections do. */
const TICK = SECOND;

/** Milliseconds without a request after which it looks whether it is to stop. */
const PATIENCE = 100;

function work({ sockets, stratum, limits, idleTimeout, shared }: WorkerOrder): void {
  const libc = libcSockets()!;
  const figures = new Figures(shared);
  const clock = systemClock();
  const admission = new Admission(limits);
  const epoll = new Epoll(libc);
  const streams = new StreamServer(
    new LinuxStreams(libc, epoll),
    admission,
    () => clock.realtime(),
    figures,
  );
  const batches = new Map<number, DatagramBatch>();
  let due = 0n;
  let end: bigint | null = null;
  try {
    for (const { transport, fd } of sockets) {
      if (transport === "tcp") streams.listen(fd);
      else {
        epoll.add(fd);
        batches.set(fd, new DatagramBatch(libc, fd, PACKET_SIZE));
      }
    }
    for (;;) {
      const now = clock.realtime();
      if (now >= due || now < due - TICK) {
        streams.announced = announcement(clock.discipline(), clock.precision, now, stratum);
        admission.forget(now);
        streams.checkTimeouts(idleTimeout);
        due = now + TICK;
      }
      streams.resume();
      if (figures.stopping) {
        if (end === null) {
          end = clock.monotonic() + nanoseconds(GRACE);
          for (const fd of batches.keys()) epoll.remove(fd);
          streams.stop();
        }
        if (streams.open === 0 || clock.monotonic() > end) return;
      }
      const count = epoll.wait(PATIENCE);
      for (let i = 0; i < count; i++) {
        const fd = epoll.ready(i);
        const batch = batches.get(fd);
        if (batch === undefined) streams.onReady(fd);
        else answerBatch(batch, admission, clock, streams.announced, figures);
      }
    }
  } finally {
    streams.close();
    epoll.close();
  }
}

/** Answers datagrams, as many as are there up to a batch. */
function answerBatch(
  batch: DatagramBatch,
  admission: Admission,
  clock: Clock,
  announced: Uint8Array,
  figures: Figures,
): void {
  const count = batch.receive();
  const now = clock.realtime();
  for (let i = 0; i < count; i++) {
    let arrived = batch.arrived(i);
    if (arrived === 0n) {
      arrived = now;
      figures.unstamped("udp");
    }
    const refusal = answerDatagram(
      admission,
      batch.sender(i),
      batch.requests[i]!,
      batch.length(i),
      announced,
      arrived,
      () => batch.reply(i),
    );
    if (refusal === null) figures.reply("udp");
    else figures.refuse("udp", refusal);
  }
  if (batch.ready === 0) return;
  const transmit = clock.realtime();
  for (let i = 0; i < batch.ready; i++) stampTransmit(batch.replies[i]!, transmit);
  batch.send();
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
    work(data);
  } catch (error) {
    failure = errorText(error);
  }
  scope.postMessage(failure);
  scope.close();
};
