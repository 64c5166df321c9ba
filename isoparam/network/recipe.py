"""What to train and how, and what comes of it: values alone, so that nothing here needs torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

# The dtype of the matrix products; weights, momentum and loss are float32.
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Schedule:
    """The schedule of any training.

    Attributes:
        epochs: passes over the images, 1 or more.
        batch_size: images in a batch, 1 or more.
        learning_rate: the peak of the one-cycle schedule, more than 0.
        warmup: share of the steps in which the learning rate rises, in [0, 1).
    """

    epochs: int
    batch_size: int
    learning_rate: float
    warmup: float


@dataclass(frozen=True)
class Recipe(Schedule):
    """One training of a perceptron, for any seed.

    Attributes:
        sizes: sizes of all layers, input and output included.
        momentum: in [0, 1).
        weight_decay: factor lambda of the weights that the gradient gets in addition, 0 or more.
        adversarial: norm of the shift that makes each input harder, 0 for none.
        precision: dtype of the matrix products' operands; sums are in float32.
        skips: whether a layer between hidden ones of one width adds what it gets to its output.
    """

    sizes: tuple[int, ...]
    momentum: float
    weight_decay: float
    adversarial: float = 0.0
    precision: Precision = "float32"
    skips: bool = False


@dataclass(frozen=True)
class Job:
    """What one process trains.

    Attributes:
        split: folder of train.safetensors and validation.safetensors.
        recipe: how to train.
        seeds: the replicas to train as one batch.
        device: where to train them.
        folder: where to write the weights; None for a trial, which writes none and may diverge.
    """

    split: Path
    recipe: Recipe
    seeds: tuple[int, ...]
    device: str
    folder: Path | None


class Row(NamedTuple):
    """One line of a history: loss and accuracy as of `isoparam.network.training.Epoch`."""

    seed: int
    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float


def jobs_of(
    split: Path, recipe: Recipe, seeds: Sequence[int], device: str, folder: Path | None
) -> list[Job]:
    """The jobs for these seeds: on a CPU each is a process, on a GPU all are one batch.

    Args:
        split: as of `Job`.
        recipe: how to train.
        seeds: the replicas.
        device: cpu, cuda, or auto for cuda where there is one.
        folder: as of `Job`.
    """
    if device == "auto":
        import torch  # noqa: PLC0415 (it takes seconds, and is needed for this choice alone)

        device = "cuda" if torch.cuda.is_available() else "cpu"
    groups = [(seed,) for seed in seeds] if device == "cpu" else [tuple(seeds)]
    return [Job(split, recipe, group, device, folder) for group in groups]
