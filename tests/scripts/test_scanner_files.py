"""Clips, cines, stacks and volumes as input: the same numbers as of plain frames, in mm, and nothing of the patient."""

import importlib.util
import json
import re
import shutil
import zipfile

import numpy as np
import openpyxl
import pandas as pd
import pydicom
import pytest
import SimpleITK
import tifffile
from conftest import write_frame
from PIL import Image
from pydicom.datadict import DicomDictionary
from pydicom.fileset import FileSet
from sequence_files import region, write_dicom, write_video, write_volume

from sonogravity.commands import compare
from sonogravity.datasets.mask_files import read_mask
from unet import evaluate, evaluate_w_margin, export, predict, predict_w_margin, train

PER_MM = 8.0  # of a pixel of 0.0125 cm
CM = (0.0125, -0.0125)
KINDS = ("DICOM", "video", "TIFF", "volume", "NPZ", "GIF")


def pictures(folder, kind="images"):
    return [np.array(Image.open(path)) for path in sorted((folder / kind).iterdir())]


def clip_of(kind, folder, frames, stem="sweep", **elements):
    """Write frames as one file of a kind, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "DICOM":
        items = [region(right=frames[0].shape[1] - 1, bottom=frames[0].shape[0] - 1, delta=CM)]
        return write_dicom(folder / stem, frames, SequenceOfUltrasoundRegions=items, FrameTime=40, **elements)
    if kind == "video":
        return write_video(folder / f"{stem}.mkv", frames)
    if kind == "volume":
        return write_volume(folder / f"{stem}.nii.gz", frames, spacing=(0.125, 0.125, 2))
    path = folder / (stem + {"TIFF": ".tif", "NPZ": ".npz", "GIF": ".gif"}[kind])
    if kind == "TIFF":
        tifffile.imwrite(path, np.stack(frames), imagej=True, metadata={"axes": "TYX"})
    elif kind == "NPZ":
        np.savez_compressed(path, np.stack(frames))
    else:
        images = [Image.fromarray(frame) for frame in frames]
        images[0].save(path, save_all=True, append_images=images[1:], duration=40)
    return path


@pytest.fixture(scope="module")
def best(trained):
    return trained / "checkpoints" / "unet" / "run" / "best.pth"


@pytest.fixture(scope="module")
def plain(trained, tmp_path_factory):
    """The frames of a sweep as PNG, with masks: sweep_000000 and so on."""
    root = tmp_path_factory.mktemp("plain")
    masks = pictures(trained / "validation", "masks")
    for k, image in enumerate(pictures(trained / "validation")):
        write_frame(root, f"sweep_{k:06d}", image, masks[k])
    return root


@pytest.fixture(scope="module")
def reference(plain, best, tmp_path_factory):
    """The results of the plain frames: (folder, rows)."""
    output = tmp_path_factory.mktemp("reference") / "out"
    options = ["--pixels-per-mm", str(PER_MM), "--panels", "none"]
    assert run(predict_w_margin, best, [plain], output, *options) == 0
    return output, rows_of(output)


def run(script, best, inputs, output, *options):
    line = ["--load", best, "--input", *inputs, "--output", output, "--device", "cpu", *options]
    return script.main([str(argument) for argument in line])


def rows_of(output):
    return pd.read_csv(output / "files.csv", dtype={"missed": str, "spurious": str})


def same_numbers(rows, reference):
    """All columns of the reference but names and times are equal, to the last bit."""
    for name in reference.columns.drop(["file", "seconds"]):
        pd.testing.assert_series_equal(rows[name], reference[name], check_exact=not name.startswith("pixels_per_mm"))


def masks_of(output):
    return {path.name: read_mask(path).values for path in sorted((output / "masks").iterdir())}


def same_masks(output, reference):
    found, expected = masks_of(output), masks_of(reference)
    assert list(found) == list(expected)
    for name, mask in expected.items():
        np.testing.assert_array_equal(found[name], mask)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_is_predicted_and_scored_as_its_frames_are(kind, plain, best, reference, tmp_path, capsys):
    images = tmp_path / "images"
    clip_of(kind, images, pictures(plain))
    shutil.copytree(plain / "masks", tmp_path / "masks")
    known = kind in ("DICOM", "volume")
    options = ["--panels", "none", *([] if known else ["--pixels-per-mm", PER_MM])]
    assert run(predict_w_margin, best, [tmp_path], tmp_path / "out", *options) == 0
    said = capsys.readouterr().out
    assert ("spacing:    8 px per mm from the file\n" in said) == known
    output, rows = reference
    found = rows_of(tmp_path / "out")
    same_masks(tmp_path / "out", output)
    same_numbers(found, rows)
    assert list(found["file"]) == [name.removesuffix(".png") for name in rows["file"]]
    assert set(found["source"]) == {next(images.iterdir()).name}
    if kind in ("DICOM", "video", "GIF"):
        np.testing.assert_allclose(found["time_s"], np.arange(len(found)) * 0.04)
    assert ("time_s" in found) == (kind in ("DICOM", "video", "GIF"))
    assert run(evaluate_w_margin, best, [images], tmp_path / "scores", *options[2:]) == 0
    same_numbers(rows_of(tmp_path / "scores"), rows)


def test_the_columns_of_clips_are_defined(plain, best, tmp_path):
    clip_of("DICOM", tmp_path / "clips", pictures(plain)[:2])
    assert run(predict, best, [tmp_path / "clips"], tmp_path / "out") == 0
    book = openpyxl.load_workbook(tmp_path / "out" / "files.xlsx")
    defined = {row[0].value: [cell.value for cell in row] for row in book["Definitions"].iter_rows()}
    assert "time of the frame" in str(defined["time_s"]) and "s" in defined["time_s"]
    assert "clip" in str(defined["source"])
    assert not (tmp_path / "out" / "panels").exists(), "panels of clips are written if asked for"
    assert run(predict, best, [tmp_path / "clips"], tmp_path / "out", "--panels", "jpg") == 0
    assert sorted(path.name for path in (tmp_path / "out" / "panels").iterdir()) == [
        "sweep_000000.jpg",
        "sweep_000001.jpg",
    ]


def test_millimetres_of_the_option_replace_those_of_the_file_and_both_are_named(plain, best, tmp_path, capsys):
    clip_of("DICOM", tmp_path / "clips", pictures(plain)[:2])
    assert run(predict, best, [tmp_path / "clips"], tmp_path / "out", "--pixels-per-mm", "4") == 0
    assert "4 px per mm (--pixels-per-mm) is used instead of the files' own, 8 px per mm" in capsys.readouterr().out
    assert set(rows_of(tmp_path / "out")["pixels_per_mm"]) == {4}
    for line in ("sweep", "sweep_000000\n5\nsweep_000001"):
        names = line.split("\n5\n")
        table = tmp_path / "spacing.csv"
        table.write_text("file,pixels_per_mm\n" + "".join(f"{name},5\n" for name in names))
        assert run(predict, best, [tmp_path / "clips"], tmp_path / "out", "--spacing", table) == 0
        assert "5 px per mm (--spacing) is used instead" in capsys.readouterr().out
        assert set(rows_of(tmp_path / "out")["pixels_per_mm"]) == {5}


def test_files_with_and_without_millimetres_are_not_mixed_up(plain, best, tmp_path, capsys, refused):
    clip = clip_of("DICOM", tmp_path / "clips", pictures(plain)[:2], "cine")
    inputs = [clip, plain / "images" / "sweep_000001.png"]
    assert run(predict, best, inputs, tmp_path / "out") == 0
    line = "1 of 3 files have no spacing (sweep_000001.png), the others have 8 px per mm"
    assert f"{line}, so all lengths are in pixels" in capsys.readouterr().err
    rows = rows_of(tmp_path / "out")
    assert list(rows["file"]) == ["cine_000000", "cine_000001", "sweep_000001.png"] and "hd_px" in rows
    arguments = ["--load", best, "--input", *inputs, "--output", tmp_path / "margin"]
    assert f"{line}; give --spacing FILE.csv" in refused(predict_w_margin.main, arguments)
    (tmp_path / "s.csv").write_text("file,pixels_per_mm\nsweep_000001.png,5\n")
    assert predict_w_margin.main([*map(str, arguments), "--spacing", str(tmp_path / "s.csv")]) == 0, "the remedy"
    assert list(rows_of(tmp_path / "margin")["pixels_per_mm"]) == [8, 8, 5]
    assert "8 px per mm of 2 files that are not in the table" in capsys.readouterr().out
    assert run(predict, best, inputs, tmp_path / "nifti", "--mask-format", "nifti") == 0
    written = SimpleITK.ReadImage(str(tmp_path / "nifti" / "masks" / "cine.nii.gz"))
    assert written.GetSpacing() == pytest.approx((0.125, 0.125, 1)), "the scale of this file, in spite of the other"


@pytest.mark.parametrize("kind", ["tiff", "nifti"])
def test_label_stacks(kind, plain, best, reference, tmp_path):
    """One stack per clip, at its size, which evaluate --predictions scores as the masks of its frames."""
    source = clip_of("volume", tmp_path / "images", pictures(plain))
    write_frame(tmp_path / "more", "single", pictures(plain)[0], pictures(plain, "masks")[0])
    inputs = [source, tmp_path / "more"]
    assert run(predict, best, inputs, tmp_path / "out", "--mask-format", kind, "--panels", "none") == 0
    suffix = {"tiff": "tif", "nifti": "nii.gz"}[kind]
    written = sorted(path.name for path in (tmp_path / "out" / "masks").iterdir())
    assert written == [f"single.{suffix}", f"sweep.{suffix}"]
    path = tmp_path / "out" / "masks" / f"sweep.{suffix}"
    stack = tifffile.imread(path) if kind == "tiff" else SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    np.testing.assert_array_equal(stack, np.stack(list(masks_of(reference[0]).values())))
    if kind == "nifti":
        written, own = (SimpleITK.ReadImage(str(each)) for each in (path, source))
        for geometry in ("GetSpacing", "GetOrigin", "GetDirection", "GetSize"):
            assert getattr(written, geometry)() == getattr(own, geometry)()
    (tmp_path / "out" / "masks" / f"single.{suffix}").unlink()
    line = ["--predictions", tmp_path / "out" / "masks", "--input", plain / "masks", "--output", tmp_path / "scores"]
    assert evaluate.main([*map(str, line), "--pixels-per-mm", str(PER_MM)]) == 0
    np.testing.assert_array_equal(rows_of(tmp_path / "scores")["dice"], reference[1]["dice"])


def test_a_second_run_replaces_stacks(plain, best, tmp_path, capsys):
    clip_of("video", tmp_path / "clips", pictures(plain)[:3], "v1.2 sweep")
    for kind in ("tiff", "nifti", "png"):
        assert run(predict, best, [tmp_path / "clips"], tmp_path / "out", "--mask-format", kind) == 0
    names = sorted(path.name for path in (tmp_path / "out" / "masks").iterdir())
    assert names == [f"v1.2 sweep_{k:06d}.png" for k in range(3)]


def test_a_volume_of_one_slice_keeps_its_geometry(plain, best, tmp_path):
    image = SimpleITK.GetImageFromArray(pictures(plain)[0][None])
    image.SetSpacing((0.125, 0.125, 3))
    SimpleITK.WriteImage(image, str(tmp_path / "slice.nii.gz"))
    assert run(predict, best, [tmp_path / "slice.nii.gz"], tmp_path / "out", "--mask-format", "nifti") == 0
    written = SimpleITK.ReadImage(str(tmp_path / "out" / "masks" / "slice.nii.gz"))
    assert (written.GetSize(), written.GetSpacing()) == (image.GetSize(), image.GetSpacing())


def test_an_incomplete_stack_does_not_appear(plain, best, tmp_path, refused):
    frames = pictures(plain)
    path = clip_of("NPZ", tmp_path / "clips", frames)
    content = np.stack(frames).astype(np.float32) / 255
    content[3, 0, 0] = np.nan
    np.savez(path, content)
    line = ["--load", best, "--input", tmp_path / "clips", "--output", tmp_path / "out", "--mask-format", "tiff"]
    assert "sweep.npz, frame 3: float pixels are not a number" in refused(predict.main, line)
    assert not list((tmp_path / "out").rglob("*.tif")) and not list((tmp_path / "out").rglob(".*"))


@pytest.mark.parametrize("kind", ["TIFF", "volume", "NPZ"])
def test_the_truth_of_a_clip_may_be_a_stack(kind, plain, best, reference, tmp_path, refused):
    clip_of("video", tmp_path / "images", pictures(plain))
    truth = clip_of(kind, tmp_path / "masks", pictures(plain, "masks"))
    options = ["--pixels-per-mm", PER_MM]
    assert run(evaluate_w_margin, best, [tmp_path], tmp_path / "out", *options) == 0
    same_numbers(rows_of(tmp_path / "out"), reference[1])
    truth.unlink()
    truth = clip_of(kind, tmp_path / "masks", pictures(plain, "masks")[:-1])
    line = ["--load", best, "--input", tmp_path, "--output", tmp_path / "more"]
    said = refused(evaluate.main, line)
    assert f"{truth}: holds 7 frames, but sweep.mkv holds 8; a mask stack needs one frame per frame of the clip" in said


def test_masks_numbered_from_1_are_refused(plain, best, tmp_path, refused):
    """Else every frame would be scored against the mask of the frame before."""
    clip = clip_of("TIFF", tmp_path / "images", pictures(plain))
    (tmp_path / "masks").mkdir()
    for k, mask in enumerate(pictures(plain, "masks"), 1):
        Image.fromarray(mask).save(tmp_path / "masks" / f"sweep_{k:06d}.png")
    for given in ([tmp_path], [clip], [tmp_path, "--masks", tmp_path / "masks"], [clip, "--from", "0"]):
        for script in (predict, evaluate):
            said = refused(script.main, ["--load", best, "--output", tmp_path / "out", "--input", *given])
            assert "sweep_000008.png: sweep.tif has 8 frames, which are numbered from 0, so there is no frame 8" in said


@pytest.mark.parametrize("masks", ["frames", "stack"])
def test_predictions_of_clips_are_scored_in_millimetres_and_in_part(masks, plain, best, reference, tmp_path, refused):
    """evaluate --predictions takes scale, times and limits from the clips beside the true masks."""
    clip_of("DICOM", tmp_path / "images", pictures(plain))
    if masks == "stack":
        clip_of("TIFF", tmp_path / "masks", pictures(plain, "masks"))
    else:
        shutil.copytree(plain / "masks", tmp_path / "masks")
    line = ["--predictions", reference[0] / "masks", "--input", tmp_path, "--output", tmp_path / "out"]
    assert evaluate_w_margin.main([str(each) for each in line]) == 0
    rows = rows_of(tmp_path / "out")
    for column in ("dice", "hd95_mm", "tolerant_dice", "nsd", "pixels_per_mm"):
        np.testing.assert_allclose(rows[column], reference[1][column], rtol=1e-12)
    assert set(rows["source"]) == {"sweep"} and list(rows["time_s"][:2]) == [0, 0.04]
    line[-1] = tmp_path / "part"
    assert evaluate.main([str(each) for each in [*line, "--from", "2", "--to", "0.2s"]]) == 0
    assert list(rows_of(tmp_path / "part")["file"]) == [f"sweep_{k:06d}" for k in range(2, 6)]
    if masks == "frames":
        for k in (0, 1, 2, 5, 6):
            (tmp_path / "masks" / f"sweep_{k:06d}.png").unlink()
        line[-1] = tmp_path / "some"
        assert evaluate.main([str(each) for each in line]) == 0
        assert list(rows_of(tmp_path / "some")["file"]) == [f"sweep_{k:06d}" for k in (3, 4, 7)]
    assert "--region apply to a model" in refused(evaluate.main, [*line, "--region"])
    (tmp_path / "masks" / "sweep_000009.png").write_bytes((plain / "masks" / "sweep_000001.png").read_bytes())
    if masks == "frames":
        assert "so there is no frame 9; rename the masks" in refused(evaluate.main, line)


def test_doubts_about_the_scale_of_clips_are_said_when_predictions_are_scored(plain, reference, tmp_path, capsys):
    write_volume(tmp_path / "images" / "sweep.mha", pictures(plain), spacing=(1, 1, 1))
    shutil.copytree(plain / "masks", tmp_path / "masks")
    line = ["--predictions", reference[0] / "masks", "--input", tmp_path, "--output", tmp_path / "out"]
    assert evaluate.main([str(each) for each in line]) == 0
    said = capsys.readouterr().err
    assert "sweep.mha: gives pixels of exactly 1 x 1 mm" in said and "predict with --pixels-per-mm 1" in said
    assert evaluate.main([str(each) for each in [*line, "--pixels-per-mm", 1]]) == 0, "the remedy"
    assert set(rows_of(tmp_path / "out")["pixels_per_mm"]) == {1}


def test_of_a_clip_in_which_some_frames_have_a_mask_these_are_scored(plain, best, reference, tmp_path, capsys, refused):
    clip_of("TIFF", tmp_path / "images", pictures(plain))
    for k in (1, 4):
        write_frame(tmp_path, f"sweep_{k:06d}", *(each[k] for each in (pictures(plain), pictures(plain, "masks"))))
        (tmp_path / "images" / f"sweep_{k:06d}.png").unlink()
    assert run(evaluate, best, [tmp_path], tmp_path / "out") == 0
    assert "sweep.tif: 2 of 8 frames have a mask, and only these are scored" in capsys.readouterr().err
    rows = rows_of(tmp_path / "out")
    assert list(rows["file"]) == ["sweep_000001", "sweep_000004"]
    np.testing.assert_array_equal(rows["dice"], reference[1]["dice"].iloc[[1, 4]])
    assert run(predict, best, [tmp_path], tmp_path / "all") == 0
    assert rows_of(tmp_path / "all")["dice"].notna().sum() == 2 and len(rows_of(tmp_path / "all")) == 8
    shutil.rmtree(tmp_path / "masks")
    (tmp_path / "masks").mkdir()
    assert "no mask" in refused(evaluate.main, ["--load", best, "--input", tmp_path, "--output", tmp_path / "o"])


def padded(frame, top=7, left=5, bottom=3, right=4, value=0):
    return np.pad(frame, ((top, bottom), (left, right)), constant_values=value)


@pytest.fixture
def scanner(plain, tmp_path):
    """A cine of which the tissue is a part: (folder with images/ and masks/, frames, masks)."""
    frames, masks = ([padded(each) for each in pictures(plain, kind)] for kind in ("images", "masks"))
    height, width = pictures(plain)[0].shape
    for frame in frames:
        frame[1:4, 2:9] = 250  # text
    item = region(left=5, top=7, right=5 + width - 1, bottom=7 + height - 1, delta=CM)
    root = tmp_path / "scanner"
    write_dicom(root / "images" / "sweep", frames, SequenceOfUltrasoundRegions=[item], FrameTime=40)
    for k, mask in enumerate(masks):
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(root / "masks" / f"sweep_{k:06d}.png")
    return root, frames, masks


def test_the_tissue_region_alone_is_shown_to_the_network(scanner, best, reference, tmp_path, capsys):
    root, frames, _ = scanner
    line = ["--region", "--panels", "png"]
    assert run(predict, best, [root], tmp_path / "out", *line) == 0
    assert "outside the tissue region" not in capsys.readouterr().err
    expected = masks_of(reference[0])
    for name, mask in masks_of(tmp_path / "out").items():
        assert mask.shape == frames[0].shape, "at the file's own size"
        np.testing.assert_array_equal(mask, padded(expected[name]))
    rows = rows_of(tmp_path / "out")
    assert set(rows["width"]) == {frames[0].shape[1]} and set(rows["height"]) == {frames[0].shape[0]}
    for column in ("dice", "hd_mm", "entropy", "expected_dice", "unlike_training"):
        np.testing.assert_allclose(rows[column], reference[1][column], rtol=1e-12)
    np.testing.assert_allclose(rows["top_mm_128"], reference[1]["top_mm_128"] + 7 / PER_MM)
    panel = np.array(Image.open(tmp_path / "out" / "panels" / "sweep_000000.png").convert("L"))
    own = pictures(root, "masks")[0].shape
    assert panel.shape[1] < 3 * own[1], "panels show the region alone, without the text around it"
    assert run(evaluate, best, [root], tmp_path / "scores", "--region") == 0
    np.testing.assert_allclose(rows_of(tmp_path / "scores")["dice"], reference[1]["dice"], rtol=1e-12)


def test_pixels_outside_the_region_are_pointed_out_once(scanner, best, tmp_path, capsys):
    root, frames, _ = scanner
    assert run(predict, best, [root], tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert said.count("1 files hold pixels outside the tissue region (sweep): text there may name the patient") == 1
    clip_of("DICOM", tmp_path / "clean", frames)
    assert run(predict, best, [tmp_path / "clean"], tmp_path / "more") == 0
    assert "outside the tissue region" not in capsys.readouterr().err


def test_of_several_regions_one_is_chosen(plain, best, tmp_path, refused, capsys):
    frames = [np.concatenate([frame, frame], axis=1) for frame in pictures(plain)[:2]]
    width = frames[0].shape[1] // 2
    items = [region(right=width - 1, bottom=39, delta=CM), region(left=width, right=2 * width - 1, bottom=39)]
    path = write_dicom(tmp_path / "clips" / "dual.dcm", frames, SequenceOfUltrasoundRegions=items)
    line = ["--load", best, "--input", path, "--output", tmp_path / "out"]
    said = refused(predict.main, [*line, "--region"])
    assert (
        "2 tissue regions (region 1, 36x40 at (0, 0), region 2, 36x40 at (36, 0)); give --region 1 or --region 2"
        in said
    )
    assert "no region 3 among" in refused(predict.main, [*line, "--region", "3"])
    said = refused(predict.main, line)
    assert "differ in scale (region 1, 36x40 at (0, 0): 8 px per mm, region 2, 36x40 at (36, 0): 10 px per mm)" in said
    assert "--region 1, or give --pixels-per-mm" in said
    for options, scale in ((["--region", "2"], 10), (["--region", "1"], 8), (["--pixels-per-mm", "3"], 3)):
        assert predict.main([*map(str, line), *options]) == 0
        assert set(rows_of(tmp_path / "out")["pixels_per_mm"].round(9)) == {scale}
    png = plain / "images" / "sweep_000000.png"
    line = ["--load", best, "--input", png, "--output", tmp_path / "png", "--region"]
    assert "sweep_000000.png: has no ultrasound region" in refused(predict.main, line)


def test_part_of_a_clip(plain, best, reference, tmp_path, refused):
    clip = clip_of("DICOM", tmp_path / "images", pictures(plain))
    shutil.copytree(plain / "masks", tmp_path / "masks")
    for options, kept in (
        (["--from", "2", "--to", "5"], range(2, 6)),
        (["--from", "0.1s"], range(3, 8)),
        (["--to", "0.08s"], range(3)),
        (["--from", "6"], range(6, 8)),
    ):
        for script in (predict, evaluate):
            output = tmp_path / script.__name__ / "_".join(options)
            assert run(script, best, [tmp_path], output, *options) == 0
            rows = rows_of(output)
            assert list(rows["file"]) == [f"sweep_{k:06d}" for k in kept]
            np.testing.assert_array_equal(rows["dice"], reference[1]["dice"].iloc[list(kept)])
    line = ["--load", best, "--input", clip, "--output", tmp_path / "o"]
    said = refused(predict.main, [*line, "--from", "8"])
    assert "no frame lies within --from and --to; its frames are 0 to 7, 0 s to 0.28 s" in said
    alone = ["--load", best, "--input", plain, "--output", tmp_path / "o", "--to", "3"]
    assert "no input file holds several; leave them out" in refused(predict.main, alone)
    assert "give --mask-format png" in refused(predict.main, [*line, "--from", "2", "--mask-format", "tiff"])
    assert "'3m' is neither a number of a frame" in refused(predict.main, [*line, "--from", "3m"])
    stack = clip_of("TIFF", tmp_path / "more", pictures(plain))
    line[3] = stack
    assert "has no times" in refused(predict.main, [*line, "--from", "1s"])


def test_the_frames_of_a_clip_are_one_subject(plain, best, tmp_path, capsys):
    frames, masks = pictures(plain), pictures(plain, "masks")
    for stem, part in (("P1_001", slice(0, 3)), ("P1_002", slice(3, 5)), ("other", slice(5, 8))):
        clip_of("TIFF", tmp_path / "images", frames[part], stem)
        clip_of("TIFF", tmp_path / "masks", masks[part], stem)
    for name, options in (("one", []), ("two", ["--scale", "0.4"])):
        assert run(evaluate, best, [tmp_path], tmp_path / name, *options) == 0
    book = openpyxl.load_workbook(tmp_path / "one" / "files.xlsx")
    assert [row[0].value for row in book["By subject"].iter_rows(min_row=2, max_row=3)] == ["P1", "other"]
    capsys.readouterr()
    line = [tmp_path / "one", tmp_path / "two", "--output", tmp_path / "c.xlsx"]
    assert compare.main([str(each) for each in line]) == 0
    assert ", 2 subjects, 8 files with a value in both" in capsys.readouterr().out
    (tmp_path / "subjects.csv").write_text("file,subject\nP1_001,A\nP1_002.tif,B\nother_000000,C\nother,D\n")
    assert run(evaluate, best, [tmp_path], tmp_path / "one", "--subjects", tmp_path / "subjects.csv") == 0
    book = openpyxl.load_workbook(tmp_path / "one" / "files.xlsx")
    assert [row[0].value for row in book["By subject"].iter_rows(min_row=2, max_row=5)] == ["A", "B", "C", "D"]


MARKER = "Zxq"


def marked(folder, frames):
    """A cine with a marker in every element of text that pydicom's dictionary knows, UIDs and dates included."""
    elements = {}
    for number, (_tag, (kind, _, _, retired, keyword)) in enumerate(sorted(DicomDictionary.items())):
        if not keyword or retired or keyword in ("SpecificCharacterSet", "FrameIncrementPointer"):
            continue
        text = f"{MARKER}{number}"
        if kind in ("PN", "LO", "SH", "ST", "LT", "UT", "UC", "AE"):
            elements[keyword] = text
        elif kind == "DA":
            elements[keyword] = "19771231"
        elif kind == "UI" and "Transfer" not in keyword and "Class" not in keyword:
            elements[keyword] = "1.2.977.31.77"
    of_pixels = (0x0000, 0x0002, 0x0006, 0x0028)  # groups, also of the file itself
    elements = {
        key: value for key, value in elements.items() if pydicom.datadict.tag_for_keyword(key) >> 16 not in of_pixels
    }
    return write_dicom(folder / "cine", frames, SequenceOfUltrasoundRegions=[region(right=35, bottom=39)], **elements)


