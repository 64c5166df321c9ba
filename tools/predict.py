"""What trained networks see in pictures of digits: PNG or JPEG, light on dark or dark on light."""

import json
from collections import Counter
from math import isqrt
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from isoparam.budget import layer_sizes
from isoparam.images.datasets import sizes_of
from isoparam.images.mnist import normalise
from isoparam.network.files import load_replicas
from isoparam.network.mlp import logits
from pipeline import parameters
from tools import findings

MODELS = Path("models/depths")
# MNIST's own making: each digit fits a square of 20 pixels, in one of 28.
MARGIN = 4
# Of the darkest ink: what is fainter is paper.
FAINTEST = 0.1


def main(
    pictures: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="PNG, JPEG, ...")],
    model: Annotated[str | None, typer.Option(help="A model of params.yaml, such as L3.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a picture.")] = False,
) -> None:
    """Print a line for each picture: the class, its probability, and how the seeds agree.

    The probability is the mean over the seeds of the model, beside the least and the greatest; the
    model is the one that validation chose, if none is named.
    """
    params = parameters.read_params()
    if params.data.dataset == "own":
        raise ValueError("predict reads pictures of digits: your own networks are for `export`")
    if params.data.dataset == "digits":
        raise ValueError(
            "the digits have 8 by 8 pixels and no known making: predict is for MNIST's"
        )
    inputs, classes = sizes_of(params.data.dataset, params.data.own)
    name = model or findings.chosen_model()
    network = parameters.find_model(params.models, name)
    sizes = layer_sizes(network.depth, network.width or 0, inputs, classes)
    names = findings.class_names()
    images = torch.stack([read(path, isqrt(inputs)).flatten() for path in pictures])  # (N, D)
    layers, scale = load_replicas(MODELS / name, params.seeds, sizes)
    z = logits(layers, normalise(images, *scale))  # (R, N, C)
    probabilities = z.double().softmax(-1).transpose(0, 1)  # (N, R, C)
    for path, of_picture in zip(pictures, probabilities, strict=True):
        mean, least, most = of_picture.mean(0), of_picture.amin(0), of_picture.amax(0)  # (C,)
        label = int(mean.argmax())
        agree = Counter(of_picture.argmax(-1).tolist())[label]
        if as_json:
            answer = {
                "image": str(path),
                "model": name,
                "class": names[label],
                "seeds": len(params.seeds),
                "seeds_that_agree": agree,
                "probabilities": {
                    names[i]: {
                        "mean": mean[i].item(),
                        "min": least[i].item(),
                        "max": most[i].item(),
                    }
                    for i in range(classes)
                },
            }
            print(json.dumps(answer))
            continue
        second = int(mean.topk(2).indices[1])
        print(
            f"{path}: {names[label]} ({_percent(mean[label])}, seeds {_percent(least[label])} to "
            f"{_percent(most[label])}, {agree} of {len(params.seeds)} agree), "
            f"else {names[second]} ({_percent(mean[second])})"
        )


def read(path: Path, side: int) -> Tensor:
    """A picture in the making of MNIST.

    Ink is what differs from the border. It is scaled to fit a square of `side` less a margin, and
    its centre of mass is put into the middle. A picture of that size with a blank border is taken
    for one that is made already.

    Args:
        path: of a picture of any size.
        side: pixels of the result, each way.

    Returns:
        (side, side), uint8: 0 for paper, 255 for the darkest ink.

    Raises:
        ValueError: if it is missing, no picture, or blank.

    Reference:
        LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
    """
    try:
        with Image.open(path) as picture:
            # What is transparent is paper.
            paper = Image.new("RGBA", picture.size, "white")
            grey = Image.alpha_composite(paper, picture.convert("RGBA")).convert("L")
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a picture that can be read ({error})") from None
    pixels = np.asarray(grey, dtype=np.float64)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    ink = np.abs(pixels - np.median(border))
    if ink.max() < 16:
        raise ValueError(f"{path} is blank: no pixel differs from its border")
    if pixels.shape == (side, side) and not border.any():
        return torch.from_numpy(pixels).byte()
    ink *= 255 / ink.max()
    ink[ink < 255 * FAINTEST] = 0
    rows, columns = ink.any(1).nonzero()[0], ink.any(0).nonzero()[0]
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    box = side - 2 * MARGIN
    scale = box / max(ink.shape)
    height, width = (max(1, round(scale * length)) for length in ink.shape)
    resized = Image.fromarray(ink.astype(np.uint8)).resize((width, height), Image.Resampling.BOX)
    small = np.asarray(resized)
    centre = [
        (small.sum(1 - axis) @ np.arange(length)) / small.sum()
        for axis, length in enumerate(small.shape)
    ]
    top, left = (
        min(max(round((side - 1) / 2 - middle), 0), side - length)
        for middle, length in zip(centre, small.shape, strict=True)
    )
    result = np.zeros((side, side), np.uint8)
    result[top : top + height, left : left + width] = small
    return torch.from_numpy(result)


def _percent(share: Tensor) -> str:
    return f"{100 * share.item():.1f} %"
