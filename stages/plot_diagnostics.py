"""Stage plot_diagnostics: the figures of what the networks do, from tables alone."""

from pathlib import Path

from isoparam.figures.depth import png
from isoparam.figures.diagnostics import by_layer, calibration, confusion, hard_digits
from pipeline import commands, files, parameters

OUT = Path("plots")
TABLES = OUT / "diagnostics"
COLUMNS = {
    "summary": "model seeds test_loss ece test_images probe_images".split(),
    "confusion": "model label".split(),
    "calibration": "model bins count confidence accuracy".split(),
    "layers": (
        "model state layer gradient_norm gradient_norm_least gradient_norm_greatest "
        "similarity similarity_least similarity_greatest"
    ).split(),
    "hard_digits": "label predicted votes wrong networks pixels".split(),
}


def main() -> None:
    """Draw plots/{confusion,calibration,gradient_norms,hard_digits}.png."""
    params = parameters.read_params()
    names = params.data.names if params.data.dataset == "own" else None
    tables = {
        name: files.read_csv(TABLES / f"{name}.csv", columns, may_be_empty=name == "hard_digits")
        for name, columns in COLUMNS.items()
    }
    summary = tables["summary"]
    figures = {
        "confusion": confusion(tables["confusion"], summary, names),
        "calibration": calibration(tables["calibration"], summary),
        "gradient_norms": by_layer(tables["layers"], summary),
        "hard_digits": hard_digits(tables["hard_digits"], names),
    }
    for name, figure in figures.items():
        files.write(OUT / f"{name}.png", png(figure))


if __name__ == "__main__":
    commands.run(main)
