"""What networks do beyond their accuracy: calibration, confusions, agreement, layer by layer."""

from typing import NamedTuple

import torch
from torch import Tensor

from isoparam.network.mlp import Layers, forward, gradients
from isoparam.network.softmax import check_classes, cross_entropy_gradient


class Calibration(NamedTuple):
    """Predictions sorted into M bins of equal width by their confidence.

    Attributes:
        counts: (M,), int64, predictions in each bin.
        confidence: (M,), float64, their mean probability of the predicted class; 0 where none is.
        accuracy: (M,), float64, the share of them that is right, in [0, 1]; 0 where none is.
    """

    counts: Tensor
    confidence: Tensor
    accuracy: Tensor


def calibration(confidence: Tensor, correct: Tensor, bins: int) -> Calibration:
    """Mean confidence and accuracy in bins ((m - 1) / M, m / M] of the confidence, m = 1 ... M.

    Args:
        confidence: (N,), floating point, the probability of each predicted class, in [0, 1];
            0 counts to the first bin.
        correct: (N,), bool, whether each prediction is right.
        bins: M, 1 or more.

    Returns:
        The bins; a reliability diagram draws their accuracy against their confidence.

    Raises:
        ValueError: if the shapes do not match, there is no prediction or no bin, or a confidence
            is out of range.

    Example:
        >>> confidence = torch.tensor([0.25, 0.5, 0.75, 1.0])
        >>> calibration(confidence, torch.tensor([False, True, True, True]), bins=2).accuracy
        tensor([0.5000, 1.0000], dtype=torch.float64)

    Reference:
        Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", 2017,
        section 2.
    """
    if confidence.ndim != 1 or correct.shape != confidence.shape or not len(confidence):
        raise ValueError(
            f"confidence and correct must be of one shape (N,), N of at least 1, "
            f"got {tuple(confidence.shape)} and {tuple(correct.shape)}"
        )
    if bins < 1:
        raise ValueError(f"bins must be 1 or more, got {bins}")
    if not bool(((confidence >= 0) & (confidence <= 1)).all()):
        raise ValueError(
            f"each confidence must lie in [0, 1], got {confidence.min():g} to {confidence.max():g}"
        )
    confidence = confidence.double()
    edges = torch.arange(1, bins, dtype=torch.float64) / bins
    index = torch.bucketize(confidence, edges.to(confidence.device))  # (N,)
    counts = torch.bincount(index, minlength=bins)  # (M,)
    total = counts.clamp(min=1)
    return Calibration(
        counts,
        torch.bincount(index, confidence, bins) / total,
        torch.bincount(index, correct.double(), bins) / total,
    )


def expected_calibration_error(bins: Calibration) -> float:
    """Mean distance of accuracy and confidence: sum over bins of (n_m / N) |acc_m - conf_m|.

    Args:
        bins: as of `calibration`.

    Returns:
        The error, in [0, 1]; it depends on the number of bins.

    Example:
        >>> confidence = torch.tensor([0.25, 0.5, 0.75, 1.0])
        >>> correct = torch.tensor([False, True, True, True])
        >>> expected_calibration_error(calibration(confidence, correct, bins=2))
        0.125

    Reference:
        Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", 2017,
        equation 3.
    """
    share = bins.counts.double() / bins.counts.sum()  # (M,)
    return float((share * (bins.accuracy - bins.confidence).abs()).sum())


def votes(predicted: Tensor, classes: int) -> Tensor:
    """How many of R networks predict each class for each image.

    Args:
        predicted: (R, N), int64, the class that each network predicts, in [0, C).
        classes: C.

    Returns:
        (N, C), int64; each row sums to R.

    Raises:
        ValueError: if `predicted` is not of two axes, or a class is out of range.

    Example:
        >>> votes(torch.tensor([[0, 2], [1, 2], [0, 2]]), classes=3)
        tensor([[2, 1, 0],
                [0, 0, 3]])
    """
    if predicted.ndim != 2:
        raise ValueError(f"predicted must be of shape (R, N), got {tuple(predicted.shape)}")
    check_classes("predicted classes", predicted, classes)
    counts = predicted.new_zeros(predicted.shape[1], classes)
    return counts.scatter_add_(1, predicted.T, torch.ones_like(predicted.T))


def confusion_matrix(by_image: Tensor, labels: Tensor) -> Tensor:
    """The confusion matrix, summed over all networks that voted.

    Args:
        by_image: (N, C), as of `votes`.
        labels: (N,), int64, each in [0, C).

    Returns:
        (C, C), int64: rows are true classes, columns are predicted ones.

    Raises:
        ValueError: if there is not one label for each image, or one is out of range.

    Example:
        >>> by_image = votes(torch.tensor([[0, 1, 1], [0, 1, 0]]), classes=2)
        >>> confusion_matrix(by_image, torch.tensor([0, 1, 1]))
        tensor([[2, 0],
                [1, 3]])
    """
    _check_votes(by_image, labels)
    classes = by_image.shape[1]
    return by_image.new_zeros(classes, classes).index_add_(0, labels, by_image)


