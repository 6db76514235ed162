/**
 * A file that is written in place, for programs that map it into their memory.
 * Through libc, since Deno would need the permission to write.
 *
 * @module
 */

import { errno, type Libc } from "./libc.ts";
import * as c from "./structures.ts";

/** What those who map it need: rw-r--r--. */
const MODE = 0o644;

/** An open file that no other such program writes. On Linux only. */
export class PlacedFile {
  readonly #libc: Libc;
  readonly #fd: number;

  private constructor(libc: Libc, fd: number) {
    this.#libc = libc;
    this.#fd = fd;
  }

  /**
   * Opens a file, or makes one, that everybody may read.
   *
   * @returns Or an error number: EAGAIN if another program has opened it so.
   */
  static open(libc: Libc, path: string): PlacedFile | number {
    const flags = c.O_RDWR | c.O_CREAT | c.O_CLOEXEC | c.O_NONBLOCK;
    const fd = libc.open(new TextEncoder().encode(`${path}\0`), flags, MODE);
    if (fd < 0) return errno(libc);
    const file = new PlacedFile(libc, fd);
    // All of it, as long as it is open. Unlike flock's, only those can have this lock who may write.
    const lock = new Uint8Array(c.flock.size);
    new Int16Array(lock.buffer)[c.flock.l_type] = c.F_WRLCK;
    if (libc.fcntl(fd, c.F_OFD_SETLK, lock) === 0) return file;
    const number = errno(libc);
    file.close();
    return number;
  }

  /** Sets its permissions, whatever the process's umask is. @returns 0, or an error number. */
  share(): number {
    return this.#libc.fchmod(this.#fd, MODE) < 0 ? errno(this.#libc) : 0;
  }

  /** Reads from its beginning. @returns How many bytes there were, or an error number less than 0. */
  read(bytes: Uint8Array<ArrayBuffer>): number {
    const count = this.#libc.pread(this.#fd, bytes, BigInt(bytes.length), 0n);
    return count < 0 ? -errno(this.#libc) : count;
  }

  /**
   * Writes where it is mapped. Whoever sees what a later call wrote sees what an earlier one did: the
   * kernel takes and releases the file's lock in each. Eight aligned bytes appear at once.
   *
   * @returns 0, or an error number.
   */
  write(bytes: Uint8Array<ArrayBuffer>, at: number): number {
    const count = this.#libc.pwrite(this.#fd, bytes, BigInt(bytes.length), BigInt(at));
    if (count < 0) return errno(this.#libc);
    return count === bytes.length ? 0 : c.ENOSPC;
  }

  close(): void {
    this.#libc.close(this.#fd);
  }
}
