"""Pictures in the making of MNIST: of phones, scanners and drawing programs."""

from typing import Any

import numpy as np
import pytest
from conftest import GENUINE, ROOT
from PIL import Image, ImageDraw, ImageOps

from tools import pictures

SEVEN = [(60, 60), (240, 60), (140, 330)]
PHOTOGRAPHS = GENUINE.parent / "photos" if GENUINE else None


def drawn(width=12, size=(300, 400), ink=0, paper=255, lines=(SEVEN,)):
    """A digit of strokes, dark on light."""
    picture = Image.new("L", size, paper)
    for line in lines:
        ImageDraw.Draw(picture).line(line, fill=ink, width=width, joint="curve")
    return picture


def read(picture, tmp_path, name="picture.png", **options: Any):
    path = tmp_path / name
    picture.save(path, **options)
    return pictures.read(path, 28)


def assert_made_as_mnist(pixels):
    assert pixels.shape == (28, 28)
    assert pixels.dtype == np.uint8
    assert pixels.max() == 255
    rows, columns = ((pixels > 64).any(axis).nonzero()[0] for axis in (1, 0))
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(20, abs=1)
    middle = [(pixels.sum(1 - axis) @ np.arange(28)) / pixels.sum() for axis in (0, 1)]
    assert middle == pytest.approx([13.5, 13.5], abs=1.1)
    # Strokes of two pixels and more: a seven of 20 by 13 is 30 to 40 long.
    assert 60 <= (pixels > 127).sum() <= 160


def alike(found, expected):
    """Most ink of each lies on ink of the other or beside it."""
    ink = [each.astype(float) / 255 for each in (found, expected)]
    return (ink[0] * ink[1]).sum() / np.sqrt((ink[0] ** 2).sum() * (ink[1] ** 2).sum())


def shaded(picture):
    """In light that falls from one side, to less than a third."""
    levels = np.asarray(picture, float) * np.linspace(1, 0.3, picture.width)
    return Image.fromarray(levels.astype(np.uint8))


def ruled(picture):
    for y in range(20, picture.height, 45):
        ImageDraw.Draw(picture).line([(0, y), (picture.width, y)], fill=215, width=2)
    return picture


def specked(picture):
    generator = np.random.default_rng(0)
    for x, y in generator.integers(0, [picture.width, picture.height], (12, 2)).tolist():
        ImageDraw.Draw(picture).ellipse([x, y, x + 3, y + 3], fill=60)
    return picture


def framed(picture):
    ImageDraw.Draw(picture).rectangle([15, 15, 285, 385], outline=40, width=4)
    return picture


def folded(picture):
    """A fold of the paper: a soft shadow from edge to edge."""
    away = np.abs(np.arange(picture.width) - 265.0)
    shade = 1 - 0.3 * np.exp(-((away / 12) ** 2))
    return Image.fromarray((np.asarray(picture, float) * shade).astype(np.uint8))


def far_away(picture):
    return ImageOps.expand(picture, (700, 100, 150, 900), fill=255)


@pytest.mark.parametrize(
    "change",
    [
        lambda picture: picture,
        ImageOps.invert,
        shaded,
        ruled,
        specked,
        far_away,
        framed,
        folded,
        lambda picture: picture.convert("RGB"),
        lambda picture: picture.convert("P"),
        lambda picture: picture.convert("1"),
        lambda picture: Image.fromarray(np.asarray(picture, np.uint16) * 257),
    ],
)
@pytest.mark.parametrize("width", [3, 12, 40])
def test_strokes_light_colours_and_depths_do_not_matter(change, width, tmp_path):
    reading = read(change(drawn(width)), tmp_path)
    assert_made_as_mnist(reading.pixels)
    assert reading.digits == 1
    assert alike(reading.pixels, read(drawn(12), tmp_path).pixels) > 0.75


@pytest.mark.parametrize(("kind", "factor"), [(np.float32, 1 / 255), (np.int32, 3)])
def test_levels_of_32_bits_are_no_blank(kind, factor, tmp_path):
    levels = Image.fromarray((np.asarray(drawn(), np.float64) * factor).astype(kind))
    assert_made_as_mnist(read(levels, tmp_path, "picture.tiff").pixels)


@pytest.mark.parametrize("ink", [0, 255], ids=["black", "white"])
def test_what_is_transparent_is_paper(ink, tmp_path):
    picture = Image.new("RGBA", (300, 400), (ink, ink, ink, 0))
    picture.putalpha(ImageOps.invert(drawn()))
    assert alike(read(picture, tmp_path).pixels, read(drawn(), tmp_path).pixels) > 0.95


