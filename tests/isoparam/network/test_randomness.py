"""Streams of random numbers: one for each seed and use, whatever the others draw."""

from itertools import product

import torch

from isoparam.network.randomness import Stream, stream_of

SEEDS = (0, 1, 2, 2**31, 2**32 - 1)


def test_each_seed_and_each_use_has_numbers_of_its_own():
    draws = {
        tuple(torch.rand(4, generator=stream_of(seed, stream)).tolist())
        for seed, stream in product(SEEDS, Stream)
    }
    assert len(draws) == len(SEEDS) * len(Stream)


def test_the_numbers_are_those_of_the_record():
    """Another number for a use would change every result."""
    assert {stream.name: stream_of(7, stream).initial_seed() for stream in Stream} == {
        "ORDER": 976413892,
        "WEIGHTS": 1369975286,
        "SAMPLES": 4201435347,
        "VIEWS": 1956722279,
        "PROBE": 1322904761,
        "HELD_OUT_PROBE": 1133316631,
    }


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    torch.rand(9, generator=stream_of(3, Stream.ORDER))
    assert torch.equal(torch.get_rng_state(), state)
