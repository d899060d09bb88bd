"""Loading of an inventory: from an environment's files to `Inventory`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from ..environment.paths import Environment, worker_name_problem
from ..errors import InventoryError
from .merging import Merged, Source
from .ports import port_problem
from .schema import Broker, Fleet, Inventory, State, Topology, WorkerInventory
from .sources import InventorySources
from .validation import validate

# Keys of NorFab's own job engine: they are accepted, so that an inventory written for NorFab loads, and not used.
_NORFAB_WORKER_KEYS = frozenset(
    {
        "autostart_watchdog",
        "broker_endpoint",
        "jobs_compress",
        "max_concurrent_jobs",
    }
)
_NORFAB_TOPOLOGY_KEYS = frozenset({"workers_init_timeout", "workers_start_interval"})


def load_inventory(environment: Environment, errors: list[InventoryError] | None = None) -> Inventory:
    """Load an environment's inventory; `.workers` has every exact name of `workers:` and of the topology.

    Workers of NorFab's other services are in `.foreign_workers` only, not in `.topology.workers` either. With a broker,
    workers of the topology without an entry here are in `.remote_workers`: the broker has their inventory.

    The errors of single workers, which `.workers` then lacks, are added to `errors`; if that is None, they are raised.

    Raises:
        InventoryError: a file can't be read or breaks the schema; the message is one line that names file, key path and
            what was expected.
    """
    if environment.inventory_file is None:
        return Inventory.default()
    sources = InventorySources(environment.inventory_file)
    file = str(environment.inventory_file)
    broker_data = sources.section("broker")
    broker = None if broker_data is None else validate(Broker, broker_data, Source(file, ("broker",)))
    topology = _topology(sources, file)
    fleet_data = sources.section("fleet")
    fleet = validate(Fleet, {} if fleet_data is None else {"fleet": fleet_data}, Source(file)).fleet
    workers: dict[str, WorkerInventory] = {}
    foreign: dict[str, str] = {}
    remote = () if broker is None else tuple(name for name in topology.workers if not sources.has(name))
    for name in dict.fromkeys([*sources.exact_names(), *topology.workers]):
        if name in remote:
            continue
        try:
            data = sources.worker(name)
            if isinstance(data, str):
                foreign[name] = data
            else:
                workers[name] = parse_worker(data, file, name)
        except InventoryError as error:
            if errors is None:
                raise
            errors.append(error)
    if not workers and not foreign and not errors and broker is None:
        raise InventoryError(f"{file}: workers: must have at least one worker, unless there is a broker to join")
    names = tuple(name for name in topology.workers if name not in foreign)
    _check_ports({name: workers[name] for name in names if name in workers}, file, errors)
    return Inventory(
        broker=broker,
        workers=workers,
        fleet=fleet,
        state=_state(sources, file),
        topology=topology.model_copy(update={"workers": names}),
        foreign_workers=foreign,
        remote_workers=remote,
    )


def locate_state(environment: Environment) -> Environment:
    """Return the environment with its state where the inventory says, unless another place was named before.

    Raises:
        InventoryError: the file can't be read, or its top level or `state` is invalid.
        EnvironmentFolderError: `state` begins with the `~` of an unknown user.
    """
    file = environment.inventory_file
    if file is None or environment.state is not None:
        return environment
    return environment.with_state(_state(InventorySources(file), str(file)))


def locate_key(environment: Environment, name: str, key: str) -> str:
    """Return where a worker's `key` is set, or could be: file and key path, for messages."""
    if environment.inventory_file is None:
        return "an inventory of your own (nfcli --create-env DIR writes one)"
    with contextlib.suppress(InventoryError):
        merged = InventorySources(environment.inventory_file).worker(name)
        source = None if isinstance(merged, str) else merged.source((key,)) or merged.source(("service",))
        if source is not None:
            return source.label((key,))
    return f"the inventory of worker {name}"


def _state(sources: InventorySources, file: str) -> str | None:
    return validate(State, {"state": sources.section("state")}, Source(file)).state


def parse_worker(merged: Merged, default_source: str, name: str) -> WorkerInventory:
    """Return a worker's configuration from its merged data; errors name `default_source` for keys without a source.

    Raises:
        InventoryError: the data breaks the schema, or the name the rule of worker names.
    """
    problem = worker_name_problem(name)
    if problem:
        raise InventoryError(f"{default_source}: workers: worker name {name[:80]!r} {problem}")
    data = {key: value for key, value in merged.data.items() if key not in _NORFAB_WORKER_KEYS}
    return validate(WorkerInventory, data, Source(default_source, ("workers", name)), merged)


def _check_ports(workers: Mapping[str, WorkerInventory], file: str, errors: list[InventoryError] | None) -> None:
    problem = port_problem(workers)
    if problem is None:
        return
    error = InventoryError(f"{file}: workers: {problem}")
    if errors is None:
        raise error
    errors.append(error)


def _topology(sources: InventorySources, file: str) -> Topology:
    data = sources.section("topology")
    if isinstance(data, dict):
        data = {key: value for key, value in data.items() if key not in _NORFAB_TOPOLOGY_KEYS}
    topology = validate(Topology, {} if data is None else data, Source(file, ("topology",)))
    # A NorFab host that runs a broker has the inventory of workers that run elsewhere.
    if "workers" in topology.model_fields_set or topology.broker:
        return topology
    return topology.model_copy(update={"workers": tuple(sources.exact_names())})
