"""The schema of params.yaml and learning_rates.yaml: what a study may ask for."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    StringConstraints,
    ValidationError,
    model_validator,
)

from isoparam.budget import count_parameters, layer_sizes
from isoparam.images.datasets import Dataset, sizes_of
from isoparam.network.recipe import Precision, Recipe

# A model's name becomes a folder and an argument of a command.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Positive = Annotated[int, Field(ge=1, le=10**9)]
Share = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0)]


def _differ(values: list[Any]) -> list[Any]:
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"each value may occur once, but {repeated[0]} is repeated")
    return values


Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_differ)]
Rates = Annotated[list[Rate], Field(min_length=1), AfterValidator(_differ)]


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True
    )


class Data(_Section):
    """The source of the images, and how own data are split."""

    dataset: Literal[
        "mnist", "fashion-mnist", "kmnist", "qmnist", "emnist-letters", "digits", "own"
    ]
    local: Annotated[str, Field(min_length=1)] | None = None
    mirrors: list[Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$")]] = []
    path: Annotated[str, Field(min_length=1)] = "data/own"
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.15
    test: Annotated[float, Field(gt=0, lt=1)] = 0.15
    seed: Seed = 0
    own: Dataset | None = None
    names: list[str] | None = None

    @model_validator(mode="after")
    def _own_data_are_described(self) -> Self:
        if self.dataset == "own" and (
            self.own is None or min(self.own) < 1 or len(self.names or []) != self.own.classes
        ):
            raise ValueError(
                "own and names must describe the data: run `python -m tools own PATH`, which "
                "sets them"
            )
        return self

    @property
    def sizes(self) -> tuple[int, int]:
        """Features and classes."""
        return sizes_of(self.dataset, self.own)


class Train(_Section):
    """Stochastic gradient descent, as `Recipe` takes it, and where it runs."""

    device: Literal["auto", "cpu", "cuda"] = "cpu"
    precision: Precision = "float32"
    strict: bool = False
    epochs: Positive
    batch_size: Positive
    warmup: Share
    momentum: Share
    weight_decay: Annotated[float, Field(ge=0)]
    adversarial: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _strict_is_for_float32_on_cpus(self) -> Self:
        if self.strict and (self.device != "cpu" or self.precision != "float32"):
            raise ValueError(
                f"strict guarantees the same bits for device cpu and precision float32 only, "
                f"got {self.device} and {self.precision}"
            )
        return self

    def recipe(self, sizes: Sequence[int], learning_rate: float) -> Recipe:
        """The recipe of one network: these parameters, its sizes and its learning rate."""
        return Recipe(
            sizes=tuple(sizes),
            learning_rate=learning_rate,
            **self.model_dump(exclude={"device", "strict"}),
        )


class Model(_Section):
    """One network of the study."""

    depth: Annotated[int, Field(ge=0, le=1000)]
    width: Positive | None = None

    @model_validator(mode="after")
    def _width_goes_with_depth(self) -> Self:
        if self.depth and self.width is None:
            raise ValueError(f"depth {self.depth} needs a width: add `width: ...`")
        if not self.depth and self.width is not None:
            raise ValueError(f"depth 0 has no hidden layer: remove `width: {self.width}`")
        return self

    def sizes(self, data: Data) -> list[int]:
        """Sizes of all layers, input and output included."""
        return layer_sizes(self.depth, self.width or 0, *data.sizes)


class Tuning(_Section):
    """Learning rates to choose from on validation, of networks without and with hidden layers."""

    seeds: Seeds
    linear: Rates
    hidden: Rates


class _Run(_Section):
    weighting: Literal["full", "importance", "stated", "none"]
    samples: Positive | None = None
    learning_rate: Rate

    @model_validator(mode="after")
    def _samples_go_with_sampling(self) -> Self:
        if self.weighting == "full" and self.samples is not None:
            raise ValueError(f"the full softmax samples nothing: remove `samples: {self.samples}`")
        if self.weighting != "full" and self.samples is None:
            raise ValueError(f"weighting {self.weighting} needs samples: add `samples: ...`")
        return self


class SampledRun(_Run):
    """One way to train the output layer: on all classes, or on K sampled ones."""

    weighting: Literal["full", "importance", "stated"]


class Sampled(_Section):
    """The linear classifier on sampled classes, as `isoparam.sampled_study.linear` takes it."""

    epochs: Positive
    batch_size: Positive
    warmup: Share
    runs: Annotated[dict[Name, SampledRun], Field(min_length=1)]


class InstanceRun(_Run):
    """One training of instance discrimination; `none` shows what the correction is worth."""

    images: Literal["uniform", "zipf"] = "uniform"
    epochs: Positive


class Instance(_Section):
    """Instance discrimination, as `isoparam.sampled_study.instance.train_instances` takes it."""

    seed: Seed
    shift: Annotated[int, Field(ge=0)]
    noise: Annotated[float, Field(ge=0)]
    hidden: Positive
    features: Positive
    batch_size: Annotated[int, Field(ge=2)]
    class_rate: Rate
    warmup: Share
    momentum: Share
    exponent: Annotated[float, Field(ge=0)]
    views: Positive
    evaluations: Positive
    runs: Annotated[dict[Name, InstanceRun], Field(min_length=1)]


class Parameters(_Section):
    """The whole of params.yaml."""

    data: Data
    budget: Positive
    seeds: Seeds
    train: Train
    models: Annotated[dict[Name, Model], Field(min_length=1)]
    tuning: Tuning
    sampled: Sampled
    instance: Instance

    @model_validator(mode="after")
    def _budget_can_be_met(self) -> Self:
        for name, model in self.models.items():
            smallest = count_parameters(model.depth, 1, *self.data.sizes)
            if model.depth and self.budget < smallest:
                raise ValueError(
                    f"budget {self.budget:,} is below the smallest network of models.{name}: depth "
                    f"{model.depth} at width 1 has {smallest:,} parameters"
                )
        return self

    @model_validator(mode="after")
    def _samples_are_other_classes(self) -> Self:
        _, classes = self.data.sizes
        for name, run in self.sampled.runs.items():
            if (run.samples or 0) >= classes:
                raise ValueError(
                    f"sampled.runs.{name} samples {run.samples} other classes, and there are "
                    f"{classes - 1}: remove it or lower its samples"
                )
        return self


class LearningRates(RootModel[dict[Name, Rate]]):
    """The whole of learning_rates.yaml: the peak of each model's learning rate."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


Schema = TypeVar("Schema", bound=BaseModel)


def validate(document: Any, schema: type[Schema]) -> Schema:
    """Check the content of a file of parameters.

    Args:
        document: what the YAML parser returned.
        schema: `Parameters` or `LearningRates`.

    Returns:
        The parameters.

    Raises:
        ValueError: one line for each fault: the key, the rule and the value.

    Example:
        >>> validate({"budget": "many"}, Parameters)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: data: Field required
        budget: Input should be a valid integer, got 'many'
        ...
    """
    try:
        return schema.model_validate(document)
    except ValidationError as error:
        raise ValueError("\n".join(_sentence(fault) for fault in error.errors())) from None


def _sentence(fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"] if part != "[key]")
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = "there is no such parameter; remove it or correct its name"
    elif fault["type"] == "model_type":
        message = f"must be a mapping of names to values, got {fault['input']!r}"[:200]
    elif fault["type"] not in {"missing", "value_error"}:
        message += f", got {fault['input']!r}"[:200]
    return " ".join((f"{key}: {message}" if key else message).split("\n"))
