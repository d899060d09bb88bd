"""The floor under a round trip: a bare ROUTER that sends back what it gets, in a process of its own."""

from __future__ import annotations

import sys

import zmq


def main() -> None:
    """Bind the endpoint on the command line, report that, and echo until killed."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.bind(sys.argv[1])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        router.send_multipart(router.recv_multipart())


if __name__ == "__main__":
    main()
