"""Image files in the format of MNIST, the homework's split, and the normalisation."""

from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

# The seed of the homework's split.
SPLIT_SEED = 0

# A statistic of all pixels, or of each feature.
Statistic = float | list[float]


class Images(NamedTuple):
    """Images of one partition.

    Attributes:
        images: (N, D), uint8; float32 for own data other than pictures.
        labels: (N,), uint8; int32 where there are more than 256 classes.
    """

    images: Tensor
    labels: Tensor


def parse_idx(content: bytes) -> Tensor:
    """The array in an idx file of unsigned bytes.

    The format: two zero bytes, the type (8: unsigned byte), the number of axes, then for each axis
    its length as a big-endian 32-bit integer, then the bytes.

    Args:
        content: the whole file, decompressed.

    Returns:
        uint8, of the shape that the header states.

    Raises:
        ValueError: if the header is not one of such a file, or the length is not the header's.

    Example:
        >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
        tensor([7, 8, 9], dtype=torch.uint8)

    Reference:
        The page of MNIST by LeCun, Cortes and Burges, section "the IDX file format".
    """
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or not content[3]:
        raise ValueError(
            f"an idx file of bytes starts with 00 00 08 and a number of axes, got {content[:4]!r}"
        )
    start = 4 + 4 * content[3]
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    expected = start + prod(shape)
    if len(content) != expected:
        raise ValueError(f"an idx file of shape {shape} has {expected} bytes, got {len(content)}")
    if start == expected:  # torch.frombuffer takes no empty buffer
        return torch.empty(shape, dtype=torch.uint8)
    return torch.frombuffer(bytearray(content[start:]), dtype=torch.uint8).view(shape)


def partition(images: Tensor, labels: Tensor, classes: int) -> Images:
    """Images and labels of one partition, checked and flattened.

    Args:
        images: (N, height, width), uint8.
        labels: (N,), uint8.
        classes: number of classes.

    Returns:
        The images as (N, height * width), with their labels.

    Raises:
        ValueError: if there are not as many labels as images, none at all, or one out of range.

    Example:
        >>> zeros = torch.zeros(2, 8, 8, dtype=torch.uint8)
        >>> partition(zeros, torch.tensor([1, 9], dtype=torch.uint8), classes=10).images.shape
        torch.Size([2, 64])
    """
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or not len(images):
        raise ValueError(
            f"images must be (N, height, width) and labels (N,), N of at least 1, "
            f"got {tuple(images.shape)} and {tuple(labels.shape)}"
        )
    greatest = int(labels.max())
    if greatest >= classes:
        raise ValueError(f"labels must lie in [0, {classes}), got {greatest}")
    return Images(images.flatten(1), labels)


def split(images: Images) -> tuple[Images, Images]:
    """The homework's training and validation sets: 5/6 and 1/6 of the training partition.

    Of MNIST's 60,000 images 50,000 and 10,000, chosen as by
    `random_split(train_all, [50000, 10000], torch.Generator().manual_seed(0))`.

    Args:
        images: the training partition, of at least 6 images.

    Returns:
        Training set and validation set, in the order that `random_split` gives them.

    Raises:
        ValueError: if there are fewer than 6 images.

    Example:
        >>> twelve = Images(torch.zeros(12, 64, dtype=torch.uint8), torch.arange(12).byte())
        >>> [part.labels.tolist() for part in split(twelve)]
        [[8, 0, 5, 9, 7, 4, 2, 10, 3, 1], [11, 6]]
    """
    count = len(images.labels)
    if count < 6:
        raise ValueError(f"a split needs at least 6 images, got {count}")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(SPLIT_SEED))
    parts = order[: count - count // 6], order[count - count // 6 :]
    train, validation = (Images(images.images[part], images.labels[part]) for part in parts)
    return train, validation


def pixel_statistics(images: Tensor) -> tuple[Statistic, Statistic]:
    """Mean and standard deviation of all pixels, or of each feature.

    Args:
        images: (N, D), the training set: uint8 for pixels, or float32 for features.

    Returns:
        The two, in the pixels' unit, from 0 to 255, or for features a list each; a deviation is
        more than 0, and 1 for a feature that does not vary.

    Raises:
        ValueError: if there is no image, or nothing varies.

    Example:
        >>> pixel_statistics(torch.tensor([[0, 2]], dtype=torch.uint8))
        (1.0, 1.0)
    """
    if images.is_floating_point() and len(images):
        deviations, means = torch.std_mean(images.double(), 0, correction=0)
        if not deviations.any():
            raise ValueError("the examples of the training set are all equal")
        return means.tolist(), deviations.masked_fill(deviations == 0, 1).tolist()
    # Whole-number sums are exact: the result does not depend on the order of summation.
    counts = torch.bincount(images.flatten(), minlength=256)
    values = torch.arange(256)
    total = int(counts.sum())
    if not total:
        raise ValueError("the training set has no image, so its pixels have no mean")
    mean = int((counts * values).sum()) / total
    variance = int((counts * values * values).sum()) / total - mean * mean
    if variance <= 0:
        raise ValueError("the images are blank: all pixels of the training set are equal")
    return mean, variance**0.5


def normalise(images: Tensor, mean: Statistic, deviation: Statistic) -> Tensor:
    """Scale pixels or features to mean 0 and standard deviation 1 over the training set.

    Args:
        images: (N, D), uint8 or float32.
        mean: as of `pixel_statistics` of the training set.
        deviation: likewise.

    Returns:
        (N, D), float32, new: (images - mean) / deviation.

    Example:
        >>> normalise(torch.tensor([[0, 2]], dtype=torch.uint8), 1.0, 1.0)
        tensor([[-1.,  1.]])
    """
    x = images.to(torch.float32, copy=True)
    if isinstance(mean, list) or isinstance(deviation, list):
        return x.sub_(torch.tensor(mean)).div_(torch.tensor(deviation))
    return x.sub_(mean).div_(deviation)
