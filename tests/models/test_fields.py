"""User names, tokens and numbers of seconds: what is accepted and refused, and the messages."""

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from nfcli.models.errors import validation_messages
from nfcli.models.fields import (
    MAX_EXPIRE_SECONDS,
    Duration,
    Instant,
    Lifetime,
    Seconds,
    StoredUsername,
    TimeoutSeconds,
    Token,
    Username,
)

USERNAME, TOKEN = TypeAdapter(Username), TypeAdapter(Token)
SECONDS, TIMEOUT = TypeAdapter(Seconds), TypeAdapter(TimeoutSeconds)
B64 = string.ascii_letters + string.digits + "-._~+/"


def refusal(adapter: TypeAdapter[Any], value: object) -> str:
    """Return the message with which a value is refused."""
    with pytest.raises(ValidationError) as caught:
        adapter.validate_python(value)
    (message,) = validation_messages(caught.value)
    return message


@pytest.mark.parametrize(
    "name",
    ["t", "token", "000123", "true", "None", "1.5", "{a}", "[red]x", "it's me", "a  b", "名前", "x" * 256]
    + [f"a{character}b" for character in string.printable[:95]],
)
def test_plain_text_is_a_username_whatever_it_looks_like(name: str) -> None:
    """It isn't converted to another type."""
    assert USERNAME.validate_python(name) == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "must be 1 to 256 characters, got 0"),
        ("x" * 257, "must be 1 to 256 characters, got 257"),
        (" x", "must not begin or end with a blank"),
        ("x\u00a0", "must not begin or end with a blank"),
        ("a\x1b[2Jb", "must not hold control characters, character 2 is U+001B"),
        ("a\nb", "must not hold control characters, character 2 is U+000A"),
        *(
            (f"a{chr(code)}b", f"must not hold control characters, character 2 is U+{code:04X}")
            for code in (0x7F, 0x85, 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
        ),
        ("a\ud800b", "must not hold control characters, character 2 is U+D800"),
        (123, "must be text"),
        (None, "must be text"),
    ],
)
def test_other_usernames_are_refused(name: object, message: str) -> None:
    """The message has the rule and, where it helps, the position."""
    assert refusal(USERNAME, name) == message


INVISIBLE = "must not hold invisible characters that its script doesn't need, character 4 is U+"
BLANK = "must not hold blanks other than the space, character 4 is U+"


@pytest.mark.parametrize(
    ("character", "message"),
    [
        ("\u200b", f"{INVISIBLE}200B (ZERO WIDTH SPACE)"),
        ("\u00ad", f"{INVISIBLE}00AD (SOFT HYPHEN)"),
        ("\ufeff", f"{INVISIBLE}FEFF (ZERO WIDTH NO-BREAK SPACE)"),
        ("\u200d", f"{INVISIBLE}200D (ZERO WIDTH JOINER)"),
        ("\u200e", f"{INVISIBLE}200E (LEFT-TO-RIGHT MARK)"),
        ("\u3164", f"{INVISIBLE}3164 (HANGUL FILLER)"),
        ("\U000e0041", f"{INVISIBLE}E0041 (TAG LATIN CAPITAL LETTER A)"),
        ("\ufe0f", f"{INVISIBLE}FE0F (VARIATION SELECTOR-16)"),
        ("\uffff", f"{INVISIBLE}FFFF (no name)"),
        ("\u00a0", f"{BLANK}00A0 (NO-BREAK SPACE)"),
        ("\u2003", f"{BLANK}2003 (EM SPACE)"),
        ("\u3000", f"{BLANK}3000 (IDEOGRAPHIC SPACE)"),
        ("\u2800", f"{BLANK}2800 (BRAILLE PATTERN BLANK)"),
    ],
    ids=ascii,
)
def test_characters_that_make_names_look_alike_are_refused_by_name(character: str, message: str) -> None:
    """A name with one would be another user, who looks the same; one that is stored already can still be named."""
    name = f"bob{character}x"
    assert refusal(USERNAME, name) == message
    assert TypeAdapter(StoredUsername).validate_python(name) == name


@pytest.mark.parametrize("kind", [Username, StoredUsername])
def test_usernames_have_one_form(kind: Any) -> None:
    """Composed and decomposed letters are the same name."""
    assert TypeAdapter(kind).validate_python("Zoe\u0308") == TypeAdapter(kind).validate_python("Zo\u00eb") == "Zo\u00eb"


