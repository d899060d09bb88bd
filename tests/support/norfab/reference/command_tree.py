"""Print the commands of NorFab's shell as JSON, each with service and task where its code names them.

Runs in the reference's Python. A command is a model with a function `run`, or a field that names a function.
"""

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, get_args

from norfab.clients.nfcli_shell.nfcli_shell_client import NorFabShell
from pydantic import BaseModel

MAX_DEPTH = 12
_JOB = re.compile(r'run_(?:future_)?job\(\s*(?:service=)?("?\w+"?),\s*(?:task=)?("?\w+"?)')
_TASK = re.compile(r'_task="(\w+)"')
_OTHER = re.compile(r"return (\w+)\.run\(")


def model_of(annotation: Any) -> type[BaseModel] | None:
    """Return the model in a field's type, None where there is none."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(model_of, get_args(annotation))), None)


def target(function: Callable[..., Any], depth: int = 0) -> tuple[str | None, str | None]:
    """Return service and task that a function runs, each None where it isn't a literal."""
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        return None, None
    job = _JOB.search(source)
    if job is not None:
        service, task = (part.strip('"') if part.startswith('"') else None for part in job.groups())
        return service, task
    other = _OTHER.search(source)
    model = inspect.unwrap(function).__globals__.get(other.group(1)) if other and depth < MAX_DEPTH else None
    service, task = target(model.run, depth + 1) if model is not None else (None, None)
    given = _TASK.search(source)
    return service, given.group(1) if given else task


def walk(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """Yield a row for each command below a model."""
    for key, field in model.model_fields.items() if len(path) < MAX_DEPTH else ():
        words = (*path, field.alias or key)
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        below = model_of(field.annotation)
        function = getattr(below, "run", None) if below else getattr(model, str(extra.get("function")), None)
        if function is not None:
            service, task = target(function)
            yield {"command": " ".join(words), "service": service, "task": task}
        if below is not None:
            yield from walk(below, words)


json.dump(list(walk(NorFabShell)), sys.stdout)
