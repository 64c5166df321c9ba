"""Image files, the homework's split against its own snippet, and the normalisation."""

import gzip
import re
from math import prod

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import random_split

from isoparam.images.mnist import Images, normalise, parse_idx, partition, pixel_statistics, split

FIXED = settings(derandomize=True, database=None, deadline=None, max_examples=100)

GENUINE = ROOT.parent / "shared" / "mnist"


def idx(shape, content, start=b"\x00\x00\x08"):
    return (
        start + bytes([len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape) + bytes(content)
    )


SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4)
ARRAYS = SHAPES.flatmap(
    lambda shape: st.tuples(st.just(shape), st.binary(min_size=prod(shape), max_size=prod(shape)))
)


@FIXED
@given(ARRAYS)
def test_idx_files_are_read_as_they_were_written(array):
    shape, content = array
    parsed = parse_idx(idx(shape, content))
    assert parsed.dtype == torch.uint8
    assert list(parsed.shape) == shape
    assert parsed.numpy().tobytes() == content


@FIXED
@given(ARRAYS, st.integers(0, 2**16))
def test_no_shortened_idx_file_is_read(array, cut):
    whole = idx(*array)
    with pytest.raises(ValueError, match="an idx file of"):
        parse_idx(whole[: cut % len(whole)])


@FIXED
@given(ARRAYS, st.binary(min_size=1, max_size=9))
def test_no_lengthened_idx_file_is_read(array, more):
    whole = idx(*array)
    message = f"of shape {array[0]} has {len(whole)} bytes, got {len(whole) + len(more)}"
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_idx(whole + more)


@FIXED
@given(st.binary(max_size=40).filter(lambda content: content[:3] != b"\x00\x00\x08"))
def test_bytes_that_are_no_idx_file_are_refused(content):
    with pytest.raises(ValueError, match="an idx file of"):
        parse_idx(content)


