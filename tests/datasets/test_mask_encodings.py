"""How people really code masks: each encoding is read as it is meant, pointed out, or refused with a true remedy."""

from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from PIL import Image

from sonogravity.common.messages import InputError
from sonogravity.datasets.facts import facts_of
from sonogravity.datasets.frame_files import FrameFile
from sonogravity.datasets.label_checks import (
    background_warning,
    check_values,
    scale_warnings,
    sixteen_bit_warning,
    snap_warnings,
    value_warnings,
)
from sonogravity.datasets.label_discovery import common_palette, find_labels
from sonogravity.datasets.labels import COLOUR, Labels
from sonogravity.datasets.mask_files import decode_mask, read_mask
from sonogravity.datasets.pairs import Pair

SIZE = 72, 64


def shapes(values=(0, 128, 255), number=0):
    """A mask of 72x64 with a structure of about 12 % and one of 5 %."""
    mask = np.full(SIZE, values[0], np.int32)
    mask[10 + number : 34 + number, 20:43] = values[1]
    if len(values) > 2:
        mask[45:60, 30 - number : 46 - number] = values[2]
    return mask


def facts(masks, tmp_path, images=None, scale=0.5, palettes=None):
    """The Facts of masks (arrays of values) with speckled images."""
    found = []
    for number, mask in enumerate(masks):
        image = np.random.default_rng(number).integers(0, 200, mask.shape, dtype=np.uint8)
        image = image if images is None else images[number]
        pair = Pair(*(FrameFile(tmp_path / kind / f"P{number}_001.png") for kind in ("images", "masks")))
        stored = mask.astype(np.uint8) if mask.max() < 256 else mask
        found.append(facts_of(pair, image, stored, palettes[number] if palettes else {}, scale))
    return found


def saved(tmp_path, image, name="m.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def totals(found):
    return {value: sum(fact.counts.get(value, 0) for fact in found) for fact in found for value in fact.counts}


# Background


def test_black_is_background_even_if_it_is_rare_and_that_is_said(tmp_path):
    found = facts([shapes((255, 0)) for _ in range(4)], tmp_path)
    labels = find_labels(found)
    assert labels.values[labels.background] == 0
    warning = background_warning(labels, totals(found))
    assert "--background 255" in warning and "88.0%" in warning
    mended = find_labels(found, background=255)
    assert mended.values[mended.background] == 255 and background_warning(mended, totals(found)) is None


def test_nothing_is_said_of_an_ordinary_background(tmp_path):
    found = facts([shapes() for _ in range(4)], tmp_path)
    assert background_warning(find_labels(found), totals(found)) is None


def test_without_black_the_value_of_most_pixels_is_background(tmp_path):
    viridis = matplotlib.colormaps["viridis"]
    image = Image.fromarray((viridis(shapes() / 255) * 255).astype(np.uint8))  # as imsave writes it
    found = facts([decode_mask(saved(tmp_path, image)) for _ in range(3)], tmp_path)
    labels = find_labels(found)
    assert labels.values[labels.background] == COLOUR + 0x440154
    assert background_warning(labels, totals(found)) is None


# Palettes


def palette_image(mask, colours, **options):
    image = Image.fromarray(mask.astype(np.uint8), "P")
    image.putpalette(np.array(colours, np.uint8).ravel().tolist())
    return image


RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)


def test_palettes_that_differ_are_refused_with_both_names(tmp_path):
    mask = shapes((0, 1, 2))
    files = [
        saved(tmp_path, palette_image(mask, [BLACK, RED, BLUE]), "a.png"),
        saved(tmp_path, palette_image(mask, [BLACK, BLUE, RED]), "b.png"),
    ]
    read = [read_mask(file) for file in files]
    assert read[0].palette[1] == RED and read[1].palette[1] == BLUE
    found = facts([each.values for each in read], tmp_path, palettes=[each.palette for each in read])
    with pytest.raises(InputError, match=r"P1_001.*value 1 as #0000ff.*P0_001.*#ff0000"):
        find_labels(found)


