"""A client with a token that asks at a modest, fixed rate; answers calls as `answering.py` says."""

from __future__ import annotations

import time

from load.load_generator import OK, PING
from load.posts import Connection
from subjects.answering import answer_calls


class Driver:
    """The method that the benchmark calls."""

    def ask(self, url: str, token: str, rate: float, seconds: float) -> list[float]:
        """Ping so many times a second over one connection; return the seconds that each answer took.

        A ping that is late, because the one before it was, counts from when it was due.
        """
        took: list[float] = []
        with Connection(url) as connection:
            request = connection.encoded(token, PING)
            connection.post(request)
            first = time.perf_counter()
            for number in range(int(rate * seconds)):
                due = first + number / rate
                wait = due - time.perf_counter()
                if wait > 0:
                    time.sleep(wait)
                start = time.perf_counter() if wait > 0 else due
                status = connection.post(request)
                took.append(time.perf_counter() - start)
                if status != OK:
                    raise RuntimeError(f"a good token was answered {status}")
        return took


if __name__ == "__main__":
    answer_calls(Driver())
