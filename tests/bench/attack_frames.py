"""Attack a worker's ZeroMQ socket: a million wrong messages from an allowed client, and peers without a key.

    python tests/bench/attack_frames.py [--messages N] [--unauthenticated N] [--seed N] [--transport tcp|ipc]
        [--log-level L]

Messages are captured ones, changed, and random ones (`frame_mutants.py`). After each 200 a proper job is sent and its
answer awaited, so that each answer can be compared with what was asked (`frame_ledger.py`). Peers without a key connect
in between (`unauthenticated_peers.py`). In the end the worker must serve as before, with the threads it began with, no
more descriptors, no more memory, the tokens that it acknowledged, as many jobs as it answered, and a log without faults
and tokens. Exit status 1 when something was wrong.

tests/end_to_end/security/test_attack_frames.py runs this too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq
from attacks.frame_ledger import Ledger
from attacks.frame_mutants import LARGEST_FRAME_BYTES, FrameMutants
from attacks.unauthenticated_peers import UnauthenticatedPeers
from attacks.victim import GOOD_TOKEN, USER, FellError, State, Victim, attacked

from nfcli.models.environment.curve_keys import KeyPair, ensure_client_key, read_public_key
from nfcli.models.environment.paths import DEFAULT_WORKER

BATCH = 200
CONNECTIONS = 3
ANSWER_SECONDS = 60.0
MAX_MORE_THREADS = 50
MAX_MORE_BYTES = 48 * 1024 * 1024
CHECKS = 10
DEAF_MESSAGES = 3_000
FLOOD_MESSAGES = 30
_SENTINEL = json.dumps({"task": "bearer_token_check", "kwargs": {"token": GOOD_TOKEN}}).encode()


class Insider:
    """An allowed client that says what it likes, over connections that it changes now and then."""

    def __init__(self, victim: Victim, seed: int) -> None:
        self.ledger = Ledger()
        self.messages = self.frames = 0
        self._mutants = FrameMutants(seed)
        self._victim = victim
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._keys = ensure_client_key(victim.environment)
        self._dealers = [self._connect() for _ in range(CONNECTIONS)]

    def _connect(self, **options: int) -> zmq.Socket[bytes]:
        dealer = self._context.socket(zmq.DEALER)
        dealer.linger, dealer.sndhwm, dealer.rcvhwm = 0, 0, 0
        for name, value in options.items():
            setattr(dealer, name, value)
        lock(dealer, self._keys, self._victim)
        dealer.connect(self._victim.endpoint)
        return dealer

    def send_batch(self, size: int) -> None:
        """Send so many messages over one connection, then a proper job, and read until all is answered."""
        place = self._mutants.chance.randrange(CONNECTIONS)
        dealer, ledger, mutants = self._dealers[place], self.ledger, self._mutants
        for _ in range(size):
            frames = mutants.next()
            ledger.sent(frames)
            dealer.send_multipart(frames)
            self.frames += len(frames)
        self.messages += size
        self.settle(dealer)
        if mutants.chance.random() < 0.02:  # a fresh connection in its place
            dealer.close()
            self._dealers[place] = self._connect()

    def settle(self, dealer: zmq.Socket[bytes]) -> None:
        """Send a proper job and read answers until that and all before it are answered.

        Raises:
            FellError: they aren't in time.
        """
        deadline = time.monotonic() + ANSWER_SECONDS
        mark, is_marked = b"settled-%d" % self.messages, False
        self._send(dealer, b"0x04", mark, _SENTINEL)
        while not is_marked or self.ledger.has_open_jobs():
            if not dealer.poll(max(0, int((deadline - time.monotonic()) * 1_000))):
                raise FellError(f"after {self.messages} messages a job isn't answered")
            frames = dealer.recv_multipart()
            self.ledger.answered(frames)
            if frames[2] == b"0x05" and frames[4:6] == [mark, b"200"]:
                is_marked = True
                if json.loads(frames[6])[DEFAULT_WORKER]["result"] is not True:
                    self.ledger.complain(f"a stored token is not known: {frames[6]!r}")
        self.ledger.settle()

    def _send(self, dealer: zmq.Socket[bytes], command: bytes, uuid: bytes, data: bytes) -> None:
        frames = [b"", b"NFPC01", command, b"fastmcp", b"all", uuid, data]
        self.ledger.sent(frames)
        dealer.send_multipart(frames)

    def send_too_much(self) -> None:
        """Send a frame over the limit: the worker cuts that connection, and a new one is served."""
        dealer = self._connect()
        monitor = dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        dealer.send_multipart([b"", b"NFPC01", b"0x04", b"fastmcp", b"all", b"huge", b"x" * (LARGEST_FRAME_BYTES + 1)])
        if not monitor.poll(int(ANSWER_SECONDS * 1_000)):
            self.ledger.complain("a frame over the limit is taken")
        dealer.disable_monitor()
        dealer.close()

    def be_deaf(self) -> None:
        """Ask thousands of times and read nothing: the worker must not wait for the client."""
        dealer = self._connect(rcvhwm=1)
        for number in range(DEAF_MESSAGES):
            dealer.send_multipart([b"", b"NFPC01", b"0x06", b"fastmcp", b"all", b"deaf-%d" % number, b""])
        self.settle(self._dealers[0])
        dealer.close()

    def leave_in_a_flood(self) -> None:
        """Send what takes the worker a while to read, never read an answer, and be gone in the middle of it."""
        dealer = self._connect(rcvhwm=1)
        data = b'{"task":[' + b'{"a":[]},' * 30_000 + b"0]}"
        for number in range(FLOOD_MESSAGES):
            dealer.send_multipart([b"", b"NFPC01", b"0x11", b"fastmcp", b"all", b"flood-%d" % number, data])
        self.settle(self._dealers[0])
        dealer.close()

    def close(self) -> None:
        """Close all connections."""
        self._context.destroy(linger=0)


def lock(socket: zmq.Socket[bytes], keys: KeyPair, victim: Victim) -> None:
    """Make a socket a CURVE client of the worker."""
    socket.curve_publickey, socket.curve_secretkey = keys.public, keys.secret
    socket.curve_serverkey = read_public_key(victim.environment.keys_folder / f"{DEFAULT_WORKER}.key")


class Siege:
    """One attack: insider, unauthenticated peers, and what the worker was like before."""

    def __init__(self, victim: Victim, seed: int, unauthenticated: int) -> None:
        self._victim = victim
        self.insider = Insider(victim, seed)
        self.unauthenticated = UnauthenticatedPeers(victim, seed)
        self._threads = victim.state().threads
        self._first = self._check()
        self._warm: State | None = None
        self._visits = unauthenticated
        self._acts: list[Callable[[], None]] = [
            self.insider.send_too_much,
            self.insider.be_deaf,
            self.insider.leave_in_a_flood,
        ]

    def run(self, messages: int) -> None:
        """Send so many messages, with visits of peers without a key and checks spread among them."""
        batches = -(-messages // BATCH)
        check_every = max(1, batches // CHECKS)
        for number in range(batches):
            self.insider.send_batch(min(BATCH, messages - number * BATCH))
            for _ in range(self._visits * (number + 1) // batches - self._visits * number // batches):
                self.unauthenticated.visit()
            if (number + 1) % check_every == 0:
                self._acts[number // check_every % len(self._acts)]()
                self._check()
                if self._warm is None and number * 4 > batches:
                    self._warm = self._victim.state()

    def end(self) -> dict[str, Any]:
        """Close everything and see what is left; return the report."""
        ledger, victim, first = self.insider.ledger, self._victim, self._first
        self.insider.close()
        self.unauthenticated.close()
        is_calm = victim.calmed(lambda state: state.descriptors <= first.descriptors)
        last = self._check()
        if not is_calm:
            ledger.complain(f"{last.descriptors} descriptors are open, at first it was {first.descriptors}")
        warm = self._warm or last
        if last.resident_bytes > warm.resident_bytes + MAX_MORE_BYTES:
            ledger.complain(f"memory grew from {warm.resident_bytes:,} to {last.resident_bytes:,} bytes")
        ledger.compare(victim.tokens(), {(USER, GOOD_TOKEN)})
        jobs = victim.run("get_stats")["jobs"]["total_jobs"] - victim.jobs_sent - ledger.managed
        if not ledger.ran <= jobs <= ledger.ran + ledger.may_have_run_again:
            ledger.complain(f"{jobs} jobs ran, {ledger.ran} were answered")
        ledger.wrong += self.unauthenticated.wrong + victim.log_faults()
        return {
            "messages": self.insider.messages,
            "frames": self.insider.frames,
            "jobs run": ledger.ran,
            "answers": dict(sorted(ledger.statuses.items())),
            "unauthenticated": dict(sorted(self.unauthenticated.visits.items())),
            "resident MB": [round(each.resident_bytes / 1e6, 1) for each in (first, warm, last)],
            "threads": [len(first.threads), len(last.threads)],
            "descriptors": [first.descriptors, last.descriptors],
            "log bytes": victim.log_bytes(),
            "wrong": ledger.wrong,
        }

    def _check(self) -> State:
        """See that the worker serves and that its threads are all alive; return its state."""
        for text in self._victim.serves():
            self.insider.ledger.complain(text)
        state = self._victim.state()
        if not self._threads <= state.threads:
            self.insider.ledger.complain(f"{len(self._threads - state.threads)} threads died")
        if len(state.threads) > len(self._threads) + MAX_MORE_THREADS:
            self.insider.ledger.complain(f"{len(state.threads)} threads run, at first it was {len(self._threads)}")
        return state


def attack(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Attack a worker of its own; return the report."""
    settings = {"endpoint": "tcp://127.0.0.1:*"} if arguments.transport == "tcp" else {}
    with attacked(folder, log_level=arguments.log_level, **settings) as victim:
        siege = Siege(victim, arguments.seed, arguments.unauthenticated)
        started = time.perf_counter()
        try:
            siege.run(arguments.messages)
        except FellError as error:
            return {"wrong": [str(error), *siege.insider.ledger.wrong, *victim.log_faults()]}
        seconds = time.perf_counter() - started
        return {"seconds": round(seconds, 1), "messages/s": round(arguments.messages / seconds), **siege.end()}


def main() -> int:
    """Attack, print the report as JSON, return the exit status."""
    parser = argparse.ArgumentParser(description="Attack a worker's ZeroMQ socket.")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--unauthenticated", type=int, default=2_000, help="how many visits of peers without a key")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--transport", choices=["tcp", "ipc"], default="tcp")
    parser.add_argument("--log-level", default="INFO")
    with tempfile.TemporaryDirectory(prefix="nf") as folder:
        report = attack(Path(folder), parser.parse_args())
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 1 if report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