def test_one_colour_under_two_indices_is_refused(tmp_path):
    one, two = shapes((0, 1)), shapes((0, 2))
    palettes = [{0: BLACK, 1: RED, 2: BLUE}, {0: BLACK, 1: BLUE, 2: RED}]
    with pytest.raises(InputError, match=r"value 2 as #ff0000.*shows 1"):
        find_labels(facts([one, two], tmp_path, palettes=palettes))


def test_equal_palettes_and_masks_without_one_agree(tmp_path):
    palettes = [{0: BLACK, 1: RED, 2: BLUE}, {}, {0: BLACK, 1: RED, 2: BLUE}]
    labels = find_labels(facts([shapes((0, 1, 2))] * 3, tmp_path, palettes=palettes))
    assert labels.palette == palettes[0]
    stored = Labels.from_dict(labels.as_dict())
    assert stored == labels
    assert common_palette([("x.png", {}, (1,)), ("y.png", {1: RED}, (1,))], stored.palette) == palettes[0]
    with pytest.raises(InputError, match=r"x\.png: .*value 1 as #0000ff.*the training masks as #ff0000"):
        common_palette([("x.png", {1: BLUE}, (0, 1))], stored.palette)


def test_a_background_of_another_colour_is_no_difference(tmp_path):
    palettes = [{0: BLACK, 1: RED, 2: BLUE}, {0: (9, 9, 9), 1: RED, 2: BLUE}]
    assert find_labels(facts([shapes((0, 1, 2))] * 2, tmp_path, palettes=palettes)).palette[1] == RED
    one = palette_image(shapes((3, 1, 2)), [(1, 2, 3), RED, BLUE, (7, 7, 7)])
    two = palette_image(shapes((3, 1, 2)), [(4, 5, 6), RED, BLUE, (8, 8, 8)])
    read = [read_mask(saved(tmp_path, image, transparency=3)) for image in (one, two)]
    assert all(set(np.unique(each.values)) == {0, 1, 2} for each in read)
    assert common_palette(("m.png", each.palette, (0, 1, 2)) for each in read) == {1: RED, 2: BLUE}


def test_a_grey_ramp_is_no_palette(tmp_path):
    image = palette_image(shapes((0, 1, 2)), [(i, i, i) for i in range(256)])
    assert read_mask(saved(tmp_path, image)).palette == {}


def test_a_transparent_palette_entry_is_background(tmp_path):
    image = palette_image(shapes((3, 1, 2)), [(9, 9, 9), RED, BLUE, BLACK])
    assert set(np.unique(decode_mask(saved(tmp_path, image, transparency=3)))) == {0, 1, 2}
    alpha = bytes([255, 255, 255, 0])
    assert set(np.unique(decode_mask(saved(tmp_path, image, transparency=alpha)))) == {0, 1, 2}
    image = palette_image(shapes((0, 1, 2)), [BLACK, RED, BLUE])
    with pytest.raises(InputError, match="entry 2 is transparent and entry 0 is a colour"):
        decode_mask(saved(tmp_path, image, transparency=2))
    with pytest.raises(InputError, match="partly transparent"):
        decode_mask(saved(tmp_path, image, transparency=bytes([255, 100, 255])))


# One-hot and alpha


@pytest.mark.parametrize("channels", [2, 3, 4, 7])
@pytest.mark.parametrize("kind", [np.uint8, bool, np.float32, np.int64])
@pytest.mark.parametrize("last", [False, True])
def test_one_hot_arrays_are_refused_and_their_remedy_gives_the_classes(tmp_path, channels, kind, last):
    classes = shapes((0, 1, 2))
    classes[0, : channels - 1] = np.arange(channels - 1)
    classes[classes >= channels] = 0
    one_hot = np.moveaxis(np.eye(channels, dtype=kind)[classes], 2, 0)
    np.save(tmp_path / "m.npy", np.moveaxis(one_hot, 0, 2) if last else one_hot)
    with pytest.raises(InputError, match=f"{channels} channels of 0 and 1") as refused:
        decode_mask(tmp_path / "m.npy")
    axis = int(str(refused.value).split("axis=")[1][0])
    np.save(tmp_path / "m.npy", np.argmax(np.load(tmp_path / "m.npy"), axis=axis))
    np.testing.assert_array_equal(decode_mask(tmp_path / "m.npy"), classes)


