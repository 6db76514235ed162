/**
 * Deno's connections and listeners, with and without TLS.
 *
 * @module
 */

import type { Certificate, Connection, Listener, TlsOptions } from "../network.ts";
import type { SocketAddress } from "../address.ts";
import { BusyPoll } from "./busy_poll.ts";
import { hangUp, setNoDelay } from "../descriptors.ts";
import { authorityError, certificateError, handshakeError, refuseEncrypted } from "./tls.ts";

/** How many connections may wait to be accepted. Deno has this option, but its types do not. */
export const WITH_BACKLOG: object = { tcpBacklog: 4096 };

/** For about as long as a reply takes on a fast network. A local server needs the processor too. */
export const awaitingReply = new BusyPoll(30e-6);

/** For about as long as a client on a fast network takes until its next request. */
const awaitingRequest = new BusyPoll(100e-6);

export class DenoListener implements Listener {
  readonly address: SocketAddress;
  /** `null`: the next `accept` opens it. */
  protected listener: Deno.Listener | null;
  #closed = false;

  constructor(readonly transport: "tcp" | "tls", protected open: () => Deno.Listener) {
    this.listener = open();
    const { hostname, port } = this.listener.addr as Deno.NetAddr;
    this.address = { hostname, port };
  }

  async accept(): Promise<Connection | null> {
    if (this.#closed) return null;
    const listener = this.listener ??= this.open();
    try {
      return new DenoConnection(
        await listener.accept() as Deno.TcpConn | Deno.TlsConn,
        awaitingRequest,
      );
    } catch (error) {
      if (listener !== this.listener) return this.accept(); // It was replaced.
      if (this.#closed) return null;
      throw error;
    }
  }

  close(): void {
    this.#closed = true;
    this.listener?.close();
  }
}

/** Whether two listeners can have one port. Deno gives SO_REUSEPORT to Linux only. */
const PORTS_ARE_SHARED = Deno.build.os === "linux";

export class TlsListener extends DenoListener {
  readonly #isShared: boolean;

  /** @param isShared Whether a successor can share the port. Default: as the system does it. */
  constructor(address: SocketAddress, certificate: Certificate, isShared = PORTS_ARE_SHARED) {
    // Where others could share the port too, make sure that none has it.
    if (isShared) Deno.listen({ ...address }).close();
    super("tls", () => listenTls(address, certificate, isShared));
    this.#isShared = isShared;
  }

  /** Replaces the listener, since Deno's cannot change its certificate. */
  renew(certificate: Certificate): void {
    const old = this.listener;
    const open = () => listenTls(this.address, certificate, this.#isShared);
    if (this.#isShared) {
      this.listener = open();
    } else {
      // The port is free again only when a pending `accept` has ended. Whether the certificate can
      // be used is to be known before.
      listenTls({ ...this.address, port: 0 }, certificate, false).close();
      this.listener = null;
    }
    this.open = open;
    old?.close();
  }
}

function listenTls(
  address: SocketAddress,
  certificate: Certificate,
  reusePort: boolean,
): Deno.TlsListener {
  refuseEncrypted(certificate);
  const { cert, key } = certificate;
  try {
    const listener = Deno.listenTls({ ...address, ...WITH_BACKLOG, cert, key, reusePort });
    setNoDelay(listener.addr);
    return listener;
  } catch (error) {
    throw certificateError(error);
  }
}

/** How long connections are collected: finding their descriptors takes milliseconds. */
const HANG_UP_PAUSE_MS = 10;

let doomed: DenoConnection[] = [];

/** Closes a connection that Deno would keep open. */
function hangUpSoon(connection: DenoConnection): void {
  if (doomed.push(connection) > 1) return;
  setTimeout(() => {
    // They are still open, so their addresses are still theirs.
    hangUp(doomed);
    for (const each of doomed) each.release();
    doomed = [];
  }, HANG_UP_PAUSE_MS);
}

/**
 * Takes a TLS connection closed without notice for one at its end: most clients do so, and messages
 * of a fixed length cannot be truncated unnoticed.
 */
function asEnd(error: unknown): null {
  if (error instanceof Deno.errors.UnexpectedEof) return null;
  throw error;
}

export function setNoDelayOf(stream: Deno.TcpConn): void {
  try {
    stream.setNoDelay();
  } catch {
    // It is already broken: the first read will fail.
  }
}

export class DenoConnection implements Connection {
  readonly remote: SocketAddress;
  readonly #busyPoll: BusyPoll;
  #stream: Deno.TcpConn | Deno.TlsConn;
  /** Whether it uses TLS and the handshake has not finished. */
  #handshaking: boolean;
  #closed = false;

  /** @param zone The zone of the remote address, which Deno omits. Default: none. */
  constructor(stream: Deno.TcpConn | Deno.TlsConn, busyPoll: BusyPoll, zone = "") {
    const { hostname, port } = stream.remoteAddr as Deno.NetAddr;
    this.remote = { hostname: hostname + zone, port };
    this.#stream = stream;
    this.#handshaking = "handshake" in stream;
    this.#busyPoll = busyPoll;
    // A server's connection with TLS has no such method.
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

  get local(): SocketAddress {
    const { hostname, port } = this.#stream.localAddr as Deno.NetAddr;
    return { hostname, port };
  }

  close(stuck = false): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#busyPoll.stop();
    if (stuck || this.#handshaking) hangUpSoon(this);
    else this.release();
  }

  release(): void {
    try {
      this.#stream.close();
    } catch {
      // It was closed already.
    }
  }
}
