"""Stand-ins for the parts of live labelling: a clock that does not wait, a source that is fed by hand, a server."""

import asyncio
import contextlib
import queue
import types

import aiohttp
import numpy as np

from sonogravity.datasets.frame_files import FrameFile
from sonogravity.datasets.labels import Labels
from sonogravity.datasets.spacing import ASSUMED
from sonogravity.live import protocol
from sonogravity.live.gate import open_gate
from sonogravity.live.pipeline import Encoder, Labelled, Pipeline
from sonogravity.live.server import Server
from sonogravity.live.sources import Clock, LiveFrame, Playback, Shown
from sonogravity.live.views import describe_stream

LIMIT_S = 30  # of any test; none comes near it
LABELS = Labels.create((0, 128, 255), class_names=["bone", "ligament"])


class FakeClock(Clock):
    """A clock that stands still until somebody waits."""

    def __init__(self):
        self.time_s = 100.0

    def now(self):
        return self.time_s

    def wait(self, seconds, stop):
        self.time_s += seconds


def stand_in_predictor():
    """What the encoder and the hello ask of a predictor."""
    return types.SimpleNamespace(
        labels=LABELS,
        image_maximum=None,
        engine="torch",
        device="cpu",
        knows_grey_levels=True,
        unlikeness=lambda image: float(image.mean() > 200) * 2,
    )


class FedSource:
    """A source whose frames a test puts in: arrays, exceptions to raise, and None as its end."""

    name, playback, has_times = "fed", Playback(), True

    def __init__(self, size=(40, 36)):
        self.clock = Clock()
        self.first = Shown(size[1], size[0], ASSUMED)
        self.items, self.spacing = queue.Queue(), ASSUMED
        self._count = 0

    def put(self, *items):
        for item in items:
            self.items.put(item)

    def read(self, stop):
        while not stop.is_set():
            try:
                item = self.items.get(timeout=0.01)
            except queue.Empty:
                continue
            if isinstance(item, Exception):
                raise item
            if item is None:
                return None
            self._count += 1
            file = FrameFile(f"frame_{self._count}.png", f"frame_{self._count}")
            return LiveFrame(self._count, item, self.clock.now(), file, ("clip", 0), 0.1 * self._count, self.spacing)
        return None


class StandInLabelling:
    """A network that labels pixels above 100 as class 1, and above 180 as class 2."""

    smooth_seconds = None

    def label(self, live):
        classes = (live.image > 100).astype(np.uint8) + (live.image > 180)
        return Labelled(live, classes, {"expected_dice_bone": 0.9, "expected_dice_ligament": float("nan")})


def picture(level=0, size=(40, 36)):
    """A grey frame with a bright box."""
    image = np.full(size, level, np.uint8)
    image[5:15, 6:20] = 150
    return image


def stand_in_pipeline(source=None):
    return Pipeline(source or FedSource(), StandInLabelling(), Encoder(stand_in_predictor()))


@contextlib.asynccontextmanager
async def serving(pipeline, tls=None):
    """Serve a pipeline on loopback; give its Gate and Server."""
    gate, listening = open_gate("127.0.0.1", 0, tls is not None)
    server = Server(pipeline, describe_stream(stand_in_predictor(), "unet", "first", pipeline.source), gate, tls)
    stop, ready = asyncio.get_running_loop().create_future(), asyncio.Event()
    task = asyncio.ensure_future(server.serve(listening, stop, ready.set))
    try:
        await asyncio.wait({task, asyncio.ensure_future(ready.wait())}, return_when=asyncio.FIRST_COMPLETED)
        yield gate, server
        stop.set_result(0)
        await task
    finally:
        task.cancel()
        pipeline.close()
        listening.close()


def stream_url(gate, token=None):
    return f"{gate.scheme.replace('http', 'ws')}://127.0.0.1:{gate.port}/stream?token={token or gate.token}"


def run(scenario):
    """Run a coroutine, no longer than LIMIT_S."""
    return asyncio.run(asyncio.wait_for(scenario, LIMIT_S))


class Page:
    """A connected client that sorts what it gets."""

    def __init__(self, socket):
        self.socket = socket
        self.hellos, self.states, self.statistics, self.frames = [], [], [], []

    async def take(self):
        """Take one message; return its kind: hello, state, statistics, frame or closed."""
        message = await self.socket.receive()
        if message.type == aiohttp.WSMsgType.BINARY:
            self.frames.append(protocol.unpack(message.data))
            return "frame"
        if message.type != aiohttp.WSMsgType.TEXT:
            return "closed"
        found = message.json()
        {"hello": self.hellos, "state": self.states, "statistics": self.statistics}[found["type"]].append(found)
        return found["type"]

    async def until(self, kind, seconds=5.0):
        """Take messages until one of the kind has come; return whether one came in this time."""

        async def look():
            while (found := await self.take()) != kind:
                assert found != "closed", f"closed with {self.socket.close_code}"

        try:
            await asyncio.wait_for(look(), seconds)
        except asyncio.TimeoutError:
            return False
        return True

    async def say(self, **message):
        await self.socket.send_json(message)

    async def paint(self):
        """Acknowledge the last frame."""
        await self.say(type="painted", id=self.frames[-1][0]["id"])


@contextlib.asynccontextmanager
async def page_of(gate, **options):
    """Connect as a page does."""
    async with aiohttp.ClientSession() as session:
        headers = {"Origin": f"{gate.scheme}://127.0.0.1:{gate.port}"}
        async with session.ws_connect(stream_url(gate), headers=headers, max_msg_size=0, **options) as socket:
            yield Page(socket)
