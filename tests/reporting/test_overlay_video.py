"""The overlay video of a clip: each frame at its own time, with its own contours, and nothing over the tissue."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageFont
from sequence_files import region, write_dicom, write_video
from tifffile import imwrite

from sonogravity.common.messages import InputError
from sonogravity.datasets.frame_files import FrameFile, read_image
from sonogravity.datasets.frames import Frame
from sonogravity.datasets.labels import Labels
from sonogravity.datasets.pairs import Pair
from sonogravity.datasets.readers import open_sequence
from sonogravity.inference.segmentation import FileResult
from sonogravity.reporting import pictures
from sonogravity.reporting.overlay_strip import HEADING, NOT_PREDICTED, UNLIKE, Details, Strip
from sonogravity.reporting.overlay_video import RATE, TICKS, OverlayVideos, end_times, reason_for_none

LABELS = Labels.create([0, 128, 255], class_names=["bone", "ligament"])
SIZE = (48, 64)
STAMPS = [0, 40, 55, 200, 230, 231, 400]  # ms
COUNT = len(STAMPS)
BRIGHT = 8  # how much brighter each frame is than the one before


def grey(k, size=SIZE):
    return np.full(size, 40 + BRIGHT * k, np.uint8)


def prediction(k, size=SIZE):
    """A box of bone that moves with the number of the frame."""
    classes = np.zeros(size, np.uint8)
    classes[10:30, 4 + 6 * k : 20 + 6 * k] = 1
    return classes


def mkv(path, frames):
    return write_video(path / "clip.mkv", frames, stamps=STAMPS)


def mp4(path, frames):
    return write_video(path / "clip.mp4", frames, "libx264", "yuv420p", rate=30)


def webm(path, frames):
    return write_video(path / "clip.webm", frames, "libvpx", "yuv420p", stamps=STAMPS)


def gif(path, frames):
    images = [Image.fromarray(frame) for frame in frames]
    durations = [*np.diff(STAMPS).tolist(), 300]
    durations = [max(10, each // 10 * 10) for each in durations]  # GIF counts hundredths of a second
    images[0].save(path / "clip.gif", save_all=True, append_images=images[1:], duration=durations)
    return path / "clip.gif"


def cine(path, frames):
    return write_dicom(path / "clip", frames, FrameTime=33.333)


def cine_of_vector(path, frames):
    return write_dicom(path / "clip", frames, FrameTimeVector=[0, *np.diff(STAMPS).tolist()])


def tiff(path, frames):
    imwrite(path / "clip.tif", np.stack(frames), imagej=True, metadata={"axes": "TYX"})
    return path / "clip.tif"


def video_of(path, numbers=range(COUNT), predicted=prediction, row=None, unlike=None, channels=1):
    """Write the overlay video of a clip as predict does, without a network. Return its path.

    path: of the clip, or its Sequence.
    """
    sequence = open_sequence(path) if isinstance(path, Path) else path
    path = sequence.path
    pairs = [Pair(FrameFile(path, "clip", sequence, k), None) for k in numbers]
    folder = path.parent / "out"
    folder.mkdir(exist_ok=True)
    with OverlayVideos(folder, LABELS, pairs) as videos:
        for pair in pairs:
            image, classes = read_image(pair.image, channels), predicted(pair.image.number, sequence.size)
            area, own = sequence.region, None
            if area is not None:
                image, own = area.of(image), sequence.size
            frame = Frame(pair, {}, None, image.shape[:2], unlike, area, own)
            result = FileResult(frame, classes, None, None, None, None)
            videos.append(pair, videos.draw(result, row or {}, image))
    return folder / "clip_overlay.mp4"


def decoded(path):
    """(frames as RGB, times in s, duration of the stream, of the file) of a video."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        times = [frame.time for frame in frames]
        assert stream.codec_context.name == "h264" and stream.pix_fmt == "yuv420p"
        duration = float(stream.duration * stream.time_base)
        return [frame.to_ndarray(format="rgb24") for frame in frames], times, duration, container.duration / 1e6


