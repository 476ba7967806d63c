"""The chart, rendered and installed by Helm itself on a small API server, and the schemas that judge what comes out."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import yaml

from tests.deploy.cluster import LOADER, running_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.deploy.cluster import Cluster

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "deploy" / "helm" / "tiergate"
TOOLS: Final = ROOT / ".deploy-tools"
PYTHON_TOOLS: Final = TOOLS / "python"
CASES: Final = tuple(sorted(path.stem for path in (CHART / "ci").glob("*.yaml")))
NEWEST: Final = "1.37.0"
_LIBRARY: Final = PYTHON_TOOLS / "helm_sdkpy" / "_lib" / "linux-amd64" / "libhelm_sdkpy.so"
_SCHEMAS: Final = PYTHON_TOOLS / "kubernetes_validate" / "kubernetes-json-schema"
_KSERVE: Final = PYTHON_TOOLS / "kserve" / "models"
_STRICT: Final = "-local-strict"
HINT: Final = "is not installed: make deploy-tools"

Object = dict[str, Any]


def missing_tools() -> str:
    """Return why the chart cannot be tested here, empty where it can."""
    if not _LIBRARY.is_file():
        return f"Helm's library (deploy/tools/requirements.txt) {HINT}"
    return "" if sys.platform == "linux" and os.uname().machine == "x86_64" else "Helm's library is for Linux on x86-64"


def missing_node_tools() -> str:
    """Return why custom resources cannot be judged here, empty where they can."""
    if shutil.which("node") is None:
        return "there is no node"
    return "" if (TOOLS / "node_modules").is_dir() else f"deploy/tools/package.json {HINT}"


class HelmRefused(Exception):
    """Helm did not do it; the message is Helm's."""


@dataclass(frozen=True)
class Release:
    """What one install or upgrade made."""

    objects: tuple[Object, ...]
    notes: str

    def of(self, kind: str) -> list[Object]:
        """Return the objects of a kind."""
        return [item for item in self.objects if item["kind"] == kind]

    def one(self, kind: str, suffix: str = "") -> Object:
        """Return the only object of a kind whose name ends so."""
        (found,) = [item for item in self.of(kind) if item["metadata"]["name"].endswith(suffix)]
        return found


