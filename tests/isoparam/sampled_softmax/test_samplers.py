"""The samplers draw what they report, reach every class, and never touch all of them."""

import itertools
import math

import pytest
import torch
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode

from isoparam.sampled_softmax.samplers import (
    CategoricalSampler,
    LogUniformSampler,
    Sampler,
    UniformSampler,
    UnigramSampler,
)

# A correct sampler fails a test at this level once in ten thousand seeds, and the seeds are fixed.
LEVEL = 1e-4


def zipf_counts(C):
    return (1e6 / torch.arange(1, C + 1)).long() + 1


BUILDERS = {
    "uniform": UniformSampler,
    "log-uniform": LogUniformSampler,
    "categorical": lambda C, **options: CategoricalSampler(
        torch.arange(1, C + 1).double() / (C * (C + 1) / 2), **options
    ),
    "unigram": lambda C, **options: UnigramSampler(zipf_counts(C), **options),
}


@pytest.fixture(params=BUILDERS)
def build(request):
    return BUILDERS[request.param]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def zeros(B):
    return torch.zeros(B, dtype=torch.int64)


@pytest.mark.parametrize("C", [1, 2, 7, 100_000])
def test_probabilities_sum_to_one(build, C):
    total = build(C).log_probs(torch.arange(C)).exp().sum()
    # Each term is right to a few units of 2^-53 and of its logarithm (below 32), the sum to C
    # times 2^-53 at worst.
    assert abs(float(total) - 1) < (C + 64) * 2**-53


def test_formulas_of_the_probabilities():
    j = torch.arange(5)
    zipf = [math.log((i + 2) / (i + 1)) / math.log(6) for i in range(5)]
    assert LogUniformSampler(5).log_probs(j).exp().tolist() == pytest.approx(zipf, rel=1e-14)
    counts = torch.tensor([5, 1, 2, 9, 4])
    mass = [n**0.75 for n in counts.tolist()]
    unigram = UnigramSampler(counts).log_probs(j).exp().tolist()
    assert unigram == pytest.approx([m / sum(mass) for m in mass], rel=1e-14)


