/**
 * The operating system's network: Deno opens, and where the kernel can stamp,
 * it does.
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

/** The operating system's network. */
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
      ? new DenoListener("tcp", Deno.listen({ ...address, ...WITH_BACKLOG }))
      : TlsListener.listen(address, certificate);
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
 * Who is to stamp, with a clock: the kernel's stamps are the machine's time, and of use with no other.
 *
 * @throws {TypeError} if it is to be the kernel, and the clock is another.
 */
export function stampers(wanted: Timestamps = "auto", clock: Clock): Timestamps {
  if (isSystemClock(clock)) return wanted;
  if (wanted !== "kernel") return "user";
  throw new TypeError("cannot have the kernel's timestamps with another clock than the machine's");
}

/**
 * The system's network, for a client. What comes over TLS the program stamps always.
 *
 * @throws {Error} a sentence, if the kernel is to stamp and cannot be asked to.
 */
export function clientNetwork(timestamps: Timestamps, clock: Clock): Network {
  const libc = timestamps === "kernel"
    ? requireLinuxLibc()
    : timestamps === "auto"
    ? linuxLibc()
    : null;
  if (libc === null) return systemNetwork;
  const refusal = () =>
    new OptionError("cannot have the kernel's timestamps of what comes from there", "timestamps");
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
      throw refusal();
    },
    openDatagrams(server) {
      const stamped = KernelPort.open(libc, server, clock);
      if (stamped === null && timestamps === "kernel") throw refusal();
      return stamped ?? systemNetwork.openDatagrams(server, clock);
    },
  };
}