def test_one_hot_pictures_and_several_classes_at_once(tmp_path):
    one_hot = np.eye(3, dtype=np.uint8)[shapes((0, 1, 2))]
    with pytest.raises(InputError, match="3 channels of 0 and 1"):
        decode_mask(saved(tmp_path, Image.fromarray(one_hot)))
    overlapping = one_hot.copy()
    overlapping[20:30, 20:30, 2] = 1
    with pytest.raises(InputError, match="several classes at once"):
        decode_mask(saved(tmp_path, Image.fromarray(overlapping)))
    without_background = one_hot[:, :, 1:]
    np.save(tmp_path / "m.npy", without_background)
    with pytest.raises(InputError, match=r"axis=2\) \+ 1, and 0 where no channel is set"):
        decode_mask(tmp_path / "m.npy")


def test_a_grey_mask_of_0_and_1_in_three_channels_is_no_one_hot(tmp_path):
    mask = np.repeat(shapes((0, 1)).astype(np.uint8)[:, :, None], 3, 2)
    assert set(np.unique(decode_mask(saved(tmp_path, Image.fromarray(mask))))) == {0, 1}


def test_colours_red_green_and_blue_stay_colours(tmp_path):
    mask = 255 * np.eye(3, dtype=np.uint8)[shapes((0, 1, 2))]
    found = facts([decode_mask(saved(tmp_path, Image.fromarray(mask)))] * 2, tmp_path)
    labels = find_labels(found)
    assert labels.values[labels.background] == COLOUR + 0xFF0000, "red covers most pixels"


@pytest.mark.parametrize("grey", [0, 255])
def test_labels_in_the_alpha_channel_alone_are_named(tmp_path, grey):
    alpha = shapes((0, 128, 255)).astype(np.uint8)
    pixels = np.dstack([np.full_like(alpha, grey)] * 3 + [alpha])
    with pytest.raises(InputError, match="alpha channel only"):
        decode_mask(saved(tmp_path, Image.fromarray(pixels)))
    with pytest.raises(InputError, match="alpha channel only"):
        decode_mask(saved(tmp_path, Image.fromarray(pixels[:, :, [0, 3]], "LA")))


def test_one_opaque_colour_on_transparent_is_a_mask(tmp_path):
    alpha = shapes((0, 255)).astype(np.uint8)
    pixels = np.dstack([np.full_like(alpha, each) for each in RED] + [alpha])
    assert set(np.unique(decode_mask(saved(tmp_path, Image.fromarray(pixels))))) == {0, COLOUR + 0xFF0000}


# Values


def test_values_that_never_share_a_mask_or_differ_by_one_are_pointed_out(tmp_path):
    found = facts([shapes((0, 1))] * 3 + [shapes((0, 255))] * 3, tmp_path)
    [warning] = value_warnings(found, find_labels(found))
    assert "1 and 255 never occur in one mask" in warning
    with pytest.raises(InputError, match="1 and 255 never occur in one mask") as refused:
        find_labels(found, classes=2)
    assert "--snap-masks" not in str(refused.value)
    found = facts([shapes((0, 254, 255))] * 3, tmp_path)
    assert "254 and 255 differ by one" in value_warnings(found, find_labels(found))[0]


def test_colours_that_differ_by_one_are_pointed_out(tmp_path):
    found = facts([shapes((0, COLOUR + 0xFF0000, COLOUR + 0xFE0000))] * 3, tmp_path)
    assert "#fe0000 and #ff0000 differ by one" in value_warnings(found, find_labels(found))[0]


