/**
 * Tells systemd how the service is, by the protocol of sd_notify(3) and
 * sd_watchdog_enabled(3).
 *
 * @module
 */

import { EAGAIN } from "../libc/structures.ts";
import { linuxLibc, numberedErrorText } from "../net/linux/sockets.ts";
import { sendUnixDatagram } from "../net/linux/unix_datagram.ts";

/** Before the manager, which was too busy to hear that the service is ready, is told again. */
const RETRY_MS = 100;

/** The longest delay of a timer. */
const MAX_DELAY_MS = 2 ** 31 - 1;

/**
 * How often the manager wants a sign of life: twice in the time after which it would take the service
 * for dead.
 *
 * @param usec `WATCHDOG_USEC`: that time in microseconds.
 * @param pid `WATCHDOG_PID`: the process that is to give it. Default: this one.
 * @returns Milliseconds; `null` if it wants none of this process.
 */
export function watchdogInterval(usec = "", pid = `${Deno.pid}`): number | null {
  const milliseconds = /^\d+$/.test(usec) ? Number(usec) / 2000 : 0;
  return milliseconds > 0 && pid === `${Deno.pid}` ? Math.min(milliseconds, MAX_DELAY_MS) : null;
}

/** The service manager that started this process. */
export class ServiceManager {
  readonly #socket: string;
  readonly #interval: number | null;
  readonly #onFailure: (sentence: string) => void;
  readonly #libc = linuxLibc();
  #state: "starting" | "ready" | "stopping" = "starting";
  #timer: ReturnType<typeof setTimeout> | undefined;
  #hasFailed = false;

  /**
   * @param socket `NOTIFY_SOCKET`: a path, or a name in the abstract namespace after `@`.
   * @param interval As {@linkcode watchdogInterval} returns it.
   * @param onFailure Called once, with a sentence, if the manager cannot be told.
   */
  constructor(socket: string, interval: number | null, onFailure: (sentence: string) => void) {
    this.#socket = socket;
    this.#interval = interval;
    this.#onFailure = onFailure;
  }

  /** The service does from now on what it is for. Later calls do nothing. */
  ready(): void {
    if (this.#state !== "starting") return;
    if (!this.#tell("READY=1")) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.ready(), RETRY_MS);
      return;
    }
    this.#state = "ready";
    if (this.#interval === null) return;
    // It says that the event loop, on which everything else depends, still turns.
    this.#timer = setInterval(() => this.#tell("WATCHDOG=1"), this.#interval);
  }

  /** The service ends. Later calls do nothing. */
  stopping(): void {
    if (this.#state === "stopping") return;
    this.#state = "stopping";
    clearTimeout(this.#timer);
    this.#tell("STOPPING=1");
  }

  /** @returns Whether it need not be told again. */
  #tell(state: string): boolean {
    const libc = this.#libc;
    const number = libc && sendUnixDatagram(libc, this.#socket, new TextEncoder().encode(state));
    if (number === EAGAIN) return false;
    if (number !== 0 && !this.#hasFailed) {
      this.#hasFailed = true;
      const why = number === null ? "libc may not be loaded" : numberedErrorText(libc!, number);
      this.#onFailure(`cannot tell ${this.#socket} (NOTIFY_SOCKET) of ${state}: ${why}`);
    }
    return true;
  }
}
