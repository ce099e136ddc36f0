"""One image file into pixels: modes, orientations and depths against values worked out by hand or numpy."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from shared.datasets.decode import decode, displayed_size, extensions

GREY, COLOUR = 1, 3


def saved(image: Image.Image, kind: str = "PNG", **options) -> io.BytesIO:
    """The image as a file in memory."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def pixels(file: io.BytesIO, channels: int = COLOUR, size: int | None = None) -> np.ndarray:
    """Decoded, with channels last: (H, W, C)."""
    return decode(file, channels, size).permute(1, 2, 0).numpy()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "PPM", "JPEG2000"])
def test_lossless_files_come_back_exactly(kind):
    array = noise(9, 7, 3)
    if kind == "GIF":
        array = (array // 128) * 255  # at most 8 colours: a palette holds them
    found = pixels(saved(Image.fromarray(array), kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert found.dtype == np.uint8 and np.array_equal(found, array)


def test_grey_and_colour_become_each_other():
    array = noise(5, 6, 3)
    luma = array @ [0.299, 0.587, 0.114]  # ITU-R 601
    np.testing.assert_allclose(pixels(saved(Image.fromarray(array)), GREY)[..., 0], luma, atol=1)
    grey = noise(5, 6)
    assert np.array_equal(pixels(saved(Image.fromarray(grey)), COLOUR), grey[..., None].repeat(3, axis=2))
    assert np.array_equal(pixels(saved(Image.fromarray(grey)), GREY)[..., 0], grey)


def test_black_and_white_of_one_bit():
    bits = noise(8, 8) > 127
    assert np.array_equal(pixels(saved(Image.fromarray(bits)), GREY)[..., 0], bits * 255)


def test_sixteen_bits_are_scaled_not_clipped():
    values = np.array([[0, 1, 128, 129, 257, 32768, 65406, 65407, 65535]], dtype=np.uint16)
    expected = np.rint(values / 257)
    assert expected[0, -1] == 255 and expected[0, 5] == 128  # clipping would make all but four of them white
    for kind in ("PNG", "TIFF"):
        image = Image.fromarray(values)
        assert image.mode == "I;16"
        assert np.array_equal(pixels(saved(image, kind), GREY)[..., 0], expected)
        assert np.array_equal(pixels(saved(image, kind), COLOUR)[..., 2], expected)
    pgm = b"P5 9 1 65535 " + values.astype(">u2").tobytes()  # Pillow's mode I, of 32 bits
    assert np.array_equal(pixels(io.BytesIO(pgm), GREY)[..., 0], expected)


@pytest.mark.parametrize("array", [np.full((2, 2), 0.5, np.float32), np.full((2, 2), 70_000, np.int32)])
def test_pixels_without_a_defined_white_are_refused(array):
    with pytest.raises(ValueError, match="no defined"):
        decode(saved(Image.fromarray(array), "TIFF"), COLOUR, None)


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return share * colour + (1 - share) * 255


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_alpha_is_laid_over_white(kind):
    rgba, la = noise(16, 16, 4), noise(16, 16, 2)
    rgba[0, 0] = (10, 20, 30, 0)
    rgba[0, 1] = (10, 20, 30, 255)
    found = pixels(saved(Image.fromarray(rgba), kind))
    assert found[0, 0].tolist() == [255, 255, 255] and found[0, 1].tolist() == [10, 20, 30]
    np.testing.assert_allclose(found, over_white(rgba[..., :3], rgba[..., 3]), atol=1)
    found = pixels(saved(Image.fromarray(la), kind), GREY)
    np.testing.assert_allclose(found, over_white(la[..., :1], la[..., 1]), atol=1)


def test_palettes_with_and_without_transparency():
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    plain = [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    assert pixels(saved(image)).tolist() == plain
    one_colour = [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]
    assert pixels(saved(image, transparency=1)).tolist() == one_colour
    assert pixels(saved(image, "GIF", transparency=1)).tolist() == one_colour
    by_entry = pixels(saved(image, transparency=bytes([255, 0, 51])))  # 51 / 255 is a fifth
    np.testing.assert_allclose(by_entry, [[[255, 0, 0], [255, 255, 255], [204, 204, 255]]], atol=1)


def test_a_transparent_colour_in_grey_and_in_rgb():
    rgb = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    assert pixels(saved(rgb, transparency=(1, 2, 3))).tolist() == [[[255, 255, 255], [4, 5, 6]]]
    grey = Image.fromarray(np.array([[7, 8]], dtype=np.uint8))
    assert pixels(saved(grey, transparency=7), GREY).tolist() == [[[255], [8]]]


def test_cmyk():
    c, m, y, k = 200, 100, 50, 25
    expected = [(255 - ink) * (255 - k) / 255 for ink in (c, m, y)]
    for kind in ("TIFF", "JPEG"):
        found = pixels(saved(Image.new("CMYK", (16, 16), (c, m, y, k)), kind))
        np.testing.assert_allclose(found[8, 8], expected, atol=2)


TURNED = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", TURNED)
def test_exif_orientation_is_applied_and_known_from_the_header(kind, orientation):
    array = noise(2, 3, 3).repeat(16, axis=0).repeat(16, axis=1)  # blocks of 16: JPEG keeps them nearly flat
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"subsampling": 0} if kind == "JPEG" else {}
    file = saved(Image.fromarray(array), kind, exif=exif, **options)
    expected = TURNED[orientation](array)
    assert displayed_size(file) == expected.shape[:2]
    file.seek(0)
    np.testing.assert_allclose(pixels(file), expected, atol=12 if kind == "JPEG" else 0)


def test_of_several_frames_the_first_is_taken():
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    for kind in ("GIF", "TIFF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        file = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert (pixels(file, GREY) == 10).all()


@pytest.mark.parametrize(("height", "width"), [(40, 80), (80, 40)])
def test_the_centre_is_kept_and_the_shorter_side_fits(height, width):
    array = np.full((40, 80, 3), (255, 0, 0), dtype=np.uint8)
    array[:, 20:60] = (0, 0, 255)  # exactly the centre square
    array[:4, 20:60] = (0, 255, 0)  # with a tenth of it at the top
    array = array if height < width else array.swapaxes(0, 1)
    found = pixels(saved(Image.fromarray(array)), size=20)
    assert found.shape == (20, 20, 3)
    whole = Image.fromarray(array).resize((width // 2, height // 2), Image.Resampling.LANCZOS)
    left, top = (width // 2 - 20) // 2, (height // 2 - 20) // 2
    np.testing.assert_allclose(found, whole.crop((left, top, left + 20, top + 20)), atol=5)
    inner = (found if height < width else found.swapaxes(0, 1))[:, 3:-3].astype(int)  # the edges mix with red
    assert abs(inner[5:] - (0, 0, 255)).max() <= 2 and abs(inner[0] - (0, 255, 0)).max() <= 30


def test_shrinking_is_antialiased_and_enlarging_interpolates():
    checks = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    np.testing.assert_allclose(pixels(saved(Image.fromarray(checks)), GREY, 16)[2:-2, 2:-2], 127.5, atol=2)
    ramp = np.array([[0, 255], [0, 255]], dtype=np.uint8)
    large = pixels(saved(Image.fromarray(ramp)), GREY, 8)[4, :, 0].astype(int)
    assert (np.diff(large) >= 0).all() and len(set(large.tolist())) > 3


def test_an_image_of_the_size_asked_for_is_untouched():
    array = noise(16, 16, 3)
    assert np.array_equal(pixels(saved(Image.fromarray(array)), size=16), array)


def test_a_large_jpeg_decoded_small_looks_as_if_decoded_whole():
    y, x = np.mgrid[0:400, 0:600] / 8  # waves of 50 pixels, 8 after shrinking: blur would show
    array = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=-1) * 100 + 128
    file = saved(Image.fromarray(array.astype(np.uint8)), "JPEG", quality=95)
    whole = Image.open(file).resize((96, 64), Image.Resampling.LANCZOS).crop((16, 0, 80, 64))
    file.seek(0)
    difference = pixels(file, size=64)[2:-2, 2:-2].astype(float) - np.asarray(whole)[2:-2, 2:-2]
    assert abs(difference).mean() < 1.5 and abs(difference).max() < 8


def bomb(width: int, height: int) -> io.BytesIO:
    """A PNG that declares any size in a few bytes."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(100))
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND")]
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


@pytest.mark.parametrize("side", [9_500, 20_000])  # up to twice its limit Pillow warns, above it refuses
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # pytest undoes the module's own
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side):
    with pytest.raises(Exception, match="limit"):
        decode(bomb(side, side), COLOUR, None)


def test_postscript_is_no_image_whatever_its_name():
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(ValueError, match="content is none of PNG"):  # Pillow would hand it to Ghostscript
        decode(io.BytesIO(postscript), COLOUR, None)
    assert ".eps" not in extensions() and {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif"} <= extensions()
