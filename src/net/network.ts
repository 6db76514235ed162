/**
 * The interface of a network, which the operating system's and the simulated
 * ones implement.
 *
 * @module
 */

import type { Clock } from "../clock/clock.ts";
import type { SocketAddress } from "./address.ts";

/** Who took a timestamp of arrival: the kernel or the program. */
export type Stamper = "kernel" | "user";

/**
 * Who is to take timestamps of arrival. `auto`: the kernel where it can, else the program.
 * `kernel`: the kernel; an error where it cannot. `user`: the program.
 */
export type Timestamps = "auto" | "kernel" | "user";

/** When a request left and its reply arrived, in nanoseconds as {@linkcode Clock.monotonic}. */
export interface Stamps {
  /** T1. */
  readonly departed: bigint;
  /** T4. */
  readonly arrived: bigint;
  /** Who took T4. */
  readonly by: Stamper;
}

/** The readable half of a connection. */
export interface Source {
  /**
   * Waits for bytes and reads as many as are available and fit.
   *
   * @returns The number of bytes read into `into`; `null` at the end of the stream.
   * @throws if the connection breaks, or is closed meanwhile.
   */
  read(into: Uint8Array): Promise<number | null>;
  /** When the last byte read arrived, in nanoseconds as {@linkcode Clock.monotonic}, if known. */
  readonly arrived?: bigint | null;
}

/** The writable half of a connection. */
export interface Sink {
  /**
   * Writes bytes, possibly not all of them.
   *
   * @returns The number of bytes written.
   * @throws if the connection breaks, or is closed meanwhile.
   */
  write(bytes: Uint8Array): Promise<number>;
  /** {@linkcode Clock.monotonic} just before bytes were last sent, in nanoseconds, if known. */
  readonly departed?: bigint;
}

/** A server's certificate and key, as PEM text. */
export interface Certificate {
  /** The certificate, followed by any intermediate ones. */
  readonly cert: string;
  /** The certificate's private key, not encrypted. */
  readonly key: string;
}

/** How a client verifies a server. */
export interface TlsOptions {
  /** The name or IP address that the server's certificate must be for. */
  readonly hostname: string;
  /** Certificates of further authorities to trust, as PEM text. Default: none. */
  readonly ca?: string | undefined;
}

/** A stream of bytes in both directions. */
export interface Connection extends Source, Sink {
  /** The address of the other end. */
  readonly remote: SocketAddress;
  /**
   * Starts TLS on a client's connection, before anything else is done with it.
   *
   * @throws {TlsError} if the server does not speak TLS or fails verification.
   */
  startTls?(options: TlsOptions): Promise<void>;
  /**
   * Waits for the TLS handshake on a server's connection.
   *
   * @throws if the handshake fails.
   */
  awaitTls?(): Promise<void>;
  /** Tells the other end that nothing more will be written. */
  closeWrite?(): Promise<void>;
  /**
   * Closes the connection; pending reads and writes reject.
   *
   * @param stuck Whether a pending write may never finish. Default `false`.
   */
  close(stuck?: boolean): void;
}

/** A source of connections to a server. */
export interface Listener {
  /** Whether its connections use TLS. */
  readonly transport: "tcp" | "tls";
  /** Where it listens, with the actual port in place of 0. */
  readonly address: SocketAddress;
  /**
   * Waits for a connection.
   *
   * @returns The next connection; `null` once the listener is closed.
   * @throws if a connection cannot be accepted; the next one may be.
   */
  accept(): Promise<Connection | null>;
  /**
   * With TLS: uses another certificate for new connections.
   *
   * @throws if the certificate is invalid; the old one stays in use.
   */
  renew?(certificate: Certificate): void;
  /** Stops accepting; open connections stay open. */
  close(): void;
}

/** The operating system's network, or a simulated one. */
export interface Network extends DatagramNetwork {
  /**
   * Looks up the IP addresses of a name, the preferred ones first.
   *
   * @param family Only addresses of this family; `undefined` for both.
   * @throws if the lookup fails; with `code` `"ENOTFOUND"` if there is no such name.
   */
  resolve(hostname: string, family: 4 | 6 | undefined): Promise<string[]>;
  /**
   * Connects to a server.
   *
   * @param signal Ends the attempt.
   * @param secure Whether {@linkcode Connection.startTls} will follow. Default `false`.
   * @throws if the server cannot be reached, or the signal is aborted.
   */
  connect(address: SocketAddress, signal: AbortSignal, secure?: boolean): Promise<Connection>;
  /**
   * Listens for connections.
   *
   * @param certificate For TLS. Default: plain TCP.
   * @throws if it cannot listen on the address, or the certificate is invalid.
   */
  listen(address: SocketAddress, certificate?: Certificate): Listener;
  /**
   * Opens a server's socket with kernel timestamps.
   *
   * @returns `null` where the kernel does not take them.
   * @throws if it cannot listen on the address.
   */
  bind(transport: "tcp" | "udp", address: SocketAddress): BoundSocket | null;
}

/** A server's datagram socket, without kernel timestamps. */
export interface DatagramListener {
  /** Where it listens, with the actual port in place of 0. */
  readonly address: SocketAddress;
  /**
   * Waits for a datagram.
   *
   * @returns The next datagram; `null` once the listener is closed.
   */
  receive(): Promise<Datagram | null>;
  /** Sends a datagram. Failures are ignored. */
  send(bytes: Uint8Array, to: SocketAddress): void;
  /** Closes the socket. */
  close(): void;
}

/** A datagram that a server received. */
export interface Datagram {
  /** All of its bytes. */
  readonly bytes: Uint8Array;
  /** The address to reply to. */
  readonly sender: SocketAddress;
}

/** A client's datagram socket, with its own source port, that receives from one server only. */
export interface DatagramPort {
  /** Sends to the server. If that fails, the datagram counts as lost. */
  send(bytes: Uint8Array<ArrayBuffer>): void;
  /**
   * Waits for a datagram and copies as much of it to `into` as fits.
   *
   * @returns Its length and time of arrival; `null` once the port is closed.
   * @throws {Deno.errors.ConnectionRefused} if nothing listens on the server's port.
   */
  receive(into: Uint8Array): Promise<Arrival | null>;
  /** Closes the socket. */
  close(): void;
}

/** A datagram that a client received. */
export interface Arrival {
  /** Its length in bytes, which may exceed the buffer's. */
  readonly length: number;
  /** When it arrived, in nanoseconds as {@linkcode Clock.monotonic}. */
  readonly arrived: bigint;
  /** Who took {@linkcode Arrival.arrived}. */
  readonly by: Stamper;
}

/** The datagram half of a {@linkcode Network}. */
export interface DatagramNetwork {
  /**
   * Opens a server's socket.
   *
   * @throws if it cannot listen on the address.
   */
  listenDatagrams(address: SocketAddress): DatagramListener;
  /**
   * Opens a client's socket.
   *
   * @param server The only sender to receive from.
   * @param clock Timestamps what arrives.
   * @throws if the server cannot be reached from here.
   */
  openDatagrams(server: SocketAddress, clock: Clock): DatagramPort;
}

/** A server's socket with kernel timestamps. */
export interface BoundSocket {
  /** Whether it takes connections or datagrams. */
  readonly transport: "tcp" | "udp";
  /** Its file descriptor. */
  readonly fd: number;
  /** Where it listens, with the actual port in place of 0. */
  readonly address: SocketAddress;
  /** Closes the socket, and with it the descriptor. */
  close(): void;
}
