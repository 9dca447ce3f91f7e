"""Each file format, depth and layout, as image and as mask."""

import pickle
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from sonogravity.common.messages import InputError
from sonogravity.datasets.image_files import decode_image
from sonogravity.datasets.labels import COLOUR
from sonogravity.datasets.mask_files import decode_mask, read_mask, write_mask

GREY = np.arange(20, dtype=np.uint8).reshape(4, 5) * 12


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_grey_files_are_read_as_they_are(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}", GREY)
    assert (decode_image(path, 1) == GREY).all()
    assert (decode_image(path, 3) == GREY[:, :, None]).all()
    assert (decode_mask(path) == GREY).all()


def test_jpeg_image(tmp_path):
    path = save(tmp_path / "a.jpg", np.full((16, 16), 77, np.uint8), quality=95)
    assert abs(decode_image(path, 1).astype(int) - 77).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "CMYK"])
def test_colour_files_of_grey_content_are_read_as_grey(tmp_path, mode):
    image = Image.fromarray(GREY).convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    assert (decode_image(path, 1) == GREY).all()
    assert decode_image(path, 3).shape == (4, 5, 3)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit(tmp_path, suffix):
    wide = GREY.astype(np.uint16) * 200 + 3
    path = save(tmp_path / f"a.{suffix}", wide)
    image = decode_image(path, 1)
    assert image.dtype == np.uint16 and (image == wide).all()
    mask = decode_mask(path)
    assert mask.dtype == np.int32 and (mask == wide).all()


def test_float_tiff_and_arrays_must_lie_in_0_to_1(tmp_path):
    unit = (GREY / 255).astype(np.float32)
    Image.fromarray(unit).save(tmp_path / "a.tif")
    assert np.array_equal(decode_image(tmp_path / "a.tif", 1), unit)
    for bad, message in ((unit * 300, "0 to 1"), (np.full((2, 2), np.nan, np.float32), "not a number")):
        np.save(tmp_path / "b.npy", bad)
        with pytest.raises(InputError, match=message):
            decode_image(tmp_path / "b.npy", 1)


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5), (4, 5, 1), (1, 1, 4, 5)])
@pytest.mark.parametrize("suffix", ["npy", "pth"])
def test_arrays_and_tensors(tmp_path, shape, suffix):
    path = tmp_path / f"a.{suffix}"
    array = GREY.reshape(shape)
    np.save(path, array) if suffix == "npy" else torch.save(torch.from_numpy(array), path)
    assert (decode_image(path, 1) == GREY).all()
    assert (decode_mask(path) == GREY).all()


