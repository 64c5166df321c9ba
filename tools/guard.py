"""The guard detects changes in code that no stage depends on: it runs the study on digits.

It runs all stages, short and in strict mode, in a temporary copy of the project. The record has
hashes of data, weights, histories and figures, and the text of tables and metrics, since the last
bits of numpy's and scipy's results may depend on the processor.
"""

import math
import platform
import re
import shutil
import sys
from hashlib import sha256
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, TypedDict, cast

import typer

from isoparam.network import bits
from pipeline import files, parameters
from tools import demo

RECORD = Path("record/digits.json")

# Of the depths those that differ in code, some in between, and the deepest.
CHANGES = demo.CHANGES | {
    ("models",): {
        f"L{depth}": {"depth": depth} | ({"width": 1} if depth else {}) for depth in (0, 1, 2, 3, 8)
    },
    ("train", "epochs"): 3,
    ("train", "strict"): True,
    ("seeds",): [0, 7, 8],
}

# One model is tuned here, apart from the study, whose learning rates the tuning would change.
TUNED = Path("tuned")
TUNED_MODEL: dict[str, Any] = {"L1": {"depth": 1, "width": 128}}

OUTPUTS = "data/raw data/split models metrics plots tuned/tuning tuned/learning_rates.yaml".split()

# Numbers are equal to 12 significant digits; where numbers about 1 cancel, to their last bits.
RELATIVE, ABSOLUTE = 1e-12, 1e-15
NUMBER = re.compile(r"(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)")

# p of Tukey's test, for a pair, and of Dunnett's, for a model, is 1 less an integral: processors
# differ in its 15th decimal.
INTEGRAL, INTEGRAL_ABSOLUTE = re.compile(r'\s*"(p_adjusted|L\d+)": '), 1e-13

SHOWN = 20


class Record(TypedDict):
    """What a run of the study on digits gave."""

    versions: dict[str, str]  # of the packages that hashes depend on
    hashes: dict[str, str]  # SHA-256 by path
    texts: dict[str, list[str]]  # the lines of tables and metrics by path


def main(
    *,
    record: Annotated[
        bool, typer.Option("--record", help=f"Write {RECORD} instead of comparing with it.")
    ] = False,
) -> None:
    """Run all stages on digits in a temporary folder, and compare their outputs with the record.

    The bits are guaranteed for Linux on x86-64 with AVX2 and the recorded torch.
    """
    recorded = None if record else read_record()
    if reason := not_comparable(recorded):
        raise ValueError(f"the guard cannot compare here: {reason}")
    with TemporaryDirectory(prefix="isoparam-") as name:
        folder = Path(name) / "digits"
        demo.make(folder, CHANGES, demo.LEARNING_RATE)
        run_stages(folder)
        found = outputs(folder)
    if recorded is None:
        files.write_json(RECORD, dict(found))
        return
    if reason := figures_not_comparable(recorded):
        print(f"guard: figures are left out: {reason}")
        recorded, found = without_figures(recorded), without_figures(found)
    if differing := differences(recorded, found):
        more = [f"and {len(differing) - SHOWN} more"] if len(differing) > SHOWN else []
        lines = ["the study on digits gives other outputs:", *differing[:SHOWN], *more]
        raise ValueError("\n  ".join(lines))
    print(f"guard: identical: {len(found['hashes'])} hashes, {len(found['texts'])} tables")


def run_stages(folder: Path) -> None:
    """Run all stages of the study, and those of the tuning for one model.

    Args:
        folder: a copy of the project with the changes of the guard, in which nothing ran yet.
    """
    # Setting them here saves each stage a second start, which loads torch again.
    strict = "env", *(f"{name}={value}" for name, value in bits.STRICT.items())
    demo.call(folder, *strict, "dvc", "repro")
    tuned = folder / TUNED
    tuned.mkdir()
    shutil.copy(folder / parameters.PARAMETERS, tuned)
    demo.edit(tuned, {("models",): TUNED_MODEL}, demo.LEARNING_RATE)
    (tuned / "data").symlink_to("../data")
    python = *strict, f"PYTHONPATH={folder}", sys.executable, "-m"
    demo.call(tuned, *python, "stages.tune", *TUNED_MODEL)
    demo.call(tuned, *python, "stages.choose")


