"""Stage plot_sampled: the figures of the sampled softmax, from tables alone."""

from pathlib import Path

from isoparam.figures.depth import png
from isoparam.figures.sampled import instance_discrimination, sampled_classifier
from pipeline import commands, files

PLOTS = Path("plots")


def main() -> None:
    """Draw plots/sampled.png and plots/instance.png."""
    columns: tuple[str, ...] = ("weighting", "samples", "seeds", "test_accuracy", "test_loss")
    sampled = files.read_csv(PLOTS / "sampled.csv", columns)
    columns = ("run", "weighting", "samples", "images", "of_epochs", "epoch", "loss", "accuracy")
    instance = files.read_csv(PLOTS / "instance.csv", columns)
    files.write(PLOTS / "sampled.png", png(sampled_classifier(sampled)))
    files.write(PLOTS / "instance.png", png(instance_discrimination(instance)))


if __name__ == "__main__":
    commands.run(main)
