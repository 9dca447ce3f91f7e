"""Videos: each frame in its place and at its time, in any order and from several threads, for each container."""

import io
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest
from pydicom.encaps import encapsulate
from sequence_files import SIZE, dicom_header, grey_frames, write_video

from sonogravity.common.messages import InputError
from sonogravity.datasets.in_order import KEPT
from sonogravity.datasets.readers import open_sequence
from sonogravity.datasets.sequences import MOST_OPEN
from sonogravity.datasets.video_files import luminance

LOSSLESS = {
    "mkv ffv1": ("a.mkv", "ffv1", "gray", {}),
    "avi ffv1": ("a.avi", "ffv1", "gray", {}),
    "avi huffyuv, RGB": ("a.avi", "huffyuv", "rgb24", {}),
    "mov png": ("a.mov", "png", "gray", {}),
    "mp4 x264 lossless": ("a.mp4", "libx264", "yuv420p", {"qp": "0"}),
    "mkv x265 lossless": ("a.mkv", "libx265", "yuv420p", {"x265-params": "lossless=1:log-level=none"}),
    "webm vp9 lossless": ("a.webm", "libvpx-vp9", "yuv420p", {"lossless": "1"}),
}
LOSSY = {
    "mp4 x264": ("a.mp4", "libx264", "yuv420p", {"bf": "3", "g": "12", "x264-params": "open-gop=1"}),
    "mov mpeg4": ("a.mov", "mpeg4", "yuv420p", {"b": "4M"}),
    "avi mjpeg": ("a.avi", "mjpeg", "yuvj420p", {}),
    "webm vp8": ("a.webm", "libvpx", "yuv420p", {"b": "4M", "auto-alt-ref": "1", "lag-in-frames": "16"}),
    "mpg mpeg1": ("a.mpg", "mpeg1video", "yuv420p", {"bf": "2", "g": "12", "b": "4M"}),
    "mkv av1": ("a.mkv", "libsvtav1", "yuv420p", {"svtav1-params": "enable-stat-report=0"}),
}


def made(path, frames, codec, pixels, options, **more):
    if codec not in av.codecs_available:
        pytest.skip(f"no encoder {codec} here")
    return open_sequence(write_video(path, frames, codec, pixels, options=options, **more))


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_videos_keep_every_grey_level(kind, tmp_path):
    name, codec, pixels, options = LOSSLESS[kind]
    frames = grey_frames(12)
    sequence = made(tmp_path / name, frames, codec, pixels, options, full_range=pixels.startswith("yuv"))
    assert (sequence.count, sequence.size, sequence.numbered, sequence.warnings) == (12, SIZE, True, [])
    for k, frame in enumerate(frames):
        np.testing.assert_array_equal(sequence.read(k, 1), frame)
    colour = sequence.read(3, 3)
    assert colour.shape == (*SIZE, 3) and np.abs(colour.astype(int) - frames[3][:, :, None]).max() <= 3


def numbered(count, size=SIZE):
    """Frames that show their number as six noisy bars, dark or bright, so that compression cannot hide it."""
    frames, rng = [], np.random.default_rng(0)
    for k in range(count):
        bars = np.repeat([200 * (k >> bit & 1) for bit in range(6)], -(-size[1] // 6))[None, : size[1]]
        frames.append((bars + rng.integers(0, 50, size)).astype(np.uint8))
    return frames


def number_in(frame):
    width = -(-SIZE[1] // 6)
    return sum((frame[:, width * bit + 2 : width * bit + 7].mean() > 128) << bit for bit in range(6))


@pytest.mark.parametrize("kind", [*LOSSY, *LOSSLESS])
def test_each_frame_is_in_its_place_in_any_order(kind, tmp_path):
    name, codec, pixels, options = {**LOSSY, **LOSSLESS}[kind]
    sequence = made(tmp_path / name, numbered(50), codec, pixels, options)
    assert sequence.count == 50
    in_order = [sequence.read(k, 1) for k in range(50)]
    assert [number_in(frame) for frame in in_order] == list(range(50))
    for k in np.random.default_rng(0).permutation(50):
        np.testing.assert_array_equal(sequence.read(int(k), 1), in_order[k])


def test_threads_read_one_video_together(tmp_path):
    sequence = made(tmp_path / "a.mp4", numbered(60), "libx264", "yuv420p", {"g": "10"})
    order = list(range(60)) + list(np.random.default_rng(1).permutation(60))
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda k: number_in(sequence.read(int(k), 1)), order))
    assert found == order


def test_only_a_few_frames_are_kept(tmp_path):
    clips = [made(tmp_path / f"{k}.mkv", grey_frames(60), "ffv1", "gray", {}) for k in range(7)]
    for clip in clips:
        for k in range(60):
            clip.read(k, 1)
            assert len(clip._recent) <= KEPT
    is_open = [clip._container is not None for clip in clips]
    assert is_open == [False] * 3 + [True] * MOST_OPEN, "the oldest are closed"
    assert [bool(clip._recent) for clip in clips] == is_open
    clips[0].read(30, 1)
    assert clips[0]._container is not None and clips[3]._container is None


def test_many_threads_on_many_clips_leave_few_of_them_open(tmp_path):
    clips = [made(tmp_path / f"{k}.mkv", numbered(8), "ffv1", "gray", {}) for k in range(12)]
    with ThreadPoolExecutor(8) as pool:
        order = [(clip, k) for clip in clips for k in range(8)]
        assert list(pool.map(lambda item: number_in(item[0].read(item[1], 1)), order)) == list(range(8)) * 12
    assert sum(clip._container is not None for clip in clips) <= MOST_OPEN


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_each_frame_has_its_own_time(name, tmp_path):
    stamps = [0, 40, 140, 150, 400, 1000]
    sequence = made(tmp_path / name, grey_frames(6), "libx264", "yuv420p", {}, stamps=stamps)
    assert sequence.times == pytest.approx([stamp / 1000 for stamp in stamps], abs=1e-3)


def test_full_and_limited_range_show_the_same(tmp_path):
    frames = [np.tile(np.arange(0, 256, 4, dtype=np.uint8), (SIZE[0], 1))] * 3
    limited = made(tmp_path / "l.mp4", frames, "libx264", "yuv420p", {"qp": "0"}).read(0, 1)
    full = made(tmp_path / "f.mp4", frames, "libx264", "yuv420p", {"qp": "0"}, full_range=True).read(0, 1)
    np.testing.assert_array_equal(full, frames[0])
    assert np.abs(limited.astype(int) - frames[0]).max() <= 1 and (limited.min(), limited.max()) == (0, 252)


def test_deeper_grey_levels_stay(tmp_path):
    deep = [frame.astype(np.uint16) * 257 for frame in grey_frames(2)]
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "gray16le"
        for array in deep:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="gray16le")))
        container.mux(stream.encode())
    np.testing.assert_array_equal(open_sequence(path).read(1, 1), deep[1])


