"""The real Prometheus and Alertmanager as processes of their own, and a webhook that they tell."""

from __future__ import annotations

import json
import queue
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

import service
from tests.deploy.shortened import shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.integration.gateway_process import GatewayProcess

ROOT: Final = Path(service.__file__).parents[1]
SHIPPED: Final = ROOT / "deploy" / "prometheus"
PROMETHEUS: Final = shutil.which("prometheus")
PROMTOOL: Final = shutil.which("promtool")
# The name of the Debian package's program, and that of the project's own archive.
ALERTMANAGER: Final = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
MINUTE_IN_A_SECOND: Final = 60
_LISTENING: Final = re.compile(r'msg="Listening on" address=(\S+)')
_PATIENCE_S: Final = 300.0

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
needs_monitoring = pytest.mark.skipif(
    PROMETHEUS is None or ALERTMANAGER is None,
    reason="Prometheus and Alertmanager are not both installed (Debian: prometheus, prometheus-alertmanager)",
)


def read_yaml(path: Path) -> Any:  # noqa: ANN401 - YAML is what it is
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def shipped_rules() -> list[dict[str, Any]]:
    """Return every rule, recording or alerting."""
    paths = sorted((SHIPPED / "rules").glob("*.yaml"))
    return [rule for path in paths for group in read_yaml(path)["groups"] for rule in group["rules"]]


@dataclass(frozen=True)
class Arrival:
    """One alert as it came to a receiver."""

    receiver: str
    status: str
    labels: dict[str, str]
    annotations: dict[str, str]


class Webhook:
    """Where Alertmanager delivers; what came is kept in order."""

    def __init__(self, url: str, arrivals: queue.SimpleQueue[Arrival]) -> None:
        self.url = url
        self.seen: list[Arrival] = []
        self._arrivals = arrivals

    def wait_for(self, name: str, status: str = "firing") -> Arrival:
        """Return an alert with this name as soon as its last word is this status; all that came is kept in ``seen``.

        It may have come before: on a busy machine, whose scrapes fail, some alerts fire early, and are not told twice.
        """
        while True:
            last = next((item for item in reversed(self.seen) if item.labels["alertname"] == name), None)
            if last is not None and last.status == status and self._arrivals.empty():
                return last
            try:
                arrival = self._arrivals.get(timeout=_PATIENCE_S)
            except queue.Empty:
                pytest.fail(f"{name} ({status}) did not come within {_PATIENCE_S:.0f} s; there came {self.seen}")
            self.seen.append(arrival)


@contextmanager
def webhook() -> Iterator[Webhook]:
    """Listen on loopback for Alertmanager's messages."""
    arrivals: queue.SimpleQueue[Arrival] = queue.SimpleQueue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            for alert in message["alerts"]:
                arrivals.put(Arrival(message["receiver"], alert["status"], alert["labels"], alert["annotations"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield Webhook(f"http://127.0.0.1:{server.server_port}", arrivals)
        finally:
            server.shutdown()


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    address: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Evaluate an expression now; return its series.

        Raises:
            AssertionError: Prometheus cannot evaluate it.
        """
        return list(self._get("query", query=expression)["result"])

    def value(self, expression: str) -> float | None:
        """Return the value of an expression's one series, ``None`` where it has none."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def metric_names(self) -> set[str]:
        """Return the name of every metric that was scraped or recorded."""
        return set(self._get("label/__name__/values"))

    def wait_until(self, expression: str) -> list[dict[str, Any]]:
        """Ask until an expression has a series, and return what it has; a test's timeout ends a vain wait."""
        while not (found := self.query(expression)):
            _breathe()
        return found

    def _get(self, path: str, **arguments: str) -> Any:  # noqa: ANN401 - whatever the API returns
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(url, timeout=_PATIENCE_S) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{arguments}: {error.read().decode()}") from None


@contextmanager
def listening(command: Sequence[str], log: Path, ready: str = "") -> Iterator[str]:
    """Run a program until the block is left; yield the address that it says it listens on, once it says ``ready``."""
    with log.open("w") as sink, subprocess.Popen(command, stdout=sink, stderr=sink) as process:
        try:
            while (found := _LISTENING.search(said := log.read_text())) is None or ready not in said:
                assert process.poll() is None, said
                _breathe()
            yield found[1]
        finally:
            process.terminate()
            process.wait(_PATIENCE_S)


def _breathe() -> None:
    """Pause between two looks: looking without a pause would take the CPU from the process that is waited for."""
    threading.Event().wait(0.05)


@contextmanager
def watching(gateway: GatewayProcess, folder: Path) -> Iterator[tuple[Prometheus, Webhook]]:
    """Scrape a gateway by the shipped configurations, a minute in a second, with ports and storage of their own."""
    assert PROMETHEUS is not None
    assert ALERTMANAGER is not None
    with ExitStack() as stack:
        hook = stack.enter_context(webhook())
        routing = shortened(read_yaml(SHIPPED / "alertmanager.yaml"), MINUTE_IN_A_SECOND)
        for receiver in routing["receivers"]:
            receiver["webhook_configs"] = [{"url": hook.url}]
        command = [ALERTMANAGER, f"--config.file={_written(folder / 'alertmanager.yaml', routing)}"]
        command += [f"--storage.path={folder / 'alertmanager'}", "--cluster.listen-address="]
        alertmanager = stack.enter_context(
            listening([*command, "--web.listen-address=127.0.0.1:0"], folder / "alertmanager.log")
        )
        config = _prometheus_config(folder, gateway.http, alertmanager)
        command = [PROMETHEUS, f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
        address = stack.enter_context(
            listening([*command, "--web.listen-address=127.0.0.1:0"], folder / "prometheus.log", "Server is ready")
        )
        yield Prometheus(address), hook


def _prometheus_config(folder: Path, gateway: str, alertmanager: str) -> Path:
    config = shortened(read_yaml(SHIPPED / "prometheus.yaml"), MINUTE_IN_A_SECOND)
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [gateway]
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [alertmanager]
    (folder / "rules").mkdir()
    for path in (SHIPPED / "rules").glob("*.yaml"):
        _written(folder / "rules" / path.name, shortened(read_yaml(path), MINUTE_IN_A_SECOND))
    return _written(folder / "prometheus.yaml", config)


def _written(path: Path, document: object) -> Path:
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path
