"""Stage split: the homework's training and validation sets, and the test set apart from them."""

from pathlib import Path

from torch import Tensor

from isoparam.images.datasets import sizes_of
from isoparam.images.files import save_images
from isoparam.images.mnist import Images, parse_idx, partition, split
from isoparam.images.own import describe, read_own, split_own
from pipeline import commands, files, parameters

DOWNLOADED = Path("data/raw")
RAW = DOWNLOADED / "MNIST/raw"
OUT = Path("data/split")


def main() -> None:
    """Split data/raw into data/split/{train,validation,test}.safetensors."""
    params = parameters.read_params()
    files.as_recorded(DOWNLOADED)
    if params.data.dataset == "own":
        own, shares = read_own(DOWNLOADED / "own"), (params.data.validation, params.data.test)
        parts = split_own(own, *shares, seed=params.data.seed)
        if describe(own, parts) != params.data.own:
            raise ValueError(
                f"the data are {describe(own, parts)}, params.yaml says {params.data.own}: "
                "run `python -m tools own PATH`"
            )
    else:
        inputs, classes = sizes_of(params.data.dataset, params.data.own)
        train, validation = split(_read_partition("train", inputs, classes))
        parts = {
            "train": train,
            "validation": validation,
            "test": _read_partition("t10k", inputs, classes),
        }
    for name, part in parts.items():
        with files.replacing(OUT / f"{name}.safetensors") as partial:
            save_images(partial, part)


def _read_partition(prefix: str, inputs: int, classes: int) -> Images:
    try:
        images, labels = (
            _read_idx(RAW / f"{prefix}-{kind}")
            for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
        )
        part = partition(images, labels, classes)
    except ValueError as error:
        raise ValueError(f"{RAW}/{prefix}-*: {error}") from None
    if part.images.shape[1] != inputs:
        raise ValueError(
            f"{RAW}/{prefix}-*: an image must have {inputs} pixels, got {part.images.shape[1]}"
        )
    return part


def _read_idx(path: Path) -> Tensor:
    if not path.is_file():
        raise ValueError(f"{path} is missing: run `dvc repro download`, which makes it")
    try:
        return parse_idx(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


if __name__ == "__main__":
    commands.run(main)
