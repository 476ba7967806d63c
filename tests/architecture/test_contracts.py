"""The arrows between packages, as import-linter and the imports themselves tell them."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import service

ROOT = Path(service.__file__).parents[1]
BUILD_ONLY = ("torch", "torch_pruning", "onnx", "onnxscript", "sklearn", "scipy", "matplotlib")
LOADERS = frozenset({"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "multiprocessing"})
UNSAFE_BUILTINS = frozenset({"eval", "exec", "compile", "__import__"})
UNSAFE_CALLS = frozenset({"yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.load", "np.load", "numpy.load"})
ENTRIES = ("service.serve", "service.bento", "service.pyvoy_app")


def test_import_contracts_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stdout[-3000:]


@pytest.mark.parametrize("entry", ["service.serve", "service.app", "service.cli", "variants.manifest"])
def test_the_service_imports_where_the_builds_libraries_are_absent(entry: str) -> None:
    blocked = f"import sys; sys.modules.update(dict.fromkeys({BUILD_ONLY!r})); import {entry}"
    result = subprocess.run([sys.executable, "-c", blocked], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]


def test_the_serving_path_loads_no_code_from_data() -> None:
    found = [problem for path in serving_path() for problem in unsafe_uses(path)]
    assert found == []


def test_the_serving_path_reaches_from_both_wire_forms_to_the_runtime() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in serving_path()}
    wanted = {"service/api/http_routes.py", "service/api/grpc_asgi.py", "service/engine/backends/onnx.py"}
    assert wanted <= names
    assert "variants/manifest.py" in names
    assert "variants/build.py" not in names


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from marshal import loads",
        "eval('1')",
        "import yaml\nyaml.load('', yaml.Loader)",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
    ],
)
def test_unsafe_uses_are_recognised(tmp_path: Path, text: str) -> None:
    (tmp_path / "module.py").write_text(text, encoding="utf-8")
    assert len(unsafe_uses(tmp_path / "module.py")) == 1


def serving_path() -> set[Path]:
    """Return every first-party file that an entry imports, at the top or within a function, however far away."""
    files: set[Path] = set()
    pending = [file_of(entry) for entry in ENTRIES]
    while pending:
        path = pending.pop()
        if path is not None and path not in files:
            files.add(path)
            pending += [file_of(name) for name in imported_names(path)]
    return files


def file_of(module: str) -> Path | None:
    """Return the file of a first-party module, ``None`` for others and for names inside a module."""
    parts = module.split(".")
    if parts[0] not in ("service", "variants", "loadtests"):
        return None
    path = ROOT.joinpath(*parts)
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def imported_names(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def unsafe_uses(path: Path) -> list[str]:
    """Return what a file does that could turn data into code."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        where = f"{path.name}:{getattr(node, 'lineno', 0)}"
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in UNSAFE_BUILTINS or called in UNSAFE_CALLS:
                found.append(f"{where} calls {called}")
        found += [f"{where} imports {name}" for name in modules if name.partition(".")[0] in LOADERS]
    return found


def test_first_party_packages_are_those_of_this_checkout() -> None:
    for package in ("service", "variants", "loadtests"):
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        assert Path(spec.origin).is_relative_to(ROOT)
