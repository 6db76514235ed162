/**
 * The operating system's network: Deno opens the sockets, and the kernel
 * timestamps what arrives where it can.
 *
 * @module
 */

import { OptionError } from "./errors.ts";
import {
  awaitingReply,
  DenoConnection,
  DenoListener,
  setNoDelayOf,
  TlsListener,
  WITH_BACKLOG,
} from "./deno/streams.ts";
import { systemDatagrams } from "./deno/datagrams.ts";
import type { Clock } from "../clock/clock.ts";
import { KernelConnection, KernelPort } from "./linux/client.ts";
import type { Network, Timestamps } from "./network.ts";
import { bindSocket, linuxLibc, requireLinuxLibc } from "./linux/sockets.ts";
import { dns } from "./node.ts";
import { ipVersion, zoneOf } from "./address.ts";
import { isSystemClock } from "../clock/system_clock.ts";

export const systemNetwork: Network = {
  ...systemDatagrams,
  async resolve(hostname, family) {
    const known = ipVersion(hostname);
    if (known !== 0) return family === undefined || family === known ? [hostname] : [];
    const how = { all: true, ...family === undefined ? {} : { family } } as const;
    return (await dns().lookup(hostname, how)).map(({ address }) => address);
  },
  async connect(address, signal) {
    const stream = await Deno.connect({ ...address, signal });
    return new DenoConnection(stream, awaitingReply, zoneOf(address));
  },
  listen(address, certificate) {
    return certificate === undefined
      ? new DenoListener("tcp", () => Deno.listen({ ...address, ...WITH_BACKLOG }))
      : new TlsListener(address, certificate);
  },
  bind(transport, address) {
    const libc = linuxLibc();
    if (libc === null) return null;
    const socket = transport === "tcp"
      ? Deno.listen({ ...address, ...WITH_BACKLOG })
      : Deno.listenDatagram({ ...address, transport });
    return bindSocket(libc, socket, zoneOf(address));
  },
};

/**
 * Decides who takes timestamps. The kernel's are of the system clock, so they are useless with any
 * other.
 *
 * @throws {TypeError} if kernel timestamps are required and `clock` is not the system clock.
 */
export function timestampsFor(wanted: Timestamps = "auto", clock: Clock): Timestamps {
  if (isSystemClock(clock)) return wanted;
  if (wanted !== "kernel") return "user";
  throw new TypeError("cannot use kernel timestamps with a clock other than the system's");
}

/**
 * The system's network, for a client. Over TLS, timestamps are always the program's.
 *
 * @throws {OptionError} if kernel timestamps are required but unavailable.
 */
export function clientNetwork(timestamps: Timestamps, clock: Clock): Network {
  const libc = timestamps === "kernel"
    ? requireLinuxLibc()
    : timestamps === "auto"
    ? linuxLibc()
    : null;
  if (libc === null) return systemNetwork;
  const unavailable = () =>
    new OptionError("cannot use kernel timestamps on this socket", "timestamps");
  return {
    ...systemNetwork,
    async connect(address, signal, secure = false) {
      const stream = await Deno.connect({ ...address, signal });
      setNoDelayOf(stream);
      const zone = zoneOf(address);
      const stamped = secure ? null : KernelConnection.of(libc, stream, clock, zone);
      if (stamped !== null) return stamped;
      if (secure || timestamps === "auto") return new DenoConnection(stream, awaitingReply, zone);
      stream.close();
      throw unavailable();
    },
    openDatagrams(server) {
      const stamped = KernelPort.open(libc, server, clock);
      if (stamped === null && timestamps === "kernel") throw unavailable();
      return stamped ?? systemNetwork.openDatagrams(server, clock);
    },
  };
}
