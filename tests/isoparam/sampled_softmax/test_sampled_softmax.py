"""The sampled softmax: its gradients, its estimates by enumeration, TensorFlow, and its limits.

A tolerance is either 1e-12, which float64 meets with room on these small sums of terms near 1, or
derived where it stands.
"""

import itertools
import json
import math
import platform
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from isoparam.sampled_softmax import (
    CategoricalSampler,
    LogUniformSampler,
    SampledLinearCrossEntropyLoss,
    Samples,
    UniformSampler,
    UnigramSampler,
    descend,
    log_weights,
    mask_accidental_hits,
    sampled_cross_entropy,
    sampled_linear_cross_entropy,
)

WEIGHTINGS = ["importance", "stated", "tensorflow", "none"]
FIXTURE = Path(__file__).parent / "fixtures" / "tensorflow_sampled_softmax.json"
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def seeded(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def make(B=5, C=8, d=3, *, bias=True, dtype=torch.float64, seed=0, device="cpu", grad=True):
    """Features, weight, bias and targets of a random batch."""
    g = seeded(seed)
    tensors = [
        torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((B, d), (C, d), (C,))
    ]
    x, W, b = (t.to(device, dtype).requires_grad_(grad) for t in tensors)
    return x, W, b if bias else None, torch.randint(C, (B,), generator=g).to(device)


def by_hand(ids, probs, target, *, replacement=True):
    """A draw made by hand from the probabilities of all classes."""
    log_q = probs.double().log()
    ids = torch.as_tensor(ids)
    scale = math.log(ids.shape[-1]) if replacement else 0.0
    return Samples(ids, log_q[ids], log_q[ids] + scale, log_q[target] + scale)


def skewed(C):
    q = torch.arange(1, C + 1).double()
    return q / q.sum()


def gradients(loss, *leaves: Tensor | None):
    """Dense gradients, which are summed where autograd's are sparse."""
    found = torch.autograd.grad(loss, [leaf for leaf in leaves if leaf is not None])
    return [g.to_dense() if g.is_sparse else g for g in found]


def close(actual, expected, **bound: float):
    torch.testing.assert_close(actual, expected, **({"rtol": 0, "atol": 0} | bound))


def reference(x, W, target, samples, *, linear_bias=None, weighting="importance", mask_hits=True):
    """Specification of `sampled_linear_cross_entropy`: its transforms in a row, by autograd."""
    logits = functional.linear(x, W, linear_bias)  # (B, C)
    sampled_offset, target_offset = (w.to(logits) for w in log_weights(samples, weighting))
    sampled = logits.gather(1, samples.ids.expand(len(target), -1)) + sampled_offset  # (B, K)
    if mask_hits:
        sampled = mask_accidental_hits(sampled, samples.ids, target)
    return sampled_cross_entropy(logits.gather(1, target[:, None])[:, 0] + target_offset, sampled)


# ------------------------------------------------------------------ gradients


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("mask_hits", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_gradcheck(weighting, per_example, mask_hits, bias):
    x, W, b, target = make(B=4, C=5, d=2, bias=bias)
    samples = LogUniformSampler(5).sample(4, target, per_example=per_example, generator=seeded(1))

    def loss(x, W, b=None) -> Tensor:
        return sampled_linear_cross_entropy(
            x,
            W,
            target,
            samples,
            linear_bias=b,
            reduction="none",
            weighting=weighting,
            mask_hits=mask_hits,
            sparse=False,
        )

    assert torch.autograd.gradcheck(loss, (x, W, b) if bias else (x, W))


@settings(deadline=None, max_examples=150, derandomize=True, database=None)
@given(
    st.integers(1, 6),
    st.integers(1, 7),
    st.integers(1, 9),
    st.sampled_from(WEIGHTINGS),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_analytic_gradients_are_those_of_autograd(
    B, C, K, weighting, per_example, mask_hits, bias, sparse, seed
):
    x, W, b, target = make(B, C, 3, bias=bias, seed=seed)
    samples = LogUniformSampler(C).sample(
        K, target, per_example=per_example, generator=seeded(seed)
    )
    options = {"linear_bias": b, "weighting": weighting, "mask_hits": mask_hits}
    loss = sampled_linear_cross_entropy(
        x, W, target, samples, reduction="none", sparse=sparse, **options
    )
    expected = reference(x, W, target, samples, **options)
    close(loss, expected, **EXACT)
    factors = torch.linspace(0.5, 2, B, dtype=torch.float64)  # another gradient for each example
    for actual, wanted in zip(
        gradients(loss @ factors, x, W, b), gradients(expected @ factors, x, W, b), strict=True
    ):
        close(actual, wanted, **EXACT)


@pytest.mark.parametrize("needs", list(itertools.product([False, True], repeat=3))[1:])
def test_any_subset_of_gradients(needs):
    x, W, b, target = make()
    leaves = [t.requires_grad_(n) for t, n in zip((x, W, b), needs, strict=True)]
    samples = UniformSampler(8).sample(4, target, generator=seeded())
    sampled_linear_cross_entropy(x, W, target, samples, linear_bias=b).backward()
    assert [leaf.grad is not None for leaf in leaves] == list(needs)


def test_there_is_no_second_derivative():
    x, W, _, target = make()
    loss = sampled_linear_cross_entropy(x, W, target, UniformSampler(8).sample(4, target))
    # An error, since a gradient without a graph would leave a penalty on it without effect.
    with pytest.raises(
        RuntimeError,
        match=r"no second derivative; .* log_weights, mask_accidental_hits and sampled_cross",
    ):
        torch.autograd.grad(loss, x, create_graph=True)


# --------------------------------------------------- the estimates, by enumeration

C4, K2 = 4, 2
LOGITS = torch.tensor([0.3, -1.2, 0.9, 0.1], dtype=torch.float64)


def mean_denominator(make_draw, probabilities, *, mask_hits=True, target=1):
    """E[e^{loss + z_c}] over every draw of K2 ids: the mean of the estimated denominator.

    x is 1 and the weight the column of logits, so the loss is z_c's alone.
    """
    x, W, c = torch.ones(1, 1, dtype=torch.float64), LOGITS[:, None], torch.tensor([target])
    mean, mass = 0.0, 0.0
    for ids in itertools.product(range(C4), repeat=K2):
        p = math.prod(probabilities[j].item() for j in ids)
        if p == 0:
            continue
        loss = sampled_linear_cross_entropy(
            x, W, c, make_draw(torch.tensor(ids), c), mask_hits=mask_hits
        )
        mean += p * math.exp(loss.item() + LOGITS[target].item())
        mass += p
    assert mass == pytest.approx(1, rel=1e-12)
    return mean


def negatives(target=1):
    return float(LOGITS.exp().sum() - LOGITS[target].exp())


def positive(target=1):
    return math.exp(float(LOGITS[target]))


def renormalised(q, target=1):
    """q' = q / (1 - q_c), and 0 for the target."""
    q = q.clone()
    q[target] = 0
    return q / q.sum()


@pytest.mark.parametrize("target", range(C4))
def test_masked_hits_with_the_original_q_are_unbiased(target):
    q = skewed(C4)
    mean = mean_denominator(lambda ids, c: by_hand(ids, q, c), q, target=target)
    assert (mean - positive(target)) / negatives(target) == pytest.approx(1, rel=1e-12)


def renormalised_draw(ids, c, q, count):
    """Weights 1 / (count q'_j), with any finite number for the masked target."""
    log_q = torch.where(ids == c, 0.0, renormalised(q).clamp_min(1e-300).log()[ids])
    return Samples(ids, log_q, log_q + math.log(count), torch.zeros(1, dtype=torch.float64))


def test_masked_hits_with_the_renormalised_q_and_the_remaining_count_are_unbiased():
    # Given that a draw is not all hits: with none left there is nothing to average over.
    q = skewed(C4)
    all_hits = q[1].item() ** K2

    def draw(ids, c) -> Samples:
        return renormalised_draw(ids, c, q, max(1, int((ids != c).sum())))

    mean = mean_denominator(draw, q)  # an all-hit draw adds e^{z_c} alone
    ratio = (mean - positive()) / negatives() / (1 - all_hits)
    assert ratio == pytest.approx(1, rel=1e-12)


def test_the_renormalised_q_drawn_directly_is_unbiased():
    q = renormalised(skewed(C4))
    mean = mean_denominator(lambda ids, c: renormalised_draw(ids, c, skewed(C4), K2), q)
    assert (mean - positive()) / negatives() == pytest.approx(1, rel=1e-12)


def test_uniform_samples_without_replacement_are_unbiased():
    # Every pair of classes is as likely as any other, and holds a class with probability 2 / 4.
    sampler = UniformSampler(C4, replacement=False)
    drawn = sampler.sample(K2, torch.tensor([1]), generator=seeded())
    assert drawn.log_expected_counts.exp().tolist() == pytest.approx([K2 / C4] * 2, rel=1e-15)
    x, W, c = torch.ones(1, 1, dtype=torch.float64), LOGITS[:, None], torch.tensor([1])
    pairs = list(itertools.combinations(range(C4), K2))
    losses = [
        sampled_linear_cross_entropy(x, W, c, drawn._replace(ids=torch.tensor(ids)))
        for ids in pairs
    ]
    mean = math.fsum(math.exp(loss.item()) for loss in losses) / len(pairs) * positive()
    assert (mean - positive()) / negatives() == pytest.approx(1, rel=1e-12)


def test_mixing_the_conventions_loses_the_targets_share():
    q = skewed(C4)
    mean = mean_denominator(lambda ids, c: renormalised_draw(ids, c, q, K2), q)
    assert (mean - positive()) / negatives() == pytest.approx(1 - q[1].item(), rel=1e-12)


def test_kept_hits_count_the_target_twice():
    q = skewed(C4)
    mean = mean_denominator(lambda ids, c: by_hand(ids, q, c), q, mask_hits=False)
    assert mean == pytest.approx(float(LOGITS.exp().sum()) + positive(), rel=1e-12)


def test_the_loss_itself_is_biased_low():
    # Jensen: the mean of log(denominator) is below the log of the mean.
    q, c = skewed(C4), torch.tensor([1])
    x, W = torch.ones(1, 1, dtype=torch.float64), LOGITS[:, None]
    mean = sum(
        math.prod(q[j].item() for j in ids)
        * sampled_linear_cross_entropy(x, W, c, by_hand(torch.tensor(ids), q, c)).item()
        for ids in itertools.product(range(C4), repeat=K2)
    )
    assert mean < functional.cross_entropy(LOGITS[None], c).item() - 0.01


@pytest.mark.parametrize("K", [1, 3, 11, 19])
@pytest.mark.parametrize("sampler", [UniformSampler, LogUniformSampler, "unigram"])
def test_without_replacement_the_denominator_is_unbiased(sampler, K):
    C, n = 20, 20_000
    if sampler == "unigram":
        sampler = UnigramSampler(torch.arange(1, C + 1) ** 2, replacement=False)
    else:
        sampler = sampler(C, replacement=False)
    z = torch.linspace(-2, 1, C, dtype=torch.float64).roll(7)
    target = torch.full((n,), 4)
    draw = sampler.sample(K, target, per_example=True, generator=seeded(K))
    x, W = torch.ones(n, 1, dtype=torch.float64), z[:, None]
    loss = sampled_linear_cross_entropy(x, W, target, draw, reduction="none")
    denominators = (loss + z[4]).exp()  # (n,) independent estimates
    # Five standard errors of their mean: a correct estimator fails for one seed in two million.
    margin = 5 * float(denominators.std()) / math.sqrt(n)
    assert abs(float(denominators.mean() - z.exp().sum())) < margin


# ------------------------------------------------------------ the full softmax as a limit


@pytest.mark.parametrize("sampler", [UniformSampler, LogUniformSampler])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("per_example", [False, True])
def test_all_classes_once_are_the_full_softmax(sampler, bias, per_example):
    x, W, b, target = make(B=6, C=9, bias=bias)
    samples = sampler(9, replacement=False).sample(
        9, target, per_example=per_example, generator=seeded()
    )
    loss = sampled_linear_cross_entropy(x, W, target, samples, linear_bias=b)
    full = functional.cross_entropy(functional.linear(x, W, b), target)
    close(loss, full, **EXACT)
    for actual, expected in zip(gradients(loss, x, W, b), gradients(full, x, W, b), strict=True):
        close(actual, expected, **EXACT)


def test_many_samples_tend_to_the_full_softmax():
    B, C, K = 4, 7, 400_000
    x, W, b, target = make(B, C, 3)
    samples = LogUniformSampler(C).sample(K, target, generator=seeded())
    loss = sampled_linear_cross_entropy(x, W, target, samples, linear_bias=b, reduction="none")
    logits = functional.linear(x, W, b)
    full = functional.cross_entropy(logits, target, reduction="none")
    # The estimated sum S of the negatives has the relative variance
    # (sum_j e^{2 z_j} / q_j / S^2 - 1) / K. The loss moves by at most the relative error of S, and
    # P_bj (1 + ...) by at most its own and that of S.
    q = LogUniformSampler(C).log_probs(torch.arange(C)).exp()
    e = logits.detach().exp().scatter(1, target[:, None], 0.0)
    relative = ((e**2 / q).sum(1) / e.sum(1) ** 2 - 1).div(K).sqrt().max().item()
    close(loss, full, rtol=0, atol=5 * relative)
    # Each probability p_j has a relative error below that of its own count, 1 / sqrt(K q_j), plus
    # that of the sum; the gradients are sums over at most B or C of them times entries of x or W.
    entry = 5 * (relative + 1 / math.sqrt(K * q.min().item()))
    scale = max(float(t.detach().abs().max()) for t in (x, W)) * max(B, C)
    for actual, expected in zip(
        gradients(loss.sum(), x, W, b), gradients(full.sum(), x, W, b), strict=True
    ):
        close(actual, expected, rtol=0, atol=entry * scale)


def test_tensorflows_weighting_has_no_limit():
    x, W, b, target = make(4, 7, 3, grad=False)
    full = functional.cross_entropy(functional.linear(x, W, b), target)
    losses = {
        weighting: [
            sampled_linear_cross_entropy(
                x,
                W,
                target,
                UniformSampler(7).sample(K, target, generator=seeded()),
                linear_bias=b,
                weighting=weighting,
            ).item()
            for K in (100, 10_000)
        ]
        for weighting in ("importance", "tensorflow")
    }
    # The true logit loses log(K / C): the loss grows by log(100) less what the target still holds.
    assert losses["tensorflow"][1] - losses["tensorflow"][0] > 2
    assert abs(losses["importance"][1] - full.item()) < 0.1


# ------------------------------------------------------------------- the stated formula


@pytest.mark.parametrize("per_example", [False, True])
def test_the_stated_formula_word_for_word(per_example):
    # p~_c = e^{z_c} / (e^{z_c} + (1/K) sum_{j in S} q_j e^{z_j}), c excluded from S
    B, C, K = 5, 8, 6
    x, W, b, _ = make(B, C, 3, grad=False)
    target = torch.tensor([0, 1, 0, 1, 0])
    q = skewed(C)
    ids = torch.randint(2, C, (B, K) if per_example else (K,), generator=seeded(3))
    loss = sampled_linear_cross_entropy(
        x, W, target, by_hand(ids, q, target), linear_bias=b, reduction="none", weighting="stated"
    )
    for n in range(B):
        S, c = (ids[n] if per_example else ids).tolist(), int(target[n])
        z = [math.fsum((W[j] * x[n]).tolist()) + float(b[j]) for j in range(C)]
        p = math.exp(z[c]) / (
            math.exp(z[c]) + (1 / K) * math.fsum(float(q[j]) * math.exp(z[j]) for j in S)
        )
        assert loss[n].item() == pytest.approx(-math.log(p), rel=1e-12)


def test_the_stated_weights_all_but_remove_the_negatives():
    C, K, B = 1000, 100, 2
    x, W, target = torch.zeros(B, 1), torch.zeros(C, 1), torch.tensor([0, 1])
    samples = by_hand(torch.arange(2, 2 + K), torch.full((C,), 1 / C), target)
    stated, importance = (
        sampled_linear_cross_entropy(x, W, target, samples, weighting=w).item()
        for w in ("stated", "importance")
    )
    # The negatives' mass is 1 / C instead of C, in float32.
    assert stated == pytest.approx(math.log1p(1 / C), rel=1e-6)
    assert importance == pytest.approx(math.log1p(C), rel=1e-6)


# ------------------------------------------------------------- TensorFlow as an oracle


def fixture_cases():
    content = json.loads(FIXTURE.read_text())
    for i, problem in enumerate(content["problems"]):
        for case in problem["cases"]:
            hits = "masked" if case["mask_hits"] else "kept"
            yield pytest.param(problem, case, id=f"{i}-{case['weighting']}-{hits}")


def weights_as_tensorflow(samples, weighting, target):
    """TensorFlow masks one position for each (row, id): the last, since a map holds one.

    Its accidental hits are collected in a map id -> position, so of several draws of the target
    only the last is taken out of the denominator, and the loss is too large. What it computes is
    our loss of kept hits after the last hit of each row has been moved out of the way.
    """
    sampled, _ = log_weights(samples, weighting)
    offsets = sampled.expand(len(target), -1).clone()
    for row, c in enumerate(target.tolist()):
        hits = (samples.ids == c).nonzero()[:, 0].tolist()
        if hits:
            offsets[row, hits[-1]] = -math.inf
    return offsets


def tensorflow_defect(x, W, b, target, samples, weighting):
    logits = functional.linear(x, W, b)
    sampled = logits[:, samples.ids] + weights_as_tensorflow(samples, weighting, target)
    true = logits.gather(1, target[:, None]) + log_weights(samples, weighting)[1][:, None]
    return functional.cross_entropy(
        torch.cat([true, sampled], 1), torch.zeros(len(target), dtype=torch.int64), reduction="none"
    )


@pytest.mark.parametrize(("problem", "case"), list(fixture_cases()))
def test_tensorflow_as_an_outside_oracle(problem, case):
    x, W, b = (
        torch.tensor(problem[k], dtype=torch.float64, requires_grad=True)
        for k in ("input", "weight", "bias")
    )
    target, ids = torch.tensor(problem["target"]), torch.tensor(problem["ids"])
    samplers = {"uniform": UniformSampler, "log_uniform": LogUniformSampler}
    sampler = samplers[problem["sampler"]](len(W))
    counts, true_counts = (
        torch.tensor(problem[k], dtype=torch.float64) for k in ("sampled_counts", "true_counts")
    )
    # TensorFlow's expected counts: what it reports for drawing without replacement is a few per
    # cent off, but it is what its loss reads.
    samples = Samples(ids, sampler.log_probs(ids), counts.log(), true_counts.log())
    if not problem["unique"]:
        # Its figures are float32, its probabilities computed in float32: a few units of 6e-8.
        expected = sampler.log_probs(ids) + math.log(len(ids))
        close(counts.log(), expected, rtol=0, atol=1e-6)
    options = {"weighting": case["weighting"], "mask_hits": case["mask_hits"]}
    ours = sampled_linear_cross_entropy(
        x, W, target, samples, linear_bias=b, reduction="none", **options
    )
    duplicate_hit = case["mask_hits"] and any((ids == c).sum() > 1 for c in target)
    if duplicate_hit:
        loss = tensorflow_defect(x, W, b, target, samples, case["weighting"])
        row = next(n for n, c in enumerate(target) if (ids == c).sum() > 1)
        assert case["loss"][row] > ours[row].item() + 1e-4  # the hits that survive
    else:
        loss = ours
    expected = [torch.tensor(case[k]).double() for k in ("grad_input", "grad_weight", "grad_bias")]
    # TensorFlow computes in float32. A logit below 8 in size is off by some 8 roundings of 8 u,
    # with u = 6e-8, that is 4e-6; the loss by twice that; a gradient is a sum of up to B = 3
    # probabilities (each off by 8e-6 at most) times entries below 3.
    close(loss, torch.tensor(case["loss"]).double(), rtol=0, atol=1e-5)
    for actual, wanted in zip(gradients(loss.sum(), x, W, b), expected, strict=True):
        close(actual, wanted, rtol=0, atol=1e-4)


def test_the_fixture_covers_what_it_should():
    problems = json.loads(FIXTURE.read_text())["problems"]
    assert sum(len(p["cases"]) for p in problems) >= 60
    hits = [[p["ids"].count(c) for c in p["target"]] for p in problems]
    assert any(max(h) == 0 for h in hits)
    assert any(max(h) == 1 for h in hits)
    assert any(max(h) > 1 for h in hits)
    assert {(p["sampler"], p["unique"]) for p in problems} == set(
        itertools.product(["uniform", "log_uniform"], [False, True])
    )


def test_all_duplicates_of_a_hit_are_masked():
    x, W, b, _ = make(B=1, C=5)
    target = torch.tensor([2])
    q = skewed(5)
    with_hits, without = (
        sampled_linear_cross_entropy(
            x, W, target, by_hand(ids, q, target), linear_bias=b, weighting="none"
        )
        for ids in ([2, 1, 2, 3, 2], [1, 3])
    )
    close(with_hits, without, **EXACT)
    masked = mask_accidental_hits(torch.zeros(2, 3), torch.tensor([1, 0, 1]), torch.tensor([1, 4]))
    assert masked.isneginf().tolist() == [[True, False, True], [False] * 3]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_hits_are_found_as_by_comparing_all_with_all(data):
    B, K, P, C = (data.draw(st.integers(0, most)) for most in (4, 6, 4, 3))
    ids, classes = (
        torch.tensor(data.draw(st.lists(st.integers(-1, C), min_size=n, max_size=n))).long()
        for n in (K, B * P)
    )
    expected = (ids[None, :, None] == classes.view(B, 1, P)).any(2)  # (B, K)
    for shape in ((K,), (B, K)):
        masked = mask_accidental_hits(torch.zeros(B, K), ids.expand(shape), classes.view(B, P))
        assert torch.equal(masked.isneginf(), expected)


# ------------------------------------------------------------------------- extremes


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("per_example", [False, True])
def test_logits_of_1e5(dtype, sign, per_example):
    # z_c = sign 1e5 and z_j = -z_c: the loss is 0 or 2e5 (rounded to bfloat16: 1e5 is 99840).
    W = torch.tensor([[1.0], [-1.0], [-1.0]], dtype=dtype, requires_grad=True)
    x = torch.tensor([[sign * 1e5]], dtype=dtype, requires_grad=True)
    target = torch.tensor([0])
    ids = torch.tensor([[1, 2]]) if per_example else torch.tensor([1, 2])
    samples = by_hand(ids, torch.full((3,), 1 / 3), target)
    loss = sampled_linear_cross_entropy(x, W, target, samples, weighting="none")
    expected = 0.0 if sign > 0 else -2 * x.item() + math.log(2)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    for g in gradients(loss, x, W):
        assert bool(g.isfinite().all())


@pytest.mark.parametrize("per_example", [False, True])
def test_rows_whose_samples_are_all_hits(per_example):
    x, W, b, _ = make(B=3, C=4)
    target = torch.tensor([1, 2, 1])
    ids = torch.tensor([1, 1])
    samples = by_hand(ids.expand(3, 2).clone() if per_example else ids, skewed(4), target)
    loss = sampled_linear_cross_entropy(x, W, target, samples, linear_bias=b, reduction="none")
    assert loss[0] == loss[2] == 0
    assert loss[1] > 0
    gx, gW, gb = gradients(loss.sum(), x, W, b)
    assert not gx[[0, 2]].any()
    assert not gW[[0, 3]].any()
    assert all(bool(g.isfinite().all()) for g in (gx, gW, gb))
    close(loss, reference(x, W, target, samples, linear_bias=b), **EXACT)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-13), (torch.float32, 4e-6)])
