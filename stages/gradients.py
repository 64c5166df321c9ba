"""Stage gradients: the homework's derived gradients against autograd and finite differences.

All cases are random and in float64. The tolerances are bounds, not guesses: see `_tolerances`.
"""

from collections.abc import Callable
from pathlib import Path
from sys import float_info
from typing import NamedTuple

import torch
from torch import Tensor

from isoparam.network import bits
from isoparam.network.softmax import classifier_gradients
from isoparam.sampled_softmax.draws import Samples
from isoparam.sampled_softmax.loss import sampled_linear_cross_entropy
from pipeline import commands, files, parameters

OUT = Path("metrics/gradients.json")
CASES = 100
# The step of a central difference that balances its truncation against rounding.
STEP = float_info.epsilon ** (1 / 3)


class Case(NamedTuple):
    """A random batch for a classifier of random sizes, in float64."""

    x: Tensor  # (B, d) features
    weight: Tensor  # (C, d)
    bias: Tensor  # (C,)
    labels: Tensor  # (B,), int64
    ids: Tensor  # (K,) sampled classes, int64
    q: Tensor  # (C,) the probabilities that they are drawn from


def main() -> None:
    """Check the gradients of problems 1.1 and 1.2 and write their largest errors."""
    params = parameters.read_params()
    bits.use_instructions(strict=params.train.strict)
    generator = torch.Generator().manual_seed(0)
    errors: dict[str, float] = {}
    shares: dict[str, float] = {}
    for _ in range(CASES):
        case = _draw(generator)
        exact, difference = _tolerances(case)
        for problem, loss, derived in (
            ("softmax", softmax_loss, classifier_gradients(*case[:4])),
            ("sampled_softmax", stated_loss, _by_autograd(_derived_loss, case)),
        ):
            for against, gradients, tolerance in (
                ("autograd", _by_autograd(loss, case), exact),
                ("differences", _by_differences(loss, case), difference),
            ):
                error = max(
                    float((ours - theirs).abs().max())
                    for ours, theirs in zip(derived, gradients, strict=True)
                )
                key = f"{problem}_against_{against}"
                # Not `error > tolerance`: NaN must fail.
                if not error <= tolerance:
                    raise ValueError(
                        f"the derived gradients are wrong: {key} differs by {error:.1e}, "
                        f"more than the tolerance of {tolerance:.1e}"
                    )
                errors[key] = max(errors.get(key, 0.0), error)
                shares[key] = max(shares.get(key, 0.0), error / tolerance)
    files.write_json(
        OUT,
        {
            "cases": CASES,
            "largest_error": {key: float(f"{error:.1e}") for key, error in errors.items()},
            "share_of_tolerance": {key: float(f"{share:.1e}") for key, share in shares.items()},
        },
    )


def softmax_loss(case: Case) -> Tensor:
    """Problem 1.1 as the text states it: the mean of -log p_c."""
    z = case.x @ case.weight.T + case.bias  # (B, C)
    p = z.exp() / z.exp().sum(1, keepdim=True)
    return -p[torch.arange(len(z)), case.labels].log().mean()


def stated_loss(case: Case) -> Tensor:
    """Problem 1.2 as the text states it: weights q_j / K, the true class not in S."""
    z = case.x @ case.weight.T + case.bias  # (B, C)
    true = z[torch.arange(len(z)), case.labels].exp()  # (B,)
    others = case.ids != case.labels[:, None]  # (B, K)
    negatives = (others * case.q[case.ids] * z[:, case.ids].exp()).sum(1) / len(case.ids)  # (B,)
    return -(true / (true + negatives)).log().mean()


def _derived_loss(case: Case) -> Tensor:
    """Problem 1.2 by the library, whose backward pass computes the derived gradients."""
    log_q = case.q.log()
    counts = log_q + torch.tensor(float(len(case.ids))).log()
    samples = Samples(case.ids, log_q[case.ids], counts[case.ids], counts[case.labels])
    x, weight, bias, labels = case[:4]
    return sampled_linear_cross_entropy(
        x, weight, labels, samples, linear_bias=bias, weighting="stated", sparse=False
    )


def _by_autograd(loss: Callable[[Case], Tensor], case: Case) -> tuple[Tensor, ...]:
    weight, bias = (t.clone().requires_grad_() for t in (case.weight, case.bias))
    return torch.autograd.grad(loss(case._replace(weight=weight, bias=bias)), (weight, bias))


def _by_differences(loss: Callable[[Case], Tensor], case: Case) -> list[Tensor]:
    """(l(w + h) - l(w - h)) / 2h for each entry."""
    gradients = []
    for name in ("weight", "bias"):
        values = getattr(case, name)
        gradient = torch.empty_like(values)
        for index in range(values.numel()):
            ends = []
            for step in (STEP, -STEP):
                moved = values.clone()
                moved.view(-1)[index] += step
                ends.append(loss(case._replace(**{name: moved})))
            gradient.view(-1)[index] = (ends[0] - ends[1]) / (2 * STEP)
        gradients.append(gradient)
    return gradients


def _tolerances(case: Case) -> tuple[float, float]:
    """Bounds of the error against autograd and of the error against a central difference.

    An entry of a gradient is a mean of products of a probability and an entry of x. Either way
    passes through sums of d terms (the logits), C or K terms (the denominator) and B terms (the
    mean), and n terms lose at most n units of rounding each; an exponential turns the absolute
    error of its argument, at most z, into a relative one.

    A central difference with step h is off by h^2 / 6 times the third derivative, which is the
    third cumulant of an indicator, at most 1 / (6 sqrt 3), times x^3, and by the rounding of two
    losses over 2h.
    """
    scale = max(1.0, float(case.x.abs().max()))
    z = case.x.abs() @ case.weight.abs().T + case.bias.abs()
    logit = max(1.0, float(z.max()))
    terms = sum(case.x.shape) + len(case.weight) + len(case.ids)
    rounding = 2 * terms * float_info.epsilon * logit
    truncation = STEP**2 / 6 * scale**3 / (6 * 3**0.5)
    return rounding * scale, truncation + rounding * logit / STEP + rounding * scale


def _draw(generator: torch.Generator) -> Case:
    def size(least: int, most: int) -> int:
        return int(torch.randint(least, most + 1, (), generator=generator))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    B, C, d, K = size(1, 6), size(2, 8), size(1, 6), size(1, 10)
    q = torch.softmax(normal(C), 0)
    return Case(
        x=2 * normal(B, d),
        weight=normal(C, d),
        bias=normal(C),
        labels=torch.randint(C, (B,), generator=generator),
        ids=torch.multinomial(q, K, replacement=True, generator=generator),
        q=q,
    )


if __name__ == "__main__":
    commands.run(main)
