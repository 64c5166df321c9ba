"""Strict mode: each stage starts anew for it, and gives its bits on emulated processors, too."""

import os
import shutil
import subprocess
import sys
from importlib import import_module
from inspect import signature
from typing import Never

import pandas as pd
import pytest
from conftest import ROOT, Project, slow
from ruamel.yaml import YAML

from isoparam.network import bits
from tools import guard

EMULATOR = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
emulated = pytest.mark.skipif(
    EMULATOR is None or guard.not_comparable(None) is not None,
    reason="needs qemu-x86_64, of the package qemu-user, on a processor with AVX2",
)
# Without AVX-512, one of Intel and one of AMD: MKL chooses its code by the maker, too.
PROCESSORS = ["Haswell", "EPYC"]

# All stages that use torch; of the depths the shallowest and the deepest, for an emulator is slow.
STAGES = """
train.main("L0")
train.main("L8")
evaluate.main("L8")
diagnose.main()
sampled.main()
instance.main()
evaluate_sampled.main()
gradients.main()
"""
WRITTEN = (
    "models/depths/L0",
    "models/depths/L8",
    "models/sampled",
    "models/instance",
    "plots/diagnostics",
    "metrics/gradients.json",
)


def stages_with_networks() -> set[str]:
    """The modules of the stages that train, run or check what strict mode is about."""
    documents = [YAML(typ="safe").load(ROOT / f) for f in ("dvc.yaml", "tuning/dvc.yaml")]
    stages = [stage for document in documents for stage in document["stages"].values()]
    bodies = [stage.get("do", stage) for stage in stages]
    return {body["cmd"].split()[2] for body in bodies if "isoparam/network" in body["deps"]}


@pytest.mark.parametrize("name", sorted(stages_with_networks()))
def test_a_strict_stage_starts_anew_before_it_reads_or_writes(name, tmp_path, monkeypatch):
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert "strict: false" in text
    (tmp_path / "params.yaml").write_text(text.replace("strict: false", "strict: true"))
    shutil.copy(ROOT / "learning_rates.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    for variable in bits.STRICT:
        monkeypatch.delenv(variable, raising=False)

    def execve(program, arguments, environment) -> Never:
        assert (program, arguments) == (sys.executable, sys.orig_argv)
        assert environment.items() >= bits.STRICT.items()
        raise InterruptedError

    monkeypatch.setattr(os, "execve", execve)
    stage = import_module(name)
    with pytest.raises(InterruptedError):
        stage.main(*["L1"] * ("name" in signature(stage.main).parameters))
    assert {path.name for path in tmp_path.iterdir()} == {"params.yaml", "learning_rates.yaml"}


def test_what_starts_anew_keeps_its_arguments():
    code = (
        "import os, sys; from isoparam.network import bits; bits.use_instructions(strict=True); "
        "print(sys.argv[1:], [os.environ[name] for name in sorted(bits.STRICT)])"
    )
    environment = {k: v for k, v in os.environ.items() if k not in bits.STRICT}
    output = subprocess.run(
        [sys.executable, "-c", code, "a b", "--c"],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert output == "['a b', '--c'] ['avx2', 'COMPATIBLE', 'AVX2']\n"


@pytest.fixture
@slow
def study(digits, tmp_path) -> Project:
    """A copy of the study, without what is to be written anew."""
    folder = tmp_path / "study"
    shutil.copytree(digits.folder, folder, symlinks=True)
    for name in WRITTEN:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return Project(folder)


def run(study: Project, stages: str, processor: str, settings: dict[str, str]) -> None:
    """Call stages in one emulated process, which starts others by the emulator as well."""
    python = study.folder.parent / "python"
    python.write_text(f'#!/bin/sh\nexec {EMULATOR} -cpu {processor} {sys.executable} "$@"\n')
    python.chmod(0o755)
    names = sorted({line.split(".")[0] for line in stages.split()})
    code = f"""
import multiprocessing, sys
sys.executable = {str(python)!r}
multiprocessing.set_executable(sys.executable)
from stages import {", ".join(names)}
{stages}"""
    inherited = {key: value for key, value in os.environ.items() if key not in bits.STRICT}
    done = subprocess.run(
        [python, "-c", code],
        cwd=study.folder,
        env=inherited | settings,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@emulated
@pytest.mark.parametrize("processor", PROCESSORS)
def test_an_emulated_processor_gives_the_same_bits(digits, study, processor):
    run(study, STAGES, processor, bits.STRICT)
    assert all((study.folder / name).exists() for name in WRITTEN)
    differing = guard.differences(guard.outputs(digits.folder), guard.outputs(study.folder))
    assert differing == []


@emulated
def test_without_strict_mode_an_emulated_processor_gives_others(digits, study):
    """So the comparison can fail: MKL's exponential is another on a processor of Intel's."""
    params = study.folder / "params.yaml"
    params.write_text(params.read_text().replace("strict: true", "strict: false"))
    run(study, 'train.main("L0")', "Haswell", {})
    hashes = [guard.outputs(project.folder)["hashes"] for project in (digits, study)]
    seeds = [f"models/depths/L0/seed-{seed}.safetensors" for seed in (0, 7, 8)]
    assert [name for name in seeds if hashes[0][name] == hashes[1][name]] == []


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
    assert hashes["Haswell", "default mode"] != strict[0]