@pytest.mark.parametrize("per_example", [False, True])
def test_draws_follow_the_reported_probabilities(build, per_example):
    C, n = 40, 200_000
    sampler = build(C)
    B, K = (n // 100, 100) if per_example else (1, n)
    draw = sampler.sample(K, zeros(B), per_example=per_example, generator=seeded())
    assert draw.ids.shape == ((B, K) if per_example else (K,))
    q = sampler.log_probs(torch.arange(C)).exp()
    counts = draw.ids.flatten().bincount(minlength=C)
    assert counts.min() > 0  # the rarest and the last class are drawn
    assert stats.chisquare(counts, n * q / q.sum()).pvalue > LEVEL
    assert torch.equal(draw.log_probs, sampler.log_probs(draw.ids))
    assert torch.equal(draw.log_expected_counts, draw.log_probs + math.log(K))


@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("C", [5, 30])
def test_pairs_without_replacement_follow_successive_sampling(build, per_example, C):
    n = 40_000 if per_example else 4_000
    sampler = build(C, replacement=False)
    generator = seeded(1)
    if per_example:
        ids = sampler.sample(2, zeros(n), per_example=True, generator=generator).ids
    else:
        draws = [sampler.sample(2, zeros(1), generator=generator).ids for _ in range(n)]
        ids = torch.stack(draws)
    q = sampler.log_probs(torch.arange(C)).exp().tolist()
    expected, observed = [], []
    low, high = ids.min(1).values, ids.max(1).values
    assert bool((low < high).all())
    counts = (low * C + high).bincount(minlength=C * C)
    for i, j in itertools.combinations(range(C), 2):
        expected.append(n * q[i] * q[j] * (1 / (1 - q[i]) + 1 / (1 - q[j])))
        observed.append(int(counts[i * C + j]))
    # The chi-square approximation wants expected counts of about 5: join the rare pairs.
    rare = sorted(range(len(expected)), key=expected.__getitem__)
    while len(rare) > 1 and expected[rare[0]] < 5:
        i, j = rare[:2]
        expected[j] += expected[i]
        observed[j] += observed[i]
        expected[i] = observed[i] = 0
        rare = sorted(rare[1:], key=expected.__getitem__)
    kept = [(o, e) for o, e in zip(observed, expected, strict=True) if e]
    assert stats.chisquare(*zip(*kept, strict=True)).pvalue > LEVEL


@pytest.mark.parametrize("K", [1, 3, 12, 19])
def test_inclusion_probabilities_make_sums_unbiased(build, K):
    C, n = 20, 20_000
    sampler = build(C, replacement=False)
    draw = sampler.sample(K, zeros(n), per_example=True, generator=seeded(2))
    f = torch.linspace(0, 3, C, dtype=torch.float64).exp()
    estimates = (f[draw.ids] * (-draw.log_expected_counts).exp()).sum(1)
    # Five standard errors of a mean of n independent terms.
    margin = 5 * float(estimates.std()) / math.sqrt(n)
    assert abs(float(estimates.mean() - f.sum())) < margin + 1e-9


def test_unbiased_where_some_draws_end_with_clocks():
    # One class has nearly all the mass, so only some draws find three others among the first ids.
    q = torch.tensor([0.8] + [0.2 / 39] * 39, dtype=torch.float64)
    sampler = CategoricalSampler(q, replacement=False)
    generator, n = seeded(3), 4_000
    f = torch.linspace(1, 2, 40, dtype=torch.float64)
    estimates = torch.empty(n, dtype=torch.float64)
    for i in range(n):
        draw = sampler.sample(3, zeros(1), generator=generator)
        estimates[i] = (f[draw.ids] / draw.log_expected_counts.exp()).sum()
    margin = 5 * float(estimates.std()) / math.sqrt(n)
    assert abs(float(estimates.mean() - f.sum())) < margin


@pytest.mark.parametrize("per_example", [False, True])
def test_without_replacement_classes_are_distinct(build, per_example):
    for K in (1, 50, 499, 500):
        draw = build(500, replacement=False).sample(
            K, zeros(3), per_example=per_example, generator=seeded(4)
        )
        for row in draw.ids.view(-1, K):
            assert row.unique().numel() == K
        assert bool((draw.log_expected_counts <= 0).all())
        assert draw.target_log_expected_counts.shape == (3,)


def test_all_classes_once_have_weight_one(build):
    draw = build(9, replacement=False).sample(9, torch.tensor([4]), generator=seeded())
    assert sorted(draw.ids.tolist()) == list(range(9))
    assert draw.log_expected_counts.tolist() == [0] * 9
    assert draw.target_log_expected_counts.tolist() == [0]


@pytest.mark.parametrize("u", [0.0, 1 - 2**-53])
@pytest.mark.parametrize("name", ["log-uniform", "categorical", "unigram"])
@pytest.mark.parametrize("C", [1, 10, 1_000_000])
def test_the_ends_of_the_unit_interval_give_the_first_and_the_last_class(monkeypatch, name, C, u):
    sampler = BUILDERS[name](C)
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, u, dtype=torch.float64))
    ids = sampler.sample(2, zeros(1)).ids
    assert ids.tolist() == [C - 1 if u else 0] * 2


