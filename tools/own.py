"""Own data for the study: describes them in params.yaml, and sets the widths."""

from pathlib import Path
from typing import Annotated

import typer

from isoparam.images.own import describe, read_own, split_own
from pipeline import parameters
from pipeline.schema import Data, validate
from tools import widths


def main(
    path: Annotated[
        Path, typer.Argument(help="An .npz file, or a folder with a folder for each class.")
    ],
) -> None:
    """Set `data` in params.yaml to the data at PATH, and the widths to the budget.

    Runs of `sampled` that sample more classes than there are others are removed. A batch larger
    than the examples to train with becomes as large as these.
    """
    own = read_own(path)
    with parameters.edited_params() as document:
        data = document["data"]
        # Whatever the data were: these decide on the split alone.
        checked = validate(dict(data) | {"dataset": "digits"}, Data)
        parts = split_own(own, checked.validation, checked.test, seed=checked.seed)
        found = describe(own, parts)
        data |= {"dataset": "own", "path": path.as_posix(), "names": own.names}
        # A mapping that is there holds the comment below it.
        data["own"] = data.get("own") or {}
        data["own"].update(found._asdict())
        runs = document["sampled"]["runs"]
        for name in [name for name, run in runs.items() if run.get("samples", 0) >= found.classes]:
            del runs[name]
        count = len(parts["train"].labels)
        smaller = [
            name
            for name in ("train", "sampled", "instance")
            if document[name]["batch_size"] > count
        ]
        for name in smaller:
            document[name]["batch_size"] = count
        widths.fit(document, found.features, found.classes)
    counts = ", ".join(f"{len(part.labels):,} for {name}" for name, part in parts.items())
    print(f"{found.features:,} features, {found.classes} classes, examples: {counts}")
    if smaller:
        print(f"batch_size is now {count} in {', '.join(smaller)}")
    widths.main(write=False, budget=None, arguments=False)
