/*
 * Opens connections, each from an address of its own, which then are idle; says
 * so, and until its input ends sends requests by UDP, each from another address,
 * so many a second.
 *
 *   flood TCP_PORT UDP_PORT CONNECTIONS RATE
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 48, FIRST_CLIENT = 0x7f100001, FIRST_SENDER = 0x7f200001, SENDERS = 0x500000 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static struct sockaddr_in address(unsigned host, int port) {
  struct sockaddr_in made = {.sin_family = AF_INET, .sin_port = htons(port)};
  made.sin_addr.s_addr = htonl(host);
  return made;
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  int count = atoi(argv[3]), rate = atoi(argv[4]);
  struct rlimit files = {count + 64, count + 64};
  setrlimit(RLIMIT_NOFILE, &files);
  struct sockaddr_in to = address(INADDR_LOOPBACK, atoi(argv[1]));
  for (int i = 0; i < count; i++) {
    struct sockaddr_in from = address(FIRST_CLIENT + i, 0);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(fd, (void *)&from, sizeof from) < 0) return perror("bind"), 1;
    if (connect(fd, (void *)&to, sizeof to) < 0) return perror("connect"), 1;
  }
  puts("ready");
  fflush(stdout);
  to.sin_port = htons(atoi(argv[2]));
  unsigned char request[SIZE] = {0x23, 0, 6, 0x20};
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(struct in_pktinfo))];
  } control = {.header = {CMSG_LEN(sizeof(struct in_pktinfo)), IPPROTO_IP, IP_PKTINFO}};
  struct iovec vector = {request, SIZE};
  struct msghdr message = {&to, sizeof to, &vector, 1, &control, sizeof control.bytes, 0};
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  struct pollfd input = {0, POLLIN, 0};
  double start = now();
  for (long sent = 0; poll(&input, 1, 1) == 0;) {
    for (long due = (now() - start) * rate; sent < due; sent++) {
      struct in_pktinfo from = {.ipi_spec_dst.s_addr = htonl(FIRST_SENDER + sent % SENDERS)};
      memcpy(CMSG_DATA(&control.header), &from, sizeof from);
      sendmsg(fd, &message, MSG_DONTWAIT);
    }
  }
  return 0;
}
