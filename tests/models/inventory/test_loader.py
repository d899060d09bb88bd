"""From files to plain data: YAML, `.env`, values taken from the environment, merging."""

from __future__ import annotations

import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nfcli.models.errors import InventoryError
from nfcli.models.inventory.loader import (
    FILE_MAX_BYTES,
    Document,
    Merged,
    Source,
    dotted,
    merge,
    read_document,
    read_variables,
    resolve,
)

scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)
mappings = st.dictionaries(st.sampled_from("abc"), values, max_size=3)


def _loaded(text: str, variables: dict[str, str], folder: Path) -> Any:
    file = folder / "file.yaml"
    file.write_bytes(text.encode())
    document = read_document(file)
    return resolve(document, document.data, variables)


def _model_merge(old: Any, new: Any) -> Any:
    """Merge as the inventory's format says, in the most obvious way."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {
            key: _model_merge(old[key], new[key]) if key in old and key in new else {**old, **new}[key]
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
def test_sources_merge_as_the_format_says(sources: list[dict[str, Any]]) -> None:
    """Mappings are merged, lists appended without repeats, other values replaced."""
    expected: dict[str, Any] = {}
    merged = Merged()
    for number, source in enumerate(sources):
        expected = _model_merge(expected, source)
        merge(merged, deepcopy(source), Source(str(number)))
    assert merged.data == expected


@given(sources=st.lists(mappings, max_size=4))
def test_every_scalar_is_traced_to_a_source_that_has_it(sources: list[dict[str, Any]]) -> None:
    """An error about a value names a file in which that value stands."""
    merged = Merged()
    for number, source in enumerate(sources):
        merge(merged, deepcopy(source), Source(str(number)))

    def scalars_of(value: Any) -> list[Any]:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return [value] if inner is None else [scalar for item in inner for scalar in scalars_of(item)]

    def check(value: Any, path: tuple[str | int, ...]) -> None:
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
        if pairs is None:
            source = merged.source(path)
            assert source is not None
            assert value in scalars_of(sources[int(source.file)])
        else:
            for key, item in pairs:
                check(item, (*path, key))

    check(merged.data, ())


def test_later_source_is_named_for_what_it_replaced_only() -> None:
    """A file that adds a key to a mapping isn't blamed for that mapping's other keys."""
    first, second = Source("first"), Source("second", ("workers", "w", 0))
    merged = Merged()
    merge(merged, {"a": {"x": 1, "y": {"deep": 1}}, "list": [1]}, first)
    merge(merged, {"a": {"y": 2}, "list": [2]}, second)
    assert {
        path: merged.source(path) for path in [("a", "x"), ("a", "y"), ("list", 0), ("list", 1), ("missing",), ()]
    } == {("a", "x"): first, ("a", "y"): second, ("list", 0): first, ("list", 1): second, ("missing",): None, (): None}
    assert second.label(("a", "y")) == "second: workers.w[0].a.y"


def test_source_of_what_was_replaced_as_a_whole_is_forgotten() -> None:
    """A mapping that takes the place of a number brings its own keys, none of an earlier mapping."""
    merged = Merged()
    for name, data in (("1", {"a": {"x": 1}}), ("2", {"a": {"y": 1}}), ("3", {"a": 5}), ("4", {"a": {"y": 2}})):
        merge(merged, data, Source(name))
    assert (merged.data, merged.source(("a", "y"))) == ({"a": {"y": 2}}, Source("4"))


TAKEN_FROM_ENVIRONMENT = [
    ("v: ${A}", "one"),
    ("v: '${A}${A}'", "oneone"),
    ("v: x-${A}-y", "x-one-y"),
    ("v: ${A:-two}", "one"),
    ("v: ${MISSING:-two}", "two"),
    ("v: ${MISSING:-}", ""),
    ("v: ${MISSING:-http://h:1/a b}", "http://h:1/a b"),
    ("v: ${EMPTY}", ""),
    ("v: ${EMPTY:-two}", "two"),
    ("v: $${A}", "${A}"),
    ("v: $$${A}", "$${A}"),
    ("v: $A costs 5$", "$A costs 5$"),
    ("v: {{ env.A }}", "one"),
    ("v: {{env.A}}", "one"),
    ("v: '{{ env.A }}'", "one"),
    ('v: "{{ env["A"] }}"', "one"),
    ("v: {{ env['A'] }}", "one"),
    ('v: {{ env.get("A") }}', "one"),
    ("v: {{ env.get('A', 'two') }}", "one"),
    ('v: {{ env.get("MISSING", "two words") }}', "two words"),
    ('v: "{{ env.get("MISSING", "two") }}"', "two"),
    ("v: {{ env.get('MISSING', 8001) }}", "8001"),
    ("v: {{ env.get('MISSING', True) }}", "True"),
    ("v: {{ env.get('MISSING', '') }}", ""),
    ("v: {{ env.get('EMPTY', 'two') }}", ""),
    ("v: {{ env.MISSING | default('two') }}", "two"),
    ("v: {{ env.EMPTY | default('two') }}", ""),
    ("v: {{ env.EMPTY | default('two', true) }}", "two"),
    ("v: tcp://{{ env.A }}:1 # {{ env.MISSING }}", "tcp://one:1"),
    ("v: {{ env.A }}:{{ env.A }}", "one:one"),
    ("v: [{{ env.A }}, {k: {{ env.A }}}]", ["one", {"k": "one"}]),
    ("v: |\n  {{ env.A }}\n  ${A}\n", "one\none\n"),
    ("v: 5", 5),
    ("v: ", None),
    ("{{ env.A }}: 1\nv: 2", 2),
    ("${A}: 1\nv: 2", 2),
    ("v: {<<: [&a {x: 1}, {y: 2}], x: 3}", {"x": 3, "y": 2}),
    ("v: &a [1]\nw: *a", [1]),
    ("x: &x {a: 1}\nw: {y: &y {<<: *x, a: 2}}\nv: {<<: *y}", {"a": 2}),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    TAKEN_FROM_ENVIRONMENT,
)
def test_values_come_from_the_environment(tmp_path: Path, text: str, expected: Any) -> None:
    """Both forms, quoted or not, with and without a default; a YAML comment is no template."""
    assert _loaded(text, {"A": "one", "EMPTY": ""}, tmp_path)["v"] == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(value=st.text())
@example("{a: b}")
@example("- x\n- y")
@example("true")
@example("${OTHER}")
@example("{{ env.OTHER }}")
@example("\ue0000\ue001")
def test_a_variables_value_is_always_text(tmp_path: Path, value: str) -> None:
    """It can't become a key, a list, another kind of value, or another variable."""
    text = 'a: ${V}\nb: "{{ env.V }}"\nc: {{ env.get("V") }}\nd: ["x${V}y"]\n'
    assert _loaded(text, {"V": value, "OTHER": "secret"}, tmp_path) == {
        "a": value,
        "b": value,
        "c": value,
        "d": [f"x{value}y"],
    }


