"""Files of perceptrons: round trips, the same bytes, and what is refused."""

import re
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from isoparam.budget import parameters_of
from isoparam.images.files import save_tensors
from isoparam.network.files import load_perceptron, save_perceptron
from isoparam.network.mlp import layer_views, logits

SIZES = [4, 3, 2]
METADATA = {"seed": 7, "sizes": SIZES, "mean": 0.1, "deviation": 2.5}


def sizes_of(depth):
    return [4, *[3] * depth, 2]


def draw(sizes, dtype=torch.float32):
    """Layers of one replica of small whole numbers."""
    generator = torch.Generator().manual_seed(len(sizes))
    flat = torch.randint(-1, 3, (1, parameters_of(sizes)), generator=generator).to(dtype)
    return layer_views(flat, sizes)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.safetensors"


@pytest.fixture
def perceptron_file(path):
    save_perceptron(path, draw(SIZES), METADATA)
    return path


@pytest.mark.parametrize("depth", [0, 1, 2, 8])
def test_perceptrons_come_back(path, depth):
    layers = draw(sizes_of(depth))
    save_perceptron(path, layers, METADATA)
    loaded, metadata = load_perceptron(path, sizes_of(depth))
    assert metadata == METADATA
    for ours, theirs in zip(loaded, layers, strict=True):
        for back, saved in zip(ours, theirs, strict=True):
            assert back.dtype == torch.float32
            assert torch.equal(back, saved)


def test_one_replica_of_several_is_written(path):
    flat = torch.arange(3.0 * parameters_of(SIZES)).view(3, -1)
    layers = layer_views(flat, SIZES)
    save_perceptron(path, [(w[1, None], b[1, None]) for w, b in layers], METADATA)
    loaded, _ = load_perceptron(path, SIZES)
    for (weight, bias), (ours, our_bias) in zip(loaded, layers, strict=True):
        assert torch.equal(weight[0], ours[1])
        assert torch.equal(bias[0], our_bias[1])


def test_the_same_content_gives_the_same_bytes(tmp_path):
    paths = [tmp_path / f"{number}.safetensors" for number in range(2)]
    # The order in which the metadata were collected is no content.
    for path, keys in zip(paths, (list(METADATA), sorted(METADATA)), strict=True):
        save_perceptron(path, draw(SIZES), {key: METADATA[key] for key in keys})
    first, second = (path.read_bytes() for path in paths)
    assert first == second


@pytest.mark.parametrize("depth", [0, 1, 2, 8])
def test_weights_load_into_a_sequential_and_give_the_same_logits(path, depth):
    sizes = sizes_of(depth)
    # Small whole numbers: exact, in whatever order they are added.
    save_perceptron(path, draw(sizes), METADATA)
    modules = [
        module
        for fan_in, fan_out in pairwise(sizes)
        for module in (nn.Linear(fan_in, fan_out), nn.ReLU())
    ]
    model = nn.Sequential(*modules[:-1])
    model.load_state_dict(load_file(path))
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-1, 3, (9, 4), generator=generator).float()
    loaded, _ = load_perceptron(path, sizes)
    with torch.no_grad():
        expected = model(x)
    assert bool((expected != 0).any())
    assert torch.equal(logits(loaded, x)[0], expected)


def test_damage_is_reported(perceptron_file):
    whole = perceptron_file.read_bytes()
    perceptron_file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"{re.escape(str(perceptron_file))} is damaged"):
        load_perceptron(perceptron_file, SIZES)


@pytest.mark.parametrize(
    "sizes", [[4, 2], [4, 3, 3, 2], [4, 5, 2], [5, 3, 2], [4, 3, 1], [3, 4, 2], [2, 3, 4]], ids=str
)
def test_a_perceptron_of_other_sizes_is_refused(perceptron_file, sizes):
    message = f"{perceptron_file} does not hold a perceptron of sizes {sizes}"
    with pytest.raises(ValueError, match=re.escape(message)):
        load_perceptron(perceptron_file, sizes)


@pytest.mark.parametrize(
    "change",
    [
        {"2.bias": None},
        {"2.weight": None},
        {"4.weight": torch.zeros(2, 2)},
        {"0.weight": torch.zeros(4, 3)},
        {"0.weight": torch.zeros(12)},
        {"0.bias": torch.zeros(1)},
        {"0.bias": torch.zeros(3, 1)},
    ],
    ids=str,
)
def test_other_tensors_than_those_of_a_perceptron_are_refused(perceptron_file, change):
    tensors = load_file(perceptron_file) | change
    kept = {key: tensor for key, tensor in tensors.items() if tensor is not None}
    save_tensors(perceptron_file, kept, METADATA)
    message = f"{perceptron_file} does not hold a perceptron of sizes {SIZES}"
    with pytest.raises(ValueError, match=re.escape(message)):
        load_perceptron(perceptron_file, SIZES)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.zeros(3, 4, dtype=dtype), f"0.weight must be of float32, got {dtype}")
        for dtype in (torch.float16, torch.float64, torch.bfloat16, torch.int32)
    ]
    + [
        (torch.full((3, 4), value), "0.weight must be finite, and has NaN or infinity")
        for value in (torch.nan, torch.inf)
    ],
)
def test_weights_of_another_type_or_that_are_not_finite_are_refused(
    perceptron_file, weight, message
):
    save_tensors(perceptron_file, load_file(perceptron_file) | {"0.weight": weight}, METADATA)
    with pytest.raises(ValueError, match=re.escape(f"{perceptron_file}: {message}")):
        load_perceptron(perceptron_file, SIZES)


@pytest.mark.parametrize("key", ["mean", "deviation"])
@pytest.mark.parametrize("value", ["0.1", None, True, torch.nan, [0.1] * 3, [0.1] * 3 + ["1"], {}])
def test_statistics_that_are_no_numbers_are_refused(path, key, value):
    save_perceptron(path, draw(SIZES), METADATA | {key: value})
    message = f"{path}: the {key} must be a finite number, or one for each of the 4 features, got "
    with pytest.raises(ValueError, match=re.escape(message)):
        load_perceptron(path, SIZES)


def test_statistics_of_each_feature_come_back(path):
    save_perceptron(path, draw(SIZES), METADATA | {"mean": [0.5, 1, 2, 3]})
    assert load_perceptron(path, SIZES)[1]["mean"] == [0.5, 1, 2, 3]


@pytest.mark.parametrize("missing", ["seed", "mean", "deviation"])
def test_a_perceptron_without_its_metadata_is_refused(path, missing):
    metadata = {key: value for key, value in METADATA.items() if key != missing}
    save_perceptron(path, draw(SIZES), metadata)
    message = f"{path} does not hold a perceptron of sizes {SIZES}"
    with pytest.raises(ValueError, match=re.escape(message)):
        load_perceptron(path, SIZES)


@pytest.mark.parametrize(
    "metadata", [None, {}, {"format": "pt"}, *({"isoparam": text} for text in ("{}", "[]", "7"))]
)
def test_weights_of_another_origin_are_refused(path, metadata):
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    save_file(model.state_dict(), path, metadata)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} has no digest"):
        load_perceptron(path, SIZES)
