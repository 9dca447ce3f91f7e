"""Files play in their own time, each frame is stamped when it is due, and a damaged one does not end the source."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from live_parts import FakeClock
from PIL import Image
from sequence_files import ENCODERS, grey_frames, region, write_dicom, write_video, write_volume

from sonogravity.common.messages import InputError
from sonogravity.datasets.inputs import Part, find_input_pairs
from sonogravity.datasets.spacing import ASSUMED
from sonogravity.live.sources import Crop, FileSource, Playback

STOP = threading.Event()  # never set here


def source_of(*paths, part=None, **playback):
    pairs, _ = find_input_pairs(list(paths), use_masks=False, partial=True, part=part or Part())
    images = [pair.image for pair in pairs]
    return FileSource(images, {image.name: ASSUMED for image in images}, 1, "source", Playback(**playback), FakeClock())


def played(source, count=100):
    found = []
    while len(found) < count and (frame := source.read(STOP)) is not None:
        found.append(frame)
    return found


def stamps(frames):
    return pytest.approx([frame.captured_s - frames[0].captured_s for frame in frames])


def write_stills(folder, frames):
    folder.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"still_{number}.png")
    return folder


def test_a_clip_of_variable_rate_plays_in_its_own_time(tmp_path):
    frames = grey_frames(4)
    clip = write_video(tmp_path / "clip.mkv", frames, stamps=[0, 40, 140, 150])
    found = played(source_of(clip))
    assert stamps(found) == [0, 0.04, 0.14, 0.15]
    assert [frame.time_s for frame in found] == pytest.approx([0, 0.04, 0.14, 0.15])
    assert [frame.id for frame in found] == [1, 2, 3, 4]
    assert all(np.array_equal(frame.image, image) for frame, image in zip(found, frames, strict=True))


def test_speed_shortens_the_time_between_frames_and_not_their_own_times(tmp_path):
    clip = write_video(tmp_path / "clip.mkv", grey_frames(4), rate=25)
    found = played(source_of(clip, speed=2))
    assert stamps(found) == [0, 0.02, 0.04, 0.06]
    assert found[-1].time_s == pytest.approx(0.12)


def test_a_loop_begins_again_after_the_last_frame_has_lasted_and_is_another_clip(tmp_path):
    clip = write_video(tmp_path / "clip.mkv", grey_frames(3), rate=25)
    found = played(source_of(clip, loop=True), 7)
    assert stamps(found) == [0, 0.04, 0.08, 0.12, 0.16, 0.2, 0.24]
    assert [frame.clip[1] for frame in found] == [0, 0, 0, 1, 1, 1, 2]
    assert [frame.file.number for frame in found] == [0, 1, 2, 0, 1, 2, 0]
    assert [frame.id for frame in found] == list(range(1, 8))


def test_without_a_loop_the_source_ends_and_stays_at_its_end(tmp_path):
    source = source_of(write_video(tmp_path / "clip.mkv", grey_frames(2)))
    assert len(played(source)) == 2
    assert source.read(STOP) is None and source.read(STOP) is None


def test_images_and_clips_without_times_play_at_ten_frames_per_second(tmp_path):
    stills = source_of(write_stills(tmp_path / "stills", grey_frames(3)))
    assert stamps(found := played(stills)) == [0, 0.1, 0.2]
    assert [frame.time_s for frame in found] == [None] * 3 and not stills.has_times
    volume = source_of(write_volume(tmp_path / "volume.mha", grey_frames(3)))
    assert stamps(played(volume)) == [0, 0.1, 0.2]


def test_clips_follow_one_another(tmp_path):
    write_video(tmp_path / "clips" / "a.mkv", grey_frames(2), rate=20)
    write_video(tmp_path / "clips" / "b.mkv", grey_frames(2, size=(24, 32)), rate=10)
    source = source_of(tmp_path / "clips")
    found = played(source)
    assert stamps(found) == [0, 0.05, 0.1, 0.2]
    assert [(frame.shown.width, frame.shown.height) for frame in found] == [(64, 48)] * 2 + [(32, 24)] * 2
    assert len({frame.clip for frame in found}) == 2 and source.has_times


def test_a_damaged_frame_is_said_and_the_next_ones_come_in_their_time(tmp_path):
    frames = grey_frames(3)
    folder = write_stills(tmp_path / "stills", frames)
    source = source_of(folder)
    (folder / "still_1.png").write_bytes(b"damaged")
    first = source.read(STOP)
    with pytest.raises(InputError, match="still_1"):
        source.read(STOP)
    last = source.read(STOP)
    assert last.captured_s - first.captured_s == pytest.approx(0.2)
    assert [first.id, last.id] == [1, 2] and np.array_equal(last.image, frames[2])


def test_a_damaged_frame_in_the_middle_of_a_cine_does_not_end_it(tmp_path):
    frames = grey_frames(5)
    syntax, encode, _ = ENCODERS["JPEG lossless SV1"]
    coded = [encode(frame) for frame in frames]
    coded[2] = coded[2][:8] + bytes(len(coded[2]) - 8)
    parts = iter(coded)
    cine = write_dicom(tmp_path / "cine.dcm", frames, syntax, lambda _: next(parts), FrameTime=40)
    source, found = source_of(cine), []
    for _ in range(len(source.images)):
        try:
            found.append(source.read(STOP))
        except InputError as error:
            assert "frame 2" in str(error)
            found.append(None)
    assert [frame and frame.file.number for frame in found] == [0, 1, None, 3, 4]
    assert found[4].captured_s - found[0].captured_s == pytest.approx(0.16)
    assert np.array_equal(found[4].image, frames[4])


def test_a_source_that_is_decoded_too_slowly_plays_more_slowly_and_says_so(tmp_path, capsys, monkeypatch):
    source = source_of(write_video(tmp_path / "clip.mkv", grey_frames(20), rate=25))
    read = source._image

    def slow(file):
        source.clock.time_s += 0.2
        return read(file)

    monkeypatch.setattr(source, "_image", slow)
    found = played(source)
    assert len(found) == 20 and found[-1].captured_s - found[0].captured_s == pytest.approx(19 * 0.2, abs=0.11)
    assert capsys.readouterr().err.count("more slowly than it plays") == 1


def test_a_crop_is_part_of_the_source(tmp_path):
    frames = grey_frames(2)
    clip = write_video(tmp_path / "clip.mkv", frames)
    source = source_of(clip, crop=Crop(10, 5, 30, 20))
    assert (source.first.width, source.first.height) == (30, 20)
    assert all(np.array_equal(f.image, image[5:25, 10:40]) for f, image in zip(played(source), frames, strict=True))
    for crop in (Crop(40, 0, 30, 20), Crop(0, 40, 30, 20)):
        with pytest.raises(InputError, match=r"64x48.*--crop"):
            source_of(clip, crop=crop)
    assert source_of(clip, crop=Crop(0, 0, 64, 48)).first.width == 64


def test_a_region_of_a_dicom_file_is_used_alone(tmp_path):
    frames = grey_frames(2)
    path = write_dicom(tmp_path / "cine.dcm", frames, SequenceOfUltrasoundRegions=[region(8, 4, 55, 43)], FrameTime=40)
    source = source_of(path, part=Part(0))
    assert (source.first.width, source.first.height) == (48, 40)
    assert np.array_equal(played(source)[1].image, frames[1][4:44, 8:56])


def test_a_stopped_source_does_not_wait(tmp_path):
    stop = threading.Event()
    stop.set()
    source = source_of(write_video(tmp_path / "clip.mkv", grey_frames(2)))
    assert source.read(stop) is None


def test_times_that_repeat_or_go_back_do_not_stop_the_source(tmp_path):
    source = source_of(write_video(tmp_path / "clip.mkv", grey_frames(4), rate=25))
    sequence = source.images[0].sequence
    sequence.times = [0.0, 0.04, 0.04, 0.02]
    images = [replace(image, sequence=sequence) for image in source.images]
    again = FileSource(images, source._spacings, 1, "source", Playback(), FakeClock())
    assert stamps(played(again)) == [0, 0.04, 0.04, 0.04]
