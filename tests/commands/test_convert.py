"""convert: the frames of clips become images that training reads, with their scale, and nothing is replaced."""

import shutil

import numpy as np
import pandas as pd
import pytest
from annotation_files import write_labelme
from conftest import train_arguments, write_frame
from PIL import Image
from sequence_files import grey_frames, region, write_dicom, write_video

from sonogravity.commands import convert
from sonogravity.common import files
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
    assert "written:    7 of 7 images to" in said and not (tmp_path / "new" / "subjects.csv").exists()
    assert "no subjects.csv: the names of 1 of 7 images give no subject (P2_image.png); --subject-regex" in said
    table = pd.read_csv(tmp_path / "new" / "spacing.csv")
    assert list(table["file"]) == [f"P1_cine_{k:06d}.png" for k in numbers]
    assert "spacing:    of 3 of 7 images, in" in said


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
    assert "subjects:   3 (P3, P4, clip), in" in capsys.readouterr().out
    assert run(tmp_path / "clips", "--output", tmp_path / "other", "--subject-regex", "(P.)") == 0
    assert set(pd.read_csv(tmp_path / "other" / "subjects.csv")["subject"]) == {"P3", "P4", "clip"}


def test_the_region_and_a_part_alone(clips, tmp_path):
    line = [clips / "P1_cine", "--output", tmp_path / "new", "--region", "--from", "0.1s", "--to", "4"]
    assert run(*line) == 0
    paths = sorted((tmp_path / "new" / "images").iterdir())
    assert [path.name for path in paths] == ["P1_cine_000003.png", "P1_cine_000004.png"]
    np.testing.assert_array_equal(np.array(Image.open(paths[0])), FRAMES[3][3:34, 2:32])


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_conversion_adds_and_replaces_nothing(clips, tmp_path):
    line = [clips, "--output", tmp_path / "new"]
    assert run(*line, "--every", 3) == 0
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "new" / "images").iterdir()}
    assert run(*line) == 0
    assert len(list((tmp_path / "new" / "images").iterdir())) == 13
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    assert run(clips, "--output", tmp_path / "once") == 0
    once, new = contents(tmp_path / "once"), contents(tmp_path / "new")
    tables = [path for path in once if path.suffix == ".csv"]  # their rows are in another order
    assert all(sorted(once[path].split()) == sorted(new[path].split()) for path in tables)
    assert all(once[path] == new[path] for path in once if path not in tables) and once.keys() == new.keys()


def test_a_file_that_differs_is_named_and_nothing_is_written(clips, tmp_path, refused):
    line = [clips / "P1_cine", "--output", tmp_path / "new"]
    assert run(*line, "--every", 3) == 0
    before = contents(tmp_path / "new")
    said = refused(convert.main, [*line, "--region"])
    assert "P1_cine_000000.png: exists, but holds other pixels than" in said and "give another --output" in said
    assert contents(tmp_path / "new") == before
    table = tmp_path / "new" / "spacing.csv"
    table.write_text(table.read_text().replace("5.0", "6.0"))
    said = refused(convert.main, line)
    assert "spacing.csv: says P1_cine_000000.png, 6.0" in said and "but here it is P1_cine_000000.png, 5.0" in said


def test_an_interrupted_conversion_is_resumed(clips, tmp_path, monkeypatch):
    line = [clips / "P1_cine", "--output", tmp_path / "new"]
    written, whole = [], files.write_whole

    def stop_at_four(path, *arguments):
        if path.suffix == ".png" and len(written) == 4:
            raise KeyboardInterrupt
        written.append(path)
        whole(path, *arguments)

    monkeypatch.setattr(files, "write_whole", stop_at_four)
    with pytest.raises(SystemExit) as stopped:
        run(*line)
    monkeypatch.undo()
    assert stopped.value.code == 130 and 0 < len(list((tmp_path / "new" / "images").iterdir())) < 6
    assert run(*line) == 0
    assert run(clips / "P1_cine", "--output", tmp_path / "once") == 0
    assert contents(tmp_path / "new") == contents(tmp_path / "once")


def test_images_of_which_the_table_of_subjects_knows_nothing_are_refused(clips, tmp_path, refused):
    (tmp_path / "new" / "images").mkdir(parents=True)
    Image.fromarray(FRAMES[0]).save(tmp_path / "new" / "images" / "mine.png")
    said = refused(convert.main, [clips / "P1_cine", "--output", tmp_path / "new"])
    assert "holds 1 images that subjects.csv does not list (mine.png)" in said
    assert [path.name for path in (tmp_path / "new" / "images").iterdir()] == ["mine.png"]


