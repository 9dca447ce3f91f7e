"""What all connected pages are told of a live view, and which of them may steer it."""

from sonogravity.live.protocol import PROTOCOL
from sonogravity.reporting.pictures import class_colours

ONLY_FIRST = "the smoothing can be changed on the page that was opened first"
NO_TIMES = "the frames of this source have no times, so they are not smoothed"


def describe_stream(predictor, model, run, source):
    """Return the entries of ``hello`` that never change. model, run: names. source: a FileSource."""
    labels, crop = predictor.labels, source.playback.crop
    colours = class_colours(labels).tolist()
    return {
        "type": "hello",
        "protocol": PROTOCOL,
        "model": model,
        "run": run,
        "engine": predictor.engine,
        "device": str(predictor.device),
        "source": source.name,
        "classes": [{"index": c, "name": labels.names[c], "colour": colours[c]} for c in labels.foreground],
        "background": labels.background,
        "crop": crop and [crop.left, crop.top, crop.width, crop.height],
        "training_frames_known": predictor.knows_grey_levels,
    }


class Views:
    """The connected clients of a Pipeline, in the order in which they came. The first one may steer.

    stream: of describe_stream. newest: the last Encoded, for clients that come later. All methods run in the thread of
    the event loop.
    """

    def __init__(self, pipeline, stream):
        self._pipeline, self._stream = pipeline, stream
        self._shown = {}  # the Shown of each client's last frame
        self._lost = 0  # frames that clients did not get that have left
        self.clients = []
        self.newest = None

    def now(self):
        """Return the time of the clock that stamps the frames."""
        return self._pipeline.source.clock.now()

    def add(self, client):
        """Add a client."""
        self.clients.append(client)

    def remove(self, client):
        """Forget a client. If it was the one that steers, the next one does."""
        self.clients.remove(client)
        self._shown.pop(client, None)
        self._lost += client.frames.dropped
        for each in self.clients[:1]:
            each.wake()

    def deliver(self):
        """Offer the newest frame to all clients."""
        encoded = self._pipeline.encoded.take_now()
        if encoded is not None:
            self.newest = encoded
            for client in self.clients:
                client.offer(encoded)

    def shown_to(self, client, shown):
        """Note size and spacing of the frame that a client gets next."""
        self._shown[client] = shown

    def hello(self, client):
        """Return the hello of a client, as it is now."""
        shown = self._shown.get(client) or (self.newest.shown if self.newest else self._pipeline.source.first)
        spacing = shown.spacing
        return self._stream | {
            "width": shown.width,
            "height": shown.height,
            "pixels_per_mm": None if spacing.assumed else [spacing.x, spacing.y],
            "smooth_seconds": self._pipeline.labelling.smooth_seconds,
            "steering": client is self.clients[0],
        }

    def state(self, now):
        """Return the line about the state."""
        return self._pipeline.status.text(now)

    def statistics(self, now):
        """Return the statistics message."""
        recent = self._pipeline.statistics.recent(now)
        return {"type": "statistics", **recent, "dropped": self.dropped}

    @property
    def dropped(self):
        """Return {stage: number of dropped frames since the start}; client: of all clients together."""
        dropped = self._pipeline.dropped
        own = self._lost + sum(client.frames.dropped for client in self.clients)
        return dropped | {"client": dropped["client"] + own}

    def note_painted(self, captured_s):
        """Note that a client has painted a frame."""
        self._pipeline.statistics.note_painted(self.now(), captured_s)

    def steer(self, client, smooth_seconds):
        """Set the smoothing. Return the reason if the client must not, or if it has no effect."""
        if client is not self.clients[0]:
            return ONLY_FIRST
        if smooth_seconds is not None and not self._pipeline.source.has_times:
            return NO_TIMES
        self._pipeline.labelling.smooth_seconds = smooth_seconds
        for each in self.clients:
            each.wake()
        return None