def hardest(by_image: Tensor, labels: Tensor) -> Tensor:
    """The images that the most networks get wrong: those that all get wrong, if there are any.

    Args:
        by_image: (N, C), as of `votes`, N of at least 1.
        labels: (N,), int64, each in [0, C).

    Returns:
        Indices of images, ascending, int64; none if no network gets any wrong.

    Raises:
        ValueError: if there is not one label for each image, or one is out of range.

    Example:
        >>> by_image = votes(torch.tensor([[0, 1, 1], [0, 1, 0]]), classes=2)
        >>> hardest(by_image, torch.tensor([1, 1, 1]))
        tensor([0])
    """
    _check_votes(by_image, labels)
    right = by_image.gather(1, labels[:, None])[:, 0]  # (N,)
    return ((right == right.min()) & (right < by_image.sum(1))).nonzero()[:, 0]


def gradient_norms(layers: Layers, x: Tensor, labels: Tensor) -> Tensor:
    """Frobenius norm of the mean loss's gradient for each layer's weight, |dl/dW_l|.

    Args:
        layers: weights (R, fan-in, fan-out) and biases (R, 1, fan-out).
        x: (B, D), of the layers' dtype, the same images for each replica.
        labels: (B,), int64, each in [0, C).

    Returns:
        (R, number of layers), of the layers' dtype, from the first layer to the last.

    Raises:
        ValueError: if there is not one label for each image, or one is out of range.

    Example:
        >>> one_layer = [(torch.zeros(1, 3, 2), torch.zeros(1, 1, 2))]
        >>> gradient_norms(one_layer, torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        tensor([[1.4142]])

    Reference:
        Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
        networks", 2010, who follow the gradients through the layers.
    """
    replicas = layers[0][0].shape[0]
    batch = x.expand(replicas, *x.shape)  # (R, B, D)
    outputs = forward(layers, batch)
    delta = cross_entropy_gradient(outputs[-1], labels.expand(replicas, -1)) / len(x)  # (R, B, C)
    found = gradients(layers, batch, outputs, delta)
    return torch.stack([by_weight.norm(dim=(1, 2)) for by_weight, _ in found][::-1], 1)


def similarities(layers: Layers, x: Tensor) -> Tensor:
    """How alike different images look to each layer: the mean cosine of the layer's inputs.

    With u_i = h_i / |h_i|, or 0 where h_i is 0, the mean of u_i . u_j over all i != j.

    Args:
        layers: weights (R, fan-in, fan-out) and biases (R, 1, fan-out).
        x: (B, D), of the layers' dtype, B of at least 2.

    Returns:
        (R, number of layers), of the layers' dtype, from the images themselves to the inputs of
        the last layer; 1 where all images are the same to a layer.

    Raises:
        ValueError: if there are fewer than 2 images.

    Example:
        >>> same = [(torch.eye(2)[None], torch.zeros(1, 1, 2))] * 2
        >>> similarities(same, torch.tensor([[2.0, 0.0], [3.0, 0.0], [0.0, 1.0]]))
        tensor([[0.3333, 0.3333]])

    Reference:
        Poole, Lahiri, Raghu, Sohl-Dickstein and Ganguli, "Exponential expressivity in deep neural
        networks through transient chaos", 2016, who follow this cosine through the layers.
    """
    count = len(x)
    if count < 2:
        raise ValueError(f"a similarity needs at least 2 images, got {count}")
    replicas = layers[0][0].shape[0]
    batch = x.expand(replicas, *x.shape)  # (R, B, D)
    means = []
    for inputs in (batch, *forward(layers, batch)[:-1]):
        unit = torch.nn.functional.normalize(inputs, dim=-1)  # (R, B, fan-in)
        # The square of the sum is the sum over all pairs, those of i = j among them.
        pairs = unit.sum(1).square().sum(-1) - unit.square().sum((1, 2))  # (R,)
        means.append(pairs / (count * (count - 1)))
    return torch.stack(means, 1)


def _check_votes(by_image: Tensor, labels: Tensor) -> None:
    if by_image.ndim != 2 or labels.shape != by_image.shape[:1]:
        raise ValueError(
            f"votes must be of shape (N, C) with N labels, "
            f"got {tuple(by_image.shape)} and {tuple(labels.shape)} labels"
        )
    check_classes("labels", labels, by_image.shape[1])
