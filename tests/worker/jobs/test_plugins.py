"""Plugins: how they are loaded, and each error that stops a start, on one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nfcli.models.environment.paths import Environment
from nfcli.models.errors import WorkerStartError
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.jobs.plugins import add_plugins, find_origin
from nfcli.worker.jobs.task import Lane, TaskRegistry
from nfcli.worker.tokens.store import TokenStore
from nfcli.worker.worker import TASK_MODULES
from support.task_context import task_context

HEAD = "from nfcli import TaskInput, ToolHints, WorkerContext, task\n"
GREET = """
class Whom(TaskInput):
    name: str

@task(arguments=Whom, result=str)
def greet(worker: WorkerContext, arguments: Whom) -> str:
    '''Greet somebody.'''
    return f"hello {arguments.name}, from {worker.name}"
"""


class Lab:
    """A folder with plugins, and a registry with the worker's own tasks that they are added to."""

    def __init__(self, folder: Path, store: TokenStore, trail: AuditTrail) -> None:
        self.folder = folder
        self.registry = TaskRegistry(*TASK_MODULES)
        self.worker = task_context(Environment(folder, None), self.registry, store, trail)

    def add(self, *names: str, **sources: str) -> None:
        """Write modules, the first `__` in a name standing for a slash, and add plugins, by default all of them."""
        for name, text in sources.items():
            file = self.folder / f"{name.replace('__', '/', 1)}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        add_plugins(self.registry, names or [*sources], self.folder)

    def refusal(self, *names: str, **sources: str) -> str:
        """Add invalid plugins; return the error's line."""
        with pytest.raises(WorkerStartError) as caught:
            self.add(*names, **sources)
        return str(caught.value)

    def run(self, name: str, /, **kwargs: Any) -> Any:
        """Run a task."""
        return self.registry.run(self.worker, name, kwargs)


@pytest.fixture
def lab(open_store: Callable[[], TokenStore], trail: AuditTrail, tmp_path: Path) -> Iterator[Lab]:
    """Provide a lab; modules and search path are restored at the end of the test."""
    modules, path = set(sys.modules), [*sys.path]
    yield Lab(tmp_path / "lab", open_store(), trail)
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    sys.path[:] = path


def test_a_plugins_tasks_are_tasks_like_all_others(lab: Lab) -> None:
    """They validate their arguments, are described, and are tools unless `mcp` is False."""
    hidden = "\n@task(mcp=False)\ndef hidden(worker, arguments):\n    return 1\n"
    lab.add(lab_one=f"{HEAD}{GREET}{hidden}")
    assert lab.run("greet", name="ann").result == "hello ann, from w1"
    assert lab.run("greet").errors == ["name: field required"]
    assert lab.run("greet", name="ann", more=1).errors == ["more: no such field"]
    entry = lab.registry.get("greet").entry()
    assert (entry["description"], entry["mcp"]["annotations"]["title"]) == ("Greet somebody.", "Greet")
    assert lab.registry.get("hidden").mcp is None
    assert lab.registry.find("bearer_token_store")


def test_without_plugins_the_search_path_is_left_alone(lab: Lab) -> None:
    """The inventory's folder is only on it if there are plugins."""
    before = [*sys.path]
    add_plugins(lab.registry, [], lab.folder)
    assert sys.path == before


def test_a_module_beside_the_inventory_replaces_no_other(lab: Lab) -> None:
    """The folder is searched last."""
    assert lab.refusal(json=f"{HEAD}{GREET}").startswith("plugin json has no tasks: ")
    assert sys.path[-1] == str(lab.folder)
    assert sys.path.count(str(lab.folder)) == 1


def test_a_package_of_plugins_may_share_its_tasks(lab: Lab) -> None:
    """The same function under two names, or in two modules, is one task."""
    lab.add(
        *("lab_p.tasks", "lab_p"),
        lab_p____init__=f"{HEAD}from .tasks import greet\n"
        "from nfcli.worker.tasks.introspection import echo\nhello = greet\n",
        lab_p__tasks=f"{HEAD}{GREET}",
    )
    assert lab.run("greet", name="ann").failed is False


