/**
 * What tsync asks of a network, so that the same code runs over the operating
 * system's and over a simulated one.
 *
 * @module
 */

import type { Clock } from "../clock/clock.ts";
import type { SocketAddress } from "./address.ts";

/** Who says when something arrived: the kernel, or the program. */
export type Stamper = "kernel" | "user";

/** Who is to say so: the kernel where it can; the kernel, or it is an error; the program. */
export type Timestamps = "auto" | "kernel" | "user";

/** When a request left and its reply arrived, as `Clock.monotonic`. */
export interface Stamps {
  /** T1. */
  readonly departed: bigint;
  /** T4. */
  readonly arrived: bigint;
  /** Who took T4. */
  readonly by: Stamper;
}

/** The half of a connection that is read. */
export interface Source {
  /**
   * Waits for bytes, and reads as many as there are and fit.
   *
   * @returns How many bytes were read into `into`; `null` at the end of the stream.
   * @throws if the connection breaks, or is closed meanwhile.
   */
  read(into: Uint8Array): Promise<number | null>;
  /** When the last bytes read came, as far as the kernel says so; on the reader's timeline. */
  readonly stamped?: bigint | null;
}

/** The half of a connection that is written. */
export interface Sink {
  /**
   * Writes bytes, maybe not all of them.
   *
   * @returns How many of `bytes` were taken.
   * @throws if the connection breaks, or is closed meanwhile.
   */
  write(bytes: Uint8Array): Promise<number>;
  /** What the writer's clock showed just before bytes were last handed over, if the sink takes it. */
  readonly departed?: bigint;
}

/** What a server shows of itself: PEM texts. */
export interface Certificate {
  /** The certificate, and those between it and its authority. */
  readonly cert: string;
  /** Its private key. */
  readonly key: string;
}

/** Whom a client believes. */
export interface TlsOptions {
  /** The name (or IP address) that the server's certificate must be for. */
  readonly hostname: string;
  /** Authorities, as PEM text, that may have signed it beside those of {@linkcode trustOnly}. */
  readonly ca?: string | undefined;
}

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

/** A server's socket that the kernel stamps. */
export interface BoundSocket {
  /** What comes by it: connections, or datagrams. */
  readonly transport: "tcp" | "udp";
  /** Its descriptor. */
  readonly fd: number;
  /** Where it listens; a port of 0 has become the one that was picked. */
  readonly address: SocketAddress;
  /** Gives it back. Nobody may use its descriptor any more. */
  close(): void;
}
