"""A real Triton Inference Server, from the wheel ``nvidia-pytriton`` (Linux, x86-64): no container, no GPU.

The wheel holds ``tritonserver`` with its Python backend, and the backend's stub for each Python version. ``prepare``
installs it into an environment of its own and lays the stub of this Python where the backend looks for it; ``running``
serves a model repository; ``write_model`` writes one model of such a repository, in Triton's own layout, computed by
ONNX Runtime in the Python backend. ``model_code`` is its ``model.py``; models of other code need the same path.
The stub embeds libpython: the interpreter must have been built with a shared one.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from loadtests import processes
from loadtests.peers.environments import SERVICES, Environment, NotAvailable, prepare_environment
from loadtests.peers.onnx_models import CLASSES, INPUT, MAX_BATCH, OUTPUT
from loadtests.peers.peer import Peer, Site
from loadtests.shots import protocol_targets

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadtests.peers.onnx_models import BenchModel
    from loadtests.shots import Target

KEY: Final = "triton"
_READY: Final = "/v2/health/ready"


@dataclass(frozen=True, slots=True)
class Triton:
    """An installed Triton: its binary, its backends, its own shared libraries, and the packages that models import."""

    binary: Path
    backends: Path
    libraries: Path
    site_packages: Path


@dataclass(frozen=True, slots=True)
class Ports:
    """Where it listens, on loopback."""

    http: int
    grpc: int
    metrics: int

    @classmethod
    def free(cls) -> Ports:
        """Return ports that nothing listens on now."""
        return cls(*(processes.free_port() for _ in range(3)))


def prepare(cache: Path) -> Triton:
    """Install Triton under ``cache``, or find it installed.

    Raises:
        NotAvailable: There is no wheel for this machine, no stub for this Python, or no shared libpython.
    """
    return lay_out(prepare_environment(KEY, cache))


def lay_out(environment: Environment) -> Triton:
    """Put the stub of this Python into the backend's folder; return the installation.

    Raises:
        NotAvailable: There is no stub for this Python, or no shared libpython.
    """
    server = environment.site_packages / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise NotAvailable(f"nvidia-pytriton has no stub of Triton's Python backend for Python {version}")
    if not _has_shared_python(version):
        raise NotAvailable(f"Triton's Python backend needs libpython{version}.so; {sys.base_prefix} has no shared one")
    placed = server / "backends" / "python" / stub.name
    if not placed.is_file() or placed.stat().st_size != stub.stat().st_size:
        shutil.copyfile(stub, placed)
    for program in (placed, server / "bin" / "tritonserver"):
        program.chmod(0o755)
    libraries = environment.site_packages / "nvidia_pytriton.libs"
    return Triton(server / "bin" / "tritonserver", server / "backends", libraries, environment.site_packages)


@contextlib.contextmanager
def running(
    triton: Triton, repository: Path, ports: Ports, log: Path, cpus: frozenset[int] | None = None
) -> Iterator[None]:
    """Serve ``repository`` until the block ends; Triton's log goes to the file ``log``.

    Raises:
        LoadError: It did not start, or could not load a model.
    """
    with processes.running(command(triton, repository, ports, log), cpus):
        yield


def command(triton: Triton, repository: Path, ports: Ports, log: Path) -> processes.Command:
    """Return how Triton is started."""
    arguments = [str(triton.binary), f"--model-repository={repository}", f"--backend-directory={triton.backends}"]
    arguments += ["--http-address=127.0.0.1", f"--http-port={ports.http}"]
    arguments += ["--grpc-address=127.0.0.1", f"--grpc-port={ports.grpc}"]
    arguments += ["--metrics-address=127.0.0.1", f"--metrics-port={ports.metrics}", "--allow-gpu-metrics=false"]
    arguments += ["--log-info=false", "--exit-timeout-secs=5"]
    environment = {"LD_LIBRARY_PATH": f"{triton.libraries}:{sysconfig.get_config_var('LIBDIR')}"}
    return processes.Command(arguments, ports.http, _READY, environment, log=log)


def write_model(triton: Triton, repository: Path, model: BenchModel) -> Path:
    """Write version 1 of a model for the Python backend, with dynamic batching; return its folder."""
    folder = repository / model.name
    version = folder / "1"
    version.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config(model))
    (version / "model.onnx").write_bytes(model.content)
    (version / "model.py").write_text(model_code(triton))
    return folder


def model_code(triton: Triton) -> str:
    """Return a ``model.py``: the Python backend isolates its interpreter, which finds packages by this path alone."""
    path = [str(triton.site_packages), str(SERVICES)]
    return f"import sys\n\nsys.path[:0] = {path!r}\n\nfrom triton_model import TritonPythonModel\n"


def config(model: BenchModel) -> str:
    """Return the model's ``config.pbtxt``: one CPU instance, batches made of what waits, without a delay."""
    dims = ", ".join(map(str, model.row_shape))
    return (
        f'name: "{model.name}"\n'
        'backend: "python"\n'
        f"max_batch_size: {MAX_BATCH}\n"
        f'input [{{ name: "{INPUT}" data_type: TYPE_FP32 dims: [{dims}] }}]\n'
        f'output [{{ name: "{OUTPUT}" data_type: TYPE_FP32 dims: [{CLASSES}] }}]\n'
        "dynamic_batching {}\n"
        "instance_group [{ kind: KIND_CPU count: 1 }]\n"
    )


def _has_shared_python(version: str) -> bool:
    name = f"libpython{version}.so.1.0"
    folder = sysconfig.get_config_var("LIBDIR")
    return (Path(str(folder)) / name).is_file() or ctypes.util.find_library(f"python{version}") is not None


def _prepare(cache: Path) -> Environment:
    environment = prepare_environment(KEY, cache)
    lay_out(environment)
    return environment


def _start(environment: Environment, model: BenchModel, site: Site) -> Sequence[Target]:
    repository = site.folder / "models"
    triton, ports = lay_out(environment), Ports.free()
    write_model(triton, repository, model)
    site.run(command(triton, repository, ports, site.folder / "log"))
    return protocol_targets(PEER.title, model.name, model.row, (ports.http, ports.grpc))


PEER: Final = Peer(KEY, "Triton", "Python backend, dynamic batching, one CPU instance; metrics on", _prepare, _start)