@pytest.mark.parametrize("kind", ["yuv420p10le", "nv12", "yuyv422", "gbrp", "rgb24", "bgr0"])
def test_pixel_formats_without_a_plane_of_grey_levels_are_converted(kind):
    frame = av.VideoFrame.from_ndarray(np.full(SIZE, 100, np.uint8), format="gray").reformat(format=kind)
    grey = luminance(frame)
    if grey is None:
        assert kind in ("gbrp", "rgb24", "bgr0", "yuyv422", "nv12")
    else:
        assert grey.dtype == np.uint8 and np.abs(grey.astype(int) - 100).max() <= 1


def turned(path, degrees):
    """Write the rotation into the track header of an MP4, as telephones do."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 4 + 20 + 16
    one = 0x10000
    matrix = {90: (0, one, 0, -one, 0), 180: (-one, 0, 0, 0, -one), 270: (0, -one, 0, one, 0)}[degrees]
    for k, value in enumerate(matrix):
        content[place + 4 * k : place + 4 * k + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(content)


@pytest.mark.parametrize(("degrees", "turns"), [(90, -1), (180, 2), (270, 1)])
def test_rotation_is_applied_as_players_do(degrees, turns, tmp_path):
    frames = grey_frames(2)
    path = write_video(tmp_path / "a.mp4", frames, "libx264", "yuv420p", options={"qp": "0"}, full_range=True)
    turned(path, degrees)
    sequence = open_sequence(path)
    expected = np.rot90(frames[1], turns)
    assert sequence.size == expected.shape
    np.testing.assert_array_equal(sequence.read(1, 1), expected)


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.webm", "fragmented.mp4"])
def test_a_truncated_video_gives_the_frames_before_the_damage(name, tmp_path):
    codec, pixels = ("libvpx-vp9", "yuv420p") if name.endswith("webm") else ("libx264", "yuv420p")
    path = tmp_path / name
    frames = numbered(50)
    write_video(path, frames, codec, pixels, options={"g": "5"})
    if name == "fragmented.mp4":  # the index comes first, as of files for the web
        with (
            av.open(str(path)) as source,
            av.open(str(tmp_path / "f.mp4"), "w", options={"movflags": "faststart"}) as target,
        ):
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
        path = tmp_path / "f.mp4"
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])
    sequence = open_sequence(path)
    assert 10 < sequence.count < 45
    assert len(sequence.warnings) == 1
    assert f"the {sequence.count} frames before it are used" in sequence.warnings[0]
    found = [number_in(sequence.read(k, 1)) for k in range(sequence.count)]
    assert found == list(range(sequence.count))


@pytest.mark.parametrize("name", ["a.mkv", "a.avi"])
def test_sound_does_not_hide_that_a_video_is_truncated(name, tmp_path):
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        video, sound = container.add_stream("mjpeg", rate=25), container.add_stream("mp2", rate=44100)
        video.height, video.width, video.pix_fmt = *SIZE, "yuvj420p"
        for k, frame in enumerate(numbered(50)):
            picture = av.VideoFrame.from_ndarray(frame, format="gray").reformat(format="yuvj420p")
            picture.pts = k
            container.mux(video.encode(picture))
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 1764), np.int16), format="s16", layout="stereo")
            samples.rate = 44100
            container.mux(sound.encode(samples))
        container.mux(video.encode())
        container.mux(sound.encode())
    assert open_sequence(path).warnings == []
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])
    sequence = open_sequence(path)
    assert sequence.count < 40 and f"the {sequence.count} frames before it are used" in sequence.warnings[0]
    assert [number_in(sequence.read(k, 1)) for k in range(sequence.count)] == list(range(sequence.count))


def test_an_mp4_without_its_index_is_refused(tmp_path):
    path = write_video(tmp_path / "a.mp4", grey_frames(), "libx264", "yuv420p")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"a.mp4: cannot be read"):
        open_sequence(path)


def test_frames_of_another_size_end_the_reading(tmp_path):
    path = tmp_path / "a.h264"
    parts = []
    for size in (SIZE, (96, 80)):
        buffer = io.BytesIO()
        with av.open(buffer, "w", format="h264") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
            for frame in grey_frames(4, size):
                container.mux(
                    stream.encode(av.VideoFrame.from_ndarray(frame, format="gray").reformat(format="yuv420p"))
                )
            container.mux(stream.encode())
        parts.append(buffer.getvalue())
    path.write_bytes(b"".join(parts))
    path = path.rename(tmp_path / "a.mpg")
    with pytest.raises(InputError, match=r"frame 4 is 80x96, but the frames before are 64x48"):
        open_sequence(path)


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(InputError, match="holds no video"):
        open_sequence(path)


def test_a_video_without_a_decoder_is_refused(tmp_path):
    path = write_video(tmp_path / "a.mkv", grey_frames())
    path.write_bytes(path.read_bytes().replace(b"V_FFV1", b"V_XXXX"))
    with pytest.raises(InputError, match="no decoder is installed for its video; convert it"):
        open_sequence(path)


def test_a_video_is_no_mask(tmp_path):
    sequence = made(tmp_path / "a.mkv", grey_frames(), "ffv1", "gray", {})
    with pytest.raises(InputError, match="give masks as PNG or as a stack"):
        sequence.read_values(0)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video"])
def test_a_video_inside_a_dicom_file(codec, tmp_path):
    """As scanners store long cines: DICOM PS3.5, 8.2.5 to 8.2.8."""
    if codec not in av.codecs_available:
        pytest.skip(f"no encoder {codec} here")
    syntax = {"libx264": "4.102", "libx265": "4.107", "mpeg2video": "4.100"}[codec]
    frames = numbered(40)
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    video = write_video(tmp_path / "a.mpg", frames, codec, "yuv420p", options=options).read_bytes()
    data = dicom_header(frames[0], len(frames), f"1.2.840.10008.1.2.{syntax}", "YBR_PARTIAL_420")
    data.PixelData = encapsulate([video], fragments_per_frame=4, has_bot=False)
    data["PixelData"].VR = "OB"
    data.FrameTime = 40
    path = tmp_path / "cine"
    data.save_as(path, enforce_file_format=True)
    sequence = open_sequence(path)
    assert (sequence.count, sequence.size) == (40, SIZE)
    for k in (20, 3, 39, 0, 21):
        assert number_in(sequence.read(k, 1)) == k
    assert sequence.times == pytest.approx([k * 0.04 for k in range(40)], abs=1e-3)
    data.NumberOfFrames = 50
    data.save_as(path, enforce_file_format=True)
    sequence = open_sequence(path)
    assert (sequence.count, sequence.declared) == (40, 50)
    assert "the video ends in frame 40 of 50; the 40 frames before it are used" in sequence.warnings[0]


def test_an_avi_whose_times_are_those_of_packets_is_read_as_a_whole(tmp_path):
    """AVI stores H.264 with B-frames without the times of the frames: they would go back."""
    frames = grey_frames(24, (40, 48))
    path = write_video(tmp_path / "a.avi", frames, "libx264", "yuv420p", options={"bf": "3"})
    video = open_sequence(path)
    assert video.count == 24 and not video.warnings
    content = path.read_bytes()
    path.write_bytes(content[: int(0.8 * len(content))])
    video = open_sequence(path)
    assert 0 < video.count < 24 and video.warnings


def test_a_short_truncated_video_is_noticed_although_a_frame_before_its_end_is_missing(tmp_path):
    path = write_video(tmp_path / "a.mkv", grey_frames(12, (40, 48)), "libx264", "yuv420p", rate=10)
    content = path.read_bytes()
    for share in (0.7, 0.5):
        path.write_bytes(content[: int(share * len(content))])
        video = open_sequence(path)
        assert "s before the end that it declares" in video.warnings[0]
        assert np.ptp(np.diff(video.times)) < 0.01 and video.times[-1] < 0.6


def test_a_last_frame_that_lasts_long_is_no_damage(tmp_path):
    path = write_video(tmp_path / "a.mkv", grey_frames(6, (40, 48)), stamps=[0, 40, 90, 200, 240, 900])
    assert open_sequence(path).count == 6 and not open_sequence(path).warnings
