"""Softmax cross-entropy and its gradients, as docs/homework.md derives them (problem 1.1)."""

import torch
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Loss of each example: l = -log p_c = logsumexp(z) - z_c, with c the label.

    Args:
        logits: (..., C), floating point.
        labels: (...), int64, each in [0, C).

    Returns:
        (...), of the logits' dtype, in nats, 0 or more.

    Raises:
        ValueError: if the shapes do not match or a label is out of range.

    Example:
        >>> cross_entropy(torch.zeros(2, 10), torch.tensor([0, 9]))
        tensor([2.3026, 2.3026])
    """
    _check(logits, labels)
    target = logits.gather(-1, labels[..., None])[..., 0]  # (...)
    return torch.logsumexp(logits, -1) - target


def cross_entropy_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    """Gradient of each example's loss with respect to its logits: dl/dz_i = p_i - [i = c].

    Args:
        logits: (..., C), floating point.
        labels: (...), int64, each in [0, C).

    Returns:
        (..., C), of the logits' dtype; each row sums to 0.

    Raises:
        ValueError: if the shapes do not match or a label is out of range.

    Example:
        >>> cross_entropy_gradient(torch.zeros(1, 4), torch.tensor([2]))
        tensor([[ 0.2500,  0.2500, -0.7500,  0.2500]])
    """
    _check(logits, labels)
    return less_one_hot(torch.softmax(logits, -1), labels)


def cross_entropy_with_gradient(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and gradient of each example in one pass, p from the loss's own logsumexp.

    Args:
        logits: (..., C), floating point.
        labels: (...), int64, each in [0, C); nothing is checked here.

    Returns:
        The loss, (...), and its gradient with respect to the logits, (..., C).

    Example:
        >>> cross_entropy_with_gradient(torch.zeros(1, 2), torch.tensor([1]))
        (tensor([0.6931]), tensor([[ 0.5000, -0.5000]]))
    """
    log_sum = torch.logsumexp(logits, -1, keepdim=True)  # (..., 1)
    target = labels[..., None]
    loss = (log_sum - logits.gather(-1, target))[..., 0]
    return loss, less_one_hot((logits - log_sum).exp_(), labels)


def less_one_hot(p: Tensor, labels: Tensor) -> Tensor:
    """Return p - y, in place: 1 less at the label of each example.

    Args:
        p: (..., C), floating point.
        labels: (...), int64, each in [0, C); nothing is checked here.

    Example:
        >>> less_one_hot(torch.full((1, 2), 0.5), torch.tensor([1]))
        tensor([[ 0.5000, -0.5000]])
    """
    one = p.new_full((), -1.0).expand(*labels.shape, 1)
    return p.scatter_add_(-1, labels[..., None], one)


def classifier_gradients(
    x: Tensor, weight: Tensor, bias: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the mean loss of a softmax classifier with logits z = x W^T + b.

    For one example: dl/dw_i = (p_i - [i = c]) x and dl/db_i = p_i - [i = c].

    Args:
        x: (B, d), floating point.
        weight: (C, d), of the same dtype.
        bias: (C,), of the same dtype.
        labels: (B,), int64, each in [0, C).

    Returns:
        The gradients with respect to weight, (C, d), and bias, (C,).

    Raises:
        ValueError: if the shapes do not match or a label is out of range.

    Example:
        >>> by_weight, by_bias = classifier_gradients(
        ...     torch.ones(1, 3), torch.zeros(2, 3), torch.zeros(2), torch.tensor([0])
        ... )
        >>> by_weight
        tensor([[-0.5000, -0.5000, -0.5000],
                [ 0.5000,  0.5000,  0.5000]])
        >>> by_bias
        tensor([-0.5000,  0.5000])
    """
    delta = cross_entropy_gradient(x @ weight.T + bias, labels) / len(x)  # (B, C)
    return delta.T @ x, delta.sum(0)


def check_classes(name: str, values: Tensor, classes: int) -> None:
    """Raise a ValueError, which calls the values by `name`, if one is not in [0, classes)."""
    for value in map(int, values.aminmax() if values.numel() else ()):
        if not 0 <= value < classes:
            raise ValueError(f"{name} must lie in [0, {classes}), got {value}")


def _check(logits: Tensor, labels: Tensor) -> None:
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"labels must be of the logits' shape without the last axis, "
            f"{tuple(logits.shape[:-1])}, got {tuple(labels.shape)}"
        )
    check_classes("labels", labels, logits.shape[-1])
