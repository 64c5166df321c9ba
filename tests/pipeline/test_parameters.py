"""params.yaml: the committed one, and one sentence that names the key for whatever is wrong."""

import copy
import re
import shutil

import pytest
from conftest import ROOT, SAMPLED_SECTIONS
from dvc.utils.hydra import apply_overrides
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from isoparam.budget import count_parameters, width_for_budget
from isoparam.images.datasets import DATASETS
from pipeline import parameters
from pipeline.schema import LearningRates, Parameters
from pipeline.schema import validate as validate_any

FIXED = settings(derandomize=True, database=None, deadline=None, max_examples=300)

COMMITTED = ROOT / "params.yaml"

# What a reader of params.yaml cannot know.
JARGON = ("For further information", "Value error", "pydantic", "[type=", "validation error")

STUDY = {
    "data": {
        "dataset": "digits",
        "local": "somewhere",
        "mirrors": ["https://example.org/mnist/"],
        "path": "mine.npz",
        "validation": 0.2,
        "test": 0.1,
        "seed": 1,
        "own": None,
        "names": None,
    },
    "budget": 9610,
    "seeds": [0, 1],
    "train": {
        "device": "cpu",
        "precision": "float32",
        "strict": False,
        "epochs": 1,
        "batch_size": 32,
        "warmup": 0.2,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "adversarial": 0.0,
    },
    "models": {
        "L0": {"depth": 0},
        "L1": {"depth": 1, "width": 128},
        "L2": {"depth": 2, "width": 68},
    },
    **SAMPLED_SECTIONS,
}
REMOVED = object()


def validate(document):
    return validate_any(document, Parameters)


def changed(path, value):
    """The study with another value at a path such as ("models", "L1", "width")."""
    document = copy.deepcopy(STUDY)
    section = document
    for part in path[:-1]:
        section = section[part]
    if value is REMOVED:
        del section[path[-1]]
    else:
        section[path[-1]] = value
    return document


def message_of(document):
    with pytest.raises(ValueError, match=r"\w") as caught:
        validate(document)
    # Pydantic's own kind of ValueError has many lines and a link for each fault.
    assert type(caught.value) is ValueError
    reported = str(caught.value)
    assert not any(word in reported for word in JARGON)
    return reported


def committed():
    return validate(YAML(typ="safe").load(COMMITTED))


def test_an_experiment_keeps_all_comments(tmp_path):
    """DVC writes the file anew, lists in lines of their own, and drops a comment after a list."""
    path = tmp_path / "params.yaml"
    shutil.copy(COMMITTED, path)
    with parameters.edited_params(path) as document:
        document["data"] |= {"names": ["a", "b"], "own": {"features": 4}}
    comments = [re.findall(r"(?<!\S)#.*", path.read_text(encoding="utf-8"))]
    for epochs in (2, 3):  # the second finds the lists as the first wrote them
        apply_overrides(path, [f"train.epochs={epochs}"])
        comments.append(re.findall(r"(?<!\S)#.*", path.read_text(encoding="utf-8")))
    assert len(comments[0]) > 40
    assert comments[1:] == comments[:1] * 2


def test_the_committed_parameters_are_valid():
    study = committed()
    assert study.data.dataset == "mnist"
    assert study.budget == count_parameters(1, 1024, *DATASETS["mnist"][:2])
    assert [model.depth for model in study.models.values()] == list(range(9))


def test_the_committed_widths_are_those_of_the_budget():
    study = committed()
    assert {name: model.width for name, model in study.models.items()} == {
        f"L{depth}": width_for_budget(study.budget, depth, *DATASETS["mnist"][:2])
        if depth
        else None
        for depth in range(9)
    }


def with_defaults(section, **defaults: object):
    runs = {name: defaults | run for name, run in STUDY[section]["runs"].items()}
    return STUDY[section] | {"runs": runs}


def test_values_arrive_as_they_were_written():
    assert validate(STUDY).model_dump() == {
        **STUDY,
        "models": {name: {"width": None} | model for name, model in STUDY["models"].items()},
        "sampled": with_defaults("sampled", samples=None),
        "instance": with_defaults("instance", samples=None, images="uniform"),
    }


