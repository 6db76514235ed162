/**
 * Clients that a server on a public address has, good and bad.
 *
 * @module
 */

import { once } from "node:events";
import { createConnection, type Socket } from "node:net";
import { MessageReader } from "../src/net/framing.ts";
import { encodeRequest } from "../src/ntp/packet.ts";

const bytesOf = (text: string) => new TextEncoder().encode(text);

/** A request. */
export function requestOf(version = 4, nonce = 1n): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(48);
  encodeRequest(bytes, nonce);
  bytes[0] = version << 3 | 3;
  return bytes;
}

/** One in version 4. */
export const request: Uint8Array = requestOf();

/** What a port on a public address is sent. */
export const CORPUS: Readonly<Record<string, Uint8Array>> = {
  request,
  "requests of all versions": concat([1, 2, 3, 4].map((version) => requestOf(version))),
  "HTTP GET": bytesOf("GET / HTTP/1.1\r\nHost: time.example\r\nUser-Agent: curl/8\r\n\r\n"),
  "HTTP CONNECT": bytesOf("CONNECT example.com:443 HTTP/1.1\r\n\r\n"),
  "HTTP/2": bytesOf("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
  "TLS 1.2 hello": Uint8Array.of(0x16, 3, 1, 0, 0xa5, 1, 0, 0, 0xa1, 3, 3, ...Array(32).fill(7)),
  "SSLv2 hello": Uint8Array.of(0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10),
  "SSH banner": bytesOf("SSH-2.0-OpenSSH_9.7\r\n"),
  SMTP: bytesOf("EHLO scanner.example\r\n"),
  "RDP cookie": bytesOf("\x03\0\0\x2f\x2a\xe0\0\0\0\0\0Cookie: mstshash=hello\r\n"),
  "DNS over TCP": Uint8Array.of(
    0,
    29,
    1,
    2,
    1,
    0,
    0,
    1,
    0,
    0,
    0,
    0,
    0,
    0,
    7,
    ...bytesOf("version"),
  ),
  "NTP mode 6 readvar": Uint8Array.of(0x16, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0),
  "NTP mode 7 monlist": Uint8Array.of(0x17, 0, 3, 0x2a, ...Array(44).fill(0)),
  "NTP mode 4": Uint8Array.of(0x24, ...Array(47).fill(1)),
  "NTP version 5": Uint8Array.of(0x2b, ...Array(47).fill(0)),
  "request with a MAC": concat([requestOf(), new Uint8Array(20).fill(9)]),
  zeros: new Uint8Array(96),
  ones: new Uint8Array(96).fill(255),
};

export function concat(parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

/** A client that sends requests and reads replies, by hand. */
export class Client {
  readonly #reader: MessageReader;

  constructor(readonly tcp: Deno.TcpConn) {
    this.#reader = new MessageReader(tcp, new Uint8Array(48), () => 0n);
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let sent = 0; sent < bytes.length;) sent += await this.tcp.write(bytes.subarray(sent));
  }

  async receive(): Promise<Uint8Array> {
    if (!await this.#reader.read()) throw this.#reader.error ?? new Error("no reply");
    return this.#reader.message;
  }

  async exchange(): Promise<Uint8Array> {
    await this.write(request);
    return await this.receive();
  }

  close(): void {
    this.tcp.close();
  }
}

/** Connects to 127.0.0.1. */
export async function connect({ port }: { readonly port: number }): Promise<Client> {
  return new Client(await Deno.connect({ hostname: "127.0.0.1", port }));
}

/** Opens a connection, sends so many requests and resets it, which Deno's own sockets cannot. */
export async function openAndReset(port: number, requests: number): Promise<void> {
  const socket: Socket = createConnection(port, "127.0.0.1");
  await once(socket, "connect");
  for (let i = 0; i < requests; i++) socket.write(request);
  socket.resetAndDestroy();
  await once(socket, "close");
}

/** All that has come to a socket, to which nobody sends any more. */
export async function received(socket: Deno.DatagramConn): Promise<Uint8Array[]> {
  await socket.send(new Uint8Array(1), socket.addr);
  const all: Uint8Array[] = [];
  for (;;) {
    const [bytes] = await socket.receive();
    if (bytes.length === 1) return all;
    all.push(bytes);
  }
}
