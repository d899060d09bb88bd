"""Display of an inventory, and of the inventory's schema."""

from __future__ import annotations

from nfcli.models.inventory.schema import Broker, Inventory, WorkerInventory
from nfcli.models.inventory.validation import describe

KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
KEYS = [
    "broker",
    "broker.endpoint",
    "broker.shared_key",
    "broker.zmq_auth",
    "broker.ip_allowlist",
    "workers",
    "workers.NAME.service",
    "workers.NAME.host",
    "workers.NAME.port",
    "workers.NAME.endpoint",
    "workers.NAME.authentication_enabled",
    "workers.NAME.allow_unauthenticated",
    "workers.NAME.tls",
    "workers.NAME.tls.certfile",
    "workers.NAME.tls.keyfile",
    "workers.NAME.tls.client_ca",
    "workers.NAME.require_tls",
    "workers.NAME.auth_bearer",
    "workers.NAME.auth_bearer.token_ttl",
    "workers.NAME.auth_bearer.issuer_url",
    "workers.NAME.auth_bearer.resource_server_url",
    "workers.NAME.auth_bearer.required_scopes",
    "workers.NAME.auth_bearer.token_scopes",
    "workers.NAME.auth_bearer.max_wrong_tokens_per_minute",
    "workers.NAME.auth_bearer.forward_auth",
    "workers.NAME.auth_bearer.introspection",
    "workers.NAME.auth_bearer.introspection[N].users",
    "workers.NAME.auth_bearer.introspection[N].resources",
    "workers.NAME.allowed_hosts",
    "workers.NAME.allowed_origins",
    "workers.NAME.trusted_proxies",
    "workers.NAME.signed_jobs",
    "workers.NAME.allowed_relays",
    *("workers.NAME.metrics", "workers.NAME.metrics.host", "workers.NAME.metrics.port"),
    "workers.NAME.plugins",
    "workers.NAME.tools",
    "workers.NAME.tools.policy",
    "workers.NAME.tools.policy[N].service",
    "workers.NAME.tools.policy[N].tasks",
    "workers.NAME.tools.policy[N].users",
    "workers.NAME.tools.policy[N].scopes",
    "workers.NAME.tools.policy[N].action",
    "workers.NAME.tools.guardrails",
    "workers.NAME.tools.guardrails[N].service",
    "workers.NAME.tools.guardrails[N].task",
    "workers.NAME.tools.guardrails[N].description",
    "workers.NAME.tools.guardrails[N].field",
    "workers.NAME.tools.guardrails[N].type",
    "workers.NAME.tools.guardrails[N].match",
    "workers.NAME.tools.guardrails[N].message",
    "workers.NAME.tools.result_guardrails",
    "workers.NAME.tools.result_guardrails[N].service",
    "workers.NAME.tools.result_guardrails[N].task",
    "workers.NAME.tools.result_guardrails[N].description",
    "workers.NAME.tools.result_guardrails[N].type",
    "workers.NAME.tools.result_guardrails[N].limit",
    "workers.NAME.tools.result_guardrails[N].match",
    "workers.NAME.tools.result_guardrails[N].replace",
    "workers.NAME.tools.result_guardrails[N].message",
    "workers.NAME.tools.disable_builtin_guardrails",
    "workers.NAME.tools.timeout",
    "workers.NAME.watchdog_interval",
    "workers.NAME.memory_threshold_mbyte",
    "workers.NAME.memory_threshold_action",
    "workers.NAME.limits",
    "workers.NAME.limits[N].users",
    "workers.NAME.limits[N].calls_per_minute",
    "workers.NAME.limits[N].calls_at_once",
    "workers.NAME.limits[N].bytes_per_minute",
    "workers.NAME.fastmcp",
    "workers.NAME.uvicorn",
    "workers.NAME.logging",
    "topology",
    "topology.workers",
    "topology.broker",
    "fleet",
    "state",
]
SECRETIVE = Inventory(
    broker=Broker(endpoint="tcp://b:1", shared_key=KEY),
    workers={
        "w1": WorkerInventory(
            service="fastmcp",
            fastmcp={"api_key": "s3cret"},
            uvicorn={"ssl_keyfile_password": "s3cret", "workers": 1},
            logging={"headers": [["Authorization", "Bearer s3cret"]]},
        )
    },
    fleet=("w1", "edge-*"),
    foreign_workers={"n1": "nornir"},
)


def test_displayed_inventory_is_complete_except_for_secrets() -> None:
    """JSON types, every key, `***` for secrets."""
    assert SECRETIVE.redacted() == {
        "broker": {"endpoint": "tcp://b:1", "shared_key": "***", "zmq_auth": True, "ip_allowlist": ["*"]},
        "workers": {
            "w1": {
                "service": "fastmcp",
                "host": "127.0.0.1",
                "port": 8001,
                "endpoint": None,
                "authentication_enabled": False,
                "allow_unauthenticated": False,
                "tls": None,
                "require_tls": False,
                "auth_bearer": {
                    "token_ttl": None,
                    "required_scopes": [],
                    "token_scopes": [],
                    "max_wrong_tokens_per_minute": 10,
                    "forward_auth": False,
                    "introspection": [],
                },
                "allowed_hosts": [],
                "allowed_origins": [],
                "trusted_proxies": [],
                "signed_jobs": "optional",
                "allowed_relays": [],
                "metrics": None,
                "plugins": [],
                "tools": {
                    **{key: [] for key in ("policy", "guardrails", "result_guardrails")},
                    "disable_builtin_guardrails": False,
                    "timeout": 600,
                },
                "watchdog_interval": 30,
                "memory_threshold_mbyte": 1000,
                "memory_threshold_action": "log",
                "limits": [],
                "fastmcp": {"api_key": "***"},
                "uvicorn": {"ssl_keyfile_password": "***", "workers": 1},
                "logging": {"headers": [["Authorization", "***"]]},
            }
        },
        "topology": {"workers": [], "broker": False},
        "fleet": ["w1", "edge-*"],
        "state": None,
        "foreign_workers": {"n1": "nornir"},
        "remote_workers": [],
    }


def test_displayed_default_has_no_broker() -> None:
    """There is nothing to mask then."""
    assert Inventory.default().redacted()["broker"] is None


def test_repr_has_no_secret() -> None:
    """A repr may be logged."""
    assert "s3cret" not in repr(SECRETIVE)
    assert KEY not in repr(SECRETIVE)


def test_schema_describes_every_key() -> None:
    """The manual's table has every key once, each with type and description."""
    schema = list(describe(Inventory))
    assert [key for key, _, _, _ in schema] == KEYS
    assert all(kind and description for _, kind, _, description in schema)
    assert {key: default for key, _, default, _ in schema if key in {"workers.NAME.port", "broker.endpoint"}} == {
        "workers.NAME.port": "8001",
        "broker.endpoint": "",
    }


def test_urls_that_are_not_set_are_not_displayed() -> None:
    """An explicit null publishes nothing, an unset key the worker's own URL."""
    worker = WorkerInventory.model_validate({"service": "fastmcp", "auth_bearer": {"issuer_url": None}})
    assert worker.redacted()["auth_bearer"] == {
        "token_ttl": None,
        "issuer_url": None,
        "required_scopes": [],
        "token_scopes": [],
        "max_wrong_tokens_per_minute": 10,
        "forward_auth": False,
        "introspection": [],
    }
