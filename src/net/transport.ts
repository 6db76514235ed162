/**
 * Connections, and where they come from.
 *
 * @module
 */

import type { Clock } from "../clock/clock.ts";
import { isSystemClock } from "../clock/system_clock.ts";
import { printable } from "../ntp/printable.ts";
import { ipVersion, type SocketAddress, zoneOf } from "./address.ts";
import { BusyPoll } from "./busy_poll.ts";
import { hangUp, setNoDelay } from "./descriptors.ts";
import type { Sink, Source, Timestamps } from "./framing.ts";
import { KernelConnection, KernelPort } from "./kernel.ts";
import { bindSocket, type BoundSocket, libcSockets, requireSockets } from "./libc/socket.ts";
import {
  authorityError,
  type Certificate,
  certificateError,
  handshakeError,
  refuseEncrypted,
  type TlsOptions,
} from "./tls.ts";
import { dns } from "./node.ts";
import { type DatagramNetwork, systemDatagrams } from "./udp.ts";

/** A stream of bytes in both directions. */
export interface Connection extends Source, Sink {
  /** The other end. */
  readonly remote: SocketAddress;
  /**
   * Makes a client's connection one with TLS, before anything else is done with it.
   *
   * @throws {TlsError} if the other end is not who it should be, or does not speak TLS.
   */
  startTls?(options: TlsOptions): Promise<void>;
  /**
   * Waits until a server's connection is one with TLS.
   *
   * @throws if it does not become one.
   */
  awaitTls?(): Promise<void>;
  /** Says that nothing more will be written. */
  closeWrite?(): Promise<void>;
  /**
   * Ends it; a read or write that is under way is rejected.
   *
   * @param stuck Is there a write under way that may never end? Default: no.
   */
  close(stuck?: boolean): void;
}

/** Something that connections come from. */
export interface Listener {
  /** Are its connections ones with TLS? */
  readonly transport: "tcp" | "tls";
  /** Where it listens; a port of 0 has become the one that was picked. */
  readonly address: SocketAddress;
  /**
   * Waits for a connection.
   *
   * @returns The next connection; `null` once the listener is closed.
   * @throws if one cannot be accepted; the next one may be.
   */
  accept(): Promise<Connection | null>;
  /**
   * With TLS: shows another certificate to those who connect from now on.
   *
   * @throws if it is none; the old one is shown on then.
   */
  renew?(certificate: Certificate): void;
  /** Takes no more connections; those there are go on. */
  close(): void;
}

