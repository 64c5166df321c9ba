"""Trainings side by side, each of which stops and resumes by states in .checkpoints.

So the processes share the work evenly, and a run that was killed loses seconds. torch is imported
by the processes that train, not by the one that waits for them.
"""

import shutil
import sys
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from safetensors import SafetensorError, safe_open

from pipeline import commands, files, processes

if TYPE_CHECKING:
    from isoparam.network.recipe import Job, Row

CHECKPOINTS = Path(".checkpoints")

# How long a process trains before it leaves a checkpoint, at the end of the epoch.
PART_SECONDS = 2.0


class _Part(NamedTuple):
    job: "Job"
    checkpoint: Path


def run(name: str, jobs: Sequence["Job"], workers: int | None) -> list[list["Row"]]:
    """Train all jobs of one model.

    Args:
        name: of the model.
        jobs: what to train.
        workers: number of parallel processes; the number of cores if None.

    Returns:
        The history of each job; of a trial that diverged, its epochs until then.

    Raises:
        ValueError: if data is missing or damaged, or a job other than a trial diverges.
    """
    common = _digest_of_data_and_code(jobs[0].split)
    parts = [_Part(job, _checkpoint(name, job, common)) for job in jobs]
    with commands.progress(f"train {name}", sum(job.recipe.epochs for job in jobs)) as advance:
        for _ in range(sum(_epochs_done(part.checkpoint) for part in parts)):
            advance("done before")
        return processes.run_all(
            _train, parts, workers=workers, advance=advance, preload=["isoparam.network.jobs"]
        )


def forget(name: str) -> None:
    """Remove the checkpoints of a model, when its results are written."""
    shutil.rmtree(CHECKPOINTS / name, ignore_errors=True)


def _train(part: _Part, report: processes.Report) -> "list[Row] | None":
    """Continue a training for a while; the history if it is done, None otherwise."""
    from isoparam.images.files import load_tensors, save_tensors
    from isoparam.network.jobs import train

    state = None
    if part.checkpoint.exists():
        try:
            state, _ = load_tensors(part.checkpoint)
        except ValueError as error:
            print(f"starting again from the first epoch: {error}", file=sys.stderr)
    result = train(part.job, state, PART_SECONDS, report)
    if isinstance(result, list):
        return result
    with files.replacing(part.checkpoint) as partial:
        save_tensors(partial, result, {})
    return None


def _epochs_done(checkpoint: Path) -> int:
    try:
        with safe_open(checkpoint, framework="np") as file:
            return int(file.get_slice("history").get_shape()[0])
    except (OSError, SafetensorError):
        return 0


def _checkpoint(name: str, job: "Job", common: str) -> Path:
    """The checkpoint of an unfinished job, named by a hash of all that the job depends on."""
    everything = f"{job.recipe} {job.seeds} {job.device} {version('torch')} {common}"
    return CHECKPOINTS / name / sha256(everything.encode()).hexdigest()[:32]


def _digest_of_data_and_code(split: Path) -> str:
    """A hash of the split and of the code that decides numbers."""
    code = sorted(Path(__file__).parents[1].glob("isoparam/**/*.py"))
    digest = sha256()
    for path in (split / "train.safetensors", split / "validation.safetensors", *code):
        if path.is_file():  # what is missing is reported by whoever reads it
            digest.update(sha256(path.read_bytes()).digest())
    return digest.hexdigest()