def test_a_missing_plugin_and_a_missing_import_of_one_are_different_errors(lab: Lab) -> None:
    """Each names the missing module."""
    where = "put it beside the inventory or install it, or remove it from `plugins` in the worker's inventory"
    assert lab.refusal("lab_nowhere") == f"plugin lab_nowhere was not found: {where}"
    assert lab.refusal("lab_two.tasks", lab_two="") == f"plugin lab_two.tasks was not found: {where}"
    assert lab.refusal(lab_three="\nimport lab_missing\n") == (
        "plugin lab_three can't be loaded: ModuleNotFoundError: No module named 'lab_missing' "
        f"(line 2 of {lab.folder}/lab_three.py): fix it, or remove it from `plugins` in the worker's inventory"
    )


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ValueError('first\\nsecond')", "ValueError: first (line 1 of FILE)"),
        ("raise ValueError('a\\x1b[31mb')", "ValueError: a[31mb (line 1 of FILE)"),
        ("raise ValueError", "ValueError (line 1 of FILE)"),
        (f"raise ValueError({'x' * 1000!r})", f"ValueError: {'x' * 300} (line 1 of FILE)"),
        ("class E(Exception):\n  def __str__(self): raise OSError\nraise E", "E (line 3 of FILE)"),
        ("def f(:", "SyntaxError: invalid syntax (lab_four.py, line 1)"),
        ("raise SystemExit(0)", "SystemExit: 0 (line 1 of FILE)"),
        ("import sys\nsys.exit()", "SystemExit (line 2 of FILE)"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt (line 1 of FILE)"),
        ("class Stop(BaseException): pass\nraise Stop('enough')", "Stop: enough (line 2 of FILE)"),
        (
            f"{HEAD}@task(mcp=True)\ndef a(worker, arguments): pass",
            "TypeError: mcp ",
        ),
    ],
)
def test_whatever_a_plugin_raises_is_one_line_with_its_name(lab: Lab, source: str, reason: str) -> None:
    """SystemExit and KeyboardInterrupt included."""
    line = lab.refusal(lab_four=source)
    expected = f"plugin lab_four can't be loaded: {reason}".replace("FILE", str(lab.folder / "lab_four.py"))
    assert line.startswith(expected)
    assert line.endswith(": fix it, or remove it from `plugins` in the worker's inventory")
    assert len(line.splitlines()) == 1


REFUSALS = [
    ("", " has no tasks: mark a function with @task, or remove it from `plugins` in the worker's inventory"),
    (
        "from nfcli.worker.tasks.introspection import echo",
        " has no tasks: mark a function with @task, or remove it from `plugins` in the worker's inventory",
    ),
    (
        "task.task_spec = 1",
        " has no tasks: mark a function with @task, or remove it from `plugins` in the worker's",
    ),
    (
        "@task\ndef echo(worker, arguments): pass",
        ": task echo is already defined by nfcli: rename the function",
    ),
    (
        "@task\ndef bearer_token_store(worker, arguments): pass",
        ": task bearer_token_store has a name reserved for tasks that manage tokens (bearer_token_*): rename the",
    ),
    (
        "grüß = task(lambda worker, arguments: 1)",
        ": task '<lambda>' must be named with 1 to 64 letters, digits and underscores, no digit first: rename the",
    ),
    (f"@task\ndef {'x' * 65}(worker, arguments): pass", f": task '{'x' * 65}' must be named with 1 to 64 letters"),
    (
        "@task\nasync def a(worker, arguments): pass",
        ": task a is an async function: define it with def, it is run in a thread",
    ),
    (
        "@task\nasync def a(worker, arguments): yield 1",
        ": task a is an async function: define it with def, it is run in a thread",
    ),
    ("@task\ndef a(worker): pass", ": task a must take two arguments: define it as a(worker, arguments)"),
    ("@task\ndef a(worker, arguments, x): pass", ": task a must take two arguments: define it as a(worker, argument"),
    (
        "class Odd: pass\n@task(result=Odd)\ndef a(worker, arguments): pass",
        ": task a can't be described in JSON Schema: PydanticSchemaGenerationError: Unable to generate",
    ),
    (
        "@task(mcp={'prompts': [{'x': object()}]})\ndef a(worker, arguments): pass",
        ": task a can't be described in JSON Schema: PydanticSerializationError: Unable to serialize",
    ),
    (
        "from pydantic import RootModel\n@task(arguments=RootModel[int])\ndef a(worker, arguments): pass",
        ": the arguments of task a have no names: use a subclass of TaskInput with fields",
    ),
]


