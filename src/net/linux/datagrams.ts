/**
 * Datagrams through libc: in batches for a server, one for a client, each with
 * the kernel's time of arrival.
 *
 * @module
 */

import type { SocketAddress } from "../address.ts";
import {
  align,
  Arena,
  arrivalTime,
  CONTROL,
  decodeAddress,
  layOut,
  NAME,
  Receiver,
  sendNow,
  WOULD_BLOCK,
} from "./message.ts";
import { check, encodeAddress, keepStamping, socketError } from "./sockets.ts";
import { errno, type Libc } from "../../libc/libc.ts";
import * as c from "../../libc/structures.ts";

/** Never waits, and says how long each really is. */
const RECEIVING = c.MSG_DONTWAIT | c.MSG_TRUNC;

/** Datagrams taken and answered at once. */
export const BATCH = 64;

/** Errors that are over at the next attempt. */
const PASSING: readonly number[] = [c.EAGAIN, c.EINTR, c.ENOBUFS, c.ENOMEM];

/** Receives datagrams in batches and answers each in its own place. */
export class DatagramBatch {
  /** What came: the first bytes of each. */
  readonly requests: readonly Uint8Array[];
  /** What to answer. */
  readonly replies: readonly Uint8Array[];
  readonly #libc: Libc;
  readonly #fd: number;
  readonly #arena: Arena;
  readonly #received: number;
  readonly #sent: number;
  readonly #names: number;
  readonly #controls: number;
  readonly #receiving: Uint8Array<ArrayBuffer>;
  readonly #sending: Uint8Array<ArrayBuffer>;
  /** Replies that are ready. */
  #ready = 0;

