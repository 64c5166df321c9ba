"""Tensors and images as safetensors files; nothing is ever unpickled.

Each file has a digest of its content, which reveals every flipped bit.
"""

import json
from functools import cache
from hashlib import sha256
from os import sysconf
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from isoparam.images.mnist import Images, Statistic, normalise, pixel_statistics

# One key for all metadata: safetensors writes several keys in an order that varies.
_METADATA_KEY = "isoparam"

# DVC trusts the files in its cache without checking them, unless they are writable.
_WAY_OUT = "delete it, run `chmod -R u+w .dvc/cache` (so that DVC checks its cache) and `dvc repro`"


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write tensors and metadata with a digest of both; the same content gives the same bytes.

    Args:
        path: the file to write.
        tensors: on the CPU.
        metadata: what JSON can hold.
    """
    text = json.dumps(metadata | {"digest": _digest(tensors, metadata)}, sort_keys=True)
    # safetensors' save_file raises no OSError on a full disk.
    path.write_bytes(save(tensors, {_METADATA_KEY: text}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of `save_tensors`: the tensors, by name, and the metadata.

    Raises:
        ValueError: if it is missing, or not to the last bit what was written.
    """
    try:
        _check_size(path)
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run `dvc repro`, which makes it") from None
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): {_WAY_OUT}") from None
    digest = metadata.pop("digest", None) if isinstance(metadata, dict) else None
    if digest is None:
        raise ValueError(f"{path} has no digest, as all files of isoparam have: {_WAY_OUT}")
    if digest != _digest(tensors, metadata):
        raise ValueError(f"{path} is damaged (its digest is that of other content): {_WAY_OUT}")
    return tensors, metadata


def save_images(path: Path, images: Images) -> None:
    """Write one partition; the same images give the same bytes."""
    save_tensors(path, images._asdict(), {})


def load_images(path: Path, inputs: int, classes: int) -> Images:
    """Read one partition.

    Args:
        path: a file of `save_images`.
        inputs: features of an image that are expected.
        classes: number of classes.

    Returns:
        The images, (N, inputs), and their labels, (N,).

    Raises:
        ValueError: if the file is missing, damaged, or holds something else.
    """
    tensors, _ = load_tensors(path)
    if set(tensors) != set(Images._fields):
        raise ValueError(f"{path} must hold images and labels, got {', '.join(sorted(tensors))}")
    images = Images(**tensors)
    if images.images.shape != (len(images.labels), inputs) or not len(images.labels):
        raise ValueError(
            f"{path} must hold images of {inputs} pixels, one for each label, "
            f"got {tuple(images.images.shape)} and {len(images.labels)} labels"
        )
    if (
        images.labels.ndim != 1
        or images.images.dtype not in (torch.uint8, torch.float32)
        or images.labels.dtype not in (torch.uint8, torch.int32)
    ):
        raise ValueError(
            f"{path} must hold bytes, or features of float32, got images of {images.images.dtype} "
            f"and labels of {images.labels.dtype} and shape {tuple(images.labels.shape)}"
        )
    if int(images.labels.max()) >= classes:
        raise ValueError(
            f"{path}: labels must lie in [0, {classes}), got {int(images.labels.max())}"
        )
    return images


class TrainingData(NamedTuple):
    """What training and the choice of its parameters may see.

    Attributes:
        train: normalised images (N, D), float32, and labels (N,), int64.
        validation: likewise, by the training set's mean and deviation.
        statistics: mean and deviation of the training set's pixels, or of each feature.
    """

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    statistics: dict[str, Statistic]


@cache
def load_training_data(folder: Path, inputs: int, classes: int) -> TrainingData:
    """Read train.safetensors and validation.safetensors, once in each process.

    Raises:
        ValueError: if a file is missing, damaged, or holds something else.
    """
    parts = [
        load_images(folder / f"{part}.safetensors", inputs, classes)
        for part in ("train", "validation")
    ]
    mean, deviation = pixel_statistics(parts[0].images)
    train, validation = (
        (normalise(part.images, mean, deviation), part.labels.long()) for part in parts
    )
    return TrainingData(train, validation, {"mean": mean, "deviation": deviation})


def _check_size(path: Path) -> None:
    memory = sysconf("SC_PHYS_PAGES") * sysconf("SC_PAGE_SIZE")
    if path.stat().st_size > memory:
        raise ValueError(f"it is larger than the {memory >> 30} GiB of memory of this machine")


def _digest(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> str:
    digest = sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
