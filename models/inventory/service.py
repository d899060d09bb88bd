"""The service that nfcli's workers serve; an inventory may have workers of NorFab's other services as well."""

from __future__ import annotations

import difflib
from typing import Any, Final, TypeGuard

SERVICE: Final = "fastmcp"


def is_other_service(name: Any) -> TypeGuard[str]:
    """Whether a worker's `service` is another service's name.

    One that is almost `fastmcp` isn't: a typing error must not make a worker disappear silently.
    """
    return (
        isinstance(name, str)
        and name != SERVICE
        and not difflib.get_close_matches(name.casefold(), [SERVICE], n=1, cutoff=0.8)
    )