@pytest.mark.parametrize("margin", [18.0, 50.0, 80.0])
def test_large_margins_keep_their_loss(dtype, rtol, margin):
    # log(1 + e^{-margin}), where float32 cross-entropy rounds to 0 from a margin of 17 on. The
    # margin, below 128, is off by at most half a unit of 2^-17 = 8e-6 in float32.
    W = torch.tensor([[1.0], [0.0]], dtype=dtype, requires_grad=True)
    x = torch.tensor([[margin]], dtype=dtype, requires_grad=True)
    target = torch.tensor([0])
    samples = by_hand([1], torch.tensor([0.5, 0.5]), target)
    loss = sampled_linear_cross_entropy(x, W, target, samples, weighting="none")
    assert loss.item() == pytest.approx(math.log1p(math.exp(-margin)), rel=rtol)
    gx, gW = gradients(loss, x, W)
    miss = math.exp(-margin) / (1 + math.exp(-margin))
    assert gx.item() == pytest.approx(-miss, rel=rtol)
    assert gW[:, 0].tolist() == pytest.approx([-margin * miss, margin * miss], rel=rtol)
    if dtype == torch.float32:
        assert functional.cross_entropy(functional.linear(x, W), target).item() == 0


def test_a_weight_of_a_million_classes_and_tiny_probabilities():
    q = torch.full((3,), 1e-30, dtype=torch.float64)
    x, W, _, target = make(B=2, C=3, dtype=torch.float32)
    samples = by_hand([0, 1, 2], q, target)
    assert sampled_linear_cross_entropy(x, W, target, samples).item() == pytest.approx(69, abs=9)


