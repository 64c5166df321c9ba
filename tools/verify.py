"""`make verify`: does a run on this machine give what is recorded? No stage of DVC.

First the fingerprint, in strict mode, then one model trained from nothing in default mode, in a
temporary folder: nothing in the project changes.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import typer
from ruamel.yaml import YAML

from isoparam.network import bits
from isoparam.results.statistics import estimate
from pipeline import commands, files, parameters

ENVIRONMENT = Path("record/environment.json")
PACKAGES = ("torch", "numpy", "scipy", "pandas", "safetensors", "scikit-learn", "matplotlib", "dvc")

IDENTICAL, EQUAL, DIFFERENT = "identical", "equal within the interval", "different"
UNTOLD = "not comparable"
# The worst decides; what cannot be compared decides nothing.
ORDER = (DIFFERENT, EQUAL, IDENTICAL)


class Finding(NamedTuple):
    """What one of the checks came to.

    Attributes:
        verdict: one of the four above.
        text: what was compared.
    """

    verdict: str
    text: str


def main(
    name: Annotated[
        str | None,
        typer.Argument(
            help="The model to train, such as L3; that of the fewest hidden layers, but one or "
            "more, unless said otherwise.",
            show_default=False,
        ),
    ] = None,
    *,
    record_environment: Annotated[
        bool,
        typer.Option(
            "--record-environment",
            help=f"Verify nothing; write {ENVIRONMENT}, of the machine of a run to be recorded.",
        ),
    ] = False,
) -> None:
    """Compare the fingerprint and one model, trained from nothing, with the record."""
    if record_environment:
        files.write_json(ENVIRONMENT, environment())
        return
    params = parameters.read_params()
    if name is None:
        name = min(
            params.models, key=lambda n: (params.models[n].depth == 0, params.models[n].depth)
        )
    parameters.find_model(params.models, name)
    record = Record(name)
    findings = [compare_fingerprints(**take_fingerprint())]
    print(f"fingerprint: {findings[0].verdict}: {findings[0].text}", flush=True)
    with TemporaryDirectory(prefix="isoparam-") as folder:
        findings.append(record.compare(Path(folder)))
    print(f"{name}: {findings[1].verdict}: {findings[1].text}")
    verdict = worst(findings)
    if verdict != IDENTICAL:
        reasons = record.changes()
        if ENVIRONMENT.exists():
            reasons += differences(files.read_json(ENVIRONMENT), environment())
        for reason in reasons:
            print(f"possible reason: {reason}")
    print(f"verdict: {verdict}")
    if verdict in (DIFFERENT, UNTOLD):
        sys.exit(1)


def worst(findings: Sequence[Finding]) -> str:
    """The verdict on all: the worst of those that could be told."""
    told = [finding.verdict for finding in findings if finding.verdict != UNTOLD]
    return min(told, key=ORDER.index, default=UNTOLD)


def take_fingerprint() -> dict[str, Any]:
    """What `python -m tools.fingerprint` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.fingerprint"], check=False, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise ValueError("the fingerprint could not be taken: see above")
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def compare_fingerprints(
    *, promised: bool, recorded: dict[str, Any], found: dict[str, Any]
) -> Finding:
    """Whether strict mode kept its promise, where it promises anything.

    Args:
        promised: whether this is a processor that it promises anything for.
        recorded: version of torch, sizes and hashes of the record.
        found: those here.
    """
    count = len(recorded["hashes"])
    differing = [n for n, digest in recorded["hashes"].items() if found["hashes"].get(n) != digest]
    if not differing:
        return Finding(IDENTICAL, f"{count} short strict trainings gave the recorded hashes")
    text = f"{len(differing)} of {count} hashes are not the recorded ones ({', '.join(differing)})"
    if not promised:
        return Finding(UNTOLD, f"{text}: strict mode promises them for x86-64 with AVX2 alone")
    if found["torch"] != recorded["torch"]:
        here, there = found["torch"], recorded["torch"]
        return Finding(UNTOLD, f"{text}: torch is {here} here, {there} in the record")
    return Finding(DIFFERENT, text)


def compare_accuracies(recorded: Sequence[float], found: Sequence[float]) -> Finding:
    """Whether the means' 95 % intervals overlap.

    Args:
        recorded: test accuracies of all seeds, in [0, 1].
        found: those of the training here.
    """
    text = f"{describe(found)} here, {describe(recorded)} recorded"
    if len(recorded) == len(found):
        same = sum(a == b for a, b in zip(recorded, found, strict=True))
        text += f"; {same} of {len(found)} seeds have the recorded test accuracy"
    (_, _, lo, hi), (_, _, low, high) = estimate(recorded), estimate(found)
    if None in (lo, hi, low, high):
        return Finding(DIFFERENT, f"{text}; with one seed there is no interval")
    return Finding(EQUAL if lo <= high and low <= hi else DIFFERENT, text)


def describe(accuracies: Sequence[float]) -> str:
    """Mean and interval, in percent."""
    mean, _, lo, hi = estimate(accuracies)
    if lo is None or hi is None:
        return f"{100 * mean:.2f} %"
    return f"{100 * mean:.2f} ± {50 * (hi - lo):.2f} %"


