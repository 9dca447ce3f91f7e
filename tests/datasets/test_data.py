"""Pairs, resizing, the store, batches, the joint augmentation."""

import numpy as np
import pytest
import torch
from conftest import make_folder, simple_frame, write_frame

from sonogravity.common.messages import InputError
from sonogravity.common.workers import ahead
from sonogravity.datasets.augmentation import Augmentation, other_grey_levels
from sonogravity.datasets.frames import FrameStore, read_pair, resize_image, resize_mask, to_unit
from sonogravity.datasets.inputs import find_input_pairs
from sonogravity.datasets.labels import IGNORE_INDEX, Labels
from sonogravity.datasets.loader import EpochBatches, TrainingFrames, collate, training_loader
from sonogravity.datasets.pairs import find_training_pairs

LABELS = Labels.create([0, 128, 255])


def store_of(folder, cache_mb=100, native_truth=False, scale=0.5):
    pairs, _ = find_training_pairs(folder)
    store = FrameStore(pairs, scale=scale, channels=1, native_truth=native_truth, cache_mb=cache_mb)
    for i in range(len(store)):
        store.keep(i, store.shrink(i, *read_pair(store.pairs[i], 1)))
    store.pack()
    return store


def test_missing_extra_and_doubled_files_are_listed(sets):
    train, _ = sets
    (train / "masks" / "A_001.png").rename(train / "masks" / "Z_001.png")
    with pytest.raises(InputError, match=r"1 of 8 images have no mask .*A_001\.png"):
        find_training_pairs(train)
    (train / "images" / "A_001.png").unlink()
    with pytest.raises(InputError, match=r"1 masks have no image .*Z_001\.png"):
        find_training_pairs(train)
    (train / "images" / "A_002.bmp").write_bytes((train / "images" / "A_002.png").read_bytes())
    with pytest.raises(InputError, match=r"A_002\.png.* same stem|same stem"):
        find_training_pairs(train)


def test_other_files_are_noted_and_litter_is_not(sets):
    train, _ = sets
    for name in ("notes.txt", ".DS_Store", "Thumbs.db"):
        (train / "images" / name).write_text("x")
    pairs, notes = find_training_pairs(train)
    assert len(pairs) == 8 and len(notes) == 1 and "notes.txt" in notes[0]


def test_inputs_of_every_kind(sets, tmp_path):
    _, validation = sets
    assert len(find_input_pairs([validation])[0]) == 4
    assert all(pair.mask for pair in find_input_pairs([validation])[0])
    images = validation / "images"
    assert all(pair.mask for pair in find_input_pairs([images])[0]), "masks/ beside images/ are found"
    assert all(pair.mask for pair in find_input_pairs([images], validation / "masks")[0])
    one = find_input_pairs([images / "C_001.png"])[0]
    assert [(pair.stem, pair.mask.name) for pair in one] == [("C_001", "C_001.png")]
    with pytest.raises(InputError, match="same stem"):
        find_input_pairs([validation, images / "C_001.png"])
    with pytest.raises(InputError, match="no such file or folder"):
        find_input_pairs([tmp_path / "nowhere"])


def test_mask_of_another_size_is_refused(tmp_path):
    image, _ = simple_frame(0)
    write_frame(tmp_path, "a", image, simple_frame(0, (40, 37))[1])
    with pytest.raises(InputError, match=r"a\.png.*37x40.*36x40"):
        read_pair(find_training_pairs(tmp_path)[0][0], 1)


