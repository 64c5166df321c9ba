"""The fingerprint: hashes of a short strict training of each depth, which need no data.

No stage of DVC. In strict mode the same torch gives the same hashes on every x86-64 processor with
AVX2; docs/reproducibility.md says how that was tried.
"""

import json
import platform
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from isoparam.budget import layer_sizes
from isoparam.images.datasets import sizes_of
from isoparam.network import bits
from pipeline import commands, files, parameters

RECORD = Path("record/fingerprint.json")

# Six steps and two evaluations; validation is one whole batch of the products' usual shape.
IMAGES, HELD_OUT = 384, 1000


def main(
    *,
    write: Annotated[
        bool,
        typer.Option("--write", help=f"Write {RECORD} for the models of params.yaml instead."),
    ] = False,
) -> None:
    """Print the hashes that this machine gives, beside the recorded ones, as JSON."""
    if write:
        params = parameters.read_params()
        sizes = {
            name: layer_sizes(
                model.depth, model.width or 0, *sizes_of(params.data.dataset, params.data.own)
            )
            for name, model in params.models.items()
        }
    else:
        recorded = read_record()
        sizes = recorded["sizes"]
    bits.use_instructions(strict=True)
    hashes = {name: fingerprint(layers) for name, layers in sizes.items()}
    found = {"torch": version("torch"), "sizes": sizes, "hashes": hashes}
    if write:
        files.write_json(RECORD, found)
    else:
        print(json.dumps({"promised": _promised(), "recorded": recorded, "found": found}, indent=2))


def read_record() -> dict[str, Any]:
    """The recorded fingerprint.

    Raises:
        ValueError: if it is missing or damaged.
    """
    recorded: dict[str, Any] = {}
    with suppress(ValueError):
        recorded = files.read_json(RECORD)
    if set(recorded) != {"torch", "sizes", "hashes"}:
        raise ValueError(f"{RECORD} is missing or damaged: `git checkout {RECORD}` brings it back")
    return recorded


def fingerprint(sizes: Sequence[int]) -> str:
    """Hash of all bits that a short training on random images comes to: weights to history.

    Args:
        sizes: sizes of all layers, input and output included.

    Returns:
        SHA-256, in hexadecimal digits.
    """
    import torch

    from isoparam.images.mnist import normalise, pixel_statistics
    from isoparam.network.recipe import Recipe
    from isoparam.network.training import Training

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        256, (IMAGES + HELD_OUT, sizes[0]), generator=generator, dtype=torch.uint8
    )
    labels = torch.randint(sizes[-1], (len(images),), generator=generator)
    x = normalise(images, *pixel_statistics(images[:IMAGES]))
    recipe = Recipe(
        sizes=tuple(sizes),
        epochs=2,
        batch_size=128,
        learning_rate=0.1,
        warmup=0.3,
        momentum=0.9,
        weight_decay=0.00025,
    )
    training = Training(x[:IMAGES], labels[:IMAGES], (x[IMAGES:], labels[IMAGES:]), recipe, [0])
    while not training.done:
        training.run_epoch()
    state = training.state()
    digest = sha256()
    for name in ("weights", "velocity", "history"):
        digest.update(state[name].numpy().tobytes())
    return digest.hexdigest()


def _promised() -> bool:
    """Whether this is a processor for which strict mode promises anything."""
    import torch

    return platform.machine() in {"x86_64", "AMD64"} and torch.cpu._is_avx2_supported()  # noqa: SLF001


if __name__ == "__main__":
    commands.run(main)
