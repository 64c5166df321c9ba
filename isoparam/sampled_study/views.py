"""Random views of images, all of them in memory: shifted and noised."""

from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from isoparam.images.mnist import normalise, pixel_statistics


class Views:
    """Views of images: shifted by whole pixels, empty pixels in, and noised.

    view = (shifted image - mean) / deviation + noise * N(0, 1) for each pixel

    Args:
        images: (N, D), uint8, square images with D a square number, background 0; or features,
            float32, which are not shifted.
        shift: greatest shift in pixels along each axis, both ways; all shifts are equally likely.
            More than an eighth of the side counts as that much.
        noise: standard deviation of the noise, in standard deviations of the images' pixels.

    Raises:
        ValueError: if the images are not square.

    Example:
        >>> views = Views(torch.eye(4, dtype=torch.uint8), shift=0, noise=0.0)
        >>> views(torch.tensor([1]), torch.Generator())
        tensor([[-0.5774,  1.7321, -0.5774, -0.5774]])
    """

    def __init__(self, images: Tensor, *, shift: int, noise: float) -> None:
        """Surround the images with background."""
        self.inputs = images.shape[1]
        side = isqrt(self.inputs)
        height, width, shift = side, side, min(shift, side // 8)
        if images.is_floating_point():
            height, width, shift = 1, self.inputs, 0
        if height * width != self.inputs:
            raise ValueError(f"images must be square, got {self.inputs} pixels")
        self._statistics = pixel_statistics(images)
        self._shift, self._noise = shift, noise
        self._width = width + 2 * shift
        padded = F.pad(images.view(-1, height, width), [shift] * 4)
        self._padded = padded.flatten(1)  # (N, (side + 2 shift)^2)
        rows, columns = torch.arange(height)[:, None], torch.arange(width)
        self._window = (rows * self._width + columns).flatten()  # (D,)

    def __len__(self) -> int:
        """Number of images N."""
        return len(self._padded)

    def __call__(self, ids: Tensor, generator: torch.Generator) -> Tensor:
        """New views of some images.

        Args:
            ids: (B,), int64, each in [0, N).
            generator: the source of shifts and noise.

        Returns:
            (B, D), float32.
        """
        down, right = torch.randint(2 * self._shift + 1, (2, len(ids)), generator=generator)
        corner = ids * self._padded.shape[1] + down * self._width + right  # (B,)
        pixels = self._padded.take(corner[:, None] + self._window)  # (B, D)
        views = normalise(pixels, *self._statistics)
        return views.add_(torch.randn(views.shape, generator=generator), alpha=self._noise)
