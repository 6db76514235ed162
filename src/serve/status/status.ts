/**
 * The status page and its kin, in a thread of their own: whoever asks for them
 * takes nothing from those who ask for the time but the processor's attention.
 *
 * @module
 */

import type { Timers } from "../../clock/clock.ts";
import type { SocketAddress } from "../../net/address.ts";
import type { Limits } from "../admission.ts";
import { Thread } from "../thread.ts";
import type { SiteOptions } from "./site.ts";

/** What the thread is told when it starts. */
export interface StatusOrder extends SiteOptions {
  /** Where to listen. */
  address: SocketAddress;
  /** By which names it is asked, beside the one that it listens on. */
  readonly names: readonly string[];
  readonly limits: Pick<Limits, "allow" | "deny" | "rate">;
  /** What each thread of the server counts. */
  readonly figures: readonly SharedArrayBuffer[];
}

/** What the thread says: where it listens, or why it cannot go on. */
export type StatusMessage =
  | { readonly addresses: readonly SocketAddress[] }
  | { readonly error: string };

/** What the thread is told later: what is wrong with the server, if something is. */
export interface StatusNews {
  readonly trouble: string | null;
}

/** Serves HTTP until it is stopped. */
export class StatusService {
  /** Where: one for each socket. */
  readonly addresses: readonly SocketAddress[];
  readonly #thread: Thread;

  private constructor(thread: Thread, addresses: readonly SocketAddress[]) {
    this.#thread = thread;
    this.addresses = addresses;
  }

  /**
   * @param onFailure Told why the thread has died, before another takes its place.
   * @returns Once it listens.
   * @throws {Error} a sentence, if it cannot.
   */
  static async start(
    order: StatusOrder,
    timers: Timers,
    onFailure: (error: string) => void,
  ): Promise<StatusService> {
    const first = Promise.withResolvers<readonly SocketAddress[]>();
    let listened = false;
    const thread: Thread = new Thread({
      module: new URL("./worker.ts", import.meta.url),
      onMessage(message) {
        const said = message as StatusMessage;
        if ("error" in said) thread.failed(said.error);
        else if (!listened) {
          listened = true;
          first.resolve(said.addresses);
        }
      },
      onFailure(error) {
        if (listened) onFailure(error);
        else first.reject(new Error(error));
      },
    }, timers);
    thread.start(order);
    try {
      const addresses = await first.promise;
      // A successor takes the port that was picked.
      order.address = { ...order.address, port: addresses[0]!.port };
      return new StatusService(thread, addresses);
    } catch (error) {
      thread.end();
      throw error;
    }
  }

  /** Passes on what is wrong with the server, if something is. */
  tell(trouble: string | null): void {
    this.#thread.post({ trouble } satisfies StatusNews);
  }

  stop(): void {
    this.#thread.end();
  }
}
