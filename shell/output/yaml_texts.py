"""Texts in YAML that readers of every version take for texts: PyYAML writes YAML 1.1, many others read YAML 1.2.

What is a text in 1.1 may be a number in 1.2, such as `000189`, `1e5` and `0o17`.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_OTHER_IN_YAML_1_2 = re.compile(
    r"null|Null|NULL|~|true|True|TRUE|false|False|FALSE|[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"
    r"|[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
"""The scalars of the core schema (YAML 1.2.2, section 10.3.2) that are no texts."""


class _QuotedText(str):
    __slots__ = ()


def _represent(dumper: yaml.SafeDumper, text: _QuotedText) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="'")


yaml.SafeDumper.add_representer(_QuotedText, _represent)


def mark_texts(data: Any) -> Any:
    """Return data whose texts are quoted where a reader could take them for something else."""
    if isinstance(data, str):
        return _QuotedText(data) if _OTHER_IN_YAML_1_2.fullmatch(data) else data
    if isinstance(data, dict):
        return {mark_texts(key): mark_texts(value) for key, value in data.items()}
    return [mark_texts(item) for item in data] if isinstance(data, list | tuple) else data
