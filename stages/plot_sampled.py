"""Stage plot_sampled: the figures of the sampled softmax, from tables alone."""

from pathlib import Path

from isoparam.figures import png
from isoparam.sampled_figures import instance_discrimination, sampled_classifier
from stages import support

PLOTS = Path("plots")


def main() -> None:
    """Draw plots/sampled.png and plots/instance.png."""
    columns = ("weighting", "samples", "seeds", "test_accuracy", "test_loss")
    sampled = support.read_csv(PLOTS / "sampled.csv", columns)
    columns = ("run", "weighting", "samples", "images", "of_epochs", "epoch", "loss", "accuracy")
    instance = support.read_csv(PLOTS / "instance.csv", columns)
    figures = {
        "sampled": sampled_classifier(sampled),
        "instance": instance_discrimination(instance),
    }
    for name, figure in figures.items():
        with support.replacing(PLOTS / f"{name}.png") as partial:
            partial.write_bytes(png(figure))


if __name__ == "__main__":
    support.run(main)