@pytest.mark.parametrize("write", [mkv, mp4, webm, gif, cine, cine_of_vector])
def test_every_frame_has_the_time_of_its_source(write, tmp_path, capsys):
    source = write(tmp_path, [grey(k) for k in range(COUNT)])
    sequence = open_sequence(source)
    video = video_of(source)
    frames, times, of_stream, of_file = decoded(video)
    content = video.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "a browser plays it before it has all of it"
    assert len(frames) == COUNT == sequence.count
    np.testing.assert_allclose(times, sequence.times, atol=0.51 / TICKS)
    last = {gif: 0.3, cine: 0.033333, mp4: 1 / 30, cine_of_vector: np.median(np.diff(STAMPS)) / 1000}
    expected = sequence.times[-1] + last.get(write, 0.04)
    assert of_stream == pytest.approx(expected, abs=1 / TICKS) and of_file == pytest.approx(expected, abs=2e-5)
    if write in (mkv, mp4, webm):
        with av.open(str(source)) as container:
            assert of_file == pytest.approx(container.duration / 1e6, abs=1e-3), "the duration of the source itself"
    if write is not mp4 and write is not cine:
        assert len(set(np.diff(times).round(4))) > 3, "the rate varies"
    assert capsys.readouterr().out == ""


def test_a_clip_without_times_has_a_constant_rate_and_that_is_said_once(tmp_path, capsys):
    frames, times, duration, _ = decoded(video_of(tiff(tmp_path, [grey(k) for k in range(COUNT)])))
    np.testing.assert_allclose(times, np.arange(COUNT) / RATE)
    assert duration == COUNT / RATE and len(frames) == COUNT
    said = capsys.readouterr().out
    assert said == f"1 clips give no usable times (clip.tif): their overlay videos show {RATE} frames per second\n"


@pytest.mark.parametrize(("first", "last"), [(2, 4), (0, 0), (3, COUNT - 1), (COUNT - 1, COUNT - 1)])
def test_a_part_of_a_clip_lasts_as_long_as_in_the_source(first, last, tmp_path):
    source = mkv(tmp_path, [grey(k) for k in range(COUNT)])
    frames, times, duration, _ = decoded(video_of(source, range(first, last + 1)))
    np.testing.assert_allclose(times, (np.array(STAMPS[first : last + 1]) - STAMPS[first]) / 1000, atol=1e-5)
    end = [*STAMPS, STAMPS[-1] + 40][last + 1]
    assert duration == pytest.approx((end - STAMPS[first]) / 1000, abs=1e-5)
    assert abs(frames[0][2, 2, 0] - grey(first)[0, 0].astype(int)) <= 2


@pytest.mark.parametrize(
    "times", [None, [0, 1], [0, 0, 0], [0, 2, 1], [0, float("nan"), 1], [0, 1, float("inf")], [0, 1, 1e6]]
)
def test_times_that_cannot_be_those_of_a_video_are_not_used(times, tmp_path):
    sequence = open_sequence(tiff(tmp_path, [grey(k) for k in range(3)]))
    sequence.times = times
    if times == [0, 1]:
        assert end_times(sequence, [0, 1]) == [1, 2]
        return
    assert end_times(sequence, [0, 1, 2]) is None


def test_frames_of_one_time_are_one_tick_apart(tmp_path):
    source = write_dicom(tmp_path / "clip", [grey(k) for k in range(4)], FrameTimeVector=[0, 0, 0, 40])
    frames, times, *_ = decoded(video_of(source, range(4)))
    assert len(frames) == 4
    np.testing.assert_allclose(times, [0, 1 / TICKS, 2 / TICKS, 0.04], atol=1e-7)


@pytest.mark.parametrize("write", [mkv, gif, tiff])
def test_each_frame_shows_its_own_tissue_and_its_own_prediction(write, tmp_path):
    source = write(tmp_path, [grey(k) for k in range(COUNT)])
    frames, *_ = decoded(video_of(source))
    colour = pictures.class_colours(LABELS)[1].astype(int)
    for k, frame in enumerate(frames):
        near = (abs(frame[: SIZE[0], : SIZE[1]] - colour).sum(2) < 120).nonzero()
        assert (near[1].min(), near[1].max()) == (4 + 6 * k, 19 + 6 * k), "the box of this frame"
        assert (near[0].min(), near[0].max()) == (10, 29)
        assert abs(frame[40, 60].astype(int) - (40 + BRIGHT * k)).max() <= 3, "the tissue of this frame"


