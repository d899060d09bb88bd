"""YAML files, `.env`, and the variables and templates that are replaced in values."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nfcli.models.errors import InventoryError
from nfcli.models.inventory.documents import MAX_FILE_BYTES, Document, read_document, read_variables, resolve


def load(text: str, variables: dict[str, str], folder: Path) -> Any:
    """Return the content of a file with that text, variables replaced."""
    file = folder / "file.yaml"
    file.write_bytes(text.encode())
    document = read_document(file)
    return resolve(document, document.data, variables)


REPLACED = [
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
    REPLACED,
)
def test_variables_and_templates_are_replaced(tmp_path: Path, text: str, expected: Any) -> None:
    """Both forms, quoted or not, with and without a default; templates in a YAML comment are ignored."""
    assert load(text, {"A": "one", "EMPTY": ""}, tmp_path)["v"] == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(value=st.text())
@example("{a: b}")
@example("- x\n- y")
@example("true")
@example("${OTHER}")
@example("{{ env.OTHER }}")
@example("\ue0000\ue001")
def test_value_of_a_variable_is_always_text(tmp_path: Path, value: str) -> None:
    """It can't become a key, a list, another kind of value, or another variable."""
    text = 'a: ${V}\nb: "{{ env.V }}"\nc: {{ env.get("V") }}\nd: ["x${V}y"]\n'
    assert load(text, {"V": value, "OTHER": "secret"}, tmp_path) == {
        "a": value,
        "b": value,
        "c": value,
        "d": [f"x{value}y"],
    }


FORMS = "expected ${NAME} or ${NAME:-default}; write $${ for a literal ${"
STATEMENTS = 'template statements {% … %} are not supported, use {{ env.get("NAME") }}'
LIMITS = "must have at most 100000 values, nested at most 64 deep"
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
    ("${NO:-x}: 1\nx: 2", " x: key given twice: remove one"),
    ("a: {1: x}", " a.1: a key must be text: put it in quotes"),
    ("on: x", " True: a key must be text: put it in quotes"),
    ('"a\\nb": {"\\e[31m": {1: 2}}', " 'a\\nb'.'\\x1b[31m'.1: a key must be text: put it in quotes"),
    ("a: &a [*a]", f" a[0][0]: {LIMITS}"),
    ("a: &a {b: *a}", f" a.b.b: {LIMITS}"),
    (
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdef", "bcdefg", strict=True)
        ),
        f" f[0][3]: {LIMITS}",
    ),
    ("a: 1\nb: {c: 1, c: 2}", "2: key 'c' given twice: remove one"),
    ("a: 1\n'a': 2", "2: key 'a' given twice: remove one"),
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
def test_error_in_a_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    """It has file, line or key path, and what was expected; never the value of a variable."""
    with pytest.raises(InventoryError) as caught:
        load(text, {"A": "one"}, tmp_path)
    assert str(caught.value) == f"{tmp_path / 'file.yaml'}:{message}"


def test_deep_nesting_is_an_error(tmp_path: Path) -> None:
    """Parsing it can't exhaust the stack."""
    with pytest.raises(InventoryError, match=r"file\.yaml: "):
        load("[" * 5000, {}, tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(alphabet=st.sampled_from("ab:-[]{},&*!|>'\"%@`#? \n\t${}\x00\x85é\ue000\ue0010"), max_size=40))
def test_any_text_is_a_mapping_or_a_one_line_error(tmp_path: Path, text: str) -> None:
    """No text raises another exception."""
    try:
        outcome = load(text, {"a": "x"}, tmp_path)
    except InventoryError as error:
        outcome = str(error)
    assert isinstance(outcome, dict) or (outcome.startswith(f"{tmp_path / 'file.yaml'}:") and outcome.isprintable())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: \xff", ":2: must be UTF-8 text: save the file as UTF-8"),
        (b"#" * (MAX_FILE_BYTES + 1), f": must have at most {MAX_FILE_BYTES} bytes"),
    ],
)
def test_binary_or_huge_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """A large file isn't read to its end."""
    (tmp_path / "file.yaml").write_bytes(content)
    with pytest.raises(InventoryError) as caught:
        read_document(tmp_path / "file.yaml")
    assert str(caught.value) == f"{tmp_path / 'file.yaml'}{message}"


def test_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    """Some editors write one."""
    (tmp_path / "file.yaml").write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_document(tmp_path / "file.yaml").data == {"a": 1}


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n", "null"])
def test_empty_file_is_an_empty_mapping(tmp_path: Path, text: str) -> None:
    """As one whose keys are all commented out."""
    assert load(text, {}, tmp_path) == {}


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """The message has the system's reason."""
    with pytest.raises(InventoryError) as caught:
        read_document(tmp_path)
    assert str(caught.value) == f"{tmp_path}: can't be read: Is a directory"


def test_process_environment_wins_over_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file adds variables, and doesn't change `os.environ`."""
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


def test_folder_in_place_of_the_env_file_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Python's environments are often named so; a line says it."""
    (tmp_path / ".env").mkdir()
    assert read_variables(tmp_path) == dict(os.environ)
    assert caplog.messages == [
        f"{tmp_path / '.env'} is a folder and is ignored: variables can be set in a file of that name"
    ]


def test_env_file_is_optional(tmp_path: Path) -> None:
    """Without it the variables are those of the process."""
    assert read_variables(tmp_path) == dict(os.environ)


def test_invalid_line_of_the_env_file_is_named(tmp_path: Path) -> None:
    """Without its content, which may be a secret."""
    (tmp_path / ".env").write_text("A=1\n'secret\nB=2\n", encoding="utf-8")
    with pytest.raises(InventoryError) as caught:
        read_variables(tmp_path)
    assert str(caught.value) == f"{tmp_path / '.env'}:2: must be NAME=value"


@pytest.mark.parametrize("key", ["ab${A}4567890123456789012345678901234567", "{{ env.A }}"])
def test_valid_key_of_a_broker_is_literal(key: str) -> None:
    """Z85 has `$`, `{` and `}`: a key may contain what looks like a variable."""
    templates = (" env.A ",) if key.startswith("{{") else ()
    data = {"shared_key": "\ue0000\ue001" if templates else key}
    document = Document("f", {"broker": data}, templates)
    assert resolve(document, data, {"A": "one"}, ("broker",)) == {"shared_key": "one" if templates else key}


KEYS = ["ab{{cd", "ab{{cd}}e", "{{ab}}{%cd%}{#ef#}${gh}", "ab{#cd", "ab{%cd", "ab#}${", "{{"]


@pytest.mark.parametrize("text", ['{"broker": {"shared_key": "KEY", "x": {"y": 1}}}', "broker:\n  shared_key: 'KEY'\n"])
@pytest.mark.parametrize("key", KEYS)
def test_braces_in_the_key_of_a_broker_are_no_template(tmp_path: Path, text: str, key: str) -> None:
    """However the key is quoted, and whatever follows it."""
    key = key.ljust(40, "0")
    assert load(text.replace("KEY", key), {}, tmp_path)["broker"]["shared_key"] == key


def test_template_of_the_length_of_a_key_is_a_template(tmp_path: Path) -> None:
    """A name of a variable can consist of characters of a key."""
    name = "BROKERKEY".ljust(40 - len("{{env.}}"), "X")
    text = f'broker: {{shared_key: "{{{{env.{name}}}}}"}}'
    assert load(text, {name: "one"}, tmp_path) == {"broker": {"shared_key": "one"}}
