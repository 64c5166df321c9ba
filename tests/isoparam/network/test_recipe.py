"""Recipes and jobs: values that nothing changes, and how seeds become jobs."""

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest
import torch

from isoparam.network.recipe import Job, Recipe, jobs_of

RECIPE = Recipe(
    sizes=(784, 10),
    epochs=1,
    batch_size=1,
    learning_rate=0.1,
    warmup=0.0,
    momentum=0.0,
    weight_decay=0.0,
)
SPLIT, OUT = Path("split"), Path("out")


@pytest.mark.parametrize("value", [RECIPE, Job(SPLIT, RECIPE, (0,), "cpu", None)])
def test_recipes_and_jobs_are_frozen(value):
    for field in fields(value):
        with pytest.raises(FrozenInstanceError):
            setattr(value, field.name, None)


def test_on_a_cpu_each_seed_is_a_job():
    assert jobs_of(SPLIT, RECIPE, [3, 0], "cpu", OUT) == [
        Job(SPLIT, RECIPE, (3,), "cpu", OUT),
        Job(SPLIT, RECIPE, (0,), "cpu", OUT),
    ]


def test_on_a_gpu_all_seeds_are_one_job():
    assert jobs_of(SPLIT, RECIPE, [3, 0], "cuda", None) == [
        Job(SPLIT, RECIPE, (3, 0), "cuda", None)
    ]


@pytest.mark.parametrize(("there", "device"), [(False, "cpu"), (True, "cuda")])
def test_auto_is_a_gpu_where_there_is_one(there, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert jobs_of(SPLIT, RECIPE, [3, 0], "auto", OUT) == jobs_of(
        SPLIT, RECIPE, [3, 0], device, OUT
    )
