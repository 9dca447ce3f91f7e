"""The threads of live labelling: reader, network and encoder, with a slot of one at each hand-over.

Nothing blocks the reader: if a later stage is slower than the source, it gets the newest frame, and the frames that it
never saw are counted.
"""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from sonogravity.common.messages import InputError, first_line
from sonogravity.datasets.frames import Frame, at_scales
from sonogravity.datasets.pairs import Pair
from sonogravity.inference.predictor import to_label_maps
from sonogravity.inference.smoothing import Smoothing
from sonogravity.live import protocol
from sonogravity.live.slots import Slot
from sonogravity.live.sources import LiveFrame, Shown
from sonogravity.live.statistics import Statistics
from sonogravity.live.status import Status
from sonogravity.metrics import confidence
from sonogravity.metrics.measurements import measure
from sonogravity.reporting.pictures import to_8_bit

JPEG_QUALITY = 90
MEASURED = ("area", "top", "thickness", "centroid_x", "centroid_y")
FAULTS = (InputError, OSError, MemoryError, RuntimeError, ValueError)  # of one frame, after which the next one may work


@dataclass(frozen=True)
class Labelled:
    """A frame with its labels. classes: (H, W) uint8 class indices. certainty: of metrics/confidence.py."""

    frame: LiveFrame
    classes: np.ndarray
    certainty: dict


@dataclass(frozen=True)
class Encoded:
    """A frame as the bytes of its message."""

    id: int
    captured_s: float
    shown: Shown
    message: bytes


class Labelling:
    """The network's part: label maps of successive frames, equal to those of segmentation.segment.

    smooth_seconds may be set at any time, by any thread; the average then begins anew.
    """

    def __init__(self, predictor, smooth_seconds=None):
        self.predictor = predictor
        self.smooth_seconds = smooth_seconds

    @property
    def smooth_seconds(self):
        """Return the time constant of the smoothing, None without it."""
        smoothing = self._smoothing
        return smoothing and smoothing.seconds

    @smooth_seconds.setter
    def smooth_seconds(self, seconds):
        self._smoothing = None if seconds is None else Smoothing(seconds)

    def label(self, live):
        """Return the Labelled of a LiveFrame. Raise InputError if the model cannot take it."""
        size = live.image.shape[:2]
        frame = Frame(Pair(live.file), at_scales(live.image, self.predictor.scales), None, size)
        logits, smoothing = self.predictor.logits([frame]), self._smoothing
        if smoothing is not None and live.time_s is not None:
            logits = smoothing.smooth(logits[0], live.time_s, (live.clip, size))[None]
        maps = to_label_maps(logits)
        return Labelled(live, maps[0], confidence.certainty(logits, maps, self.predictor.labels)[0])


class Encoder:
    """The last part: the bytes that pages get. compress: send grey frames as JPEG too."""

    def __init__(self, predictor, compress=False):
        self._predictor, self._compress = predictor, compress

    def encode(self, labelled):
        """Return the Encoded of a Labelled."""
        live, labels = labelled.frame, self._predictor.labels
        picture = to_8_bit(live.image, self._predictor.image_maximum)
        unlike = self._predictor.unlikeness(live.image)
        sizes = {c: measure(labelled.classes == c, live.spacing.pixel_size) for c in labels.foreground}
        header = {
            "id": live.id,
            "captured_ms": round(1000 * live.captured_s, 3),
            "time_s": live.time_s,
            "name": live.file.stem,
            "width": picture.shape[1],
            "height": picture.shape[0],
            "confidence": {c: labelled.certainty[f"expected_dice_{labels.names[c]}"] for c in labels.foreground},
            "unlike": None if unlike is None else unlike > 1,
            "unit": live.spacing.unit,
            "measurements": {c: {name: found[name] for name in MEASURED} for c, found in sizes.items()},
        }
        kind, pixels = self._encode_picture(picture)
        message = protocol.pack(header, kind, pixels, protocol.to_runs(labelled.classes))
        return Encoded(live.id, live.captured_s, live.shown, message)

    def _encode_picture(self, picture):
        if picture.ndim == 2 and not self._compress:
            return "grey", np.ascontiguousarray(picture).tobytes()
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(picture)).save(file, "JPEG", quality=JPEG_QUALITY)
        return "jpeg", file.getvalue()


class Pipeline:
    """A source, a network and an encoder at work, each in a thread.

    deliver: a function that is called, in the encoder's thread, whenever ``encoded`` holds a new Encoded. ``begin``
    starts the source; until then nothing is read. A fault of one frame is shown, and the next frame follows.
    """

    def __init__(self, source, labelling, encoder):
        self.source, self.labelling = source, labelling
        self._encoder = encoder
        self.statistics, self.status = Statistics(), Status()
        self._read, self._labelled, self.encoded = Slot(), Slot(), Slot()
        self._faulty = {"reader": 0, "network": 0, "encoder": 0}
        self._begun, self._stop = threading.Event(), threading.Event()
        self._pool = self._stages = None

    @property
    def dropped(self):
        """Return {stage: number of frames that it never saw, or that were faulty there} since the start."""
        return {
            "reader": self._faulty["reader"],
            "network": self._read.dropped + self._faulty["network"],
            "encoder": self._labelled.dropped + self._faulty["encoder"],
            "client": self.encoded.dropped,
        }

    def start(self, deliver):
        """Start the threads."""
        self._pool = ThreadPoolExecutor(3, "live")
        stages = (self._read_all, self._label_all, lambda: self._encode_all(deliver))
        self._stages = [self._pool.submit(stage) for stage in stages]

    def begin(self):
        """Let the source begin, because somebody looks. Later calls do nothing."""
        self._begun.set()

    def check(self):
        """Raise the exception that ended a thread, if one did: a fault of the program, not of a frame."""
        for stage in self._stages:
            if stage.done():
                stage.result()

    def close(self):
        """End the threads, each after the frame that it works on."""
        self._stop.set()
        self._begun.set()
        for slot in (self._read, self._labelled, self.encoded):
            slot.close()
        if self._pool is not None:
            self._pool.shutdown()

    def _report(self, stage, error):
        self._faulty[stage] += 1
        self.status.report(first_line(error, 300), self.source.clock.now())

    def _read_all(self):
        self._begun.wait()
        while not self._stop.is_set():
            try:
                frame = self.source.read(self._stop)
            except InputError as error:
                self._report("reader", error)
                continue
            if frame is None:
                break
            self.statistics.note_read(frame.captured_s)
            self._read.put(frame)
        if not self._stop.is_set():
            self.status.settle("the source has ended; its last frame stays on the page")

    def _label_all(self):
        while (frame := self._read.take()) is not None:
            try:
                labelled = self.labelling.label(frame)
            except FAULTS as error:
                self._report("network", error)
            else:
                self._labelled.put(labelled)

    def _encode_all(self, deliver):
        while (labelled := self._labelled.take()) is not None:
            try:
                encoded = self._encoder.encode(labelled)
            except FAULTS as error:
                self._report("encoder", error)
                continue
            self.statistics.note_labelled(self.source.clock.now())
            self.encoded.put(encoded)
            deliver()
