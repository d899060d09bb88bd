"""The lists of tasks that change tokens and of those that only read."""

from nfcli.models.tasks.audit import TOKEN_CHANGES
from nfcli.models.tasks.effects import READING_TASKS, TOKEN_CHANGING_TASKS
from nfcli.worker.jobs.task import TaskRegistry
from nfcli.worker.worker import TASK_MODULES

NEITHER = {
    "backup_begin",
    "backup_read",
    "backup_end",
    "restore_begin",
    "restore_write",
    "discover",
    "delete_fetched_files",
}
"""Steps of a transfer, what changes the list of tools, and what deletes copies of files."""


def test_every_task_is_in_the_list_that_its_declaration_calls_for() -> None:
    """A client can't import the declarations; a task that is added has to be classified."""
    specs = list(TaskRegistry(*TASK_MODULES))
    assert {spec.name for spec in specs if spec.audit in TOKEN_CHANGES} == TOKEN_CHANGING_TASKS
    assert {spec.name for spec in specs} - TOKEN_CHANGING_TASKS - NEITHER == READING_TASKS
    assert {spec.name for spec in specs if spec.is_read} <= READING_TASKS
