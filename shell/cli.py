"""The `nfcli` command: its arguments, what they start, and the exit status."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from ..models.errors import EXIT_OK, NfcliError, UsageError
from ..models.inventory.schema import Inventory
from .client.client import Client
from .client.norfab import NorFab
from .norfab_options import add_norfab_options
from .output.console import Console
from .processes.service_manager import ServiceManager
from .processes.supervisor import Supervisor
from .repl.dispatch import ShellClient
from .repl.jobs.questions import QuestionDesk
from .repl.script import EXIT_INTERRUPTED, abandon_stdout, run_script, run_words
from .repl.session import Session
from .text import interrupt_line

_MAX_URLS = 3
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

_OFFLINE = ["offline"]  # behind --check

_EPILOG = """\
Without COMMAND, nfcli is an interactive shell, or runs the commands on stdin when that is not a terminal.
Exit status: 0 all commands succeeded, 1 a command failed, 2 a command is not valid, 3 no worker was reachable.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run nfcli; return the exit status."""
    _replace_closed_streams()
    try:
        return _run(_parser().parse_args(argv))
    except NfcliError as error:
        _notice(str(error))
        return error.exit_status
    except BrokenPipeError:
        abandon_stdout()
        return EXIT_OK
    except KeyboardInterrupt as interrupt:
        sys.stderr.write(f"{interrupt_line('interrupted', interrupt)}\n")
        return EXIT_INTERRUPTED


def _replace_closed_streams() -> None:
    """Open the null device for each standard stream that the caller has closed: Python leaves None there."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  open until the end


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nfcli",
        usage="nfcli [options] [COMMAND WORDS…]",
        description="A shell for the bearer tokens of MCP servers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "-i",
        "--inventory",
        metavar="FILE",
        help="inventory file (default: ./inventory.yaml, else the built-in one)",
    )
    add("--state", type=Path, metavar="DIR", help="folder for keys, tokens and logs (default: .nfcli)")
    add("-c", "--client", action="store_true", help="do not start workers, use those that run")
    add("-w", "--workers", action="store_true", help="run the workers in the foreground, without a shell")
    add("-l", "--log-level", type=str.upper, choices=LOG_LEVELS, default="INFO", help="level of the workers' logs")
    add("--stop-on-error", action="store_true", help="stop a script at the first command that fails")
    add("--strict", action="store_true", help="accept no abbreviated names of commands and fields")
    add("--create-env", type=Path, metavar="DIR", help="write a new environment to DIR and exit")
    _add_tls_options(parser)
    add("--authorize", type=Path, metavar="KEYFILE", help="authorize the client with this public key file and exit")
    add("--verify-only", action="store_true", help="let the client of --authorize ask about tokens and nothing else")
    add("--fleet-key", type=Path, metavar="FILE", help="fleet key of --create-env and --authorize (- is stdin)")
    add("--backup", type=Path, metavar="FILE", help="back up a worker's tokens to the new file FILE (- is stdout)")
    add("--restore", type=Path, metavar="FILE", help="replace all tokens of a worker with a backup's (- is stdin)")
    add("--unverified", action="store_true", help="let --restore accept a backup whose seal can't be verified")
    add("--import-norfab", type=Path, metavar="DIR", help="add the tokens in the database of a NorFab worker and exit")
    add("--worker", metavar="NAME", help="worker of --backup, --restore and --import-norfab (default: the only one)")
    _add_service_options(parser)
    add_norfab_options(parser)
    add(
        "--check",
        action="store_true",
        help="check the environment and its workers, print what to fix (offline: workers may be down)",
    )
    add("--version", action="version", version=f"nfcli {version('nfcli')}")
    add("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="one command to run: fastmcp auth list-tokens")
    return parser


def _add_tls_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--tls", action="store_true", help="have --create-env make a private CA and a certificate for HTTPS")
    add("--renew-tls", action="store_true", help="renew the certificate of the environment's private CA and exit")
    add("--tls-name", action="append", default=[], metavar="NAME", help="further host name or address of --tls")


def _add_service_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--install-service",
        nargs="?",
        const="nfcli",
        metavar="NAME",
        help="write a systemd unit that runs the workers, and exit (default: nfcli)",
    )
    parser.add_argument("--user", action="store_true", help="--install-service for your own account's systemd")
    parser.add_argument("--dry-run", action="store_true", help="print what --install-service would write")


