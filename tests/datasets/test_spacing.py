"""Pixels per millimetre: tables in every dress, and each fault in one line."""

import pytest

from sonogravity.common.messages import InputError
from sonogravity.datasets.spacing import ASSUMED, Spacing, doubts, find_spacings, read_table


def table(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "spacing.csv"
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("file,pixels_per_mm\na.png,3.5\nb.png,4\n", "utf-8"),
        ("file,pixels_per_mm\r\na.png,3.5\r\nb.png,4\r\n", "utf-8-sig"),
        ("file;pixels_per_mm\na.png;3,5\nb.png;4\n", "utf-8"),
        ("operator, pixels_per_mm , file\nx,3.5,a.png\nx,4,b.png\n", "utf-8"),
        ("sep=;\nfile;pixels_per_mm\na.png;3,5\nb.png;4\n", "utf-8-sig"),
        ("file\tpixels_per_mm\na.png\t3,5\nb.png\t4\n", "utf-8"),
        ("file,pixels_per_mm,,\na.png,3.5,,\nb.png,4,,\n", "utf-8"),
        ("file,pixels_per_mm\na.png,3.5,\nb.png,4,,\n", "utf-8"),
    ],
    ids=[
        "plain",
        "from Excel",
        "semicolons and decimal commas",
        "more columns",
        "a line for Excel",
        "tabs",
        "empty columns",
        "empty fields",
    ],
)
def test_tables_are_read(tmp_path, text, encoding):
    assert read_table(table(tmp_path, text, encoding)) == {"a.png": Spacing(3.5, 3.5), "b.png": Spacing(4, 4)}


@pytest.mark.parametrize(
    "text", ["file,pixels_per_mm\na.png,9,5\n", "file,pixels_per_mm_x,pixels_per_mm_y\na.png,9,5,4,5\n"]
)
def test_decimal_commas_in_a_table_of_commas_are_refused(tmp_path, text):
    with pytest.raises(InputError, match="line 2: has more fields than the head; if a field holds a comma, separate"):
        read_table(table(tmp_path, text))


def test_axes_may_differ(tmp_path):
    path = table(tmp_path, "file,pixels_per_mm_x,pixels_per_mm_y\na.png,4,2\n")
    found = find_spacings(["a.png"], table=path)["a.png"]
    assert (found.unit, found.pixel_size, found.tolerance(), found.tolerance(1.5)) == ("mm", (0.5, 0.25), 0.5, 1.5)


def test_files_are_matched_by_name_or_stem(tmp_path):
    path = table(tmp_path, "file,pixels_per_mm\na.png,3\nb,4\n")
    assert find_spacings(["a.npy", "b.png"], table=path) == {"a.npy": Spacing(3, 3), "b.png": Spacing(4, 4)}


def test_a_stem_with_two_numbers_tells_nothing(tmp_path):
    path = table(tmp_path, "file,pixels_per_mm\na.png,3\na.tif,4\n")
    assert find_spacings(["a.tif"], table=path)["a.tif"].x == 4
    with pytest.raises(InputError, match=r"no line for 1 of 1 files: a\.npy"):
        find_spacings(["a.npy"], table=path)


def test_nothing_given_is_assumed_and_stays_in_pixels():
    found = find_spacings(["a.png"])["a.png"]
    assert found == ASSUMED and found.unit == "px" and found.pixel_size == (1, 1)
    assert found.tolerance() == 1 and found.tolerance(1.5) == pytest.approx(5.67)
    assert find_spacings(["a.png"], pixels_per_mm=3.78)["a.png"].unit == "mm"  # the same number, but given


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,spacing\na.png,3\n", "columns are file, spacing"),
        ("", "columns are missing"),
        ("file,pixels_per_mm\na.png,0\n", "line 2: '0' is not a number of pixels per mm"),
        ("file,pixels_per_mm\na.png,wide\n", "line 2: 'wide'"),
        ("file,pixels_per_mm\na.png,nan\n", "line 2: 'nan'"),
        ("file,pixels_per_mm\na.png\n", "line 2: ''"),
        ("file,pixels_per_mm\n,3\n", "line 2: has no file name"),
        ("file,pixels_per_mm\na.png,3\na.png,4\n", "a.png is in the table twice"),
        ("file,pixels_per_mm\nb.png,3\n", "no line for 1 of 1 files: a.png"),
    ],
)
def test_faults_are_named(tmp_path, text, message):
    path = table(tmp_path, text)
    with pytest.raises(InputError, match=message) as error:
        find_spacings(["a.png"], table=path)
    assert str(path) in str(error.value)


def test_not_text_or_not_there(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "spacing.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="UTF-8"):
        read_table(tmp_path / "spacing.csv")


def spacings(*values):
    return {f"{i}.png": Spacing(value, value) for i, value in enumerate(values)}


def test_a_spacing_in_another_unit_is_pointed_out():
    widths = {f"{i}.png": 740 for i in range(4)}
    assert not doubts(spacings(9.5, 9.5, 4.75, 12), widths)
    assert not doubts(dict.fromkeys(widths, ASSUMED), dict.fromkeys(widths, 1))
    [wide] = doubts(spacings(*[95.0] * 4), widths)  # pixels per cm
    assert "makes 4 of 4 images under 10 or over 500 mm wide: 0.png 7.79 mm" in wide and "pixels per cm" in wide
    wide, far = doubts(spacings(9.5, 9.5, 1 / 9.5, 9.5), widths)  # one line in mm per pixel
    assert "makes 1 of 4 images" in wide and "2.png 7.03e+03 mm" in wide
    assert "far from the median, 9.5, in 1 of 4 images: 2.png 0.105263" in far
