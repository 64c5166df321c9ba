"""Narrow dtypes: products may be in bfloat16 or float16, sums are in float32 and rounded once.

The bounds follow from the roundings that there are, and one test shows that rounding before the
sum, or the sum in a narrow dtype, would not keep them.
"""

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from isoparam.sampled_softmax import (
    LogUniformSampler,
    SampledLinearCrossEntropyLoss,
    UniformSampler,
    sampled_linear_cross_entropy,
)

NARROW = [torch.bfloat16, torch.float16]
# Half a unit in the last place of float32, relative: what one rounding loses.
U = 2.0**-24


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def dense(gradient: Tensor) -> Tensor:
    return gradient.to_dense() if gradient.is_sparse else gradient


class Exact(NamedTuple):
    """In float64: the gradient of the weight, the sum of its terms' sizes, and the logits' size."""

    gradient: Tensor  # (C, d)
    terms: Tensor  # (C, d)
    logit: float


def exact(x, W, target, samples) -> Exact:
    """The mean loss's gradient by the formulas of docs/homework.md, term by term."""
    x, W = x.detach().double(), W.detach().double()
    B, C = len(x), len(W)
    z = x @ W.T  # (B, C)
    s = z[:, samples.ids] - samples.log_expected_counts  # (B, K)
    s = s.masked_fill(samples.ids == target[:, None], -math.inf)
    p = torch.cat([z.gather(1, target[:, None]), s], 1).softmax(1)  # (B, 1 + K)
    rows = torch.zeros(B, C, dtype=torch.float64)
    rows.index_add_(1, samples.ids, p[:, 1:])
    misses = torch.zeros(B, C, dtype=torch.float64).scatter(1, target[:, None], 1 - p[:, :1])
    return Exact(
        (rows - misses).T @ x / B,
        (rows + misses).T @ x.abs() / B,
        float((x.abs() @ W.abs().T).max() + samples.log_expected_counts.abs().max()),
    )


def zipf_batch(dtype, B=1024, C=100, d=8, K=256):
    """Many equal targets and samples: most rows are sums of many terms, which do not cancel."""
    g = seeded()
    x = torch.rand(B, d, generator=g).to(dtype).requires_grad_()
    W = torch.randn(C, d, generator=g).to(dtype).requires_grad_()
    sampler = LogUniformSampler(C)
    target = sampler.sample(B, torch.zeros(0, dtype=torch.int64), generator=g).ids
    return x, W, target, sampler.sample(K, target, generator=g)


def rounding(case: Exact, terms: int, d: int) -> Tensor:
    """What float32 loses: in a sum of so many terms, and in the logits of each term's factor.

    A logit is a sum of d products and an offset, of `case.logit` at most in size, and moves a
    probability by a relative error of as much, that of the target's logit as well.
    """
    return case.terms * (terms + 2 * (d + 2) * case.logit + 8) * U


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", NARROW)
def test_a_narrow_weights_gradient_is_the_exact_one_rounded_once(dtype, sparse):
    x, W, target, samples = zipf_batch(dtype)
    sampled_linear_cross_entropy(x, W, target, samples, sparse=sparse).backward()
    case = exact(x, W, target, samples)
    bound = rounding(case, len(x) + len(samples.ids), x.shape[1])
    bound += torch.finfo(dtype).eps / 2 * (case.gradient.abs() + bound)
    # The least number of float16 that is not rounded to a multiple of 2^-24.
    bound += torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps / 2
    assert W.grad.dtype == dtype
    assert bool(((dense(W.grad).double() - case.gradient).abs() <= bound).all())
    if dtype == torch.bfloat16:
        # The bound is worth something: rows that are rounded before they are summed break it.
        rounded = (-0.5 * x.detach() / len(x)).to(dtype)
        summed = torch.zeros_like(W).index_add_(0, target, rounded)
        wanted = torch.zeros_like(case.gradient).index_add_(0, target, rounded.double())
        assert bool(((summed - wanted).abs() > bound).any())


def test_equal_targets_are_summed_before_they_are_rounded():
    # 8192 times the same small number: a sum in bfloat16 would stop growing at 256 of them.
    x = torch.full((8192, 1), 1.0, dtype=torch.bfloat16)
    W = torch.zeros(4, 1, dtype=torch.bfloat16, requires_grad=True)
    target = torch.ones(8192, dtype=torch.int64)
    samples = UniformSampler(4, replacement=False).sample(4, target)
    sampled_linear_cross_entropy(x, W, target, samples).backward()
    assert W.grad._nnz() == 4
    assert W.grad.to_dense().flatten().tolist() == [0.25, -0.75, 0.25, 0.25]


