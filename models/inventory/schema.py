"""Schema of the inventory: the workers, the configuration of each, and which of them run on this machine.

`man page inventory` prints the field descriptions of these models. The format is NorFab's, so an inventory written for
NorFab loads; its parts for other services are ignored.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, Self, TypeGuard

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ..environment.paths import DEFAULT_WORKER
from .masking import MASK, mask_section
from .networks import HostPatternTexts, ProxyNetworks
from .sections.base import InventorySection
from .sections.bearer import AuthBearer
from .sections.limits import UserLimit
from .sections.metrics import Metrics
from .sections.tls import TlsInventory, reserved_key_warnings
from .tool_policy import ToolsInventory
from .types import (
    BindEndpoint,
    BindHost,
    ConnectEndpoint,
    Count,
    CurveKey,
    Flag,
    FleetNames,
    Kind,
    ModuleNames,
    Origins,
    Port,
    Section,
    StateFolder,
    Texts,
    YamlFlag,
    is_loopback_host,
    parse_list,
    url_host,
)

SERVICE: Final = "fastmcp"

_Reserved = Annotated[
    Section, Kind("mapping, free-form"), Field(repr=False, description="Reserved, not checked and not used")
]


class WorkerInventory(InventorySection):
    """One worker's configuration."""

    service: Annotated[Literal["fastmcp"], Kind("text")] = Field(description="Service of the worker: fastmcp")
    host: Annotated[BindHost, Kind("IP address or host name")] = Field(
        default="127.0.0.1", description="Address the MCP server binds; empty for all interfaces"
    )
    port: Annotated[Port, Kind("port number")] = Field(
        default=8001, description="Port the MCP server binds; 0 takes a free one, which show fastmcp status reports"
    )
    endpoint: Annotated[BindEndpoint | None, Kind("tcp://HOST:PORT or ipc:///PATH", "an ipc socket in .nfcli/run/")] = (
        Field(default=None, description="Where clients reach the worker over ZeroMQ; tcp:// for other hosts")
    )
    authentication_enabled: Annotated[Flag, Kind("true or false")] = Field(
        default=False, description="Whether every MCP request needs a bearer token; also the words 1, yes, on"
    )
    allow_unauthenticated: Annotated[Flag, Kind("true or false")] = Field(
        default=False,
        description="Must be true to serve without authentication on an address that is not loopback",
    )
    tls: Annotated[TlsInventory | None, Kind("mapping or null")] = Field(
        default=None, description="TLS of the MCP server; null: it serves plain HTTP"
    )
    require_tls: Annotated[Flag, Kind("true or false")] = Field(
        default=False,
        description="Whether the worker refuses to start where other machines can reach it over plain HTTP",
    )
    auth_bearer: AuthBearer = Field(default=AuthBearer(), description="Bearer tokens")
    allowed_hosts: Annotated[HostPatternTexts, Kind("list of NAME, *.NAME, ADDRESS/BITS, with :PORT or :*; or *")] = (
        Field(
            default=(),
            description="Host headers accepted besides the bind address and the loopback names; others get 421. "
            "*.NAME is every name that ends in .NAME, ADDRESS/BITS every address of a network, * every name",
        )
    )
    allowed_origins: Annotated[Origins, Kind("list of SCHEME://NAME, with :PORT or :*")] = Field(
        default=(),
        description="Origin headers accepted besides those of the bind address and the loopback names; others get 403. "
        "Pages of these origins may read responses",
    )
    trusted_proxies: Annotated[ProxyNetworks, Kind("list of IP addresses and networks")] = Field(
        default=(),
        description="Reverse proxies whose X-Forwarded-For, -Proto and -Host or Forwarded headers name the client; "
        "from all others these headers have no effect: see man page proxies",
    )
    signed_jobs: Annotated[Literal["optional", "required"], Kind("optional or required")] = Field(
        default="optional",
        description="required: jobs that manage tokens, backups, imports and the audit trail or show jobs and logs "
        "must be signed by a client whose key is in .nfcli/clients/, in a fabric too; nfcli's clients sign all jobs, "
        "NorFab's none",
    )
    allowed_relays: Annotated[Texts, Kind("list of names of workers")] = Field(
        default=(),
        description="Workers of the fabric whose own jobs may manage tokens, backups, imports and the audit trail or "
        "show jobs and logs, for whoever they run them; others' are refused. Has no effect where signed_jobs is "
        "required",
    )
    metrics: Metrics | None = Field(
        default=None,
        description="Metrics for Prometheus, at the path /metrics of an address of their own; null: none. See man page "
        "metrics",
    )
    plugins: Annotated[ModuleNames, Kind("list of Python modules, PACKAGE.MODULE")] = Field(
        default=(),
        description="Modules whose @task functions become tasks of the worker, importable by Python or stored in the "
        "inventory's folder. Their code may do whatever the worker may",
    )
    tools: ToolsInventory = Field(default=ToolsInventory(), description="MCP tools: see man page tools")
    watchdog_interval: Annotated[Count, Kind("whole number")] = Field(
        default=30, description="Seconds between two looks at the memory that the worker uses"
    )
    memory_threshold_mbyte: Annotated[Count, Kind("whole number")] = Field(
        default=1000, description="Memory in MiB that is too much"
    )
    memory_threshold_action: Annotated[Literal["log", "shutdown"], Kind("log or shutdown")] = Field(
        default="log",
        description="What happens when the worker uses more: log writes a line to its log, shutdown ends it with "
        "status 1, after which whoever started it starts it again",
    )
    limits: Annotated[tuple[UserLimit, ...], BeforeValidator(parse_list), Kind("list of mappings", "none")] = Field(
        default=(), description="Limits on the tool calls of each user: see man page tools"
    )
    fastmcp: _Reserved = Field(default={})
    uvicorn: _Reserved = Field(default={})
    logging: _Reserved = Field(default={})

    @property
    def is_loopback(self) -> bool:
        """Whether the MCP server's bind address can be reached from this machine only."""
        return is_loopback_host(self.host)

    @property
    def exposure_problem(self) -> str | None:
        """The reason why this must not be served, or None: other machines could call the tools without a token."""
        if self.authentication_enabled or self.is_loopback or self.allow_unauthenticated:
            return None
        return (
            f"other machines can reach host {self.host or 'empty (all interfaces)'} and authentication is off: "
            "set authentication_enabled: true in the worker's inventory, "
            "or allow_unauthenticated: true if that is meant"
        )

    @property
    def verification_problem(self) -> str | None:
        """The reason why what the inventory says about other servers' questions has no effect, or None."""
        asked = {"forward_auth": self.auth_bearer.forward_auth, "introspection": bool(self.auth_bearer.introspection)}
        keys = [f"auth_bearer.{key}" for key, is_set in asked.items() if is_set]
        if not keys or self.authentication_enabled:
            return None
        return (
            f"{keys[0]} is set and authentication is off, so that there are no tokens to verify: set "
            f"authentication_enabled: true in the worker's inventory, or remove {' and '.join(keys)}"
        )

    @property
    def forward_auth_warning(self) -> str | None:
        """What forward authentication lacks, or None."""
        if not self.auth_bearer.forward_auth or self.trusted_proxies:
            return None
        return (
            "auth_bearer.forward_auth is true and trusted_proxies is empty: the clients of all proxies count as one "
            "address for wrong tokens: list the proxies' addresses in trusted_proxies"
        )

    @property
    def plain_http_problem(self) -> str | None:
        """The reason why tokens could be read on the network (RFC 6750 section 5.3), or None."""
        if self.tls is not None or self.is_loopback or self.trusted_proxies:
            return None
        if not self.authentication_enabled and not self.require_tls:
            return None
        return (
            f"tokens and results cross the network unencrypted: host {self.host or 'empty (all interfaces)'} serves "
            "plain HTTP to other machines: set tls in the worker's inventory, or trusted_proxies if a proxy ends TLS"
        )

    @property
    def start_problem(self) -> str | None:
        """The reason why this must not be served, or None."""
        if self.require_tls and self.plain_http_problem is not None:
            return f"require_tls is true and {self.plain_http_problem}"
        return self.exposure_problem or self.verification_problem

    def warnings(self) -> list[str]:
        """Return what is permitted and most probably not meant, a line each."""
        return [
            *filter(None, [self.plain_http_problem, self.forward_auth_warning]),
            *self._rules_for_nobody(),
            *reserved_key_warnings(self.uvicorn),
        ]

    def _rules_for_nobody(self) -> Iterator[str]:
        """Yield which rules for some users apply to nobody's calls."""
        for number, rule in enumerate(self.tools.policy):
            place = f"tools.policy[{number}]"
            if not self.authentication_enabled and not (rule.users is None and rule.scopes is None):
                yield f"{place} applies to nobody: without authentication_enabled: true there are no users"
            elif rule.scopes is not None and not set(rule.scopes) & set(self.auth_bearer.token_scopes):
                scopes = ", ".join(rule.scopes)
                yield f"{place} applies to nobody: no token has the scope {scopes}: add it to auth_bearer.token_scopes"

    def base_url(self, port: int | None = None) -> str:
        """Return the MCP server's URL without a path; `port` is the bound one where the inventory says 0."""
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://{url_host(self.host)}:{self.port if port is None else port}"

    def redacted(self, *, for_tools: bool = False) -> dict[str, Any]:
        """Return the configuration for display, in JSON types, secrets of free-form sections as `***`.

        URLs that aren't set are left out: null would mean that no metadata is published. `for_tools`: without what MCP
        clients have no use for, such as rules, which say what to evade, and free-form sections, which may say anything.
        """
        unset = {"issuer_url", "resource_server_url"} - self.auth_bearer.model_fields_set
        shown = self.model_dump(mode="json", exclude={**dict.fromkeys(_FREE_FORM, True), "auth_bearer": unset})
        if for_tools:
            shown["auth_bearer"].pop("introspection")  # whose tokens reveal others
            return {key: shown[key] for key in _FOR_TOOLS}
        return shown | {key: mask_section(getattr(self, key)) for key in _FREE_FORM}