# ------------------------------------------------------------- reductions, options, dtypes


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("ignore_index", [None, -100, 3, -1])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_reductions_and_ignored_examples(reduction, ignore_index, bias):
    x, W, b, target = make(B=6, C=8, bias=bias)
    target = torch.tensor([0, 7, 2, 5, 4, 1])
    target[[1, 4]] = -100 if ignore_index is None else ignore_index
    samples = UniformSampler(8, replacement=False).sample(8, target, generator=seeded())
    loss = sampled_linear_cross_entropy(
        x, W, target, samples, linear_bias=b, reduction=reduction, ignore_index=ignore_index
    )
    ignored = -100 if ignore_index is None else ignore_index
    full = functional.cross_entropy(
        functional.linear(x, W, b), target, reduction=reduction, ignore_index=ignored
    )
    close(loss, full, **EXACT)
    for actual, expected in zip(
        gradients(loss.sum(), x, W, b), gradients(full.sum(), x, W, b), strict=True
    ):
        close(actual, expected, **EXACT)


def test_an_ignored_example_touches_no_other_row():
    x, W, _, _ = make(B=2, C=8)
    target = torch.tensor([-100, 3])
    samples = by_hand([5, 6], skewed(8), target.clamp(min=0))
    sampled_linear_cross_entropy(x, W, target, samples).backward()
    assert set(W.grad._indices()[0].tolist()) == {3, 5, 6}


