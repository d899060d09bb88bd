"""The driver's end of a pipe: calls come as JSON lines on stdin, answers go out as JSON lines on stdout.

A call is `[method, {argument: value}]`, an answer `{"value": …}` or `{"error": …}`; the end of stdin ends it. Only the
standard library is needed: drivers also run in a Python that knows nothing of nfcli.
"""

from __future__ import annotations

import json
import os
import sys


def answer_calls(methods: object) -> None:
    """Answer each line with what the named method returns."""
    # What a method prints isn't an answer: it goes to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        method, arguments = json.loads(line)
        try:
            answer = {"value": getattr(methods, method)(**arguments)}
        except Exception as error:  # noqa: BLE001  the benchmark reports it and ends
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