_FREE_FORM = ("fastmcp", "uvicorn", "logging")
_FOR_TOOLS = (
    *("service", "host", "port", "endpoint", "authentication_enabled", "allow_unauthenticated", "auth_bearer"),
    *("allowed_hosts", "allowed_origins", "plugins"),
)


def _topology_names(value: Any) -> Any:
    """Turn NorFab's entries, a name or `NAME: {options}`, into names without repeats."""
    if not isinstance(value, (list, tuple)):
        return value
    names: list[Any] = []
    for item in value:
        has_options = (
            isinstance(item, dict) and len(item) == 1 and all(not x or isinstance(x, dict) for x in item.values())
        )
        name = next(iter(item)) if has_options else item
        if name not in names:
            names.append(name)
    return names


class Topology(InventorySection):
    """What runs on this machine."""

    workers: Annotated[Texts, BeforeValidator(_topology_names), Kind("list of names", "all exact names of workers")] = (
        Field(default=(), description="Workers that run on this machine; NorFab's NAME: {options} form is understood")
    )
    broker: Annotated[Flag, Kind("true or false")] = Field(
        default=False, description="NorFab's own: whether a broker runs on this machine; nfcli starts none"
    )


_Expected = Annotated[
    FleetNames,
    Kind("list of names and globs"),
    Field(
        description="Workers of the service fastmcp that are expected, on any machine: a command to all workers fails "
        "for those that it misses. A glob expects at least one worker. Workers seen before are expected as well",
    ),
]


