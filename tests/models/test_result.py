"""What travels around a job."""

import json

import pytest
from pydantic import ValidationError

from nfcli.models.errors import sentences
from nfcli.models.result import JobRequest


def test_a_task_name_that_is_no_unicode_is_refused() -> None:
    """JSON can carry it in; the event and the result that name the task couldn't carry it out again."""
    with pytest.raises(ValidationError) as refused:
        JobRequest.model_validate(json.loads('{"task": "\\ud800"}'))
    assert sentences(refused.value) == ["task: must be valid Unicode"]


def test_a_task_name_of_any_unicode_is_taken() -> None:
    """Whether there is such a task is for the worker to say."""
    assert JobRequest.model_validate({"task": "t\u00e2che \U0001f511"}).task == "t\u00e2che \U0001f511"
