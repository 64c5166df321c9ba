"""params.yaml and learning_rates.yaml, read, checked and edited."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline import files
from pipeline.schema import LearningRates, Model, Parameters, Schema, validate

PARAMETERS = Path("params.yaml")
LEARNING_RATES = Path("learning_rates.yaml")


def read_params() -> Parameters:
    """The checked content of params.yaml.

    Raises:
        ValueError: if it is missing, not YAML, or not valid by the schema.
    """
    return _read_yaml(PARAMETERS, Parameters)


def learning_rate_of(name: str) -> float:
    """The learning rate of a model, from the checked content of learning_rates.yaml.

    Raises:
        ValueError: if that is missing, not valid by the schema, or has no such model.
    """
    rates = _read_yaml(LEARNING_RATES, LearningRates).root
    if name not in rates:
        raise ValueError(
            f"{LEARNING_RATES} has no learning rate of {name}: add `{name}: ...`, a number"
        )
    return rates[name]


def _read_yaml(path: Path, schema: type[Schema]) -> Schema:
    if not path.exists():
        raise ValueError(f"{path} is missing: run this from the root of the project")
    text = files.read_text(path)
    try:
        document = YAML(typ="safe").load(text)
    except Exception as error:  # noqa: BLE001 (besides YAMLError, whatever a tag makes it trip over)
        reason = " ".join(f"{error or type(error).__name__}".split())
        raise ValueError(f"{path} is not valid YAML: {reason}") from None
    try:
        return validate(document, schema)
    except ValueError as error:
        lines = str(error).splitlines()
        raise ValueError("\n".join(f"{path}: {line}" for line in lines)) from None


@contextmanager
def edited_params(path: Path = PARAMETERS) -> Iterator[Any]:
    """The content of a file of parameters to change, then written with its comments kept."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1000
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(path) or {}
    yield document
    with files.replacing(path) as partial:
        yaml.dump(document, partial)


def find_model(models: dict[str, Model], name: str) -> Model:
    """The model of that name.

    Raises:
        ValueError: if params.yaml has none of that name.
    """
    if name not in models:
        raise ValueError(
            f"{PARAMETERS} has no model {name!r} under models; it has {', '.join(models)}"
        )
    return models[name]
