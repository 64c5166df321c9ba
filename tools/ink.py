"""Which pixels of a picture are the ink of a digit.

Ink is what is darker than the paper around it, or lighter, and narrow: what a closing or an opening
takes away. Four guesses (dark or light, narrow or wide) are judged by their best connected part.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[Any]

DARK, LIGHT = 1, -1
# Levels of 255: a picture with smaller differences is blank.
BLANK = 10
# Pixels that touch at corners belong to one part.
AROUND = np.ones((3, 3))


class Parts(NamedTuple):
    """The connected parts of the ink."""

    ink: Array  # (H, W), 0 for paper, without what was ruled out
    labels: Array  # (H, W), the number of the part at each pixel, from 1; 0 for none
    boxes: list[tuple[slice, slice]]  # rows and columns of each part
    masses: Array  # (P,), the ink of each
    merits: Array  # (P,), from 0 to 1: how well each may be a digit by its shape and place
    widths: Array  # (P,), pixels across the strokes of each

    @property
    def main(self) -> int:
        """Index of the part that is the digit, or most of it, if any is."""
        return int((self.masses * self.merits).argmax())


class Digit(NamedTuple):
    """The digit of a picture."""

    ink: Array  # (H, W), 0 where there is none, or that of something else
    mask: Array  # (H, W), bool: the core of the strokes
    merit: float  # from 0 to 1: how well it may be a digit by its shape and place
    digits: int  # side by side or one above the other, this one included


def find_digit(colours: Array) -> Digit | None:
    """The digit of a picture (H, W, 3), in levels from 0 to 255; None if no ink is seen."""
    grey = _lightness(colours)
    if np.ptp(grey) < BLANK:
        return None
    size = grey.size**0.5
    wide, narrow = int(size / 3), int(size / 8)
    guesses = []
    for tone in (DARK, LIGHT):
        all_ink = _ink(grey, tone, wide)
        for width in (wide, narrow):
            parts = _likely_parts(all_ink if width == wide else _ink(grey, tone, width))
            if parts is None:
                continue
            part = parts.labels == parts.main + 1
            apart = max(2, int(size / 200))
            near = ndimage.binary_dilation(part, iterations=apart)
            ring = ndimage.binary_dilation(near, iterations=apart) & ~near
            if not ring.any():
                continue
            # Next to the whole of a stroke there is no ink, nor ink of the other tone all around.
            level = np.median(parts.ink[part])
            missed = (all_ink[ring] > 0.75 * np.median(all_ink[part])).mean()
            reach = min(int(3 * parts.widths[parts.main]) + 3, wide)
            enclosed = (_ink(grey, -tone, reach, "nearest")[ring] > 0.5 * level).mean()
            merit = parts.merits[parts.main] * max(0, 1 - 4 * missed)
            merit *= min(1, max(0.15, 5 * (1 - enclosed)))
            # Dark ink and the wide guess win ties.
            merit *= (1 if tone == DARK else 0.9) * (1 if width == wide else 0.8)
            guesses.append((merit, level, parts))
    if not guesses:
        return None
    strongest = max(level for _, level, _ in guesses)
    merits = [merit * min(1, 1.25 * level / strongest) for merit, level, _ in guesses]
    best = int(np.argmax(merits))
    return _with_what_belongs_to_it(guesses[best][2], merits[best])


def _lightness(colours: Array) -> Array:
    """The mixture (H, W) of red, green and blue in which the edges are strongest; smoothed."""
    smooth = ndimage.gaussian_filter(colours, (1, 1, 0))
    steps = np.concatenate([np.diff(smooth, axis=axis).reshape(-1, 3) for axis in (0, 1)])
    strongest = np.linalg.eigh(steps.T @ steps)[1][:, -1]
    mixture = np.maximum(strongest * np.sign(strongest.sum() or 1), 0)
    grey: Array = smooth @ (mixture / mixture.sum())
    return grey


def _ink(grey: Array, tone: int, width: int, mode: str = "reflect") -> Array:
    """What of `grey` (H, W) is darker or lighter than its surroundings, and narrower than `width`.

    Dark ink is a share of the paper's light, so that it is the same in a shadow.
    """
    if tone == LIGHT:
        above: Array = grey - ndimage.grey_opening(grey, (width, width), mode=mode)
        return above
    paper = ndimage.grey_closing(grey, (width, width), mode=mode)
    below: Array = 255 * (paper - grey) / np.maximum(paper, 32)
    return below


def _likely_parts(ink: Array) -> Parts | None:
    """The parts of ink (H, W), found anew after great ones of no merit were wiped out."""
    found = None
    for _ in range(4):
        parts = _parts(ink)
        merit = 0 if parts is None else parts.merits[parts.main]
        if parts is None or (found and merit < max(0.05, min(0.5, found.merits[found.main]))):
            break
        found = parts
        bad = (found.merits < 0.2) & (found.masses > 0.1 * found.masses[found.main])
        if not bad.any():
            break
        wiped = np.append(False, bad)[found.labels]
        reach = max(3, int(ink.size**0.5 / 60))
        ink = np.where(ndimage.binary_dilation(wiped, iterations=reach), 0, found.ink)
    return found


def _parts(ink: Array) -> Parts | None:
    """Connected parts of ink (H, W) above its threshold or, next to such, 0.6 of that."""
    low, paper = np.percentile(ink, [10, 30])  # at least a third is paper
    noise = 1.3 * (paper - low)
    ink = np.maximum(ink - paper, 0)
    clear = ink[ink > 4 * max(1, noise)]
    if len(clear) < 10:
        return None
    threshold = _threshold(clear)
    labels, count = ndimage.label(ink > 0.6 * threshold, AROUND)
    above = np.bincount(labels[ink > threshold], minlength=count + 1) > 0
    labels, count = ndimage.label(above[labels], AROUND)
    boxes = ndimage.find_objects(labels)
    masses = ndimage.sum(ink, labels, range(1, count + 1))
    parts = Parts(ink, labels, boxes, masses, np.zeros(count), np.ones(count))
    for index in np.flatnonzero(masses >= 0.02 * masses.max()):
        parts.merits[index], parts.widths[index] = _merit(parts, int(index))
    return parts


def _threshold(values: Array) -> float:
    """Otsu's: that which parts the values (N,) into two classes with the least spread within."""
    counts, edges = np.histogram(values, 128, (0, values.max()))
    middles = (edges[1:] + edges[:-1]) / 2
    below, sums = np.cumsum(counts), np.cumsum(counts * middles)
    above = len(values) - below
    gaps = (sums * len(values) - sums[-1] * below) ** 2 / np.maximum(below * above, 1)
    return float(edges[1:][gaps.argmax()]) if gaps.any() else float(values.max() / 2)


