"""Own data: an .npz of arrays, or a folder of pictures with a folder for each class."""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from isoparam.images.datasets import Dataset
from isoparam.images.mnist import Images

KEYS = {"x", "y", "x_train", "y_train", "x_test", "y_test", "classes"}
# Modes with 8 bits a channel, which Pillow converts to grey, its mode L.
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}


class Own(NamedTuple):
    """What the data are, before they are split.

    Attributes:
        train: square pictures of bytes as (N, D), uint8; anything else as (N, D), float32.
        test: likewise, or None where the data have no part to test.
        names: of the classes.
    """

    train: Images
    test: Images | None
    names: list[str]


def read_own(path: Path) -> Own:
    """Read an .npz file, or a folder.

    The file holds x (N, ...) and y (N,), integers, or x_train, y_train, x_test and y_test, and may
    hold `classes`, the names of the labels from 0 on. The folder has a folder of pictures, all of
    one size, for each class, or train and test with such folders.

    Raises:
        ValueError: if it is anything else, a number is not finite, or there are fewer than two
            classes, or fewer than two examples of a class to train with.
    """
    try:
        arrays = _read_folder(path) if path.is_dir() else _read_npz(path)
        ends = ["_train", "_test"] if "x_test" in arrays else [""]
        for end in ends:
            _check(arrays.get(f"x{end}"), arrays.get(f"y{end}"), end)
        if len({(arrays[f"x{end}"].dtype, arrays[f"x{end}"].shape[1:]) for end in ends}) > 1:
            raise ValueError("x_train and x_test must have one type and one shape")  # noqa: TRY301
        labels = np.unique(arrays[f"y{ends[0]}"])
        if arrays.get("classes", labels).ndim != 1:
            raise ValueError("classes must be one row of names")  # noqa: TRY301
        names = [str(name) for name in arrays.get("classes", labels)]
        known = np.arange(len(names)) if "classes" in arrays else labels
        parts = [_examples(arrays[f"x{end}"], arrays[f"y{end}"], known) for end in ends]
        if len(set(names)) < max(2, len(names)):
            raise ValueError(  # noqa: TRY301
                f"there must be two classes or more, each with its own name, got {len(names)}"
            )
        members = parts[0].labels.bincount(minlength=len(names)).tolist()
        fewest = min(members)
        if fewest < 2:
            name = names[members.index(fewest)]
            raise ValueError(f"class {name} must have two examples or more, got {fewest}")  # noqa: TRY301
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Own(parts[0], parts[1] if parts[1:] else None, names)


def split_own(own: Own, validation: float, test: float, *, seed: int) -> dict[str, Images]:
    """The parts train, validation and test: of each class the same shares, in random order.

    Args:
        own: as read.
        validation: share for validation; of the examples to train with, where others are to test.
        test: share to test, not read where the data have such a part.
        seed: of the order.

    Raises:
        ValueError: if a part is empty, or has no example of a class to train with.

    Example:
        >>> examples = Images(torch.arange(8.0)[:, None], torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]))
        >>> parts = split_own(Own(examples, None, ["a", "b"]), 0.25, 0.25, seed=0)
        >>> [part.labels.sort().values.tolist() for part in parts.values()]
        [[0, 0, 1, 1], [0, 1], [0, 1]]
    """
    labels = own.train.labels.long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = order[labels[order].argsort(stable=True)]
    members = labels.bincount()
    rank = torch.arange(len(labels)) - (members.cumsum(0) - members).repeat_interleave(members)
    place = torch.empty(len(labels), dtype=torch.float64)  # in (0, 1), even over each class
    place[by_class] = (rank + 0.5).double() / members.repeat_interleave(members)
    place = place[order]
    first = 0.0 if own.test else test
    chosen = {
        "train": place >= first + validation,
        "validation": (place >= first) & (place < first + validation),
        "test": place < first,
    }
    parts = {
        name: Images(own.train.images[order[these]], own.train.labels[order[these]])
        for name, these in chosen.items()
    }
    parts["test"] = own.test or parts["test"]
    trained = parts["train"].labels.unique()
    if len(trained) < len(own.names) or not all(len(part.labels) for part in parts.values()):
        raise ValueError(
            f"data.validation {validation} and data.test {test} leave a part without examples, "
            "or a class without one to train with"
        )
    return parts


def describe(own: Own, parts: dict[str, Images]) -> Dataset:
    """What params.yaml is to say of the data."""
    return Dataset(own.train.images.shape[1], len(own.names), len(parts["test"].labels))


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        zipfile.ZipFile(path).close()  # anything else, numpy may take for a pickle
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in KEYS & set(file.files)}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"no .npz file of numbers: {error}") from None


def _read_folder(path: Path) -> dict[str, np.ndarray]:
    ends = ["_train", "_test"] if _folders(path) == ["test", "train"] else [""]
    names = _folders(path / ends[0][1:])
    arrays = {"classes": np.array(names)}
    size = None
    for end in ends:
        pictures, labels = [], []
        for name in _folders(path / end[1:]):
            if name not in names:
                raise ValueError(f"test has a class {name}, and train has none")
            for file in sorted((path / end[1:] / name).glob("[!.]*")):
                picture = _read_picture(file)
                size = size or picture.shape
                if picture.shape != size:
                    raise ValueError(f"{file} has {picture.shape} pixels, the others have {size}")
                pictures.append(picture)
                labels.append(names.index(name))
        if not pictures:
            raise ValueError("there must be a folder of pictures for each class")
        arrays |= {f"x{end}": np.stack(pictures), f"y{end}": np.array(labels)}
    return arrays


def _folders(path: Path) -> list[str]:
    return sorted(each.name for each in path.glob("[!.]*") if each.is_dir())


def _read_picture(file: Path) -> np.ndarray:
    try:
        with Image.open(file) as picture:
            if picture.mode in MODES:
                return np.asarray(picture.convert("L"))
            error: object = f"pixels of {picture.mode}"
    except Exception as fault:  # noqa: BLE001 (whatever Pillow trips over in a file)
        error = fault
    raise ValueError(f"{file} is not an 8-bit picture: {error}")


def _check(x: np.ndarray | None, labels: np.ndarray | None, end: str) -> None:
    if x is None or labels is None:
        raise ValueError("it must hold x and y, or x_train, y_train, x_test and y_test")
    if x.ndim < 2 or not x.size or labels.shape != x.shape[:1]:
        raise ValueError(
            f"x{end} must be (N, ...) and y{end} (N,), N of at least 1, "
            f"got {x.shape} and {labels.shape}"
        )
    if x.dtype.kind not in "fiub" or labels.dtype.kind not in "iu":
        raise ValueError(
            f"x{end} must hold numbers and y{end} integers, got {x.dtype} and {labels.dtype}"
        )
    with np.errstate(over="ignore"):
        if not np.isfinite(x.astype(np.float32)).all():
            raise ValueError(f"x{end} has a number that is not finite, or too large for float32")


def _examples(x: np.ndarray, labels: np.ndarray, known: np.ndarray) -> Images:
    if not (among := np.isin(labels, known)).all():
        raise ValueError(f"label {labels[~among][0]} is none of the {len(known)} classes")
    picture = x.dtype == np.uint8 and x.ndim == 3 and x.shape[1] == x.shape[2]
    return Images(
        torch.from_numpy(x.reshape(len(x), -1).astype(np.uint8 if picture else np.float32)),
        torch.from_numpy(
            np.searchsorted(known, labels).astype(np.uint8 if len(known) <= 256 else np.int32)
        ),
    )