def test_resizing_keeps_types_ranges_and_values():
    image, mask = simple_frame(1, (50, 31))
    small = resize_image(image, (25, 16))
    assert small.shape == (25, 16) and small.dtype == np.uint8
    wide = resize_image(image.astype(np.uint16) * 257, (25, 16))
    assert wide.dtype == np.uint16 and np.abs(wide / 257 - small).max() <= 1
    unit = resize_image((image / 255).astype(np.float32), (25, 16))
    assert unit.dtype == np.float32 and np.abs(unit * 255 - small).max() <= 1
    assert set(np.unique(resize_mask(mask, (25, 16)))) <= {0, 128, 255}
    grid = np.arange(16).reshape(4, 4)
    assert resize_mask(grid, (2, 2)).tolist() == [[5, 7], [13, 15]]
    assert (resize_mask(grid, (8, 8))[::2, ::2] == grid).all()


def test_to_unit_divides_by_what_the_depth_says():
    assert to_unit(np.array([[255, 0]], np.uint8)).tolist() == [[[1, 0]]]
    assert to_unit(np.array([[4000, 1000]], np.uint16), 4000).tolist() == [[[1, 0.25]]]
    assert to_unit(np.zeros((2, 5, 3), np.uint8)).shape == (3, 2, 5)


@pytest.mark.parametrize("native_truth", [False, True])
def test_store_gives_the_same_frame_from_memory_and_from_disk(tmp_path, native_truth):
    make_folder(tmp_path, size=(41, 37))
    write_frame(tmp_path, "odd", *simple_frame(9, (33, 52)))
    memory = store_of(tmp_path, native_truth=native_truth)
    disk = store_of(tmp_path, cache_mb=0, native_truth=native_truth)
    some = store_of(tmp_path, cache_mb=0.004, native_truth=native_truth)
    assert (memory.kept, disk.kept) == (9, 0) and 0 < some.kept < 9
    for i in range(9):
        for other in (disk, some):
            assert np.array_equal(memory[i].images[0.5], other[i].images[0.5])
            assert np.array_equal(memory[i].truth, other[i].truth)
            assert memory[i].size == other[i].size


def test_collate_pads_and_marks_the_padding():
    samples = [
        (torch.ones(1, 3, 5), torch.ones(3, 5, dtype=torch.uint8), "a"),
        (torch.ones(1, 4, 2), torch.ones(4, 2, dtype=torch.uint8), "b"),
    ]
    images, masks, heights, stems = collate(samples)
    assert heights.tolist() == [3, 4]
    assert images.shape == (2, 1, 4, 5) and masks.shape == (2, 4, 5) and stems == ["a", "b"]
    assert (masks[0, 3] == IGNORE_INDEX).all() and (masks[1, :, 2:] == IGNORE_INDEX).all()
    assert (masks != IGNORE_INDEX).sum() == 15 + 8
    assert images[0, 0, 3].sum() == 0


@pytest.mark.parametrize("frames", range(1, 10))
@pytest.mark.parametrize("smallest", [1, 2])
def test_every_frame_comes_once_an_epoch(frames, smallest):
    batches = EpochBatches(frames, 4, seed=1, smallest=smallest)
    orders = []
    for epoch in (1, 2, 1):
        batches.epoch = epoch
        got = list(batches)
        assert len(got) == len(batches)
        assert sorted(index for batch in got for index, _ in batch) == list(range(frames))
        assert all(len(batch) >= min(smallest, frames) for batch in got)
        orders.append(got)
    assert orders[0] == orders[2] != orders[1]


def test_augmentation_moves_frame_and_mask_alike():
    image = torch.full((1, 64, 60), 0.05)
    image[0, 20:40, 10:35] = 0.9
    classes = (image[0] > 0.5).to(torch.uint8)
    augment, moved = Augmentation(geometry=True), 0
    for seed in range(40):
        torch.manual_seed(seed)
        new_image, new_classes = augment(image, classes)
        assert new_image.shape == image.shape and new_classes.dtype == torch.uint8
        assert type(new_image) is torch.Tensor and type(new_classes) is torch.Tensor
        bright = new_image[0] > (new_image.min() + new_image.max()) / 2
        differing = (bright != new_classes.bool()).float().sum() / classes.sum()
        assert differing < 0.06  # the box's outline, blurred by bilinear interpolation
        moved += not torch.equal(new_classes, classes)
    assert moved > 15
    assert new_classes[:20].sum() < new_classes[20:40].sum(), "never upside down"