def test_what_has_a_default_may_be_left_out():
    document = changed(("data",), {"dataset": "mnist"})
    for key in ("device", "precision", "strict", "adversarial"):
        del document["train"][key]
    study = validate(document)
    assert study.train.adversarial == 0
    assert study.data.local is None
    assert study.data.mirrors == []
    assert (study.train.device, study.train.precision, study.train.strict) == (
        "cpu",
        "float32",
        False,
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("data", "local"), None),
        (("data", "mirrors"), []),
        (("data", "mirrors"), ["http://localhost:8000/"]),
        (("train", "warmup"), 0),
        (("train", "weight_decay"), 0),
        (("train", "device"), "cuda"),
        (("train", "device"), "auto"),
        (("train", "precision"), "bfloat16"),
        (("train", "strict"), True),
        (("train", "adversarial"), 2),
        (("tuning", "hidden", 0), 1),
        (("models", "L1", "width"), 1),
        (("models",), {"a-b_C9": {"depth": 0}}),
        (("seeds",), [2**32 - 1]),
        # The count of depth 2 at width 1.
        (("budget",), 64 + 1 + 1 + 1 + 10 + 10),
    ],
)
def test_values_at_the_edge_of_what_is_allowed_are_taken(path, value):
    assert isinstance(validate(changed(path, value)), Parameters)


@pytest.mark.parametrize(
    ("device", "precision"), [("cuda", "float32"), ("auto", "float32"), ("cpu", "bfloat16")]
)
def test_strict_is_refused_where_it_cannot_be_kept(device, precision):
    document = changed(("train", "strict"), True)
    document["train"] |= {"device": device, "precision": precision}
    message = f"^train: strict guarantees the same bits .* got {device} and {precision}$"
    with pytest.raises(ValueError, match=message):
        validate(document)


