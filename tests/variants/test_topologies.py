"""Pruning keeps layers that read each other in step, whatever joins them, and by every criterion."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn

from variants.determinism import deterministic
from variants.fitting import Lesson
from variants.losses import LabelLoss
from variants.pruning import fitting_steps, prune
from variants.recipe import Pruning, Training
from variants.weights import dump_weights, load_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from variants.recipe import Importance

CLASSES = 3


class Net(nn.Module):
    """``parts`` by name, put together by ``run``, which takes the network and pictures (N, 1, 8, 8)."""

    def __init__(self, run: Callable[[Any, torch.Tensor], torch.Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(self, x)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, places, _ = x.shape
        q, k, v = self.qkv(x).reshape(rows, places, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)  # (rows, places, heads, dim)
        result: torch.Tensor = self.out(mixed.reshape(rows, places, -1))
        return result


class SplitAttention(nn.Module):
    """Queries, keys and values by a layer each, as published BERTs have them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            part(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        mixed = ((q @ k.transpose(2, 3)).softmax(3) @ v).transpose(1, 2)  # (rows, places, heads, dim)
        result: torch.Tensor = self.out(mixed.flatten(2))
        return result


class FeedForward(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = x + self.down(self.up(x).relu())
        return result


def conv(inputs: int, outputs: int, groups: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups), nn.BatchNorm2d(outputs), nn.ReLU())


def mean(x: torch.Tensor) -> torch.Tensor:
    return x.mean((2, 3))


TOPOLOGIES: dict[str, Callable[[], Net]] = {
    "chain": lambda: Net(
        lambda net, x: net.head(mean(net.b(net.a(x)))), a=conv(1, 16), b=conv(16, 24), head=nn.Linear(24, CLASSES)
    ),
    "residual": lambda: Net(
        lambda net, x: net.head(mean(net.b(net.a(x)) + net.a(x))),
        a=conv(1, 16),
        b=conv(16, 16),
        head=nn.Linear(16, CLASSES),
    ),
    "depthwise": lambda: Net(
        lambda net, x: net.head(mean(net.c(net.b(net.a(x))))),
        a=conv(1, 16),
        b=conv(16, 16, groups=16),
        c=conv(16, 24),
        head=nn.Linear(24, CLASSES),
    ),
    "concatenation": lambda: Net(
        lambda net, x: net.head(mean(torch.cat([net.a(x), net.b(x)], 1))),
        a=conv(1, 16),
        b=conv(1, 8),
        head=nn.Linear(24, CLASSES),
    ),
    "fused qkv": lambda: Net(
        lambda net, x: net.head(net.attention(net.embed(x.flatten(1, 2))).mean(1)),
        embed=nn.Linear(8, 32),
        attention=Attention(32, 4),
        head=nn.Linear(32, CLASSES),
    ),
    "separate query, key and value": lambda: Net(
        lambda net, x: net.head(net.attention(net.embed(x.flatten(1, 2))).mean(1)),
        embed=nn.Linear(8, 32),
        attention=SplitAttention(32, 4),
        head=nn.Linear(32, CLASSES),
    ),
    "feed-forward width": lambda: Net(
        lambda net, x: net.head(net.norm(net.block(net.embed(x.flatten(1))))),
        embed=nn.Linear(64, 32),
        block=FeedForward(32, 128),
        norm=nn.LayerNorm(32),
        head=nn.Linear(32, CLASSES),
    ),
}


def make(topology: str) -> Net:
    with deterministic(1):
        return TOPOLOGIES[topology]().eval()


def lesson(rows: int = 24) -> Lesson:
    with deterministic(2) as generator:
        inputs = torch.rand((rows, 1, 8, 8), generator=generator)
    return Lesson(inputs, torch.arange(rows) % CLASSES, LabelLoss(0.0))


def at_once(importance: Importance = "group-l2") -> Pruning:
    return Pruning(0.5, 1, None, round_to=4, importance=importance)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_prune_halves_widths_without_a_training(topology: str) -> None:
    model, material = make(topology), lesson()
    pruned = prune(model, material, at_once(), 0, lambda: None)
    before, after = (sum(value.numel() for value in item.parameters()) for item in (model, pruned))
    assert after < 0.62 * before
    with torch.inference_mode():
        assert pruned(material.inputs).shape == (24, CLASSES)
        restored = load_weights(make(topology), dump_weights(pruned))
        assert torch.equal(restored(material.inputs), pruned(material.inputs))


def test_prune_gives_layers_set_apart_their_own_ratio() -> None:
    plan = replace(at_once(), apart=(("", 0.25), ("b", 0.75)))
    pruned: Any = prune(make("chain"), lesson(), plan, 0, lambda: None)
    assert (pruned.a[0].out_channels, pruned.b[0].out_channels) == (12, 4)


def test_a_name_that_begins_another_says_nothing_of_it() -> None:
    between = [nn.ReLU() for _ in range(8)]
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), *between, nn.Linear(32, 32), nn.Linear(32, CLASSES))
    pruned: Any = prune(model, lesson(), Pruning(0.0, 1, None, apart=(("1", 0.5),)), 0, lambda: None)
    assert (pruned[1].out_features, pruned[10].out_features) == (16, 32)


