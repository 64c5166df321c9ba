"""Trained perceptrons as safetensors files."""

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from isoparam.images.files import load_tensors, save_tensors
from isoparam.network.mlp import Layers

# The keys in the metadata of a perceptron.
METADATA = {"seed", "sizes", "mean", "deviation"}


def save_perceptron(path: Path, layers: Layers, metadata: dict[str, Any]) -> None:
    """Write one replica under the names and in the shapes of a `torch.nn.Sequential`.

    Args:
        path: the file to write.
        layers: weights (1, fan-in, fan-out) and biases (1, 1, fan-out).
        metadata: seed, sizes, mean and deviation.
    """
    tensors = {}
    for index, (weight, bias) in enumerate(layers):
        # Linear layers and ReLUs alternate in the Sequential.
        tensors[f"{2 * index}.weight"] = weight[0].T.contiguous()  # (fan-out, fan-in)
        tensors[f"{2 * index}.bias"] = bias[0, 0].contiguous()  # (fan-out,)
    save_tensors(path, tensors, metadata)


def load_perceptron(path: Path, sizes: list[int]) -> tuple[Layers, dict[str, Any]]:
    """Read one replica.

    Args:
        path: a file of `save_perceptron`.
        sizes: sizes of all layers that are expected, input and output included.

    Returns:
        The replica's weights (1, fan-in, fan-out) and biases (1, 1, fan-out), float32, and its
        metadata: seed, sizes, mean and deviation of the training set's pixels.

    Raises:
        ValueError: if the file is missing, damaged, or holds anything else.
    """
    tensors, metadata = load_tensors(path)
    expected: dict[str, tuple[int, ...]] = {}
    for index, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        expected[f"{2 * index}.weight"] = fan_out, fan_in
        expected[f"{2 * index}.bias"] = (fan_out,)
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != expected:
        raise ValueError(f"{path} does not hold a perceptron of sizes {sizes} alone")
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            raise ValueError(f"{path}: {name} must be of float32, got {tensor.dtype}")
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{path}: {name} must be finite, and has NaN or infinity")
    if set(metadata) != METADATA:
        raise ValueError(
            f"{path} does not hold a perceptron of sizes {sizes} with the metadata "
            f"{', '.join(sorted(METADATA))}, but with {', '.join(sorted(metadata)) or 'none'}"
        )
    for key in ("mean", "deviation"):
        if not _is_statistic(metadata[key], sizes[0]):
            raise ValueError(
                f"{path}: the {key} must be a finite number, or one for each of the {sizes[0]} "
                f"features, got {metadata[key]!r}"[:400]
            )
    layers = [
        (tensors[f"{2 * index}.weight"].T[None], tensors[f"{2 * index}.bias"][None, None])
        for index in range(len(sizes) - 1)
    ]
    return layers, metadata


def load_replicas(
    folder: Path, seeds: Sequence[int], sizes: list[int]
) -> tuple[Layers, tuple[float, float]]:
    """Read the replicas of all seeds as one batch.

    Args:
        folder: of files seed-0.safetensors and so on, of `save_perceptron`.
        seeds: of the R replicas.
        sizes: sizes of all layers that are expected, input and output included.

    Returns:
        Weights (R, fan-in, fan-out) and biases (R, 1, fan-out), and mean and deviation of the
        training set's pixels.

    Raises:
        ValueError: as `load_perceptron`.
    """
    replicas = [load_perceptron(folder / f"seed-{seed}.safetensors", sizes) for seed in seeds]
    layers = [
        (torch.cat([weight for weight, _ in layer]), torch.cat([bias for _, bias in layer]))
        for layer in zip(*(layers for layers, _ in replicas), strict=True)
    ]
    _, metadata = replicas[0]
    return layers, (metadata["mean"], metadata["deviation"])


def _is_statistic(value: Any, features: int) -> bool:
    values = value if isinstance(value, list) and len(value) == features else [value]
    return all(type(each) in {int, float} and isfinite(each) for each in values)