def _run(arguments: argparse.Namespace) -> int:
    _check_options(arguments)
    if arguments.check:
        from .maintenance.check_command import run_checks  # noqa: PLC0415  few runs need it, all others would load it

        return run_checks(arguments.inventory, arguments.state, offline=arguments.words == _OFFLINE)
    if arguments.install_service is not None:
        from .maintenance.service.command import install_service  # noqa: PLC0415  as above

        return install_service(
            arguments.inventory,
            arguments.install_service,
            for_user=arguments.user,
            is_dry_run=arguments.dry_run,
            notice=_notice,
            state=arguments.state,
        )
    if arguments.create_env is not None or arguments.authorize is not None or arguments.renew_tls:
        return _run_setup(arguments)
    is_transfer = arguments.backup or arguments.restore or arguments.import_norfab
    if arguments.words or not (arguments.workers or is_transfer or sys.stdin.isatty()):
        return _run_commands(arguments)
    norfab = _open_environment(arguments)
    norfab.environment.prepare()
    if arguments.workers:
        supervisor = Supervisor(
            norfab.environment,
            norfab.inventory.topology.workers,
            log_level=arguments.log_level,
            notice=_notice,
            manager=ServiceManager(),
        )
        return supervisor.run()
    try:
        return _run_transfer(norfab, arguments) if is_transfer else _run_prompt(norfab, arguments)
    finally:
        _destroy(norfab)


def _run_setup(arguments: argparse.Namespace) -> int:
    from .maintenance.authorize_command import authorize, create_fleet_environment  # noqa: PLC0415  few runs need it

    if arguments.renew_tls:
        from .maintenance.tls_command import renew  # noqa: PLC0415  as above

        _notice(renew(arguments.inventory, arguments.tls_name))
    elif arguments.authorize is not None:
        place = (arguments.inventory, arguments.authorize, arguments.fleet_key, arguments.state)
        _notice(authorize(*place, verify_only=arguments.verify_only))
    else:
        names = arguments.tls_name if arguments.tls else None
        environment = create_fleet_environment(
            arguments.create_env, arguments.fleet_key, arguments.state, tls_names=names
        )
        file = shlex.quote(str(environment.inventory_file))
        _notice(f"environment written to {environment.folder}: start it with nfcli -i {file}")
        if arguments.tls:
            _notice(f"clients have to trust the CA in {environment.folder / 'tls' / 'ca.crt'}: man page mcp-clients")
    return EXIT_OK


def _check_options(arguments: argparse.Namespace) -> None:
    if arguments.workers and (arguments.words or arguments.client):
        raise UsageError("-w runs the workers in the foreground: use it without a command and without -c")
    modes = [("--backup", arguments.backup), ("--restore", arguments.restore)]
    modes += [("--import-norfab", arguments.import_norfab), ("--check", arguments.check)]
    modes += [("--authorize", arguments.authorize), ("--install-service", arguments.install_service)]
    modes += [("--renew-tls", arguments.renew_tls)]
    modes += [("-w", arguments.workers), ("--create-env", arguments.create_env)]
    given = [name for name, value in modes if value]
    words = [] if arguments.check and arguments.words == _OFFLINE else arguments.words
    if given and given[0] not in {"-w", "--create-env"} and (len(given) > 1 or words):
        others = ", ".join(name for name, _ in modes if name != given[0])
        raise UsageError(f"{given[0]} must be used alone: without a command and without {others}")
    if (arguments.user or arguments.dry_run) and arguments.install_service is None:
        raise UsageError(f"{'--user' if arguments.user else '--dry-run'} needs --install-service")
    if arguments.tls and arguments.create_env is None:
        raise UsageError("--tls needs --create-env: in an environment that exists, set tls in the worker's inventory")
    if arguments.tls_name and not (arguments.tls or arguments.renew_tls):
        raise UsageError("--tls-name needs --create-env DIR --tls or --renew-tls")
    if arguments.unverified and not arguments.restore:
        raise UsageError("--unverified needs --restore: name the backup that is to be accepted without a valid seal")
    if arguments.verify_only and not arguments.authorize:
        raise UsageError("--verify-only needs --authorize: name the public key file of the client")
    if arguments.fleet_key is not None and not (arguments.create_env or arguments.authorize):
        raise UsageError("--fleet-key needs --create-env or --authorize: name the mode that is to use the key")
    if arguments.worker is not None and not (arguments.backup or arguments.restore or arguments.import_norfab):
        raise UsageError(
            "--worker needs --backup, --restore or --import-norfab: for a command, type its field workers instead"
        )


def _run_transfer(norfab: NorFab, arguments: argparse.Namespace) -> int:
    from .maintenance.backup_command import back_up, restore  # noqa: PLC0415  few runs need it, all others would load it
    from .maintenance.import_norfab import import_norfab  # noqa: PLC0415  as above

    client = norfab.make_client(start_workers=not arguments.client, notice=_notice)
    if arguments.import_norfab:
        return import_norfab(client, arguments.import_norfab, arguments.worker)
    if arguments.backup:
        back_up(client, arguments.backup, arguments.worker)
    else:
        restore(client, arguments.restore, arguments.worker, unverified=arguments.unverified)
    return EXIT_OK