START = "an idx file of bytes starts with 00 00 08 and a number of axes, got "


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", START + "b''"),
        (b"\x00\x00\x08", START),
        (idx([2], b"ab", start=b"\x00\x00\x09"), START),  # signed bytes
        (idx([2], b"ab", start=b"\x00\x00\x0d"), START),  # float32
        (idx([2], b"ab", start=b"\x01\x00\x08"), START),
        (idx([2], b"ab", start=b"\x00\x01\x08"), START),
        (b"\x00\x00\x08\x00", START),
        (b"\x00\x00\x08\x00a", START),
        (gzip.compress(idx([2], b"ab"), mtime=0), START),
        (b"<html></html>", START),
        (b"\x00\x00\x08\x01", "of shape [0] has 8 bytes, got 4"),
        (b"\x00\x00\x08\x01\x00\x00\x00", "of shape [0] has 8 bytes, got 7"),
        (idx([2, 2], b"abcd")[:10], "of shape [2, 0] has 12 bytes, got 10"),
        (idx([3], b"ab"), "of shape [3] has 11 bytes, got 10"),
        (idx([1], b"ab"), "of shape [1] has 9 bytes, got 10"),
        (idx([2, 3], b"abcde"), "of shape [2, 3] has 18 bytes, got 17"),
        (idx([60_000, 28, 28], b""), "of shape [60000, 28, 28] has 47040016 bytes, got 16"),
        pytest.param(
            # As many bytes as 2^64 + 4, which is 4 to those who count with 64 bits.
            idx([769_546, 494_770, 48_448_661], b"abcd"),
            "an idx file of shape [769546, 494770, 48448661]",
        ),
    ],
)
def test_faults_of_idx_files_are_reported(content, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_idx(content)


@pytest.mark.parametrize("shape", [[0], [0, 5], [3, 0, 2]])
def test_idx_files_without_content_are_empty_arrays(shape):
    assert list(parse_idx(idx(shape, b"")).shape) == shape


def labels_of(values):
    return torch.tensor(values, dtype=torch.uint8)


def test_a_partition_has_its_pixels_row_by_row():
    images = torch.arange(24, dtype=torch.uint8).view(2, 3, 4)
    part = partition(images, labels_of([1, 0]), classes=2)
    assert part.images.tolist() == [list(range(12)), list(range(12, 24))]
    assert part.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ((2, 3, 3), labels_of([0, 255]), "labels must lie in [0, 10), got 255"),
        ((2, 3, 3), labels_of([10, 0]), "labels must lie in [0, 10), got 10"),
        ((2, 3, 3), labels_of([0]), "N of at least 1, got (2, 3, 3) and (1,)"),
        ((2, 3, 3), labels_of([0, 1, 2]), "N of at least 1, got (2, 3, 3) and (3,)"),
        ((0, 3, 3), labels_of([]), "N of at least 1, got (0, 3, 3) and (0,)"),
        ((2, 9), labels_of([0, 1]), "images must be (N, height, width)"),
        ((2, 3, 3, 1), labels_of([0, 1]), "images must be (N, height, width)"),
        ((2, 3, 3), labels_of([0, 1])[:, None], "labels (N,)"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(images, labels, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        partition(torch.zeros(images, dtype=torch.uint8), labels, classes=10)


def numbered(count):
    """Images of two pixels that spell their own number, with labels that depend on it."""
    numbers = torch.arange(count)
    images = torch.stack([numbers // 256, numbers % 256], 1).byte()
    return Images(images, (numbers % 251).byte())


def numbers_of(part):
    assert part.images.dtype == part.labels.dtype == torch.uint8
    numbers = 256 * part.images[:, 0].long() + part.images[:, 1].long()
    assert torch.equal(part.labels.long(), numbers % 251)
    return numbers.tolist()


def test_split_is_the_one_of_the_homework():
    train_all = range(60_000)
    train_data, val_data = random_split(train_all, [50000, 10000], torch.Generator().manual_seed(0))
    train, validation = split(numbered(60_000))
    assert numbers_of(train) == list(train_data.indices)
    assert numbers_of(validation) == list(val_data.indices)


@pytest.mark.skipif(not GENUINE.is_dir(), reason="MNIST's files are not beside the project")
def test_split_of_the_genuine_files_is_that_of_torchvision(tmp_path):
    from torchvision import datasets

    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    content = {}
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        content[kind] = gzip.decompress((GENUINE / f"train-{kind}.gz").read_bytes())
        (raw / f"train-{kind}").write_bytes(content[kind])
        # The data set counts as there only if its test files are.
        (raw / f"t10k-{kind}").write_bytes(b"")
    train_all = datasets.MNIST(tmp_path, train=True)
    subsets = random_split(train_all, [50000, 10000], torch.Generator().manual_seed(0))
    parts = split(partition(*map(parse_idx, content.values()), classes=10))
    for part, subset in zip(parts, subsets, strict=True):
        assert torch.equal(part.images, train_all.data[subset.indices].flatten(1))
        assert torch.equal(part.labels.long(), train_all.targets[subset.indices])
        # What iterating over the homework's data set gives, from the other end.
        picture, label = subset[len(subset) - 1]
        assert part.images[-1].tolist() == np.asarray(picture).flatten().tolist()
        assert int(part.labels[-1]) == label


@FIXED
@given(st.integers(6, 3_000))
def test_split_takes_each_image_once_and_a_sixth_for_validation(count):
    train, validation = (numbers_of(part) for part in split(numbered(count)))
    assert len(validation) == count // 6
    assert sorted(train + validation) == list(range(count))


@pytest.mark.parametrize("count", [0, 1, 5])
def test_too_few_images_are_not_split(count):
    with pytest.raises(ValueError, match=f"a split needs at least 6 images, got {count}"):
        split(numbered(count))


@FIXED
@given(
    st.lists(st.lists(st.integers(0, 255), min_size=4, max_size=4), min_size=1, max_size=9),
    st.sampled_from([(0, 1), (254, 255), (0, 255)]),
)
def test_statistics_are_those_of_numpy(rows, last):
    pixels = [*rows, [*last, *last]]
    mean, deviation = pixel_statistics(torch.tensor(pixels, dtype=torch.uint8))
    wide = np.array(pixels, dtype=np.float64)
    # One rounding of a quotient here, the n sums of numpy and its quotient there.
    assert mean == pytest.approx(wide.mean(), rel=(wide.size + 2) * 2**-53)
    # The mean of the squares and the square of the mean, up to 255^2, are each off by two
    # roundings, and numpy's by n + 4 of the variance.
    bound = 5 * 255**2 * 2**-53 + (wide.size + 4) * 2**-53 * wide.var()
    assert abs(deviation**2 - wide.var()) <= bound
    assert deviation > 0


def test_statistics_of_many_images_are_exact():
    # 10^7 pixels, a tenth of them 10: mean 1, mean of squares 10, variance 9.
    images = torch.zeros(10_000, 1_000, dtype=torch.uint8)
    images[:, ::10] = 10
    assert pixel_statistics(images) == (1.0, 3.0)


def test_a_single_bright_pixel_among_millions_is_seen():
    images = torch.full((10_000, 1_000), 255, dtype=torch.uint8)
    images[-1, -1] = 254
    _, deviation = pixel_statistics(images)
    # With n pixels the variance is (n - 1) / n^2, here the difference of two numbers near 255^2.
    assert deviation**2 == pytest.approx(1e-7, abs=5 * 255**2 * 2**-53)


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("shape", [(1, 1), (9, 11)])
def test_blank_images_have_no_scale(shape, value):
    with pytest.raises(ValueError, match="the images are blank: all pixels"):
        pixel_statistics(torch.full(shape, value, dtype=torch.uint8))


def test_normalised_images_have_mean_0_and_deviation_1():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (200, 50), generator=generator).byte()
    before = images.clone()
    mean, deviation = pixel_statistics(images)
    x = normalise(images, mean, deviation)
    assert x.dtype == torch.float32
    assert torch.equal(images, before)
    # In float32: the mean and the deviation, the difference and the quotient round once each.
    u = torch.finfo(torch.float32).eps / 2
    bound = u * (mean + 3 * 255) / deviation
    torch.testing.assert_close(x.double(), (images.double() - mean) / deviation, rtol=0, atol=bound)
    assert float(x.double().mean()) == pytest.approx(0, abs=bound)
    # No normalised pixel is above 255 / deviation, and a square moves twice as fast.
    assert float((x.double() ** 2).mean()) == pytest.approx(1, abs=2 * bound * 255 / deviation)