def test_nothing_of_the_header_reaches_any_output(plain, best, tmp_path, capsys):
    frames = pictures(plain)[:2]
    folder = tmp_path / "PatientFolder" / "images"
    path = marked(folder, frames)
    assert path.read_bytes().count(MARKER.encode()) > 500
    shutil.copytree(plain / "masks", folder.parent / "masks")
    for k in range(2, 8):
        (folder.parent / "masks" / f"sweep_{k:06d}.png").unlink()
    for k in range(2):
        (folder.parent / "masks" / f"sweep_{k:06d}.png").rename(folder.parent / "masks" / f"cine_{k:06d}.png")
    output = tmp_path / "out"
    for script, options in (
        (predict_w_margin, ["--panels", "png", "--mask-format", "nifti"]),
        (predict, ["--panels", "jpg", "--mask-format", "tiff"]),
        (predict, ["--region"]),
        (evaluate, []),
    ):
        assert run(script, best, [folder.parent], output / f"{script.__name__}{len(options)}", *options) == 0
    said = "".join(capsys.readouterr())
    contents = {"terminal": said.replace(str(tmp_path), "").encode()}
    for file in (path for path in output.rglob("*") if path.is_file()):
        contents[file] = file.read_bytes()
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                contents |= {f"{file}/{name}": archive.read(name) for name in archive.namelist()}
        if file.suffix == ".png":
            contents[f"{file} text"] = repr(Image.open(file).info).encode()
    assert len(contents) > 60
    for name, content in contents.items():
        for secret in (MARKER, "19771231", "1.2.977.31.77"):
            assert secret.encode() not in content, name
        if name != "terminal":
            assert str(tmp_path / "PatientFolder").encode() not in content, name