@pytest.mark.parametrize(("source", "refusal"), REFUSALS)
def test_an_invalid_task_is_refused_with_the_remedy(lab: Lab, source: str, refusal: str) -> None:
    """At the start."""
    line = lab.refusal(lab_five=f"{HEAD}{source}\n")
    assert line.startswith(f"plugin lab_five{refusal}")
    assert len(line.splitlines()) == 1


def test_two_plugins_may_not_define_the_same_task(lab: Lab) -> None:
    """The error names both."""
    assert lab.refusal(lab_six=f"{HEAD}{GREET}", lab_seven=f"{HEAD}{GREET}") == (
        "plugin lab_seven: task greet is already defined by plugin lab_six: rename the function"
    )


RESULTS = """
from nfcli import Result
from nfcli.models.errors import TaskError
from pydantic import BaseModel
class Pair(BaseModel):
    left: int = 1

@task
def pair(worker, arguments): return {Pair().left: Pair()}
@task
def counted(worker, arguments): return (n for n in range(3))
@task
def endless(worker, arguments): return float("inf")
@task
def whole(worker, arguments): return Result(result=Pair(), messages=["note"], status="unchanged")
@task
def odd(worker, arguments): return object()
@task
def half(worker, arguments): return "\\ud800"
@task
def broken(worker, arguments): return (1 // n for n in (1, 0))
@task
def wrong(worker, arguments): return Result(result=object())
@task
def refused(worker, arguments): raise TaskError("not today")
@task
def faulty(worker, arguments): return {}["secret"]
"""


def test_results_of_plugins_are_plain_json(lab: Lab) -> None:
    """Values that JSON doesn't have make a failed result."""
    lab.add(lab_eight=f"{HEAD}{RESULTS}")
    assert [lab.run(name).result for name in ("pair", "counted", "endless")] == [{"1": {"left": 1}}, [0, 1, 2], None]
    whole = lab.run("whole")
    assert (whole.result, whole.messages, whole.status) == ({"left": 1}, ["note"], "unchanged")
    assert {name: lab.run(name).errors for name in ("odd", "half", "broken", "wrong")} == {
        name: [f"the result of task {name} can't be written as JSON"] for name in ("odd", "half", "broken", "wrong")
    }
    assert lab.run("refused").errors == ["not today"]


