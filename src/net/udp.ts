/**
 * Datagrams: where they come from, and a client's way to a server of NTP.
 *
 * @module
 */

import type { Clock, Timers } from "../clock/clock.ts";
import { OFFSET, PACKET_SIZE } from "../ntp/packet.ts";
import { canonical, type SocketAddress } from "./address.ts";
import type { Stamper, Stamps } from "./framing.ts";

/** A server's end, stamped by the program. */
export interface DatagramListener {
  /** Where it listens; a port of 0 has become the one that was picked. */
  readonly address: SocketAddress;
  /**
   * Waits for a datagram.
   *
   * @returns The next datagram; `null` once it is closed.
   */
  receive(): Promise<Datagram | null>;
  /** Sends, or fails to: nobody is told. */
  send(bytes: Uint8Array, to: SocketAddress): void;
  /** Takes no more datagrams. */
  close(): void;
}

/** What came, and from whom. */
export interface Datagram {
  /** All that it holds, of whatever length. */
  readonly bytes: Uint8Array;
  /** Where an answer goes. */
  readonly sender: SocketAddress;
}

/** A client's end, with a source port of its own, that hears nobody but one server. */
export interface DatagramPort {
  /** Sends to the server, or fails to: that is like a datagram that is lost on the way. */
  send(bytes: Uint8Array<ArrayBuffer>): void;
  /**
   * Waits for a datagram.
   *
   * @returns What it was; `null` once the port is closed.
   * @throws {Deno.errors.ConnectionRefused} if the other machine says that nobody listens.
   */
  receive(into: Uint8Array): Promise<Arrival | null>;
  /** Gives the source port back. */
  close(): void;
}

/** A datagram that has come. */
export interface Arrival {
  /** How many bytes it has, of which the caller has the first. */
  readonly length: number;
  /** When it came, as {@linkcode Clock.monotonic}, */
  readonly arrived: bigint;
  /** and who says so. */
  readonly by: Stamper;
}

/** Where datagrams come from: the operating system's network, or a simulated one. */
export interface DatagramNetwork {
  /**
   * Opens a server's end.
   *
   * @throws if the address cannot be had.
   */
  listenDatagrams(address: SocketAddress): DatagramListener;
  /**
   * Opens a client's end.
   *
   * @param server Whom it is to hear.
   * @param clock Says when datagrams come.
   * @throws if the server cannot be reached from here.
   */
  openDatagrams(server: SocketAddress, clock: Clock): DatagramPort;
}

/** Milliseconds after an error. */
const AGAIN = 1;

/** The operating system's datagrams. */
export const systemDatagrams: DatagramNetwork = {
  listenDatagrams(address) {
    const socket = Deno.listenDatagram({ ...address, transport: "udp" });
    const { port } = socket.addr as Deno.NetAddr;
    let closed = false;
    return {
      address: { hostname: address.hostname, port },
      async receive() {
        for (;;) {
          try {
            const [bytes, sender] = await socket.receive();
            return { bytes, sender: sender as Deno.NetAddr };
          } catch {
            // What a client's machine says of an answer that it did not want is nobody's trouble.
            if (closed) return null;
            await new Promise((resolve) => setTimeout(resolve, AGAIN));
          }
        }
      },
      send(bytes, to) {
        socket.send(bytes, { ...to, transport: "udp" }).catch(() => {});
      },
      close() {
        closed = true;
        socket.close();
      },
    };
  },
  openDatagrams(server, clock) {
    return new UserPort(server, clock);
  },
};

/** Opens a socket with a port of its own, of the family of who is to be asked. */
export function openSocket({ hostname }: SocketAddress): Deno.DatagramConn {
  const any = hostname.includes(":") ? "::" : "0.0.0.0";
  return Deno.listenDatagram({ hostname: any, port: 0, transport: "udp" });
}

class UserPort implements DatagramPort {
  readonly #server: Deno.NetAddr;
  readonly #socket: Deno.DatagramConn;
  readonly #clock: Clock;

  constructor(server: SocketAddress, clock: Clock) {
    this.#socket = openSocket(server);
    this.#server = { ...server, transport: "udp" };
    this.#clock = clock;
  }

  send(bytes: Uint8Array): void {
    this.#socket.send(bytes, this.#server).catch(() => {}); // Like one that is lost on the way.
  }

  async receive(into: Uint8Array) {
    for (;;) {
      let datagram: [Uint8Array, Deno.Addr];
      try {
        datagram = await this.#socket.receive();
      } catch {
        return null;
      }
      const arrived = this.#clock.monotonic();
      const [bytes, sender] = datagram;
      const { hostname, port } = sender as Deno.NetAddr;
      if (port !== this.#server.port || !this.#isServer(hostname)) continue;
      into.set(bytes.subarray(0, into.length));
      return { length: bytes.length, arrived, by: "user" as const };
    }
  }

  close(): void {
    try {
      this.#socket.close();
    } catch {
      // It was closed already.
    }
  }

  /** The same address may be written in several ways, and an unspecified one is this machine's. */
  #isServer(hostname: string): boolean {
    const server = canonical(this.#server.hostname);
    return server === "0.0.0.0" || server === "::" || server === canonical(hostname);
  }
}

/** Seconds after which a request or its reply is taken for lost. */
const LOST = 1;

/** A request or its reply was lost. The message begins with a verb. */
export class LostDatagram extends Error {
  override readonly name = "LostDatagram";
}

/**
 * Sends a request from a port of its own and waits for its reply. What does
 * not repeat the request's transmit field is late, duplicated or forged, and ignored.
 *
 * @param reply Where to, 48 bytes.
 * @throws {LostDatagram} if there is none in time.
 * @throws {Deno.errors.ConnectionRefused} if the other machine says that nobody listens.
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
  const cancel = timers.after(LOST, close);
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
