"""What a serving process gains by loading a variant, beside what the manifest says.

``python -m tests.service.engine.loading REPOSITORY MODEL`` loads every variant of a model as the gateway does, each in
a fresh process that has loaded the model's smallest variant before: what the runtime takes once is no variant's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil

from service.engine.copies import Copies, give_back
from service.engine.opening import Source, open_onnx_variant
from service.engine.repository import Repository, describe

_RUNS = 5


def gain_of(repository: Path, model: str, variant: str) -> int:
    """Return the resident bytes that a fresh process gains by a variant, after it has loaded the smallest one."""
    command = [sys.executable, "-m", "tests.service.engine.loading", str(repository), model, variant]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(json.loads(done.stdout))


def sources_of(repository: Path, model: str) -> dict[str, Source]:
    """Return where a model's variants come from, the smallest first."""
    stored = Repository(repository).find(model)
    assert stored.manifest is not None
    info = describe(stored.manifest)
    smallest_first = sorted(stored.manifest.published, key=lambda item: item.size.file_bytes)
    return {item.name: Source(stored, info, item) for item in smallest_first}


def load(repository: Path, model: str, variant: str) -> int:
    """Load the smallest variant and then this one here; return the resident bytes that came with it."""
    sources, process, copies = sources_of(repository, model), psutil.Process(), Copies(open_onnx_variant)
    copies.open(next(iter(sources.values())), _RUNS)
    give_back()
    before = int(process.memory_info().rss)
    copies.open(sources[variant], _RUNS)
    return int(process.memory_info().rss) - before


def main(repository: str, model: str, *variants: str) -> None:
    """Print one variant's gain, or all of them beside their manifests."""
    root = Path(repository)
    if variants:
        sys.stdout.write(json.dumps(load(root, model, variants[0])) + "\n")
        return
    for name, source in list(sources_of(root, model).items())[1:]:
        said, gained = source.variant.memory_bytes, gain_of(root, model, name)
        off = f"{said / 2**20:8.2f} MiB said {gained / 2**20:8.2f} MiB gained {said / gained - 1:+7.1%}"
        sys.stdout.write(f"{name:24}{off}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
