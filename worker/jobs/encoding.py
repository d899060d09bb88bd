"""The JSON of results, made in pieces: one call for all of a long list would hold up all other threads."""

from __future__ import annotations

from pydantic_core import to_json

from ...models.protocol.jobs import Result

ITEMS_AT_ONCE = 1_000
_EMPTY = b'"result":[]'


def encode_result(worker: str, result: Result) -> bytes:
    """Return the JSON object `{worker: result}`.

    Raises:
        PydanticSerializationError, ValueError: the result has a value that JSON doesn't have.
    """
    items = result.result
    if not isinstance(items, list) or len(items) <= ITEMS_AT_ONCE:
        return to_json({worker: result})
    outside = to_json({worker: result.model_copy(update={"result": []})})
    pieces = [to_json(items[n : n + ITEMS_AT_ONCE])[1:-1] for n in range(0, len(items), ITEMS_AT_ONCE)]
    # The member comes first, so that no text of another one can be taken for it.
    before, _, after = outside.partition(_EMPTY)
    return b"".join((before, _EMPTY[:-1], b",".join(pieces), b"]", after))