def test_a_tree_of_folders_gives_names_and_subjects(tmp_path, capsys):
    root = tmp_path / "tree"
    write_video(root / "Ann" / "scan.mkv", FRAMES)
    write_video(root / "Ben" / "day 2" / "scan.mkv", FRAMES)
    for number in (1, 2):
        write_frame(root / "Cy", f"a_{number}", FRAMES[number], (FRAMES[number] > 99).astype(np.uint8))
    (root / "Cy" / "notes.txt").write_text("hello")
    assert run(root, "--every", 5, "--output", tmp_path / "new") == 0
    table = pd.read_csv(tmp_path / "new" / "subjects.csv").set_index("file")["subject"]
    assert dict(table) == {"Cy_a_1.png": "Cy", "Cy_a_2.png": "Cy"}  # only these have masks
    said = capsys.readouterr()
    assert "4 of 6 images have no annotation and are left out: 2 frames of Ann_scan, 2 frames of Ben_day 2" in said.out
    assert "not read, because not images: 1 other file (notes.txt)" in said.err
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "new" / "masks" / "Cy_a_2.png")), FRAMES[2] > 99)
    shutil.rmtree(root / "Cy")
    assert run(root, "--every", 5, "--output", tmp_path / "other") == 0
    table = pd.read_csv(tmp_path / "other" / "subjects.csv").set_index("file")["subject"]
    expected = {f"Ann_scan_{k:06d}.png": "Ann" for k in (0, 5)} | {f"Ben_day 2_scan_{k:06d}.png": "Ben" for k in (0, 5)}
    assert dict(table) == expected
    assert run(root, "--every", 5, "--output", tmp_path / "third", "--subject-regex", "(day .)") == 0
    assert set(pd.read_csv(tmp_path / "third" / "subjects.csv")["subject"]) == {"Ann_scan", "day 2"}


def test_several_folders_are_one_tree(tmp_path):
    """As a shell expands patients/*: without it both clips would be one name, and all stills one subject."""
    for person in ("Ann", "Ben"):
        write_video(tmp_path / person / "scan.mkv", FRAMES)
        write_frame(tmp_path / person, "sweep_003", FRAMES[0], FRAMES[0])
        shutil.rmtree(tmp_path / person / "masks")
    assert run(tmp_path / "Ann", tmp_path / "Ben", "--every", 6, "--output", tmp_path / "new") == 0
    table = pd.read_csv(tmp_path / "new" / "subjects.csv").set_index("file")["subject"]
    assert dict(table) == {
        f"{person}_{name}.png": person for person in ("Ann", "Ben") for name in ("scan_000000", "sweep_003")
    }


def test_two_files_of_one_name_are_refused(tmp_path, refused):
    write_video(tmp_path / "in" / "scan.mkv", FRAMES)
    write_video(tmp_path / "in" / "scan.avi", FRAMES)
    said = refused(convert.main, [tmp_path / "in", "--output", tmp_path / "new"])
    assert said.rstrip().endswith("would have the same name, scan; rename one")


