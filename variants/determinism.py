"""Make torch repeatable inside a block, and leave no trace outside it.

Sums in floating point depend on the order of their terms, and the order depends on how many threads share them: the
thread count is therefore part of what decides a build's bytes, and is fixed here rather than taken from the machine.
Random draws come from torch's global generator (weights of new layers) seeded inside the block, or from generators
that the steps own.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from variants.plans import ComputePrecision

THREADS: Final = 2


def computing_in(precision: ComputePrecision) -> AbstractContextManager[object]:
    """Return a context in which convolutions and products are computed in ``precision`` from float32 weights.

    bfloat16 halves the time on processors that have it (``avx512_bf16``, ``amx_bf16``) and wastes it on others.
    """
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")


@contextmanager
def deterministic(seed: int) -> Iterator[torch.Generator]:
    """Seed torch, fix its threads, forbid nondeterministic kernels; yield a generator of its own; then restore all."""
    threads, was_strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(THREADS)
        torch.use_deterministic_algorithms(mode=True)
        try:
            yield torch.Generator().manual_seed(seed)
        finally:
            torch.use_deterministic_algorithms(mode=was_strict)
            torch.set_num_threads(threads)
