"""Predictions for pictures: their making into MNIST's form, and the figures that are printed."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SAMPLED_YAML
from PIL import Image, ImageOps

from isoparam.images.mnist import normalise
from isoparam.network.files import load_perceptron, save_perceptron
from isoparam.network.mlp import initialise, layer_views, logits
from isoparam.network.randomness import Stream, stream_of
from pipeline import files, parameters
from tools import predict

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


def test_what_is_made_as_mnist_is_taken_as_it_is():
    Image.fromarray(seven()).save("seven.png")
    assert (predict.read(Path("seven.png"), 28).numpy() == seven()).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("border", [(0, 0, 0, 0), (400, 10, 3, 90)])
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_size_place_colours_and_format_do_not_matter(mode, inverted, border, kind):
    if kind == "jpeg" and mode in {"RGBA", "P"}:
        mode = "RGB"
    picture = ImageOps.expand(Image.fromarray(seven(7)), border, 0)
    if inverted:
        picture = ImageOps.invert(picture)
    picture.convert(mode).save(f"seven.{kind}", quality=95)
    found = predict.read(Path(f"seven.{kind}"), 28).numpy()
    rows, columns = (found > 127).any(1).nonzero()[0], (found > 127).any(0).nonzero()[0]
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(20, abs=1)
    middle = [(found.sum(1 - axis) @ np.arange(28)) / found.sum() for axis in (0, 1)]
    assert middle == pytest.approx([13.5, 13.5], abs=0.6)
    reference = predict.read(write("reference.png", seven(7)), 28).numpy()
    assert np.abs(found.astype(int) - reference).mean() < 4


def test_what_is_transparent_is_paper():
    ink = np.zeros((140, 140, 4), np.uint8)
    ink[..., 3] = seven(5)
    Image.fromarray(ink).save("ink.png")
    found = predict.read(Path("ink.png"), 28).numpy()
    assert (found == predict.read(write("dark.png", 255 - seven(5)), 28).numpy()).all()


def write(name: str, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(name)
    return Path(name)


def test_the_lines_tell_what_the_networks_say(capsys):
    paths = [write("seven.png", seven()), write("turned.png", seven().T.copy())]
    images = torch.stack([torch.from_numpy(seven()), torch.from_numpy(seven().T.copy())])
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
            r".*png: (\d) \(([\d.]+) %, seeds .* (\d) of 2 agree\), else \d \([\d.]+ %\)$", line
        ).groups()
        mean = probabilities[:, index].mean(0)
        assert int(label) == int(mean.argmax())
        assert float(percent) == pytest.approx(100 * mean.max().item(), abs=0.051)
        assert int(agree) in {1, 2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"^picture\.png is missing$"),
        (b"GIF of no use", r"^picture\.png is not a picture that can be read \("),
        (np.full((30, 30), 200, np.uint8), r"^picture\.png is blank: no pixel differs"),
    ],
)
def test_a_picture_of_no_use_is_told(content, message):
    if isinstance(content, bytes):
        Path("picture.png").write_bytes(content)
    elif content is not None:
        write("picture.png", content)
    with pytest.raises(ValueError, match=message):
        predict.main([Path("picture.png")], model="L1")


def test_a_model_that_is_not_there_is_told():
    path = write("seven.png", seven())
    with pytest.raises(ValueError, match="has no model 'L7'"):
        predict.main([path], model="L7")
    with pytest.raises(ValueError, match=r"seed-3\.safetensors is missing: run `dvc repro`"):
        predict.main([path], model="L0")
