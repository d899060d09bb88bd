"""Which tasks of nfcli's workers change tokens and which only read: what a client says when no result has come."""

from __future__ import annotations

TOKEN_CHANGING_TASKS = frozenset(
    {
        "bearer_token_delete",
        "bearer_token_import",
        "bearer_token_merge",
        "bearer_token_merge_deletions",
        "bearer_token_store",
        "restore_commit",
    }
)
"""Tasks whose `audit` is one of `TOKEN_CHANGES`: the audit trail of the worker has what they have changed."""

READING_TASKS = frozenset(
    {
        "bearer_token_access",
        "bearer_token_check",
        "bearer_token_introspect",
        "bearer_token_compare",
        "bearer_token_list",
        "bearer_token_read",
        "bearer_token_states",
        "check_store",
        "echo",
        "get_audit",
        "get_inventory",
        "get_logs",
        "get_prompts",
        "get_stats",
        "get_status",
        "get_tools",
        "get_version",
        "get_watchdog_configuration",
        "get_worker_status",
        "job_details",
        "job_list",
        "list_tasks",
        "token_users",
        "verify_audit",
    }
)
"""Tasks that change nothing, so that one without a result may simply be run again."""
