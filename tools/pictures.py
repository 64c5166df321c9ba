"""Pictures of handwritten digits, photographs too, brought into the making of MNIST."""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage

from tools import ink
from tools.ink import Array

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
# Pixels of a picture: more of them would take gigabytes.
LARGEST = 64_000_000
# Pixels each way that are looked at, and that small pictures are enlarged to.
WORK, SMALL = 512, 300
# MNIST's own making: a digit's longer side is 20 pixels of 28, its strokes are 2 to 3 wide, and its
# centre of mass lies in the middle.
MARGIN = 4
STROKE = 2.6 / 20
# Levels of the ink: paper below the first, full ink above the second.
FAINT, FULL = 0.15, 0.9
# A part of less merit looks like no digit.
LEAST_MERIT = 0.1


class Reading(NamedTuple):
    """What is read from a picture."""

    pixels: Array  # (side, side), uint8: 0 for paper, 255 for ink
    picture: Array  # (H, W, 3), uint8: upright and small
    digits: int  # how many there seem to be; 0 if it looks like none


def read(path: Path, side: int) -> Reading:
    """A picture of a digit in the making of MNIST.

    One of `side` by `side` pixels with a black border is taken for one that is made already; so is
    its negative, if it has MNIST's size and place.

    Args:
        path: of a picture of any size, dark on light or light on dark.
        side: pixels of the result, each way.

    Returns:
        What is read.

    Raises:
        ValueError: if it is missing, of no known format, too large, or without strokes.

    Reference:
        LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
    """
    colours = _decode(path)  # (H, W, 3)
    picture = colours.round().astype(np.uint8)
    made = _made_already(picture, side)
    if made is not None:
        return Reading(made, picture, 1)
    if np.ptp(colours, (0, 1)).max() < ink.BLANK:
        raise ValueError(f"{path} is blank: it shows no ink")
    digit = ink.find_digit(_enlarged(colours))
    if digit is None:
        raise ValueError(f"{path} has no strokes that could be a digit")
    count = digit.digits if digit.merit >= LEAST_MERIT else 0
    return Reading(centred(_strokes(digit, side), side), picture, count)


def _decode(path: Path) -> Array:
    """A picture's colours (H, W, 3), float32, upright and at most `WORK` pixels each way.

    What is transparent is paper.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they name Pillow's files, not the user's
            # Of a file that it opens itself, Pillow maps a TIFF in grey as if it were not turned.
            with path.open("rb") as file, Image.open(file, formats=FORMATS) as picture:
                if picture.width * picture.height > LARGEST:
                    raise Image.DecompressionBombError  # noqa: TRY301 (as Pillow does, for more)
                picture.draft(None, (2 * WORK, 2 * WORK))  # JPEG alone can be decoded smaller
                ImageOps.exif_transpose(picture, in_place=True)
                small = _shrunk(_in_plain_mode(picture))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except Image.DecompressionBombError:
        raise ValueError(
            f"{path} has more than {LARGEST // 10**6} million pixels: make it smaller"
        ) from None
    except UnidentifiedImageError:
        raise ValueError(f"{path} is {_unknown(path)}: save it as PNG or JPEG") from None
    except Exception as error:  # noqa: BLE001 (Pillow raises all kinds)
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ValueError(
            f"{path} is not a picture that can be read ({reason or type(error).__name__})"
        ) from None
    levels = np.asarray(small, np.float32)
    if small.mode == "F":
        grey: Array = 255 * (levels - levels.min()) / (np.ptp(levels) or 1)
        return grey[..., None].repeat(3, 2)
    return levels if small.mode == "RGB" else _on_paper(levels)


def _unknown(path: Path) -> str:
    """What a file is that Pillow knows nothing of."""
    with path.open("rb") as file:
        start = file.read(32)
    kinds = {b"avi": "AVIF", b"hei": "HEIC", b"hev": "HEIC", b"mif": "HEIC", b"msf": "HEIC"}
    kind = kinds.get(start[8:11]) if start[4:8] == b"ftyp" else None
    if kind:
        return f"a picture in {kind}, which is not read here"
    return f"no picture in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"


def _in_plain_mode(picture: Image.Image) -> Image.Image:
    """In RGB, RGBA or, if it is grey with more than 8 bits, in F."""
    if picture.mode[0] in "IF":
        levels = np.asarray(picture, np.float32)
        known = levels[np.isfinite(levels)]
        scale = np.abs(known).max(initial=1e-30)  # float32 has no room for the greatest difference
        middle = np.median(known) if known.size else 0.0
        return Image.fromarray(np.where(np.isfinite(levels), levels, middle) / scale)
    mode = "RGBA" if picture.has_transparency_data else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)


def _shrunk(picture: Image.Image) -> Image.Image:
    scale = min(1, WORK / max(picture.size))
    width, height = (max(1, round(scale * length)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.BOX)


def _on_paper(levels: Array) -> Array:
    """Colours (H, W, 3) of a picture with transparency (H, W, 4).

    If all that is opaque has one colour it is ink, and the paper differs; else paper is in between.
    """
    colours, opacity = levels[..., :3], levels[..., 3:] / 255
    opaque = colours[opacity[..., 0] > 0.5]
    paper = np.median(opaque, 0) if opaque.size else np.zeros(3)
    if opaque.size and opaque.std(0).max() < 25:
        paper = np.full(3, 0.0 if opaque.mean() > 127 else 255.0)
    return (colours * opacity + paper * (1 - opacity)).astype(np.float32)


def _made_already(picture: Array, side: int) -> Array | None:
    """The pixels of a picture (H, W, 3) that has MNIST's making, either way round."""
    grey = picture[..., 0]
    if grey.shape != (side, side) or (picture != grey[..., None]).any():
        return None
    for pixels in (grey, 255 - grey):
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        if border.any() or not pixels.any():
            continue
        lengths = [np.ptp(np.flatnonzero(pixels.any(axis))) + 1 for axis in (0, 1)]
        off = np.abs(np.array(ndimage.center_of_mass(pixels)) - side / 2).max()
        if abs(max(lengths) - side + 2 * MARGIN) <= 2 and off < 1.5:
            return pixels
    return None


