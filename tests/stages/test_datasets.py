"""Data sets that torchvision knows: small files in their real formats, through the stages.

What torchvision would download lies in data.local, with the MD5 sums of these files.
"""

import gzip
import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, SAMPLED_YAML
from torchvision import datasets

from isoparam.images.datasets import DATASETS
from isoparam.images.files import load_images
from pipeline import parameters
from stages import download, split

NAMES = ["kmnist", "qmnist", "emnist-letters"]
COUNTS = {"train": 60, "test": 26}

PARAMS = """\
data: {{dataset: {name}, local: files}}
budget: 8000
seeds: [3, 1]
train: {{device: cpu, epochs: 1, batch_size: 8, warmup: 0.2, momentum: 0.9, weight_decay: 0.0}}
models: {{L0: {{depth: 0}}, L2: {{depth: 2, width: 9}}}}
"""


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def images_and_labels(name, partition):
    """Images as one would look at them, and labels from 0."""
    count, classes = COUNTS[partition], DATASETS[name].classes
    random = np.random.default_rng(count)
    return random.integers(0, 256, (count, 28, 28), "uint8"), np.arange(count) % classes


def packed_idx(array: np.ndarray) -> bytes:
    """A packed idx file of bytes or of big-endian 32-bit integers."""
    header = bytearray(download.idx_header(array.shape))
    if array.dtype != np.uint8:
        header[2] = 12
        array = array.astype(">i4")
    return gzip.compress(bytes(header) + array.tobytes())


@pytest.fixture(params=NAMES)
def study(request, tmp_path, monkeypatch):
    """A study of a data set whose packed files are those here; its name."""
    name = request.param
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("ISOPARAM_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    text = PARAMS.format(name=name) + SAMPLED_YAML
    parameters.PARAMETERS.write_text(text, encoding="utf-8")
    parameters.LEARNING_RATES.write_text("L0: 0.01\nL2: 0.01\n", encoding="utf-8")
    folder = tmp_path / "files"
    folder.mkdir()
    contents = {}
    for partition in COUNTS:
        images, labels = images_and_labels(name, partition)
        if name == "qmnist":
            labels = np.stack([labels, *[labels + 100] * 7], axis=1)
            contents[f"qmnist-{partition}-images-idx3-ubyte.gz"] = packed_idx(images)
            contents[f"qmnist-{partition}-labels-idx2-int.gz"] = packed_idx(labels)
        elif name == "emnist-letters":
            images, labels = images.swapaxes(1, 2), labels + 1
            prefix = f"gzip/emnist-letters-{partition}"
            contents[f"{prefix}-images-idx3-ubyte.gz"] = packed_idx(images)
            contents[f"{prefix}-labels-idx1-ubyte.gz"] = packed_idx(labels.astype("uint8"))
        else:
            prefix = partition.replace("test", "t10k")
            contents[f"{prefix}-images-idx3-ubyte.gz"] = packed_idx(images)
            contents[f"{prefix}-labels-idx1-ubyte.gz"] = packed_idx(labels.astype("uint8"))
    if name == "emnist-letters":
        with zipfile.ZipFile(folder / "gzip.zip", "w") as archive:
            for file, content in contents.items():
                archive.writestr(file, content)
        monkeypatch.setattr(datasets.EMNIST, "md5", md5((folder / "gzip.zip").read_bytes()))
        monkeypatch.setattr(datasets.EMNIST, "url", "http://127.0.0.1:1/gzip.zip")
        return name
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    sums = [(file, md5(content)) for file, content in contents.items()]
    if name == "qmnist":
        known = [(f"http://127.0.0.1:1/{file}", value) for file, value in sums]
        monkeypatch.setattr(datasets.QMNIST, "resources", {"train": known[:2], "test": known[2:]})
        return name
    monkeypatch.setattr(datasets.KMNIST, "resources", sums)
    monkeypatch.setattr(datasets.KMNIST, "mirrors", ["http://127.0.0.1:1/"])
    return name


def test_images_and_labels_arrive_as_they_are(study):
    download.main()
    for partition in COUNTS:
        read = datasets.MNIST("data/raw", train=partition == "train")
        images, labels = images_and_labels(study, partition)
        assert (read.data.numpy() == images).all()
        assert (read.targets.numpy() == labels).all()


def test_they_are_split_as_the_study_wants_them(study):
    download.main()
    split.main()
    parts = {path.stem: load_images(path, *DATASETS[study][:2]) for path in split.OUT.iterdir()}
    counts = {name: len(part.labels) for name, part in parts.items()}
    assert counts == {"train": 50, "validation": 10, "test": COUNTS["test"]}
    images, labels = images_and_labels(study, "test")
    assert (parts["test"].images.numpy() == images.reshape(-1, 784)).all()
    assert (parts["test"].labels.numpy() == labels).all()


def test_what_is_not_to_be_had_is_reported_in_one_sentence(study):
    for file in Path("files").iterdir():
        file.write_bytes(b"something else")
    with pytest.raises(ValueError, match=f"^torchvision could not download {study}: ") as error:
        download.main()
    assert "data.local" in str(error.value)
    assert "\n" not in str(error.value)
    assert {file.read_bytes() for file in Path("files").iterdir()} == {b"something else"}
    assert not Path("data/raw").exists()
