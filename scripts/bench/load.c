/*
 * Closed loop: each connection sends a request when the reply to its last one
 * has come. Counting begins once every connection has had a reply, or after
 * five seconds if the server leaves one without.
 *
 *   load PORT CONNECTIONS SECONDS
 *
 * Prints JSON: replies a second, replies of the least and the most served
 * connection, and the median and the slowest thousandth of reply times (µs).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 48, SLOTS = 1000000, PATIENCE = 5 };

struct connection {
  int fd, filled, warm;
  double sent;
  long replies;
};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void ask(struct connection *c) {
  static unsigned char request[SIZE] = {0x23, 0, 0, 0x20};
  c->sent = now();
  if (write(c->fd, request, SIZE) != SIZE) die("write");
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  int port = atoi(argv[1]), count = atoi(argv[2]);
  double seconds = atof(argv[3]);
  struct rlimit files = {count + 64, count + 64};
  setrlimit(RLIMIT_NOFILE, &files);
  struct connection *all = calloc(count, sizeof *all);
  uint32_t *times = calloc(SLOTS, sizeof *times); /* replies by microsecond */
  int queue = epoll_create1(0), one = 1, cold = count;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  for (int i = 0; i < count; i++) {
    struct connection *c = &all[i];
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (void *)&address, sizeof address) < 0) die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(queue, EPOLL_CTL_ADD, c->fd, &event);
  }
  for (int i = 0; i < count; i++) ask(&all[i]);
  double start = 0, begun = now(), end = begun + PATIENCE + seconds;
  struct epoll_event events[256];
  unsigned char reply[SIZE];
  while (now() < end) {
    int ready = epoll_wait(queue, events, 256, 1000);
    if (start == 0 && now() - begun > PATIENCE) start = begun + PATIENCE;
    for (int i = 0; i < ready; i++) {
      struct connection *c = events[i].data.ptr;
      int got = read(c->fd, reply, SIZE - c->filled);
      if (got <= 0) die("read");
      if ((c->filled += got) < SIZE) continue;
      c->filled = 0;
      if (!c->warm) {
        c->warm = 1;
        if (--cold == 0 && start == 0) end = (start = now()) + seconds;
      }
      if (start > 0 && c->sent >= start) {
        double took = (now() - c->sent) * 1e6;
        times[took < SLOTS ? (int)took : SLOTS - 1]++;
        c->replies++;
      }
      ask(c);
    }
  }
  long total = 0, least = all[0].replies, most = 0;
  for (int i = 0; i < count; i++) {
    total += all[i].replies;
    if (all[i].replies < least) least = all[i].replies;
    if (all[i].replies > most) most = all[i].replies;
  }
  long seen = 0, median = -1, slowest = -1;
  for (int i = 0; i < SLOTS; i++) {
    seen += times[i];
    if (median < 0 && seen * 2 >= total) median = i;
    if (slowest < 0 && seen * 1000 >= total * 999) slowest = i;
  }
  printf("{\"rate\":%.0f,\"least\":%ld,\"most\":%ld,\"median\":%ld,\"slowest\":%ld}\n",
         total / seconds, least, most, median, slowest);
  return 0;
}
