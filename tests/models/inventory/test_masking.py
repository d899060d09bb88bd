"""Secrets of free-form sections are masked for display."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nfcli.models.inventory.masking import mask_section


def test_secrets_are_masked() -> None:
    """By the key's name, by the value's form, in headers and in URLs; the rest is shown."""
    section = {
        "ssl_keyfile_password": "p",
        "api_key": 5,
        "nested": [{"Token": "t", "level": "INFO"}, "Bearer abc", "https://user:pw@host/x"],
        "headers": [["Authorization", "x"], ["Server", "y"], ("X-Api-Key", b"z")],
        "auth": {"user": "u", "enabled": True, "none": None},
        "when": dt.date(2026, 1, 2),
        "odd": {"a"},
        "numbers": [1, 1.5, float("nan")],
        "raw": b"\xff",
    }
    assert mask_section(section) == {
        "ssl_keyfile_password": "***",
        "api_key": "***",
        "nested": [{"Token": "***", "level": "INFO"}, "***", "https://***@host/x"],
        "headers": [["Authorization", "***"], ["Server", "y"], ["X-Api-Key", "***"]],
        "auth": {"user": "***", "enabled": True, "none": None},
        "when": "2026-01-02",
        "odd": ["a"],
        "numbers": [1, 1.5, "nan"],
        "raw": "***",
    }


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(value=anything)
def test_masked_values_are_json_without_secrets(value: Any) -> None:
    """Whatever YAML can hold is shown, except what is below a key that names a secret."""
    secret = "not to be seen"
    text = json.dumps(mask_section({"x": value, "Client-Secret": [secret, {"inner": value}]}), allow_nan=False)
    assert json.loads(text)["Client-Secret"][0] == "***"
    assert secret not in text
