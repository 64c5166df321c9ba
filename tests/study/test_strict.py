"""Strict mode: the same bits under other instruction sets, and on processors that are emulated."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from hashlib import sha256
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import ROOT
from torch.utils._python_dispatch import TorchDispatchMode

from isoparam.budget import layer_sizes
from isoparam.images import datasets
from isoparam.network import bits
from pipeline import files, parameters
from tools import fingerprint

EMULATOR = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
PROMISED = fingerprint._promised()
promised = pytest.mark.skipif(not PROMISED, reason="strict mode promises nothing here")
emulated = pytest.mark.skipif(
    not (EMULATOR and PROMISED), reason="needs qemu-x86_64, of the package qemu-user, and AVX2"
)
# Without AVX-512, one of Intel and one of AMD: MKL chooses its code by the maker, too.
PROCESSORS = ["Haswell", "EPYC"]

# What the fingerprint leaves out: the options of training, sampled classes, instance
# discrimination, and the diagnosis. All are small, for the emulator is slow.
SIZES = [256, 100, 100, 10]
OPTIONS = [
    {"input_noise": 0.3, "dropout": 0.2},
    {"label_smoothing": 0.1, "averaging": 0.9},
    {"max_norm": 1.0, "adversarial": 0.5},
]


class Recorder(TorchDispatchMode):
    """Hashes what sums, products and functions of numbers return.

    What is only reserved or looked at is left out: it may be memory that nobody has written to.
    """

    LEFT_OUT = ("empty", "new_", "slice", "select", "unbind", "view", "expand", "detach", "unsafe")

    def __init__(self) -> None:
        super().__init__()
        self.digest = sha256()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(func)
        # torch.nn.Linear draws weights from the global generator before they are drawn anew.
        if not any(part in name for part in self.LEFT_OUT) and "uniform_" not in name:
            for value in result if isinstance(result, tuple | list) else (result,):
                if isinstance(value, torch.Tensor) and value.layout == torch.strided:
                    data = value.detach().contiguous().flatten().view(torch.uint8)
                    self.digest.update(name.encode() + data.numpy().tobytes())
        return result


def everything_else() -> str:
    """Hash of what each operation of the other stages returns, on small random images."""
    from isoparam.images.mnist import normalise
    from isoparam.network.training import Trainer, Training, evaluate
    from isoparam.results.diagnostics import gradient_norms, similarities
    from isoparam.sampled_study.instance import Probe, train_instances
    from isoparam.sampled_study.linear import train_linear
    from isoparam.sampled_study.views import Views

    torch.set_num_threads(1)  # as in the processes that train
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (300, SIZES[0]), generator=generator, dtype=torch.uint8)
    labels = torch.randint(10, (300,), generator=generator)
    x = normalise(images, 127.5, 73.9)
    recipe = {"epochs": 1, "batch_size": 100, "learning_rate": 0.1, "warmup": 0.3}
    with Recorder() as recorder:
        for options in OPTIONS:
            training = Training(
                x,
                labels,
                (x, labels),
                sizes=SIZES,
                seeds=[0, 1],
                momentum=0.9,
                weight_decay=0.001,
                **recipe,
                **options,
            )
            training.run_epoch()
        for weighting, samples in (("full", None), ("importance", 2), ("stated", 5)):
            train_linear(
                x,
                labels,
                (x, labels),
                classes=10,
                seed=0,
                weighting=weighting,
                samples=samples,
                **recipe,
            )
        views = Views(images, shift=2, noise=0.3)
        for law, weighting in (("uniform", "full"), ("uniform", "importance"), ("zipf", "none")):
            train_instances(
                views,
                Probe(views, 100, law, seed=0, held_out=False),
                seed=0,
                hidden=64,
                features=32,
                law=law,
                weighting=weighting,
                samples=16,
                exponent=0.75,
                class_rate=40.0,
                momentum=0.9,
                evaluations=1,
                **recipe,
            )
        layers = Trainer(SIZES, [0, 1], momentum=0.0, weight_decay=0.0).layers
        evaluate(layers, x, labels)
        gradient_norms(layers, x, labels)
        similarities(layers, x)
    return recorder.digest.hexdigest()


def run(*command: str, **environment: str) -> str:
    """The output of a command, with the tests and the project as Python's modules."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    inherited = {key: value for key, value in os.environ.items() if key not in bits.STRICT}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=inherited | {"PYTHONPATH": path} | environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def python(code: str, *emulator: str, **environment: str) -> str:
    """What it prints; an emulated Python must not start itself anew, so strict mode is set here."""
    return run(*emulator, sys.executable, "-c", code, **(environment or bits.STRICT))


