"""Labels that can hardly be right are found, and ordinary ones are not."""

from collections import Counter

import numpy as np
import pytest

from sonogravity.datasets.labels import Labels
from sonogravity.datasets.mask_components import KINDS, PackedMask, components_of, find_suspects
from sonogravity.datasets.still_areas import MOST_OPEN, StillAreas

LABELS = Labels.create([0, 128, 255])

SIZE = 200, 180


def frames(count, seed=0):
    """Frames of one subject with a sector that speckles and a still screen around it, and a mask of two structures."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    sector = np.abs(columns - 90) < 30 + rows // 5
    screen = np.where(rows == 3, 90, 0)  # a grey line of the scanner
    images, masks = [], []
    for _ in range(count):
        images.append(np.where(sector, rng.integers(5, 250, SIZE), screen).astype(np.uint8))
        mask, (row, column) = np.zeros(SIZE, np.uint8), rng.integers(-12, 12, 2)
        mask[90 + row : 110 + row + rng.integers(4), 60 + column : 95 + column] = 128
        mask[140 + row : 150 + row, 70 + column : 110 + column + rng.integers(4)] = 255
        masks.append(mask)
    return images, masks


def review(images, masks, subjects=None, labels=LABELS):
    subjects = subjects or ["D1"] * len(masks)
    still = StillAreas(Counter(subjects))
    for subject, image in zip(subjects, images, strict=True):
        still.add(subject, image)
    return find_suspects([PackedMask.of(mask) for mask in masks], labels, subjects, still, workers=2)


def kinds(found):
    return {suspect.kind for suspect in found.suspects}


def test_ordinary_masks_are_not_suspected():
    found = review(*frames(30))
    assert (found.suspects, found.copies, found.shared) == ([], [], 0)


def test_a_stroke_at_the_same_place_of_many_masks_is_found_and_drawn_from_its_place():
    """Two short strips of the deeper class in the top border, on a grey line of the screen, the same in 19 of 45."""
    images, masks = frames(45)
    for index in range(0, 38, 2):
        masks[index][2:5, 20:40] = 255
        masks[index][2:5, 140:150] = 255
        if index < 22:
            masks[index][100:][masks[index][100:] == 255] = 0  # the strips are all that the mask holds of the class
    found = review(images, masks)
    repeated = [suspect for suspect in found.suspects if suspect.kind == "repeated"]
    assert {suspect.index for suspect in repeated} == set(range(0, 38, 2)) and len(repeated) == 38
    assert {(s.c, s.area, s.box[0].start, s.box[1].start) for s in repeated} == {
        (2, 60, 2, 20),
        (2, 30, 2, 140),
    }
    assert {s.index for s in found.suspects if s.kind == "still"} == set(range(0, 38, 2))
    assert "in 19 masks" in repeated[0].note and found.copies == []


def test_masks_that_were_copied_whole_are_told_apart():
    images, masks = frames(20)
    for index in (3, 4, 5, 6):
        masks[index] = masks[2]
    masks[11] = masks[10].copy()
    masks[11][140:][masks[11][140:] > 0] = 0  # only one component is shared
    found = review(images, masks)
    assert found.copies == [[2, 3, 4, 5, 6]] and found.shared == 1 and "repeated" not in kinds(found)


def test_specks_far_from_their_class_are_found():
    images, masks = frames(20)
    masks[4][30, 30] = 128
    masks[7][masks[7] == 255] = 0
    masks[7][150, 90] = 255  # all that there is of the class
    masks[6][120:124, 0] = 128  # a structure that the image's border cuts
    row, column = np.argwhere(masks[9] == 128)[0]
    masks[9][row - 2, column] = 128  # a step from its structure
    found = [suspect for suspect in review(images, masks).suspects if suspect.kind == "speck"]
    assert [(suspect.index, suspect.c, suspect.area) for suspect in found] == [(4, 1, 1), (7, 2, 1)]
    assert "px from the rest" in found[0].note and "all that the mask holds" in found[1].note


def test_labels_outside_the_sector_need_frames_enough_of_their_subject():
    images, masks = frames(12)
    masks[0][180:190, 2:12] = 128
    assert "still" in kinds(review(images, masks))
    assert "still" not in kinds(review(images, masks, [f"D{i}" for i in range(12)])), "one frame each: nothing is known"


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_still_areas_of_every_type(kind):
    images, _ = frames(10)
    scale = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[kind]
    still = StillAreas({None: 10})
    for image in images:
        still.add(None, (image.astype(float) * scale).astype(kind))
    found = still.of(None, SIZE)
    assert found[190, 2] and not found[100, 90] and 0.2 < found.mean() < 0.6
    assert still.of("another", SIZE) is None


@pytest.mark.parametrize("mixed", [False, True], ids=["one after the other", "interleaved"])
def test_many_subjects_do_not_grow_the_memory(mixed):
    images, _ = frames(8)
    order = [(subject, image) for subject in range(70) for image in images]
    still, most = StillAreas(Counter(subject for subject, _ in order)), 0
    for subject, image in sorted(order, key=lambda each: each[1].sum()) if mixed else order:
        still.add(subject, image)
        most = max(most, len(still._open))
    known = [subject for subject in range(70) if still.of(subject, SIZE) is not None]
    assert most == (MOST_OPEN if mixed else 1) and len(known) == (MOST_OPEN if mixed else 70)
    assert still.of(known[0], SIZE).mean() > 0.2


def test_a_frozen_clip_has_no_still_areas():
    images, masks = frames(10)
    assert review([images[0]] * 10, masks).suspects == []


def test_ignored_pixels_and_snapped_borders_are_no_labels_to_look_at():
    images, masks = frames(20)
    for mask in masks:
        mask[:, :3] = 7
        mask[np.roll(mask == 128, 1, 0) & (mask == 0)] = 120  # a blurred border
    assert review(images, masks, labels=Labels.create([0, 128, 255], ignored=[7], snap=True)).suspects == []


def test_a_noisy_mask_gives_few_suspects():
    images, masks = frames(20)
    masks[3][::7, ::7] = 128
    assert len([each for each in review(images, masks).suspects if each.kind == "speck"]) <= 20


def test_a_class_of_another_size_or_place_is_found():
    images, masks = frames(30)
    masks[5][masks[5] == 128] = 0
    masks[5][95:97, 70:74] = 128
    masks[8] = np.roll(masks[8], -85, 0)
    found = review(images, masks)
    assert {(s.index, s.c) for s in found.suspects if s.kind == "size"} == {(5, 1)}
    assert {s.index for s in found.suspects if s.kind == "place"} == {8}


def test_components_and_packing():
    mask = np.zeros((6, 7), np.uint8)
    mask[1, 1], mask[2, 2], mask[4:6, 5:7] = 2, 2, 2
    mask[0, 6] = 1
    found = components_of(3, mask, 0)
    assert [(c.index, c.c, c.area) for c in found] == [(3, 1, 1), (3, 2, 2), (3, 2, 4)]
    assert found[2].centre == (4.5, 5.5) and found[1].box == (slice(1, 3), slice(1, 3))
    assert components_of(0, np.zeros((3, 3), np.uint8), 0) == []
    np.testing.assert_array_equal(PackedMask.of(mask).unpack(), mask)
    assert set(KINDS) == {"repeated", "still", "speck", "size", "place"}
