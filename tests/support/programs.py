"""The installed program: at a terminal, with its pipes, and watched."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pexpect

from nfcli.models.environment.paths import DEFAULT_WORKER, Environment
from nfcli.models.environment.worker_lock import read_owner

PROGRAM = Path(sys.executable).with_name("nfcli")


SECONDS = 60.0


CALCULATION_SECONDS = 0.1


READS_A_LINE, HAS_A_LINE = "\x1b[?2004h", "\x1b[?2004l"


CLEARS_A_LINE = "\r\x1b[K"


_LINE_IS_OVER = r"(?s)(\A|.*\n)line \d+: unclosed quote [^\n]*\n"


def _set_umask(umask: int) -> None:
    os.umask(umask)


class Terminal:
    """A program at a pseudo-terminal of 40 lines by 200 columns.

    `child` is pexpect's process; `typing` is what was shown while the last line was typed. `note` is called with each
    line.
    """

    typing = ""
    note: Callable[[str], object] = staticmethod(lambda _line: None)

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], umask: int | None) -> None:
        with warnings.catch_warnings():
            # Python 3.12 warns of forks beside threads, such as a client's: the child does nothing before it execs.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.child: Any = pexpect.spawn(
                command[0],
                list(command[1:]),
                timeout=SECONDS,
                dimensions=(40, 200),
                encoding="utf-8",
                env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", **environ},
                preexec_fn=None if umask is None else lambda: _set_umask(umask),
            )
        self.child.delaybeforesend = None

    def wait_for_prompt(self, prompt: str = "nf#") -> None:
        """Wait until the shell reads a line behind this prompt."""
        self.child.expect_exact(READS_A_LINE)
        self.child.expect_exact(prompt)

    def run(self, line: str, prompt: str = "nf#") -> str:
        """Type a line; return all that came out before the next prompt, which must be this one."""
        self.note(line)
        self.child.sendline(line)
        return self.printed(prompt)

    def printed(self, prompt: str = "nf#") -> str:
        """Return what is left to be seen between a line that was typed and the next prompt."""
        self.child.expect_exact(HAS_A_LINE)
        self.typing = self.child.before
        self.child.expect_exact(READS_A_LINE)
        text: str = self.child.before
        self.child.expect_exact(prompt)
        # A command that takes its time draws a line that moves; what is seen of one is what came after it was cleared.
        return "\n".join(line.split(CLEARS_A_LINE)[-1] for line in text.replace("\r\n", "\n").split("\n"))

    def hang_up(self) -> None:
        """Close the terminal under the program, as closing a window does."""
        self.child.ptyproc.fileobj.close()

    def leave(self) -> int:
        """Press Ctrl-D; return the exit status."""
        self.child.sendeof()
        return self.end()

    def end(self) -> int:
        """Wait for the end; return the exit status, 128 and the signal's number after a signal."""
        self.child.expect(pexpect.EOF)
        self.child.wait()
        signalled = self.child.signalstatus
        return int(self.child.exitstatus) if signalled is None else 128 + int(signalled)


class TerminalStarter(Protocol):
    """The type of the fixture `open_terminal`."""

    def __call__(
        self, *words: str, environment: Environment | None = None, umask: int | None = None, **environ: str
    ) -> Terminal:
        """Start nfcli with these words at a terminal; `environment` puts `-i FILE` before them."""


