"""A built model for KServe: this gateway as a custom runtime, and an InferenceService of one model.

Two manifests, in one file each, for ``kubectl apply -f``:

* ``servingruntime.yaml``: how KServe starts the gateway for models of the format ``tiergate``. KServe puts what the
  storage URI names into ``/mnt/models``, which is the repository.
* ``inferenceservice.yaml``: the model. Its memory is what the manifest's measured variants and the process take.

``RawDeployment`` is asked for, because a Knative service has one port, and HTTP and gRPC are two here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from service.exports.writing import ExportError, write_folders

if TYPE_CHECKING:
    from pathlib import Path

    from variants.manifest import ModelManifest

_HTTP, _GRPC = 8000, 8001
"""The gateway's own, as in the Helm chart's ServingRuntime."""

_MOUNT: Final = "/mnt/models"
_PROCESS_MIB: Final = 256
"""What the gateway itself takes, rounded up generously; measured without a model it is 98 MiB."""

_FORMAT: Final = "tiergate"
_NAME: Final = re.compile(r"[a-z]([a-z0-9-]{0,51}[a-z0-9])?")
"""KServe's rule for names, and room for the ``-predictor`` that it appends for a Service."""


@dataclass(frozen=True, slots=True)
class KServeForm:
    """What KServe is told: where the repository is kept, the gateway's image, and the cores of one replica.

    ``name`` is the InferenceService's; '' makes one of the model's.
    """

    storage_uri: str
    image: str
    cpus: int = 2
    name: str = ""


def export_to_kserve(manifest: ModelManifest, output: Path, how: KServeForm, *, force: bool = False) -> list[Path]:
    """Write both manifests into ``output/<model>``; return their paths.

    Raises:
        ExportError: The folder is there already and ``force`` is not given, or cannot be written; or KServe would not
            take the name.
    """
    documents = {
        "servingruntime.yaml": serving_runtime(how),
        "inferenceservice.yaml": inference_service(manifest, how),
    }
    files = {name: yaml.safe_dump(content, sort_keys=False).encode() for name, content in documents.items()}
    write_folders(output, {manifest.model: files}, force=force)
    return [output / manifest.model / name for name in files]


def serving_runtime(how: KServeForm) -> dict[str, Any]:
    """Return the ServingRuntime."""
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": _FORMAT},
        "spec": {
            "annotations": {"prometheus.kserve.io/port": str(_HTTP), "prometheus.kserve.io/path": "/metrics"},
            "supportedModelFormats": [{"name": _FORMAT, "version": "1", "autoSelect": True}],
            "protocolVersions": ["v2", "grpc-v2"],
            "multiModel": False,
            "containers": [_container(how)],
        },
    }


def inference_service(manifest: ModelManifest, how: KServeForm) -> dict[str, Any]:
    """Return the InferenceService of one model.

    Raises:
        ExportError: KServe would not take its name.
    """
    mib = _PROCESS_MIB + math.ceil(sum(item.memory.loaded_bytes for item in manifest.published) / 2**20)
    most_mib = _PROCESS_MIB + 2 * (mib - _PROCESS_MIB)  # while a file is loaded the runtime needs more
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": _service_name(manifest.model, how.name),
            "annotations": {"serving.kserve.io/deploymentMode": "RawDeployment"},
        },
        "spec": {
            "predictor": {
                "model": {
                    "modelFormat": {"name": _FORMAT},
                    "runtime": _FORMAT,
                    "protocolVersion": "v2",
                    "storageUri": how.storage_uri,
                    "resources": {
                        "requests": {"cpu": str(how.cpus), "memory": f"{mib}Mi"},
                        "limits": {"cpu": str(how.cpus), "memory": f"{most_mib}Mi"},
                    },
                }
            }
        },
    }


def _service_name(model: str, wanted: str) -> str:
    name = wanted or re.sub(r"[._-]+", "-", model).strip("-")
    if not _NAME.fullmatch(name):
        raise ExportError(
            f"KServe does not take the name '{name}': allowed are a letter and up to 52 more of a-z, 0-9 and -, the "
            "last no -; give another with --name"
        )
    return name


def _container(how: KServeForm) -> dict[str, Any]:
    arguments = ["--host", "0.0.0.0", "--http-port", str(_HTTP), "--grpc-port", str(_GRPC)]  # noqa: S104 - the pod's own
    return {
        "name": "kserve-container",  # KServe looks for it by this name
        "image": how.image,
        "command": ["tiergate"],
        "args": ["serve", _MOUNT, *arguments, "--lanes", str(how.cpus), "--no-pin-lanes", "--log-format", "json"],
        "ports": [
            {"name": "http", "containerPort": _HTTP, "protocol": "TCP"},
            {"name": "grpc", "containerPort": _GRPC, "protocol": "TCP"},
        ],
        "startupProbe": {  # until it listens, models are loaded and warmed up
            "httpGet": {"path": "/v2/health/live", "port": _HTTP},
            "periodSeconds": 5,
            "failureThreshold": 60,
        },
        "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": _HTTP}, "periodSeconds": 5},
        "livenessProbe": {"httpGet": {"path": "/v2/health/live", "port": _HTTP}, "periodSeconds": 10},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
