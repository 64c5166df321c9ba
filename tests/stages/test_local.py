"""Stage `download`: the ways in which people have MNIST's files in a folder, and where it lies."""

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SAMPLED_SECTIONS, Project

from pipeline import parameters
from stages import download

MNIST = download.FILES
FASHION = Path("/usr/share/datasets/fashion-mnist")


def content(shape: tuple[int, ...], number: int) -> bytes:
    return download.idx_header(shape) + bytes([number]) * (7 if len(shape) == 1 else 28)


SHAPES = [(7,), (7, 2, 2), (7,), (7, 2, 2)]
CONTENTS = {
    file.name: content(shape, number)
    for number, (file, shape) in enumerate(zip(download.FILES, SHAPES, strict=True))
}


def files_of(contents: dict[str, bytes]) -> tuple[download.File, ...]:
    return tuple(
        download.File(name, len(each), hashlib.md5(each, usedforsecurity=False).hexdigest())
        for name, each in contents.items()
    )


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a project, with tiny files to look for and no variable that names a folder."""
    monkeypatch.setattr(download, "FILES", files_of(CONTENTS))
    monkeypatch.delenv("ISOPARAM_DATA", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def write_params(dataset: str = "mnist", local: str | None = None) -> None:
    document = {
        "data": {"dataset": dataset, "local": local, "mirrors": []},
        "budget": 9610,
        "seeds": [0],
        "train": {
            "epochs": 1,
            "batch_size": 32,
            "warmup": 0.2,
            "momentum": 0.9,
            "weight_decay": 0.0,
        },
        "models": {"L0": {"depth": 0}},
    }
    parameters.PARAMETERS.write_text(json.dumps(document | SAMPLED_SECTIONS), encoding="utf-8")


def written() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path("data/raw/MNIST/raw").iterdir()}


def dotted(name: str) -> str:
    return name.replace("-idx", ".idx")


WAYS = {
    "packed": lambda name: (f"{name}.gz", True),
    "unpacked": lambda name: (name, False),
    "unpacked under a packed name": lambda name: (f"{name}.gz", False),
    "packed under an unpacked name": lambda name: (name, True),
    "with a dot": lambda name: (dotted(name), False),
    "with a dot, packed": lambda name: (f"{dotted(name)}.gz", True),
    "Kaggle": lambda name: (f"{name}/{name}", False),
    "Kaggle with a dot": lambda name: (f"{dotted(name)}/{dotted(name)}", False),
    "torchvision's root": lambda name: (f"MNIST/raw/{name}", False),
    "torchvision's folder": lambda name: (f"raw/{name}.gz", True),
}


@pytest.mark.parametrize("way", WAYS)
def test_files_are_taken_as_people_have_them(way: str) -> None:
    for name, each in CONTENTS.items():
        place, packed = WAYS[way](name)
        path = Path("mine", place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(each) if packed else each)
    write_params(local="mine")
    download.main()
    assert written() == CONTENTS


def test_of_several_files_of_a_name_the_right_content_is_taken() -> None:
    for data_set, change in {"AMNIST": b"other", "FashionMNIST": b"too", "MNIST": b""}.items():
        for name, each in CONTENTS.items():
            path = Path("root", data_set, "raw", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(each + change)
    Path("root", f"{download.FILES[0].name}.gz").write_bytes(b"\x1f\x8b damaged")
    write_params(local="root")
    download.main()
    assert written() == CONTENTS


@pytest.mark.parametrize(
    ("there", "sentence"),
    [
        (
            {"train-images.gz": b"", "notes.txt": b""},
            "mine: {name} is missing, packed or not; there is notes.txt, train-images.gz",
        ),
        ({}, "mine: {name} is missing, packed or not; there is nothing"),
        (
            {"{name}": b"abc", "{name}.gz": b"\x1f\x8b"},
            (
                "mine: {name}.gz: Compressed file ended before the end-of-stream marker was "
                "reached; {name}: the content has 3 bytes and MD5 900150983cd24fb0d6963f7d28e17f72"
            ),
        ),
    ],
)
def test_message_says_what_is_missing_and_what_is_there(
    there: dict[str, bytes], sentence: str
) -> None:
    name = download.FILES[0].name
    Path("mine").mkdir()
    for file, each in there.items():
        Path("mine", file.format(name=name)).write_bytes(each)
    write_params(local="mine")
    with pytest.raises(ValueError, match="no source gave") as caught:
        download.main()
    assert str(caught.value).splitlines()[1].strip().startswith(sentence.format(name=name))
    assert not Path("data").exists()


def folder_of_files(folder: Path) -> None:
    folder.mkdir()
    for name, each in CONTENTS.items():
        (folder / name).write_bytes(each)


@pytest.mark.parametrize("absolute", [True, False])
def test_a_variable_names_a_folder_without_a_change_of_parameters(
    absolute: bool, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of_files(project.parent / "mine")
    monkeypatch.setenv("ISOPARAM_DATA", str(project.parent / "mine") if absolute else "../mine")
    write_params()
    download.main()
    assert written() == CONTENTS


@pytest.mark.parametrize("named", ["ISOPARAM_DATA", "data.local"])
def test_a_relative_folder_is_found_from_the_copy_in_which_dvc_runs_an_experiment(
    named: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of_files(project.parent / "mine")
    copy = project / ".dvc/tmp/exps/standalone/copy"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(project))
    if named == "ISOPARAM_DATA":
        monkeypatch.setenv(named, "../mine")
    write_params(local="../mine" if named == "data.local" else None)
    download.main()
    assert written() == CONTENTS


def test_an_experiment_in_a_copy_finds_a_relative_folder(
    mnist: Path, new_study: Callable[..., Project], tmp_path: Path
) -> None:
    study = new_study({("data", "mirrors"): []}, rate=0.05)
    (tmp_path / "mnist").symlink_to(mnist)
    command = "dvc exp run --temp --name one --set-param data.local=../mnist download"
    study.run(*command.split())
    assert study.run("dvc", "exp", "list", "--name-only").split() == ["one"]


def test_fashion_mnist_is_known_by_its_content_however_it_is_packed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = {name: each[:-1] + b"\xff" for name, each in CONTENTS.items()}
    sums = tuple(file.md5 for file in files_of(other))
    monkeypatch.setattr(download, "FASHION_MD5", sums)
    monkeypatch.setattr(download, "FASHION_SOURCES", ("package",))
    Path("package").mkdir()
    for name, each in other.items():
        Path("package", f"{name}.gz").write_bytes(gzip.compress(each, 1))
    write_params("fashion-mnist")
    download.main()
    assert written() == other


@pytest.mark.skipif(not FASHION.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_debians_package_is_fashion_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "FILES", MNIST)
    sources: list[str] = []
    monkeypatch.setattr(download.requests, "Session", lambda: sources.append("network"))
    write_params("fashion-mnist")
    download.main()
    images, labels = download.FILES[0].name, download.FILES[1].name
    assert len(written()[images]) == 16 + 60_000 * 784
    assert [written()[labels][8:].count(label) for label in range(10)] == [6000] * 10
    assert not sources