def outputs(folder: Path) -> Record:
    """What a run in a folder gave."""
    versions = {name: version(name) for name in ("torch", "matplotlib", "pillow")}
    record = Record(versions=versions, hashes={}, texts={})
    paths = [path for name in OUTPUTS for path in (folder / name, *(folder / name).rglob("*"))]
    for path in sorted(p for p in paths if p.is_file() and p.name != ".gitignore"):
        name = path.relative_to(folder).as_posix()
        if path.suffix in {".csv", ".json", ".yaml"} and not name.startswith("models/"):
            record["texts"][name] = path.read_text(encoding="utf-8").split("\n")
        else:
            record["hashes"][name] = sha256(path.read_bytes()).hexdigest()
    return record


def read_record() -> Record:
    """The committed record.

    Raises:
        ValueError: if it is missing or damaged.
    """
    content = files.read_json(RECORD) if RECORD.exists() else {}
    if set(content) != Record.__required_keys__:
        raise ValueError(f"{RECORD} is missing or damaged: run `git checkout {RECORD}`")
    return cast("Record", content)


def without_figures(record: Record) -> Record:
    """The same without what depends on matplotlib."""
    hashes = {p: digest for p, digest in record["hashes"].items() if not p.endswith(".png")}
    return record | {"hashes": hashes}


def not_comparable(recorded: Record | None) -> str | None:
    """Why a run here may give other bits than those of a record, if it may.

    Args:
        recorded: the record; None for one that is to be made here.
    """
    import torch

    here = platform.system(), platform.machine(), torch.backends.cpu.get_cpu_capability()
    if here not in {("Linux", "x86_64", "AVX2"), ("Linux", "x86_64", "AVX512")}:
        return (
            "strict mode promises its bits for Linux on x86-64 with AVX2, "
            f"this is {here[0]} on {here[1]} (torch uses {here[2]})"
        )
    return _other_version(recorded, "torch") if recorded else None


def figures_not_comparable(recorded: Record) -> str | None:
    """Why a run here may give other figures than those of the record, if it may."""
    return _other_version(recorded, "matplotlib") or _other_version(recorded, "pillow")


def _other_version(recorded: Record, name: str) -> str | None:
    here, there = version(name), recorded["versions"][name]
    return f"{name} is {here} here, {there} in the record" if here != there else None


def differences(recorded: Record, found: Record) -> list[str]:
    """A line for each output that is not the recorded one."""
    lines = []
    for there, here in ((recorded["hashes"], found["hashes"]), (recorded["texts"], found["texts"])):
        for path in sorted(there | here):
            old, new = there.get(path), here.get(path)
            if new is None:
                lines.append(f"{path} is missing")
            elif old is None:
                lines.append(f"{path} is not in the record")
            elif isinstance(old, list) and isinstance(new, list):
                lines += _first_difference(path, old, new)
            elif old != new:
                lines.append(f"{path}: another hash")
    return lines


def _first_difference(path: str, recorded: list[str], found: list[str]) -> list[str]:
    """Where two texts differ, named by line and column; nothing if they do not."""
    for number, (there, here) in enumerate(zip_longest(recorded, found, fillvalue=""), start=1):
        if _equal(there, here):
            continue
        parts = [("", there, here)]
        if path.endswith(".csv") and there.count(",") == here.count(",") == recorded[0].count(","):
            columns = [f", column {name}" for name in recorded[0].split(",")]
            parts = list(zip(columns, there.split(","), here.split(","), strict=True))
        return [
            f"{path}, line {number}{place}: {b.strip()!r} here, {a.strip()!r} recorded"
            for place, a, b in parts
            if not _equal(a, b)
        ]
    return []


def _equal(recorded: str, found: str) -> bool:
    """Whether two texts differ in the last digits of numbers at most, and not in their form."""
    there, here = NUMBER.split(recorded), NUMBER.split(found)
    absolute = INTEGRAL_ABSOLUTE if INTEGRAL.match(recorded) else ABSOLUTE
    return len(there) == len(here) and all(
        a == b or (index % 2 == 1 and _close(float(a), float(b), absolute))
        for index, (a, b) in enumerate(zip(there, here, strict=True))
    )


def _close(a: float, b: float, absolute: float) -> bool:
    return a != b and math.isclose(a, b, rel_tol=RELATIVE, abs_tol=absolute)
