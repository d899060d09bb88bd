"""The figures of the manual are the program's: each phrase of a page against the constant that it states."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from nfcli.man.pages import list_pages, read_page
from nfcli.models import fields
from nfcli.models.inventory import schema, tool_policy
from nfcli.models.patterns import bounded, syntax
from nfcli.models.protocol import broker_replies
from nfcli.models.tasks import backup
from nfcli.shell.maintenance import worker_checks
from nfcli.shell.processes import supervisor
from nfcli.worker import limit_counter, logging, process
from nfcli.worker.audit import trail
from nfcli.worker.fabric import job as fabric_job
from nfcli.worker.http import authentication, middleware, rate_limit, request_cycle, server
from nfcli.worker.http.connections import protocol as http_connection
from nfcli.worker.http.connections import table as http_table
from nfcli.worker.jobs import executor, lane_threads
from nfcli.worker.jobs.channels import base as channel
from nfcli.worker.jobs.channels import question
from nfcli.worker.mcp import handlers, notifications, reply_streams, result_budget
from nfcli.worker.tokens import transfers
from nfcli.worker.tokens.replication import tombstones
from nfcli.worker.tools import catalogue, prompts, schemas
from nfcli.worker.transport import direct
from nfcli.worker.transport.connections import table as zmq_table

KIB, MIB, GIB = 1024, 1024**2, 1024**3
WORDS = {3: "three", 5: "five", 10: "ten"}

FIGURES: dict[str, list[tuple[str, float]]] = {
    "security": [
        ("{} connections, at most half of the file descriptors", http_table.MAX_CONNECTIONS),
        ("{} connections from one address 100", http_table.MAX_CONNECTIONS_PER_ADDRESS),
        ("{} connections from one address without a valid token", http_table.MAX_UNKNOWN_PER_ADDRESS),
        ("{} KiB a request head; what is sent ahead", http_connection.MAX_HEADER_BYTES / KIB),
        ("{} headers of a request", http_connection.MAX_HEADERS),
        ("{} requests sent ahead", http_connection.MAX_PIPELINED_REQUESTS),
        ("{} KiB an Authorization header", middleware.MAX_AUTHORIZATION_BYTES / KIB),
        ("{} KiB a body", request_cycle.MAX_BODY_BYTES / KIB),
        ("{} s until a request head is complete", http_connection.HEADER_TIMEOUT_SECONDS),
        ("{} s until a body is complete", request_cycle.BODY_TIMEOUT_SECONDS),
        ("{} s between two requests", server.KEEP_ALIVE_SECONDS),
        ("{} s in which nothing of a waiting response is read", http_connection.UNREAD_TIMEOUT_SECONDS),
        ("{} streams,", notifications.MAX_STREAMS),
        ("streams, {} of them for one user", notifications.MAX_STREAMS_PER_USER),
        ("{} connections, at most a quarter of the file descriptors", zmq_table.MAX_CONNECTIONS),
        ("{} connections that have not authenticated", zmq_table.MAX_CONNECTING),
        ("{} connections from one address that have not authenticated", zmq_table.MAX_CONNECTING_PER_ADDRESS),
        ("{} s until a client has authenticated", direct.HANDSHAKE_SECONDS),
        ("{} MiB a frame", direct.MAX_MESSAGE_BYTES / MIB),
        ("{} MiB the frames of a message", zmq_table.MAX_INCOMPLETE_BYTES / MIB),
        ("{} MiB the frames of such messages", zmq_table.MAX_INCOMPLETE_BYTES_TOTAL / MIB),
        ("what the system permits, at most {}.", process.MAX_DESCRIPTORS),
        ("rotated at {} MiB", logging.MAX_LOG_FILE_BYTES / MIB),
        ("MiB with {words} older files", logging.LOG_FILES_KEPT),
        ("After more than {} different wrong tokens", schema.AuthBearer().max_wrong_tokens_per_minute or 0),
        ("{} addresses are remembered", rate_limit.MAX_NETWORKS),
        ("A job of another service brings at most {} MiB", fabric_job.MAX_RESULT_BYTES / MIB),
        ("at most {} MiB of them for one token", result_budget.MAX_BYTES_PER_TOKEN / MIB),
        ("for one token and {} MiB in all", result_budget.MAX_BYTES / MIB),
    ],
    "mcp-clients": [
        ("the body took longer than {} seconds", request_cycle.BODY_TIMEOUT_SECONDS),
        ("a body of more than {} KiB", request_cycle.MAX_BODY_BYTES / KIB),
        ("an Authorization header of more than {} KiB", middleware.MAX_AUTHORIZATION_BYTES / KIB),
        ("{} KiB for templates", prompts.MAX_TEMPLATE_BYTES / KIB),
        ("{} KiB for an argument", prompts.MAX_ARGUMENT_BYTES / KIB),
        ("{} KiB for the rendered text", prompts.MAX_TEXT_BYTES / KIB),
        ("in pages of {} MiB", handlers.MAX_PAGE_BYTES / MIB),
        ("At most {} ", notifications.MAX_STREAMS),
        ("takes more than {} seconds", reply_streams.BEGIN_SECONDS),
        ("notification every {} seconds", reply_streams.PROGRESS_SECONDS),
        ("comment every {} seconds, and then", reply_streams.COMMENT_SECONDS),
    ],
    "proxies": [
        ("takes more than {} seconds", reply_streams.BEGIN_SECONDS),
        ("every {} seconds if the client", reply_streams.PROGRESS_SECONDS),
        ("comment every {} seconds", reply_streams.COMMENT_SECONDS),
        ("in the section `tools`, {} seconds by default", tool_policy.ToolsInventory().timeout),
    ],
    "protocol": [
        ("{} MiB a frame", direct.MAX_MESSAGE_BYTES / MIB),
        ("keep-alives are sent after {} s of silence", direct.KEEPALIVE_SECONDS),
        ("a handshake may take {} s", direct.HANDSHAKE_SECONDS),
        ("one line of at most {} characters", channel.MAX_LINE_CHARACTERS),
        ("After {} s the worker sends DISCONNECT", broker_replies.HOLD_SECONDS),
    ],
    "tokens": [
        ("User name: 1 to {} characters", fields.MAX_USERNAME_CHARACTERS),
        ("a change of more than {} tokens has further lines", trail.MAX_FINGERPRINTS),
    ],
    "backup": [
        ("the limit is {} GiB", backup.MAX_BACKUP_BYTES / GIB),
        ("{} s.", transfers.IDLE_SECONDS),
        ("the worker runs and answers within {} s", worker_checks.ALIVE_SECONDS),
    ],
    "tools": [
        ("Patterns of more than {} characters", bounded.MAX_PATTERN_CHARACTERS),
        ("nested deeper than {},", syntax.MAX_DEPTH),
        ("counted repeats of more than {} items", syntax.MAX_ITEMS),
        ("may contain {} characters of `match`", tool_policy.MAX_TASK_PATTERNS_CHARACTERS),
    ],
    "python": [
        ("Running tasks have {} s from then on", executor.STOP_GRACE_SECONDS),
        ("A worker runs {words} jobs at a time", lane_threads.THREADS),
        ("{words} jobs of one client may have asked", lane_threads.MAX_WITHOUT_PLACE_PER_CLIENT),
        ("1 to {}", question.MAX_TIMEOUT_SECONDS),
    ],
    "service": [
        ("asked every {} s whether it is alive", supervisor.QUESTION_SECONDS),
        ("killed after {} s without an answer", supervisor.HANG_SECONDS),
    ],
    "fabric": [
        ("lists a killed worker for another {} seconds", broker_replies.HOLD_SECONDS),
    ],
    "troubleshooting": [
        ("or more than {} streams are open", notifications.MAX_STREAMS),
        ("after {} s, then after longer delays", supervisor.FIRST_BACKOFF_SECONDS),
        ("more than {} different wrong tokens", schema.AuthBearer().max_wrong_tokens_per_minute or 0),
        ("{} tasks and 200 prompts per service", catalogue.MAX_ENTRIES_OF_A_SERVICE),
        ("1,000 tasks and {} prompts per service", catalogue.MAX_PROMPTS_OF_A_SERVICE),
        ("prompts per service, {} tools", catalogue.MAX_TOOLS),
        ("be at most {} KiB long", schemas.MAX_SCHEMA_BYTES / KIB),
        ("KiB long and {} levels", schemas.MAX_DEPTH),
    ],
}


def phrases() -> Iterator[tuple[str, str]]:
    """Yield each page with a phrase that it must contain."""
    for topic, figures in FIGURES.items():
        for phrase, value in figures:
            yield topic, phrase.format(f"{value:,g}" if value < 1_000 else f"{value:,.0f}", words=WORDS.get(int(value)))


@pytest.mark.parametrize(("topic", "phrase"), list(phrases()))
def test_page_states_the_constant(topic: str, phrase: str) -> None:
    """A constant that changes makes its page wrong, however many pages state it."""
    page = " ".join(read_page(topic).split())
    assert re.search(r"(?<![\d,.])" + re.escape(phrase), page), f"man page {topic} does not say {phrase!r}"


def test_every_page_with_figures_exists() -> None:
    """A page that is renamed takes its figures along."""
    assert FIGURES.keys() <= {topic for topic, _ in list_pages()}


def test_figures_that_pages_state_in_words() -> None:
    """A minute, a second, half a second."""
    assert (rate_limit.WINDOW_SECONDS, limit_counter.LOG_SECONDS, supervisor.MAX_BACKOFF_SECONDS) == (60, 60, 60)
    assert authentication.RESPONSE_DELAY_SECONDS <= 0.1
    assert tombstones.KEPT_SECONDS == 30 * 86_400