def _enlarged(colours: Array) -> Array:
    """Small pictures with more pixels, so that a stroke is more than one wide."""
    factor = -(-SMALL // max(colours.shape[:2]))
    return ndimage.zoom(colours, (factor, factor, 1), order=1) if factor > 1 else colours


def _strokes(digit: ink.Digit, side: int) -> Array:
    """The digit (H, W) from 0 to 1, with room around it, in strokes no thinner than MNIST's."""
    longer = max(np.ptp(np.flatnonzero(digit.mask.any(axis))) + 1 for axis in (0, 1))
    pixel = longer / (side - 2 * MARGIN)
    mask, levels = (np.pad(of, int(2 * pixel) + 2) for of in (digit.mask, digit.ink))
    inside = ndimage.distance_transform_edt(mask)[mask]
    outside = ndimage.distance_transform_edt(~mask)
    levels = np.where(outside <= max(1, 0.9 * pixel), levels, 0) / np.percentile(levels[mask], 75)
    strokes = (levels - FAINT) / (FULL - FAINT)
    # The digit grows with its strokes, and is scaled down by as much.
    missing = STROKE * longer - 4 * inside.mean()
    reach = missing / 2 / (1 + missing / longer)
    thick: Array = np.maximum(strokes, reach + 0.5 - outside if missing > 0 else 0)
    return thick.clip(0, 1)


def centred(strokes: Array, side: int) -> Array:
    """Ink (H, W), from 0 to 1, in MNIST's size and place: (side, side), uint8, up to 255.

    Its box fits a square of `side` less the margins, and its centre of mass is in the middle.
    """
    rows, columns = (np.flatnonzero((strokes > FAINT).any(axis)) for axis in (1, 0))
    digit = strokes[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
    scale = (side - 2 * MARGIN) / max(digit.shape)
    height, width = (max(1, round(scale * length)) for length in digit.shape)
    small = np.asarray(Image.fromarray(digit).resize((width, height), Image.Resampling.BOX))
    top, left = (
        min(max(round(side / 2 - middle), 0), side - length)
        for middle, length in zip(ndimage.center_of_mass(small), small.shape, strict=True)
    )
    pixels = np.zeros((side, side), np.uint8)
    pixels[top : top + height, left : left + width] = (255 * small / small.max()).round()
    return pixels
