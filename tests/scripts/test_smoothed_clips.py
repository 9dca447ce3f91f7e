"""--smooth and flicker: predict and evaluate give the same numbers, and every file and the terminal name them."""

import json
import shutil
from itertools import pairwise

import numpy as np
import openpyxl
import pandas as pd
import pytest
from conftest import simple_frame, write_frame
from PIL import Image
from sequence_files import region, write_dicom, write_video

from sonogravity.commands import compare, score
from sonogravity.datasets.mask_files import read_mask
from sonogravity.reporting import pictures
from unet import evaluate, evaluate_w_margin, predict, predict_w_margin

RATE = 25  # frames per second of the clips
FRAMES = 8


@pytest.fixture(scope="module")
def best(trained):
    return trained / "checkpoints" / "unet" / "run" / "best.pth"


@pytest.fixture(scope="module")
def frames():
    """Images and masks of a clip: a scene that jumps twice, with noise that differs in every frame."""
    found = []
    for k in range(FRAMES):
        image, mask = simple_frame([3, 0, k // 3])
        noise = np.random.default_rng(k).normal(0, 25, image.shape)
        found.append((np.clip(image + noise, 0, 255).astype(np.uint8), mask))
    return [list(each) for each in zip(*found, strict=True)]


@pytest.fixture(scope="module")
def labelled(frames, tmp_path_factory):
    """A folder with a clip in images/ and a mask per frame in masks/."""
    return write_set(tmp_path_factory.mktemp("labelled"), *frames)


def write_set(root, images, masks, stem="sweep", labelled=range(FRAMES)):
    write_video(root / "images" / f"{stem}.mkv", images, rate=RATE)
    (root / "masks").mkdir(exist_ok=True)
    for k in labelled:
        Image.fromarray(masks[k]).save(root / "masks" / f"{stem}_{k:06d}.png")
    return root


def run(script, best, inputs, output, *options):
    line = ["--load", best, "--input", *inputs, "--output", output, "--device", "cpu", *options]
    assert script.main([str(argument) for argument in line]) == 0
    return output


def rows_of(output):
    return pd.read_csv(output / "files.csv", dtype={"missed": str, "spurious": str})


def summary_of(output):
    return json.loads((output / "summary.json").read_text())


def maps_of(folder):
    return [read_mask(path).values for path in sorted(folder.iterdir())]


def share(maps):
    return np.mean([np.mean(one != other) for one, other in pairwise(maps)])


@pytest.fixture(scope="module")
def plain(best, labelled, tmp_path_factory):
    """The predictions of the clip without --smooth."""
    return run(predict, best, [labelled], tmp_path_factory.mktemp("plain") / "out")


@pytest.fixture(scope="module")
def smoothed(best, labelled, tmp_path_factory):
    """The predictions of the clip with --smooth 0.1."""
    return run(predict, best, [labelled], tmp_path_factory.mktemp("smoothed") / "out", "--smooth", 0.1)


def test_flicker_is_that_of_the_masks_that_are_written(plain, smoothed, frames):
    before, after = share(maps_of(plain / "masks")), share(maps_of(smoothed / "masks"))
    assert 0 < after < before
    truth = pytest.approx(share(frames[1]))
    assert summary_of(plain)["clips"] == {
        "sweep": {"frames": 8, "flicker": pytest.approx(before), "flicker_n": 7, "true_flicker": truth}
    }
    assert summary_of(smoothed)["clips"] == {
        "sweep": {
            "frames": 8,
            "flicker": pytest.approx(after),
            "flicker_n": 7,
            "flicker_without_smoothing": pytest.approx(before),
            "true_flicker": truth,
        }
    }
    assert list(rows_of(plain).columns) == list(rows_of(smoothed).columns)


@pytest.mark.parametrize("options", [["--batch-size", 1], ["--batch-size", 3, "--workers", 0]], ids=["1", "3"])
def test_batches_and_threads_change_no_smoothed_label(options, best, labelled, smoothed, tmp_path):
    run(predict, best, [labelled], tmp_path / "out", "--smooth", 0.1, *options)
    np.testing.assert_array_equal(maps_of(tmp_path / "out" / "masks"), maps_of(smoothed / "masks"))
    assert list(rows_of(tmp_path / "out")["dice"]) == list(rows_of(smoothed)["dice"])


def test_the_mean_of_several_views_is_smoothed(best, labelled, smoothed, tmp_path):
    plain, both = (
        summary_of(run(evaluate, best, [labelled], tmp_path / name, "--tta", "flip", *options))["clips"]["sweep"]
        for name, options in (("plain", []), ("both", ["--smooth", 0.1]))
    )
    assert both["flicker"] < both["flicker_without_smoothing"] == plain["flicker"]
    assert both["flicker"] != summary_of(smoothed)["clips"]["sweep"]["flicker"]


def test_evaluate_gives_the_scores_of_predict_also_if_some_frames_have_no_mask(
    best, frames, smoothed, plain, tmp_path, capsys, monkeypatch
):
    """The label of a frame depends on the frames before it, with or without a mask."""
    some = write_set(tmp_path / "some", *frames, labelled=(2, 5, 6))
    image = simple_frame([3, 1, 0])
    write_frame(some, "other", *image)
    found = rows_of(run(evaluate, best, [some], tmp_path / "e", "--smooth", 0.1))
    said = capsys.readouterr()
    assert "3 of 8 frames have a mask, and only these are scored" in said.err
    predicted = rows_of(run(predict, best, [some], tmp_path / "p", "--smooth", 0.1)).dropna(subset="dice")
    assert list(found["file"]) == list(predicted["file"]) and len(found) == 4
    for column in ("dice", "hd95_px", "expected_dice", "entropy", "unlike_training"):
        np.testing.assert_allclose(found[column], predicted[column], rtol=0, atol=1e-6)
    clip = found[found["file"] != "other.png"]
    np.testing.assert_allclose(clip["dice"], rows_of(smoothed)["dice"][[2, 5, 6]], rtol=0, atol=1e-6)
    assert not np.allclose(clip["dice"], rows_of(plain)["dice"][[2, 5, 6]], atol=1e-3)
    one, other = (summary_of(tmp_path / name)["metrics"]["dice"]["mean"] for name in "ep")
    assert one == pytest.approx(other, abs=1e-6) and summary_of(tmp_path / "e")["files"] == 4
    clips = summary_of(tmp_path / "e")["clips"]
    assert (clips["sweep"]["frames"], clips["sweep"]["flicker_n"]) == (3, 1), "the scored frames"
    monkeypatch.setattr(score, "with_unlabelled", lambda pairs, part: pairs)
    blind = rows_of(run(evaluate, best, [some], tmp_path / "b", "--smooth", 0.1))
    assert not np.allclose(blind["dice"], predicted["dice"], atol=1e-3), "the test tells whether they are seen"


def test_from_is_the_first_frame_of_the_average_in_both_scripts(best, frames, tmp_path):
    some = write_set(tmp_path / "some", *frames, labelled=(5, 6))
    options = ["--smooth", 1, "--from", 4]
    found = rows_of(run(evaluate, best, [some], tmp_path / "e", *options))
    predicted = rows_of(run(predict, best, [some], tmp_path / "p", *options)).dropna(subset="dice")
    np.testing.assert_allclose(found["dice"], predicted["dice"], rtol=0, atol=1e-6)


def test_a_clip_and_an_image_beside_it_keep_their_labels(best, labelled, frames, smoothed, tmp_path):
    """The state of one clip is none of the next one's, and an image is not smoothed."""
    write_video(tmp_path / "in" / "images" / "after.mkv", frames[0], rate=RATE)
    write_frame(tmp_path / "in", "before", frames[0][0], frames[1][0])
    shutil.copy(labelled / "images" / "sweep.mkv", tmp_path / "in" / "images")
    run(predict, best, [tmp_path / "in"], tmp_path / "out", "--smooth", 0.1)
    alone = maps_of(smoothed / "masks")
    found = maps_of(tmp_path / "out" / "masks")
    np.testing.assert_array_equal(found[:8], alone)  # after_...
    np.testing.assert_array_equal(found[9:], alone)  # sweep_...
    np.testing.assert_array_equal(found[8], alone[0])  # before, the first frame of the clip
    assert list(summary_of(tmp_path / "out")["clips"]) == ["after", "sweep"]


def test_the_flicker_of_a_region_is_the_share_of_its_pixels(best, frames, tmp_path):
    height, width = frames[0][0].shape
    wide = [np.concatenate([image, np.full_like(image, 7)], axis=1) for image in frames[0]]
    items = [region(right=width - 1, bottom=height - 1)]
    write_dicom(tmp_path / "clips" / "cine", wide, SequenceOfUltrasoundRegions=items, FrameTime=40)
    output = run(predict, best, [tmp_path / "clips"], tmp_path / "out", "--region", "--smooth", 0.1)
    maps = maps_of(output / "masks")
    assert maps[0].shape == (height, 2 * width)
    entry = summary_of(output)["clips"]["cine"]
    assert entry["flicker"] == pytest.approx(2 * share(maps)) and entry["flicker"] > 0
    assert entry["flicker"] < entry["flicker_without_smoothing"] and "true_flicker" not in entry


def test_smoothing_is_said_wherever_frames_are_scored(best, labelled, tmp_path, capsys, monkeypatch):
    options = ["--smooth", 0.1, "--pixels-per-mm", 8, "--subject-regex", "(s)weep"]
    captions, write_panel = [], pictures.write_panel

    def captioned(path, kind, image, maps, labels, caption):
        captions.append(caption)
        write_panel(path, kind, image, maps, labels, caption)

    monkeypatch.setattr(pictures, "write_panel", captioned)
    output = run(predict_w_margin, best, [labelled], tmp_path / "out", *options, "--panels", "png")
    assert len(captions) == 8 and all("smoothed over time  Dice 0." in caption for caption in captions)
    said = capsys.readouterr().out
    assert "smoothing:  logits of the frames of clips, time constant 0.1 s (causal)\n" in said
    lines = said.split("\n")
    for start in ("Dice 0.", "tolerant Dice 0."):
        [line] = [line for line in lines if line.startswith(start)]
        assert ", smoothed over 0.1 s" in line
    entry = summary_of(output)["clips"]["sweep"]
    assert (
        f"flicker of sweep: {entry['flicker']:.5f} (without smoothing {entry['flicker_without_smoothing']:.5f}, of the "
        f"truth {entry['true_flicker']:.5f}); 7 pairs of frames\n"
    ) in said
    assert summary_of(output)["smooth_seconds"] == 0.1
    assert json.loads((output / "settings.json").read_text())["used"]["smooth_seconds"] == 0.1
    book = openpyxl.load_workbook(output / "files.xlsx")
    names = book.sheetnames
    assert names.index("Summary") < names.index("Clips") < names.index("Settings")
    header, values = book["Clips"].iter_rows(values_only=True)
    cells = dict(zip(header, values, strict=True))
    assert cells.pop("clip") == "sweep" and cells == pytest.approx(entry)
    assert book["Clips"]["C2"].number_format == "0.00000"
    defined = {row[0]: row for row in book["Definitions"].iter_rows(values_only=True)}
    assert set(header) <= set(defined) and "in the truth" in defined["true_flicker"][1]
    assert len([1 for row in book["Definitions"].iter_rows(values_only=True) if row[0] in header]) == len(header)
    assert any("s_(k-1)" in str(row[1]) for row in book["Definitions"].iter_rows(values_only=True))
    texts = [str(row[0]) for row in book["Summary"].iter_rows(values_only=True)]
    assert "Frames of clips: logits smoothed over 0.1 s (--smooth)." in texts
    assert ("used smooth_seconds", 0.1) in [row[:2] for row in book["Settings"].iter_rows(values_only=True)]


def test_without_smoothing_nothing_is_said_of_it(best, labelled, plain, tmp_path, capsys):
    output = run(evaluate, best, [labelled], tmp_path / "out")
    said = "".join(capsys.readouterr())
    entry = summary_of(output)["clips"]["sweep"]
    assert entry == summary_of(plain)["clips"]["sweep"]
    line = f"flicker of sweep: {entry['flicker']:.5f} (of the truth {entry['true_flicker']:.5f}); 7 pairs of frames\n"
    assert line in said and "smooth" not in said.replace(str(tmp_path), "")
    assert "smooth_seconds" not in summary_of(output)
    assert "smooth_seconds" not in json.loads((output / "settings.json").read_text())["used"]
    book = openpyxl.load_workbook(output / "files.xlsx")
    for name in ("Summary", "Clips", "Definitions"):
        assert "smooth" not in str(list(book[name].iter_rows(values_only=True))), name


def test_evaluate_with_smoothing_also_calibrates_the_smoothed_probabilities(best, labelled, smoothed, plain, tmp_path):
    with_it = run(evaluate_w_margin, best, [labelled], tmp_path / "s", "--smooth", 0.1, "--pixels-per-mm", 8)
    without = run(evaluate, best, [labelled], tmp_path / "o")
    np.testing.assert_allclose(rows_of(with_it)["dice"], rows_of(smoothed)["dice"], rtol=0, atol=1e-6)
    bins = [summary_of(output)["calibration"]["128"]["bins"] for output in (with_it, without)]
    assert [row["pixels"] for row in bins[0]] != [row["pixels"] for row in bins[1]]
    entropies = [rows_of(output)["entropy"] for output in (smoothed, plain)]
    assert entropies[0][0] == entropies[1][0] and (entropies[0][1:] != entropies[1][1:]).all()


def test_masks_of_any_origin_have_their_flicker(labelled, smoothed, tmp_path, refused):
    line = ["--predictions", smoothed / "masks", "--input", labelled, "--output", tmp_path / "out"]
    assert evaluate.main([str(each) for each in line]) == 0
    entry = summary_of(smoothed)["clips"]["sweep"]
    entry.pop("flicker_without_smoothing")
    assert summary_of(tmp_path / "out")["clips"] == {"sweep": entry}
    assert "--smooth and --region apply to a model" in refused(evaluate.main, [*line, "--smooth", "0.1"])


def test_inputs_that_cannot_be_smoothed_are_refused(best, frames, tmp_path, refused, capsys):
    for k in range(2):
        write_frame(tmp_path / "images", f"a_{k}", frames[0][k], frames[1][k])
    np.savez(tmp_path / "stack.npz", np.stack(frames[0]))
    line = ["--load", best, "--output", tmp_path / "out", "--smooth", "0.1", "--input"]
    for script in (predict, evaluate):
        said = refused(script.main, [*line, tmp_path / "images"])
        assert "no input has several frames of one clip; leave --smooth out" in said
    said = refused(predict.main, [*line, tmp_path / "stack.npz"])
    assert f"{tmp_path / 'stack.npz'}: has no times, so --smooth cannot be used; leave --smooth out" in said
    still = write_dicom(tmp_path / "still", frames[0], FrameTimeVector=[0] * FRAMES)
    assert "still: the times of its frames do not increase" in refused(predict.main, [*line, still])
    vector = [0, 40, 0, *[40] * (FRAMES - 3)]
    twice = write_dicom(tmp_path / "twice", frames[0], FrameTimeVector=vector)
    assert predict.main([str(each) for each in [*line, twice]]) == 0
    assert "twice: 1 of 8 frames have no later time than the frame before" in capsys.readouterr().err


def test_compare_points_out_another_smoothing(smoothed, plain, tmp_path, capsys):
    for name, folder in (("x", plain), ("y", smoothed)):
        shutil.copytree(folder, tmp_path / name / "predict")
    line = [tmp_path / "x", tmp_path / "y", "--output", tmp_path / "c.xlsx"]
    assert compare.main([str(each) for each in line]) == 0
    said = capsys.readouterr()
    remark = "the runs differ in smoothing over time (--smooth): x none, y 0.1 s"
    assert remark in said.err and "difference" in said.out
    notes = [str(row[0]) for row in openpyxl.load_workbook(tmp_path / "c.xlsx")["Summary"].iter_rows(values_only=True)]
    assert any(note.startswith(remark) for note in notes)
    assert compare.main([str(tmp_path / "x"), str(tmp_path / "x" / "predict"), *map(str, line[2:])]) == 0
    assert "smoothing" not in capsys.readouterr().err
