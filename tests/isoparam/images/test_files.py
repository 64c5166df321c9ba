"""Files of tensors and images: round trips, the same bytes, and every damage reported."""

import re

import pytest
import torch
from safetensors.torch import save_file

from isoparam.images.files import load_images, load_tensors, save_images, save_tensors
from isoparam.images.mnist import Images

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
def tensors_file(path):
    tensors = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.zeros(2)}
    save_tensors(path, tensors, {"seed": 7, "sizes": [3, 2], "mean": 0.1})
    return path


LOADERS = {"images": lambda path: load_images(path, 6, 10), "tensors": load_tensors}


@pytest.fixture(params=LOADERS)
def written(request):
    """A whole file and the function that reads it."""
    return request.getfixturevalue(f"{request.param}_file"), LOADERS[request.param]


def test_images_come_back(images_file):
    images, labels = load_images(images_file, 6, 10)
    assert images.dtype == labels.dtype == torch.uint8
    assert torch.equal(images, IMAGES.images)
    assert torch.equal(labels, IMAGES.labels)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int64, torch.uint8])
def test_tensors_and_metadata_come_back(path, dtype):
    tensors = {"b": torch.arange(6).view(2, 3).to(dtype), "a": torch.zeros(0, dtype=dtype)}
    metadata = {"number": 0.1, "list": [1, "ä"], "none": None}
    save_tensors(path, tensors, metadata)
    loaded, found = load_tensors(path)
    assert found == metadata
    assert set(loaded) == set(tensors)
    for name, tensor in loaded.items():
        assert tensor.dtype == dtype
        assert torch.equal(tensor, tensors[name])


def test_the_same_content_gives_the_same_bytes(tmp_path):
    paths = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for path in paths:
        save_images(path, Images(*(tensor.clone() for tensor in IMAGES)))
    assert paths[0].read_bytes() == paths[1].read_bytes()


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


def test_damage_is_reported_with_a_way_out(written):
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
            BOTH | {"images": torch.zeros(5, 6).double()},
            "",
        ),
        pytest.param(
            BOTH | {"labels": torch.zeros(5, 1).byte()},
            "",
        ),
    ],
)
def test_other_tensors_than_those_of_a_partition_are_refused(path, tensors, message):
    save_tensors(path, tensors, {})
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + re.escape(message)):
        load_images(path, 6, 10)


def test_metadata_nested_too_deeply_are_damaged(path):
    deep = "[" * 100_000 + "]" * 100_000
    save_file({"labels": torch.zeros(1)}, path, {"isoparam": f'{{"digest": {deep}}}'})
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} is damaged"):
        load_tensors(path)


def test_a_file_larger_than_the_memory_is_not_read(tensors_file):
    with tensors_file.open("ab") as file:
        file.truncate(2**43)  # sparse: it takes no room
    with pytest.raises(ValueError, match=r"is damaged \(it is larger than the \d+ GiB of memory"):
        load_tensors(tensors_file)
