"""The sampled softmax as a sequence of small transforms: a correction, a mask, a loss.

For logits that come from elsewhere, such as two towers' products. Composed, they are also what the
fast function in `isoparam.sampled_softmax.loss` is tested against.
"""

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from isoparam.sampled_softmax.draws import Samples

Weighting = Literal["importance", "stated", "tensorflow", "none"]


def log_weights(samples: Samples, weighting: Weighting = "importance") -> tuple[Tensor, Tensor]:
    """Find what is added to the sampled and to the target's logits: the logs of their weights.

    With K draws, single-draw probabilities q_j and expected counts n_j (K q_j with replacement):

        importance    sampled -log n_j         target 0           unbiased denominator
        stated        sampled log(q_j / K)     target 0           (1/K) sum q_j e^{z_j}
        tensorflow    sampled -log n_j         target -log n_c    no limit as K grows
        none          sampled 0                target 0

    An id that stands for m merged draws gets log m on top.

    Args:
        samples: The draw.
        weighting: One of the rows above.

    Returns:
        The sampled offsets, shape (K,) or (B, K), and the target's, shape (B,).

    Raises:
        ValueError: If `weighting` is none of the four.

    Example:
        >>> from isoparam.sampled_softmax.samplers import UniformSampler
        >>> samples = UniformSampler(4).sample(2, torch.tensor([0]))
        >>> log_weights(samples)[0].exp(), log_weights(samples, "stated")[0].exp()
        (tensor([2., 2.], dtype=torch.float64), tensor([0.1250, 0.1250], dtype=torch.float64))

    Reference:
        importance: Bengio and Senecal, "Quick Training of Probabilistic Neural Nets by Importance
        Sampling", AISTATS 2003. tensorflow: the formula of `tf.nn.sampled_softmax_loss`.
    """
    if weighting not in get_args(Weighting):
        raise ValueError(f"weighting must be one of {get_args(Weighting)}, got {weighting!r}")
    target = torch.zeros_like(samples.target_log_expected_counts)
    if weighting == "stated":
        draws = samples.ids.shape[-1] if samples.counts is None else int(samples.counts.sum())
        sampled = samples.log_probs - math.log(draws)
    elif weighting == "none":
        sampled = torch.zeros_like(samples.log_expected_counts)
    else:
        sampled = -samples.log_expected_counts
    if weighting == "tensorflow":
        target = -samples.target_log_expected_counts
    if samples.counts is not None:
        sampled = sampled + samples.counts.double().log()
    return sampled, target


def mask_accidental_hits(logits: Tensor, ids: Tensor, target: Tensor) -> Tensor:
    """Remove every sample that is one of the example's own classes from the denominator.

        s_bk = -inf where ids_k = target_b, repeats included

    Args:
        logits: Sampled logits, shape (B, K).
        ids: Sampled classes, shape (K,) or (B, K).
        target: True classes, shape (B,), or several of each example, shape (B, P).

    Returns:
        The masked logits, shape (B, K).

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> mask_accidental_hits(torch.zeros(1, 3), torch.tensor([5, 2, 5]), torch.tensor([5]))
        tensor([[-inf, 0., -inf]])
    """
    B, K = logits.shape if logits.dim() == 2 else (-1, -1)
    if ids.shape not in {(K,), (B, K)} or target.dim() not in {1, 2} or len(target) != B:
        raise ValueError(
            "logits, ids and target must have shapes (B, K), (K,) or (B, K), and (B,) or (B, P), "
            f"got {tuple(logits.shape)}, {tuple(ids.shape)} and {tuple(target.shape)}"
        )
    hits = torch.zeros(B, K, dtype=torch.bool, device=logits.device)
    fill_hits(hits, ids, target if target.dim() == 2 else target[:, None], value=True)
    return logits.masked_fill(hits, -math.inf)


def fill_hits(s: Tensor, ids: Tensor, classes: Tensor, value: float) -> None:
    """Put a value into `s` wherever a sample is one of the classes of its example.

    Args:
        s: Shape (B, K), changed in place.
        ids: Sampled classes, shape (K,) or (B, K).
        classes: Shape (B, P).
        value: What to put.

    Example:
        >>> s = torch.zeros(2, 3)
        >>> fill_hits(s, torch.tensor([5, 2, 5]), torch.tensor([[5], [4]]), 1.0)
        >>> s
        tensor([[1., 0., 1.],
                [0., 0., 0.]])
    """
    # On a GPU, finding hits would wait for their number; a compiler cannot know it either.
    if ids.dim() > 1 or ids.is_cuda or torch.compiler.is_compiling():
        for column in classes.unbind(1):
            s.masked_fill_(ids == column[:, None], value)
        return
    # Few rows have a hit when there are many classes, and to find them costs less than to compare
    # all. Equal ids are neighbours once they are sorted, `hits` of them for each class.
    sorted_ids, order = ids.sort()
    classes = classes.contiguous()
    first = torch.searchsorted(sorted_ids, classes)  # (B, P)
    hits = torch.searchsorted(sorted_ids, classes, right=True) - first  # (B, P)
    rows = torch.arange(len(s)).repeat_interleave(hits.sum(1))
    hits = hits.flatten()
    shift = first.flatten() - hits.cumsum(0) + hits
    s[rows, order[torch.arange(len(rows)) + shift.repeat_interleave(hits)]] = value


def sampled_cross_entropy(target_logits: Tensor, sampled_logits: Tensor) -> Tensor:
    """Cross-entropy of the target against the samples, in log space.

        loss_b = -logsigmoid(s_bc - logsumexp_k s_bk), 0 where every s_bk is -inf

    Args:
        target_logits: s_bc, shape (B,).
        sampled_logits: s_bk, corrected and masked, shape (B, K).

    Returns:
        The loss of each example, shape (B,).

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> sampled_cross_entropy(torch.tensor([0.0]), torch.tensor([[0.0, -torch.inf]]))
        tensor([0.6931])
    """
    if sampled_logits.dim() != 2 or target_logits.shape != sampled_logits.shape[:1]:
        raise ValueError(
            "target_logits and sampled_logits must have shapes (B,) and (B, K), got "
            f"{tuple(target_logits.shape)} and {tuple(sampled_logits.shape)}"
        )
    empty = sampled_logits.isneginf().all(1)  # (B,)
    # logsumexp of a row of -inf has a NaN gradient, which a later `where` would not remove.
    denominator = sampled_logits.masked_fill(empty[:, None], 0.0).logsumexp(1)  # (B,)
    return -F.logsigmoid(target_logits - denominator).masked_fill(empty, 0.0)
