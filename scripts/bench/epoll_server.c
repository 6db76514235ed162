/*
 * The limit for one thread: epoll, read, stamp, write, nothing else.
 *
 *   epoll_server    prints the port that it listens on
 */
#include <arpa/inet.h>
#include <endian.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static uint64_t stamp(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  uint64_t seconds = t.tv_sec + 2208988800u;
  return htobe64(seconds << 32 | ((uint64_t)t.tv_nsec << 32) / 1000000000u);
}

int main(void) {
  struct rlimit files = {65536, 65536};
  setrlimit(RLIMIT_NOFILE, &files);
  int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0), queue = epoll_create1(0);
  struct sockaddr_in address = {.sin_family = AF_INET};
  socklen_t length = sizeof address;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listener, (void *)&address, length) < 0 || listen(listener, 4096) < 0) return 1;
  getsockname(listener, (void *)&address, &length);
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[256];
  epoll_ctl(queue, EPOLL_CTL_ADD, listener, &event);
  for (;;) {
    int ready = epoll_wait(queue, events, 256, -1);
    for (int i = 0; i < ready; i++) {
      int fd = events[i].data.fd;
      if (fd == listener) {
        event.data.fd = accept(listener, NULL, NULL);
        setsockopt(event.data.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        epoll_ctl(queue, EPOLL_CTL_ADD, event.data.fd, &event);
        continue;
      }
      unsigned char message[48];
      if (read(fd, message, 48) != 48) {
        close(fd);
        continue;
      }
      uint64_t arrived = stamp(), left;
      memcpy(message + 24, message + 40, 8);
      memcpy(message + 32, &arrived, 8);
      message[0] = 0x24, message[1] = 10;
      left = stamp();
      memcpy(message + 40, &left, 8);
      if (write(fd, message, 48) != 48) close(fd);
    }
  }
}
