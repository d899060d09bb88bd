"""The inventory: which workers there are, how each is configured, which run on this machine.

The models are the schema: their field descriptions are what `man page inventory` prints. The format is NorFab's, so an
inventory written for it is understood; what belongs to NorFab's other services is left alone.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ..environment.paths import DEFAULT_WORKER, Environment, worker_name_problem
from ..errors import InventoryError
from ..fields import Seconds
from .loader import KeyPath, Merged, Source
from .sources import InventorySources
from .tool_policy import ToolsInventory
from .types import (
    REDACTED,
    BindEndpoint,
    BindHost,
    ConnectEndpoint,
    CurveKey,
    Flag,
    GuessCount,
    HttpUrl,
    Kind,
    ModuleNames,
    NetworkNames,
    Origins,
    Port,
    Scopes,
    Section,
    Texts,
    YamlFlag,
    is_loopback_host,
    redact,
    url_host,
)
from .validation import ModelT, describe, validate

SERVICE: Final = "fastmcp"


# Keys that may stand without a value, as `auth_bearer:` above commented lines; null means nothing of its own there.
_NULL_IS_UNSET = frozenset(
    {
        "allowed_hosts",
        "allowed_origins",
        "auth_bearer",
        "endpoint",
        "fastmcp",
        "ip_allowlist",
        "logging",
        "plugins",
        "required_scopes",
        "shared_key",
        "token_scopes",
        "tools",
        "uvicorn",
        "workers",
        "zmq_auth",
    }
)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_unset(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: item for key, item in value.items() if item is not None or key not in _NULL_IS_UNSET}
        return value


class AuthBearer(_Model):
    """Bearer tokens of one worker. `token_ttl` is in seconds."""

    token_ttl: Annotated[Seconds | None, Kind("whole seconds from 1, or null")] = Field(
        default=None, description="Lifetime of a token that is stored without expire; null: it never expires"
    )
    issuer_url: Annotated[HttpUrl | None, Kind("URL or null", "the worker's URL")] = Field(
        default=None,
        description="Issuer named in the protected-resource metadata; an explicit null publishes no metadata",
    )
    resource_server_url: Annotated[HttpUrl | None, Kind("URL or null", "the worker's URL")] = Field(
        default=None,
        description="Resource named in the protected-resource metadata; an explicit null publishes no metadata",
    )
    required_scopes: Annotated[Scopes, Kind("list of scopes")] = Field(
        default=(), description="Scopes that a request must carry; without them it gets 403 insufficient_scope"
    )
    token_scopes: Annotated[Scopes, Kind("list of scopes", "required_scopes")] = Field(
        default_factory=lambda data: data.get("required_scopes", ()),
        description="Scopes that every token stored here carries",
    )
    max_wrong_tokens_per_minute: Annotated[GuessCount, Kind("whole number from 0, or null")] = Field(
        default=10,
        description="Wrong tokens that an address may send within a minute; after more, its requests with a token get "
        "429. 0 or null sets no limit. Behind a reverse proxy all clients share one address: raise it or set 0 there",
    )

    def metadata_urls(self, worker_url: str) -> tuple[str | None, str | None]:
        """Return issuer and resource URL to publish; None publishes nothing.

        `worker_url` is any URL of the worker: its scheme, host and port stand for a URL that isn't set.
        """
        parts = urlsplit(worker_url)
        base = f"{parts.scheme}://{parts.netloc}"
        return (
            self.issuer_url if "issuer_url" in self.model_fields_set else base,
            self.resource_server_url if "resource_server_url" in self.model_fields_set else base,
        )


class WorkerInventory(_Model):
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
    auth_bearer: AuthBearer = Field(default=AuthBearer(), description="Bearer tokens")
    allowed_hosts: Annotated[NetworkNames, Kind("list of NAME, NAME:PORT or NAME:*")] = Field(
        default=(),
        description="Host headers accepted besides the bind address and the loopback names; others get 421",
    )
    allowed_origins: Annotated[Origins, Kind("list of SCHEME://NAME, with :PORT or :*")] = Field(
        default=(),
        description="Origin headers accepted besides those of the bind address and the loopback names; others get 403",
    )
    plugins: Annotated[ModuleNames, Kind("list of Python modules, PACKAGE.MODULE")] = Field(
        default=(),
        description="Modules whose @task functions become tasks of the worker; what Python doesn't find elsewhere is "
        "looked for in the inventory's folder. Their code may do whatever the worker may",
    )
    tools: ToolsInventory = Field(default=ToolsInventory(), description="MCP tools: see man page tools")
    fastmcp: Annotated[Section, Kind("mapping, free-form")] = Field(
        default={}, repr=False, description="Reserved, not checked and not used"
    )
    uvicorn: Annotated[Section, Kind("mapping, free-form")] = Field(
        default={}, repr=False, description="Reserved, not checked and not used"
    )
    logging: Annotated[Section, Kind("mapping, free-form")] = Field(
        default={}, repr=False, description="Reserved, not checked and not used"
    )

    @property
    def is_loopback(self) -> bool:
        """Whether the MCP server's bind address can be reached from this machine only."""
        return is_loopback_host(self.host)

    @property
    def exposure_problem(self) -> str | None:
        """Why this must not be served, None where it may: other machines could call the tools without a token."""
        if self.authentication_enabled or self.is_loopback or self.allow_unauthenticated:
            return None
        return (
            f"other machines can reach host {self.host or 'empty (all interfaces)'} and authentication is off: "
            "set authentication_enabled: true in the worker's inventory, "
            "or allow_unauthenticated: true if that is meant"
        )

    def base_url(self, port: int | None = None) -> str:
        """Return the MCP server's URL without a path; `port` is the bound one where the inventory says 0."""
        return f"http://{url_host(self.host)}:{self.port if port is None else port}"

    def redacted(self) -> dict[str, Any]:
        """Return the configuration for display, JSON types only, secrets of free-form sections as `***`.

        URLs that aren't set are left out: null would say that nothing is published.
        """
        unset = {"issuer_url", "resource_server_url"} - self.auth_bearer.model_fields_set
        shown = self.model_dump(mode="json", exclude={**dict.fromkeys(_FREE_FORM, True), "auth_bearer": unset})
        return shown | {key: redact(getattr(self, key)) for key in _FREE_FORM}


