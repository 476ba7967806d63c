"""``bentoml serve`` and ``bentoml build`` as their users run them, against a repository of tiny models."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import tomllib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.http as triton
import yaml

from loadtests.processes import free_port
from tests.builders import ModelPlan, write_repository

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("bentoml")

ROOT = Path(__file__).parents[2]
BENTOFILE = ROOT / "deploy" / "bento" / "bentofile.yaml"
SERVICE = "service.bento:TiergateService"
TIERGATE = (sys.executable, "-m", "service.cli")
BENTOML = (sys.executable, "-m", "bentoml")

# Python imports this module by itself: it notes every address off this machine that the process asks for, and refuses.
AUDIT = """
import os, sys

def refuse(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in (None, "", "localhost", "127.0.0.1", "::1"):
        with open(os.environ["AUDIT_FILE"], "a") as file:
            file.write(f"{event} {host}\\n")
        raise OSError("this test has no network")

sys.addaudithook(refuse)
"""


class Bento:
    """A running ``bentoml serve``: where it listens, and what it has printed so far."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self.printed = ""
        self._process = process
        self._read_until("Completed async startup hook")

    def get(self, path: str) -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection(self.address, timeout=300)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.getheader("content-type", ""), answer.read()
        finally:
            connection.close()

    def stop(self) -> int:
        """Send SIGTERM once, and return the exit status."""
        if self._process.poll() is None:
            self._process.terminate()
            self.printed += self._process.communicate(timeout=300)[0]
        return self._process.returncode

    def _read_until(self, text: str) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.printed += line
            if text in line:
                return
        pytest.fail(f"bentoml serve ended before it was ready:\n{self.printed}")


@contextmanager
def serving(target: str, environment: dict[str, str], folder: Path = ROOT) -> Iterator[Bento]:
    port = free_port()
    command = [*BENTOML, "serve", target, "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            bento = Bento(process, port)
            yield bento
            bento.stop()
        finally:
            process.kill()


def environment_of(home: Path, **more: str) -> dict[str, str]:
    ours = ("TIERGATE_", "BENTOML_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    # One lane, unpinned: the tests share the machine's cores.
    return inherited | {"BENTOML_HOME": str(home), "TIERGATE_LANES": "1", "TIERGATE_PIN_LANES": "false"} | more


def without_network() -> list[str]:
    """Return the command that runs another where no network is: building needs none. Empty where that is forbidden."""
    prefix = ["unshare", "--user", "--map-root-user", "--net"]
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return prefix


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("bento") / "repository")


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Bento]:
    environment = environment_of(tmp_path_factory.mktemp("home"), TIERGATE_REPOSITORY=str(repository))
    with serving(SERVICE, environment) as running:
        yield running


def test_the_probes_of_both_protocols_answer(bento: Bento) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/sums/ready", "/livez", "/readyz", "/healthz"):
        assert bento.get(path)[0] == 200, path


def test_metadata_is_the_gateways(bento: Bento) -> None:
    with triton.InferenceServerClient(bento.address) as client:
        assert client.get_server_metadata()["name"] == "tiergate"
        assert client.get_model_metadata("sums")["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]


@pytest.mark.parametrize("is_binary", [False, True])
def test_infer_answers_json_and_binary_tensors(bento: Bento, is_binary: bool) -> None:
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    x = triton.InferInput("x", [2, 4], "FP32")
    x.set_data_from_numpy(rows, binary_data=is_binary)
    y = triton.InferRequestedOutput("y", binary_data=is_binary)
    with triton.InferenceServerClient(bento.address) as client:
        result = client.infer("sums", [x], outputs=[y], parameters={"variant": "full"})
    np.testing.assert_allclose(result.as_numpy("y"), rows.sum(axis=1, keepdims=True))
    assert result.get_response()["parameters"]["variant"] == "full"


@pytest.mark.parametrize("path", ["/v2/nowhere", "/v2/models/nope", "/v2/models/nope/infer/x"])
def test_an_unknown_path_of_the_protocol_gets_the_gateways_error(bento: Bento, path: str) -> None:
    status, content_type, body = bento.get(path)
    assert (status, content_type) == (404, "application/json")
    assert list(json.loads(body)) == ["error"]


def test_the_metrics_are_the_gateways(bento: Bento) -> None:
    status, _, body = bento.get("/metrics")
    assert status == 200
    assert b"tiergate_requests_total" in body
    assert b"bentoml_service" not in body


def test_sigterm_ends_it_cleanly_and_nothing_asked_for_the_network(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(AUDIT, encoding="utf-8")
    audit = tmp_path / "audit"
    home = tmp_path / "home"
    watched = environment_of(home, PYTHONPATH=str(tmp_path), AUDIT_FILE=str(audit), TIERGATE_REPOSITORY=str(repository))
    with serving(SERVICE, watched) as running:
        assert running.get("/v2/health/ready")[0] == 200
        assert running.stop() == 0
    assert "Completed async cleanup hook: stop" in running.printed
    assert "multi-process mode" not in running.printed
    assert not audit.exists()
    # The watch can see it: BentoML by itself reports the use of its commands.
    subprocess.run([*BENTOML, "models", "list"], env=watched, check=True, capture_output=True)
    assert "t.bentoml.com" in audit.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("TIERGATE_REPOSITORY", "bento:nope", "the BentoML model store has no model 'nope'"),
        ("TIERGATE_REPOSITORY", "/nowhere", "repository /nowhere cannot be read"),
        ("TIERGATE_LANES", "-1", "lanes: Input should be greater than or equal to 0"),
        ("BENTOML_CONFIG_OPTIONS", "services.tiergate.workers=2", "is to run with 2 workers; allowed is 1"),
    ],
)
def test_serving_is_refused_before_a_worker_starts(tmp_path: Path, name: str, value: str, message: str) -> None:
    environment = environment_of(tmp_path, TIERGATE_REPOSITORY=str(tmp_path)) | {name: value}
    ended = subprocess.run(
        [*BENTOML, "serve", SERVICE, "--port", "0"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_bento_builds_and_serves_the_model_inside(tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "repository", [ModelPlan(name="digits")])
    home = tmp_path / "home"
    environment = environment_of(home)
    exporting = [*TIERGATE, "export", "digits", "--to", "bento", "--repository", str(repository)]
    subprocess.run(exporting, cwd=ROOT, env=environment, check=True, capture_output=True)
    built = subprocess.run(
        [*without_network(), *BENTOML, "build", "-f", str(BENTOFILE), "-o", "tag"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    [tag] = re.findall(r"tiergate:\w+", built.stdout)
    folder = home / "bentos" / tag.replace(":", "/")
    assert (folder / "src" / "service" / "bento.py").is_file()
    content: dict[str, Any] = yaml.safe_load((folder / "bento.yaml").read_text(encoding="utf-8"))
    assert [model["tag"] for model in content["models"]] == ["digits:1"]
    with serving(tag, environment, tmp_path) as running:
        assert json.loads(running.get("/v2/models/digits")[2])["versions"] == ["1"]


def test_the_bento_installs_what_the_package_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    packages = yaml.safe_load(BENTOFILE.read_text(encoding="utf-8"))["python"]["packages"]
    assert packages == [*project["dependencies"], *project["optional-dependencies"]["bento"]]