def test_nothing_but_ignored_examples_is_as_in_torch():
    x, W, _, _ = make(B=2, C=8)
    target = torch.tensor([-100, -100])
    samples = UniformSampler(8).sample(3, target)
    total, mean = (
        sampled_linear_cross_entropy(x, W, target, samples, reduction=r) for r in ("sum", "mean")
    )
    assert total == 0
    assert mean.isnan()  # 0 / 0, as `cross_entropy` has it


def test_an_empty_batch():
    x, W, _, target = make(B=0, C=8)
    samples = UniformSampler(8).sample(3, target)
    loss = sampled_linear_cross_entropy(x, W, target, samples, reduction="none")
    assert loss.shape == (0,)
    gx, gW = gradients(loss.sum(), x, W)
    assert gx.shape == x.shape
    assert not gW.any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("per_example", [False, True])
def test_half_inputs_accumulate_in_float32(device, dtype, per_example):
    B, C, d, K = 16, 50, 64, 30
    x, W, b, target = make(B, C, d, dtype=dtype, device=device)
    samples = LogUniformSampler(C).sample(
        K, target, per_example=per_example, generator=seeded(0, device)
    )
    loss = sampled_linear_cross_entropy(x, W, target, samples, linear_bias=b)
    wide = [t.detach().double().requires_grad_() for t in (x, W, b)]
    exact = sampled_linear_cross_entropy(wide[0], wide[1], target, samples, linear_bias=wide[2])
    assert loss.dtype == torch.float32
    # A sum of d products of float32, each below |z|max: d + 8 roundings of 2^-24 of at most
    # sum_i |x_i w_i|, in each of two logits of the margin.
    size = float((wide[0].abs() @ wide[1].abs().T).detach().max())
    atol = 2 * (d + 8) * size * 2**-24
    close(loss.double(), exact, rtol=0, atol=atol)
    for actual, expected in zip(gradients(loss, x, W, b), gradients(exact, *wide), strict=True):
        assert actual.dtype == dtype
        # A gradient is rounded once to its dtype, after errors of the probabilities as above.
        bound = torch.finfo(dtype).eps / 2 * float(expected.abs().max()) + 20 * atol
        close(actual.double(), expected, rtol=0, atol=bound)