def linear_twin(module):
    twin = nn.LinearCrossEntropyLoss(*reversed(module.linear.weight.shape), bias=True)
    twin.load_state_dict(module.state_dict())
    return twin


@pytest.mark.skipif(not hasattr(nn, "LinearCrossEntropyLoss"), reason="this torch has none")
@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("dtype", NARROW)
def test_autocast_is_as_in_torch(dtype, per_example):
    # All classes once are the full softmax: nn.LinearCrossEntropyLoss has the same loss.
    B, C, d = 16, 40, 32
    torch.manual_seed(0)
    below = nn.Linear(d, d)
    sampler = UniformSampler(C, replacement=False)
    ours = SampledLinearCrossEntropyLoss(
        d, C, num_samples=C, sampler=sampler, bias=True, per_example=per_example
    )
    theirs = linear_twin(ours)
    x, target = torch.randn(B, d), torch.randint(C, (B,))
    found = []
    for loss in (ours, theirs):
        with torch.autocast("cpu", dtype):
            features = below(x)
            value = loss(features, target)
        value.backward()
        parameters = [*loss.parameters(), *below.parameters()]
        found.append([value.detach(), *(dense(p.grad) for p in parameters)])
        assert value.dtype == torch.float32
        assert {p.grad.dtype for p in parameters} == {torch.float32}
        below.zero_grad()
    # Factors are the same narrow numbers in both. A logit, a probability, a factor of a gradient
    # and a product are rounded to eps / 2 once each, sizes of 1 and less apart, and those of the
    # layer below pass through d more products, of weights below 1 / sqrt(d).
    logits = features.detach().float() @ ours.linear.weight.detach().T
    bound = torch.finfo(dtype).eps * (4 + 2 * float(logits.abs().max()))
    for actual, expected in zip(*found, strict=True):
        size = max(1.0, math.sqrt(d)) * float(expected.abs().max())
        torch.testing.assert_close(actual, expected, rtol=0, atol=bound * size)
    with torch.autocast("cpu", dtype):
        evaluated, wanted = ours.eval()(features, target), theirs(features, target)
        log_prob, best = ours.log_prob(features), ours.predict(features)
        product = theirs.linear(features)
    assert evaluated == wanted
    assert torch.equal(log_prob, product.float().log_softmax(1))
    assert torch.equal(best, product.float().argmax(1))


def test_autocast_leaves_float64_alone():
    x, W = torch.randn(4, 3, dtype=torch.float64), torch.randn(9, 3, dtype=torch.float64)
    target = torch.arange(4)
    samples = UniformSampler(9).sample(5, target, generator=seeded())
    with torch.autocast("cpu", torch.bfloat16):
        inside = sampled_linear_cross_entropy(x, W, target, samples)
    assert inside == sampled_linear_cross_entropy(x, W, target, samples)
    with (
        torch.autocast("cpu"),
        pytest.raises(ValueError, match=r"linear_weight must be torch\.float64"),
    ):
        sampled_linear_cross_entropy(x, W.float(), target, samples)


def test_a_backward_pass_inside_autocast_is_one_outside_of_it():
    found = []
    for inside in (False, True):
        x = torch.randn(4, 3, generator=seeded(), requires_grad=True)
        W = torch.randn(9, 3, generator=seeded(1)).requires_grad_()
        target = torch.arange(4)
        samples = UniformSampler(9).sample(5, target, per_example=True, generator=seeded())
        loss = sampled_linear_cross_entropy(x, W, target, samples)
        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            loss.backward()
        found.append((x.grad, W.grad.to_dense()))
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("sparse", [False, True])
def test_a_scaler_of_gradients(sparse):
    torch.manual_seed(0)
    below = nn.Linear(6, 6)
    loss = SampledLinearCrossEntropyLoss(6, 30, num_samples=8, sparse=sparse)
    x, target = torch.randn(5, 6), torch.arange(5)
    parameters = [*below.parameters(), *loss.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    start = [p.detach().clone() for p in parameters]
    moved = {}
    for scale in (None, 2.0**10, 2.0**100):
        for parameter, value in zip(parameters, start, strict=True):
            parameter.data.copy_(value)
        optimizer.zero_grad()
        scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        with torch.autocast("cpu", torch.float16, enabled=scale is not None):
            value = loss(below(x), target, generator=seeded())
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()
        moved[scale] = [p.detach() - value for p, value in zip(parameters, start, strict=True)]
        # What overflows float16 costs a step and halves the scale.
        assert scaler.get_scale() == (0.5 if scale == 2.0**100 else 1) * (scale or 1)
    assert not any(change.any() for change in moved[2.0**100])
    for actual, expected in zip(moved[2.0**10], moved[None], strict=True):
        # Logits below 2 and factors, as above.
        bound = 8 * torch.finfo(torch.float16).eps * math.sqrt(6) * float(expected.abs().max())
        torch.testing.assert_close(actual, expected, rtol=0, atol=bound)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *NARROW])