FORMS = "expected ${NAME} or ${NAME:-default}; write $${ for a literal ${"
STATEMENTS = 'template statements {% … %} are not understood, {{ env.get("NAME") }} is'
TEMPLATES = 'expected {{ env.get("NAME") }}, {{ env.get("NAME", "default") }} or ${NAME}'


MISTAKES = [
    ("a: {b: ['${NO}']}", " a.b[0]: environment variable NO is not set: set it, or write ${NO:-default}"),
    (
        "a: {{ env.NO }}",
        ' a: environment variable NO is not set: set it, or write {{ env.get("NO", "default") }}',
    ),
    ("a: ${", f" a: {FORMS}"),
    ("a: ${}", f" a: {FORMS}"),
    ("a: ${A", f" a: {FORMS}"),
    ("a: ${A-x}", f" a: {FORMS}"),
    ("a: ${A:x}", f" a: {FORMS}"),
    ("a: ${1}", f" a: {FORMS}"),
    ("a: ${A:-${B}}", f" a: {FORMS}"),
    ("a: {{ secret }}", f" a: {TEMPLATES}"),
    ("a: {{ env }}", f" a: {TEMPLATES}"),
    ("a: {{ env.A.upper() }}", f" a: {TEMPLATES}"),
    ("a: {{ env.get(A) }}", f" a: {TEMPLATES}"),
    ("a: {{ env.get('A') | upper }}", f" a: {TEMPLATES}"),
    ("a: {{ ''.__class__ }}", f" a: {TEMPLATES}"),
    ("a: \ue0007\ue001", f" a: {TEMPLATES}"),
    ("'${NO}': 1", " ${NO}: environment variable NO is not set: set it, or write ${NO:-default}"),
    ("${NO:-x}: 1\nx: 2", " x: key given twice"),
    ("a: {1: x}", " a.1: a key must be text, put it in quotes"),
    ("on: x", " True: a key must be text, put it in quotes"),
    ('"a\\nb": {"\\e[31m": {1: 2}}', " 'a\\nb'.'\\x1b[31m'.1: a key must be text, put it in quotes"),
    ("a: &a [*a]", " a[0][0]: too large, or an alias nests it in itself"),
    ("a: &a {b: *a}", " a.b.b: too large, or an alias nests it in itself"),
    (
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdef", "bcdefg", strict=True)
        ),
        " f[0][3]: too large, or an alias nests it in itself",
    ),
    ("a: 1\nb: {c: 1, c: 2}", "2: key 'c' given twice"),
    ("a: 1\n'a': 2", "2: key 'a' given twice"),
    ("a: 1\n? [x]\n: 2", "2: found unhashable key"),
    ("# list\n\n- a", "3: must be a mapping of keys to values, got a list"),
    ("text", "1: must be a mapping of keys to values, got text"),
    ("a: [", "1: expected the node content, but found '<stream end>'"),
    ("a: 1\n b: 2", "2: mapping values are not allowed here"),
    ("a: 1\n\tb: 2", "2: found character '\\t' that cannot start any token"),
    ("a: 1\n---\nb: 2", "2: but found another document"),
    (
        "a: !!python/object:os.system x",
        "1: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object:os.system'",
    ),
    (
        "{% if x %}\na: 1",
        f"1: found character '%' that cannot start any token ({STATEMENTS})",
    ),
    ("a: 2026-13-01", " is not valid YAML: month must be in 1..12"),
    ("a: \x01", " special characters are not allowed"),
]


