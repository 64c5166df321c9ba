"""The data sets that the study knows."""

from typing import NamedTuple


class Dataset(NamedTuple):
    """What is known of a data set before its files are read.

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

# Features of an image and classes of each data set: the sizes of a network without hidden layer.
SIZES = {name: (known.features, known.classes) for name, known in DATASETS.items()}