@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("examples", [0, 3])
def test_nothing_to_learn_from_has_zero_gradients(dtype, per_example, reduction, examples):
    """An empty batch, and one whose examples are all ignored: as a rank of several may have it."""
    x = torch.full((examples, 5), math.nan, dtype=dtype, requires_grad=True)
    W = torch.randn(7, 5, generator=seeded()).to(dtype).requires_grad_()
    b = torch.zeros(7, dtype=dtype, requires_grad=True)
    target = torch.full((examples,), -100)
    samples = UniformSampler(7).sample(4, target, per_example=per_example, generator=seeded())
    loss = sampled_linear_cross_entropy(x, W, target, samples, linear_bias=b, reduction=reduction)
    assert loss.shape == ((examples,) if reduction == "none" else ())
    assert bool((loss.isnan() if reduction == "mean" else loss == 0).all())  # 0 / 0, as in torch
    loss.sum().backward()
    for tensor in (x, W, b):
        assert tensor.grad.shape == tensor.shape
        assert not dense(tensor.grad).any()


def test_an_ignored_row_that_is_not_finite_counts_for_nothing_in_evaluation():
    model = SampledLinearCrossEntropyLoss(5, 7, num_samples=4).eval()
    x = torch.randn(4, 5, generator=seeded())
    x[1], x[3] = math.nan, math.inf
    loss = model(x, torch.tensor([2, -100, 3, -100]))
    assert loss.item() == model(x[[0, 2]], torch.tensor([2, 3])).item()
    with pytest.raises(ValueError, match="finite"):
        model(x, torch.tensor([2, 1, 3, -100]))


@pytest.mark.parametrize("per_example", [False, True])
def test_an_ignored_row_that_is_not_finite_counts_for_nothing(per_example):
    x = torch.randn(4, 5, generator=seeded())
    x[1], x[3] = math.nan, math.inf
    x.requires_grad_()
    W = torch.randn(7, 5, generator=seeded(1)).requires_grad_()
    target = torch.tensor([2, -100, 3, -100])
    samples = UniformSampler(7).sample(4, target, per_example=per_example, generator=seeded())
    loss = sampled_linear_cross_entropy(x, W, target, samples)
    loss.backward()
    kept = torch.tensor([0, 2])
    rest = x.detach()[kept].requires_grad_()
    V = W.detach().clone().requires_grad_()
    part = samples._replace(
        ids=samples.ids[kept] if per_example else samples.ids,
        log_probs=samples.log_probs[kept] if per_example else samples.log_probs,
        log_expected_counts=(
            samples.log_expected_counts[kept] if per_example else samples.log_expected_counts
        ),
        target_log_expected_counts=samples.target_log_expected_counts[kept],
    )
    alone = sampled_linear_cross_entropy(rest, V, target[kept], part)
    alone.backward()
    torch.testing.assert_close(loss, alone)
    torch.testing.assert_close(x.grad[kept], rest.grad)
    assert not x.grad[[1, 3]].any()
    torch.testing.assert_close(W.grad.to_dense(), V.grad.to_dense())


def test_half_precision_evaluation_agrees_with_torch():
    module = SampledLinearCrossEntropyLoss(3, 9, num_samples=2, dtype=torch.bfloat16).eval()
    x, target = torch.randn(4, 3).bfloat16(), torch.arange(4)
    logits = functional.linear(x, module.linear.weight).float()
    assert module(x, target) == functional.cross_entropy(logits, target)