@pytest.mark.parametrize("name", ["می\u200cخواهم", "क्\u200dष", "👩🏽\u200d🚀", "ن\u0650\u200cب"])  # noqa: RUF001
def test_usernames_keep_the_joiners_that_scripts_and_emoji_need(name: str) -> None:
    """Without them they would be other words and other pictures."""
    assert USERNAME.validate_python(name) == name


@pytest.mark.parametrize("kind", [Username, StoredUsername])
@pytest.mark.parametrize(
    ("name", "stored"),
    [("❤\ufe0f", "❤"), ("❤\ufe0e", "❤"), ("1\ufe0f\u20e3", "1\u20e3"), ("葛\U000e0100", "葛"), ("❤\ufe0f\ufe0e", "❤")],
)
def test_usernames_have_no_selectors_of_variants(kind: Any, name: str, stored: str) -> None:
    """Many fonts show the same with and without: whichever is typed, it is one user."""
    assert TypeAdapter(kind).validate_python(name) == stored


@pytest.mark.parametrize(
    "name",
    ["د\u200cا", "ب\u200dب", "ا\u200dب", "بد\u064e\u200cن", "क\u200cष", "क\u200dष", "ب\u200c١"],  # noqa: RUF001
    ids=ascii,
)
def test_joiners_that_change_nothing_are_refused_in_usernames(name: str) -> None:
    """The letters join, or don't, without them as well: another user could have the name that looks the same."""
    assert "must not hold invisible characters that its script doesn't need" in refusal(USERNAME, name)
    assert TypeAdapter(StoredUsername).validate_python(name) == name


@given(st.text(B64, min_size=1, max_size=1000), st.integers(0, 24))
def test_every_b64token_is_a_token(body: str, padding: int) -> None:
    """The complete alphabet of RFC 6750, leading dashes and trailing equal signs included."""
    assert TOKEN.validate_python(body + "=" * padding) == body + "=" * padding


@given(st.text(max_size=40))
def test_refused_tokens_are_not_in_the_message(value: str) -> None:
    """They are secrets."""
    assert "§" not in refusal(TOKEN, "§secret§" + value)


@pytest.mark.parametrize(
    ("token", "position"),
    [
        ("a b", 2),
        ("=", 1),
        ("é", 1),
        ("a:b", 2),
        ("a@b", 2),
        ("a[b", 2),
        ("a`b", 2),
        ("a{b", 2),
        ("a=b", 3),
        ("ü", 1),
        ("abc\n", 4),
        ("ab\x00", 3),
        ("x" * 9 + ",", 10),
    ],
)
def test_a_token_that_no_header_can_carry_is_refused_with_the_position(token: str, position: int) -> None:
    """The message has the position of the character, not the character."""
    assert refusal(TOKEN, token).endswith(f"character {position} could never be sent in an Authorization header")


@pytest.mark.parametrize("value", [1, "1", "3600", MAX_EXPIRE_SECONDS, str(MAX_EXPIRE_SECONDS), "+60"])
def test_whole_seconds_may_be_numbers_or_digits(value: object) -> None:
    """The shell sends text, Python sends ints."""
    assert SECONDS.validate_python(value) == int(str(value))


@pytest.mark.parametrize(
    "value",
    [
        *("0", "-5", "1.5", "1e3", "1_000", " 5", "5 ", "", "abc", "٣", "9" * 30),
        *(0, -5, 1.0, 1.5, True, float("nan"), float("inf"), MAX_EXPIRE_SECONDS + 1, None, [], b"5"),
    ],
)
def test_other_numbers_of_seconds_are_refused(value: object) -> None:
    """Zero, negatives, fractions, NaN, more than 100 years, and texts that only look like numbers."""
    assert refusal(SECONDS, value).startswith(f"must be 1 to {MAX_EXPIRE_SECONDS} whole seconds, got ")


@pytest.mark.parametrize("token", ["x" * 1025, ""])
def test_a_token_has_at_most_1024_characters(token: str) -> None:
    """The message has the number of characters; the longest one is accepted."""
    assert refusal(TOKEN, token) == f"must be 1 to 1024 characters, got {len(token)}"
    assert TOKEN.validate_python("x" * 1024) == "x" * 1024