class Fleet(InventorySection):
    """The key `fleet` alone."""

    fleet: _Expected = ()


_State = Annotated[
    StateFolder | None,
    Kind("path of a folder", ".nfcli beside the inventory"),
    Field(
        description="Folder for what nfcli writes: keys, tokens, logs. The option --state and the variable NFCLI_STATE "
        "win over it. For an inventory on a read-only file system, or a volume for the state"
    ),
]


class State(InventorySection):
    """The key `state` alone."""

    state: _State = None


class Broker(BaseModel):
    """The NorFab broker to join. Further keys of NorFab's are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    endpoint: Annotated[ConnectEndpoint, Kind("tcp://HOST:PORT or ipc:///PATH")] = Field(
        description="Where the broker listens"
    )
    shared_key: Annotated[CurveKey | None, Kind("40 characters of Z85")] = Field(
        default=None, description="The broker's public CURVE key", repr=False
    )
    zmq_auth: Annotated[YamlFlag, Kind("true or false")] = Field(
        default=True, description="Whether the broker speaks CURVE; only YAML's own false turns it off"
    )
    ip_allowlist: Annotated[Texts, Kind("list of IP addresses")] = Field(
        default=("*",), description="Addresses that the broker accepts"
    )


class Inventory(InventorySection):
    """A loaded inventory: every worker's files merged, variables replaced by their values."""

    broker: Annotated[Broker | None, Kind("mapping")] = Field(
        default=None, description="NorFab broker to join; without it clients reach the workers directly"
    )
    workers: Annotated[dict[str, WorkerInventory], Kind("mapping of names or globs to lists", "none")] = Field(
        default={},
        description="Files that configure a worker, merged in order, later ones win; or mappings in place of files",
    )
    topology: Topology = Field(default=Topology(), description="What runs on this machine")
    fleet: _Expected = ()
    state: _State = None
    foreign_workers: Annotated[dict[str, str], Kind("internal")] = Field(
        default={}, description="Workers of other NorFab services, by name", exclude=True
    )
    remote_workers: Annotated[tuple[str, ...], Kind("internal")] = Field(
        default=(), description="Workers of the topology whose inventory only the broker has", exclude=True
    )

    @classmethod
    def default(cls) -> Self:
        """Return the inventory that applies without a file: one worker on loopback, authentication on."""
        worker = WorkerInventory(service=SERVICE, authentication_enabled=True)
        return cls(workers={DEFAULT_WORKER: worker}, topology=Topology(workers=(DEFAULT_WORKER,)))

    def redacted(self) -> dict[str, Any]:
        """Return the inventory for display, in JSON types, secrets as `***`."""
        broker = None if self.broker is None else self.broker.model_dump(mode="json")
        if broker is not None and broker["shared_key"] is not None:
            broker["shared_key"] = MASK
        return {
            "broker": broker,
            "workers": {name: worker.redacted() for name, worker in self.workers.items()},
            "topology": self.topology.model_dump(mode="json"),
            "fleet": list(self.fleet),
            "state": self.state,
            "foreign_workers": dict(self.foreign_workers),
            "remote_workers": list(self.remote_workers),
        }


def is_other_service(name: Any) -> TypeGuard[str]:
    """Whether a worker's `service` is another one of NorFab's.

    A name that is almost `fastmcp` isn't: a typing error must not make a worker disappear silently.
    """
    return (
        isinstance(name, str)
        and name != SERVICE
        and not difflib.get_close_matches(name.casefold(), [SERVICE], n=1, cutoff=0.8)
    )