# --------------------------------------------------------- cost: nothing of size C but the weight


class OutputSizes(TorchDispatchMode):
    """Remembers the elements that each operation newly lays out, the largest first."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> object:
        result = func(*args, **(kwargs or {}))
        taken = {
            t.untyped_storage().data_ptr()
            for t in torch.utils._pytree.tree_leaves((args, kwargs))
            if isinstance(t, torch.Tensor) and t.layout == torch.strided
        }
        for t in torch.utils._pytree.tree_leaves(result):
            if isinstance(t, torch.Tensor):
                strided = t._values() if t.is_sparse else t
                if strided.untyped_storage().data_ptr() not in taken:
                    self.sizes.append(strided.numel())
        return result


def step_sizes(C, optimizer, *, per_example=False, sparse=True):
    B, K, d = 8, 16, 16  # so that d exceeds B, and the rows are the largest of all
    x = torch.randn(B, d, generator=seeded(), requires_grad=True)
    W = torch.zeros(C, d).requires_grad_()
    b = torch.zeros(C).requires_grad_()
    optimizer = optimizer([W, b], lr=0.1)
    sampler = LogUniformSampler(C)
    target = torch.arange(B)

    def step(seed) -> int:
        samples = sampler.sample(K, target, per_example=per_example, generator=seeded(seed))
        loss = sampled_linear_cross_entropy(x, W, target, samples, linear_bias=b, sparse=sparse)
        loss.backward()
        optimizer.step()
        rows = W.grad._nnz() if sparse else C
        optimizer.zero_grad()
        return rows

    step(0)  # the optimizer's state is of size C, and laid out once
    with OutputSizes() as recorded:
        rows = step(1)
    return rows, max(recorded.sizes)


# Adagrad builds its own sparse tensors without saying whether to check them.
quiet = pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")
OPTIMIZERS = [torch.optim.SGD, torch.optim.Adagrad, torch.optim.SparseAdam]


@quiet
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("per_example", [False, True])
def test_a_step_lays_out_nothing_of_the_size_of_the_weight(optimizer, per_example):
    B, K, d = 8, 16, 16  # so that d exceeds B, and the rows are the largest of all
    n = (B * K if per_example else K) + B
    for C in (10_000, 1_000_000):
        rows, largest = step_sizes(C, optimizer, per_example=per_example)
        assert rows == n
        assert largest <= n * d


def test_the_recorder_sees_a_dense_gradient():
    assert step_sizes(10_000, torch.optim.SGD, sparse=False)[1] >= 10_000


# ---------------------------------------------------------------------------- optimizers


FAULTS = """
import resource, torch
from isoparam.sampled_softmax import (
    UniformSampler, descend, keep_freed_blocks, sampled_linear_cross_entropy
)

torch.set_num_threads(1)
keep_freed_blocks()
C, d, B, K = 10_000, 512, 256, 1024
x, W = torch.ones(B, d, requires_grad=True), torch.zeros(C, d, requires_grad=True)
sampler, target, seen = UniformSampler(C), torch.arange(B), []
for _ in range(30):
    sampled_linear_cross_entropy(x, W, target, sampler.sample(K, target)).backward()
    descend(W, 0.1)
    x.grad = None
    seen.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print((seen[-1] - seen[9]) / 20)
"""
# How many of two blocks of 29 MiB, before and after, come from the kernel and not from the heap.
BLOCKS = """
import ctypes, torch
from isoparam.sampled_softmax import keep_freed_blocks

class Information(ctypes.Structure):
    _fields_ = [(f"number_{i}", ctypes.c_size_t) for i in range(10)]  # hblks is the fourth

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype, held = Information, []

def from_the_kernel():
    before = mallinfo().number_3
    held.append(torch.empty(29 << 20, dtype=torch.uint8))
    return mallinfo().number_3 - before

print(from_the_kernel(), KEEP, from_the_kernel())
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")


@glibc
def test_a_step_reuses_its_memory_where_it_is_kept(side_by_side):
    (faults,) = side_by_side(FAULTS, [])
    assert float(faults) < (256 + 1024) * 512 * 4 / 4096 / 4  # pages of the rows that it gathers


