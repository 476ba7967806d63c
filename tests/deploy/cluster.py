"""A small Kubernetes API server: it keeps what Helm brings, and says which version it is.

It knows the kinds that the chart uses, stores objects as they come and validates nothing: the schemas of the real
versions do that in the tests. Server-side apply replaces the object.
"""

from __future__ import annotations

import json
import secrets
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS: Final = {
    "v1": ("Service", "ServiceAccount", "ConfigMap", "Secret", "PersistentVolumeClaim", "Pod"),
    "apps/v1": ("Deployment", "StatefulSet"),
    "batch/v1": ("Job",),
    "autoscaling/v2": ("HorizontalPodAutoscaler",),
    "policy/v1": ("PodDisruptionBudget",),
    "networking.k8s.io/v1": ("NetworkPolicy",),
    "keda.sh/v1alpha1": ("ScaledObject",),
    "monitoring.coreos.com/v1": ("ServiceMonitor", "PrometheusRule"),
    "gateway.networking.k8s.io/v1": ("HTTPRoute", "GRPCRoute"),
    "serving.kserve.io/v1alpha1": ("ServingRuntime",),
    "serving.kserve.io/v1beta1": ("InferenceService",),
}
LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLURALS: Final = {"NetworkPolicy": "networkpolicies"}
_VERBS: Final = ("create", "delete", "get", "list", "patch", "update")
Found = tuple[int, dict[str, Any]]


def plural(kind: str) -> str:
    """Return the kind's name in paths."""
    return _PLURALS.get(kind, f"{kind.lower()}s")


class Cluster:
    """What the API server holds: objects by path."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.url = ""
        self.objects: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._count = 0
        self._name = f"small-{secrets.token_hex(8)}"  # a later cluster may get the same port

    @property
    def kubeconfig(self) -> str:
        """The kubeconfig that leads here."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "small", "cluster": {"server": self.url}}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": self._name, "context": {"cluster": "small", "user": "nobody"}}],
            "current-context": self._name,
        }
        return yaml.safe_dump(config, sort_keys=False)

    def kinds(self) -> list[str]:
        """Return the kinds of what is held, sorted; Helm's own record of the release left out."""
        return sorted(item["kind"] for item in self.objects.values() if item.get("type") != "helm.sh/release.v1")

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> Found:
        """Answer one request with a status and a document."""
        if (found := self._discover(path)) is not None:
            return 200, found
        with self._lock:
            return getattr(self, f"_{method.lower()}")(path, query, body)  # type: ignore[no-any-return]

    def _discover(self, path: str) -> dict[str, Any] | None:
        minor = self.version.split(".")[1]
        groups = [name for name in KINDS if "/" in name]
        if path == "/version":
            return {"major": "1", "minor": minor, "gitVersion": f"v{self.version}"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            named = [{"groupVersion": name, "version": name.partition("/")[2]} for name in groups]
            return {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [
                    {"name": one["groupVersion"].partition("/")[0], "versions": [one], "preferredVersion": one}
                    for one in named
                ],
            }
        prefix, _, group_version = path.strip("/").partition("/")
        if prefix in ("api", "apis") and group_version in KINDS:
            return {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": group_version,
                "resources": [
                    {"name": plural(kind), "kind": kind, "namespaced": True, "verbs": _VERBS}
                    for kind in KINDS[group_version]
                ],
            }
        return None

    def _get(self, path: str, query: dict[str, list[str]], _: bytes) -> Found:
        if path in self.objects:
            return 200, self.objects[path]
        if path.rpartition("/")[2] in {plural(kind) for kinds in KINDS.values() for kind in kinds}:
            wanted = [pair.split("=", 1) for text in query.get("labelSelector", []) for pair in text.split(",")]
            items = [
                item
                for where, item in self.objects.items()
                if where.rpartition("/")[0] == path
                and all(item["metadata"].get("labels", {}).get(key) == value for key, value in wanted)
            ]
            return 200, {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}
        return 404, _status(404, "NotFound", f"{path} is not here")

    def _post(self, path: str, _: dict[str, list[str]], body: bytes) -> Found:
        item = yaml.load(body, Loader=LOADER)  # noqa: S506 - safe, and in C
        where = f"{path}/{item['metadata']['name']}"
        if where in self.objects:
            return 409, _status(409, "AlreadyExists", f"{where} is here already")
        return 201, self._keep(where, item)

    def _put(self, path: str, _: dict[str, list[str]], body: bytes) -> Found:
        return 200, self._keep(path, yaml.load(body, Loader=LOADER))  # noqa: S506 - safe, and in C

    _patch = _put

    def _delete(self, path: str, query: dict[str, list[str]], body: bytes) -> Found:
        if path not in self.objects:
            return self._get(path, query, body)
        return 200, self.objects.pop(path)

    def _keep(self, path: str, item: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        item["metadata"] |= {"uid": f"uid-{self._count}", "resourceVersion": str(self._count)}
        self.objects[path] = item
        return item


def _status(code: int, reason: str, message: str) -> dict[str, Any]:
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return {**status, "code": code, "reason": reason, "message": message}


@contextmanager
def running_cluster(version: str) -> Iterator[Cluster]:
    """Run an API server of a Kubernetes version on a free port of this machine."""
    cluster = Cluster(version)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one segment for each answer: two would wait for each other's acknowledgement

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, document = cluster.answer(self.command, parts.path, parse_qs(parts.query), body)
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        cluster.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield cluster
        finally:
            server.shutdown()
            thread.join()
