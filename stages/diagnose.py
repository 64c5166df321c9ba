"""Stage diagnose: what the trained networks do on the test set, and what their layers pass on.

It reports and chooses nothing. One process handles all models: importing torch takes longer than
examining one.
"""

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from isoparam.budget import layer_sizes, parameters_of
from isoparam.images.datasets import sizes_of
from isoparam.images.files import load_images
from isoparam.images.mnist import Images, normalise
from isoparam.network import bits
from isoparam.network.files import load_replicas
from isoparam.network.mlp import Layers, initialise, layer_views, logits
from isoparam.network.randomness import Stream, stream_of
from isoparam.network.softmax import cross_entropy
from isoparam.results.diagnostics import (
    calibration,
    confusion_matrix,
    expected_calibration_error,
    gradient_norms,
    hardest,
    similarities,
    votes,
)
from isoparam.results.statistics import described
from pipeline import commands, files, parameters

SPLIT = Path("data/split")
MODELS = Path("models/depths")
OUT = Path("plots/diagnostics")

# The number that Guo et al. use.
BINS = 15
# Layers are compared on the first training images.
PROBE_IMAGES = 500


def main() -> None:
    """Write the tables of plots/diagnostics."""
    params = parameters.read_params()
    bits.use_instructions(strict=params.train.strict)
    inputs, classes = sizes_of(params.data.dataset, params.data.own)
    train, test = (
        load_images(SPLIT / f"{part}.safetensors", inputs, classes) for part in ("train", "test")
    )
    labels, seeds = test.labels.long(), params.seeds
    by_image = torch.zeros(len(labels), classes, dtype=torch.int64)  # (N, C)
    losses = torch.zeros(len(labels), dtype=torch.float64)  # (N,)
    tables: dict[str, list[pd.DataFrame]] = {}
    for name, model in params.models.items():
        sizes = layer_sizes(model.depth, model.width or 0, inputs, classes)
        layers, scale = load_replicas(MODELS / name, seeds, sizes)
        z = logits(layers, normalise(test.images, *scale)).double()  # (R, N, C)
        loss = cross_entropy(z, labels.expand(z.shape[:-1]))  # (R, N)
        said = votes(z.argmax(-1), classes)  # (N, C)
        by_image += said
        losses += loss.sum(0)
        bins, errors = _calibrate(z, labels)
        probe = (normalise(train.images[:PROBE_IMAGES], *scale), train.labels[:PROBE_IMAGES].long())
        summary = {
            "depth": model.depth,
            "seeds": len(seeds),
            **described("test_loss", loss.mean(1).tolist(), share=False, deviation=False),
            **described("ece", errors, deviation=False),
            "test_images": len(labels),
            "probe_images": len(probe[0]),
            "wrong_by_all_seeds": int((said.gather(1, labels[:, None]) == 0).sum()),
        }
        initial = layer_views(torch.zeros(len(seeds), parameters_of(sizes)), sizes)
        initialise(initial, [stream_of(seed, Stream.WEIGHTS) for seed in seeds])
        for table, frame in {
            "summary": pd.DataFrame([summary]),
            "confusion": _confuse(said, labels, len(seeds)),
            "calibration": bins,
            "layers": pd.concat(
                [_look("initial", initial, *probe), _look("trained", layers, *probe)]
            ),
        }.items():
            frame.insert(0, "model", name)
            tables.setdefault(table, []).append(frame)
        del layers, initial  # before those of the next model take memory
    hard = hardest(by_image, labels)
    hard = hard[losses[hard].argsort(descending=True, stable=True)]
    tables["hard_digits"] = [_describe(test, by_image, hard)]
    with files.replacing(OUT) as partial:
        for table, frames in tables.items():
            files.write_csv(partial / f"{table}.csv", pd.concat(frames))


def _calibrate(z: Tensor, labels: Tensor) -> tuple[pd.DataFrame, list[float]]:
    """The bins over all seeds that are not empty, and each seed's expected calibration error."""
    confidence, predicted = torch.softmax(z, -1).max(-1)  # (R, N) each
    correct = predicted == labels
    errors = [
        expected_calibration_error(calibration(*replica, BINS))
        for replica in zip(confidence, correct, strict=True)
    ]
    bins = calibration(confidence.flatten(), correct.flatten(), BINS)
    table = pd.DataFrame(
        {
            "bin": range(1, BINS + 1),
            "bins": BINS,
            "count": bins.counts.tolist(),
            "confidence": bins.confidence.tolist(),
            "accuracy": bins.accuracy.tolist(),
        }
    )
    return table[bins.counts.numpy() > 0], errors


def _confuse(said: Tensor, labels: Tensor, seeds: int) -> pd.DataFrame:
    """Images of each digit (rows) by predicted digit (columns), the mean over seeds."""
    means = confusion_matrix(said, labels).double() / seeds
    table = pd.DataFrame(means.tolist())
    table.insert(0, "label", range(len(table)))
    return table


def _look(state: str, layers: Layers, x: Tensor, labels: Tensor) -> pd.DataFrame:
    """The gradient's norm and the images' similarity at each layer: median and range over seeds."""
    columns: dict[str, object] = {"state": state, "layer": range(1, len(layers) + 1)}
    for name, values in {  # (R, number of layers) each
        "gradient_norm": gradient_norms(layers, x, labels).double(),
        "similarity": similarities(layers, x).double(),
    }.items():
        columns[name] = values.quantile(0.5, 0).tolist()
        columns[f"{name}_least"] = values.amin(0).tolist()
        columns[f"{name}_greatest"] = values.amax(0).tolist()
    return pd.DataFrame(columns)


def _describe(test: Images, by_image: Tensor, chosen: Tensor) -> pd.DataFrame:
    """The predictions for the chosen images, and their pixels, two hexadecimal digits each."""
    labels, said = test.labels[chosen].long(), by_image[chosen]
    networks = said.sum(1)
    return pd.DataFrame(
        {
            "index": chosen.tolist(),
            "label": labels.tolist(),
            "predicted": said.argmax(1).tolist(),
            "votes": said.amax(1).tolist(),
            "wrong": (networks - said.gather(1, labels[:, None])[:, 0]).tolist(),
            "networks": networks.tolist(),
            "pixels": [
                "" if test.images.is_floating_point() else bytes(pixels).hex()
                for pixels in test.images[chosen].tolist()
            ],
        }
    )


if __name__ == "__main__":
    commands.run(main)
