"""Stage plot_sampled: the figures of the sampled softmax, from tables alone."""

from pathlib import Path

from matplotlib.figure import Figure

from isoparam.sampled_figures import instance_discrimination, sampled_classifier
from stages import support

PLOTS = Path("plots")


def main() -> None:
    """Draw plots/sampled.png and plots/instance.png."""
    columns = ("weighting", "samples", "seeds", "test_accuracy", "test_loss")
    table = support.read_csv(PLOTS / "sampled.csv", columns)
    _save(sampled_classifier(table), PLOTS / "sampled.png")
    columns = ("run", "weighting", "samples", "images", "of_epochs", "epoch", "loss", "accuracy")
    table = support.read_csv(PLOTS / "instance.csv", columns)
    _save(instance_discrimination(table), PLOTS / "instance.png")


def _save(figure: Figure, path: Path) -> None:
    with support.replacing(path) as partial:
        # Without the metadata the same figure gives the same bytes.
        figure.savefig(partial, format="png", dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    support.run(main)