def test_an_error_in_a_plugin_is_logged_with_its_location_and_without_values(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets the error's type."""
    lab.add(lab_nine=f"{HEAD}{RESULTS}")
    assert lab.run("faulty").errors == ["internal error in task faulty: KeyError"]
    line = f"{HEAD}{RESULTS}".splitlines().index('def faulty(worker, arguments): return {}["secret"]') + 1
    assert f"task faulty failed (line {line} of {lab.folder}/lab_nine.py)" in caplog.text
    assert "secret" not in caplog.text


def test_a_plugin_gets_the_documented_context_and_nothing_else(lab: Lab) -> None:
    """`man page python` has the same list."""
    see = "def see(worker, arguments): return [*vars(worker), *vars(type(worker))]"
    lab.add(lab_context=f"{HEAD}@task(mcp=False)\n{see}\n")
    seen = {name for name in lab.run("see").result if not name.startswith("_")}
    documented = {"cancelled", "inventory", "name", "service", "stopping", "uuid"}
    assert seen == {*documented, "event", "progress", "request_input", "channel", "run_job", "fetch_file", "reach"}


def test_a_plugin_is_neither_run_inline_nor_audited(lab: Lab) -> None:
    """Whatever its decorator says: it may block, and only the worker's own tasks write audit lines."""
    lab.add(lab_ten=f"{HEAD}@task(run_inline=True, is_read=True, audit='create')\ndef slow(worker, arguments): pass\n")
    assert lab.registry.get("slow").run_inline is False
    assert lab.registry.get("slow").lane is Lane.GENERAL
    assert lab.registry.get("slow").audit is None
    assert lab.registry.get("bearer_token_check").run_inline is True


def test_a_plugin_that_others_can_change_is_refused_without_running_it(lab: Lab) -> None:
    """For `nfcli --check` too, in one line with the remedy."""
    lab.add(lab_fourteen=f"{HEAD}{GREET}")
    file = lab.folder / "lab_fifteen.py"
    file.write_text("raise SystemExit")
    file.chmod(0o666)
    with pytest.raises(WorkerStartError) as caught:
        find_origin("lab_fifteen")
    reason = f"plugin lab_fifteen is not loaded: {file} has mode 0666"
    assert str(caught.value).startswith(reason)
    assert lab.refusal("lab_fifteen").startswith(reason)


def test_a_plugin_is_found_without_running_it(lab: Lab) -> None:
    """For `nfcli --check`."""
    lab.add(lab_eleven=f"{HEAD}{GREET}")
    (lab.folder / "lab_twelve.py").write_text("raise SystemExit")
    assert find_origin("lab_twelve.tasks") == str(lab.folder / "lab_twelve.py")
    (lab.folder / "lab_space").mkdir()
    assert (find_origin("lab_nowhere"), find_origin("lab_space.x")) == (None, "a folder")
    sys.modules["lab_placeless"] = ModuleType("lab_placeless")
    assert find_origin("lab_placeless") is None


COMMANDS = """
class CountDown(TaskInput):
    'Count down to zero.'

    start: int = 2

    def run(self, worker: WorkerContext) -> list:
        return [worker.name, *range(self.start, -1, -1)]
"""


def test_commands_of_a_plugin_are_tasks_that_say_where_they_are(lab: Lab) -> None:
    """Named after the plugin and the model, checked by the model, and no tools."""
    lab.add(lab_seventeen=f"{HEAD}{COMMANDS}\ncommands = [CountDown]\n")
    assert lab.run("lab_seventeen__count_down", start=1).result == ["w1", 1, 0]
    assert lab.run("lab_seventeen__count_down").result == ["w1", 2, 1, 0]
    assert lab.run("lab_seventeen__count_down", start="x").errors[0].startswith("start: ")
    entry = lab.registry.get("lab_seventeen__count_down").entry()
    assert (entry["description"], entry["mcp"]) == ("Count down to zero.", False)
    assert entry["command"] == {"group": "lab_seventeen", "name": "count_down"}
    assert "command" not in lab.registry.get("get_status").entry()


@pytest.mark.parametrize("commands", ["1", "[1]", "[TaskInput]", "CountDown", "[print]", "[CountDown(start=1)]"])
def test_other_commands_stop_the_start(lab: Lab, commands: str) -> None:
    """In one line."""
    assert lab.refusal(lab_eighteen=f"{HEAD}{COMMANDS}\ncommands = {commands}\n") == (
        "plugin lab_eighteen: commands must be a list of subclasses of TaskInput, each with a method run(self, worker)"
    )


def test_two_commands_of_one_name_stop_the_start(lab: Lab) -> None:
    """As two tasks would."""
    text = lab.refusal(lab_nineteen=f"{HEAD}{COMMANDS}\ncommands = [CountDown, CountDown]\n")
    assert text.startswith("plugin lab_nineteen: task lab_nineteen__count_down is already defined by plugin")
