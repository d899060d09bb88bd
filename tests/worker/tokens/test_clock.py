"""A clock that only increases, whatever happens to the system's clock."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfcli.worker.tokens.clock import JITTER_SECONDS, SLEW_SECONDS, MonotonicWallClock

START = 1_780_000_000.25
HOUR = 3600.0
YEAR = 365 * 24 * HOUR


@pytest.fixture
def hands() -> SimpleNamespace:
    """Return the hands of both clocks: `wall` and `ticks` are what they read."""
    return SimpleNamespace(wall=START, ticks=7.0)


@pytest.fixture
def steady(hands: SimpleNamespace) -> MonotonicWallClock:
    """Return a monotonic wall clock on both."""
    return on(hands)


def on(hands: SimpleNamespace, **arguments: float) -> MonotonicWallClock:
    """Make a monotonic wall clock of two hands."""
    return MonotonicWallClock(lambda: hands.wall, lambda: hands.ticks, **arguments)


def wait(hands: SimpleNamespace, seconds: float) -> None:
    """Let time pass for both clocks."""
    hands.wall += seconds
    hands.ticks += seconds


def test_the_wall_clock_is_followed(steady: MonotonicWallClock, hands: SimpleNamespace) -> None:
    """While it advances, and when it jumps ahead, by a little or by a year."""
    for step, leap in ((0.0, 0.0), (1.0, 0.0), (1e-6, 0.0), (0.3, 0.000_001), (5.0, 2.5), (0.0, YEAR), (HOUR, 0.0)):
        wait(hands, step)
        hands.wall += leap
        assert steady.now() == pytest.approx(hands.wall, abs=1e-6)


def test_a_jump_ahead_is_followed_exactly(steady: MonotonicWallClock, hands: SimpleNamespace) -> None:
    """The smallest possible step as well."""
    for leap in (YEAR, 1.0, 0.000_001):
        hands.wall += leap
        assert steady.now() == hands.wall
        hands.wall = math.nextafter(hands.wall, math.inf)
        assert steady.now() == hands.wall


@pytest.mark.parametrize("back", [SLEW_SECONDS, 2.0, HOUR, YEAR])
def test_time_advances_at_its_rate_when_the_clock_is_set_back(
    steady: MonotonicWallClock, hands: SimpleNamespace, back: float
) -> None:
    """From the latest reading, until the wall clock has caught up."""
    wait(hands, 10)
    latest = steady.now()
    hands.wall -= back
    assert steady.now() == latest
    for passed in (0.25, 1.0, 60.0, HOUR):
        wait(hands, passed)
        latest += passed
        assert steady.now() == pytest.approx(latest, abs=1e-6)
    hands.wall += back + 5
    assert steady.now() == hands.wall


def test_a_clock_that_is_set_back_repeatedly_does_not_stop_time(
    steady: MonotonicWallClock, hands: SimpleNamespace
) -> None:
    """Set back by a minute each minute, the wall clock stands still; time doesn't."""
    start = steady.now()
    for _ in range(100):
        wait(hands, 60)
        steady.now()
        hands.wall -= 60
    assert steady.now() == pytest.approx(start + 6000, abs=1e-3)


def test_a_clock_that_ntp_slews_is_followed(steady: MonotonicWallClock, hands: SimpleNamespace) -> None:
    """A wall clock that runs 500 ppm slower than the monotonic clock is followed over days."""
    for _ in range(1000):
        hands.ticks += 300
        hands.wall += 300 * (1 - 500e-6)
        assert 0 <= steady.now() - hands.wall < JITTER_SECONDS + 1e-6


def test_a_small_step_back_slows_time_down_until_it_is_made_up(
    steady: MonotonicWallClock, hands: SimpleNamespace
) -> None:
    """Time neither goes back nor stands still, and soon equals the wall clock."""
    steady.now()
    wait(hands, 128)
    seen = [steady.now()]
    hands.wall -= 0.5
    assert steady.now() == seen[0]
    for _ in range(21):
        wait(hands, 0.05)
        seen.append(steady.now())
    assert all(later - earlier >= 0.02 for earlier, later in pairwise(seen))
    assert 0 <= seen[-1] - hands.wall < JITTER_SECONDS + 1e-6


