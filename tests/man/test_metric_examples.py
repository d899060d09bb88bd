"""The alerts and the dashboard of the manual work with the metrics that a worker serves, in a real Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from nfcli.man.pages import list_examples, read_example, read_page
from nfcli.models.errors import UsageError
from support.fabric.worker import eventually
from support.mcp.measured_worker import MeasuredWorker, measured_worker

ALERTS, DASHBOARD, CONFIGURATION = "nfcli-alerts.yaml", "nfcli-dashboard.json", "prometheus.yaml"
ATTEMPTS = 3
_NAME = re.compile(r"\bnfcli_[a-z_]+\b")
_SUFFIX = re.compile(r"_(bucket|count|sum)$")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeasuredWorker]:
    """A worker that has served each kind of request."""
    with measured_worker(tmp_path_factory.mktemp("metrics"), authentication_enabled=False) as worker:
        worker.post("tools/call", {"name": "service_fastmcp__task_get_status", "arguments": {}}, token=None)
        worker.post(headers=(("host", "evil.example"),))
        yield worker


def expressions() -> list[str]:
    """Return all expressions of the alerts and of the dashboard, its variables replaced."""
    rules = [rule["expr"] for group in yaml.safe_load(read_example(ALERTS))["groups"] for rule in group["rules"]]
    panels = json.loads(read_example(DASHBOARD))["panels"]
    shown = [target["expr"] for panel in panels for target in panel["targets"]]
    return rules + [expr.replace("$__rate_interval", "1m").replace("$instance", ".*") for expr in shown]


def test_the_examples_have_and_the_page_describes_what_is_served(measured: MeasuredWorker) -> None:
    """No name is misspelt, and none is missing on the page."""
    samples = {_SUFFIX.sub("", key[0]) for key in measured.samples()}
    served = {name for name in samples if name.startswith("nfcli_") and not name.endswith("_created")}
    used = {_SUFFIX.sub("", name) for expression in expressions() for name in _NAME.findall(expression)}
    jobs = {"nfcli_jobs_total", "nfcli_job_duration_seconds"}  # come with the first job
    tls = {"nfcli_certificate_end_seconds"}
    assert used <= served | jobs | tls
    page = read_page("metrics")
    described = {*_NAME.findall(page), *(name for name in served if name.startswith("nfcli_zmq_messages_"))}
    assert served | jobs | tls <= described


def test_every_panel_has_a_place_and_a_title() -> None:
    """Panels are 24 columns wide at most together, and none overlaps another."""
    panels = json.loads(read_example(DASHBOARD))["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        columns, rows = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        cells = {(x, y) for x in columns for y in rows}
        assert not cells & taken
        assert max(columns) < 24
        taken |= cells
    assert len({panel["title"] for panel in panels}) == len(panels) == len({panel["id"] for panel in panels})


def test_an_example_is_printed_as_it_is(tmp_path: Path) -> None:
    """An unknown one is refused with the names there are."""
    (tmp_path / "a.yaml").write_text("one\n\ntwo\n", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    assert list_examples(tmp_path) == ["a.yaml"]
    assert read_example("a.yaml", tmp_path) == "one\n\ntwo"
    with pytest.raises(UsageError, match=r"^unknown example '../a.yaml': expected a.yaml$"):
        read_example("../a.yaml", tmp_path)


def query(address: str, path: str, **parameters: str) -> Any:
    """Return the data of a response of Prometheus; an error of it fails the test."""
    url = f"http://{address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=10) as response:
        answer = json.load(response)
    assert answer["status"] == "success"
    return answer["data"]


def is_ready(address: str) -> bool:
    """Whether Prometheus answers queries."""
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=10) as response:
            return bool(response.status == 200)
    except OSError:  # not yet, or not yet ready
        return False


@contextmanager
def running_prometheus(folder: Path) -> Iterator[str]:
    """Run Prometheus with the configuration in a folder; yield its address."""
    for _ in range(ATTEMPTS):
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        command = ["prometheus", f"--config.file={folder / CONFIGURATION}", f"--web.listen-address={address}"]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen([*command, f"--storage.tsdb.path={folder / 'data'}"], stderr=log)
        try:
            if eventually(lambda: process.poll() is not None or is_ready(address)) and process.poll() is None:  # noqa: B023
                yield address
                return
        finally:
            process.kill()
            process.wait()
    pytest.fail((folder / "log").read_text())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed")
def test_prometheus_reads_the_metrics_and_evaluates_alerts_and_panels(measured: MeasuredWorker, tmp_path: Path) -> None:
    """Every expression is valid, and every alert's rule is healthy; the worker without authentication is noticed."""
    target = measured.metrics.url.removeprefix("http://").removesuffix("/metrics")
    configuration = yaml.safe_load(read_example(CONFIGURATION))
    assert configuration["scrape_configs"][0]["static_configs"][0]["targets"] == ["127.0.0.1:9464"]
    configuration["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    configuration["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    (tmp_path / CONFIGURATION).write_text(yaml.safe_dump(configuration))
    (tmp_path / ALERTS).write_text(read_example(ALERTS))
    with running_prometheus(tmp_path) as address:
        assert eventually(lambda: query(address, "query", query='up{job="nfcli"} == 1')["result"])
        (build,) = query(address, "query", query="nfcli_build_info")["result"]
        assert build["metric"]["job"] == "nfcli"
        for expression in expressions():
            query(address, "query", query=expression)
        assert eventually(lambda: query(address, "alerts")["alerts"])
        assert {alert["labels"]["alertname"] for alert in query(address, "alerts")["alerts"]} == {
            "NfcliUnauthenticated"
        }
        rules = [rule for group in query(address, "rules")["groups"] for rule in group["rules"]]
        assert [rule["name"] for rule in rules if rule["health"] == "err"] == []


RULE_TEST = {
    "rule_files": [ALERTS],
    "evaluation_interval": "1m",
    "tests": [
        {
            "interval": "1m",
            "input_series": [
                {"series": f'{name}{{job="nfcli",instance="a"{labels}}}', "values": values}
                for name, labels, values in [
                    ("up", "", "1x10 0x30"),
                    ("nfcli_token_store_writable", "", "1x10 0x30"),
                    ("nfcli_start_time_seconds", "", "1+1x40"),
                    ("nfcli_certificate_end_seconds", "", "86400x40"),
                    ("nfcli_worker_info", ',name="w1",authentication="off"', "1x40"),
                    ("nfcli_http_refusals_total", ',reason="invalid_token"', "0+60x40"),
                    ("nfcli_http_refusals_total", ',reason="no_token"', "0+0x40"),
                    ("nfcli_tool_calls_total", ',tool="t",outcome="ok"', "0+30x40"),
                    ("nfcli_tool_calls_total", ',tool="t",outcome="failed"', "0+30x40"),
                    ("nfcli_tool_calls_total", ',tool="rare",outcome="failed"', "0 1 1x38"),
                    ("nfcli_token_store_operation_seconds_bucket", ',le="0.5"', "0+0x40"),
                    ("nfcli_token_store_operation_seconds_bucket", ',le="1"', "0+10x40"),
                    ("nfcli_token_store_operation_seconds_bucket", ',le="+Inf"', "0+10x40"),
                    ("nfcli_audit_write_seconds_bucket", ',le="0.5"', "0+10x40"),
                    ("nfcli_audit_write_seconds_bucket", ',le="+Inf"', "0+10x40"),
                    ("nfcli_jobs_over_limits_total", "", "0+60x40"),
                ]
            ],
            "promql_expr_test": [
                {
                    "expr": "count by (alertname) (ALERTS{alertstate='firing'})",
                    "eval_time": "40m",
                    "exp_samples": [
                        {"labels": f'{{alertname="{name}"}}', "value": 1}
                        for name in (
                            *(
                                "NfcliWorkerDown",
                                "NfcliCertificateEnds",
                                "NfcliTokensNotWritable",
                                "NfcliRestarts",
                                "NfcliUnauthenticated",
                            ),
                            *("NfcliWrongTokens", "NfcliToolCallsFail", "NfcliStoreSlow", "NfcliLimitsReached"),
                        )
                    ],
                }
            ],
        }
    ],
}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus is not installed")
def test_alerts_fire_for_what_they_are_made_for(tmp_path: Path) -> None:
    """All but the one about the audit trail, which is fast here."""
    (tmp_path / ALERTS).write_text(read_example(ALERTS))
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(RULE_TEST))
    command = ["promtool", "test", "rules", str(tmp_path / "test.yaml")]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus is not installed")
def test_the_metrics_follow_the_rules_for_names(measured: MeasuredWorker) -> None:
    """As promtool knows them: units, suffixes, descriptions."""
    found = subprocess.run(
        ["promtool", "check", "metrics"],
        input=measured.scrape(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