@pytest.mark.parametrize(("mode", "kind"), [("L", "jpg"), ("L", "tiff"), ("RGB", "tiff")])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_camera_held_sideways_says_so(orientation, mode, kind, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Held so that the picture on disk, turned as it says, is upright.
    turn = [None, *map(Image.Transpose, (0, 3, 1, 5, 2, 6, 4))][orientation - 1]
    picture = drawn() if turn is None else drawn().transpose(turn)
    reading = read(picture.convert(mode), tmp_path, f"picture.{kind}", exif=exif, quality=95)
    assert alike(reading.pixels, read(drawn(), tmp_path).pixels) > 0.9


def test_what_is_made_as_mnist_is_taken_as_it_is(tmp_path):
    made = read(drawn(lines=[[(150, 60), (150, 330)]]), tmp_path).pixels
    assert (read(Image.fromarray(made), tmp_path).pixels == made).all()


@pytest.mark.parametrize(
    ("size", "others"),
    [
        ((520, 400), [[(420, 60), (420, 330)]]),
        ((300, 800), [[(160, 460), (150, 730)]]),
        ((520, 800), [[(420, 60), (420, 330)], [(160, 460), (150, 730)]]),
    ],
    ids=["beside", "below", "both"],
)
def test_digits_beside_and_below_are_counted(size, others, tmp_path):
    assert read(drawn(lines=[SEVEN, *others], size=size), tmp_path).digits == 2


@pytest.mark.parametrize("kind", ["noise", "gradient"])
def test_what_is_no_digit_has_none(kind, tmp_path):
    levels = {
        "noise": np.random.default_rng(0).integers(0, 256, (300, 400)),
        "gradient": np.linspace(0, 255, 300)[:, None].repeat(400, 1),
    }[kind]
    assert read(Image.fromarray(levels.astype(np.uint8)), tmp_path).digits == 0


def test_a_loose_bar_belongs_to_the_digit(tmp_path):
    five = [(110, 80), (100, 180), (200, 200), (220, 290), (100, 330)]
    bar = [(125, 68), (225, 66)]
    with_bar, without = (read(drawn(lines=lines), tmp_path) for lines in ([five, bar], [five]))
    assert with_bar.digits == 1
    assert alike(with_bar.pixels, without.pixels) < 0.9


# What is refused.


@pytest.mark.parametrize("levels", [0, 130, 255])
def test_a_blank_picture_is_refused(levels, tmp_path):
    with pytest.raises(ValueError, match=r"picture\.png is blank: it shows no ink"):
        read(Image.new("L", (200, 100), levels), tmp_path)


def test_a_shape_without_strokes_is_refused(tmp_path):
    square = Image.new("L", (320, 320), 255)
    square.paste(0, (60, 60, 260, 260))
    with pytest.raises(ValueError, match=r"picture\.png has no strokes that could be a digit"):
        read(square, tmp_path)


def test_two_specks_on_a_large_sheet_are_no_digit(tmp_path):
    sheet = Image.new("L", (3000, 3000), 255)
    for x, y in ((200, 300), (2500, 2100)):
        sheet.paste(0, (x, y, x + 2, y + 2))
    with pytest.raises(ValueError, match=r"picture\.png has no strokes that could be a digit"):
        read(sheet, tmp_path)


@pytest.mark.parametrize("side", [9000, 10_000, 14_000])  # Pillow warns, and then raises
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, side):
    Image.new("1", (side, side - 1000)).save(tmp_path / "large.png")
    with pytest.raises(ValueError, match=r"large\.png has more than 64 million pixels"):
        pictures.read(tmp_path / "large.png", 28)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no picture in PNG, JPEG, GIF, BMP, TIFF or WEBP: save it as PNG or JPEG"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "is a picture in HEIC, which is not read here"),
        (b"\0\0\0\x18ftypavif" + bytes(40), "is a picture in AVIF, which is not read here"),
        (b"\0\0\0\x18ftypmif1" + bytes(40), "is a picture in HEIC, which is not read here"),
        (b"\0\0\0\x18ftypmp42" + bytes(40), "is no picture in PNG"),
        (b"DDS " + bytes(200), "is no picture in PNG"),
        (b"icns" + bytes(200), "is no picture in PNG"),
    ],
)
def test_what_is_no_picture_is_refused(content, message, tmp_path):
    path = tmp_path / "picture"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        pictures.read(path, 28)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_truncated_pictures_are_read_or_refused(kind, tmp_path):
    path = tmp_path / "picture"
    drawn().convert("RGB").save(path, kind)
    whole = path.read_bytes()
    refused = 0
    for length in range(1, len(whole), max(1, len(whole) // 25)):
        path.write_bytes(whole[:length])
        try:
            pictures.read(path, 28)
        except ValueError as error:
            assert str(error).startswith(str(path))  # noqa: PT017
            refused += 1
    assert refused > 0


@pytest.mark.skipif(
    PHOTOGRAPHS is None or not PHOTOGRAPHS.is_dir(), reason="no photographs beside MNIST's files"
)
@pytest.mark.parametrize("digit", range(10))
def test_photographs_of_pen_on_paper_have_strokes_and_one_digit(digit):
    reading = pictures.read(PHOTOGRAPHS / f"{digit}.jpg", 28)
    assert reading.digits == 1
    assert reading.pixels.max() == 255
    assert 40 <= (reading.pixels > 127).sum() <= 220


@pytest.mark.parametrize("name", ["five", "seven"])
def test_the_pictures_of_the_documents_hold_a_digit_each(name):
    reading = pictures.read(ROOT / f"examples/{name}.png", 28)
    assert reading.digits == 1
    rows, columns = np.nonzero(reading.pixels.reshape(28, 28))
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in {19, 20, 21}  # as in MNIST