def _merit(parts: Parts, index: int) -> tuple[float, float]:
    """How well a part may be a digit, from 0 to 1, and the width of its strokes in pixels."""
    labels, box = parts.labels, parts.boxes[index]
    part = np.pad(labels[box] == index + 1, 1)
    lengths = np.array(part.shape) - 2
    longer, shorter = lengths.max(), lengths.min()
    # Of a long stroke the mean distance to its edge is a quarter of its width.
    width = 4 * ndimage.distance_transform_edt(part)[part].mean()
    # Strokes are long and narrow, and no specks.
    merit = min(1, part.sum() / width**2 / 15) * min(1, longer / (0.06 * labels.size**0.5))
    # Shadows, tables and neighbours run off the picture, ruled lines across it.
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    touching = (border == index + 1).sum()
    merit *= np.exp(-touching / np.hypot(*lengths) - (touching / sum(labels.shape) / 0.4) ** 2)
    if (lengths == labels.shape).any() and shorter < 0.15 * longer:
        merit *= 0.05
    # A frame fills the edges of its box, and there is something in it.
    edge = 1 + max(1, round(0.04 * longer))
    sides = [part[:edge].any(0), part[-edge:].any(0), part[:, :edge].any(1), part[:, -edge:].any(1)]
    if shorter > 4 * edge and sum(s.sum() for s in sides) > 1.4 * lengths.sum():
        within = [
            max(b.stop - b.start for b in other) > 0.1 * longer
            and all(o.start > b.start and o.stop < b.stop for o, b in zip(other, box, strict=True))
            for other in parts.boxes
        ]
        merit *= 0.01 if any(within) else 1
    return merit, width


def _with_what_belongs_to_it(parts: Parts, merit: float) -> Digit:
    """The main part with its fellows: loose strokes near by, but no specks and no other digits."""
    main, numbers = parts.main, range(1, len(parts.boxes) + 1)
    outside = ndimage.distance_transform_edt(parts.labels != main + 1)
    distances = ndimage.minimum(outside, parts.labels, numbers)
    shares = parts.masses * parts.merits / parts.masses[main]
    main_rows, main_columns = parts.boxes[main]
    height = main_rows.stop - main_rows.start
    own = (distances < 0.2 * max(height, main_columns.stop - main_columns.start)) & (shares > 0.08)
    own[main] = True
    # Digits are about as tall as each other, and one begins where another has ended. What is above
    # or below and near may be a piece of the same.
    tall = np.array([rows.stop - rows.start > 0.5 * height for rows, _ in parts.boxes])
    tall &= shares > 0.2 * parts.merits[main]
    apart = tall & ~own
    apart[main] = True
    digits = max(
        _one_after_another([parts.boxes[index][axis] for index in np.flatnonzero(of)])
        for axis, of in ((1, tall), (0, apart))
    )
    mask = np.append(False, own)[parts.labels]
    paper = parts.labels == 0
    return Digit(np.where(mask | paper, parts.ink, 0), mask, merit, digits)


def _one_after_another(lengths: list[slice]) -> int:
    """How many of some lengths begin where those before have ended."""
    count, end = 0, 0
    for length in sorted(lengths, key=lambda each: each.start):
        count += length.start >= end
        end = max(end, length.stop)
    return count