@pytest.mark.parametrize("size", [(48, 64), (47, 63), (300, 301), (5, 7), (1, 1)])
def test_odd_and_small_sizes(size, tmp_path):
    """The tissue stays where it is and as bright as it is; an even size repeats the edge."""
    rng = np.random.default_rng(0)
    noise = np.kron(rng.integers(0, 256, (size[0] // 4 + 1, size[1] // 4 + 1)), np.ones((4, 4)))
    tissue = noise[: size[0], : size[1]].astype(np.uint8)
    source = mkv(tmp_path, [tissue] * COUNT)
    frames, *_ = decoded(video_of(source, predicted=lambda k, size: np.zeros(size, np.uint8)))
    assert all(side % 2 == 0 for side in frames[0].shape[:2]) and len(frames) == COUNT
    shown = frames[-1][: size[0], : size[1]].astype(int)
    assert abs(shown - tissue[:, :, None]).mean() < 6
    if size[1] == 301:
        assert abs(frames[-1][: size[0], 301].astype(int) - tissue[:, -1:]).mean() < 8
    if size[0] == 47:
        assert abs(frames[-1][47, :63].astype(int) - tissue[-1, :, None]).mean() < 8


@pytest.mark.parametrize("channels", [1, 3])
def test_the_video_shows_what_the_pictures_show(channels, tmp_path):
    """Marking planes of luminance and colour is the same as drawing in RGB."""
    size = (400, 300)
    rows, columns = np.mgrid[: size[0], : size[1]]
    tissue = (rows * 0.4 + columns * 0.3).astype(np.uint8)
    coloured = np.stack([tissue, tissue // 2 + 60, 255 - tissue], 2) if channels == 3 else tissue
    classes = np.zeros(size, np.uint8)
    classes[(rows - 200) ** 2 + (columns - 120) ** 2 < 90**2] = 1
    classes[(rows - 200) ** 2 + (columns - 120) ** 2 < 40**2] = 2
    source = tiff_of(tmp_path, [coloured] * 2)
    frames, *_ = decoded(video_of(source, range(2), lambda k, size: classes, channels=channels))
    expected = pictures.contour_overlay(pictures.grey_to_rgb(coloured), classes, LABELS).astype(int)
    distance = abs(frames[0][:400] - expected).mean(2)
    assert distance.mean() < 3 and np.percentile(distance, 99) < 40
    plain = abs(pictures.grey_to_rgb(coloured) - expected).mean(2)
    marked = plain > 0
    assert distance[marked].mean() < 0.4 * plain[marked].mean()


def tiff_of(path, frames):
    imwrite(path / "clip.tif", np.stack(frames), photometric="rgb" if frames[0].ndim == 3 else "minisblack")
    return path / "clip.tif"


def test_with_a_region_the_video_shows_the_region_alone(tmp_path):
    frames = [grey(k) for k in range(3)]
    for frame in frames:
        frame[:8] = 250  # text
    item = region(left=4, top=8, right=59, bottom=47)
    source = write_dicom(tmp_path / "clip", frames, SequenceOfUltrasoundRegions=[item], FrameTime=40)
    sequence = open_sequence(source)
    [sequence.region] = sequence.regions
    shown, *_ = decoded(video_of(sequence, range(3)))
    assert abs(shown[1][0, 40:56].astype(int) - 48).max() <= 4, "no text"
    colour = pictures.class_colours(LABELS)[1].astype(int)
    near = (abs(shown[1][:40, :56] - colour).sum(2) < 120).nonzero()
    assert (near[0].min(), near[1].min()) == (10 - 8, 10 - 4)


def test_16_bit_frames_do_not_flicker(tmp_path):
    frames = [np.full(SIZE, 600, np.uint16) for _ in range(4)]
    frames[1][-4:, -4:] = 4095  # a reflection, which must not darken the rest of its frame
    shown, *_ = decoded(video_of(tiff_of(tmp_path, frames), range(4)))
    levels = [int(frame[2, 2, 0]) for frame in shown]
    assert max(levels) - min(levels) <= 2 and abs(levels[0] - 255 * 600 / 1023) <= 3


def test_a_16_bit_clip_that_begins_black_is_not_white(tmp_path):
    frames = [np.full(SIZE, level, np.uint16) for level in (0, 500, 1000)]
    shown, *_ = decoded(video_of(tiff_of(tmp_path, frames), range(3)))
    levels = [int(frame[2, 2, 0]) for frame in shown]
    assert levels[0] <= 3 and all(abs(level - 255 * 500 * k / 1023) <= 3 for k, level in enumerate(levels))


def strip_of(size=(800, 740), labels=LABELS, name="sweep_000012", time="12.345 s"):
    return Strip(labels, size, Details({}, name, time, True))


def test_the_strip_tells_confidence_name_time_and_warning_each_at_its_place():
    strip = strip_of()
    known = Details({1: 0.91, 2: 0.82}, "sweep_000003", "0.120 s", False)
    base, *_ = strip.draw(known)
    changed = {
        "bone": Details({1: 0.55, 2: 0.82}, "sweep_000003", "0.120 s", False),
        "ligament": Details({1: 0.91, 2: float("nan")}, "sweep_000003", "0.120 s", False),
        "name": Details({1: 0.91, 2: 0.82}, "sweep_000008", "0.120 s", False),
        "time": Details({1: 0.91, 2: 0.82}, "sweep_000003", "9.876 s", False),
        "unlike": Details({1: 0.91, 2: 0.82}, "sweep_000003", "0.120 s", True),
    }
    places = {}
    for what, details in changed.items():
        luma, *_ = strip.draw(details)
        rows, columns = (luma != base).nonzero()
        assert len(rows), what
        places[what] = rows.min(), rows.max(), columns.min(), columns.max()
    assert places["bone"][3] < places["ligament"][2] and places["name"][3] < places["time"][2] < places["unlike"][2]
    assert places["ligament"][1] < places["name"][0], "two rows"
    assert places["time"][3] < places["unlike"][2] < places["unlike"][3] < 740


def test_the_font_has_all_characters_of_the_strip():
    font = ImageFont.load_default(20)
    missing = bytes(font.getmask("\U0010ffff"))
    for character in set(f"{HEADING}{UNLIKE}{NOT_PREDICTED}0123456789._") - {" "}:
        assert bytes(font.getmask(character)) != missing, character
    assert bytes(font.getmask("–")) == missing, "this would have been found"


@pytest.mark.parametrize("size", [(48, 64), (1, 1), (800, 740), (40, 2000), (2000, 100)])
def test_the_strip_of_many_classes_and_long_names_stays_within_the_frame(size):
    labels = Labels.create(range(20), class_names=[f"class of the number {k} {'x' * 10 * k}" for k in range(1, 20)])
    strip = strip_of(size, labels, "y" * 200, "3599.999 s")
    luma, blue, red = strip.draw(Details(dict.fromkeys(range(1, 20), 0.5), "y" * 200, "3599.999 s", True))
    assert luma.shape == (strip.height, strip.width) and strip.width >= size[1]
    assert strip.width % 2 == strip.height % 2 == 0 and blue.shape == red.shape == (
        luma.shape[0] // 2,
        luma.shape[1] // 2,
    )
    ground = luma[0, 0]
    assert (luma[:, -2:] == ground).all() and (luma[-1] == ground).all(), "no text is cut off"


def test_what_is_said_of_a_frame_is_what_its_row_says(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        Strip, "draw", lambda self, details, real=Strip.draw: told.append(details) or real(self, details)
    )
    row = {"expected_dice_bone": 0.75, "expected_dice_ligament": float("nan"), "expected_dice": 0.1}
    source = mkv(tmp_path, [grey(k) for k in range(COUNT)])
    video_of(source, range(1, 4), row=row, unlike=1.01)
    assert [each.name for each in told] == [f"clip_{k:06d}" for k in (1, 2, 3)]
    assert [each.time for each in told] == ["0.040 s", "0.055 s", "0.200 s"], "of the source, not of the part"
    assert all(each.confidences[1] == 0.75 and np.isnan(each.confidences[2]) and each.unlike for each in told)
    video_of(source, range(1), row=row, unlike=1.0)
    assert not told[-1].unlike


def test_an_incomplete_video_does_not_appear(tmp_path):
    def fails(k, size):
        if k == 3:
            raise InputError("frame 3 is damaged")
        return prediction(k, size)

    source = mkv(tmp_path, [grey(k) for k in range(COUNT)])
    with pytest.raises(InputError):
        video_of(source, predicted=fails)
    assert not list((tmp_path / "out").iterdir())


def test_two_clips_of_one_name_are_refused(tmp_path):
    pairs = []
    for folder in ("a", "b"):
        source = mkv(tmp_path / folder, [grey(k) for k in range(COUNT)])
        pairs += [Pair(FrameFile(source, "", open_sequence(source), 0), None)]
    with pytest.raises(InputError, match="have the same stem, so the same output name"):
        OverlayVideos(tmp_path, LABELS, pairs)


def test_a_pyav_without_the_encoder_is_answered_with_a_remedy(monkeypatch):
    assert reason_for_none() is None
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    assert "has no encoder libx264" in reason_for_none()
