"""What makes two builds the same build.

The build key is a digest of everything that decides a variant's bytes: the recipe's name, every number of its plan and
the source file it is written in, the seed, the data itself, the versions of the tools and of Python, this package's
own source, and the instruction set: torch and oneDNN choose their kernels by it, which add in another order and so
round differently, and ONNX Runtime's choice of int8 ranges is judged on it. The same key gives the same weights, so a
finished version with that key need not be built again, and kept steps can be trusted. The rest of the machine, its
load and the time are not in the key: they change measurements, not bytes.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from variants.data import hash_examples
from variants.determinism import THREADS
from variants.manifest import Split

if TYPE_CHECKING:
    from variants.recipe import AnyRecipe, DataParts

PACKAGES: Final = (
    "numpy", "onnx", "onnxruntime", "onnxscript", "scikit-learn", "skl2onnx", "tiergate", "torch", "torch-pruning",
    "transformers",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Identity:
    """A build's key and the facts that it is made of."""

    key: str
    parameters: dict[str, Any]
    tools: dict[str, str]
    splits: dict[str, Split]


def identify(recipe: AnyRecipe, parts: DataParts, seed: int, isa: tuple[str, ...]) -> Identity:
    """Return the identity of building ``recipe`` with ``seed`` on a machine with ``isa``."""
    plan: dict[str, Any] = asdict(recipe.plan)
    named = {name: part for name, part in parts.named().items() if len(part)}
    splits = {name: Split(rows=len(part), sha256=hash_examples(part)) for name, part in named.items()}
    tools = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    tools |= {name: found for name in PACKAGES if (found := _version(name)) is not None}
    facts = {
        "name": recipe.name,
        "labels": recipe.labels,
        "plan": plan,
        "seed": seed,
        "splits": {name: split.sha256 for name, split in splits.items()},
        "tools": tools,
        "threads": THREADS,
        "isa": isa,
        "kernels": torch.backends.cpu.get_cpu_capability(),  # below isa where the environment holds torch back
        "recipe_source": _hash_files([Path(inspect.getfile(type(recipe)))]),  # not the modules that it imports
        "steps_source": _hash_files(own_sources()),
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    # Through JSON, so that a manifest just built equals the same manifest read back (tuples become lists).
    return Identity(key=key, parameters=json.loads(json.dumps(plan)), tools=tools, splits=splits)


def own_sources() -> list[Path]:
    """Return the files of this package that any build runs; a recipe's own file is hashed for itself."""
    package = Path(__file__).parent
    return sorted([*package.glob("*.py"), *package.glob("sources/*.py")])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _hash_files(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
