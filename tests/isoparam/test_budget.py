"""Counts and widths: the homework's numbers, and the nearest width against a search by hand."""

import re
from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoparam.budget import (
    count_parameters,
    ideal_width,
    layer_sizes,
    parameters_of,
    width_for_budget,
)

FIXED = settings(derandomize=True, database=None, deadline=None, max_examples=200)

MNIST = {"inputs": 784, "classes": 10}
BUDGET = 814_090

SMALL = {"depth": st.integers(1, 5), "inputs": st.integers(1, 12), "classes": st.integers(1, 5)}
LARGE = {
    "depth": st.integers(1, 50),
    "inputs": st.integers(1, 10_000),
    "classes": st.integers(1, 10_000),
}


def closed_form(depth, width, inputs, classes):
    """The count of homework 2.3 for at least one hidden layer, exact for any kind of number."""
    return (depth - 1) * width**2 + (inputs + depth + classes) * width + classes


@pytest.mark.parametrize(
    ("depth", "width", "sizes"),
    [
        (0, 0, [784, 10]),
        (0, 5, [784, 10]),
        (1, 5, [784, 5, 10]),
        (2, 5, [784, 5, 5, 10]),
        (3, 1, [784, 1, 1, 1, 10]),
    ],
)
def test_layer_sizes_repeat_the_width_once_for_each_hidden_layer(depth, width, sizes):
    assert layer_sizes(depth, width, **MNIST) == sizes


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ([784, 10], 784 * 10 + 10),
        ([784, 1024, 10], 784 * 1024 + 1024 + 1024 * 10 + 10),
        ([3, 4, 2], 3 * 4 + 4 + 4 * 2 + 2),
        ([1, 1], 2),
        ([5], 0),
    ],
)
def test_each_layer_counts_its_weights_and_biases(sizes, count):
    assert parameters_of(sizes) == count


@pytest.mark.parametrize(
    ("depth", "width", "count"), [(0, 0, 7_850), (0, 1024, 7_850), (1, 1024, BUDGET)]
)
def test_counts_of_the_homework(depth, width, count):
    assert count_parameters(depth, width, **MNIST) == count


@pytest.mark.parametrize(
    ("depth", "width", "count"),
    [
        (1, 1024, 814_090),
        (2, 588, 813_802),
        (3, 469, 813_725),
        (4, 405, 815_275),
        (5, 362, 813_424),
        (6, 331, 812_615),
        (7, 308, 815_902),
        (8, 289, 816_435),
    ],
)
def test_widths_of_the_homework(depth, width, count):
    assert width_for_budget(BUDGET, depth, **MNIST) == width
    assert count_parameters(depth, width, **MNIST) == count


@FIXED
@given(width=st.integers(1, 10**6), **LARGE)
def test_count_is_the_closed_form(depth, width, inputs, classes):
    assert count_parameters(depth, width, inputs, classes) == closed_form(
        depth, width, inputs, classes
    )


@FIXED
@given(budget=st.integers(0, 2_000), **SMALL)
def test_width_is_the_nearest_of_all_and_the_smaller_at_a_tie(budget, depth, inputs, classes):
    budget = max(budget, count_parameters(depth, 1, inputs, classes))
    # A network of any depth has more parameters than units in a layer.
    nearest = min(
        range(1, budget + 1),
        key=lambda width: (abs(closed_form(depth, width, inputs, classes) - budget), width),
    )
    assert width_for_budget(budget, depth, inputs, classes) == nearest


@FIXED
@given(budget=st.integers(0, 10**12), **LARGE)
def test_both_neighbours_of_a_large_width_are_no_nearer(budget, depth, inputs, classes):
    budget = max(budget, count_parameters(depth, 1, inputs, classes))
    width = width_for_budget(budget, depth, inputs, classes)
    # The count grows with the width, so that a width better than both neighbours is the best.
    below, here, above = (
        abs(closed_form(depth, width + step, inputs, classes) - budget) for step in (-1, 0, 1)
    )
    assert here <= above
    assert width == 1 or here < below


def test_a_tie_goes_to_the_smaller_width():
    # 4 n + 2 parameters: 6 and 10 are as far from 8.
    assert width_for_budget(8, depth=1, inputs=1, classes=2) == 1
    assert width_for_budget(9, depth=1, inputs=1, classes=2) == 2


