/**
 * Deno's datagram sockets, for a server and for a client.
 *
 * @module
 */

import type { DatagramNetwork } from "../network.ts";
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
    const expected = canonical(server.hostname);
    const to = { ...server, transport: "udp" } as const;
    const socket = openSocket(server);
    return {
      send(bytes) {
        socket.send(bytes, to).catch(() => {}); // It counts as lost.
      },
      async receive(into) {
        for (;;) {
          let datagram: [Uint8Array, Deno.Addr];
          try {
            datagram = await socket.receive();
          } catch {
            return null;
          }
          const arrived = clock.monotonic();
          const [bytes, sender] = datagram;
          const { hostname, port } = sender as Deno.NetAddr;
          if (port !== server.port) continue;
          if (!isUnspecified(expected) && canonical(hostname) !== expected) continue;
          into.set(bytes.subarray(0, into.length));
          return { length: bytes.length, arrived, by: "user" };
        }
      },
      close() {
        try {
          socket.close();
        } catch {
          // It was closed already.
        }
      },
    };
  },
};

/** Opens a socket with a port of its own, of the server's address family. */
export function openSocket({ hostname }: SocketAddress): Deno.DatagramConn {
  const any = hostname.includes(":") ? "::" : "0.0.0.0";
  return Deno.listenDatagram({ hostname: any, port: 0, transport: "udp" });
}

/** The unspecified address reaches this machine, under any of its addresses. */
function isUnspecified(address: string): boolean {
  return address === "0.0.0.0" || address === "::";
}