def _run_commands(arguments: argparse.Namespace) -> int:
    """Run one command or a script. Only a command that needs the environment opens it, the manual and help don't."""
    console = Console(sys.stdout, sys.stderr)
    questions = QuestionDesk(console)
    with ExitStack() as stack:

        def open_norfab() -> NorFab:
            with _named(console):
                norfab = _open_environment(arguments)
            stack.callback(_destroy, norfab)
            return norfab

        def open_client() -> Client:
            norfab = client_source.norfab
            with _named(console):
                client = _make_client(norfab, arguments, console, questions)
            session.log_file = _log_file(norfab)
            return client

        client_source = _LazyClient(open_norfab, open_client)
        session = Session(
            cast("ShellClient", client_source), console=console, questions=questions, is_strict=arguments.strict
        )
        if arguments.words:
            return run_words(session, arguments.words)
        return run_script(session, sys.stdin.buffer, stop_on_error=arguments.stop_on_error)


@contextmanager
def _named(console: Console) -> Iterator[None]:
    """Begin errors of the environment with the program's name: they are no command's."""
    try:
        yield
    except NfcliError:
        console.error_prefix = console.error_prefix or "nfcli: "
        raise


def _destroy(norfab: NorFab) -> None:
    """Close an environment, and report the workers that end with this process."""
    stopped = norfab.destroy()
    if stopped:
        names = ", ".join(stopped)
        workers, were, them = ("worker", "was", "it") if len(stopped) == 1 else ("workers", "were", "them")
        _notice(
            f"{workers} {names} {were} stopped with this nfcli, which had started {them}: nfcli -w keeps {them} running"
        )


def _run_prompt(norfab: NorFab, arguments: argparse.Namespace) -> int:
    """Run the interactive shell, after the workers that aren't running have been started."""
    console = Console(sys.stdout, sys.stderr)
    questions = QuestionDesk(console)
    client = _make_client(norfab, arguments, console, questions)
    if not arguments.client and norfab.launcher.missing():
        from rich.console import Console as Terminal  # noqa: PLC0415  saves 0.1 s where no worker has to start

        with Terminal(stderr=True).status("starting workers", spinner="line"):
            norfab.start()
    from .repl.picle_adapter import App  # noqa: PLC0415  saves 0.2 s before the first command of a script

    history_file, log_file = norfab.environment.history_file, _log_file(norfab)
    app = App(
        client,
        console=console,
        questions=questions,
        history_file=history_file,
        log_file=log_file,
        notices=_first_steps(norfab),
        is_strict=arguments.strict,
    )
    app.start()
    return EXIT_OK


def _first_steps(norfab: NorFab) -> list[str]:
    """Return where clients find the workers, and how they get a token."""
    urls = norfab.launcher.urls()
    if not urls:
        return []
    shown = ", ".join([*urls.values()][:_MAX_URLS]) + (
        f" and {len(urls) - _MAX_URLS} more" if len(urls) > _MAX_URLS else ""
    )
    workers = [norfab.inventory.workers.get(name) for name in urls]
    if any(worker is None or worker.authentication_enabled for worker in workers):
        return [f"MCP clients connect to {shown}, with a token: fastmcp auth create-token username NAME"]
    return [f"MCP clients connect to {shown}, without a token: authentication is off"]


def _open_environment(arguments: argparse.Namespace) -> NorFab:
    return NorFab(arguments.inventory, state=arguments.state, log_level=arguments.log_level, notice=_notice)


def _make_client(norfab: NorFab, arguments: argparse.Namespace, console: Console, questions: QuestionDesk) -> Client:
    return norfab.make_client(
        start_workers=not arguments.client,
        notice=lambda text: console.note(f"nfcli: {text}"),
        on_event=console.event,
        on_input=questions,
    )


def _log_file(norfab: NorFab) -> Path:
    return norfab.environment.logs_folder / "shell.log"


class _LazyClient:
    """A client that is opened when something of it is first used; until that succeeds, each use tries it.

    The inventory can be read without it: where the client's key can't be stored, for instance.
    """

    def __init__(self, open_norfab: Callable[[], NorFab], open_client: Callable[[], Client]) -> None:
        self._open_norfab = open_norfab
        self._open = open_client
        self._norfab: NorFab | None = None
        self._client: Client | None = None

    @property
    def norfab(self) -> NorFab:
        """The environment, opened once."""
        self._norfab = self._norfab or self._open_norfab()
        return self._norfab

    @property
    def inventory(self) -> Inventory:
        """The environment's inventory."""
        return self.norfab.inventory

    def __getattr__(self, name: str) -> Any:
        self._client = self._client or self._open()
        return getattr(self._client, name)


def _notice(text: str) -> None:
    sys.stderr.write(f"nfcli: {text}\n")
    sys.stderr.flush()
