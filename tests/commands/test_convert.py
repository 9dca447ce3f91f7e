"""convert: the frames of clips become images that training reads, with their scale, and nothing is replaced."""

import numpy as np
import pandas as pd
import pytest
from conftest import train_arguments
from PIL import Image
from sequence_files import grey_frames, region, write_dicom, write_video

from sonogravity.commands import convert
from unet import train

FRAMES = grey_frames(6, (40, 36))


def run(*arguments):
    return convert.main([str(argument) for argument in arguments])


@pytest.fixture
def clips(tmp_path):
    items = [region(left=2, top=3, right=31, bottom=33, delta=(0.02, 0.01))]
    write_dicom(tmp_path / "clips" / "P1_cine", FRAMES, SequenceOfUltrasoundRegions=items, FrameTime=40)
    write_dicom(tmp_path / "clips" / "P2_image", [FRAMES[0].astype(np.uint16) * 200])
    write_video(tmp_path / "clips" / "P3_clip.mkv", FRAMES)
    return tmp_path / "clips"


def test_frames_are_written_as_they_are_with_their_scale(clips, tmp_path, capsys):
    assert run(clips, "--output", tmp_path / "new", "--every", 2) == 0
    written = {path.stem: np.array(Image.open(path)) for path in sorted((tmp_path / "new" / "images").iterdir())}
    numbers = (0, 2, 4)
    assert list(written) == [*(f"P1_cine_{k:06d}" for k in numbers), "P2_image", *(f"P3_clip_{k:06d}" for k in numbers)]
    for k in numbers:
        np.testing.assert_array_equal(written[f"P1_cine_{k:06d}"], FRAMES[k])
        np.testing.assert_array_equal(written[f"P3_clip_{k:06d}"], FRAMES[k])
    np.testing.assert_array_equal(written["P2_image"], FRAMES[0].astype(np.uint16) * 200)
    said = capsys.readouterr().out
    assert "written: 7 images" in said and not (tmp_path / "new" / "subjects.csv").exists()
    assert "no subjects.csv: the names of 1 of 7 images give no subject (P2_image.png); --subject-regex" in said
    table = pd.read_csv(tmp_path / "new" / "spacing.csv")
    assert list(table["file"]) == [f"P1_cine_{k:06d}.png" for k in numbers]
    assert "spacing.csv, the scale of 3 of 7 images" in said


def test_the_scale_is_a_table_beside_the_images(clips, tmp_path):
    assert run(clips / "P1_cine", "--output", tmp_path / "new", "--every", 3) == 0
    table = pd.read_csv(tmp_path / "new" / "spacing.csv")
    assert list(table["file"]) == ["P1_cine_000000.png", "P1_cine_000003.png"]
    assert (set(table["pixels_per_mm_x"].round(9)), set(table["pixels_per_mm_y"].round(9))) == ({5}, {10})


def test_frames_of_a_clip_have_the_subject_of_its_name(tmp_path, capsys):
    """The name of a frame, P3_07_000002, would give P3_07: two clips of one person would be two subjects."""
    for stem in ("P3_07", "P3_08", "P4_01", "clip"):
        write_video(tmp_path / "clips" / f"{stem}.mkv", FRAMES)
    assert run(tmp_path / "clips", "--output", tmp_path / "new", "--every", 5) == 0
    table = pd.read_csv(tmp_path / "new" / "subjects.csv")
    assert list(table["subject"]) == ["P3", "P3", "P3", "P3", "P4", "P4", "clip", "clip"]
    assert list(table["file"])[:2] == ["P3_07_000000.png", "P3_07_000005.png"]
    assert "subjects.csv, subjects: P3, P4, clip" in capsys.readouterr().out
    assert run(tmp_path / "clips", "--output", tmp_path / "other", "--subject-regex", "(P.)") == 0
    assert set(pd.read_csv(tmp_path / "other" / "subjects.csv")["subject"]) == {"P3", "P4", "clip"}


def test_the_region_and_a_part_alone(clips, tmp_path):
    line = [clips / "P1_cine", "--output", tmp_path / "new", "--region", "--from", "0.1s", "--to", "4"]
    assert run(*line) == 0
    paths = sorted((tmp_path / "new" / "images").iterdir())
    assert [path.name for path in paths] == ["P1_cine_000003.png", "P1_cine_000004.png"]
    np.testing.assert_array_equal(np.array(Image.open(paths[0])), FRAMES[3][3:34, 2:32])


def test_nothing_is_replaced(clips, tmp_path, refused):
    line = [clips, "--output", tmp_path / "new"]
    assert run(*line, "--every", 3) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "new").rglob("*.*")}
    said = refused(convert.main, [*line, "--every", 2])
    assert f"{tmp_path / 'new'}: 4 of the files to write exist" in said
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "new").rglob("*.*")}


def test_the_result_is_read_by_training(clips, sets, tmp_path):
    for source, part in (("P1_cine", sets[0]), ("P3_clip.mkv", sets[1])):
        assert run(clips / source, "--output", part / "new") == 0
        (part / "new" / "masks").mkdir()
        mask = Image.open(next((part / "masks").iterdir()))
        for path in (part / "new" / "images").iterdir():
            mask.save(part / "new" / "masks" / path.name)
    line = train_arguments(sets[0] / "new", sets[1] / "new", tmp_path, "--check")
    assert train.main(line) == 0