def test_small_steps_back_without_end_cost_half_of_the_time_at_most(
    steady: MonotonicWallClock, hands: SimpleNamespace
) -> None:
    """Repeated small steps back can't stop time."""
    start = steady.now()
    for _ in range(1000):
        wait(hands, 0.9)
        steady.now()
        hands.wall -= 0.9
    assert steady.now() - start >= 0.45 * 1000 - 1e-6


@pytest.mark.parametrize(("latest", "begins"), [(START - 5, START), (START + HOUR, START + HOUR)])
def test_time_begins_at_the_later_of_clock_and_mark(hands: SimpleNamespace, latest: float, begins: float) -> None:
    """From there it advances at its rate."""
    steady = on(hands, latest=latest)
    assert steady.now() == begins
    wait(hands, 60)
    assert steady.now() == begins + 60


def test_a_pause_between_the_two_readings_counts_once(hands: SimpleNamespace) -> None:
    """A process that is suspended during a reading doesn't get ahead of the clock."""
    pauses = [0.0, 0.0, 30.0]

    def ticks() -> float:
        wait(hands, pauses.pop(0) if pauses else 0)
        return float(hands.ticks)

    steady = MonotonicWallClock(lambda: hands.wall, ticks)
    for passed in (1, 1, 0):
        wait(hands, passed)
        assert steady.now() == pytest.approx(hands.wall, abs=1e-6)


def test_a_reading_that_another_one_overtakes_is_done_again(hands: SimpleNamespace) -> None:
    """Between its two readings the clock is set back, and other threads read the time."""
    meanwhile: list[Callable[[], object]] = []

    def clock() -> float:
        wall = hands.wall
        while meanwhile:
            meanwhile.pop()()
        return float(wall)

    def set_back() -> None:
        hands.wall -= 0.5
        steady.now()
        wait(hands, JITTER_SECONDS * 0.75)

    steady = MonotonicWallClock(clock, lambda: hands.ticks)
    first = steady.now()
    meanwhile.append(set_back)
    second = steady.now()
    assert first < second <= steady.now()


def test_one_thread_at_a_time_changes_what_others_count_from(hands: SimpleNamespace) -> None:
    """It reads the clocks meanwhile, and the others wait: an older reading never comes last."""
    readers: list[str] = []
    others: list[Future[float]] = []
    has_overtaken = threading.Event()

    def clock() -> float:
        reader = threading.current_thread().name
        readers.append(reader)
        if reader != first:
            has_overtaken.set()
        elif is_leaping and readers == [first, first]:  # the first of them found that the clock had leapt
            others.append(pool.submit(steady.now))
            assert not has_overtaken.wait(0.1)
        return float(hands.wall)

    first, is_leaping = threading.current_thread().name, False
    steady = MonotonicWallClock(clock, lambda: hands.ticks)
    steady.now()
    hands.wall += HOUR
    readers.clear()
    is_leaping = True
    with ThreadPoolExecutor(1) as pool:
        assert steady.now() == hands.wall
        assert others[0].result() >= hands.wall


steps = st.tuples(st.floats(0, 100), st.just(0.0) | st.floats(-YEAR, YEAR) | st.floats(-2, 2))


@settings(max_examples=200, deadline=None)
@given(st.lists(steps, max_size=40))
def test_time_never_goes_back_and_never_lags_by_more_than_half(moves: list[tuple[float, float]]) -> None:
    """However the clock is set; and time is never behind the wall clock."""
    hands = SimpleNamespace(wall=START, ticks=0.0)
    steady = on(hands)
    earlier = steady.now()
    for passed, step in moves:
        wait(hands, passed)
        hands.wall += step
        now = steady.now()
        assert now >= earlier
        assert now - earlier >= passed / 2 - 1e-5
        assert now >= hands.wall - 1e-6
        earlier = now


def test_no_thread_sees_an_earlier_time_than_another_did() -> None:
    """Eight threads read at once while the clock jumps back and forth."""
    readings: Iterator[int] = iter(range(10**9))

    def leaping() -> float:
        # Mostly a little ahead of all that was seen, so that each reading changes what the next ones start from.
        number = next(readings)
        return START + number * 1e-3 - (HOUR if number % 3 == 0 else 0.0)

    steady = MonotonicWallClock(leaping)
    board = [0.0]

    def never_goes_back(_: int) -> bool:
        for _ in range(3000):
            before = board[0]
            now = steady.now()
            if now < before:
                return False
            board[0] = now
        return True

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(never_goes_back, range(8)))
    finally:
        sys.setswitchinterval(interval)
