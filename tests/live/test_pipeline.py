"""The threads: labels equal those of predict.py, the reader never waits, and no frame ends the process."""

import io
import threading
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import simple_frame
from live_parts import FakeClock, FedSource, StandInLabelling, picture, stand_in_pipeline, stand_in_predictor
from PIL import Image
from sequence_files import write_video

from sonogravity.datasets.inputs import find_input_pairs
from sonogravity.datasets.mask_files import decode_mask
from sonogravity.datasets.spacing import ASSUMED
from sonogravity.inference.predictor import open_predictor
from sonogravity.live import protocol
from sonogravity.live.pipeline import Encoder, Labelling, Pipeline
from sonogravity.live.sources import FileSource, Playback
from sonogravity.live.status import SHOWN_S
from unet import predict
from unet.model import UNet

LIMIT_S = 20


class StepClock(FakeClock):
    """A clock whose waits end when the frame before has been encoded, so that no frame is dropped."""

    def __init__(self):
        super().__init__()
        self.encoded = threading.Semaphore(0)

    def wait(self, seconds, stop):
        while not (stop.is_set() or self.encoded.acquire(timeout=0.05)):
            pass
        super().wait(seconds, stop)


@pytest.fixture(scope="module")
def best(trained):
    return trained / "checkpoints" / "unet" / "run" / "best.pth"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A clip of a scene that jumps, with noise that differs in every frame."""
    frames = []
    for k in range(8):
        noise = np.random.default_rng(k).normal(0, 25, (40, 36))
        frames.append(np.clip(simple_frame([3, 0, k // 3])[0] + noise, 0, 255).astype(np.uint8))
    return write_video(tmp_path_factory.mktemp("clip") / "sweep.mkv", frames, rate=25)


def opened(best):
    return open_predictor(best, UNet, device="cpu", amp=None, scale=None, mask_values=None)[0]


def source_of(path, clock, **playback):
    images = [pair.image for pair in find_input_pairs([path], use_masks=False, partial=True)[0]]
    return FileSource(images, {image.name: ASSUMED for image in images}, 1, path.name, Playback(**playback), clock)


def messages_of(source, labelling, count, step=lambda: None):
    """Run a Pipeline until it has encoded ``count`` frames; return them unpacked, and the Pipeline."""
    pipeline, found, done = Pipeline(source, labelling, Encoder(labelling.predictor)), [], threading.Event()

    def deliver():
        found.append(protocol.unpack(pipeline.encoded.take_now().message))
        if len(found) == count:
            done.set()
        step()

    pipeline.start(deliver)
    pipeline.begin()
    try:
        assert done.wait(LIMIT_S), f"{len(found)} of {count} frames"
        pipeline.check()
    finally:
        pipeline.close()
    return found[:count], pipeline


def all_messages(path, labelling, count, **playback):
    clock = StepClock()
    return messages_of(source_of(path, clock, **playback), labelling, count, clock.encoded.release)[0]


def masks_of_predict(best, path, output, *options):
    line = ["--load", best, "--input", path, "--output", output, "--device", "cpu", "--no-video", *options]
    assert predict.main([str(each) for each in line]) == 0
    return {mask.stem: decode_mask(mask) for mask in (output / "masks").iterdir()}


@pytest.mark.parametrize("seconds", [None, 0.1])
def test_labels_are_those_of_predict_bit_for_bit(best, clip, tmp_path, seconds):
    """With smoothing too, because it is the same."""
    predictor = opened(best)
    found = all_messages(clip, Labelling(predictor, seconds), 8)
    wanted = masks_of_predict(best, clip, tmp_path / "out", *([] if seconds is None else ["--smooth", seconds]))
    assert [header["name"] for header, _, _ in found] == sorted(wanted)
    assert len({mask.tobytes() for mask in wanted.values()}) > 4
    for header, _, classes in found:
        assert np.array_equal(predictor.labels.to_values(classes), wanted[header["name"]])


def test_confidence_and_measurements_are_those_of_predict(best, clip, tmp_path):
    predictor = opened(best)
    masks_of_predict(best, clip, tmp_path / "out")
    rows = pd.read_csv(tmp_path / "out" / "files.csv")
    for (header, _, _), (_, row) in zip(all_messages(clip, Labelling(predictor), 8), rows.iterrows(), strict=True):
        assert header["unlike"] == (row["unlike_training"] > 1)
        for c in predictor.labels.foreground:
            name, own = predictor.labels.names[c], header["measurements"][str(c)]
            confidence = header["confidence"][str(c)]
            assert confidence == pytest.approx(row[f"expected_dice_{name}"], abs=1e-5, nan_ok=True)
            assert own["area"] == row[f"area_px_{name}"]
            assert own["top"] is None if row[f"area_px_{name}"] == 0 else own["top"] == row[f"top_px_{name}"]


def test_a_round_of_a_loop_is_smoothed_as_the_first_one(best, clip):
    found = all_messages(clip, Labelling(opened(best), 0.1), 16, loop=True)
    for first, second in zip(found[:8], found[8:], strict=True):
        assert first[0]["name"] == second[0]["name"] and np.array_equal(first[2], second[2])


def test_changed_smoothing_begins_anew(best, clip, tmp_path):
    predictor = opened(best)
    labelling, source = Labelling(predictor, 5.0), source_of(clip, StepClock())
    source.clock.wait = lambda seconds, stop: None
    frames = [source.read(threading.Event()) for _ in range(3)]
    labelling.label(frames[0])
    labelling.smooth_seconds = 2.0
    anew = labelling.label(frames[1]).classes
    labelling.smooth_seconds = None
    assert np.array_equal(anew, labelling.label(frames[1]).classes)


def test_a_16_bit_frame_and_a_damaged_one_are_said_once_and_the_others_are_labelled(best, tmp_path, capsys):
    folder = tmp_path / "stills"
    folder.mkdir()
    for k in range(5):
        Image.fromarray(simple_frame(k)[0]).save(folder / f"still_{k}.png")
    Image.fromarray(simple_frame(1)[0].astype(np.uint16) * 256).save(folder / "still_1.png")
    clock = StepClock()
    clock.wait = lambda seconds, stop: (time.sleep(0.1), FakeClock.wait(clock, seconds, stop))
    source = source_of(folder, clock, loop=True)
    (folder / "still_3.png").write_bytes(b"damaged")
    found, pipeline = messages_of(source, Labelling(opened(best)), 9)
    assert {header["name"] for header, _, _ in found} == {"still_0", "still_2", "still_4"}
    assert pipeline.dropped["reader"] >= 2 and pipeline.dropped["network"] >= 2
    said = capsys.readouterr().err
    assert said.count("still_3.png: cannot be read") == 1 and said.count("is 16-bit, but the model") == 1
    assert any(text in pipeline.status.text(clock.now()) for text in ("still_3.png", "still_1.png"))
    assert pipeline.status.text(clock.now() + SHOWN_S) == ""


def test_sizes_that_differ_are_labelled_each_at_its_own(best, tmp_path):
    write_video(tmp_path / "clips" / "a.mkv", [simple_frame(0)[0]] * 2, rate=25)
    write_video(tmp_path / "clips" / "b.mkv", [simple_frame(0, (30, 52))[0]] * 2, rate=25)
    found = all_messages(tmp_path / "clips", Labelling(opened(best), 0.1), 4)
    assert [classes.shape for _, _, classes in found] == [(40, 36)] * 2 + [(30, 52)] * 2


def test_a_slow_network_gets_the_newest_frame_and_never_holds_the_reader():
    class Slow(StandInLabelling):
        allowed, begun = threading.Semaphore(0), threading.Semaphore(0)

        def label(self, live):
            self.begun.release()
            assert self.allowed.acquire(timeout=LIMIT_S)
            return super().label(live)

    source, found, labelling = FedSource(), [], Slow()
    pipeline = Pipeline(source, labelling, Encoder(stand_in_predictor()))
    pipeline.start(lambda: found.append(pipeline.encoded.take_now().id))
    pipeline.begin()
    try:
        source.put(picture())
        assert labelling.begun.acquire(timeout=LIMIT_S)
        source.put(*[picture()] * 9, None)
        limit = time.monotonic() + LIMIT_S
        while "ended" not in pipeline.status.text(0):  # the reader has read all, and the network still has the first
            assert time.monotonic() < limit
        assert found == []
        for wanted in (1, 2):
            labelling.allowed.release()
            while len(found) < wanted:
                assert time.monotonic() < limit
        assert found == [1, 10] and pipeline.dropped["network"] == 8
    finally:
        labelling.allowed.release(9)
        pipeline.close()


def test_a_fault_of_the_network_is_no_end(capsys):
    class Failing(StandInLabelling):
        def label(self, live):
            if live.id in (1, 2):
                raise RuntimeError("could not create a primitive\nand more lines")
            return super().label(live)

    source, done = FedSource(), threading.Event()
    pipeline = Pipeline(source, Failing(), Encoder(stand_in_predictor()))
    pipeline.start(done.set)
    pipeline.begin()
    for _ in range(3):
        source.put(picture())
        time.sleep(0.03)
    try:
        assert done.wait(LIMIT_S) and pipeline.dropped["network"] == 2
        pipeline.check()
    finally:
        pipeline.close()
    assert capsys.readouterr().err == "warning: could not create a primitive\n"


def test_a_colour_frame_and_a_compressed_one_are_jpeg():
    encoder = Encoder(stand_in_predictor(), compress=True)
    for image in (picture(60), np.stack([picture(60)] * 3, 2)):
        source = FedSource()
        source.put(image)
        live = source.read(threading.Event())
        grey = live.image if live.image.ndim == 2 else live.image[:, :, 0]
        labelled = StandInLabelling().label(replace(live, image=grey))
        encoded = encoder.encode(replace(labelled, frame=live))
        header, frame, _ = protocol.unpack(encoded.message)
        assert header["frame"]["kind"] == "jpeg"
        shown = np.asarray(Image.open(io.BytesIO(frame)))
        assert shown.shape == image.shape and abs(shown.astype(int) - image).mean() < 5


def test_a_pipeline_that_never_began_ends():
    pipeline = stand_in_pipeline()
    pipeline.start(lambda: None)
    pipeline.close()
    pipeline.check()