  /** @param size Bytes of each request that are looked at, and of each reply. */
  constructor(libc: Libc, fd: number, size: number) {
    this.#libc = libc;
    this.#fd = fd;
    const each = 2 * c.mmsghdr.size + 2 * c.iovec.size + 2 * align(size) + NAME + CONTROL;
    const arena = this.#arena = new Arena(libc, BATCH * each);
    this.#received = arena.take(BATCH * c.mmsghdr.size);
    this.#sent = arena.take(BATCH * c.mmsghdr.size);
    this.#names = arena.take(BATCH * NAME);
    this.#controls = arena.take(BATCH * CONTROL);
    const requests = arena.take(BATCH * size);
    const replies = arena.take(BATCH * size);
    const slices = (start: number) =>
      Array.from({ length: BATCH }, (_, i) => arena.slice(start + i * size, size));
    this.requests = slices(requests);
    this.replies = slices(replies);
    for (let i = 0; i < BATCH; i++) {
      const name = this.#names + i * NAME;
      const control = this.#controls + i * CONTROL;
      const [from, to] = [this.#received, this.#sent].map((start) => start + i * c.mmsghdr.size);
      layOut(arena, from!, name, requests + i * size, size, control);
      layOut(arena, to!, name, replies + i * size, size, control);
    }
    this.#receiving = arena.slice(this.#received, BATCH * c.mmsghdr.size);
    this.#sending = arena.slice(this.#sent, BATCH * c.mmsghdr.size);
  }

  /**
   * Takes datagrams if there are any, never waiting.
   *
   * @returns How many have come.
   * @throws {Error} if the socket is broken.
   */
  receive(): number {
    const { view } = this.#arena;
    for (let i = 0, at = this.#received; i < BATCH; i++, at += c.mmsghdr.size) {
      view.setUint32(at + c.msghdr.msg_namelen, c.sockaddr_in6.size, true);
      view.setUint32(at + c.msghdr.msg_controllen, CONTROL, true);
    }
    this.#ready = 0;
    const count = this.#libc.recvmmsg(this.#fd, this.#receiving, BATCH, RECEIVING, 0n);
    if (count >= 0) return count;
    const number = errno(this.#libc);
    if (PASSING.includes(number)) return 0;
    throw socketError(this.#libc, number);
  }

  /** Bytes of one that have come, {@linkcode requests} holds no more than its size of them. */
  length(i: number): number {
    return this.#arena.view.getUint32(
      this.#received + i * c.mmsghdr.size + c.mmsghdr.msg_len,
      true,
    );
  }

  /** When the kernel received one: nanoseconds since the Unix epoch; 0 if it does not say. */
  arrived(i: number): bigint {
    const start = this.#controls + i * CONTROL;
    const header = this.#received + i * c.mmsghdr.size;
    const length = this.#arena.view.getUint32(header + c.msghdr.msg_controllen, true);
    return arrivalTime(this.#arena.view, start, start + length);
  }

  /** Who sent one: its IP address. */
  sender(i: number): string {
    return decodeAddress(this.#arena.view, this.#names + i * NAME);
  }

  /** Has the reply to one sent with the next {@linkcode send}. @returns Where to write it. */
  reply(i: number): Uint8Array {
    const { view } = this.#arena;
    const from = this.#received + i * c.mmsghdr.size;
    const to = this.#sent + this.#ready * c.mmsghdr.size;
    // The reply takes the place of its turn; who and whence are those of the request.
    this.#arena.point(to + c.msghdr.msg_name, this.#names + i * NAME);
    view.setUint32(
      to + c.msghdr.msg_namelen,
      view.getUint32(from + c.msghdr.msg_namelen, true),
      true,
    );
    this.#pointSource(i, from, to);
    return this.replies[this.#ready++]!;
  }

  /** Replies that are ready to be sent. */
  get ready(): number {
    return this.#ready;
  }

  /** Sends what is ready. What cannot be sent is lost. */
  send(): void {
    for (let at = 0; at < this.#ready;) {
      const rest = at === 0 ? this.#sending : this.#sending.subarray(at * c.mmsghdr.size);
      const count = this.#libc.sendmmsg(this.#fd, rest, this.#ready - at, c.MSG_DONTWAIT);
      at += Math.max(1, count); // The first of the rest failed: the others may not.
    }
  }

  /** The kernel takes the address that was asked, in the form in which it told it, for the reply's source. */
  #pointSource(i: number, from: number, to: number): void {
    const { view } = this.#arena;
    const start = this.#controls + i * CONTROL;
    const end = start + view.getUint32(from + c.msghdr.msg_controllen, true);
    let at = start;
    let length = 0;
    while (at + c.cmsghdr.size <= end) {
      length = view.getUint32(at + c.cmsghdr.cmsg_len, true);
      const level = view.getInt32(at + c.cmsghdr.cmsg_level, true);
      const data = at + c.cmsghdr.size;
      // The way back is the routing table's to choose, but for neighbours with local addresses.
      if (level === c.IPPROTO_IP) view.setInt32(data + c.in_pktinfo.ipi_ifindex, 0, true);
      if (level === c.IPPROTO_IPV6 && !this.#isLinkLocal(i)) {
        view.setInt32(data + c.in6_pktinfo.ipi6_ifindex, 0, true);
      }
      if (level === c.IPPROTO_IP || level === c.IPPROTO_IPV6) break;
      at += align(Math.max(length, c.cmsghdr.size));
      length = 0;
    }
    this.#arena.point(to + c.msghdr.msg_control, at);
    view.setUint32(to + c.msghdr.msg_controllen, align(length), true);
  }

  /** Is the sender's address one of fe80::/10? */
  #isLinkLocal(i: number): boolean {
    const address = this.#names + i * NAME + c.sockaddr_in6.sin6_addr;
    return (this.#arena.view.getUint16(address) & 0xffc0) === 0xfe80;
  }
}

/** A client's socket, connected to one server. */
export class DatagramSocket {
  readonly #libc: Libc;
  readonly #fd: number;
  readonly #receiver: Receiver;

  /**
   * Deno cannot connect a socket for datagrams, and only a connected one hears that nobody listens,
   * and nobody but its server.
   *
   * @param fd Of a socket of Deno's that is stamped, and not to be read from any more.
   * @throws {Error} if the address cannot be reached from here.
   */
  constructor(libc: Libc, fd: number, address: SocketAddress) {
    this.#libc = libc;
    this.#fd = fd;
    keepStamping(libc);
    const name = encodeAddress(libc, address);
    check(libc, libc.connect(fd, name, name.length));
    this.#receiver = new Receiver(libc);
  }

  send(bytes: Uint8Array<ArrayBuffer>): void {
    const count = sendNow(this.#libc, this.#fd, bytes);
    if (count < 0 && count !== WOULD_BLOCK) throw socketError(this.#libc, -count);
  }

  /**
   * Takes a datagram if there is one, never waiting.
   *
   * @returns How many bytes it has, of which `into` holds the first, and when the kernel received
   * them: nanoseconds since the Unix epoch; `null` if there is none.
   * @throws {Deno.errors.ConnectionRefused} if the server's machine says that nobody listens.
   */
  receive(into: Uint8Array): { readonly length: number; readonly arrived: bigint } | null {
    const { bytes } = this.#receiver;
    const length = this.#receiver.receive(this.#fd, bytes.length, c.MSG_TRUNC);
    if (length === WOULD_BLOCK) return null;
    if (length < 0) throw socketError(this.#libc, -length);
    into.set(bytes.subarray(0, Math.min(length, into.length)));
    return { length, arrived: this.#receiver.arrived() };
  }
}
