"""Train one job for a while, from a state and to a state, so that a run can stop at any epoch."""

import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from isoparam.images.files import load_training_data
from isoparam.network.bits import use_one_thread
from isoparam.network.files import save_perceptron
from isoparam.network.recipe import Job, Row
from isoparam.network.training import DivergenceError, Training


def train(
    job: Job, state: dict[str, Tensor] | None, seconds: float, report: Callable[[str], None]
) -> list[Row] | dict[str, Tensor]:
    """Train for a while, in one thread, and write the weights at the end.

    Args:
        job: what to train.
        state: what an earlier call returned, to resume from; None to start.
        seconds: how long to train before a state is returned, at the end of an epoch.
        report: called after each epoch with a text to show.

    Returns:
        The history if the training is done, or of a trial until it diverged; otherwise
        its state.

    Raises:
        ValueError: if data is missing or damaged, or a job other than a trial diverges.
    """
    use_one_thread()
    if job.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("train.device is cuda, but torch finds no such device: set it to cpu")
    sizes = job.recipe.sizes
    data = load_training_data(job.split, sizes[0], sizes[-1])
    x, labels, *validation = (
        tensor.to(job.device) for part in (data.train, data.validation) for tensor in part
    )
    training = Training(x, labels, (validation[0], validation[1]), job.recipe, job.seeds)
    if state is not None:
        try:
            training.restore(state)
        except ValueError as error:
            sys.stderr.write(f"starting again from the first epoch: {error}\n")
    start = time.monotonic()
    while not training.done:
        try:
            epoch = training.run_epoch()
        except DivergenceError:
            if job.folder:
                raise
            break
        report(f"validation accuracy {max(epoch.validation_accuracy):.4f}")
        if not training.done and time.monotonic() - start > seconds:
            return training.state()
    if job.folder:
        for replica, seed in enumerate(job.seeds):
            save_perceptron(
                job.folder / f"seed-{seed}.safetensors",
                [(w[replica, None].cpu(), b[replica, None].cpu()) for w, b in training.layers],
                {"seed": seed, "sizes": list(sizes)} | data.statistics,
            )
    return [
        Row(seed, e.epoch, e.train_loss[r], e.validation_loss[r], e.validation_accuracy[r])
        for r, seed in enumerate(job.seeds)
        for e in training.history
    ]