_FREE_FORM = ("fastmcp", "uvicorn", "logging")


def _topology_names(value: Any) -> Any:
    """Turn NorFab's entries, a name or `NAME: {options}`, into names, none twice."""
    if not isinstance(value, (list, tuple)):
        return value
    names: list[Any] = []
    for item in value:
        is_named = (
            isinstance(item, dict) and len(item) == 1 and all(not x or isinstance(x, dict) for x in item.values())
        )
        names.append(next(iter(item)) if is_named else item)
    return [name for index, name in enumerate(names) if name not in names[:index]]


class Topology(_Model):
    """What runs on this machine."""

    workers: Annotated[Texts, BeforeValidator(_topology_names), Kind("list of names", "all exact names of workers")] = (
        Field(default=(), description="Workers that run on this machine; NorFab's NAME: {options} form is understood")
    )
    broker: Annotated[Flag, Kind("true or false")] = Field(
        default=False, description="NorFab's own: whether a broker runs on this machine; nfcli starts none"
    )


class Broker(BaseModel):
    """The NorFab broker to join. NorFab's further keys are tolerated."""

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
        default=("*",), description="Addresses the broker lets in"
    )


class Inventory(_Model):
    """A whole inventory, resolved: every worker's files merged, every value taken from the environment."""

    broker: Annotated[Broker | None, Kind("mapping")] = Field(
        default=None, description="NorFab broker to join; without it clients reach the workers directly"
    )
    workers: Annotated[dict[str, WorkerInventory], Kind("mapping of names or globs to lists", "none")] = Field(
        default={},
        description="Files that configure a worker, merged in order, later ones win; a mapping may stand inline",
    )
    topology: Topology = Field(default=Topology(), description="What runs on this machine")
    foreign_workers: Annotated[dict[str, str], Kind("internal")] = Field(
        default={}, description="Workers of other NorFab services, by name", exclude=True
    )
    remote_workers: Annotated[tuple[str, ...], Kind("internal")] = Field(
        default=(), description="Workers of the topology whose inventory only the broker has", exclude=True
    )

    @classmethod
    def default(cls) -> Self:
        """Return the inventory that applies where there is no file: one worker on loopback, authentication on."""
        worker = WorkerInventory(service=SERVICE, authentication_enabled=True)
        return cls(workers={DEFAULT_WORKER: worker}, topology=Topology(workers=(DEFAULT_WORKER,)))

    def redacted(self) -> dict[str, Any]:
        """Return the inventory for display, JSON types only, secrets as `***`."""
        broker = None if self.broker is None else self.broker.model_dump(mode="json")
        if broker is not None and broker["shared_key"] is not None:
            broker["shared_key"] = REDACTED
        return {
            "broker": broker,
            "workers": {name: worker.redacted() for name, worker in self.workers.items()},
            "topology": self.topology.model_dump(mode="json"),
            "foreign_workers": dict(self.foreign_workers),
            "remote_workers": list(self.remote_workers),
        }


