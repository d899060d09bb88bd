"""The JSON of results."""

import json
from typing import Any

import pytest
from pydantic_core import PydanticSerializationError, to_json

from nfcli.models.protocol.jobs import Result
from nfcli.worker.jobs.encoding import ITEMS_AT_ONCE, encode_result


@pytest.mark.parametrize("count", [0, 1, ITEMS_AT_ONCE, ITEMS_AT_ONCE + 1, 3 * ITEMS_AT_ONCE])
def test_lists_of_any_length_are_encoded_as_in_one_piece(count: int) -> None:
    """Byte for byte."""
    result = Result(result=[{"token": f"t-{n}", "nested": [n, None, '"result":[]']} for n in range(count)])
    assert encode_result("w1", result) == to_json({"w1": result})


@pytest.mark.parametrize("value", [None, True, "text", {"result": []}, {str(n): n for n in range(2 * ITEMS_AT_ONCE)}])
def test_other_values_are_encoded_as_they_are(value: Any) -> None:
    """A mapping is not cut into pieces."""
    assert json.loads(encode_result("w1", Result(result=value)))["w1"]["result"] == value


def test_a_value_that_json_does_not_have_is_refused_wherever_it_stands() -> None:
    """At the end of a long list too."""
    with pytest.raises(PydanticSerializationError):
        encode_result("w1", Result(result=[*range(2 * ITEMS_AT_ONCE), object()]))
