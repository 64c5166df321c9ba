"""A network as an ONNX file: what it computes, what it says of itself, and what it refuses."""

from pathlib import Path

import onnx
import pytest
import torch
from conftest import SAMPLED_YAML
from onnx.reference import ReferenceEvaluator

from isoparam.images.mnist import normalise
from isoparam.network.files import load_perceptron, save_perceptron
from isoparam.network.mlp import initialise, layer_views, logits
from isoparam.network.randomness import Stream, stream_of
from pipeline import files, parameters
from tools import export

SIZES = [784, 9, 10]
FILE = Path("models/depths/L1/seed-3.safetensors")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with two replicas of L1, untrained."""
    monkeypatch.chdir(tmp_path)
    parameters.PARAMETERS.write_text(
        "data: {dataset: mnist}\nbudget: 8000\nseeds: [3, 1]\n"
        "train: {epochs: 1, batch_size: 8, warmup: 0.2, momentum: 0.9, weight_decay: 0.0}\n"
        f"models: {{L0: {{depth: 0}}, L1: {{depth: 1, width: 9}}}}\n{SAMPLED_YAML}",
        encoding="utf-8",
    )
    FILE.parent.mkdir(parents=True)
    for seed in (3, 1):
        layers = layer_views(torch.zeros(1, 7165), SIZES)
        initialise(layers, [stream_of(seed, Stream.WEIGHTS)])
        metadata = {"seed": seed, "sizes": SIZES, "mean": 33.0, "deviation": 78.0}
        save_perceptron(FILE.with_name(f"seed-{seed}.safetensors"), layers, metadata)


@pytest.mark.parametrize("seed", [None, 1])
def test_it_computes_what_the_network_does(seed):
    export.main("L1", Path("L1.onnx"), seed=seed)
    images = torch.randint(0, 256, (50, 784), dtype=torch.uint8)
    pixels = {"pixels": images.float().numpy()}
    found = ReferenceEvaluator("L1.onnx").run(["logits", "probabilities"], pixels)
    layers, m = load_perceptron(FILE.with_name(f"seed-{seed or 3}.safetensors"), SIZES)
    expected = logits(layers, normalise(images, m["mean"], m["deviation"]))[0]
    # Sums of 784 products of float32, in whatever order.
    assert found[0] == pytest.approx(expected.numpy(), abs=1e-4)
    assert found[1] == pytest.approx(expected.softmax(-1).numpy(), abs=1e-4)


def test_pictures_that_are_not_flattened_are_refused():
    export.main("L1", Path("L1.onnx"))
    pixels = {"pixels": torch.zeros(5, 28, 28).numpy()}
    with pytest.raises(Exception, match=r"(?i)shape|dimension"):
        ReferenceEvaluator("L1.onnx").run(["logits"], pixels)


def test_it_says_what_it_is(capsys):
    export.main("L1", Path("L1.onnx"))
    whole = onnx.load("L1.onnx")
    said = {entry.key: entry.value for entry in whole.metadata_props}
    (pixels,) = whole.graph.input
    assert [d.dim_param or d.dim_value for d in pixels.type.tensor_type.shape.dim] == ["N", 784]
    assert said["pixels"] == pixels.doc_string == export.PIXELS
    assert "0 to 255" in export.PIXELS
    assert said["classes"] == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert (said["data"], said["sizes"], said["seed"]) == ("mnist", "[784, 9, 10]", "3")
    assert said["version"] == f"{files.md5_of(FILE)}, the MD5 of {FILE.as_posix()}"
    assert capsys.readouterr().out.startswith("L1.onnx: L1, seed 3; ")


@pytest.mark.parametrize(
    ("model", "out", "seed", "message"),
    [
        (
            "L1",
            "exports",
            None,
            r"^exports is a folder: .*, such as exports/L1\.onnx$",
        ),
        ("L1", "none/L1.onnx", None, r"^there is no folder none: make it"),
        ("L1", "L1.onnx", 7, r"^there is no seed 7: params\.yaml has 3, 1$"),
        ("L9", "L1.onnx", None, r"^params\.yaml has no model 'L9' under models; it has L0, L1$"),
        ("L0", "L1.onnx", None, r"seed-3\.safetensors is missing"),
    ],
)
def test_what_it_refuses_changes_nothing(model, out, seed, message):
    kept = Path("exports/kept.txt")
    kept.parent.mkdir()
    kept.write_text("kept", encoding="utf-8")
    before = sorted(Path().rglob("*"))
    with pytest.raises(ValueError, match=message):
        export.main(model, Path(out), seed=seed)
    assert sorted(Path().rglob("*")) == before
