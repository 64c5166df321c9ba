"""The data sets that the study knows."""

from typing import NamedTuple


class Dataset(NamedTuple):
    """The properties of a data set that are known before its files are read.

    Attributes:
        features: of an image, its pixels.
        classes: how many there are.
        test_images: how many there are.
    """

    features: int
    classes: int
    test_images: int


DATASETS = {
    "mnist": Dataset(784, 10, 10_000),
    "fashion-mnist": Dataset(784, 10, 10_000),
    "kmnist": Dataset(784, 10, 10_000),
    "qmnist": Dataset(784, 10, 60_000),
    "emnist-letters": Dataset(784, 26, 20_800),
    "digits": Dataset(64, 10, 297),
}


def sizes_of(name: str, own: Dataset | None) -> tuple[int, int]:
    """Features and classes of a data set.

    Args:
        name: of DATASETS, or "own".
        own: those of own data; ignored for other data sets.

    Example:
        >>> sizes_of("own", Dataset(features=30, classes=2, test_images=85))
        (30, 2)
    """
    return (own if name == "own" and own else DATASETS[name])[:2]