@pytest.mark.parametrize("value", ["+" + "0" * 18 + "60", "0" * 18 + "60"])
def test_a_number_of_seconds_has_at_most_20_digits(value: str) -> None:
    """More are no number that anybody means."""
    assert SECONDS.validate_python(value) == 60
    assert refusal(SECONDS, value.replace("60", "060")).endswith(" whole seconds, got " + value.replace("60", "060"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("2m", 120), ("30m", 1_800), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600), ("60", 60), (60, 60)],
)
def test_a_duration_has_a_unit_or_is_in_seconds(text: object, seconds: int) -> None:
    """The units are seconds, minutes, hours, days and weeks."""
    assert TypeAdapter(Duration).validate_python(text) == seconds


@pytest.mark.parametrize("value", ["0s", "5220w", "1y", "1D", "d", "-1d", "1.5h", "1 d", "12345678901s", "never", None])
def test_other_durations_are_refused(value: object) -> None:
    """None, more than 100 years, other units, and more than one number; the message has the rule in seconds."""
    units = "" if value in {"0s", "5220w"} else ", or with a unit: 30m, 12h, 7d, 2w"
    rule = f"must be 1 to {MAX_EXPIRE_SECONDS} whole seconds{units}, got "
    assert refusal(TypeAdapter(Duration), value).startswith(rule)


def test_a_lifetime_may_be_never() -> None:
    """The word alone; else it is a number of seconds."""
    lifetime: TypeAdapter[Any] = TypeAdapter(Lifetime)
    assert [lifetime.validate_python(value) for value in ("never", 60, "60")] == ["never", 60, 60]
    for value in ("Never", "never ", "", 0, "30d"):
        assert refusal(lifetime, value).startswith("must be 1 to ")
    assert lifetime.json_schema() == {"type": "integer", "minimum": 1, "maximum": 3_155_760_000}


@pytest.mark.parametrize("value", [0, 0.5, 1e9, 253_370_764_799.9])
def test_an_instant_is_a_number_of_seconds_before_the_year_9999(value: float) -> None:
    """It is a float whatever it was."""
    instant = TypeAdapter(Instant).validate_python(value)
    assert (instant, type(instant)) == (value, float)


@pytest.mark.parametrize("value", [-1, -1e-9, 253_370_764_800, float("nan"), float("inf"), True, "5", None])
def test_other_instants_are_refused(value: object) -> None:
    """Numbers in texts too: nobody types instants."""
    rule = "must be an instant in seconds since the epoch, 0 or more and below 253370764800"
    shown = {None: "null", True: "true"}.get(value, str(value)) if value is None or value is True else value
    assert refusal(TypeAdapter(Instant), value) == f"{rule}, got {shown}"


@pytest.mark.parametrize(
    ("adapter", "schema"),
    [
        (SECONDS, {"type": "integer", "minimum": 1, "maximum": 3_155_760_000}),
        (TIMEOUT, {"type": "integer", "minimum": 1, "maximum": 86_400}),
        (TypeAdapter(Instant), {"type": "number", "minimum": 0, "exclusiveMaximum": 253_370_764_800}),
    ],
)
def test_schemas_have_the_limits_of_numbers(adapter: TypeAdapter[Any], schema: dict[str, Any]) -> None:
    """What is sent to clients is what is checked."""
    assert adapter.json_schema() == schema


@pytest.mark.parametrize(
    ("value", "shown"), [("", "''"), ("x" * 41, "x" * 40), ("\t" + "x" * 40, repr("\t" + "x" * 39)), ([1], "[1]")]
)
def test_a_refused_number_is_shown_up_to_40_characters(value: object, shown: str) -> None:
    """What can't be seen is quoted."""
    assert refusal(SECONDS, value) == f"must be 1 to {MAX_EXPIRE_SECONDS} whole seconds, got {shown}"


def test_control_characters_of_a_refused_number_are_not_printed() -> None:
    """A terminal would interpret them."""
    assert refusal(SECONDS, "\x1b[2J") == f"must be 1 to {MAX_EXPIRE_SECONDS} whole seconds, got '\\x1b[2J'"


def test_a_timeout_is_at_most_a_day() -> None:
    """Its limit isn't that of lifetimes."""
    assert TIMEOUT.validate_python("86400") == 86_400
    assert refusal(TIMEOUT, "86401") == "must be 1 to 86400 whole seconds, got 86401"