@pytest.mark.parametrize(
    ("text", "message"),
    MISTAKES,
)
def test_what_is_wrong_in_a_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    """File, line or key path, and what was expected; nothing of what a template or variable holds."""
    with pytest.raises(InventoryError) as caught:
        _loaded(text, {"A": "one"}, tmp_path)
    assert str(caught.value) == f"{tmp_path / 'file.yaml'}:{message}"


def test_deep_nesting_is_an_error(tmp_path: Path) -> None:
    """A file can't exhaust the stack."""
    with pytest.raises(InventoryError, match=r"file\.yaml: "):
        _loaded("[" * 5000, {}, tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(alphabet=st.sampled_from("ab:-[]{},&*!|>'\"%@`#? \n\t${}\x00\x85é\ue000\ue0010"), max_size=40))
def test_any_text_is_a_mapping_or_a_one_line_error(tmp_path: Path, text: str) -> None:
    """No text ends in another kind of exception."""
    try:
        outcome = _loaded(text, {"a": "x"}, tmp_path)
    except InventoryError as error:
        outcome = str(error)
    assert isinstance(outcome, dict) or (outcome.startswith(f"{tmp_path / 'file.yaml'}:") and outcome.isprintable())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: \xff", ":2: must be UTF-8 text"),
        (b"#" * (FILE_MAX_BYTES + 1), f": is longer than {FILE_MAX_BYTES} bytes"),
    ],
)
def test_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """A wrong file name is told without reading all of a large file."""
    (tmp_path / "file.yaml").write_bytes(content)
    with pytest.raises(InventoryError) as caught:
        read_document(tmp_path / "file.yaml")
    assert str(caught.value) == f"{tmp_path / 'file.yaml'}{message}"


def test_byte_order_mark_is_tolerated(tmp_path: Path) -> None:
    """Some editors write one."""
    (tmp_path / "file.yaml").write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_document(tmp_path / "file.yaml").data == {"a": 1}


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n", "null"])
def test_empty_file_is_an_empty_mapping(tmp_path: Path, text: str) -> None:
    """A file whose keys are all commented out is a file without keys."""
    assert _loaded(text, {}, tmp_path) == {}


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """What the system says comes out in one line."""
    with pytest.raises(InventoryError) as caught:
        read_document(tmp_path)
    assert str(caught.value) == f"{tmp_path}: can't be read: Is a directory"


def test_process_environment_wins_over_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file gives what the environment lacks, and changes nothing of it."""
    (tmp_path / ".env").write_text(
        "# comment\nexport FROM_FILE='a b'\nBOTH=file\nONLY_NAMED\nCOMPOSED=${FROM_FILE}!\n", encoding="utf-8"
    )
    monkeypatch.setenv("BOTH", "process")
    before = dict(os.environ)
    variables = read_variables(tmp_path)
    names = ("FROM_FILE", "BOTH", "ONLY_NAMED", "COMPOSED")
    assert {name: variables.get(name) for name in names} == {
        "FROM_FILE": "a b",
        "BOTH": "process",
        "ONLY_NAMED": None,
        "COMPOSED": "a b!",
    }
    assert dict(os.environ) == before


def test_env_file_is_not_needed(tmp_path: Path) -> None:
    """Without it the environment is what counts."""
    assert read_variables(tmp_path) == dict(os.environ)


def test_broken_line_of_the_env_file_is_named(tmp_path: Path) -> None:
    """Without what the line holds: it is likely a secret."""
    (tmp_path / ".env").write_text("A=1\n'secret\nB=2\n", encoding="utf-8")
    with pytest.raises(InventoryError) as caught:
        read_variables(tmp_path)
    assert str(caught.value) == f"{tmp_path / '.env'}:2: must be NAME=value"


@pytest.mark.parametrize("key", ["ab${A}4567890123456789012345678901234567", "{{ env.A }}"])
def test_brokers_key_is_taken_literally_when_it_is_one(key: str) -> None:
    """Z85 has `$`, `{` and `}`: a key may look like a variable by chance."""
    templates = (" env.A ",) if key.startswith("{{") else ()
    data = {"shared_key": "\ue0000\ue001" if templates else key}
    document = Document("f", {"broker": data}, templates)
    assert resolve(document, data, {"A": "one"}, ("broker",)) == {"shared_key": "one" if templates else key}


def test_key_paths_read_as_in_other_tools() -> None:
    """Dots between keys, brackets around positions."""
    assert dotted(("workers", "w-1", 0, "auth_bearer", "required_scopes", 2)) == (
        "workers.w-1[0].auth_bearer.required_scopes[2]"
    )
