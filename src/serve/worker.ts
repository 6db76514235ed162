/**
 * Answers clients of TCP and of UDP in a thread of its own, from one loop that
 * waits in the kernel: so that it is awake as soon as a request is there, and
 * nothing else keeps it from answering.
 *
 * @module
 */

import type { Clock } from "../clock/clock.ts";
import { systemClock, systemRandom } from "../clock/system_clock.ts";
import { DatagramBatch } from "../net/libc/datagrams.ts";
import { Epoll } from "../net/libc/epoll.ts";
import { libcSockets, socketError } from "../net/libc/socket.ts";
import { LinuxStreams } from "../net/libc/streams.ts";
import { errorText } from "../net/transport.ts";
import { PACKET_SIZE } from "../ntp/packet.ts";
import { Admission } from "./admission.ts";
import { answerDatagram } from "./answer.ts";
import { Figures } from "./figures.ts";
import { stampTransmit } from "./respond.ts";
import type { WorkerOrder } from "./service.ts";
import { StreamServer } from "./streams.ts";

/** Milliseconds that it waits for a request before it looks around. */
const PATIENCE = 100;

function work({ sockets, limits, shared, ...options }: WorkerOrder): void {
  const libc = libcSockets()!;
  const clock = systemClock();
  const figures = new Figures(shared);
  const admission = new Admission(limits, systemRandom);
  const epoll = new Epoll(libc);
  const linux = new LinuxStreams(libc, epoll);
  const streams = new StreamServer(linux, admission, clock, figures, options);
  const batches = new Map<number, DatagramBatch>();
  try {
    for (const { transport, fd } of sockets) {
      if (transport === "tcp") {
        streams.listen(fd);
        continue;
      }
      const error = epoll.add(fd);
      if (error !== 0) throw socketError(libc, error);
      batches.set(fd, new DatagramBatch(libc, fd, PACKET_SIZE));
    }
    while (!streams.turn()) {
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
  const answered: bigint[] = [];
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
    if (refusal === null) answered.push(arrived);
    else figures.refuse("udp", refusal);
  }
  if (batch.ready === 0) return;
  const transmit = clock.realtime();
  for (let i = 0; i < batch.ready; i++) stampTransmit(batch.replies[i]!, transmit);
  batch.send();
  for (const arrived of answered) figures.reply("udp", transmit - arrived);
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
