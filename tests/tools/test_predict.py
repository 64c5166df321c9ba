"""Predictions for pictures: their making into MNIST's form, and the figures that are printed."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SAMPLED_YAML
from PIL import Image

from isoparam.images.mnist import normalise
from isoparam.network.files import load_perceptron, save_perceptron
from isoparam.network.mlp import initialise, layer_views, logits
from isoparam.network.randomness import Stream, stream_of
from pipeline import files, parameters
from tools import pictures, predict

SIZES = [784, 9, 10]
SEEDS = [3, 1]

PARAMS = """\
data: {dataset: mnist}
budget: 8000
seeds: [3, 1]
train: {device: cpu, epochs: 1, batch_size: 8, warmup: 0.2, momentum: 0.9, weight_decay: 0.0}
models: {L0: {depth: 0}, L1: {depth: 1, width: 9}}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with two replicas of L1, untrained."""
    monkeypatch.chdir(tmp_path)
    parameters.PARAMETERS.write_text(PARAMS + SAMPLED_YAML, encoding="utf-8")
    Path("models/depths/L1").mkdir(parents=True)
    for seed in SEEDS:
        layers = layer_views(torch.zeros(1, 7165), SIZES)
        initialise(layers, [stream_of(seed, Stream.WEIGHTS)])
        metadata = {"seed": seed, "sizes": SIZES, "mean": 33.0, "deviation": 78.0}
        save_perceptron(Path(f"models/depths/L1/seed-{seed}.safetensors"), layers, metadata)
    return tmp_path


def seven(scale: int = 1) -> np.ndarray:
    """A digit as MNIST has it: light on dark, 28 x 28 times `scale`."""
    pixels = np.zeros((28, 28), np.uint8)
    pixels[5:8, 8:20] = 255
    for row in range(8, 24):
        column = 19 - (row - 8) // 2
        pixels[row, column - 2 : column + 1] = 255
    return pixels.repeat(scale, 0).repeat(scale, 1)


def expected(images):
    """Probabilities (R, N, C) of the two replicas."""
    found = []
    for seed in SEEDS:
        layers, m = load_perceptron(Path(f"models/depths/L1/seed-{seed}.safetensors"), SIZES)
        x = normalise(images, m["mean"], m["deviation"])
        found.append(logits(layers, x)[0].double().softmax(-1))
    return torch.stack(found)


def write(name: str, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(name)
    return Path(name)


def test_the_lines_say_what_the_networks_predict(capsys):
    paths = [write("seven.png", seven()), write("turned.png", seven().T.copy())]
    images = torch.stack([torch.from_numpy(pictures.read(path, 28).pixels) for path in paths])
    probabilities = expected(images.flatten(1))
    predict.main(paths, model="L1", as_json=True)
    for index, line in enumerate(capsys.readouterr().out.splitlines()):
        answer = json.loads(line)
        assert (answer["image"], answer["model"], answer["seeds"]) == (str(paths[index]), "L1", 2)
        for label, of_label in answer["probabilities"].items():
            by_seed = probabilities[:, index, int(label)]
            assert of_label["mean"] == pytest.approx(by_seed.mean().item(), abs=1e-6)
            assert of_label["min"] == pytest.approx(by_seed.min().item(), abs=1e-6)
            assert of_label["max"] == pytest.approx(by_seed.max().item(), abs=1e-6)
        best = int(probabilities[:, index].mean(0).argmax())
        assert answer["class"] == str(best)
        assert answer["seeds_that_agree"] == sum(
            int(p.argmax()) == best for p in probabilities[:, index]
        )
    files.write_json(Path("metrics/summary.json"), {"depth": 1})
    predict.main(paths)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    for index, line in enumerate(lines):
        label, percent, agree = re.match(
            r".*png: (\d) \(([\d.]+) %, seeds .* (\d) of 2 agree\), else \d \([\d.]+ %\).*$", line
        ).groups()
        mean = probabilities[:, index].mean(0)
        assert int(label) == int(mean.argmax())
        assert float(percent) == pytest.approx(100 * mean.max().item(), abs=0.051)
        assert int(agree) in {1, 2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"^picture\.png is missing$"),
        (b"GIF of no use", r"^picture\.png is no picture in PNG, JPEG, GIF, BMP, TIFF or WEBP"),
        (np.full((30, 30), 200, np.uint8), r"^picture\.png is blank: it shows no ink"),
    ],
)
def test_a_picture_of_no_use_is_reported(content, message):
    if isinstance(content, bytes):
        Path("picture.png").write_bytes(content)
    elif content is not None:
        write("picture.png", content)
    with pytest.raises(ValueError, match=message):
        predict.main([Path("picture.png")], model="L1")


def test_a_model_that_is_not_there_is_reported():
    path = write("seven.png", seven())
    with pytest.raises(ValueError, match="has no model 'L7'"):
        predict.main([path], model="L7")
    with pytest.raises(ValueError, match=r"seed-3\.safetensors is missing: run `dvc repro`"):
        predict.main([path], model="L0")


def test_show_puts_the_picture_beside_what_is_seen():
    path = write("seven.png", 255 - seven(10))
    predict.main([path], model="L1", show=Path("seen.png"))
    with Image.open("seen.png") as seen:
        assert seen.size == (2 * predict.PANEL, predict.PANEL + predict.LINE)
        left, right = (np.asarray(seen.convert("L"))[:280, at : at + 280] for at in (0, 280))
    assert left.mean() > 200  # dark on light, as it came
    assert right.mean() < 60  # light on dark, as the networks see it


@pytest.mark.parametrize(
    ("show", "message"),
    [("seen.jpg", "--show writes PNG"), ("no/seen.png", "an existing folder")],
)
def test_show_where_it_cannot_be_written_is_refused(show, message):
    with pytest.raises(ValueError, match=message):
        predict.main([write("seven.png", seven())], model="L1", show=Path(show))


def test_the_pictures_that_can_be_read_have_answers(capsys):
    path = write("seven.png", seven())
    with pytest.raises(ValueError, match=r"none\.png is missing"):
        predict.main([Path("none.png"), path], model="L1")
    assert capsys.readouterr().out.startswith("seven.png: ")


@pytest.mark.parametrize(
    ("digits", "probability", "agree", "notes"),
    [
        (1, 0.99, 10, []),
        (0, 0.99, 10, ["this does not look like a digit"]),
        (2, 0.99, 10, ["2 digits are found, and the largest is read"]),
        (1, 0.99, 9, ["unsure: the seeds disagree"]),
        (1, 0.79, 10, ["unsure"]),
        (0, 0.5, 5, ["this does not look like a digit", "unsure: the seeds disagree"]),
    ],
)
def test_what_speaks_against_an_answer_follows_it(
    digits, probability, agree, notes, monkeypatch, capsys
):
    assert predict._notes(digits, probability, agree, seeds=10) == notes
    monkeypatch.setattr(predict, "_notes", lambda *_: notes)
    predict.main([write("seven.png", seven())], model="L1")
    assert capsys.readouterr().out.rstrip().split("; ")[1:] == notes


@pytest.mark.parametrize("dataset", ["digits", "kmnist"])
def test_pictures_are_for_mnists_networks(dataset):
    text = parameters.PARAMETERS.read_text(encoding="utf-8")
    parameters.PARAMETERS.write_text(text.replace("mnist", dataset), encoding="utf-8")
    with pytest.raises(ValueError, match="predict"):
        predict.main([write("seven.png", seven())])