/** Where connections come from: the operating system's network, or a simulated one. */
export interface Network extends DatagramNetwork {
  /**
   * The IP addresses of a name, in the order of preference.
   *
   * @param family Only addresses of this family; `undefined` for both.
   * @throws if they cannot be looked up; if there is no such name, with `code` `"ENOTFOUND"`.
   */
  resolve(hostname: string, family: 4 | 6 | undefined): Promise<string[]>;
  /**
   * Connects to a server.
   *
   * @param signal Ends the attempt.
   * @param secure Is {@linkcode Connection.startTls} to follow? Default: no.
   * @throws if the server cannot be reached, or the signal is aborted.
   */
  connect(address: SocketAddress, signal: AbortSignal, secure?: boolean): Promise<Connection>;
  /**
   * Listens for connections.
   *
   * @param certificate If there is one: for connections with TLS.
   * @throws if the address cannot be had, or the certificate is none.
   */
  listen(address: SocketAddress, certificate?: Certificate): Listener;
  /**
   * Opens a server's socket that the kernel stamps: `null` where that cannot be.
   *
   * @throws if the address cannot be had.
   */
  bind(transport: "tcp" | "udp", address: SocketAddress): BoundSocket | null;
}

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
    return new SystemConnection(stream, awaitingReply, zoneOf(address));
  },
  listen(address, certificate) {
    return certificate === undefined
      ? new SystemListener("tcp", Deno.listen({ ...address, ...WITH_BACKLOG }))
      : TlsListener.listen(address, certificate);
  },
  bind(transport, address) {
    const libc = libcSockets();
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
    ? requireSockets()
    : timestamps === "auto"
    ? libcSockets()
    : null;
  if (libc === null) return systemNetwork;
  const refusal = () =>
    new Error("the kernel does not stamp what comes from there; do without --timestamps kernel");
  return {
    ...systemNetwork,
    async connect(address, signal, secure = false) {
      const stream = await Deno.connect({ ...address, signal });
      setNoDelayOf(stream);
      const zone = zoneOf(address);
      const stamped = secure ? null : KernelConnection.of(libc, stream, clock, zone);
      if (stamped !== null) return stamped;
      if (secure || timestamps === "auto") return new SystemConnection(stream, awaitingReply, zone);
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

/** Connections that may wait to be accepted. */
const BACKLOG = 4096;

/** Deno knows this option, its types do not. */
const WITH_BACKLOG: object = { tcpBacklog: BACKLOG };

/** Seconds: about what a reply takes on a fast network. Longer, and the server's own process is kept from running. */
const awaitingReply = new BusyPoll(30e-6);

/** Seconds: about what a client on a fast network takes until its next request. */
const awaitingRequest = new BusyPoll(100e-6);

class SystemListener<T extends Deno.Listener> implements Listener {
  readonly address: SocketAddress;
  protected closed = false;

  constructor(readonly transport: "tcp" | "tls", protected listener: T) {
    const { hostname, port } = listener.addr as Deno.NetAddr;
    this.address = { hostname, port };
  }

  async accept(): Promise<Connection | null> {
    const { listener } = this;
    try {
      return new SystemConnection(
        await listener.accept() as Deno.TcpConn | Deno.TlsConn,
        awaitingRequest,
      );
    } catch (error) {
      if (this.closed) return null;
      if (listener !== this.listener) return this.accept(); // It was replaced.
      throw error;
    }
  }

  close(): void {
    this.closed = true;
    this.listener.close();
  }
}

class TlsListener extends SystemListener<Deno.TlsListener> {
  static listen(address: SocketAddress, certificate: Certificate): TlsListener {
    // Sharing the port with a successor must not be sharing it with another program.
    Deno.listen({ ...address }).close();
    return new TlsListener("tls", TlsListener.#open(address, certificate));
  }

  static #open(address: SocketAddress, certificate: Certificate): Deno.TlsListener {
    refuseEncrypted(certificate);
    const { cert, key } = certificate;
    try {
      const listener = Deno.listenTls({ ...address, ...WITH_BACKLOG, cert, key, reusePort: true });
      setNoDelay(listener.addr);
      return listener;
    } catch (error) {
      throw certificateError(error);
    }
  }

  /** Deno's listeners cannot change their certificate. The new one is there before the old one goes. */
  renew(certificate: Certificate): void {
    const old = this.listener;
    this.listener = TlsListener.#open(this.address, certificate);
    old.close();
  }
}

/** Milliseconds in which connections that Deno would not end are collected: looking for them takes some. */
const HANG_UP_PAUSE = 10;

/** Connections that are to end although Deno is waiting for something. */
class HangUps {
  #connections: SystemConnection[] = [];

  add(connection: SystemConnection): void {
    if (this.#connections.push(connection) > 1) return;
    setTimeout(() => {
      // As long as they are open, nobody else has their addresses.
      hangUp(this.#connections);
      for (const each of this.#connections) each.release();
      this.#connections = [];
    }, HANG_UP_PAUSE);
  }
}

const hangUps = new HangUps();

/** Few say goodbye in TLS before they close. Messages of a known length cannot be cut short unseen. */
function asEnd(error: unknown): null {
  if (error instanceof Deno.errors.UnexpectedEof) return null;
  throw error;
}

function setNoDelayOf(stream: Deno.TcpConn): void {
  try {
    stream.setNoDelay();
  } catch {
    // It is broken already, as the first read will say.
  }
}

class SystemConnection implements Connection {
  readonly remote: SocketAddress;
  readonly #busyPoll: BusyPoll;
  #stream: Deno.TcpConn | Deno.TlsConn;
  /** Is it one with TLS that has not been agreed on yet? */
  #handshaking: boolean;
  #closed = false;

  /** @param zone Of the other end's address: Deno leaves it out. Default: none. */
  constructor(stream: Deno.TcpConn | Deno.TlsConn, busyPoll: BusyPoll, zone = "") {
    const { hostname, port } = stream.remoteAddr as Deno.NetAddr;
    this.remote = { hostname: hostname + zone, port };
    this.#stream = stream;
    this.#handshaking = "handshake" in stream;
    this.#busyPoll = busyPoll;
    // Deno has no such option for a server's connection with TLS.
    if ("setNoDelay" in stream) setNoDelayOf(stream);
  }

  async startTls({ hostname, ca }: TlsOptions): Promise<void> {
    const caCerts = ca === undefined ? [] : [ca];
    try {
      this.#stream = await Deno.startTls(this.#stream as Deno.TcpConn, { hostname, caCerts });
    } catch (error) {
      throw authorityError(error, hostname);
    }
    this.#handshaking = true;
    await this.awaitTls();
  }

  async awaitTls(): Promise<void> {
    if (!("handshake" in this.#stream)) return;
    try {
      await this.#stream.handshake();
      this.#handshaking = false;
    } catch (error) {
      throw handshakeError(error);
    }
  }

  read(into: Uint8Array): Promise<number | null> {
    const reading = this.#stream.read(into);
    return "handshake" in this.#stream ? reading.catch(asEnd) : reading;
  }

  write(bytes: Uint8Array): Promise<number> {
    const writing = this.#stream.write(bytes);
    this.#busyPoll.start();
    return writing;
  }

  closeWrite(): Promise<void> {
    return this.#stream.closeWrite();
  }

  /** Where it ends here. */
  get local(): SocketAddress {
    const { hostname, port } = this.#stream.localAddr as Deno.NetAddr;
    return { hostname, port };
  }

  close(stuck = false): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#busyPoll.stop();
    if (stuck || this.#handshaking) hangUps.add(this);
    else this.release();
  }

  /** Gives back what Deno has of it. */
  release(): void {
    try {
      this.#stream.close();
    } catch {
      // It was closed already.
    }
  }
}

/** What went wrong, in words that can be shown: of the operating system's errors only the sentence. */
export function errorText(error: unknown): string {
  if (error instanceof Deno.errors.ConnectionRefused) return "connection refused";
  if (error instanceof Deno.errors.ConnectionReset) return "connection reset";
  const text = error instanceof Error ? error.message : String(error);
  return printable(text.replace(/ \(os error \d+\)$/, ""));
}

/** Does an error of `accept` say that a connection ended before? That is no trouble of the listener's. */
export function isLost(error: unknown): boolean {
  return error instanceof Deno.errors.NotConnected ||
    error instanceof Deno.errors.ConnectionAborted ||
    error instanceof Deno.errors.ConnectionReset;
}

/** Does an error of `resolve` say that there is no such name, rather than that nobody could be asked? */
export function isUnknownHost(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOTFOUND";
}