@glibc
def test_freed_blocks_are_kept_on_demand_and_not_by_an_import(side_by_side):
    (found,) = side_by_side(BLOCKS.replace("KEEP", "keep_freed_blocks()"), [])
    assert found.split() == ["1", "None", "0"]


def test_descend_is_a_step_of_sgd_and_adds_up_repeats():
    x, target = torch.randn(4, 8, generator=seeded()), torch.tensor([0, 3, 3, 9])
    samples = UniformSampler(10).sample(30, target, generator=seeded())
    results = []
    for own in (False, True):
        W = torch.zeros(10, 8, dtype=x.dtype, requires_grad=True)
        b = torch.zeros(10, dtype=x.dtype, requires_grad=True)
        optimizer = torch.optim.SGD([W, b], lr=0.5)
        sampled_linear_cross_entropy(x, W, target, samples, linear_bias=b).backward()
        if own:
            descend(W, 0.5)
            descend(b, 0.5)
            assert W.grad is None
            assert b.grad is None
        else:
            optimizer.step()
        results.append(torch.cat([W.detach(), b.detach()[:, None]], 1))
    assert results[0].any()
    close(*results, atol=1e-6)


def test_descend_refuses_what_is_not_sparse():
    W = torch.zeros(3, 2, requires_grad=True)
    with pytest.raises(ValueError, match=r"weight.grad must be sparse, got None"):
        descend(W, 0.1)
    W.sum().backward()
    with pytest.raises(ValueError, match=r"must be sparse, got torch.strided"):
        descend(W, 0.1)


@quiet
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("bias", [False, True])
def test_a_sparse_step_equals_the_dense_step(optimizer, bias):
    x, W, b, target = make(C=8, bias=bias)
    samples = by_hand([1, 1, 5, 0, 5], skewed(8), target)  # repeats: gradients must be summed
    results = []
    for sparse in (True, False):
        leaves = [t.detach().clone().requires_grad_() for t in (W, b) if t is not None]
        # The first step of SparseAdam is Adam's on the rows of the gradient, and Adam leaves rows
        # without a gradient alone in the first step.
        kind = torch.optim.Adam if optimizer is torch.optim.SparseAdam and not sparse else optimizer
        # Their eps, 1e-8, stands at different places, so nearly none of it is left here.
        eps = {} if optimizer is torch.optim.SGD else {"eps": 1e-30}
        steps = kind(leaves, lr=0.1, **eps)
        for _ in range(1 if optimizer is torch.optim.SparseAdam else 3):
            steps.zero_grad()
            sampled_linear_cross_entropy(
                x,
                leaves[0],
                target,
                samples,
                linear_bias=leaves[1] if bias else None,
                sparse=sparse,
            ).backward()
            steps.step()
        results.append(leaves)
    for actual, expected in zip(*results, strict=True):
        # Adam and Adagrad divide the gradient by its own size: a step of 0.1 carries the relative
        # error of an entry, 1e-15 over its size, which is above 1e-5 here.
        close(actual, expected, rtol=0, atol=1e-10)
    assert not torch.equal(results[0][0], W)


def test_momentum_is_that_of_dense_gradients():
    x, W, _, target = make(C=8)
    results = []
    for sparse in (True, False):
        leaf = W.detach().clone().requires_grad_()
        steps = torch.optim.SGD([leaf], lr=0.1, momentum=0.9)
        for seed in range(4):
            samples = UniformSampler(8).sample(3, target, generator=seeded(seed))
            steps.zero_grad()
            sampled_linear_cross_entropy(x, leaf, target, samples, sparse=sparse).backward()
            steps.step()
        results.append(leaf.detach())
    close(*results, **EXACT)


@pytest.mark.skipif(torch.__version__ < (2, 14), reason="this torch has no such norm")
def test_clipping_by_norm_works_on_sparse_gradients():
    x, W, _, target = make(C=8)
    samples = by_hand([1, 1, 5], skewed(8), target)
    dense = gradients(sampled_linear_cross_entropy(x, W, target, samples), W)[0]
    sampled_linear_cross_entropy(x, W, target, samples).backward()
    norm = torch.nn.utils.clip_grad_norm_([W], 0.1)
    close(norm, dense.norm(), **EXACT)
    close(W.grad.to_dense(), dense * 0.1 / (norm + 1e-6), **EXACT)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (torch.optim.Adam, "does not support sparse"),
        (torch.optim.AdamW, "does not support sparse"),
        (torch.optim.RMSprop, "does not support sparse"),
        (lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1), None),
        (lambda p: torch.optim.Adagrad(p, weight_decay=0.1), "weight_decay .* sparse"),
        (lambda p: torch.optim.SGD(p, lr=0.1, fused=True), None),
        (lambda p: torch.optim.Adagrad(p, fused=True), None),
    ],
)
def test_optimizers_that_cannot_raise_and_dense_gradients_serve_them(build, message):
    x, W, _, target = make(C=8, dtype=torch.float32)
    samples = UniformSampler(8).sample(3, target, generator=seeded())
    optimizer = build([W])
    sampled_linear_cross_entropy(x, W, target, samples).backward()
    with pytest.raises(RuntimeError, match=message):
        optimizer.step()
    optimizer.zero_grad()
    before = W.detach().clone()
    sampled_linear_cross_entropy(x, W, target, samples, sparse=False).backward()
    optimizer.step()
    assert not torch.equal(before, W)


# ------------------------------------------------------------------------------ the module


@pytest.mark.parametrize("bias", [False, True])
def test_the_module_samples_in_training_and_is_exact_in_evaluation(bias):
    torch.manual_seed(0)
    module = SampledLinearCrossEntropyLoss(3, 30, num_samples=4, bias=bias, dtype=torch.float64)
    x, _, _, target = make(B=6, C=30)
    logits = functional.linear(x, module.linear.weight, module.linear.bias)
    exact = functional.cross_entropy(logits, target)
    first, again, other = (module(x, target, generator=seeded(s)) for s in (1, 1, 2))
    assert first == again
    assert first != other
    assert first != exact
    samples = module.sampler.sample(4, target, generator=seeded(1))
    assert module(x, target, samples=samples) == first
    module.eval()
    close(module(x, target), exact, **EXACT)
    close(module(x, target, samples=samples), exact, **EXACT)
    close(module.log_prob(x), logits.log_softmax(1), **EXACT)
    close(module.log_prob(x).exp().sum(1), torch.ones(6, dtype=torch.float64), **EXACT)
    assert torch.equal(module.predict(x), logits.argmax(1))
    assert module.linear.weight.shape == (30, 3)
    assert [n for n, _ in module.named_parameters()] == ["linear.weight"] + ["linear.bias"] * bias