class OutputSizes(TorchDispatchMode):
    """Remembers the largest result of any operation."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> object:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return result


@pytest.mark.parametrize("replacement", [True, False])
def test_a_draw_from_a_million_classes_never_touches_them_all(build, replacement):
    C, K = 1_000_000, 64
    sampler = build(C, replacement=replacement)
    sampler.sample(K, zeros(4), generator=seeded())
    with OutputSizes() as sizes:
        sampler.sample(K, zeros(4), generator=seeded(5))
    assert sizes.largest <= 16 * K


def test_the_generator_is_the_only_source_of_randomness(build):
    for replacement in (True, False):
        sampler = build(50, replacement=replacement)
        state = torch.get_rng_state()
        first, second, other = (
            sampler.sample(20, zeros(2), generator=seeded(s)).ids for s in (6, 6, 7)
        )
        assert torch.equal(first, second)
        assert not torch.equal(first, other)
        assert torch.equal(state, torch.get_rng_state())


def test_targets_to_be_ignored_are_accepted(build):
    draw = build(5).sample(3, torch.tensor([-100, 2]))
    assert draw.target_log_expected_counts.shape == (2,)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("replacement", [True, False])
def test_draws_stay_on_the_gpu(build, replacement):
    sampler = build(1000, replacement=replacement)
    draw = sampler.sample(30, zeros(4).cuda(), generator=torch.Generator("cuda").manual_seed(0))
    assert {tensor.device.type for tensor in draw[:4]} == {"cuda"}
    cpu = sampler.log_probs(draw.ids.cpu())
    assert torch.allclose(draw.log_probs.cpu(), cpu, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UniformSampler(0), "num_classes must be at least 1, got 0"),
        (lambda: LogUniformSampler(-3), "num_classes must be at least 1, got -3"),
        (lambda: UniformSampler(2.5), "num_classes must be at least 1, got 2.5, which is not an"),
        (lambda: UniformSampler(math.nan), "num_classes must be at least 1, got nan, which is"),
        (lambda: UniformSampler(5).sample(2.5, zeros(1)), "num_samples must be .* got 2.5, which"),
        (lambda: CategoricalSampler(torch.tensor([1j])), "probs must be real, got torch.complex64"),
        (lambda: CategoricalSampler(torch.tensor([0.5, 0.4])), "must sum to 1 .* got a sum of 0.9"),
        (lambda: CategoricalSampler(torch.tensor([1.5, -0.5])), "positive .* got -0.5 for class 1"),
        (lambda: CategoricalSampler(torch.tensor([0.5, math.nan])), "got nan for class 1"),
        (lambda: CategoricalSampler(torch.tensor([[1.0]])), r"shape \(C,\) .* got \(1, 1\)"),
        (lambda: CategoricalSampler(torch.tensor([])), r"with C >= 1, got \(0,\)"),
        (
            lambda: CategoricalSampler(torch.tensor([1.0, 1e-40], dtype=torch.float64)),
            "positive next to the others .* for class 1",
        ),
        (lambda: UnigramSampler(torch.tensor([3, 0, 1])), "counts .* got 0.0 for class 1; add"),
        (lambda: UnigramSampler(torch.tensor([3, 1]), math.inf), "power must be finite, got inf"),
        (lambda: UniformSampler(5).sample(0, zeros(1)), "num_samples must be at least 1, got 0"),
        (
            lambda: UniformSampler(5, replacement=False).sample(6, zeros(1)),
            "at most num_classes = 5, got 6; draw fewer",
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("replacement", [False, True])
def test_targets_that_are_no_ids(build, replacement, per_example):
    sampler = build(5, replacement=replacement)
    for target in (torch.tensor([1.0]), torch.tensor([True])):
        with pytest.raises(ValueError, match="target must be of an integer dtype, got torch"):
            sampler.sample(2, target, per_example=per_example)


@pytest.mark.parametrize("replacement", [False, True])
def test_an_empty_batch_gets_an_empty_draw(build, replacement):
    draw = build(50, replacement=replacement).sample(4, zeros(0), per_example=True)
    assert [tuple(tensor.shape) for tensor in draw[:4]] == [(0, 4)] * 3 + [(0,)]


def test_generator_of_another_device():
    target = torch.zeros(1, dtype=torch.int64, device="meta")
    with pytest.raises(ValueError, match="generator must be on the device of target, meta"):
        UniformSampler(5).sample(2, target, generator=seeded())


def test_sampler_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Sampler(5)