@pytest.mark.parametrize("values", [(0, 128, 255), (0, 1, 2), (1, 2, 3), (0, 1, 255), (0, 50, 200)])
def test_ordinary_values_are_not_pointed_out(tmp_path, values):
    found = facts([shapes(values)] * 3, tmp_path)
    assert value_warnings(found, find_labels(found)) == []


def test_snapping_never_empties_a_mask(tmp_path):
    found = facts([shapes((0, 1))] * 3 + [shapes((0, 255))] * 3, tmp_path)
    labels = find_labels(found, classes=2, snap=True)
    with pytest.raises(InputError, match=r"P0_001\.png: --snap-masks would turn all its structures \(the value 1\)"):
        for fact in found:
            check_values(fact, labels)
    for fact in found[3:]:
        check_values(fact, labels)


def test_snapping_is_not_advised_where_it_would_lose_a_structure(tmp_path):
    found = facts([shapes((0, 1, 255))] * 3, tmp_path)
    with pytest.raises(InputError, match="save each class with one value") as refused:
        find_labels(found, classes=2)
    assert "--snap-masks" not in str(refused.value)


def test_validation_masks_of_another_coding_are_not_advised_to_be_snapped(tmp_path):
    labels = find_labels(facts([shapes((0, 255))] * 3, tmp_path))
    with pytest.raises(InputError, match=r"unknown value 1 .*give these pixels the value of their class") as refused:
        check_values(facts([shapes((0, 1))], tmp_path)[0], labels)
    assert "--snap-masks" not in str(refused.value)
    with pytest.raises(InputError, match="--snap-masks"):
        check_values(facts([jpeg(shapes((0, 255)))], tmp_path)[0], labels)


def test_a_mask_that_is_ignored_as_a_whole_is_refused(tmp_path):
    labels = Labels.create([0, 1], ignored=[7])
    with pytest.raises(InputError, match="every pixel is ignored"):
        check_values(facts([np.full(SIZE, 7, np.int32)], tmp_path)[0], labels)


def jpeg(mask):
    from io import BytesIO

    content = BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(content, "JPEG", quality=80)
    return np.array(Image.open(content)).astype(np.int32)


def test_a_structure_that_snapping_makes_background_is_said(tmp_path):
    found = facts([shapes((0, 1, 255))] * 3, tmp_path)
    [warning] = snap_warnings(found, find_labels(found, classes=2, snap=True))
    assert "makes background of the value 1, which fills areas in 3 masks" in warning
    found = facts([jpeg(shapes(number=n)) for n in range(4)], tmp_path)
    assert snap_warnings(found, find_labels(found, classes=3, snap=True)) == []


def test_blurred_borders_are_still_advised_to_be_snapped(tmp_path):
    found = facts([jpeg(shapes(number=n)) for n in range(4)], tmp_path)
    for classes in (None, 3):
        with pytest.raises(InputError, match="--snap-masks --classes C"):
            find_labels(found, classes=classes)
    assert find_labels(found, classes=3, snap=True).values == (0, 128, 255)


def speckle(number):
    rng = np.random.default_rng(number)
    smooth = np.asarray(Image.fromarray(rng.integers(0, 255, (9, 8), dtype=np.uint8)).resize(SIZE[::-1]))
    return np.clip(smooth + rng.integers(-20, 20, SIZE), 0, 255).astype(np.uint8)


def test_images_and_masks_exchanged_are_named_without_advice_to_snap(tmp_path):
    masks, images = (
        [speckle(n).astype(np.int32) for n in range(4)],
        [shapes(number=n).astype(np.uint8) for n in range(4)],
    )
    for options in ({}, {"classes": 3}, {"classes": 3, "snap": True}):
        with pytest.raises(InputError, match="images and masks look exchanged"):
            find_labels(facts(masks, tmp_path, images), **options)


