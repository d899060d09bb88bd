"""What all sections of the inventory share."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

# Keys whose value may be null, as in `auth_bearer:` above commented lines: the default applies.
_NULL_IS_UNSET = frozenset(
    {
        "allowed_hosts",
        "allowed_origins",
        "allowed_relays",
        "auth_bearer",
        "fastmcp",
        "introspection",
        "logging",
        "plugins",
        "required_scopes",
        "token_scopes",
        "tools",
        "trusted_proxies",
        "uvicorn",
        "workers",
    }
)


class InventorySection(BaseModel):
    """A mapping of the inventory: no other keys, no change once it is loaded."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_unset(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: item for key, item in value.items() if item is not None or key not in _NULL_IS_UNSET}
        return value
