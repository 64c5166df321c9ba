"""Trainings that stop and resume by their checkpoints: the end is that of an undisturbed one.

The jobs are done in this process, an epoch at a time.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Never

import pytest
import torch

from isoparam.images.files import load_training_data, save_images, save_tensors
from isoparam.images.mnist import Images
from isoparam.network.recipe import Recipe, Row, jobs_of
from pipeline import processes, trainings

SPLIT, MODELS = Path("split"), Path("models")
RECIPE = Recipe(
    sizes=(4, 6, 3),
    epochs=3,
    batch_size=4,
    learning_rate=0.1,
    warmup=0.3,
    momentum=0.9,
    weight_decay=0.0,
)
SEEDS = (3, 1)


def write_split(pixels_seed: int) -> None:
    generator = torch.Generator().manual_seed(pixels_seed)
    for part, count in (("train", 18), ("validation", 10)):
        pixels = torch.randint(256, (count, 4), generator=generator).byte()
        save_images(SPLIT / f"{part}.safetensors", Images(pixels, (torch.arange(count) % 3).byte()))
    load_training_data.cache_clear()


def train(recipe: Recipe = RECIPE) -> tuple[list[list[Row]], dict[str, bytes]]:
    """The histories, and the weights that are written."""
    shutil.rmtree(MODELS, ignore_errors=True)
    MODELS.mkdir()
    histories = trainings.run("L1", jobs_of(SPLIT, recipe, SEEDS, "cpu", MODELS), workers=None)
    return histories, {path.name: path.read_bytes() for path in MODELS.iterdir()}


@pytest.fixture(autouse=True)
def undisturbed(one_process, tmp_path, monkeypatch):  # noqa: ARG001 (it comes first)
    """What a training gives that nothing disturbs."""
    monkeypatch.chdir(tmp_path)
    SPLIT.mkdir()
    write_split(0)
    result = train()
    assert not trainings.CHECKPOINTS.exists()
    monkeypatch.setattr(trainings, "PART_SECONDS", 0.0)
    return result


@pytest.fixture
def stopped(monkeypatch):
    """The checkpoints of a training that was killed after the first epoch of each job."""

    def stop(work: Callable[..., Any], jobs: list[Any], **options: Any) -> Never:
        assert [work(job, options["advance"]) for job in jobs] == [None, None]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(processes, "run_all", stop)
        with pytest.raises(KeyboardInterrupt):
            train()
    assert not list(MODELS.iterdir())
    found = list((trainings.CHECKPOINTS / "L1").iterdir())
    assert len(found) == 2
    return found


def test_training_in_parts_gives_the_same_bytes(undisturbed):
    assert train() == undisturbed
    assert list((trainings.CHECKPOINTS / "L1").iterdir())
    trainings.forget("L1")
    assert not list(trainings.CHECKPOINTS.iterdir())


@pytest.mark.usefixtures("stopped")
def test_a_stopped_training_resumes_to_the_same_bytes(undisturbed, capfd):
    assert train() == undisturbed
    reported = capfd.readouterr().err
    assert reported.count("done before") == 2
    assert reported.count("validation accuracy") == 2 * 2


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "spoil",
    [
        flip_a_bit,
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: save_tensors(path, {"weights": torch.zeros(1, 3)}, {}),
    ],
)
def test_a_damaged_checkpoint_costs_time_only(undisturbed, stopped, capfd, spoil):
    spoil(stopped[0])
    capfd.readouterr()
    assert train() == undisturbed
    reported = capfd.readouterr().err
    assert reported.count("starting again from the first epoch: ") == 1
    assert reported.count("validation accuracy") == 3 + 2


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("change", [{"weight_decay": 0.1}, {"sizes": (4, 5, 3)}], ids=str)
def test_a_checkpoint_of_other_parameters_is_not_used(change, capfd):
    capfd.readouterr()
    train(replace(RECIPE, **change))
    assert "done before" not in capfd.readouterr().err


@pytest.mark.usefixtures("stopped")
def test_a_checkpoint_of_other_images_is_not_used(capfd):
    write_split(9)
    capfd.readouterr()
    train()
    assert "done before" not in capfd.readouterr().err


def test_a_second_run_that_is_done_and_forgets_ends_no_training(undisturbed, monkeypatch):
    """Two runs share their checkpoints, as two submissions to Slurm do."""
    left = ["L1"]

    def save(path: Path, *content: Any) -> None:
        save_tensors(path, *content)
        while left:
            trainings.forget(left.pop())

    monkeypatch.setattr("isoparam.images.files.save_tensors", save)
    assert train() == undisturbed
    assert not left
