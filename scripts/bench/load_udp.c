/*
 * Closed loop over UDP: each socket sends a request when the reply to its last
 * one has come, or has been missing for a tenth of a second.
 *
 *   load_udp PORT SOCKETS SECONDS
 *
 * Prints JSON: replies a second, and how many were missing.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 48 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  int port = atoi(argv[1]), count = atoi(argv[2]), queue = epoll_create1(0);
  double seconds = atof(argv[3]);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  unsigned char request[SIZE] = {0x23, 0, 6, 0x20}, reply[SIZE];
  struct { int fd; double sent; } *all = calloc(count, sizeof *all);
  for (int i = 0; i < count; i++) {
    all[i].fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (connect(all[i].fd, (void *)&address, sizeof address) < 0) return perror("connect"), 1;
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
    epoll_ctl(queue, EPOLL_CTL_ADD, all[i].fd, &event);
  }
  long replies = 0, missing = 0;
  double start = now(), t = start, checked = start;
  for (int i = 0; i < count; i++) {
    all[i].sent = t;
    write(all[i].fd, request, SIZE);
  }
  struct epoll_event events[256];
  while ((t = now()) < start + seconds) {
    int ready = epoll_wait(queue, events, 256, 20);
    for (int k = 0; k < ready; k++) {
      int i = events[k].data.u32;
      if (read(all[i].fd, reply, SIZE) != SIZE) continue;
      replies++;
      all[i].sent = t;
      write(all[i].fd, request, SIZE);
    }
    if (t - checked < 0.02) continue;
    checked = t;
    for (int i = 0; i < count; i++) {
      if (t - all[i].sent < 0.1) continue;
      missing++;
      all[i].sent = t;
      write(all[i].fd, request, SIZE);
    }
  }
  printf("{\"rate\":%.0f,\"missing\":%ld}\n", replies / seconds, missing);
  return 0;
}
