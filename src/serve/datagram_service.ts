/**
 * Serves datagrams from the event loop, where the kernel does not take
 * timestamps.
 *
 * @module
 */

import type { DatagramListener } from "../net/network.ts";
import type { Service } from "./lifecycle.ts";
import { answerDatagram, stampTransmit } from "./reply.ts";
import type { SessionContext } from "./session.ts";

/** Answers the datagrams that one socket receives. */
export class DatagramService implements Service {
  readonly #listener: DatagramListener;
  readonly #sessions: SessionContext;
  #running: Promise<void> | null = null;

  constructor(listener: DatagramListener, sessions: SessionContext) {
    this.#listener = listener;
    this.#sessions = sessions;
  }

  start(): void {
    this.#running = this.#run();
  }

  tick(): [] {
    return [];
  }

  async stop(): Promise<void> {
    this.#listener.close();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { admission, counters, keys, now } = this.#sessions;
    for (;;) {
      const datagram = await this.#listener.receive();
      const received = now();
      if (datagram === null) return;
      const { bytes, sender } = datagram;
      let reply: Uint8Array | null = null;
      const refusal = answerDatagram(
        admission,
        sender.hostname,
        bytes,
        bytes.length,
        this.#sessions.template,
        received,
        // A new buffer each time: it may still be waiting to be sent.
        (size) => reply = new Uint8Array(size),
        keys,
      );
      if (refusal !== null) counters.refuse("udp", refusal);
      if (reply === null) continue;
      const transmitted = now();
      stampTransmit(reply, transmitted, keys);
      this.#listener.send(reply, sender);
      if (refusal === null) counters.reply("udp", transmitted - received);
    }
  }
}
