"""Patterns that exporters have stumbled over come through ours, at any batch size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn

from variants.determinism import deterministic
from variants.runtime import open_session
from variants.tracing import trace


class MaskedMean(nn.Module):
    """The classic attention mask: ``1 - mask`` of whole numbers, which has to be cast first."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 8), nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        mask = (tokens != 0).long()
        x = self.embed(tokens)  # (N, length, 8)
        scores = x @ x.transpose(1, 2) + (1.0 - mask[:, None, :].float()) * -1e4
        result: torch.Tensor = self.head((scores.softmax(2) @ x).mean(1))
        return result


class HeadsInPlace(nn.Module):
    """Heads by ``reshape`` to sizes read off the input, and the fused attention operator."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.norm, self.head = nn.Linear(8, 24), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, places, width = x.shape
        q, k, v = self.qkv(x).reshape(rows, places, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(rows, places, width)
        result: torch.Tensor = self.head(self.norm(x + mixed).mean(1))
        return result


class ResidualNorm(nn.Module):
    """Batch norm that folds away on one side of a residual addition, and a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.depthwise, self.head = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.stem(x)))
        result: torch.Tensor = self.head((x + F.hardswish(self.depthwise(x))).mean((2, 3)))
        return result


PATTERNS: dict[str, tuple[type[nn.Module], Any]] = {
    "mask": (MaskedMean, lambda generator: torch.randint(0, 11, (5, 6), generator=generator)),
    "heads": (HeadsInPlace, lambda generator: torch.rand((5, 6, 8), generator=generator)),
    "residual": (ResidualNorm, lambda generator: torch.rand((5, 1, 8, 8), generator=generator)),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_trace_answers_as_torch_does(pattern: str) -> None:
    make, draw = PATTERNS[pattern]
    with deterministic(0) as generator:
        model, inputs = make().eval(), draw(generator)
    session = open_session(trace(model, [inputs[:2]], ["x"], "y"))
    with torch.inference_mode():
        expected = model(inputs).numpy()
    for rows in (1, 5):
        (actual,) = session.run(None, {"x": inputs[:rows].numpy()})
        assert np.allclose(actual, expected[:rows], atol=1e-5)