class Record:
    """What dvc.lock and metrics/ say of one model.

    Args:
        name: of the model.

    Raises:
        ValueError: if they say nothing, or contradict each other.
    """

    def __init__(self, name: str) -> None:
        """Read it."""
        self._name = name
        stages: dict[str, Any] = {}
        if files.LOCK.exists():
            stages = YAML(typ="safe").load(files.LOCK.read_text(encoding="utf-8"))["stages"]
        names = [f"train@{name}", f"evaluate@{name}"]
        if not set(names) <= set(stages):
            raise ValueError(f"{files.LOCK} has no run of {name} to compare with: run `dvc repro`")
        self._outs, self._deps = (
            {entry["path"]: entry["md5"] for stage in names for entry in stages[stage][kind]}
            for kind in ("outs", "deps")
        )
        metrics = f"metrics/{name}.json"
        self._accuracies = files.read_json(Path(metrics))["test_accuracies"]
        if files.md5_of(Path(metrics)) != self._outs[metrics]:
            raise ValueError(f"{metrics} is not the one of {files.LOCK}: run `dvc repro`")

    def compare(self, folder: Path) -> Finding:
        """Train and evaluate the model in a folder, and compare what comes out.

        Args:
            folder: an empty one.
        """
        for path in (parameters.PARAMETERS, parameters.LEARNING_RATES):
            shutil.copy(path, folder)
        try:
            self._provide_data(folder)
            call(folder, "train", self._name)
            call(folder, "evaluate", self._name)
        except ValueError as error:
            return Finding(UNTOLD, f"it was not trained: {error}")
        found = {path: files.md5_of(folder / path) for path in self._outs}
        accuracies = files.read_json(folder / f"metrics/{self._name}.json")["test_accuracies"]
        if found == self._outs:
            text = f"{describe(accuracies)} over {len(accuracies)} seeds"
            return Finding(IDENTICAL, f"{text}, weights, histories and metrics to the last bit")
        return compare_accuracies(self._accuracies, accuracies)

    def _provide_data(self, folder: Path) -> None:
        """Link the split of the project if it is the recorded one; make it anew if not."""
        expected = {path: md5 for path, md5 in self._deps.items() if path.startswith("data/")}
        if all(
            Path(path).exists() and files.md5_of(Path(path)) == md5
            for path, md5 in expected.items()
        ):
            (folder / "data").mkdir()
            (folder / "data/split").symlink_to(Path("data/split").resolve())
            return
        with parameters.edited_params(folder / parameters.PARAMETERS) as document:
            if local := document["data"].get("local"):
                document["data"]["local"] = str(Path(local).resolve())
        call(folder, "download")
        call(folder, "split")
        differing = [path for path, md5 in expected.items() if files.md5_of(folder / path) != md5]
        if differing:
            raise ValueError(f"{', '.join(differing)} would be others than those of {files.LOCK}")

    def changes(self) -> list[str]:
        """Code and parameters that are no longer those of the recorded run."""
        shown = subprocess.run(
            [sys.executable, "-m", "dvc", "status", "--json", f"train@{self._name}"],
            check=False,
            stdout=subprocess.PIPE,
            text=True,
        )
        if shown.returncode:
            return []
        changed = [
            name
            for change in json.loads(shown.stdout).get(f"train@{self._name}", [])
            if isinstance(change, dict)
            for name in change.get("changed deps", {})
            if not name.startswith("data/")
        ]
        return [f"{', '.join(changed)} changed since the recorded run"] if changed else []


def call(folder: Path, stage: str, *arguments: str) -> None:
    """Run a stage of this project in another folder."""
    done = subprocess.run(
        [sys.executable, "-m", f"stages.{stage}", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        check=False,
    )
    if done.returncode:
        raise ValueError(f"the stage {stage} failed")


def environment() -> dict[str, Any]:
    """What the bits of a run may depend on, of this machine."""
    import torch

    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "libc": " ".join(platform.libc_ver()),
        "packages": {name: version(name) for name in PACKAGES},
        "machine": platform.machine(),
        **processor(),
        "cores": commands.available_cores(),
        "instructions of torch": torch.backends.cpu.get_cpu_capability(),
        "oneDNN": torch.backends.mkldnn.is_available(),
        "MKL": torch.backends.mkl.is_available(),
        "settings": {n: os.environ[n] for n in sorted(bits.STRICT) if n in os.environ},
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def processor() -> dict[str, Any]:
    """Vendor, model and instruction sets; what Linux does not tell is None."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    told = {key.strip(): text.strip() for key, _, text in (line.partition(":") for line in lines)}
    name = told.get("model name") or platform.processor() or None
    if name and "cpu family" in told:  # two generations may have one name
        name += f", family {told['cpu family']}, model {told['model']}"
    return {
        "vendor": told.get("vendor_id"),
        "processor": name,
        "flags": sorted(told.get("flags", "").split()),
    }


def differences(recorded: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """In what this machine differs from that of the record, as far as bits may depend on it.

    Args:
        recorded: what `environment` returned there.
        here: what it returned here.
    """
    packages = ("torch", "numpy", "scipy", "pandas", "safetensors")
    pairs = {p: (here["packages"].get(p), recorded["packages"].get(p)) for p in packages}
    for key in ("machine", "vendor", "processor", "instructions of torch", "oneDNN", "MKL"):
        pairs[key] = here[key], recorded[key]
    pairs["settings"] = here["settings"] or None, recorded["settings"] or None
    return [f"{key} is {a} here, {b} in the record" for key, (a, b) in pairs.items() if a != b]
