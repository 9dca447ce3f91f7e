"""predict.py and the overlay videos of clips: when they are written, where, and in whose place."""

import importlib.util
import json

import av
import numpy as np
import pandas as pd
import pytest
from conftest import simple_frame
from PIL import Image
from pydicom.fileset import FileSet
from sequence_files import write_dicom, write_video
from tifffile import imwrite

from sonogravity.reporting import overlay_video
from unet import evaluate, predict, predict_w_margin

STAMPS = [0, 40, 55, 200, 230, 300]  # ms
FRAMES = [simple_frame(k)[0] for k in range(len(STAMPS))]


@pytest.fixture(scope="module")
def best(trained):
    return trained / "checkpoints" / "unet" / "run" / "best.pth"


def run(script, best, inputs, output, *options):
    line = ["--load", best, "--input", *inputs, "--output", output, "--device", "cpu", *options]
    return script.main([str(argument) for argument in line])


def times_of(path):
    """(times in s, duration in s) of a video, and every frame is decoded."""
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)], container.duration / 1e6


def videos_of(output):
    return sorted(path.relative_to(output).as_posix() for path in output.rglob("*.mp4"))


def test_one_video_per_clip_and_none_of_single_images(best, tmp_path):
    clips = tmp_path / "clips"
    write_video(clips / "sweep.mkv", FRAMES, stamps=STAMPS)
    write_dicom(clips / "still", FRAMES[:1])
    write_dicom(clips / "cine", FRAMES[:3], FrameTime=40)
    write_video(clips / "short.mkv", FRAMES[:1])
    Image.fromarray(FRAMES[0]).save(clips / "plain.png")
    output = tmp_path / "out"
    assert run(predict, best, [clips], output) == 0
    assert videos_of(output) == ["cine_overlay.mp4", "sweep_overlay.mp4"]
    times, duration = times_of(output / "sweep_overlay.mp4")
    np.testing.assert_allclose(times, np.array(STAMPS) / 1000, atol=1e-5)
    assert duration == pytest.approx(0.34, abs=2e-5)
    rows = pd.read_csv(output / "files.csv")
    assert list(rows["time_s"].dropna().round(4)) == [0, 0.04, 0.08, 0, *(np.array(STAMPS) / 1000)]
    assert sorted(path.name for path in (output / "panels").iterdir()) == ["plain.png", "still.png"]
    assert run(predict, best, [clips], output, "--no-video") == 0, "which replaces the results, and leaves no old video"
    assert not videos_of(output)
    assert json.loads((output / "settings.json").read_text())["options"]["video"] is False


def test_the_margin_script_writes_them_too_and_a_part_lasts_as_in_the_source(best, tmp_path):
    write_video(tmp_path / "clips" / "sweep.mkv", FRAMES, stamps=STAMPS)
    options = ["--from", "1", "--to", "0.2s", "--pixels-per-mm", 8, "--panels", "png", "--workers", 0]
    assert run(predict_w_margin, best, [tmp_path / "clips"], tmp_path / "out", *options) == 0
    times, duration = times_of(tmp_path / "out" / "sweep_overlay.mp4")
    np.testing.assert_allclose(times, [0, 0.015, 0.16], atol=1e-5)
    assert duration == pytest.approx(0.19, abs=2e-5), "until the next frame of the source"
    assert len(list((tmp_path / "out" / "panels").iterdir())) == 3, "panels and video use the same images"


def test_evaluate_writes_no_video(best, trained, tmp_path, refused):
    images = [np.array(Image.open(path)) for path in sorted((trained / "validation" / "images").iterdir())]
    masks = [np.array(Image.open(path)) for path in sorted((trained / "validation" / "masks").iterdir())]
    write_video(tmp_path / "images" / "sweep.mkv", images)
    (tmp_path / "masks").mkdir()
    imwrite(tmp_path / "masks" / "sweep.tif", np.stack(masks))
    assert run(evaluate, best, [tmp_path], tmp_path / "out") == 0
    assert not videos_of(tmp_path / "out")
    assert "unrecognized arguments: --no-video" in refused(evaluate.main, ["--load", best, "--no-video"])


def test_earlier_videos_are_replaced_and_those_of_others_refused(best, tmp_path, refused):
    clips, output = tmp_path / "clips", tmp_path / "out"
    write_video(clips / "v1.2 sweep.mkv", FRAMES, stamps=STAMPS)
    for count in (6, 4):
        assert run(predict, best, [clips], output, "--to", count - 1) == 0
        assert len(times_of(output / "v1.2 sweep_overlay.mp4")[0]) == count
    own = (output / "v1.2 sweep_overlay.mp4").read_bytes()
    for name in ("mine_overlay.mp4", "v1.2 sweep.mp4"):
        (output / name).write_bytes(b"of the user")
        line = ["--load", best, "--input", clips, "--output", output]
        assert f"holds files that no earlier run wrote ({name})" in refused(predict.main, line)
        assert (output / name).read_bytes() == b"of the user"
        (output / name).unlink()
    assert (output / "v1.2 sweep_overlay.mp4").read_bytes() == own


