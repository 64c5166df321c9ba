"""Own data: how they are read and split, and the study on them from end to end."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pandas as pd
import pytest
import torch
from conftest import ROOT, SAMPLED_SECTIONS, Project, slow
from PIL import Image
from ruamel.yaml import YAML

from isoparam.images.datasets import Dataset
from isoparam.images.files import load_images
from isoparam.images.own import read_own, split_own
from pipeline import files, parameters
from stages import (
    aggregate,
    check,
    diagnose,
    download,
    evaluate,
    evaluate_sampled,
    instance,
    plot,
    plot_diagnostics,
    plot_sampled,
    sampled,
    split,
    train,
)
from tools import export, own, predict, report

SHARES = {"validation": 0.15, "test": 0.2}
NAMES = ["low", "middle", "high"]


def features(count: int) -> dict[str, np.ndarray]:
    """Examples of three classes of 1/2, 1/3 and 1/6, each feature with a scale of its own."""
    labels = np.array([0, 0, 0, 1, 1, 2] * (count // 6))
    x = np.random.default_rng(0).normal(size=(len(labels), 5)) + labels[:, None]
    return {"x": x * [1e-6, 1.0, 10.0, 1e6, 0.0] + 1000.0, "y": labels}


def write_pictures(folder: Path, count: int) -> None:
    """Pictures of 8 by 8 pixels of three classes, which differ in brightness."""
    random = np.random.default_rng(1)
    for label, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(80 * label, 80 * label + 90, (8, 8), "uint8")
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def write_params() -> None:
    document = {
        "data": {"dataset": "mnist", "seed": 0, **SHARES},
        "budget": 600,
        "seeds": [3, 1],
        "train": {
            "epochs": 3,
            "batch_size": 8,
            "warmup": 0.2,
            "momentum": 0.9,
            "weight_decay": 0.0,
        },
        "models": {"L0": {"depth": 0}, "L2": {"depth": 2, "width": 1}},
        **SAMPLED_SECTIONS,
    }
    for samples in (2, 3):  # of three classes there are two others
        run = {"weighting": "importance", "samples": samples, "learning_rate": 0.1}
        runs = SAMPLED_SECTIONS["sampled"]["runs"] | {f"importance_{samples}": run}
        document["sampled"] = SAMPLED_SECTIONS["sampled"] | {"runs": runs}
    YAML().dump(document, parameters.PARAMETERS)
    parameters.LEARNING_RATES.write_text("L0: 0.05\nL2: 0.05\n", encoding="utf-8")


@pytest.fixture(autouse=True)
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the parameters of a small study, to run in."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    write_params()


@pytest.fixture
@slow
def run_all(one_process: None) -> Callable[[], None]:  # noqa: ARG001 (it must be there)
    """Runs all stages."""
    return _run_all


def _run_all() -> None:
    check.main()
    download.main()
    split.main()
    for name in ("L0", "L2"):
        train.main(name, workers=1)
        evaluate.main(name)
    for stage in (aggregate, plot, diagnose, plot_diagnostics):
        stage.main()
    sampled.main(workers=1)
    instance.main(workers=1)
    evaluate_sampled.main()
    plot_sampled.main()


def test_the_study_goes_all_the_way_on_features(run_all: Callable[[], None]) -> None:
    data = features(120)
    np.savez("mine.npz", classes=NAMES, **data)
    own.main(Path("mine.npz"))
    assert set(parameters.read_params().sampled.runs) == {"full"}
    run_all()
    summary = files.read_json(Path("metrics/summary.json"))
    assert summary["test_accuracy"] > 0.6  # chance is a half
    assert files.read_json(Path("metrics/depths/L0.json"))["parameters"] == (5 + 1) * 3
    assert files.read_json(Path("metrics/comparisons.json"))["test_images"] == 24
    assert len(list(Path("plots").glob("*.png"))) == 8
    page = report.render(draws=bool(report.read_networks()))
    assert "These data are no pictures" in page
    assert "The hardest examples" in page
    assert "Which classes are taken for which" in page
    confusion = report.read_tables()["confusion"]
    assert list(confusion["label"].unique()) == list(confusion["predicted"].unique()) == NAMES
    assert all(name in page for name in NAMES)
    assert 'id="pad"' not in page
    with pytest.raises(ValueError, match="predict reads pictures of digits"):
        predict.main([Path("seven.png")])
    # The exported network takes the features as they were.
    export.main("L2", Path("L2.onnx"), seed=1)
    network = onnx.reference.ReferenceEvaluator(onnx.load("L2.onnx"))
    test = load_images(Path("data/split/test.safetensors"), 5, 3)
    outputs = dict(
        zip(network.output_names, network.run(None, {"pixels": test.images.numpy()}), strict=True)
    )
    right = outputs["logits"].argmax(1) == test.labels.numpy()
    accuracies = files.read_json(Path("metrics/depths/L2.json"))["test_accuracies"]
    assert right.mean() == pytest.approx(accuracies[1], abs=1e-6)


def test_the_study_goes_all_the_way_on_pictures(run_all: Callable[[], None]) -> None:
    write_pictures(Path("mine/train"), 20)
    write_pictures(Path("mine/test"), 5)
    (Path("mine/train/.DS_Store")).touch()
    own.main(Path("mine"))
    run_all()
    assert parameters.read_params().data.own == Dataset(64, 3, 15)
    assert parameters.read_params().data.names == sorted(NAMES)
    assert files.read_json(Path("metrics/summary.json"))["test_accuracy"] > 0.6
    hard = pd.read_csv("plots/diagnostics/hard_digits.csv")
    images = load_images(Path("data/split/test.safetensors"), 64, 3).images
    assert images.dtype == torch.uint8
    for index, pixels in zip(hard["index"], hard["pixels"], strict=True):
        assert bytes.fromhex(pixels) == bytes(images[index].tolist())
    page = report.render(draws=False)
    assert "data:image/png" in page
    assert "These data are no pictures" not in page


def parts_of(data: dict[str, Any], **changes: Any) -> dict[str, Any]:
    np.savez("mine.npz", **data)
    return split_own(read_own(Path("mine.npz")), **({**SHARES, "seed": 0} | changes))


def rows(part: Any) -> list[tuple[float, ...]]:
    return sorted((*x, label) for x, label in zip(part[0].tolist(), part[1].tolist(), strict=True))


def test_each_example_is_in_one_part_and_each_class_has_its_shares() -> None:
    data = features(120)
    parts = parts_of(data)
    whole = zip(data["x"].astype("float32").tolist(), data["y"].tolist(), strict=True)
    assert sorted(row for part in parts.values() for row in rows(part)) == sorted(
        (*x, label) for x, label in whole
    )
    counts = {name: part.labels.bincount().tolist() for name, part in parts.items()}
    assert counts == {"train": [39, 26, 13], "validation": [9, 6, 3], "test": [12, 8, 4]}
    again, other = parts_of(data), parts_of(data, seed=1)
    assert all(torch.equal(parts[name].images, again[name].images) for name in parts)
    assert rows(parts["test"]) != rows(other["test"])


def test_a_part_to_test_stays_as_it_is() -> None:
    data = features(60)
    arrays = {"x_train": data["x"], "y_train": data["y"], "x_test": data["x"][:7] + 1}
    parts = parts_of(arrays | {"y_test": data["y"][:7]}, test=0.5)
    assert torch.equal(parts["test"].images, torch.from_numpy(data["x"][:7] + 1).float())
    assert len(parts["train"].labels) + len(parts["validation"].labels) == 60
    assert len(parts["validation"].labels) == pytest.approx(60 * 0.15, abs=1)


@pytest.mark.parametrize(
    ("x", "kind", "inputs"),
    [
        (np.arange(6 * 9).reshape(6, 3, 3).astype("uint8"), torch.uint8, 9),
        (np.arange(6 * 9).reshape(6, 9).astype("uint8"), torch.float32, 9),
        (np.arange(6 * 6).reshape(6, 2, 3).astype("uint8"), torch.float32, 6),
        (np.arange(6 * 9).reshape(6, 3, 3) > 7, torch.float32, 9),
        (np.arange(6 * 9).reshape(6, 3, 3), torch.float32, 9),
    ],
    ids=["square pictures", "bytes", "oblong pictures", "truth values", "integers"],
)
def test_square_pictures_of_bytes_stay_bytes(x: np.ndarray, kind: torch.dtype, inputs: int) -> None:
    np.savez("mine.npz", x=x, y=np.array([0, 1, 0, 1, 0, 1]))
    images = read_own(Path("mine.npz")).train.images
    assert images.dtype == kind
    assert images.tolist() == x.reshape(6, inputs).astype(int).tolist()


def test_labels_may_be_any_integers_and_many() -> None:
    labels = np.repeat(np.arange(-5, 395), 2)
    np.savez("mine.npz", x=labels[:, None] / 7, y=labels * 3)
    read = read_own(Path("mine.npz"))
    assert read.names == [str(3 * label) for label in range(-5, 395)]
    assert read.train.labels.tolist() == (labels + 5).tolist()


GOOD = features(12)
X, Y = GOOD["x"], GOOD["y"]
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "NaN": ({"x": np.where(X > 1000, X, np.nan), "y": Y}, "x has a number that is not finite"),
    "infinite": ({"x": X * 1e38, "y": Y}, "not finite, or too large for float32"),
    "one class": ({"x": X, "y": Y * 0}, "two classes or more, each with its own name, got 1"),
    "one name twice": ({"x": X, "y": Y, "classes": ["a", "b", "a"]}, "with its own name, got 3"),
    "one member": ({"x": X[:6], "y": Y[:6]}, "class 2 must have two examples or more, got 1"),
    "no member": (
        {"x": X, "y": Y, "classes": [*NAMES, "none"]},
        "class none must have two examples or more, got 0",
    ),
    "one name": ({"x": X, "y": Y, "classes": np.array("a")}, "classes must be one row of names"),
    "columns of names": ({"x": X, "y": Y, "classes": [NAMES]}, "classes must be one row of names"),
    "lengths": ({"x": X, "y": Y[1:]}, r"got \(12, 5\) and \(11,\)"),
    "no example": ({"x": X[:0], "y": Y[:0]}, r"got \(0, 5\) and \(0,\)"),
    "one axis": ({"x": X[:, 0], "y": Y}, r"x must be \(N, \.\.\.\)"),
    "columns of labels": ({"x": X, "y": Y[:, None]}, r"and \(12, 1\)"),
    "labels of floats": ({"x": X, "y": Y + 0.5}, "y integers, got float64 and float64"),
    "labels of texts": ({"x": X, "y": Y.astype(str)}, "y integers"),
    "texts": ({"x": X.astype(str), "y": Y}, "x must hold numbers"),
    "complex numbers": ({"x": X * 1j, "y": Y}, "x must hold numbers"),
    "objects": ({"x": X.astype(object), "y": Y}, "Object arrays cannot be loaded"),
    "names": ({"images": X, "labels": Y}, "it must hold x and y, or x_train"),
    "no labels to test": (
        {"x_train": X, "y_train": Y, "x_test": X},
        "it must hold x and y, or x_train",
    ),
    "another shape": (
        {"x_train": X, "y_train": Y, "x_test": X[:, 1:], "y_test": Y},
        "must have one type and one shape",
    ),
    "a class in test alone": (
        {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y + 1},
        "label 3 is none of the 3 classes",
    ),
    "more labels than names": ({"x": X, "y": Y, "classes": NAMES[:2]}, "label 2 is none of the 2"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_is_wrong_is_refused_in_one_sentence(case: str) -> None:
    arrays, sentence = BAD[case]
    np.savez("mine.npz", **arrays)
    before = parameters.PARAMETERS.read_bytes()
    with pytest.raises(ValueError, match=sentence) as caught:
        own.main(Path("mine.npz"))
    assert str(caught.value).startswith("mine.npz: ")
    assert "\n" not in str(caught.value)
    assert parameters.PARAMETERS.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"cos\nsystem\n(S'touch pwned'\ntR."])
def test_what_is_no_npz_file_is_refused(content: bytes) -> None:
    Path("mine.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"^mine\.npz: no \.npz file of numbers: "):
        own.main(Path("mine.npz"))
    assert not Path("pwned").exists()


def test_folders_that_are_wrong_are_refused_in_one_sentence() -> None:
    mine = Path("mine")
    mine.mkdir()

    def refused(sentence: str) -> None:
        with pytest.raises(ValueError, match=rf"^mine: .*{sentence}"):
            read_own(mine)

    refused("there must be a folder of pictures for each class")
    write_pictures(mine, 3)
    read_own(mine)
    (mine / "low/notes.txt").write_text("no picture", encoding="utf-8")
    refused(r"mine/low/notes\.txt is not an 8-bit picture")
    (mine / "low/notes.txt").unlink()
    Image.fromarray(np.zeros((8, 9), "uint8")).save(mine / "middle/wide.png")
    refused(r"middle/wide\.png has \(8, 9\) pixels, the others have \(8, 8\)")
    Image.fromarray(np.zeros((8, 8), "uint16")).save(mine / "middle/wide.png")
    refused(r"middle/wide\.png is not an 8-bit picture: pixels of I;16")
    (mine / "middle/wide.png").unlink()
    shutil.copytree(mine, mine / "train")
    write_pictures(mine / "test/extra", 1)
    for name in NAMES:
        shutil.rmtree(mine / name)
    refused("test has a class extra, and train has none")


def test_the_same_data_again_change_nothing_and_keep_all_comments() -> None:
    shutil.copy(ROOT / "params.yaml", parameters.PARAMETERS)
    np.savez("mine.npz", **features(60))
    before = parameters.PARAMETERS.read_text(encoding="utf-8")
    own.main(Path("mine.npz"))
    once = parameters.PARAMETERS.read_text(encoding="utf-8")
    own.main(Path("mine.npz"))
    assert parameters.PARAMETERS.read_text(encoding="utf-8") == once
    assert re.findall("#.*", once) == re.findall("#.*", before)


def test_batches_are_no_larger_than_the_examples_to_train_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.savez("mine.npz", **features(60))
    with parameters.edited_params() as document:
        for name in ("train", "sampled", "instance"):
            document[name]["batch_size"] = 128
    own.main(Path("mine.npz"))
    params = parameters.read_params()
    sizes = {each.batch_size for each in (params.train, params.sampled, params.instance)}
    out = capsys.readouterr().out
    assert "examples: 40 for train" in out
    assert sizes == {40}
    assert "batch_size is now 40 in train, sampled, instance" in out


def test_shares_that_leave_a_part_empty_are_refused() -> None:
    with pytest.raises(ValueError, match="leave a part without examples"):
        parts_of({"x": X, "y": Y}, test=0.01)
    with pytest.raises(ValueError, match="or a class without one to train with"):
        parts_of({"x": X, "y": Y}, test=0.5, validation=0.4)


def test_data_that_are_not_as_described_are_refused() -> None:
    np.savez("mine.npz", **GOOD)
    own.main(Path("mine.npz"))
    np.savez("mine.npz", x=X[:, 1:], y=Y)
    download.main()
    with pytest.raises(ValueError, match=r"features=4.*features=5.*python -m tools own"):
        split.main()
    assert not Path("data/split").exists()


def test_parameters_must_describe_own_data() -> None:
    with parameters.edited_params() as document:
        document["data"]["dataset"] = "own"
    with pytest.raises(ValueError, match=r"data: own and names must describe .*tools own PATH"):
        parameters.read_params()


def test_the_example_of_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs/own_data.md").read_text(encoding="utf-8")
    code = text.partition("```python\n")[2].partition("```")[0]
    subprocess.run([sys.executable, "-c", code], check=True)
    with parameters.edited_params() as document:
        document["data"]["test"] = 0.15
        document["budget"] = 9610
    own.main(Path("breast_cancer.npz"))
    assert capsys.readouterr().out.splitlines()[0] in text.splitlines()
    download.main()
    split.main()


def test_a_changed_file_trains_again(new_study: Callable[..., Project]) -> None:
    changes = {("seeds",): [0], ("train", "epochs"): 1, ("budget",): 2000}
    project = new_study(changes, rate=0.05)
    path = project.folder / "mine.npz"
    np.savez(path, **features(600))
    project.run("python", "-m", "tools", "own", "mine.npz")
    metrics = project.folder / "metrics/depths/L1.json"

    def trains() -> bool:
        return "stages.train" in project.run("dvc", "repro", "evaluate@L1")

    assert trains()
    first = metrics.read_bytes()
    assert not trains()
    data = features(600)
    np.savez(path, x=-data["x"], y=data["y"])
    assert trains()
    assert metrics.read_bytes() != first
