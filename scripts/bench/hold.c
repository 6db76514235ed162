/*
 * Opens connections, syncs once on each (a burst of 17 exchanges), says so, and
 * holds them open until its input ends.
 *
 *   hold PORT CONNECTIONS
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SIZE = 48, BURST = 17 };

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  int port = atoi(argv[1]), count = atoi(argv[2]);
  struct rlimit files = {count + 64, count + 64};
  setrlimit(RLIMIT_NOFILE, &files);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  unsigned char request[SIZE] = {0x23, 0, 0, 0x20}, reply[SIZE];
  for (int i = 0; i < count; i++) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (void *)&address, sizeof address) < 0) return perror("connect"), 1;
    for (int k = 0; k < BURST; k++) {
      if (write(fd, request, SIZE) != SIZE) return perror("write"), 1;
      if (recv(fd, reply, SIZE, MSG_WAITALL) != SIZE) return perror("recv"), 1;
    }
  }
  puts("ready");
  fflush(stdout);
  while (getchar() != EOF);
  return 0;
}