def test_folders_that_name_no_person_are_no_subjects(tmp_path):
    for part in ("train", "validation"):
        write_frame(tmp_path / part, f"D{len(part)}_1", FRAMES[0], FRAMES[0] // 128)
    assert run(tmp_path, "--output", tmp_path / "new") == 0
    assert set(pd.read_csv(tmp_path / "new" / "subjects.csv")["subject"]) == {"D5", "D10"}


def test_an_output_inside_the_source_is_no_source(tmp_path):
    write_video(tmp_path / "P1_a.mkv", FRAMES)
    line = [tmp_path, "--output", tmp_path / "new"]
    assert run(*line) == 0
    before = contents(tmp_path / "new")
    assert run(*line) == 0
    assert contents(tmp_path / "new") == before


def test_masks_are_added_to_images_that_were_converted_before(clips, tmp_path):
    assert run(clips / "P1_cine", "--output", tmp_path / "new") == 0
    corners = [(4, 5), (20, 5), (20, 21), (4, 21)]
    write_labelme(
        tmp_path / "new" / "images" / "P1_cine_000002.json", [("bone", corners)], (40, 36), "P1_cine_000002.png"
    )
    assert run(tmp_path / "new", "--output", tmp_path / "new") == 0
    assert [path.name for path in (tmp_path / "new" / "masks").iterdir()] == ["P1_cine_000002.png"]
    assert len(list((tmp_path / "new" / "images").glob("*.png"))) == 6


def test_values_with_and_without_names_do_not_join_one_set(clips, tmp_path, refused):
    corners = [(4, 5), (20, 5), (20, 21), (4, 21)]
    for number in (0, 1):
        write_frame(tmp_path / "old", f"P1_{number}", FRAMES[number], (FRAMES[number] > 99).astype(np.uint8))
    write_frame(tmp_path / "tool", "P1_2", FRAMES[2], FRAMES[2])
    shutil.rmtree(tmp_path / "tool" / "masks")
    write_labelme(tmp_path / "tool" / "P1_2.json", [("bone", corners)], (40, 36), "P1_2.png")
    assert run(tmp_path / "old", "--output", tmp_path / "a") == 0
    said = refused(convert.main, [tmp_path / "tool", "--output", tmp_path / "a"])
    assert "holds 2 masks of another origin" in said and "no classes.csv tells" in said
    assert run(tmp_path / "tool", "--output", tmp_path / "b") == 0
    said = refused(convert.main, [tmp_path / "old", "--output", tmp_path / "b"])
    assert "classes.csv: names the values of the set, but these masks have no names" in said


def test_old_and_new_names_do_not_join_one_set(tmp_path, refused):
    for person in ("Ann", "Ben"):
        write_video(tmp_path / "in" / person / "scan.mkv", FRAMES)
    line = [tmp_path / "in", "--every", 6, "--output", tmp_path / "new"]
    assert run(*line) == 0
    said = refused(convert.main, [*line, "--rename"])
    assert "holds 2 images that" in said and "new_names.csv does not list" in said
    assert not (tmp_path / "new_names.csv").exists()
    line[-1] = tmp_path / "renamed"
    assert run(*line, "--rename") == 0
    assert "the files of this set have new names; give --rename" in refused(convert.main, line)
    key = (tmp_path / "renamed_names.csv").read_bytes()
    (tmp_path / "renamed_names.csv").unlink()  # a new patient would become S001
    assert "put the table back" in refused(convert.main, [*line, "--rename"])
    assert not (tmp_path / "renamed_names.csv").exists()
    (tmp_path / "renamed_names.csv").write_bytes(key)
    said = refused(convert.main, [*line, "--rename", "--channels", 3])
    assert "holds other pixels" in said and (tmp_path / "renamed_names.csv").read_bytes() == key


def test_masks_are_added_to_a_set_with_new_names(tmp_path, refused):
    write_video(tmp_path / "in" / "Ann" / "scan.mkv", FRAMES)
    new = tmp_path / "new"
    assert run(tmp_path / "in", "--every", 3, "--rename", "--output", new) == 0
    corners = [(4, 5), (20, 5), (20, 21), (4, 21)]
    write_labelme(tmp_path / "S001_001_000003.json", [("bone", corners)], FRAMES[0].shape, "S001_001_000003.png")
    line = [new, tmp_path / "S001_001_000003.json", "--output", new]
    assert "the output is also a source, whose files keep their names" in refused(convert.main, [*line, "--rename"])
    assert run(*line) == 0
    assert [path.name for path in (new / "masks").iterdir()] == ["S001_001_000003.png"]
    assert len(list((new / "images").iterdir())) == 2 and len(list((tmp_path).glob("*.csv"))) == 1


def test_options_that_would_change_nothing_are_refused(clips, tmp_path, refused):
    image = clips / "P2_image"
    for options, said in (
        (["--every", 2], "--every: chooses frames of clips"),
        (["--to", 3], "--to: chooses frames of clips"),
        (["--keep-empty"], "--keep-empty: is for annotations"),
        (["--class-names", "a"], "--class-names: is for annotations"),
    ):
        assert said in refused(convert.main, [image, "--output", tmp_path / "new", *options])
    (tmp_path / "file").write_text("x")
    assert "is a file, but the output is a folder" in refused(convert.main, [image, "--output", tmp_path / "file"])


def test_every_nth_frame_counts_from_the_first_that_is_used(clips, tmp_path):
    line = [clips / "P1_cine", "--from", 1, "--every", 2, "--output", tmp_path / "new"]
    assert run(*line) == 0
    numbers = [int(path.stem[-6:]) for path in sorted((tmp_path / "new" / "images").iterdir())]
    assert numbers == [1, 3, 5]


def test_colours_are_kept_in_masks(tmp_path):
    mask = np.zeros((40, 36, 3), np.uint8)
    mask[5:20, 4:30] = (255, 0, 0)
    write_frame(tmp_path / "in", "P1_1", FRAMES[0], mask)
    write_frame(tmp_path / "in", "P1_2", FRAMES[1], np.zeros((40, 36), np.uint8))
    assert run(tmp_path / "in", "--output", tmp_path / "new") == 0
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "new" / "masks" / "P1_1.png").convert("RGB")), mask)
    assert run(tmp_path / "in", "--output", tmp_path / "new") == 0


