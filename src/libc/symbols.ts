/**
 * The functions of libc that tsync calls, as Deno's foreign function interface
 * wants them described. Linux alone has accept4 and those that follow it.
 *
 * @module
 */

/** All of them. Results of type `ssize_t` are taken as 32 bits, which hold any that occurs here. */
export const SYMBOLS = {
  // The clock.
  clock_gettime: { parameters: ["i32", "buffer"], result: "i32" },
  clock_settime: { parameters: ["i32", "buffer"], result: "i32" },
  adjtime: { parameters: ["buffer", "usize"], result: "i32" },
  ntp_adjtime: { parameters: ["buffer"], result: "i32" },
  // Errors: Linux's and macOS's place of the number.
  __errno_location: { parameters: [], result: "usize" },
  __error: { parameters: [], result: "usize" },
  // Copies from an address, and returns the address it copied to. Deno's own functions for both
  // take a permission for every library.
  memcpy: { parameters: ["buffer", "usize", "usize"], result: "usize" },
  // The terminal.
  sigaction: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  raise: { parameters: ["i32"], result: "i32" },
  tcdrain: { parameters: ["i32"], result: "i32" },
  // Sockets.
  getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  send: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
  recv: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
  recvmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  if_nametoindex: { parameters: ["buffer"], result: "u32" },
  accept4: { parameters: ["i32", "buffer", "buffer", "i32"], result: "i32" },
  recvmmsg: { parameters: ["i32", "buffer", "u32", "i32", "usize"], result: "i32" },
  sendmmsg: { parameters: ["i32", "buffer", "u32", "i32"], result: "i32" },
  epoll_create1: { parameters: ["i32"], result: "i32" },
  epoll_ctl: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  epoll_wait: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32" },
  // The same, but waiting on one of Deno's threads while the event loop goes on.
  epoll_wait_aside: {
    name: "epoll_wait",
    parameters: ["i32", "buffer", "i32", "i32"],
    result: "i32",
    nonblocking: true,
  },
  __xpg_strerror_r: { parameters: ["i32", "buffer", "usize"], result: "i32" },
} as const;
