"""Independent streams of random numbers from one seed."""

from enum import IntEnum

import torch


class Stream(IntEnum):
    """The uses of random numbers: each has its own stream, so that none disturbs another."""

    ORDER = 0
    WEIGHTS = 1
    SAMPLES = 2
    VIEWS = 3
    PROBE = 4
    HELD_OUT_PROBE = 5


def stream_of(seed: int, stream: Stream) -> torch.Generator:
    """A random generator of its own for each seed and each use.

    A CPU generator reads only the low 32 bits of its seed, so the stream's number cannot use
    the upper ones: it selects one of several numbers drawn from the seed.

    Args:
        seed: in [0, 2^32).
        stream: the use.

    Returns:
        The generator, on the CPU.

    Example:
        >>> first, again, other = (
        ...     torch.rand(1, generator=stream_of(7, stream))
        ...     for stream in (Stream.ORDER, Stream.ORDER, Stream.WEIGHTS)
        ... )
        >>> bool(first == again), bool(first == other)
        (True, False)
    """
    seeds = torch.randint(2**32, (64,), generator=torch.Generator().manual_seed(seed))
    return torch.Generator().manual_seed(int(seeds[stream]))
