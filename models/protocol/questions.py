"""Questions of a running task to the client of its job, in the shapes that NFP defines.

The worker sends a question as an EVENT `input_request` whose `extras` have an `InputRequest`; the client answers with a
PUT whose data is an `InputAnswer`. An EVENT `input_response` ends the question, with the status `received`, `cancelled`
or `timeout`.
"""

from __future__ import annotations

import math
import re
from typing import Any, Self
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import ProtocolError, TaskError, validation_messages
from .frames import decode_object


class InputRequest(BaseModel):
    """A question: `default` says by its type what kind of answer is expected, `timeout` is in seconds.

    A boolean default makes it a question for yes or no, a number one for a number, all others one for text. NorFab's
    clients show `metadata["preview"]` above the question.
    """

    model_config = ConfigDict(frozen=True)

    id: str = Field(default_factory=lambda: uuid4().hex, min_length=1, max_length=128)
    question: str
    default: Any = False
    timeout: int | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)

    @property
    def without_answer(self) -> Any:
        """The answer that counts when there is none: no, or the default of a question for something else."""
        return False if isinstance(self.default, bool) else self.default

    def read(self, value: Any) -> Any:
        """Return an answer as the task gets it: a boolean, a number of the default's type, or text.

        Numbers may be texts: NorFab's shell sends whatever was typed.

        Raises:
            TaskError: the value is of another kind.
        """
        if isinstance(self.default, bool):
            if isinstance(value, bool):
                return value
            raise TaskError("the answer must be true or false")
        if isinstance(self.default, int):
            return _read_integer(value)
        if isinstance(self.default, float):
            return _read_number(value)
        if isinstance(value, str):
            return value
        raise TaskError("the answer must be text")


class InputAnswer(BaseModel):
    """The data of a PUT that answers the question `input_id`, or with `cancel` declines to.

    With an empty `input_id`, `cancel` cancels the job itself: that is nfcli's own, and NorFab's workers ignore it.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    input_id: str = Field(max_length=128)
    value: Any = None
    cancel: bool = False
    metadata: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse the DATA frame of a PUT; ProtocolError if it isn't JSON of this shape."""
        try:
            return cls.model_validate(decode_object(data))
        except ValidationError as error:
            raise ProtocolError(f"the data is not an answer: {'; '.join(validation_messages(error))}") from None


def _read_integer(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,40}\s*", value):
        return int(value)
    raise TaskError("the answer must be an integer")


def _read_number(value: Any) -> float:
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise TaskError("the answer must be a number")
    return number
