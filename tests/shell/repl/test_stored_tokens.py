"""Words that workers know as tokens, and what counts when none answers."""

from __future__ import annotations

from types import SimpleNamespace

from nfcli.models.errors import NoWorkersError
from nfcli.shell.repl.stored_tokens import RETRY_SECONDS, StoredTokens
from support.shell.fake_client import FakeClient


def test_stored_token_of_any_worker_is_found() -> None:
    """A word that no worker has isn't one."""
    client = FakeClient("w1", "w2")
    client.run_job("fastmcp", "bearer_token_store", workers=["w2"], kwargs={"username": "ann", "token": "t1"})
    tokens = StoredTokens(client)
    assert "t1" in tokens
    assert "ann" not in tokens
    client.failing["w1"] = "away"
    assert "t1" in tokens
    assert "ann" not in tokens


def test_without_an_answer_every_word_counts_and_workers_are_left_alone_for_a_while() -> None:
    """The history rather loses a name than keeps a token, and the prompt doesn't wait each time."""
    now = SimpleNamespace(now=0.0)
    client = FakeClient("w1")
    tokens = StoredTokens(client, clock=lambda: now.now)
    client.raising = NoWorkersError("no worker")
    assert "ann" in tokens
    client.raising = None
    assert "ann" in tokens
    assert len(client.calls) == 1
    now.now += RETRY_SECONDS
    assert "ann" not in tokens
    client.failing["w1"] = "no answer"
    assert "ann" in tokens
    assert "bob" in tokens
    assert len(client.calls) == 3