def test_without_geometry_frames_are_mirrored_at_most():
    image = torch.rand(1, 30, 40)
    classes = (image[0] > 0.5).to(torch.uint8)
    augment, mirrored = Augmentation(geometry=False), 0
    for seed in range(20):
        torch.manual_seed(seed)
        _, new_classes = augment(image, classes)
        mirrored += torch.equal(new_classes, classes.flip(-1))
        assert torch.equal(new_classes, classes) or torch.equal(new_classes, classes.flip(-1))
    assert 5 <= mirrored <= 15


def test_grey_levels_change_within_bounds():
    torch.manual_seed(0)
    image, found = torch.linspace(0, 1, 101)[None, None], []
    for _ in range(200):
        other = other_grey_levels(image)
        assert other.shape == image.shape and other.min() >= 0 and other.max() <= 1
        found.append(float(other[0, 0, 50]))
    assert min(found) < 0.4 and max(found) > 0.6 and sum(value == 0.5 for value in found) > 5
    noisy = sum(bool((other_grey_levels(image).diff() < 0).any()) for _ in range(200))
    assert noisy in range(25, 75)  # nothing but noise turns the order of neighbours


def test_samples_do_not_depend_on_the_number_of_workers(tmp_path):
    make_folder(tmp_path)
    store = store_of(tmp_path)
    frames = TrainingFrames(store, LABELS, augmentation=Augmentation(geometry=True))
    outcomes = []
    for workers, context in ((0, None), (2, "spawn")):
        loader = training_loader(frames, batch_size=3, seed=5, workers=workers, device=torch.device("cpu"))
        loader.multiprocessing_context = context
        torch.manual_seed(workers)  # the surrounding state must not matter
        outcomes.append([batch for epoch in (1, 2) for batch in _epoch(loader, epoch)])
    for (images, masks, _, stems), (other_images, other_masks, _, other_stems) in zip(*outcomes, strict=True):
        assert torch.equal(images, other_images) and torch.equal(masks, other_masks) and stems == other_stems


def _epoch(loader, epoch):
    loader.batch_sampler.epoch = epoch
    return list(loader)


def test_ahead_keeps_the_order_and_passes_errors_on():
    assert list(ahead(lambda x: x * x, range(50), 4)) == [x * x for x in range(50)]
    with pytest.raises(ZeroDivisionError):
        list(ahead(lambda x: 1 / x, [1, 0, 2], 2))


def test_ahead_gives_what_was_done_before_a_refusal():
    def items():
        yield from (1, 2, 3)
        raise InputError("the fourth")

    done = []
    with pytest.raises(InputError, match="the fourth"):
        for value in ahead(lambda x: x * x, items(), 2):
            done.append(value)
    assert done == [1, 4, 9]


@pytest.mark.parametrize(("frames_in_all", "sizes"), [(7, [7]), (9, [4, 5]), (8, [4, 4])])
def test_no_training_batch_is_smaller_than_the_network_needs(tmp_path, frames_in_all, sizes):
    make_folder(tmp_path, subjects=("A",), frames=frames_in_all)
    pairs, _ = find_training_pairs(tmp_path)
    store = FrameStore(pairs, scale=1, channels=1, native_truth=False, cache_mb=9)
    frames = TrainingFrames(store, Labels.create([0, 128, 255]))
    loader = training_loader(frames, 4, seed=0, workers=0, device=torch.device("cpu"), needed=4)
    assert sorted(len(batch.stems) for batch in loader) == sizes
    with pytest.raises(InputError, match=r"--batch-size 3: .* needs at least 4 frames"):
        training_loader(frames, 3, seed=0, workers=0, device=torch.device("cpu"), needed=4)
