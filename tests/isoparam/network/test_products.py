"""Products against exact ones, and the independence of replicas to the bit."""

import pytest
import torch

from isoparam import products
from isoparam.network.products import product

SHAPES = [(1, 1, 1), (128, 784, 10), (7, 5, 3), (128, 289, 289), (784, 128, 33)]


def whole(shape, seed, dtype):
    """Whole numbers from -2 to 2, whose sums of products are exact."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-2, 3, shape, generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("by_onednn", [False, products._BY_ONEDNN])
def test_products_of_whole_numbers_are_exact(dtype, replicas, shape, relu, by_onednn, monkeypatch):
    monkeypatch.setattr(products, "_BY_ONEDNN", by_onednn)
    b, i, o = shape
    x, weight = whole((replicas, b, i), 0, dtype), whole((replicas, i, o), 1, dtype)
    bias = whole((replicas, 1, o), 2, dtype)
    expected = torch.einsum("rbi,rio->rbo", x.double(), weight.double())
    with_bias = expected + bias
    for given, result in ((None, expected), (bias, with_bias)):
        found = product(x, weight, given, relu=relu)
        assert found.dtype == dtype
        assert torch.equal(found.double(), (result.clamp(min=0) if relu else result).double())


@pytest.mark.parametrize("by_onednn", [False, products._BY_ONEDNN])
def test_strides_do_not_matter(by_onednn, monkeypatch):
    monkeypatch.setattr(products, "_BY_ONEDNN", by_onednn)
    x, delta = whole((2, 6, 5), 0, torch.float32), whole((2, 6, 4), 1, torch.float32)
    assert torch.equal(product(x.mT, delta), product(x.mT.contiguous(), delta))
    weight = whole((2, 5, 4), 2, torch.float32)
    assert torch.equal(product(delta, weight.mT), product(delta, weight.mT.contiguous()))
    assert torch.equal(product(x[:1].expand(2, -1, -1), weight)[1], product(x[:1], weight[1:])[0])


@pytest.mark.skipif(not products._BY_ONEDNN, reason="the batched product may sum in another order")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_replica_has_the_same_bits_alone_and_among_others(dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 128, 300, generator=generator).to(dtype)
    weight = torch.randn(3, 300, 100, generator=generator).to(dtype)
    bias = torch.randn(3, 1, 100, generator=generator).to(dtype)
    together = product(x, weight, bias, relu=True)
    for r in range(3):
        alone = product(x[r, None], weight[r, None], bias[r, None], relu=True)
        assert torch.equal(together[r], alone[0])
