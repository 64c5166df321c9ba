"""Independent streams of random numbers from one seed."""

import torch


def generator(seed: int, stream: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for each seed and each use.

    A CPU generator reads only the low 32 bits of its seed, so the number of the stream can not
    stand in the upper ones: it chooses among numbers drawn from the seed.

    Args:
        seed: in [0, 2^32).
        stream: number of the use, in [0, 64).
        device: where it draws; the same seed gives other numbers on another kind of device.

    Returns:
        The generator.

    Raises:
        ValueError: if the stream is out of range.

    Example:
        >>> first, again, other = (torch.rand(1, generator=generator(7, k)) for k in (0, 0, 1))
        >>> bool(first == again), bool(first == other)
        (True, False)
    """
    if not 0 <= stream < 64:
        raise ValueError(f"a stream must lie in [0, 64), got {stream}")
    seeds = torch.randint(2**32, (64,), generator=torch.Generator().manual_seed(seed))
    return torch.Generator(device).manual_seed(int(seeds[stream]))
