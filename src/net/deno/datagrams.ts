/**
 * Deno's datagram sockets, for a server and for a client.
 *
 * @module
 */

import type { DatagramNetwork, DatagramPort } from "../network.ts";
import type { Clock } from "../../clock/clock.ts";
import { canonical, type SocketAddress } from "../address.ts";

/** Pause after an error. */
const ERROR_PAUSE_MS = 1;

/** The operating system's datagrams, timestamped by the program. */
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
            if (closed) return null;
            // Most likely an ICMP error: a client that was answered no longer listens.
            await new Promise((resolve) => setTimeout(resolve, ERROR_PAUSE_MS));
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

/** Opens a socket with a port of its own, of the server's address family. */
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
    this.#socket.send(bytes, this.#server).catch(() => {}); // It counts as lost.
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

  /** An address has several spellings, and the unspecified one reaches this machine. */
  #isServer(hostname: string): boolean {
    const server = canonical(this.#server.hostname);
    return server === "0.0.0.0" || server === "::" || server === canonical(hostname);
  }
}
