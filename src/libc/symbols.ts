/**
 * The libc functions that tsync calls, described for Deno's foreign function
 * interface. Those from accept4 on are called on Linux only, which alone has most.
 *
 * @module
 */

/** All of them. 32 bits are enough for any `ssize_t` returned here. */
export const SYMBOLS = {
  // Clock.
  clock_gettime: { parameters: ["i32", "buffer"], result: "i32" },
  clock_settime: { parameters: ["i32", "buffer"], result: "i32" },
  adjtime: { parameters: ["buffer", "usize"], result: "i32" },
  ntp_adjtime: { parameters: ["buffer"], result: "i32" },
  ntp_gettime: { parameters: ["buffer"], result: "i32" },
  // The address of errno, on Linux and on macOS.
  __errno_location: { parameters: [], result: "usize" },
  __error: { parameters: [], result: "usize" },
  // Reads memory at an address, and tells the address of a buffer. Deno's own functions for these
  // need permission for every library.
  memcpy: { parameters: ["buffer", "usize", "usize"], result: "usize" },
  // Limits. Only macOS has the last.
  getrlimit: { parameters: ["i32", "buffer"], result: "i32" },
  setrlimit: { parameters: ["i32", "buffer"], result: "i32" },
  sysctlbyname: { parameters: ["buffer", "buffer", "buffer", "usize", "usize"], result: "i32" },
  // Terminal.
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
  // The same, but on one of Deno's threads, so that the event loop keeps running.
  epoll_wait_async: {
    name: "epoll_wait",
    parameters: ["i32", "buffer", "i32", "i32"],
    result: "i32",
    nonblocking: true,
  },
  // Files. The third argument of `open` and `fcntl` is one of any, which on Linux makes no difference.
  open: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  pread: { parameters: ["i32", "buffer", "usize", "i64"], result: "i32" },
  pwrite: { parameters: ["i32", "buffer", "usize", "i64"], result: "i32" },
  fchmod: { parameters: ["i32", "i32"], result: "i32" },
  fcntl: { parameters: ["i32", "i32", "buffer"], result: "i32" },
  __xpg_strerror_r: { parameters: ["i32", "buffer", "usize"], result: "i32" },
} as const;