def test_exchanged_folders_are_named_also_if_the_masks_are_jpegs(tmp_path):
    masks = [speckle(n).astype(np.int32) for n in range(4)]
    images = [jpeg(shapes(number=n)).astype(np.uint8) for n in range(4)]
    for options in ({}, {"classes": 3}, {"classes": 3, "snap": True}):
        with pytest.raises(InputError, match="images and masks look exchanged"):
            find_labels(facts(masks, tmp_path, images), **options)


def test_pictures_of_the_frames_in_the_mask_folder_are_named(tmp_path):
    images = [speckle(n) for n in range(4)]
    with pytest.raises(InputError, match="as pictures do; put the masks into that folder"):
        find_labels(facts([jpeg(image) for image in images], tmp_path, images), classes=3)
    others = [speckle(n + 50).astype(np.int32) for n in range(4)]  # of other frames
    with pytest.raises(InputError, match="as pictures do") as refused:
        find_labels(facts(others, tmp_path, images), classes=3)
    assert "--snap-masks" not in str(refused.value)


# Ignored values


def test_ignored_values_are_no_classes(tmp_path):
    labels = find_labels(facts([shapes((0, 1, 255))] * 3, tmp_path), ignored=(255,))
    assert labels.values == (0, 1) and labels.ignored == (255,)
    assert np.unique(labels.to_classes(shapes((0, 1, 255)).astype(np.uint8))).tolist() == [0, 1, 255]
    assert Labels.from_dict(labels.as_dict()) == labels and "255 ignored" in labels.describe()
    with pytest.raises(InputError, match="--ignore 1: is the value of a class"):
        labels.with_ignored((1,))


# Sizes


def line(number):
    mask = np.zeros(SIZE, np.int32)
    mask[20 + 2 * (number % 4), 4:60] = 255
    return mask


def test_a_line_that_the_scale_removes_is_named_with_a_scale_that_keeps_it(tmp_path):
    found = facts([line(n) for n in range(8)], tmp_path, scale=0.5)
    labels = find_labels(found)
    [warning] = scale_warnings(found, labels, 0.5)
    assert "sees 255 in 0 of 8 masks" in warning
    proposed = float(warning.split("--scale ")[-1].split()[0])
    assert 0.5 < proposed <= 1
    assert scale_warnings(facts([line(n) for n in range(8)], tmp_path, scale=proposed), labels, proposed) == []
    snapped = Labels.create([0, 255], snap=True)
    assert "in 0 of 8 masks" in scale_warnings(found, snapped, 0.5)[0]
    odd = [np.roll(line(0), shift, 0) for shift in (0, 2, 4, 6, -7, -3, 1, 5)]  # rows of which a scale may keep some
    proposed = float(scale_warnings(facts(odd, tmp_path), labels, 0.5)[0].split("--scale ")[-1].split()[0])
    assert scale_warnings(facts(odd, tmp_path, scale=proposed), labels, proposed) == []
    speck = [shapes() for _ in range(8)]
    speck[0][speck[0] == 255] = 0
    speck[0][3, 3] = 255
    assert scale_warnings(facts(speck, tmp_path), find_labels(facts(speck, tmp_path)), 0.5) == []
    assert scale_warnings(facts([shapes()] * 4, tmp_path), find_labels(facts([shapes()] * 4, tmp_path)), 0.5) == []


def test_a_dead_pixel_that_sets_the_divisor_is_named():
    def fact(maximum, bulk):
        return SimpleNamespace(kind="uint16", maximum=maximum, bulk=bulk, pair=SimpleNamespace(image="a.png"))

    usual = [fact(4000, 3900)] * 9
    assert sixteen_bit_warning([*usual, fact(4010, 3950)], 4010) is None
    for bulk in (3950, 65000):  # a few pixels, a whole frame
        warning = sixteen_bit_warning([*usual * 2, fact(65535, bulk)], 65535)
        assert "a.png: holds the value 65535" in warning and "17 times too dark" in warning