class Program:
    """A process in the background; what it prints is read as it comes, every wait is bounded.

    `note` is called with all that is written to it.
    """

    note: Callable[[str], object] = staticmethod(lambda _text: None)

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, **options)
        self._texts = {"out": bytearray(), "err": bytearray()}
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._pipes = {self.process.stdout.fileno(): "out", self.process.stderr.fileno(): "err"}

    @property
    def out(self) -> str:
        """All of stdout that has come since the last read."""
        return self._texts["out"].decode()

    @property
    def err(self) -> str:
        """All of stderr that has come since the last read."""
        return self._texts["err"].decode()

    def write(self, text: str) -> None:
        """Write to its stdin at once."""
        self.note(text)
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def wait_for(self, pattern: str, *, stream: str = "err", seconds: float = SECONDS) -> re.Match[str]:
        """Wait until a stream says this; take all up to its end and return the match."""
        deadline = time.monotonic() + seconds
        text = self._texts[stream]
        while not (found := re.search(pattern, text.decode(errors="replace"))):
            if not self._read(deadline):
                raise AssertionError(f"{pattern!r} was not said: stdout {self.out!r}, stderr {self.err!r}")
        del text[: len(found.string[: found.end()].encode())]
        return found

    def run_line(self, line: str) -> str:
        """Have a script run one line; return what it printed, results first."""
        self.write(f"{line}\nthat's all\n")  # a wrong line: its error comes when all before it has
        errors = self.wait_for(_LINE_IS_OVER)[1]
        while self._read(time.monotonic()):
            pass
        text = self.out + errors
        self._texts["out"].clear()
        return text

    def close_stdout(self) -> None:
        """Read its stdout no more: what it writes there fails."""
        assert self.process.stdout is not None
        del self._pipes[self.process.stdout.fileno()]
        self.process.stdout.close()

    def end(self, seconds: float = SECONDS) -> int:
        """Close its stdin, wait until it has ended and its pipes have; return its exit status."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        deadline = time.monotonic() + seconds
        while self._pipes and self._read(deadline):
            pass
        return self.process.wait(max(0.01, deadline - time.monotonic()))

    def kill(self) -> None:
        """End it without asking, and close the pipes."""
        self.process.kill()
        self.process.wait(SECONDS)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _read(self, deadline: float) -> bool:
        """Read what comes next; false when time is up or nothing can come any more."""
        ready, _, _ = select.select(list(self._pipes), [], [], max(0.0, deadline - time.monotonic()))
        for number in ready:
            part = os.read(number, 65_536)
            self._texts[self._pipes[number]] += part
            if not part:
                del self._pipes[number]
        return bool(ready)


ProgramStarter = Callable[..., Program]


class Watched:
    """The worker process that owns a name now, started by whomever; it can be waited for without being our child."""

    def __init__(self, environment: Environment, name: str = DEFAULT_WORKER) -> None:
        owner = read_owner(environment.lock_file(name))
        assert owner is not None, f"no process runs {name}"
        assert owner.pid is not None
        self.pid, self.url = owner.pid, owner.url or ""
        self._descriptor = os.pidfd_open(self.pid)

    def kill(self) -> None:
        """End it without asking."""
        os.kill(self.pid, signal.SIGKILL)

    def is_gone_within(self, seconds: float) -> bool:
        """Wait until the process has ended; return whether it has."""
        return bool(select.select([self._descriptor], [], [], seconds)[0])

    def close(self) -> None:
        """Stop watching."""
        os.close(self._descriptor)


class Watch(Protocol):
    """The type of the fixture `watch`."""

    def __call__(self, environment: Environment, name: str = DEFAULT_WORKER) -> Watched:
        """Watch the process that runs this worker now; fail if no process does."""


class InTime(Protocol):
    """The type of the fixture `in_time`."""

    def __call__(self, seconds: float, call: Callable[[], Any]) -> Any:
        """Return what `call` returns if it takes less than `seconds`; one that doesn't is tried twice more.

        A machine that others use too is given as much longer as it takes for a calculation.
        """


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """Be what the fixture `in_time` gives, for those that run outside of tests."""
    taken = []
    for _ in range(3):
        before, started = _slowdown(), time.monotonic()
        result = call()
        taken.append(time.monotonic() - started)
        if taken[-1] < seconds * max(before, _slowdown()):
            return result
    raise AssertionError(f"took {taken} seconds instead of less than {seconds:g}")


def _slowdown() -> float:
    """Return how many times longer than on an idle machine a calculation takes now, at least 1."""
    started, begun = time.monotonic(), time.thread_time()
    while (calculated := time.thread_time() - begun) < CALCULATION_SECONDS:
        pass
    return max(1.0, (time.monotonic() - started) / calculated)


def assert_one_line(text: str, *parts: object) -> None:
    """Fail unless a text is one line that names each of these parts."""
    assert re.fullmatch(r"[^\n]+\n", text), text
    assert [part for part in map(str, parts) if part not in text] == [], text