def test_cines_of_a_medium_are_predicted_again(best, tmp_path):
    """Their outputs are named by the file ID, not by the name of the file."""
    medium = FileSet()
    elements = {"PatientID": "P1", "PatientName": "A^B", "StudyInstanceUID": "1.2.1", "StudyID": "1"}
    elements |= {"SeriesInstanceUID": "1.2.1.1", "SeriesNumber": 1, "InstanceNumber": 1}
    elements |= {"StudyDate": "20200101", "StudyTime": "120000", "AccessionNumber": "", "FrameTime": 40}
    medium.add(write_dicom(tmp_path / "cine", FRAMES, **elements))
    medium.write(tmp_path / "medium")
    for kind in ("png", "tiff", "png"):
        line = ["--mask-format", kind]
        assert run(predict, best, [tmp_path / "medium" / "DICOMDIR"], tmp_path / "out", *line) == 0
        [name] = videos_of(tmp_path / "out")
        assert name.endswith("_overlay.mp4") and name.startswith("PT")


def test_an_interrupted_run_leaves_complete_videos_in_partial_and_the_next_run_replaces_them(best, tmp_path, refused):
    clips, output = tmp_path / "clips", tmp_path / "out"
    write_video(clips / "a.mkv", FRAMES, stamps=STAMPS)
    content = np.stack(FRAMES).astype(np.float32) / 255
    content[3, 0, 0] = np.nan
    np.savez(clips / "b.npz", content)
    line = ["--load", best, "--input", clips, "--output", output]
    assert "frame 3: float pixels are not a number" in refused(predict.main, line)
    assert videos_of(output) == ["partial/a_overlay.mp4"] and len(times_of(output / "partial/a_overlay.mp4")[0]) == 6
    np.savez(clips / "b.npz", content[:3])
    assert run(predict, best, [clips], output) == 0
    assert videos_of(output) == ["a_overlay.mp4", "b_overlay.mp4"]
    assert not list(output.rglob(".*"))


@pytest.mark.parametrize(
    ("lacking", "remedy"),
    [("av", "run pip install -e '.[formats]'"), ("libx264", "run pip install --force-reinstall av")],
)
def test_without_an_encoder_all_else_is_written_and_that_is_said(lacking, remedy, best, tmp_path, capsys, monkeypatch):
    imwrite(tmp_path / "sweep.tif", np.stack(FRAMES), metadata={"axes": "TYX"})
    if lacking == "av":
        real = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "av" else real(name))
    else:
        monkeypatch.setattr(av, "codecs_available", av.codecs_available - {lacking})
    assert run(predict, best, [tmp_path / "sweep.tif"], tmp_path / "out") == 0
    [line] = [each for each in capsys.readouterr().err.splitlines() if "overlay video" in each]
    assert line.startswith("warning: no overlay video is written: ") and remedy in line
    assert not videos_of(tmp_path / "out") and len(list((tmp_path / "out" / "masks").iterdir())) == len(FRAMES)
    assert run(predict, best, [tmp_path / "sweep.tif"], tmp_path / "out", "--no-video") == 0
    assert "overlay video" not in capsys.readouterr().err


def test_a_clip_without_times_is_said_once(best, tmp_path, capsys):
    (tmp_path / "clips").mkdir()
    for name in ("a", "b"):
        imwrite(tmp_path / "clips" / f"{name}.tif", np.stack(FRAMES), metadata={"axes": "TYX"})
    assert run(predict, best, [tmp_path / "clips"], tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert (
        said.count("2 clips give no usable times (a.tif, b.tif): their overlay videos show 10 frames per second") == 1
    )
    assert times_of(tmp_path / "out" / "a_overlay.mp4")[1] == pytest.approx(0.6)


def test_frames_that_no_player_shows_get_no_video_and_that_is_said(best, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(overlay_video, "LARGEST_SIDE", 39)
    write_video(tmp_path / "clips" / "large.mkv", FRAMES, stamps=STAMPS)
    write_video(tmp_path / "clips" / "small.mkv", [frame[:30, :30] for frame in FRAMES], stamps=STAMPS)
    assert run(predict, best, [tmp_path / "clips"], tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert "no overlay video is written of 1 clips (large.mkv): their frames are more than 39 pixels wide" in said
    assert videos_of(tmp_path / "out") == ["small_overlay.mp4"]