def load_inventory(environment: Environment, faults: list[InventoryError] | None = None) -> Inventory:
    """Read an environment's inventory; `.workers` has every exact name of `workers:` and of the topology.

    Workers of NorFab's other services are in `.foreign_workers` only, not in `.topology.workers` either. With a broker,
    workers of the topology of which nothing is said here are in `.remote_workers`: the broker has their inventory.

    Args:
        environment: whose inventory.
        faults: gets what is wrong with single workers, which `.workers` then lacks; None: it is raised.

    Raises:
        InventoryError: something can't be read or breaks the schema; one line that names file, key path and what was
            expected.
    """
    if environment.inventory_file is None:
        return Inventory.default()
    sources = InventorySources(environment.inventory_file, SERVICE)
    place = Source(str(environment.inventory_file))
    broker_data = sources.section("broker")
    broker = None if broker_data is None else _validated(Broker, broker_data, place, ("broker",))
    topology = _topology(sources, place)
    workers: dict[str, WorkerInventory] = {}
    foreign: dict[str, str] = {}
    remote = () if broker is None else tuple(name for name in topology.workers if not sources.has(name))
    for name in dict.fromkeys([*sources.exact_names(), *topology.workers]):
        if name in remote:
            continue
        try:
            data = sources.worker(name)
            if data.service == SERVICE:
                workers[name] = parse_worker(data.merged, place, name)
            else:
                foreign[name] = data.service
        except InventoryError as error:
            if faults is None:
                raise
            faults.append(error)
    if not workers and not foreign and not faults and broker is None:
        raise InventoryError(f"{place.file}: workers: at least one worker is expected, or a broker to join")
    names = tuple(name for name in topology.workers if name not in foreign)
    return Inventory(
        broker=broker,
        workers=workers,
        topology=topology.model_copy(update={"workers": names}),
        foreign_workers=foreign,
        remote_workers=remote,
    )


def describe_schema() -> list[tuple[str, str, str, str]]:
    """Return (key path, type, default, description) of every key, in the schema's order, from the models themselves.

    The default is empty for a key that must be given.
    """
    return list(describe(Inventory, ""))


def parse_worker(merged: Merged, place: Source, name: str) -> WorkerInventory:
    """Return a worker's configuration from its merged data; `place` is where errors say that it was written.

    Raises:
        InventoryError: it breaks the schema, or the name the rule of worker names.
    """
    problem = worker_name_problem(name)
    if problem:
        raise InventoryError(f"{place.file}: workers: worker name {name[:80]!r} {problem}")
    # Keys of NorFab's own job engine: an environment made for it is understood as it is, they mean nothing here.
    data = {key: value for key, value in merged.data.items() if key not in _NORFAB_WORKER_KEYS}

    def source(path: KeyPath) -> tuple[Source, KeyPath]:
        found = merged.source(path)
        return (place, ("workers", name, *path)) if found is None else (found, path)

    return validate(WorkerInventory, data, source)


_NORFAB_WORKER_KEYS = frozenset(
    {
        "autostart_watchdog",
        "broker_endpoint",
        "jobs_compress",
        "max_concurrent_jobs",
        "memory_threshold_action",
        "memory_threshold_mbyte",
        "watchdog_interval",
    }
)
_NORFAB_TOPOLOGY_KEYS = frozenset({"workers_init_timeout", "workers_start_interval"})


def _topology(sources: InventorySources, place: Source) -> Topology:
    data = sources.section("topology")
    if isinstance(data, dict):
        data = {key: value for key, value in data.items() if key not in _NORFAB_TOPOLOGY_KEYS}
    topology = _validated(Topology, {} if data is None else data, place, ("topology",))
    # A NorFab host that runs a broker holds the inventory of workers that run elsewhere.
    if "workers" in topology.model_fields_set or topology.broker:
        return topology
    return topology.model_copy(update={"workers": tuple(sources.exact_names())})


def _validated(model: type[ModelT], data: Any, place: Source, prefix: KeyPath) -> ModelT:
    return validate(model, data, lambda path: (place, (*prefix, *path)))
