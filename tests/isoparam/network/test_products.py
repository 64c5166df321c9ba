"""Products against exact ones, replicas by themselves, and each private function's replacement."""

import runpy
import warnings

import pytest
import torch

from isoparam.network import products
from isoparam.network.products import product, update, zero_where_inactive

SHAPES = [(1, 1, 1), (128, 784, 10), (7, 5, 3), (128, 289, 289), (784, 128, 33)]


def whole(shape, seed, dtype):
    """Whole numbers from -2 to 2, whose sums of products are exact."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-2, 3, shape, generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("linear", [None, products._linear])
def test_products_of_whole_numbers_are_exact(dtype, replicas, shape, relu, linear, monkeypatch):
    monkeypatch.setattr(products, "_linear", linear)
    b, i, o = shape
    x, weight = whole((replicas, b, i), 0, dtype), whole((replicas, i, o), 1, dtype)
    bias = whole((replicas, 1, o), 2, dtype)
    expected = torch.einsum("rbi,rio->rbo", x.double(), weight.double())
    with_bias = expected + bias
    for given, result in ((None, expected), (bias, with_bias)):
        found = product(x, weight, given, relu=relu)
        assert found.dtype == dtype
        assert torch.equal(found.double(), (result.clamp(min=0) if relu else result).double())


@pytest.mark.parametrize("linear", [None, products._linear])
def test_strides_do_not_matter(linear, monkeypatch):
    monkeypatch.setattr(products, "_linear", linear)
    x, delta = whole((2, 6, 5), 0, torch.float32), whole((2, 6, 4), 1, torch.float32)
    assert torch.equal(product(x.mT, delta), product(x.mT.contiguous(), delta))
    weight = whole((2, 5, 4), 2, torch.float32)
    assert torch.equal(product(delta, weight.mT), product(delta, weight.mT.contiguous()))
    assert torch.equal(product(x[:1].expand(2, -1, -1), weight)[1], product(x[:1], weight[1:])[0])


# Of the others, the batched product may sum in another order.
@pytest.mark.parametrize("dtype", products._DTYPES)
def test_a_replica_has_the_same_bits_alone_and_among_others(dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 128, 300, generator=generator).to(dtype)
    weight = torch.randn(3, 300, 100, generator=generator).to(dtype)
    bias = torch.randn(3, 1, 100, generator=generator).to(dtype)
    together = product(x, weight, bias, relu=True)
    for r in range(3):
        alone = product(x[r, None], weight[r, None], bias[r, None], relu=True)
        assert torch.equal(together[r], alone[0])


@pytest.mark.parametrize("threshold", [None, products._threshold])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_no_gradient_passes_where_a_relu_is_at_zero(dtype, threshold, monkeypatch):
    monkeypatch.setattr(products, "_threshold", threshold)
    delta, output = whole((3, 6, 5), 0, dtype), whole((3, 6, 5), 1, dtype).clamp_(min=0)
    expected = delta * (output > 0)
    assert bool((expected != delta).any())
    found = zero_where_inactive(delta, output)
    assert found is delta
    assert torch.equal(found, expected)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("fused_sgd", [None, products._fused_sgd])
def test_an_update_is_the_plain_formula(momentum, fused_sgd, monkeypatch):
    monkeypatch.setattr(products, "_fused_sgd", fused_sgd)
    generator = torch.Generator().manual_seed(0)
    w, g, v = (
        [torch.randn(shape, generator=generator) for shape in ((4, 3), (4,))] for _ in range(3)
    )
    velocity = [momentum * a + b + 0.01 * c for a, b, c in zip(v, g, w, strict=True)]
    expected = [a - 0.1 * b for a, b in zip(w, velocity, strict=True)]
    momenta = velocity if momentum else [tensor.clone() for tensor in v]
    update(w, g, v, learning_rate=0.1, momentum=momentum, weight_decay=0.01)
    torch.testing.assert_close(w, expected)
    torch.testing.assert_close(v, momenta)


@pytest.mark.parametrize("name", ["_fused_sgd_", "ops"])
def test_a_private_function_that_is_missing_is_named(name, monkeypatch):
    monkeypatch.delattr(torch, name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = runpy.run_path(products.__file__)
    missing = {"_fused_sgd_": ["_fused_sgd"], "ops": ["_linear", "_threshold"]}[name]
    functions = {"_linear": products._linear, "_threshold": products._threshold}
    functions["_fused_sgd"] = products._fused_sgd
    assert [key for key in functions if functions[key] and not module[key]] == missing
    assert len(caught) == len(missing)
    for warning in caught:
        assert str(warning.message).startswith(f"torch {torch.__version__} has no torch.{name}")
        assert str(warning.message).endswith(
            ": training is slower, by public functions, and its last bits are others"
        )