def test_what_png_cannot_hold_is_refused_before_anything_is_written(tmp_path, refused):
    (tmp_path / "in").mkdir()
    Image.fromarray(FRAMES[0]).save(tmp_path / "in" / "P1_a.png")
    np.save(tmp_path / "in" / "P1_b.npy", FRAMES[0].astype(np.float32) / 255)
    assert "holds floats, which PNG cannot hold" in refused(
        convert.main, [tmp_path / "in", "--output", tmp_path / "new"]
    )
    assert not list((tmp_path / "new").rglob("*.*"))


def test_the_last_lines_tell_of_the_whole_set(clips, tmp_path, capsys):
    line = ["--output", tmp_path / "new"]
    assert run(clips / "P1_cine", "--every", 3, *line) == 0
    capsys.readouterr()
    assert run(clips / "P3_clip.mkv", "--every", 3, *line) == 0
    said = capsys.readouterr().out
    assert "written:    2 of 2 images to" in said and "; 2 others in the set" in said
    assert "subjects:   2 (P1_cine, P3_clip)" in said
    assert run(clips / "P3_clip.mkv", "--every", 3, *line) == 0
    assert "written:    0 of 2 images to" in (said := capsys.readouterr().out) and ", 2 were there already" in said
    assert "next: draw masks for 4 images" in said


def test_a_damaged_table_of_names_is_refused(clips, tmp_path, refused):
    (tmp_path / "new_names.csv").write_text("name,original\nS001_001\n")
    said = refused(convert.main, [clips / "P1_cine", "--rename", "--output", tmp_path / "new"])
    assert "new_names.csv: is no table of the columns name, original, subject" in said


def test_tables_beside_images_are_used(tmp_path):
    for number in (1, 2):
        write_frame(tmp_path / "old", f"scan{number}", FRAMES[number], (FRAMES[number] > 99).astype(np.uint8))
    (tmp_path / "old" / "subjects.csv").write_text("file,subject\nscan1.png,Ann\nscan2.png,Ben\n")
    (tmp_path / "old" / "spacing.csv").write_text("file,pixels_per_mm\nscan1.png,7.5\n")
    assert run(tmp_path / "old", "--output", tmp_path / "new") == 0
    assert list(pd.read_csv(tmp_path / "new" / "subjects.csv")["subject"]) == ["Ann", "Ben"]
    table = pd.read_csv(tmp_path / "new" / "spacing.csv")
    assert table.values.tolist() == [["scan1.png", 7.5, 7.5]]


def test_new_names_tell_nothing_and_stay_the_same(tmp_path, capsys):
    root = tmp_path / "tree"
    for person in ("Jones", "Smith"):
        write_video(root / person / f"{person} lumbar.mkv", FRAMES)
        write_frame(root / person, f"{person}_1", FRAMES[1], FRAMES[1])
    for path in root.rglob("masks"):
        shutil.rmtree(path)
    line = [root, "--every", 5, "--rename", "--output", tmp_path / "new"]
    assert run(*line) == 0
    names = sorted(path.name for path in (tmp_path / "new" / "images").iterdir())
    assert names == [
        f"S00{s}_00{n}{frame}.png" for s in (1, 2) for n, frame in ((1, "_000000"), (1, "_000005"), (2, ""))
    ]
    assert set(pd.read_csv(tmp_path / "new" / "subjects.csv")["subject"]) == {"S001", "S002"}
    written = b"".join(contents(tmp_path / "new").values()) + "".join(map(str, contents(tmp_path / "new"))).encode()
    assert b"Jones" not in written and b"Smith" not in written
    key = pd.read_csv(tmp_path / "new_names.csv")
    assert list(key["original"]) == ["Jones_Jones lumbar", "Jones_Jones_1", "Smith_Smith lumbar", "Smith_Smith_1"]
    assert "new_names.csv tells which file has which name; keep it safe, and apart from" in capsys.readouterr().out
    before = contents(tmp_path / "new")
    write_video(root / "Abel" / "first.mkv", FRAMES)  # comes before the others, but must not take their names
    assert run(*line) == 0
    after = contents(tmp_path / "new")
    assert {path: after[path] for path in before if path.suffix == ".png"} == {
        path: content for path, content in before.items() if path.suffix == ".png"
    }
    assert {path.name for path in after.keys() - before.keys()} == {"S003_001_000000.png", "S003_001_000005.png"}


def test_the_result_is_read_by_training(clips, sets, tmp_path):
    for source, part in (("P1_cine", sets[0]), ("P3_clip.mkv", sets[1])):
        assert run(clips / source, "--output", part / "new") == 0
        (part / "new" / "masks").mkdir()
        mask = Image.open(next((part / "masks").iterdir()))
        for path in (part / "new" / "images").iterdir():
            mask.save(part / "new" / "masks" / path.name)
    line = train_arguments(sets[0] / "new", sets[1] / "new", tmp_path, "--check")
    assert train.main(line) == 0
