/**
 * A server's datagrams through libc, in batches, with kernel timestamps.
 *
 * @module
 */

import { align, Arena, arrivalTime, CONTROL, decodeAddress, layOut, NAME } from "./message.ts";
import { socketError } from "./sockets.ts";
import { errno, type Libc } from "../../libc/libc.ts";
import * as c from "../../libc/structures.ts";

/** Do not wait, and return each datagram's real length. */
const RECEIVING = c.MSG_DONTWAIT | c.MSG_TRUNC;

/** Datagrams received by one call. */
const BATCH = 64;

/** Errors after which the next attempt may succeed. */
const TRANSIENT: readonly number[] = [c.EAGAIN, c.EINTR, c.ENOBUFS, c.ENOMEM];

/** Receives datagrams in batches and answers them in batches. */
export class DatagramBatch {
  /** The first bytes of each datagram. */
  readonly requests: readonly Uint8Array[];
  /** Buffers for replies. */
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
  #ready = 0;

  /** @param size Length of each reply in bytes, and of the part of each request that is read. */
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
   * Receives datagrams without waiting.
   *
   * @returns Their number.
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
    if (TRANSIENT.includes(number)) return 0;
    throw socketError(this.#libc, number);
  }

  /** The length of a datagram in bytes; {@linkcode requests} may hold only the first of them. */
  length(i: number): number {
    return this.#arena.view.getUint32(
      this.#received + i * c.mmsghdr.size + c.mmsghdr.msg_len,
      true,
    );
  }

  /** When a datagram arrived: nanoseconds since the Unix epoch; 0 if the kernel does not say. */
  arrived(i: number): bigint {
    const start = this.#controls + i * CONTROL;
    const header = this.#received + i * c.mmsghdr.size;
    const length = this.#arena.view.getUint32(header + c.msghdr.msg_controllen, true);
    return arrivalTime(this.#arena.view, start, start + length);
  }

  /** The IP address that a datagram came from. */
  sender(i: number): string {
    return decodeAddress(this.#arena.view, this.#names + i * NAME);
  }

  /** Queues a reply to a datagram for {@linkcode send}. @returns The buffer to write it to. */
  reply(i: number): Uint8Array {
    const { view } = this.#arena;
    const from = this.#received + i * c.mmsghdr.size;
    const to = this.#sent + this.#ready * c.mmsghdr.size;
    // Replies are packed from the start; each goes back to where its request came from.
    this.#arena.point(to + c.msghdr.msg_name, this.#names + i * NAME);
    view.setUint32(
      to + c.msghdr.msg_namelen,
      view.getUint32(from + c.msghdr.msg_namelen, true),
      true,
    );
    this.#pointSource(i, from, to);
    return this.replies[this.#ready++]!;
  }

  /** The number of replies queued. */
  get ready(): number {
    return this.#ready;
  }

  /** Sends the queued replies. Those that cannot be sent are lost. */
  send(): void {
    for (let at = 0; at < this.#ready;) {
      const rest = at === 0 ? this.#sending : this.#sending.subarray(at * c.mmsghdr.size);
      const count = this.#libc.sendmmsg(this.#fd, rest, this.#ready - at, c.MSG_DONTWAIT);
      at += Math.max(1, count); // If the first of the rest fails, the others may not.
    }
  }

  /** Sends the reply from the address that was asked: the request's own control data says so. */
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
      // The routing table picks the interface, except towards a link-local address.
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

  /** Whether the sender's address is in fe80::/10. */
  #isLinkLocal(i: number): boolean {
    const address = this.#names + i * NAME + c.sockaddr_in6.sin6_addr;
    return (this.#arena.view.getUint16(address) & 0xffc0) === 0xfe80;
  }
}