def test_a_file_name_that_tells_is_pointed_out_once(plain, best, tmp_path, capsys):
    frames = pictures(plain)[:1]
    for name in ("DOE_1", "DOE_2"):
        write_dicom(tmp_path / "clips" / name, frames, PatientName="Doe^Jane", PatientID="77123")
    write_dicom(tmp_path / "clips" / "b", frames, PatientName="Roe^Ann", PatientID="1")
    assert run(predict, best, [tmp_path / "clips"], tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert said.count("the names of 2 files or of their folders hold values of the DICOM header (PatientName)") == 1
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["options"]["input"] == ["clips"]


@pytest.mark.parametrize(
    ("folder", "elements", "named"),
    [
        ("Doering_Johanna/images", {"PatientName": "Doering^Johanna"}, "PatientName"),
        ("2024-01-31", {"StudyDate": "20240131"}, "StudyDate"),
        ("Sequoia512", {"ManufacturerModelName": "Sequoia512"}, "ManufacturerModelName"),
        ("clips", {"PatientName": "Doering^Johanna", "StudyDate": "20240131"}, None),
    ],
)
def test_a_folder_name_that_tells_is_pointed_out(folder, elements, named, plain, best, tmp_path, capsys):
    write_dicom(tmp_path / folder / "a", pictures(plain)[:1], **elements)
    assert run(predict, best, [tmp_path / folder.split("/")[0]], tmp_path / "out", "--panels", "none") == 0
    said = capsys.readouterr().err
    assert ("hold values of the DICOM header" in said) == bool(named) and (named or "") in said


def test_results_of_another_folder_of_the_same_name_are_not_replaced(plain, best, tmp_path, refused):
    for place in ("a", "b"):
        clip_of("NPZ", tmp_path / place / "clips", pictures(plain)[:1])
    assert run(predict, best, [tmp_path / "a" / "clips"], tmp_path / "out") == 0
    line = ["--load", best, "--input", tmp_path / "b" / "clips", "--output", tmp_path / "out"]
    assert "holds the results of clips elsewhere, not of clips" in refused(predict.main, line)


def test_a_folder_of_dicom_files_and_what_a_dicomdir_lists(plain, best, tmp_path, capsys, refused):
    frames = pictures(plain)
    folder = tmp_path / "series"
    for k in range(3):
        write_dicom(folder / f"1.2.840.{k}", frames[k : k + 1])
    report = pydicom.dcmread(folder / "1.2.840.0")
    del report.PixelData, report.Rows
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.save_as(folder / "report")
    assert run(predict, best, [folder], tmp_path / "out") == 0
    rows = rows_of(tmp_path / "out")
    assert list(rows["file"]) == ["1.2.840.0", "1.2.840.1", "1.2.840.2"] and "source" not in rows
    assert sorted(path.name for path in (tmp_path / "out" / "masks").iterdir())[2] == "1.2.840.2.png"
    assert "report: is DICOM" in capsys.readouterr().err
    line = ["--load", best, "--input", folder / "report", "--output", tmp_path / "more"]
    assert "holds no image; leave it out" in refused(predict.main, line)


def test_images_of_a_medium_keep_their_own_scale_and_names(plain, best, tmp_path):
    """File names repeat on a medium: S1/IM1 and S2/IM1."""
    medium = FileSet()
    for study, delta in (("1", 0.02), ("2", 0.05)):
        elements = {
            "PatientID": f"P{study}",
            "PatientName": "A^B",
            "StudyInstanceUID": f"1.2.{study}",
            "StudyID": study,
        }
        elements |= {"SeriesInstanceUID": f"1.2.{study}.1", "SeriesNumber": 1, "InstanceNumber": 1, "Modality": "US"}
        elements |= {"StudyDate": "20200101", "StudyTime": "120000", "AccessionNumber": ""}
        items = [region(right=35, bottom=39, delta=(delta, delta))]
        medium.add(write_dicom(tmp_path / study, pictures(plain)[:1], SequenceOfUltrasoundRegions=items, **elements))
    medium.write(tmp_path / "medium")
    for _ in range(2):
        assert run(predict, best, [tmp_path / "medium" / "DICOMDIR"], tmp_path / "out") == 0
    rows = rows_of(tmp_path / "out")
    assert len(set(rows["file"])) == 2 and list(rows["pixels_per_mm"].round(9)) == [5, 2]
    assert {f"{name}.png" for name in rows["file"]} == {path.name for path in (tmp_path / "out" / "masks").iterdir()}


def test_a_missing_extra_is_answered_with_the_line_that_installs_it(plain, best, tmp_path, refused, monkeypatch):
    paths = {kind: clip_of(kind, tmp_path / kind, pictures(plain)[:2]) for kind in KINDS}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for kind, package in (("DICOM", "pydicom"), ("video", "av"), ("TIFF", "tifffile"), ("volume", "SimpleITK")):
        said = refused(predict.main, ["--load", best, "--input", paths[kind], "--output", tmp_path / "out"])
        assert f"{package} must be installed; run pip install -e '.[formats]'" in said
    for kind in ("NPZ", "GIF"):
        assert run(predict, best, [paths[kind]], tmp_path / kind / "out") == 0, "which need no extra"
    line = ["--load", best, "--input", plain / "images", "--output", tmp_path / "o", "--mask-format", "nifti"]
    assert "run pip install -e '.[formats]'" in refused(predict.main, line)


def test_training_reads_plain_folders_and_says_so(plain, sets, tmp_path, refused):
    clips = tmp_path / "clips"
    for kind in ("DICOM", "video", "GIF"):
        clip_of(kind, clips, pictures(plain)[:2], f"{kind} clip")
    for where in (clips, clips / "video clip.mkv", clips / "DICOM clip"):
        said = refused(train.main, ["--train", where, "--validation", sets[1]])
        assert "training reads plain images only" in said and "python -m sonogravity.convert" in said
    stack = clip_of("TIFF", sets[0] / "images", pictures(plain)[:2], "A_009")
    shutil.copy(sets[0] / "masks" / "A_000.png", sets[0] / "masks" / "A_009.png")
    said = refused(train.main, ["--train", sets[0], "--validation", sets[1]])
    assert f"{stack}: holds 2 frames; save each as a separate file, or convert it with python -m" in said


def test_an_export_is_checked_on_the_frames_of_a_clip(plain, best, tmp_path, capsys):
    copied = shutil.copy(best, tmp_path / "copy.pth")
    clip = clip_of("video", tmp_path / "clips", pictures(plain)[:3])
    assert export.main(["--load", str(copied), "--input", str(clip)]) == 0
    assert re.search(r"of the labels of 3 frames equal", capsys.readouterr().out)


@pytest.mark.parametrize("kind", ["DICOM", "video", "TIFF"])
def test_a_sweep_of_real_frames(kind, real_frames, best, tmp_path):
    paths = sorted((real_frames / "phantom" / "validation" / "images").glob("D12*"))[:4]
    frames = [np.array(Image.open(path).convert("L")) for path in paths]
    for k, frame in enumerate(frames):
        write_frame(tmp_path / "plain", f"sweep_{k:06d}", frame, frame)
    options = ["--no-masks", "--panels", "none", "--scale", "0.25"]
    assert run(predict, best, [tmp_path / "plain"], tmp_path / "a", *options, "--pixels-per-mm", PER_MM) == 0
    clip_of(kind, tmp_path / "clips", frames)
    more = [] if kind == "DICOM" else ["--pixels-per-mm", PER_MM]
    assert run(predict, best, [tmp_path / "clips"], tmp_path / "b", *options, *more) == 0
    same_masks(tmp_path / "b", tmp_path / "a")
    same_numbers(rows_of(tmp_path / "b"), rows_of(tmp_path / "a"))


def test_no_name_of_an_output_is_lost(plain, best, tmp_path, refused):
    clip_of("TIFF", tmp_path / "images", pictures(plain)[:2], "sweep")
    shutil.copy(plain / "images" / "sweep_000001.png", tmp_path / "images")
    line = ["--load", best, "--input", tmp_path / "images", "--output", tmp_path / "out"]
    assert "have the same stem, so the same output name" in refused(predict.main, line)