def test_the_modules_options_reach_the_loss():
    x, _, _, target = make(B=4, C=9, dtype=torch.float32)
    target[0] = 5
    options = {"weighting": "tensorflow", "mask_hits": False, "reduction": "sum", "ignore_index": 5}
    sampler = LogUniformSampler(9)
    module = SampledLinearCrossEntropyLoss(
        3, 9, num_samples=6, sampler=sampler, per_example=True, sparse=False, **options
    )
    loss = module(x, target, generator=seeded())
    samples = sampler.sample(6, target, per_example=True, generator=seeded())
    expected = sampled_linear_cross_entropy(x, module.linear.weight, target, samples, **options)
    close(loss, expected)
    loss.backward()
    assert module.linear.weight.grad.layout == torch.strided
    assert "num_samples=6, sampler=LogUniformSampler(num_classes=9, " in repr(module)
    exact = functional.cross_entropy(module.linear(x), target, reduction="sum", ignore_index=5)
    close(module.eval()(x, target), exact)


def test_half_precision_evaluation_is_in_float32():
    module = SampledLinearCrossEntropyLoss(3, 9, num_samples=2, dtype=torch.bfloat16).eval()
    x = torch.ones(2, 3, dtype=torch.bfloat16)
    assert module(x, torch.tensor([1, 2])).dtype == torch.float32
    assert module.log_prob(x).dtype == torch.float32


def test_the_module_learns():
    # Sixty-four classes, four samples: after training, the exact loss is near 0.
    torch.manual_seed(0)
    module = SampledLinearCrossEntropyLoss(16, 64, num_samples=4)
    x = functional.normalize(torch.randn(64, 16, generator=seeded()))
    target, generator = torch.arange(64), seeded()
    optimizer = torch.optim.SGD(module.parameters(), lr=100.0)
    for _ in range(600):
        optimizer.zero_grad()
        module(x, target, generator=generator).backward()
        optimizer.step()
    module.eval()
    assert module(x, target).item() < 0.5
    assert torch.equal(module.predict(x), target)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_gpu_agrees(per_example, weighting):
    x, W, b, target = make(device="cuda")
    samples = UnigramSampler(torch.arange(1, 9)).sample(
        20, target, per_example=per_example, generator=seeded(0, "cuda")
    )
    loss = sampled_linear_cross_entropy(x, W, target, samples, linear_bias=b, weighting=weighting)
    cpu = [t.detach().cpu().requires_grad_() for t in (x, W, b)]
    expected = sampled_linear_cross_entropy(
        cpu[0],
        cpu[1],
        target.cpu(),
        Samples(*(t.cpu() for t in samples)),
        linear_bias=cpu[2],
        weighting=weighting,
    )
    close(loss.cpu(), expected, **EXACT)
    for actual, wanted in zip(gradients(loss, x, W, b), gradients(expected, *cpu), strict=True):
        close(actual.cpu(), wanted, **EXACT)
    before = W.detach().clone()
    sampled_linear_cross_entropy(x, W, target, samples, weighting=weighting).backward()
    torch.optim.SGD([W], lr=0.1).step()
    assert not torch.equal(before, W)


# ------------------------------------------------------------------------------- bad input


def call(**changes: object):
    """A valid call with some of its arguments changed."""
    x, W, b, target = make(B=2, C=5, d=3, dtype=torch.float32, grad=changes.pop("grad", True))
    samples = UniformSampler(5).sample(4, target, generator=seeded())
    draw = {k: changes.pop(k) for k in list(changes) if k in Samples._fields}
    arguments = {
        "input": x,
        "linear_weight": W,
        "linear_bias": b,
        "target": target,
        "samples": samples._replace(**draw),
    }
    return sampled_linear_cross_entropy(**(arguments | changes))


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reduction": "avg"}, "reduction must be one of ('mean', 'sum', 'none'), got 'avg'"),
        ({"weighting": "q"}, "weighting must be one of .*, got 'q'"),
        ({"input": torch.ones(2, 3).long()}, "input must be floating point .* torch.int64"),
        (
            {"linear_weight": torch.ones(5, 4)},
            r"linear_weight must have shape \(5, 3\) .* \(5, 4\)",
        ),
        ({"linear_weight": torch.tensor(1.0)}, r"linear_weight must have shape \(1, 3\) .* \(\)"),
        ({"log_probs": torch.ones(4).long()}, "samples.log_probs must be floating .* torch.int64"),
        ({"linear_weight": torch.ones(5)}, r"linear_weight must have shape \(5, 3\) .* \(5,\)"),
        ({"linear_bias": torch.ones(4)}, r"linear_bias must have shape \(5,\) .* \(4,\)"),
        ({"target": torch.tensor([1])}, r"target must have shape \(2,\) .* \(1,\)"),
        (
            {"target": torch.tensor([1.0, 2.0])},
            "target must be of an integer dtype, got torch.float",
        ),
        (
            {"target": torch.tensor([True, False])},
            "target must be of an integer dtype, got torch.b",
        ),
        ({"counts": torch.ones(3).long()}, r"samples.counts must have one of the .* \(3,\)"),
        (
            {"counts": torch.ones(4)},
            "samples.counts must be of an integer dtype, got torch.float32",
        ),
        ({"weight": torch.ones(4)}, r"weight must be .* of shape \(5,\), got .* of shape \(4,\)"),
        ({"weight": torch.ones(5).long()}, r"weight must be floating point .* got torch.int64"),
        (
            {"weight": torch.ones(5, device="meta")},
            "weight must be on the device .*, cpu, got meta",
        ),
        ({"positives": torch.ones(2).long()}, r"positives must have shape \(2, 'P'\) .* \(2,\)"),
        ({"positives": torch.ones(3, 1).long()}, r"positives must have shape .* got \(3, 1\)"),
        (
            {"positives": torch.ones(2, 1)},
            "positives must be of an integer dtype, got torch.float32",
        ),
        ({"positives": torch.ones(2, 1, device="meta").long()}, "positives must be on the device"),
        ({"target": torch.tensor([1, 5])}, r"target must be in \[0, 5\), got 5; mark"),
        ({"target": torch.tensor([-1, 2])}, r"target must be in \[0, 5\), got -1; mark"),
        (
            {"linear_weight": torch.ones(5, 3, dtype=torch.float64)},
            "linear_weight must be torch.float32 beside input torch.float32, got torch.float64; c",
        ),
        (
            {"linear_bias": torch.ones(5).half()},
            "linear_bias must be torch.float32 .* got torch.float16",
        ),
        (
            {"linear_weight": torch.ones(5, 3, device="meta")},
            "linear_weight must be on the device of input, cpu, got meta; move",
        ),
        ({"target": torch.ones(2, device="meta").long()}, "target must be on the device of input"),
        ({"ids": torch.ones(4)}, "samples.ids must be int64 .* got torch.float32"),
        (
            {"ids": torch.tensor([], dtype=torch.int64)},
            r"K >= 1 .* got torch.int64 of shape \(0,\)",
        ),
        ({"ids": torch.tensor(3)}, r"samples.ids must be int64 .* of shape \(\)"),
        ({"ids": torch.ones(3, 4).long()}, r"B = 2, got torch.int64 of shape \(3, 4\)"),
        ({"ids": torch.tensor([0, 1, 2, 5])}, r"samples.ids must be in \[0, 5\), got 5"),
        ({"ids": torch.tensor([0, 1, 2, -1])}, r"samples.ids must be in \[0, 5\), got -1"),
        ({"log_probs": torch.ones(3)}, r"samples.log_probs must have one of the shapes .* \(3,\)"),
        ({"target_log_expected_counts": torch.ones(3)}, r"samples.target_log.* got \(3,\)"),
        (
            {"log_expected_counts": torch.ones(4, device="meta")},
            "samples.log_expected_counts must be on the device of input, cpu, got meta; sample",
        ),
        ({"log_expected_counts": torch.full((4,), NAN)}, "samples.log_expected_counts .* got nan"),
        ({"log_expected_counts": torch.full((4,), -INF)}, "samples.log_expected_.* got -inf"),
        ({"input": torch.full((2, 3), NAN)}, "input must be finite where it is read, got nan"),
        ({"linear_weight": torch.full((5, 3), INF)}, "linear_weight must be finite .* got inf"),
        ({"linear_bias": torch.full((5,), NAN)}, "linear_bias must be finite .* got nan"),
        (
            {"input": torch.full((2, 3), 1e30), "linear_weight": torch.full((5, 3), -1e30)},
            "logits must be finite, got an overflow .* 1.*e\\+30 and 1.*e\\+30; scale them down",
        ),
    ],
)
def test_bad_input(changes, message, grad):
    if "(" in message and "\\(" not in message:
        message = re.escape(message)
    changes = {
        k: v.clone().requires_grad_()
        if grad and k in {"input", "linear_weight", "linear_bias"} and v.is_floating_point()
        else v
        for k, v in changes.items()
    }
    with pytest.raises(ValueError, match=message):
        call(**changes, grad=grad)


