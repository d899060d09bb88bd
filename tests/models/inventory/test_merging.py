"""Merging of sources, and which source an error message names."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nfcli.models.inventory.merging import Merged, Source, dotted, merge

scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)
mappings = st.dictionaries(st.sampled_from("abc"), values, max_size=3)


def model_merge(old: Any, new: Any) -> Any:
    """Merge by the rules of the format, in the simplest way."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {
            key: model_merge(old[key], new[key]) if key in old and key in new else {**old, **new}[key]
            for key in [*old, *new]
        }
    if isinstance(old, list) and isinstance(new, list):
        result = list(old)
        for item in new:
            if item not in result:
                result.append(item)
        return result
    return new


@given(sources=st.lists(mappings, max_size=4))
def test_sources_are_merged_by_the_rules_of_the_format(sources: list[dict[str, Any]]) -> None:
    """Mappings are merged, lists appended without repeats, other values replaced."""
    expected: dict[str, Any] = {}
    merged = Merged()
    for number, source in enumerate(sources):
        expected = model_merge(expected, source)
        merge(merged, deepcopy(source), Source(str(number)))
    assert merged.data == expected


@given(sources=st.lists(mappings, max_size=4))
def test_source_of_every_scalar_contains_it(sources: list[dict[str, Any]]) -> None:
    """An error about a value names a file that contains the value."""
    merged = Merged()
    for number, source in enumerate(sources):
        merge(merged, deepcopy(source), Source(str(number)))

    def scalars_of(value: Any) -> list[Any]:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return [value] if inner is None else [scalar for item in inner for scalar in scalars_of(item)]

    def verify(value: Any, path: tuple[str | int, ...]) -> None:
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
        if pairs is None:
            source = merged.source(path)
            assert source is not None
            assert value in scalars_of(sources[int(source.file)])
        else:
            for key, item in pairs:
                verify(item, (*path, key))

    verify(merged.data, ())


def test_later_source_is_named_only_for_what_it_replaced() -> None:
    """A file that adds a key to a mapping isn't the source of the mapping's other keys."""
    first, second = Source("first"), Source("second", ("workers", "w", 0))
    merged = Merged()
    merge(merged, {"a": {"x": 1, "y": {"deep": 1}}, "list": [1]}, first)
    merge(merged, {"a": {"y": 2}, "list": [2]}, second)
    assert {
        path: merged.source(path) for path in [("a", "x"), ("a", "y"), ("list", 0), ("list", 1), ("missing",), ()]
    } == {("a", "x"): first, ("a", "y"): second, ("list", 0): first, ("list", 1): second, ("missing",): None, (): None}
    assert second.label(("a", "y")) == "second: workers.w[0].a.y"


def test_source_of_a_replaced_mapping_is_dropped() -> None:
    """A mapping that replaces a number has its own keys, and none of an earlier mapping."""
    merged = Merged()
    for name, data in (("1", {"a": {"x": 1}}), ("2", {"a": {"y": 1}}), ("3", {"a": 5}), ("4", {"a": {"y": 2}})):
        merge(merged, data, Source(name))
    assert (merged.data, merged.source(("a", "y"))) == ({"a": {"y": 2}}, Source("4"))


def test_key_paths_are_dotted() -> None:
    """Dots between keys, brackets around positions."""
    assert dotted(("workers", "w-1", 0, "auth_bearer", "required_scopes", 2)) == (
        "workers.w-1[0].auth_bearer.required_scopes[2]"
    )
