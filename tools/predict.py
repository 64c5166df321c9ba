"""What trained networks see in pictures of digits: photographs, scans, drawings, MNIST's own."""

import json
from collections import Counter
from math import isqrt
from pathlib import Path
from typing import Annotated

import torch
import typer
from PIL import Image, ImageDraw, ImageOps

from isoparam.images.mnist import normalise
from isoparam.network.files import load_replicas
from isoparam.network.mlp import logits
from pipeline import files, parameters
from tools import findings, pictures

MODELS = Path("models/depths")
# Those with one known making of their pictures.
DATASETS = ("mnist", "qmnist")
# An answer is called unsure if its mean probability over the seeds is below this.
SURE = 0.8
# Pixels of each picture in what `--show` writes, and below it for the answer.
PANEL, LINE = 280, 24


def main(
    paths: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help=f"{', '.join(pictures.FORMATS)}.")
    ],
    model: Annotated[str | None, typer.Option(help="A model of params.yaml, such as L3.")] = None,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, an object a picture.")
    ] = False,
    show: Annotated[
        Path | None,
        typer.Option(metavar="OUT.png", help="Write each picture beside what the networks see."),
    ] = None,
) -> None:
    """Print a line for each picture: the class, its probability, and how the seeds agree.

    The probability is the mean over the seeds of the model, beside the least and the greatest; the
    model is the one that validation chose, if none is named. A note follows where the networks are
    unsure, or the picture seems to hold several digits or none.
    """
    params = parameters.read_params()
    dataset = params.data.dataset
    _check_dataset(dataset)
    if show:
        _check_output(show, paths)
    inputs, classes = params.data.sizes
    name = model or findings.chosen_model()
    network = parameters.find_model(params.models, name)
    names = findings.class_names()
    layers, scale = load_replicas(MODELS / name, params.seeds, network.sizes(params.data))
    seeds = len(params.seeds)
    errors, panels = [], []
    for path in paths:
        try:
            reading = pictures.read(path, isqrt(inputs))
        except ValueError as error:  # the others have answers all the same
            errors.append(str(error))
            continue
        image = torch.from_numpy(reading.pixels).reshape(1, -1)  # (1, D)
        z = logits(layers, normalise(image, *scale))  # (R, 1, C)
        of_picture = z[:, 0].double().softmax(-1)  # (R, C)
        mean, least, most = of_picture.mean(0), of_picture.amin(0), of_picture.amax(0)  # (C,)
        label, second = mean.topk(2).indices.tolist()
        agree = Counter(of_picture.argmax(-1).tolist())[label]
        notes = _notes(reading.digits, mean[label].item(), agree, seeds)
        line = (
            f"{path}: {names[label]} ({_percent(mean[label])}, seeds {_percent(least[label])} to "
            f"{_percent(most[label])}, {agree} of {seeds} agree), "
            f"else {names[second]} ({_percent(mean[second])})"
        )
        answer = {
            "image": str(path),
            "model": name,
            "class": names[label],
            "seeds": seeds,
            "seeds_that_agree": agree,
            "notes": notes,
            "probabilities": {
                names[i]: {"mean": mean[i].item(), "min": least[i].item(), "max": most[i].item()}
                for i in range(classes)
            },
        }
        print(json.dumps(answer) if as_json else "; ".join([line, *notes]))
        if show:
            words = f"{path.name}: {names[label]} ({_percent(mean[label])})"
            panels.append(_panel(reading, "; ".join([words, *notes])))
    if show and panels:
        whole = Image.new("RGB", (2 * PANEL, (PANEL + LINE) * len(panels)))
        for index, panel in enumerate(panels):
            whole.paste(panel, (0, (PANEL + LINE) * index))
        with files.replacing(show) as partial:
            whole.save(partial, "PNG")
    if errors:
        raise ValueError("\n".join(errors))


def _check_dataset(dataset: str) -> None:
    if dataset == "own":
        raise ValueError(
            "predict reads pictures of digits: use `export` for networks of your own data"
        )
    if dataset == "digits":
        raise ValueError(
            "the digits have 8 by 8 pixels, made in an unknown way: predict needs MNIST"
        )
    if dataset not in DATASETS:
        raise ValueError(f"predict makes pictures as MNIST's were made, and {dataset}'s were not")


def _check_output(show: Path, paths: list[Path]) -> None:
    if show.suffix.lower() != ".png":
        raise ValueError(f"--show writes PNG: name a file such as {show.with_suffix('.png')}")
    if show.is_dir() or not show.parent.is_dir():
        raise ValueError(f"{show} cannot be written: it must be a file in an existing folder")
    if show.exists() and any(path.exists() and show.samefile(path) for path in paths):
        raise ValueError(f"{show} is one of the pictures: name another file to write")


def _notes(digits: int, probability: float, agree: int, seeds: int) -> list[str]:
    """What a reader should know before trusting an answer."""
    notes = []
    if digits == 0:
        notes.append("this does not look like a digit")
    if digits > 1:
        notes.append(f"{digits} digits are found, and the largest is read")
    if agree < seeds or probability < SURE:
        notes.append("unsure" if agree == seeds else "unsure: the seeds disagree")
    return notes


def _panel(reading: pictures.Reading, words: str) -> Image.Image:
    """A picture beside what is read of it, both enlarged, and the answer below."""
    panel = Image.new("RGB", (2 * PANEL, PANEL + LINE), "white")
    for left, pixels in ((0, reading.picture), (PANEL, reading.pixels)):
        image = ImageOps.contain(
            Image.fromarray(pixels), (PANEL, PANEL), method=Image.Resampling.NEAREST
        )
        panel.paste(image, (left + (PANEL - image.width) // 2, (PANEL - image.height) // 2))
    ImageDraw.Draw(panel).text((4, PANEL + 4), words, fill="black")
    return panel


def _percent(share: torch.Tensor) -> str:
    return f"{100 * share.item():.1f} %"