class Helm:
    """Helm, in a process of its own."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("helm_worker.py")), str(_LIBRARY)]
        # Releases are kept in Helm's memory: as Secrets they would need the server to read protobuf.
        environment = {**os.environ, "HELM_DRIVER": "memory"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(300)
        self._process.stdout.close()

    def lint(self, cluster: Cluster) -> Any:  # noqa: ANN401 - JSON
        return self._do(cluster, "lint", chart=str(CHART))

    def install(self, cluster: Cluster, name: str, values: Mapping[str, Any]) -> Release:
        return self._release(cluster, "install", name, values)

    def upgrade(self, cluster: Cluster, name: str, values: Mapping[str, Any]) -> Release:
        return self._release(cluster, "upgrade", name, values)

    def uninstall(self, cluster: Cluster, name: str) -> None:
        self._do(cluster, "uninstall", name=name)

    def render(self, case: str, version: str = NEWEST) -> Release:
        """Install a committed case as the release ``answers`` on a new cluster, and return what came."""
        return self.render_values(case_values(case), version)

    def render_values(self, values: Mapping[str, Any], version: str = NEWEST) -> Release:
        """Install values as the release ``answers`` on a new cluster, and return what came."""
        with running_cluster(version) as cluster:
            return self.install(cluster, "answers", values)

    def refusal(self, values: Mapping[str, Any], version: str = NEWEST) -> str:
        """Install values that must be refused; return what Helm says."""
        with running_cluster(version) as cluster:
            try:
                self.install(cluster, "answers", values)
            except HelmRefused as refused:
                assert cluster.objects == {}
                return str(refused)
        raise AssertionError(f"Helm took {values}")

    def _release(self, cluster: Cluster, action: str, name: str, values: Mapping[str, Any]) -> Release:
        done = self._do(cluster, action, name=name, chart=str(CHART), values=values)
        objects = tuple(item for item in yaml.load_all(done["manifest"], Loader=LOADER) if item)
        return Release(objects, done["info"].get("notes", ""))

    def _do(self, cluster: Cluster, action: str, **order: object) -> Any:  # noqa: ANN401 - JSON
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(
            json.dumps({"kubeconfig": cluster.kubeconfig, "action": action, **order}),
            file=self._process.stdin,
            flush=True,
        )
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise HelmRefused(answer["error"])
        return answer["result"]


def case_values(case: str) -> dict[str, Any]:
    """Return the values of a committed case."""
    return yaml.safe_load((CHART / "ci" / f"{case}.yaml").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def pods(release: Release) -> Iterator[tuple[Object, Object]]:
    """Yield each object that makes pods, and their spec; a ServingRuntime's is the half of one."""
    for item in release.objects:
        if item["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield item, item["spec"]["template"]["spec"]
        elif item["kind"] == "ServingRuntime":
            yield item, item["spec"]


def minors() -> list[str]:
    """Return every Kubernetes version that has schemas here, the oldest first; none where they are not installed."""
    names = [path.name for path in _SCHEMAS.glob(f"v*{_STRICT}")]
    return sorted((name[1 : -len(_STRICT)] for name in names), key=lambda name: [int(part) for part in name.split(".")])


def problems(item: Object, version: str) -> list[str] | None:
    """Return what the strict schema of a version has against an object, ``None`` where it has no such kind."""
    validator = _validator(version, item["apiVersion"], item["kind"])
    if validator is None:
        return None
    name = f"{item['kind']} {item['metadata']['name']}"
    return [f"{name} {'.'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(item)]


@cache
def _validator(version: str, api_version: str, kind: str) -> Any:  # noqa: ANN401 - installed beside the project
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    path = _SCHEMAS / f"v{version}{_STRICT}" / f"{kind.lower()}-{group}.json"
    if not path.exists():
        return None
    resource = _resource(path)
    registry = resource @ _definitions(version)
    return importlib.import_module("jsonschema").Draft202012Validator(resource.contents, registry=registry)


@cache
def _definitions(version: str) -> Any:  # noqa: ANN401 - see above
    """Return the registry with what all schemas of a version share."""
    resource = _resource(_SCHEMAS / f"v{version}{_STRICT}" / "_definitions.json")
    return resource @ importlib.import_module("referencing").Registry()


def _resource(path: Path) -> Any:  # noqa: ANN401 - see above
    if str(PYTHON_TOOLS) not in sys.path:
        sys.path.append(str(PYTHON_TOOLS))  # last: what the project has wins
    return importlib.import_module("referencing").Resource.from_contents(msgspec.json.decode(path.read_bytes()))


def custom_problems(items: list[Object]) -> list[str]:
    """Return what the published models of custom resources have against objects: wrong types, unknown fields."""
    command = ["node", str(Path(__file__).with_name("custom_resources.mjs")), str(TOOLS / "node_modules")]
    done = subprocess.run(command, input=json.dumps(items), capture_output=True, text=True, timeout=300, check=True)
    return list(json.loads(done.stdout))


def kserve_problems(item: Object) -> list[str]:
    """Return the fields of a KServe object that KServe's own models do not have."""
    version = item["apiVersion"].rpartition("/")[2]
    return _unknown(item, f"{version[0].upper()}{version[1:]}{item['kind']}", item["kind"])


def _unknown(node: Any, kind: str, where: str) -> list[str]:  # noqa: ANN401 - JSON
    if (inner := re.fullmatch(r"(?:list\[|dict\(str, )(.*)[\])]", kind)) is not None:
        values = node.items() if isinstance(node, dict) else enumerate(node)
        return [one for key, value in values for one in _unknown(value, inner[1], f"{where}.{key}")]
    fields = _kserve_fields(kind)
    if fields is None or not isinstance(node, dict):
        return []
    found = []
    for key, value in node.items():
        found += _unknown(value, fields[key], f"{where}.{key}") if key in fields else [f"{where}.{key} is no field"]
    return found


@cache
def _kserve_fields(kind: str) -> dict[str, str] | None:
    """Return the wire names of a model's fields and their types, read from its source; nothing of it is run."""
    path = _KSERVE / f"{re.sub(r'(?<=[a-z0-9])(?=[A-Z])', '_', kind).lower()}.py"
    if not path.exists():
        return None
    found: dict[str, dict[str, str]] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Dict):
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return {wire: found["openapi_types"][name] for name, wire in found["attribute_map"].items()}