EVERYTHING_ELSE = "import test_strict; print(test_strict.everything_else())"
# Two of the fingerprint's networks, for the emulator.
SHORT = (
    "from stages import fingerprint as f; r = f.read_record()['sizes']; "
    "print(*(f.fingerprint(r[name]) for name in ('L0', 'L8')))"
)


@cache
def on_this_processor(code: str) -> str:
    return python(code)


@promised
@pytest.mark.parametrize(
    "environment", [{}, {"OMP_NUM_THREADS": "4", "ATEN_CPU_CAPABILITY": "default"}], ids=str
)
def test_the_fingerprint_is_the_recorded_one(environment):
    output = run(sys.executable, "-m", "tools.fingerprint", **environment)
    content = json.loads(output)
    if content["found"]["torch"] != content["recorded"]["torch"]:
        pytest.skip("promised for the torch of the record alone")
    assert content["promised"]
    assert content["found"] == content["recorded"]


def test_the_fingerprint_is_of_the_study(monkeypatch):
    monkeypatch.chdir(ROOT)
    params = parameters.read_params()
    assert fingerprint.read_record()["sizes"] == {
        name: layer_sizes(model.depth, model.width or 0, *datasets.SIZES[params.data.dataset])
        for name, model in params.models.items()
    }


def test_the_fingerprint_tells_one_bit(monkeypatch):
    sizes = [64, 16, 10]
    monkeypatch.setattr(fingerprint, "HELD_OUT", 10)
    before = fingerprint.fingerprint(sizes)
    assert before == fingerprint.fingerprint(sizes)
    recipe = fingerprint.RECIPE
    learning_rate = recipe["learning_rate"] * (1 + 2**-24)
    monkeypatch.setattr(fingerprint, "RECIPE", recipe | {"learning_rate": learning_rate})
    assert before != fingerprint.fingerprint(sizes)


@promised
def test_all_else_is_the_same_with_more_threads():
    settings = bits.STRICT | {"OMP_NUM_THREADS": "4"}
    assert python(EVERYTHING_ELSE, **settings) == on_this_processor(EVERYTHING_ELSE)


def test_the_recorded_trial_shows_what_it_is_said_to_show():
    table = pd.read_csv(ROOT / "benchmarks/results/emulated.csv")
    assert set(table["processor"]) > set(PROCESSORS)
    hashes = {
        key: dict(zip(rows["model"], rows["hash"], strict=True))
        for key, rows in table.groupby(["processor", "settings"])
    }
    strict = [found for (_, settings), found in hashes.items() if settings == "strict mode"]
    assert len(strict) == 1 + len(PROCESSORS)
    assert all(found == strict[0] for found in strict)
    recorded = files.read_json(ROOT / fingerprint.RECORD)["hashes"]
    assert strict[0].items() <= recorded.items()
    assert hashes["Haswell", "default mode"] != strict[0]


@emulated
@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("code", [SHORT, EVERYTHING_ELSE], ids=["training", "all else"])
def test_an_emulated_processor_gives_the_same_bits(processor, code):
    assert python(code, EMULATOR, "-cpu", processor) == on_this_processor(code)


@emulated
def test_without_strict_mode_an_emulated_processor_gives_others():
    """So the comparison can fail: MKL's exponential is another on a processor of Intel's."""
    code = SHORT.replace("'L0', 'L8'", "'L0',")
    settings = {name: value for name, value in bits.STRICT.items() if name != "MKL_CBWR"}
    assert python(code, EMULATOR, "-cpu", "Haswell", **settings) != python(code)