def test_values_are_not_checked_on_request():
    loss = call(input=torch.full((2, 3), NAN), validate=False)
    assert loss.isnan()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
        (
            {"num_samples": 9, "sampler": UniformSampler(8, replacement=False)},
            "at most num_classes = 8, got 9; draw fewer or use replacement=True",
        ),
        (
            {"num_samples": 2, "sampler": CategoricalSampler(torch.tensor([0.5, 0.5]))},
            "the sampler must have num_classes = 8, got 2",
        ),
        ({"num_samples": 2, "weighting": "both"}, "weighting must be one of .*, got 'both'"),
        ({"num_samples": 2, "reduction": "max"}, "reduction must be one of .*, got 'max'"),
    ],
)
def test_bad_options_of_the_module(options, message):
    with pytest.raises(ValueError, match=message):
        SampledLinearCrossEntropyLoss(3, 8, **options)


BAD_TARGETS = [
    (torch.tensor(1), r"target must have shape \(2,\) beside input \(2, 3\), got \(\)"),
    (torch.tensor([[1], [2]]), r"target must have shape \(2,\) .* got \(2, 1\)"),
    (torch.tensor([], dtype=torch.int64), r"target must have shape \(2,\) .* got \(0,\)"),
    (torch.tensor([1, 2, 3]), r"target must have shape \(2,\) .* got \(3,\)"),
    (torch.tensor([1.0, NAN]), r"target must be of an integer dtype, got torch\.float32"),
    (torch.ones(2, device="meta").long(), "target must be on the device of input, cpu, got meta"),
    (torch.tensor([8, 1]), r"target must be in \[0, 8\), got 8"),
    (torch.tensor([1, -1]), r"target must be in \[0, 8\), got -1"),
]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize(("target", "message"), BAD_TARGETS)
def test_bad_targets_of_the_module(target, message, per_example, training):
    module = SampledLinearCrossEntropyLoss(3, 8, num_samples=2, per_example=per_example)
    with pytest.raises(ValueError, match=message):
        module.train(training)(torch.ones(2, 3), target)


BAD_INPUTS = [
    (torch.tensor(1.0), r"input must be .* \(..., d\), got torch.float32 of shape \(\)"),
    (torch.ones(2, 3).long(), "input must be floating point .* torch.int64"),
    (torch.ones(2, 4), r"linear_weight must have shape \(8, 4\) .* got \(8, 3\)"),
    (torch.ones(2, 3).double(), "linear_weight must be torch.float64 .* got torch.float32"),
    (torch.ones(2, 3, device="meta"), "linear_weight must be on the device of input, meta"),
    (torch.full((2, 3), NAN), "input must be finite where it is read, got nan"),
    (torch.full((2, 3), INF), "input must be finite where it is read, got inf"),
    (torch.full((2, 3), 3e38), "logits must be finite, got an overflow"),
]


@pytest.mark.parametrize("method", ["log_prob", "predict", "training", "evaluation"])
@pytest.mark.parametrize(("x", "message"), BAD_INPUTS)
def test_bad_inputs_of_the_module(x, message, method):
    module = SampledLinearCrossEntropyLoss(3, 8, num_samples=200)
    torch.nn.init.ones_(module.linear.weight)
    target = torch.tensor([1, 2])
    calls = {
        "training": lambda: module.train()(x, target),
        "evaluation": lambda: module.eval()(x, target),
        "log_prob": lambda: module.log_prob(x),
        "predict": lambda: module.predict(x),
    }
    with pytest.raises(ValueError, match=message):
        calls[method]()


@pytest.mark.parametrize("method", ["log_prob", "predict"])
def test_a_weight_that_is_not_finite_is_named(method):
    module = SampledLinearCrossEntropyLoss(3, 8, num_samples=2)
    module.linear.weight.data[7] = NAN
    with pytest.raises(ValueError, match="linear_weight must be finite where it is read, got nan"):
        getattr(module, method)(torch.ones(2, 3))
    module.validate = False
    getattr(module, method)(torch.ones(2, 3))


def test_bad_shapes_of_the_transforms():
    with pytest.raises(ValueError, match=r"or \(B, P\), got \(2, 4\), \(4,\) and \(\)"):
        mask_accidental_hits(torch.ones(2, 4), torch.arange(4), torch.tensor(1))
    with pytest.raises(ValueError, match=r"and \(B, K\), got \(2, 1\) and \(2, 4\)"):
        sampled_cross_entropy(torch.ones(2, 1), torch.ones(2, 4))
