/**
 * Names, sizes, offsets and values from sys/socket.h, netinet/in.h,
 * netinet/tcp.h, sys/un.h, sys/epoll.h, sys/resource.h, fcntl.h, time.h,
 * signal.h, bits/types/struct_*.h and errno.h on 64-bit Linux. All but one are
 * the same on x86-64 and arm64. A test checks them against a C compiler.
 *
 * @module
 */

export const msghdr = {
  size: 56,
  msg_name: 0,
  msg_namelen: 8,
  msg_iov: 16,
  msg_iovlen: 24,
  msg_control: 32,
  msg_controllen: 40,
} as const;

/** Begins with a `msghdr`. */
export const mmsghdr = { size: 64, msg_len: 56 } as const;

export const iovec = { size: 16, iov_base: 0, iov_len: 8 } as const;

export const cmsghdr = { size: 16, cmsg_len: 0, cmsg_level: 8, cmsg_type: 12 } as const;

export const timespec = { size: 16, tv_sec: 0, tv_nsec: 8 } as const;

export const sockaddr_in = { size: 16, sin_family: 0, sin_port: 2, sin_addr: 4 } as const;

export const sockaddr_in6 = {
  size: 28,
  sin6_addr: 8,
  sin6_scope_id: 24,
} as const;

export const sockaddr_un = { size: 110, sun_path: 2 } as const;

/** Packed on x86-64. */
export const EPOLL_EVENT = {
  x86_64: { size: 12, events: 0, data: 4 },
  aarch64: { size: 16, events: 0, data: 8 },
} as const;

export const epoll_event: {
  readonly size: number;
  readonly events: number;
  readonly data: number;
} = EPOLL_EVENT[Deno.build.arch];

export const in_pktinfo = { size: 12, ipi_ifindex: 0 } as const;

export const in6_pktinfo = { size: 20, ipi6_ifindex: 16 } as const;

export const CLOCK_MONOTONIC_COARSE = 6;

export const O_RDWR = 2;
export const O_CREAT = 0o100;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;
export const F_WRLCK = 1;
export const F_OFD_SETLK = 37;

export const flock = { size: 32, l_type: 0 } as const;

export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_INET6 = 10;
export const SOCK_DGRAM = 2;
export const SOCK_NONBLOCK = 0x800;
export const SOCK_CLOEXEC = 0x80000;
export const SOL_SOCKET = 1;
export const SO_TYPE = 3;
export const SO_RCVBUF = 8;
export const SO_ACCEPTCONN = 30;
export const SO_TIMESTAMPNS = 35;
export const SCM_TIMESTAMPNS = 35;
export const IPPROTO_IP = 0;
export const IP_PKTINFO = 8;
export const IPPROTO_TCP = 6;
export const TCP_NODELAY = 1;
export const IPPROTO_IPV6 = 41;
export const IPV6_RECVPKTINFO = 49;
export const MSG_TRUNC = 0x20;
export const MSG_DONTWAIT = 0x40;
export const MSG_NOSIGNAL = 0x4000;

export const EPOLL_CLOEXEC = 0x80000;
export const EPOLL_CTL_ADD = 1;
export const EPOLL_CTL_DEL = 2;
export const EPOLL_CTL_MOD = 3;
export const EPOLLIN = 1;
export const EPOLLOUT = 4;

export const RLIMIT_NOFILE = 7;

export const SIGTSTP = 20;

export const EPERM = 1;
export const ENOENT = 2;
export const EINTR = 4;
export const EAGAIN = 11;
export const ENOMEM = 12;
export const EACCES = 13;
export const EEXIST = 17;
export const EISDIR = 21;
export const EINVAL = 22;
export const ENOSPC = 28;
export const ESPIPE = 29;
export const ENAMETOOLONG = 36;
export const EPROTO = 71;
export const ECONNABORTED = 103;
export const ECONNRESET = 104;
export const ENOBUFS = 105;
export const ECONNREFUSED = 111;
