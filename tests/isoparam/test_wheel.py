"""The library by itself: a wheel that needs torch alone."""

import email
import inspect
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
from conftest import ROOT, slow

from isoparam import sampled_softmax as library

# What is built in beside the modules of isoparam itself.
ROOMS = ("images", "network", "sampled_softmax")

# Imports all that a user of the sampled softmax needs, where nothing of the pipeline is installed.
ALONE = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in NAMES:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NotInstalled())
sys.path.insert(0, WHEEL)
import torch
import isoparam.sampled_softmax as s
from isoparam import budget
from isoparam.network import mlp, softmax, training

assert s.__file__.startswith(WHEEL), s.__file__
loss = s.SampledLinearCrossEntropyLoss(4, 20, num_samples=5)
value = loss(torch.randn(3, 4), torch.tensor([1, 2, 3])).item()
print(value > 0, budget.width_for_budget(814_090, 3, 784, 10))
"""


@pytest.fixture(scope="module")
@slow
def wheel(tmp_path_factory):
    """A wheel built from a copy of what it is made of."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "isoparam", source / "isoparam")
    build = "from setuptools import build_meta as b; print(b.build_wheel('.'))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=True
    )
    return source / done.stdout.splitlines()[-1]


def test_the_wheel_holds_the_library_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"isoparam"}
    rooms = [ROOT / "isoparam", *(ROOT / "isoparam" / room for room in ROOMS)]
    modules = {str(path.relative_to(ROOT)) for room in rooms for path in room.glob("*.py")}
    assert {name for name in names if not name.startswith("isoparam-")} == modules | {
        "isoparam/py.typed"
    }


def test_the_wheel_says_what_it_is_for(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    assert "sampled softmax" in metadata["Keywords"]
    assert "Typing :: Typed" in metadata.get_all("Classifier")
    urls = dict(each.split(", ", 1) for each in metadata.get_all("Project-URL"))
    assert set(urls) >= {"Repository", "Documentation"}


def test_the_import_leaves_the_process_alone():
    """No thread count, no seed, no warning filter, no block of memory, nothing heavy."""
    code = """
import random, resource, sys, torch, warnings
def state():
    return (
        torch.get_num_threads(), torch.random.get_rng_state().tolist(), random.getstate(),
        torch.get_default_dtype(), list(warnings.filters),
    )
before, memory = state(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
import isoparam.sampled_softmax
assert state() == before
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 20_000
assert "torch._dynamo" not in sys.modules  # which takes seconds
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=ROOT)


def test_what_is_public_is_documented():
    assert sorted(library.__all__, key=str.lower) == sorted(set(library.__all__), key=str.lower)
    for name in library.__all__:
        assert inspect.getdoc(getattr(library, name)), name


def test_the_sampled_softmax_needs_torch_alone(wheel):
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert document["project"]["dependencies"] == ["torch>=2.10"]
    extra = document["project"]["optional-dependencies"]["pipeline"]
    names = {each.partition(">")[0].replace("-", "_") for each in extra}
    names |= {"sklearn", "PIL", "ruamel"}  # as they are imported
    names |= {"numpy"}  # torch does without
    code = ALONE.replace("NAMES", repr(names)).replace("WHEEL", repr(str(wheel)))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=wheel.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True 469\n"