def test_prune_settles_after_the_last_cut_and_counts_its_steps() -> None:
    short = Training(steps=8, batch_size=8)
    plan, steps = Pruning(0.5, 2, short, round_to=4), []
    settled = replace(plan, settle=replace(short, steps=9))
    without = prune(make("chain"), lesson(), plan, 0, lambda: None)
    after = prune(make("chain"), lesson(), settled, 0, lambda: steps.append(1))
    assert (len(steps), fitting_steps(settled), fitting_steps(plan)) == (25, 25, 16)
    assert dump_weights(after) != dump_weights(without)


def test_prune_removes_whole_heads_and_says_how_many_are_left() -> None:
    pruned: Any = prune(make("fused qkv"), lesson(), at_once(), 0, lambda: None)
    assert (pruned.attention.heads, pruned.attention.qkv.out_features) == (2, 3 * 2 * 8)


def test_prune_removes_the_same_heads_of_queries_keys_and_values() -> None:
    """Heads 1 and 3 reach no answer, whatever they read."""
    model: Any = make("separate query, key and value")
    silent = torch.arange(32) // 8 % 2 == 1
    with torch.no_grad():
        model.attention.out.weight[:, silent] = 0.0
        for part in (model.attention.query, model.attention.key, model.attention.value):
            part.weight[silent] *= 0.01
    only_heads = Pruning(0.5, 1, None, round_to=32, importance="group-l2")  # too coarse for any width but the heads'
    pruned: Any = prune(model, lesson(), only_heads, 0, lambda: None)
    assert (pruned.attention.heads, len(pruned.attention.query.weight)) == (2, 16)
    for name in ("query", "key", "value"):
        assert torch.equal(getattr(pruned.attention, name).weight, getattr(model.attention, name).weight[~silent])
    with torch.inference_mode():
        assert torch.allclose(pruned(lesson().inputs), model(lesson().inputs), atol=1e-6)


def test_the_criterion_decides_which_channels_go() -> None:
    """Channels 0-7 have large weights, 4-11 a large batch norm factor, 8-15 alone any influence on the answer."""
    model: Any = make("chain")
    with torch.no_grad():
        model.a[0].weight[:] = 0.1
        model.a[0].weight[:8] = 5.0
        model.a[1].weight[:] = 0.1
        model.a[1].weight[4:12] = 2.0
        model.a[1].bias[:] = 0.001 * torch.arange(16)  # by which channels are known again
        model.b[0].weight[:, :8] = 1e-6
    kept: dict[str, list[int]] = {}
    for importance in ("group-l2", "bn-scale", "group-taylor"):
        pruned: Any = prune(model, lesson(), at_once(importance), 0, lambda: None)
        kept[importance] = [round(value * 1000) for value in pruned.a[1].bias.tolist()]
    assert kept == {
        "group-l2": list(range(8)),
        "bn-scale": list(range(4, 12)),
        "group-taylor": list(range(8, 16)),
    }


def test_prune_sets_batch_norms_anew_where_nothing_is_trained() -> None:
    model, material = make("chain"), lesson()
    pruned: Any = prune(model, material, at_once(), 0, lambda: None)
    with torch.inference_mode():
        seen = pruned.a[0](material.inputs)  # (N, channels, height, width)
    assert torch.allclose(pruned.a[1].running_mean, seen.mean((0, 2, 3)), atol=1e-5)
    assert not pruned.training
