"""The usual design: a thread a connection, blocking reads and writes.

Prints the port that it listens on.
"""

import socketserver
import struct
import time

EPOCH = 2208988800


def stamp():
    ns = time.time_ns()
    return struct.pack(">II", ns // 10**9 + EPOCH & 0xFFFFFFFF, (ns % 10**9 << 32) // 10**9)


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        try:
            while len(request := self.request.recv(48)) == 48:
                arrived = stamp()
                head = b"\x24\x0a\x00\xec" + bytes(8) + b"LOCL" + arrived
                self.request.sendall(head + request[40:48] + arrived + stamp())
        except OSError:
            pass  # The load generator does not say goodbye.


class Server(socketserver.ThreadingTCPServer):
    request_queue_size = 4096
    daemon_threads = True
    disable_nagle_algorithm = True


with Server(("127.0.0.1", 0), Handler) as server:
    print(server.server_address[1], flush=True)
    server.serve_forever()
