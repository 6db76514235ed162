/**
 * A proxy on loopback that holds up what passes, each way for a time of its
 * own: the kernel here cannot do it.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import type { Delay, Random } from "./simulation/random.ts";

/** Stands between a client and a server on 127.0.0.1. */
export class DelayProxy implements AsyncDisposable {
  readonly address: string;
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #done: Promise<void>;

  /**
   * @param port The server's.
   * @param delay Of one piece of data in one direction.
   * @param random What the delays follow from.
   */
  constructor(
    private readonly port: number,
    private readonly delay: Delay,
    private readonly random: Random,
  ) {
    this.address = `127.0.0.1:${this.#listener.addr.port}`;
    this.#done = this.#accept();
  }

  async #accept(): Promise<void> {
    const passing: Promise<void>[] = [];
    for await (const client of this.#listener) passing.push(this.#pass(client));
    await Promise.all(passing);
  }

  async #pass(client: Deno.TcpConn): Promise<void> {
    const server = await Deno.connect({ hostname: "127.0.0.1", port: this.port });
    client.setNoDelay();
    server.setNoDelay();
    await Promise.all([this.#copy(client, server), this.#copy(server, client)]);
    client.close();
    server.close();
  }

  async #copy(from: Deno.TcpConn, to: Deno.TcpConn): Promise<void> {
    const piece = new Uint8Array(4096);
    try {
      for (;;) {
        const length = await from.read(piece);
        if (length === null) break;
        await wait(this.delay(this.random));
        await to.write(piece.subarray(0, length));
      }
      await to.closeWrite();
    } catch {
      // One end has gone, and so will the other.
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    await this.#done;
  }
}

/** To the microsecond, which `setTimeout` is not. */
async function wait(seconds: number): Promise<void> {
  const until = performance.now() + seconds * 1000;
  while (performance.now() < until) await new Promise<void>((resolve) => setImmediate(resolve));
}
