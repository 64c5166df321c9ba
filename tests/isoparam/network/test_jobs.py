"""A job trained in parts: the same bits, the weights at the end, and what stops it."""

from dataclasses import replace

import pytest
import torch

from isoparam.images.files import load_training_data, save_images
from isoparam.images.mnist import Images
from isoparam.network import jobs
from isoparam.network.files import load_perceptron
from isoparam.network.recipe import Job, Recipe, Row
from isoparam.network.training import Training

SIZES = (4, 6, 3)
RECIPE = Recipe(
    sizes=SIZES,
    epochs=3,
    batch_size=4,
    learning_rate=0.1,
    warmup=0.3,
    momentum=0.9,
    weight_decay=0.01,
)
SEEDS = (5, 2)


@pytest.fixture
def job(tmp_path):
    """A job on random images, with a folder to write weights to."""
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", 18), ("validation", 10)):
        pixels = torch.randint(256, (count, SIZES[0]), generator=generator).byte()
        save_images(
            tmp_path / f"{part}.safetensors", Images(pixels, (torch.arange(count) % 3).byte())
        )
    (tmp_path / "models").mkdir()
    return Job(tmp_path, RECIPE, SEEDS, "cpu", tmp_path / "models")


def weights(job):
    return {path.name: path.read_bytes() for path in job.folder.iterdir()}


def test_a_job_gives_its_history_and_writes_its_weights(job):
    reported = []
    rows = jobs.train(job, None, 1e9, reported.append)
    data = load_training_data(job.split, SIZES[0], SIZES[-1])
    training = Training(*data.train, data.validation, RECIPE, SEEDS)
    epochs = [training.run_epoch() for _ in range(RECIPE.epochs)]
    assert rows == [
        Row(seed, e.epoch, e.train_loss[r], e.validation_loss[r], e.validation_accuracy[r])
        for r, seed in enumerate(SEEDS)
        for e in epochs
    ]
    assert reported == [f"validation accuracy {max(e.validation_accuracy):.4f}" for e in epochs]
    for replica, seed in enumerate(SEEDS):
        layers, metadata = load_perceptron(job.folder / f"seed-{seed}.safetensors", list(SIZES))
        assert metadata == {"seed": seed, "sizes": list(SIZES)} | data.statistics
        for (w, b), (weight, bias) in zip(layers, training.layers, strict=True):
            assert torch.equal(w[0], weight[replica])
            assert torch.equal(b[0], bias[replica])


@pytest.mark.parametrize("limits", [[0, 0, 0], [0, 1e9]], ids=str)
def test_a_state_is_returned_when_time_is_up_and_resumes_to_the_same_bits(job, limits):
    whole = jobs.train(job, None, 1e9, lambda _: None)
    expected = weights(job)
    for path in job.folder.iterdir():
        path.unlink()
    state, reported = None, []
    for done, seconds in enumerate(limits, start=1):
        assert not weights(job)
        state = jobs.train(job, state, seconds, reported.append)
        assert isinstance(state, dict) == (done < len(limits))
    assert state == whole
    assert weights(job) == expected
    assert len(reported) == RECIPE.epochs


def test_a_state_of_another_job_is_named_and_training_starts_again(job, capsys):
    state = jobs.train(replace(job, seeds=(5,)), None, 0, lambda _: None)
    rows = jobs.train(job, state, 1e9, lambda _: None)
    assert (
        "starting again from the first epoch: this state is of another" in capsys.readouterr().err
    )
    assert rows == jobs.train(job, None, 1e9, lambda _: None)


def test_a_trial_that_diverges_gives_what_it_had_and_a_training_is_refused(job):
    job = replace(job, recipe=replace(RECIPE, learning_rate=1e30))
    assert jobs.train(replace(job, folder=None), None, 1e9, lambda _: None) == []
    with pytest.raises(ValueError, match="the loss is not finite in epoch 1"):
        jobs.train(job, None, 1e9, lambda _: None)
    assert not weights(job)


def test_a_gpu_that_is_not_there_is_named(job, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"train\.device is cuda, but torch finds no such device"):
        jobs.train(replace(job, device="cuda"), None, 1e9, lambda _: None)