TRAIN_NUMBERS = ("warmup", "momentum", "weight_decay", "adversarial")
WHOLE = (("budget",), ("train", "epochs"), ("train", "batch_size"), ("models", "L1", "width"))
REAL = (*(("train", key) for key in TRAIN_NUMBERS), ("tuning", "hidden", 0))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        # Keys too many, at each level.
        *(
            ((*path, "wdith"), 3, "there is no such parameter; remove it or correct its name")
            for path in ((), ("data",), ("train",), ("models", "L1"))
        ),
        # Keys too few.
        *(
            (path, REMOVED, "required")
            for path in (
                *((key,) for key in STUDY),
                ("data", "dataset"),
                *(("train", key) for key in ("epochs", "batch_size", "warmup", "momentum")),
                ("models", "L0", "depth"),
                *(("tuning", key) for key in STUDY["tuning"]),
            )
        ),
        # Wrong types.
        *(
            (path, value, f"integer, got {value!r}")
            for path in (*WHOLE, ("seeds", 0), ("models", "L1", "depth"))
            for value in ("12", "many", True, False, 1.0, 1.5, [1], {"a": 1}, float("nan"))
        ),
        *(
            (path, None, "integer, got None")
            for path in (("budget",), ("train", "epochs"), ("seeds", 0))
        ),
        *(
            (path, value, f"number, got {value!r}")
            for path in REAL
            for value in ("0.1", "", True, False, None, [0.1], float("nan"), float("inf"))
        ),
        (("data", "dataset"), "cifar", "'digits' or 'own', got 'cifar'"),
        (("data", "dataset"), 1, "'digits' or 'own', got 1"),
        (("data", "dataset"), None, "'digits' or 'own', got None"),
        (("data", "local"), 3, "string, got 3"),
        (("data", "local"), "", "got ''"),
        (("data", "mirrors"), "https://example.org/", "list, got 'https://example.org/'"),
        (("data", "mirrors", 0), "ftp://example.org/", "got 'ftp://example.org/'"),
        (("data", "mirrors", 0), "https://a b/", "got 'https://a b/'"),
        (("data", "mirrors", 0), None, "string, got None"),
        (("train", "device"), "gpu", "'auto', 'cpu' or 'cuda', got 'gpu'"),
        (("train", "precision"), "float16", "'float32' or 'bfloat16', got 'float16'"),
        (("train", "strict"), "yes", "boolean, got 'yes'"),
        # Values out of range.
        *((path, 0, "greater than or equal to 1, got 0") for path in WHOLE),
        *((path, -5, "greater than or equal to 1, got -5") for path in WHOLE),
        (("models", "L1", "depth"), -1, "greater than or equal to 0, got -1"),
        (("tuning", "hidden", 0), 0.0, "greater than 0, got 0.0"),
        (("tuning", "linear", 0), -0.1, "greater than 0, got -0.1"),
        (("tuning", "hidden"), [], "at least 1 item"),
        (("tuning", "hidden"), [0.1, 0.2, 0.1], "each value may occur once, but 0.1 is repeated"),
        (("tuning", "seeds"), [7, 7], "each value may occur once, but 7 is repeated"),
        (("train", "warmup"), 1.0, "less than 1, got 1.0"),
        (("train", "momentum"), 1, "less than 1, got 1"),
        *((("train", key), -0.1, "greater than or equal to 0, got -0.1") for key in TRAIN_NUMBERS),
        (("seeds", 1), -1, "greater than or equal to 0, got -1"),
        (("seeds", 1), 2**32, "less than 4294967296, got 4294967296"),
        (("seeds",), [], "at least 1 item"),
        (("seeds",), [3, 1, 3], "each value may occur once, but 3 is repeated"),
        (("seeds",), 0, "list, got 0"),
        (("models",), {}, "at least 1 item"),
        # The budget.
        (("budget",), 84, "budget 84 is below the smallest network of models.L1: depth 1"),
        (("budget",), 86, "budget 86 is below the smallest network of models.L2: depth 2 at width"),
        # Names that cannot be a folder and an argument.
        *(
            (("models", name), {"depth": 0}, f"got {name!r}")
            for name in ("a;b", "../x", "a/b", "a b", "", ".", "..", "-x", "_x", "ä", "x" * 65)
        ),
        (("models", 1), {"depth": 0}, "string, got 1"),
        (("models", None), {"depth": 0}, "string, got None"),
        # Neither mapping nor list.
        *((("models",), value, f"got {value!r}") for value in (None, [], 3, "x", True)),
        *(
            (path, value, f"got {value!r}")
            for path in (("data",), ("train",), ("models", "L1"))
            for value in (None, [], [1], 3, "x", True)
        ),
        *((("models", "L1", "depth"), depth, "less than") for depth in (10**15, 10**20)),
    ],
)
def test_a_fault_is_reported_with_the_key_that_has_it(path, value, message):
    reported = message_of(changed(path, value))
    assert reported.startswith(".".join(map(str, path)))
    assert message in reported
    assert "\n" not in reported


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("L1", "width"), REMOVED, "models.L1: depth 1 needs a width: add `width: ...`"),
        (("L1", "width"), None, "models.L1: depth 1 needs a width: add `width: ...`"),
        (("L1", "depth"), 0, "models.L1: depth 0 has no hidden layer: remove `width: 128`"),
        (("L0", "width"), 5, "models.L0: depth 0 has no hidden layer: remove `width: 5`"),
        (("L0", "depth"), 2, "models.L0: depth 2 needs a width: add `width: ...`"),
    ],
)
def test_a_width_goes_with_a_depth(path, value, message):
    assert message_of(changed(("models", *path), value)) == message


@pytest.mark.parametrize("path", [("data",), ("train",), ("models", "L1")])
def test_no_class_is_named_to_who_gave_no_mapping(path):
    assert "instance of" not in message_of(changed(path, None))


def test_a_name_with_the_end_of_a_line_is_reported_in_one_line():
    reported = message_of(changed(("models", "x\n"), {"depth": 0}))
    assert reported.startswith("models.x : ")
    assert reported.endswith(r"got 'x\n'")


@pytest.mark.parametrize("document", [None, [], [STUDY], "text", 3, 0.5, True])
def test_a_document_that_is_no_mapping_is_reported(document):
    reported = message_of(document)
    assert f"got {document!r}"[:100] in reported
    assert "\n" not in reported


def test_each_fault_has_a_line_of_its_own():
    document = changed(("train", "epochs"), 0)
    document["budget"] = "many"
    document["models"]["L1"]["wdith"] = 3
    del document["data"]
    lines = message_of(document).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "data",
        "budget",
        "train.epochs",
        "models.L1.wdith",
    ]


def test_a_long_value_is_cut_short():
    assert len(message_of(changed(("seeds",), "x" * 10_000))) < 300


