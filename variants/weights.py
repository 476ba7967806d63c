"""Weights as bytes and back: an ``.npz`` of plain arrays, which unlike a pickle can run no code when read.

A pruned model's layers are narrower than those the recipe makes, so reading sets every layer to the width of its
stored arrays. numpy writes the archive with a fixed date and in the order given: equal weights are equal bytes.
"""

from __future__ import annotations

import copy
import io
from typing import TYPE_CHECKING

import numpy as np
import torch

from variants.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Mapping


def dump_arrays(arrays: Mapping[str, torch.Tensor]) -> bytes:
    """Return named tensors as the bytes of an ``.npz`` file."""
    buffer = io.BytesIO()
    # numpy's signature takes the arrays as keywords beside one flag, which strict typing cannot tell apart.
    np.savez(buffer, **{name: tensor.detach().numpy() for name, tensor in arrays.items()})  # type: ignore[arg-type]
    return buffer.getvalue()


def load_arrays(data: bytes) -> dict[str, torch.Tensor]:
    """Return the tensors of ``dump_arrays``."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def dump_weights(model: torch.nn.Module) -> bytes:
    """Return the model's parameters and buffers as bytes."""
    return dump_arrays(model.state_dict())


def load_weights(model: torch.nn.Module, data: bytes) -> torch.nn.Module:
    """Return a copy of ``model`` with stored weights, its layers resized to them, in evaluation mode.

    Raises:
        BuildError: A layer of a kind that cannot be resized has another width than its stored weights.
    """
    restored = copy.deepcopy(model)
    state = load_arrays(data)
    for name, layer in restored.named_modules():
        prefix = f"{name}." if name else ""
        _set_heads(layer, prefix, state)
        own = {key: state[prefix + key] for key in (*layer._parameters, *layer._buffers) if prefix + key in state}  # noqa: SLF001 - torch has no public way to set a parameter of another shape
        _set_layer(layer, own)
    restored.load_state_dict(state)
    return restored.eval()


def _set_heads(layer: torch.nn.Module, prefix: str, state: Mapping[str, torch.Tensor]) -> None:
    """Set how many heads an attention block has left; their width does not change."""
    heads = getattr(layer, "heads", None)
    for name in ("qkv", "query"):
        part, stored = getattr(layer, name, None), state.get(f"{prefix}{name}.weight")
        if isinstance(heads, int) and isinstance(part, torch.nn.Linear) and stored is not None:
            layer.heads = heads * len(stored) // part.out_features  # type: ignore[assignment]  # torch knows only its own attributes


def _set_layer(layer: torch.nn.Module, arrays: Mapping[str, torch.Tensor]) -> None:
    changed = [key for key, value in arrays.items() if getattr(layer, key).shape != value.shape]
    if not changed:
        return
    _resize(layer, arrays)
    for key in changed:
        value = arrays[key]
        is_parameter = isinstance(getattr(layer, key), torch.nn.Parameter)
        setattr(layer, key, torch.nn.Parameter(value) if is_parameter else value)


def _resize(layer: torch.nn.Module, arrays: Mapping[str, torch.Tensor]) -> None:
    """Set the width attributes of a layer to those of its stored arrays."""
    if isinstance(layer, torch.nn.Linear):
        layer.out_features, layer.in_features = arrays["weight"].shape
    elif isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the only class all batch norms share
        layer.num_features = len(arrays["running_mean"])
    elif isinstance(layer, torch.nn.LayerNorm):
        layer.normalized_shape = tuple(arrays["weight"].shape)
    elif isinstance(layer, torch.nn.Embedding):
        layer.num_embeddings, layer.embedding_dim = arrays["weight"].shape
    elif isinstance(layer, torch.nn.Conv2d):
        outputs, inputs_each = arrays["weight"].shape[:2]
        if layer.groups > 1:  # depthwise: the groups shrink with the channels
            layer.groups = outputs
        layer.out_channels, layer.in_channels = outputs, inputs_each * layer.groups
    else:
        raise BuildError(f"weights of a {type(layer).__name__} layer cannot be restored at another width")