@FIXED
@given(width=st.integers(1, 10**6), **LARGE)
def test_a_count_that_can_be_met_is_met(depth, width, inputs, classes):
    budget = count_parameters(depth, width, inputs, classes)
    assert width_for_budget(budget, depth, inputs, classes) == width


@FIXED
@given(budget=st.integers(1, 10**12), **LARGE)
def test_count_at_the_ideal_width_is_the_budget(budget, depth, inputs, classes):
    budget += classes
    width = ideal_width(budget, depth, inputs, classes)
    count = closed_form(depth, Fraction(width), inputs, classes)
    # In units of rounding u = 2^-53: the discriminant (1, halved by the root), the root, the sum,
    # the numerator and the quotient, one each, make at most 4.5 in the width; a polynomial of
    # degree 2 with positive terms at most doubles them.
    assert abs(count - budget) <= Fraction(10, 2**53) * budget


@FIXED
@given(budget=st.integers(0, 10**9), more=st.integers(0, 10**6), **LARGE)
def test_width_never_falls_with_the_budget(budget, more, depth, inputs, classes):
    budget = max(budget, count_parameters(depth, 1, inputs, classes))
    assert width_for_budget(budget, depth, inputs, classes) <= width_for_budget(
        budget + more, depth, inputs, classes
    )


@FIXED
@given(budget=st.integers(0, 10**9), **LARGE)
def test_width_never_grows_with_the_depth(budget, depth, inputs, classes):
    budget = max(budget, count_parameters(depth + 1, 1, inputs, classes))
    assert width_for_budget(budget, depth + 1, inputs, classes) <= width_for_budget(
        budget, depth, inputs, classes
    )
    assert ideal_width(budget, depth + 1, inputs, classes) < ideal_width(
        budget, depth, inputs, classes
    )


@FIXED
@given(budget=st.integers(0, 10**9), **LARGE)
def test_width_is_the_ideal_one_rounded_down_or_up(budget, depth, inputs, classes):
    budget = max(budget, count_parameters(depth, 1, inputs, classes))
    ideal = ideal_width(budget, depth, inputs, classes)
    assert floor(ideal) <= width_for_budget(budget, depth, inputs, classes) <= ceil(ideal)


WIDTH = {"depth": 1, "width": 5, **MNIST}
IDEAL = {"budget": BUDGET, "depth": 1, **MNIST}


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (function, WIDTH | change, f"{name} must be a whole number of at least {least}, got {got}")
        for function in (layer_sizes, count_parameters)
        for change, name, least, got in (
            ({"depth": -1}, "depth", 0, "-1"),
            ({"depth": 1.0}, "depth", 0, "1.0"),
            ({"depth": True}, "depth", 0, "True"),
            ({"depth": "1"}, "depth", 0, "'1'"),
            ({"width": 0}, "width", 1, "0"),
            ({"width": -3}, "width", 1, "-3"),
            ({"width": None}, "width", 1, "None"),
            ({"inputs": 0}, "inputs", 1, "0"),
            ({"classes": 0}, "classes", 1, "0"),
            ({"depth": 0, "inputs": -1}, "inputs", 1, "-1"),
            ({"depth": 0, "classes": -1}, "classes", 1, "-1"),
        )
    ]
    + [
        (ideal_width, IDEAL | change, f"{name} must be a whole number of at least {least}, got")
        for change, name, least in (
            ({"depth": 0}, "depth", 1),
            ({"inputs": 0}, "inputs", 1),
            ({"classes": 0}, "classes", 1),
            ({"budget": 10}, "budget", 11),
            ({"budget": 1e6}, "budget", 11),
            ({"budget": "many"}, "budget", 11),
        )
    ]
    + [
        (width_for_budget, IDEAL | change, message)
        for change, message in (
            ({"depth": 0}, "depth must be a whole number of at least 1, got 0"),
            ({"depth": -1}, "depth must be a whole number of at least 0, got -1"),
            ({"inputs": 0}, "inputs must be a whole number of at least 1, got 0"),
            ({"budget": 1e6}, "budget must be a whole number of at least 11, got 1000000.0"),
            (
                {"budget": 804},
                "budget must be at least 805, the parameters of a network of depth 1 and width 1",
            ),
            (
                {"budget": 1000, "depth": 150},
                "budget must be at least 1,103, the parameters of a network of depth 150",
            ),
            ({"budget": -1_000}, "got -1,000"),
        )
    ],
)
def test_an_argument_out_of_its_range_is_named(function, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        function(**arguments)
