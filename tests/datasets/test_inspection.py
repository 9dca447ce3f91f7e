"""What the look at the data finds, says and refuses."""

import numpy as np
from conftest import make_folder, simple_frame, train_arguments, write_frame
from PIL import Image

from unet import train


def check(train_folder, validation, root, *more):
    assert train.main(train_arguments(train_folder, validation, root, "--check", *more)) == 0
    assert not (root / "checkpoints").exists()


def test_check_prints_what_there_is(sets, tmp_path, capsys):
    write_frame(sets[0], "B_777", *simple_frame(3, (30, 50)))
    image, mask = simple_frame(4)
    write_frame(sets[0], "B_778", image, np.where(mask == 255, 0, mask).astype(np.uint8))
    check(*sets, tmp_path)
    said = capsys.readouterr().out
    for part in (
        "0 -> class 0 (background), 128 -> class 1, 255 -> class 2",
        "training:   10 pairs",
        "36x40 (9), 50x30 (1)",
        "validation: 4 pairs",
        "255: ",
        "absent from 1 of 10 frames",
        "training 2 (A, B), validation 1 (C)",
        "14 of 14 frames",
    ):
        assert part in said


def test_share_of_each_class_is_right(tmp_path, capsys):
    mask = np.zeros((10, 10), np.uint8)
    mask[:2] = 128
    mask[2, :5] = 255
    for part, subject in (("train", "A"), ("validation", "B")):
        write_frame(tmp_path / part, f"{subject}_1", np.full((10, 10), 9, np.uint8), mask)
    check(tmp_path / "train", tmp_path / "validation", tmp_path)
    said = capsys.readouterr().out
    assert "128: 20.00% of pixels" in said and "255: 5.00% of pixels" in said


def test_a_subject_in_both_sets_is_refused(sets, tmp_path, refused, capsys):
    write_frame(sets[1], "A_900", *simple_frame(8))
    line = refused(train.main, train_arguments(*sets, tmp_path))
    assert "1 subjects are in both" in line and "A" in line and "--allow-overlap" in line
    check(*sets, tmp_path, "--allow-overlap")
    assert "subjects in both sets" in capsys.readouterr().err
    check(*sets, tmp_path, "--subject-regex", r"_(\d+)", "--allow-overlap")
    assert "training 4" in capsys.readouterr().out


def test_doubles_and_near_copies_are_reported(tmp_path, capsys):
    train_folder, validation = make_folder(tmp_path / "train", size=(80, 72)), tmp_path / "validation"
    image, mask = simple_frame([0, 0, 1], (80, 72))  # A_001 of the training set
    write_frame(validation, "X_1", image, mask)
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 2, image.shape), 0, 255).astype(np.uint8)
    write_frame(validation, "X_2", noisy, mask)
    write_frame(validation, "X_3", *simple_frame(77, (80, 72)))
    check(train_folder, validation, tmp_path)
    said = capsys.readouterr()
    assert "1 images are duplicates by content: train/A_001.png = validation/X_1.png" in said.err.replace("images/", "")
    assert "1 validation images are near copies" in said.err and "X_2.png ~ A_001.png" in said.err
    assert "X_3" not in said.err


def test_blurred_masks_are_refused_and_can_be_snapped(sets, tmp_path, refused, capsys):
    for path in (sets[0] / "masks").iterdir():
        image = Image.open(path)
        image.resize((72, 80)).resize(image.size, Image.Resampling.BILINEAR).save(path)
    line = refused(train.main, train_arguments(*sets, tmp_path))
    assert "masks" in line and "_00" in line and "values" in line and "--snap-masks" in line
    check(*sets, tmp_path, "--snap-masks", "--classes", 3)
    assert "0 -> class 0 (background), 128 -> class 1, 255 -> class 2 (masks are snapped)" in capsys.readouterr().out


def test_an_unknown_value_in_validation_is_refused(sets, tmp_path, refused):
    path = sets[1] / "masks" / "C_002.png"
    mask = np.array(Image.open(path))
    mask[0, 0] = 77
    Image.fromarray(mask).save(path)
    line = refused(train.main, train_arguments(*sets, tmp_path))
    assert "C_002.png" in line and "77" in line


def test_one_value_only_is_refused(tmp_path, refused):
    for part, subject in (("train", "A"), ("validation", "B")):
        write_frame(tmp_path / part, f"{subject}_1", np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8))
    line = refused(train.main, train_arguments(tmp_path / "train", tmp_path / "validation", tmp_path))
    assert "at least two" in line


def test_snapping_that_finds_too_few_values_is_refused(tmp_path, refused):
    mask = np.zeros((20, 20), np.uint8)
    mask[:5], mask[5:9] = 255, 5
    for part, subject in (("train", "A"), ("validation", "B")):
        write_frame(tmp_path / part, f"{subject}_1", np.full((20, 20), 9, np.uint8), mask)
    folders = tmp_path / "train", tmp_path / "validation"
    line = refused(train.main, train_arguments(*folders, tmp_path, "--snap-masks", "--classes", 3))
    assert "only 2 values" in line and "0, 255" in line


def test_colours_are_snapped_as_colours(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for part, subject in (("train", "A"), ("validation", "B")):
        mask = np.zeros((40, 40, 3), np.uint8)
        mask[5:15, :, 0], mask[20:30, :, 2] = 255, 255
        noisy = np.clip(mask.astype(int) + rng.integers(-3, 4, mask.shape) * (rng.random((40, 40, 1)) < 0.3), 0, 255)
        image = rng.integers(0, 255, (40, 40), dtype=np.uint8)
        write_frame(tmp_path / part, f"{subject}_1", image, noisy.astype(np.uint8))
    check(tmp_path / "train", tmp_path / "validation", tmp_path, "--snap-masks", "--classes", 3)
    said = capsys.readouterr().out
    assert "#0000ff: 25.00% of pixels" in said and "#ff0000: 25.00% of pixels" in said


def test_one_subject_in_one_folder_for_both_is_refused(tmp_path, refused):
    folder = make_folder(tmp_path / "a", subjects=("S01",))
    other = make_folder(tmp_path / "b", subjects=("S01",), seed=4)
    assert "S01" in refused(train.main, train_arguments(folder, other, tmp_path))
    assert "one folder" in refused(train.main, train_arguments(folder, folder, tmp_path))