def test_all_keys_of_no_study_are_asked_for():
    keys = [re.match(r"\w+", line)[0] for line in message_of({}).splitlines()]
    assert keys == list(STUDY)


# Numbers of a size that a person may type; for larger ones see the depths above.
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**4), 10**4)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["mnist", "digits", "cpu", "L1", "a;b"])
)
KEYS = st.text(max_size=4) | st.sampled_from([*STUDY, *STUDY["train"], "depth", "width", "dataset"])
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | SCALARS, inner, max_size=5),
    max_leaves=12,
)
PATHS = [
    *((key,) for key in STUDY),
    *(("data", key) for key in STUDY["data"]),
    *(("train", key) for key in STUDY["train"]),
    *(("models", name) for name in STUDY["models"]),
    *(("models", "L1", key) for key in STUDY["models"]["L1"]),
    ("seeds", 0),
    ("data", "mirrors", 0),
]


@FIXED
@given(DOCUMENTS)
def test_any_document_is_valid_or_a_value_error(document):
    try:
        assert isinstance(validate(document), Parameters)
    except ValueError as error:
        assert type(error) is ValueError  # noqa: PT017 (it may not raise)
        assert str(error)  # noqa: PT017


@FIXED
@given(st.sampled_from(PATHS), DOCUMENTS)
def test_any_value_at_any_key_is_valid_or_a_value_error(path, value):
    try:
        assert isinstance(validate(changed(path, value)), Parameters)
    except ValueError as error:
        assert type(error) is ValueError  # noqa: PT017 (it may not raise)
        # The key, or a longer one within it, or the section whose keys contradict each other.
        assert str(error).startswith(tuple(".".join(map(str, path[:n])) for n in (1, 2, 3)))  # noqa: PT017
        assert not any(word in str(error) for word in JARGON if word not in repr(value))  # noqa: PT017


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"L1": 0}, "L1: Input should be greater than 0, got 0"),
        ({"L1": "fast"}, "L1: Input should be a valid number, got 'fast'"),
        ({"L1": None}, "L1: Input should be a valid number, got None"),
        ({"L1": float("nan")}, "L1: Input should be a finite number, got nan"),
        ({"a;b": 0.1}, "a;b: String should match pattern"),
        (None, "got None"),
        ([0.1], "got [0.1]"),
    ],
)
def test_learning_rates_that_cannot_be(document, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        validate_any(document, LearningRates)
    assert type(caught.value) is ValueError
    assert not any(word in str(caught.value) for word in JARGON)


def test_the_committed_learning_rates_are_those_of_the_models():
    rates = validate_any(
        YAML(typ="safe").load(COMMITTED.with_name("learning_rates.yaml")), LearningRates
    )
    assert list(rates.root) == list(committed().models)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[a", "params.yaml is not valid YAML: while parsing a flow sequence"),
        (b"a: b: c", "params.yaml is not valid YAML: mapping values are not allowed"),
        (b"\tseeds: [0]", "params.yaml is not valid YAML: "),
        (b"seeds: [0]\nseeds: [1]", 'found duplicate key "seeds"'),
        (b"models: {L1: {depth: 0}, L1: {depth: 0}}", 'found duplicate key "L1"'),
        (b"seeds: *other", "params.yaml is not valid YAML: found undefined alias"),
        (b"a: 1\n---\nb: 1", "params.yaml is not valid YAML: expected a single document"),
        (b"seeds: !!python/object:os.system x", "params.yaml is not valid YAML: "),
        (b"\xff\xfe\xfa", "params.yaml is not UTF-8 "),
        (b"", "params.yaml: "),
        (b"# nothing but a comment", "params.yaml: "),
        (b"[]", "params.yaml: "),
        (b"just words", "params.yaml: "),
        (b"budget: !!int many", "params.yaml "),
        (b"2001-99-99", "params.yaml "),
        (b"budget: " + b"9" * 5_000, "params.yaml "),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_a_file_that_is_no_valid_yaml_is_reported_in_one_line(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parameters.PARAMETERS.write_bytes(text)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        parameters.read_params()
    assert "\n" not in str(caught.value)


def test_missing_parameters_are_reported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"params\.yaml is missing: run this from the root"):
        parameters.read_params()
