"""Files of images and perceptrons: round trips, the same bytes, and every damage told."""

import re
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from isoparam import files
from isoparam.budget import parameters_of
from isoparam.images.files import load_images, save_images
from isoparam.images.mnist import Images
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


IMAGES = Images(
    torch.arange(5 * 6, dtype=torch.uint8).view(5, 6), torch.tensor([0, 9, 3, 3, 1]).byte()
)
BOTH = IMAGES._asdict()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.safetensors"


@pytest.fixture
def images_file(path):
    save_images(path, IMAGES)
    return path


@pytest.fixture
def perceptron_file(path):
    save_perceptron(path, draw(SIZES), METADATA)
    return path


LOADERS = {
    "images": lambda path: load_images(path, 6, 10),
    "perceptron": lambda path: load_perceptron(path, SIZES),
}


@pytest.fixture(params=LOADERS)
def written(request):
    """A whole file and the function that reads it."""
    return request.getfixturevalue(f"{request.param}_file"), LOADERS[request.param]


def test_images_come_back(images_file):
    images, labels = load_images(images_file, 6, 10)
    assert images.dtype == labels.dtype == torch.uint8
    assert torch.equal(images, IMAGES.images)
    assert torch.equal(labels, IMAGES.labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("depth", [0, 1, 2, 8])
def test_perceptrons_come_back(path, depth, dtype):
    layers = draw(sizes_of(depth), dtype)
    save_perceptron(path, layers, METADATA)
    loaded, metadata = load_perceptron(path, sizes_of(depth))
    assert metadata == METADATA
    for ours, theirs in zip(loaded, layers, strict=True):
        for back, saved in zip(ours, theirs, strict=True):
            assert back.dtype == dtype
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
    paths = [tmp_path / f"{number}.safetensors" for number in range(4)]
    for path in paths[:2]:
        save_images(path, Images(*(tensor.clone() for tensor in IMAGES)))
    # The order in which the metadata were collected is no content.
    for path, keys in zip(paths[2:], (list(METADATA), sorted(METADATA)), strict=True):
        save_perceptron(path, draw(SIZES), {key: METADATA[key] for key in keys})
    first, second, third, fourth = (path.read_bytes() for path in paths)
    assert first == second
    assert third == fourth


@pytest.mark.parametrize("depth", [0, 1, 2, 8])
def test_weights_load_into_a_sequential_and_give_the_same_logits(path, depth):
    sizes = sizes_of(depth)
    # Whole numbers in float64: exact, in whatever order they are added.
    save_perceptron(path, draw(sizes, torch.float64), METADATA)
    modules = [
        module
        for fan_in, fan_out in pairwise(sizes)
        for module in (nn.Linear(fan_in, fan_out, dtype=torch.float64), nn.ReLU())
    ]
    model = nn.Sequential(*modules[:-1])
    model.load_state_dict(load_file(path))
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-1, 3, (9, 4), generator=generator).double()
    loaded, _ = load_perceptron(path, sizes)
    with torch.no_grad():
        expected = model(x)
    assert bool((expected != 0).any())
    assert torch.equal(logits(loaded, x)[0], expected)


def test_a_missing_file_is_named_with_the_way_out(path):
    for load in LOADERS.values():
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} is missing: run `dvc repro`"):
            load(path)


def test_a_folder_is_no_file(path):
    path.mkdir()
    for load in LOADERS.values():
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} is damaged"):
            load(path)


def test_a_truncated_file_is_damaged_at_whatever_length(written):
    path, load = written
    whole = path.read_bytes()
    load(path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} is damaged"):
            load(path)


@pytest.mark.parametrize("more", [b"\x00", b"more"])
def test_a_file_with_trailing_bytes_is_damaged(written, more):
    path, load = written
    path.write_bytes(path.read_bytes() + more)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} is damaged"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"<html></html>", b"\xff" * 100, b"\x00" * 100])
def test_a_file_of_something_else_is_damaged(path, content):
    path.write_bytes(content)
    for load in LOADERS.values():
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} is damaged"):
            load(path)


@pytest.mark.parametrize("bit", [0, 3, 6])
def test_no_flipped_bit_goes_unnoticed(written, bit):
    """Neither in the header, which has the metadata, nor in the tensors."""
    path, load = written
    whole = path.read_bytes()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << bit
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            load(path)


def test_damage_is_told_with_a_way_out(written):
    path, load = written
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    message = f"{path} is damaged (its digest is that of other content): delete it, run `chmod"
    with pytest.raises(ValueError, match=re.escape(message)):
        load(path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "must hold images and labels, got "),
        ({"images": IMAGES.images}, "must hold images and labels, got images"),
        (
            BOTH | {"more": torch.zeros(1)},
            "must hold images and labels, got images, labels, more",
        ),
        (BOTH | {"images": torch.zeros(5, 7).byte()}, "images of 6 pixels, one for each label"),
        (BOTH | {"images": torch.zeros(5, 2, 3).byte()}, "got (5, 2, 3) and 5 labels"),
        (BOTH | {"images": torch.zeros(4, 6).byte()}, "got (4, 6) and 5 labels"),
        (BOTH | {"labels": torch.zeros(4).byte()}, "got (5, 6) and 4 labels"),
        (
            BOTH | {"images": torch.zeros(0, 6).byte(), "labels": torch.zeros(0).byte()},
            "got (0, 6) and 0 labels",
        ),
        (
            BOTH | {"labels": torch.tensor([0, 1, 2, 10, 0]).byte()},
            "labels must lie in [0, 10), got 10",
        ),
        (BOTH | {"labels": torch.full((5,), 255).byte()}, "labels must lie in [0, 10), got 255"),
        pytest.param(
            BOTH | {"labels": torch.tensor([0, 1, 2, -1, 0])},
            "",
        ),
        pytest.param(
            BOTH | {"images": torch.zeros(5, 6)},
            "",
        ),
        pytest.param(
            BOTH | {"labels": torch.zeros(5, 1).byte()},
            "",
        ),
    ],
)
def test_other_tensors_than_those_of_a_partition_are_refused(path, tensors, message):
    files._save(path, tensors, {})
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + re.escape(message)):
        load_images(path, 6, 10)


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
        {"0.weight": torch.zeros(3, 4, dtype=torch.int32)},
    ],
    ids=str,
)
def test_other_tensors_than_those_of_a_perceptron_are_refused(perceptron_file, change):
    tensors = load_file(perceptron_file) | change
    kept = {key: tensor for key, tensor in tensors.items() if tensor is not None}
    files._save(perceptron_file, kept, METADATA)
    message = f"{perceptron_file} does not hold a perceptron of sizes {SIZES}"
    with pytest.raises(ValueError, match=re.escape(message)):
        load_perceptron(perceptron_file, SIZES)


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