def test_colour_arrays_in_either_layout(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 255, (6, 7, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", np.moveaxis(rgb, 2, 0))
    np.save(tmp_path / "b.npy", rgb)
    assert (decode_image(tmp_path / "a.npy", 3) == rgb).all()
    assert (decode_image(tmp_path / "b.npy", 1) == decode_image(tmp_path / "a.npy", 1)).all()


def test_float_tensor_mask_of_whole_numbers(tmp_path):
    torch.save(torch.tensor([[0.0, 128.0], [255.0, 0.0]]), tmp_path / "a.pth")
    assert decode_mask(tmp_path / "a.pth").tolist() == [[0, 128], [255, 0]]
    torch.save(torch.tensor([[0.0, 0.5]]), tmp_path / "a.pth")
    with pytest.raises(InputError, match="fractions"):
        decode_mask(tmp_path / "a.pth")


def test_palette_masks_give_their_indices(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), mode=None).convert("L")
    image.putpalette([0, 0, 0, 250, 10, 10, 10, 250, 10])
    image.save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == "P"
    assert decode_mask(tmp_path / "a.png").tolist() == [[0, 1], [2, 1]]


def test_colour_masks_give_colours_and_grey_levels(tmp_path):
    pixels = np.array([[[0, 0, 0], [255, 0, 0]], [[255, 255, 255], [0, 0, 255]]], np.uint8)
    path = save(tmp_path / "a.png", pixels)
    values = [[0, COLOUR + 0xFF0000], [255, COLOUR + 0xFF]]
    assert decode_mask(path).tolist() == values
    alpha = np.dstack([pixels, np.array([[255, 255], [0, 255]], np.uint8)])
    assert decode_mask(save(tmp_path / "b.png", alpha)).tolist() == [values[0], [0, values[1][1]]]
    alpha[0, 0, 3] = 100
    with pytest.raises(InputError, match="partly transparent"):
        decode_mask(save(tmp_path / "b.png", alpha))


def test_one_bit_masks_are_0_and_255(tmp_path):
    Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(tmp_path / "a.png")
    assert decode_mask(tmp_path / "a.png").tolist() == [[0, 255]]


@pytest.mark.parametrize("values", [[[0, 128]], [[0, 60000]]])
def test_written_masks_are_read_back(tmp_path, values):
    array = np.array(values, np.uint8 if max(values[0]) < 256 else np.uint16)
    write_mask(tmp_path / "a.png", array)
    assert decode_mask(tmp_path / "a.png").tolist() == values


def test_truncated_and_foreign_files_name_the_file(tmp_path):
    whole = save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).read_bytes()
    for name, content in (
        ("a.png", whole[:1500]),
        ("b.png", b""),
        ("c.jpg", b"hello"),
        ("d.npy", whole),
        ("e.pth", whole),
        ("f.tif", whole[:40]),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            decode_image(tmp_path / name, 1)


def test_animated_files_are_refused(tmp_path):
    frames = [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="2 frames"):
        decode_image(tmp_path / "a.tif", 1)


class Trap:
    """Unpickling it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickles_do_not_run(tmp_path):
    mark = tmp_path / "mark"
    torch.save(Trap(mark), tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Trap(mark)))
    np.save(tmp_path / "c.npy", np.array([Trap(mark)], object), allow_pickle=True)
    mark.unlink(missing_ok=True)
    for name in ("a.pth", "b.pth", "c.npy"):
        with pytest.raises(InputError, match=name):
            decode_image(tmp_path / name, 1)
    assert not mark.exists()


def test_16_bit_colour_is_refused_rather_than_cut(tmp_path):
    """A 2x2 RGB PNG of 16 bits, written by hand: Pillow would read it as 8 bits without a word."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + struct.pack(">6H", *range(row, row + 6)) for row in (4000, 5000))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(png + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    for decode in (lambda path: decode_image(path, 1), decode_mask):
        with pytest.raises(InputError, match=r"a\.png: is a 16-bit colour PNG"):
            decode(tmp_path / "a.png")


def test_an_archive_is_no_array(tmp_path):
    np.savez(tmp_path / "a.npz", GREY)
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(InputError, match="archive"):
        decode_image(tmp_path / "a.npy", 1)


def broken_fax(path):
    """A mask of one bit with one changed byte: libtiff prints an error, and goes on with wrong pixels."""
    black = np.zeros((64, 72), bool)
    black[20:40, 10:50] = True
    Image.fromarray(black).save(path, compression="group4")
    content, start = bytearray(path.read_bytes()), Image.open(path).tag_v2[273][0]  # StripOffsets
    content[start + 5] ^= 0xFF
    path.write_bytes(content)


def test_what_libtiff_reports_is_the_reason_of_the_refusal_and_not_printed(tmp_path, capfd):
    broken_fax(tmp_path / "fax.tif")
    Image.fromarray(np.tile(GREY, (9, 9))).save(tmp_path / "zip.tif", compression="tiff_deflate")
    content = bytearray((tmp_path / "zip.tif").read_bytes())
    content[60] ^= 0x10
    (tmp_path / "zip.tif").write_bytes(content)
    with pytest.raises(InputError, match=r"fax.tif: cannot be read \(Fax4Decode found damaged pixels\)"):
        decode_image(tmp_path / "fax.tif", 1)
    with pytest.raises(InputError, match=r"zip.tif: cannot be read"):
        decode_image(tmp_path / "zip.tif", 1)
    assert capfd.readouterr() == ("", "")
    path = save(tmp_path / "whole.tif", GREY, compression="tiff_lzw")
    assert (decode_image(path, 1) == GREY).all()


def test_written_masks_show_colours_and_keep_their_values(tmp_path):
    array, colours = np.array([[0, 1, 2], [128, 255, 1]], np.uint8), {1: (230, 159, 0), 2: (86, 180, 233)}
    write_mask(tmp_path / "a.png", array, colours)
    written = Image.open(tmp_path / "a.png")
    assert (np.array(written) == array).all()
    assert np.array(written.convert("RGB"))[0].tolist() == [[0, 0, 0], [230, 159, 0], [86, 180, 233]]
    found = read_mask(tmp_path / "a.png")
    assert (found.values == array).all() and found.palette == {}  # our colours are no other classes
    assert decode_image(tmp_path / "a.png", 3)[0, 1].tolist() == [230, 159, 0]
    write_mask(tmp_path / "b.png", array.astype(np.uint16) * 200, colours)
    assert decode_mask(tmp_path / "b.png").max() == 51000
