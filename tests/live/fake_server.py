"""A server that speaks the protocol of live labelling with frames of a test, without a model."""

import asyncio
import json
import mimetypes
import struct
import threading
from dataclasses import dataclass, field

import numpy as np
from aiohttp import WSMsgType, web

from sonogravity.common import folders
from sonogravity.reporting.pictures import PALETTE

PAGE = folders.ROOT / "sonogravity" / "live" / "page"
TOKEN = "token"
HEADERS = {"Content-Security-Policy": "default-src 'self'", "Cache-Control": "no-store"}
MOST_UNPAINTED = 2


def hello(**changed):
    """Return the first message, with two classes and a scale that differs in x and y."""
    classes = [
        {"index": 1, "name": "bone", "colour": list(PALETTE[0])},
        {"index": 2, "name": "<b>nerve</b>", "colour": list(PALETTE[1])},
    ]
    message = {"type": "hello", "protocol": 1, "model": "unet", "run": "first", "engine": "torch", "device": "cpu"}
    message |= {"source": "sweep.mp4", "classes": classes, "background": 0, "width": 148, "height": 160, "crop": None}
    message |= {"pixels_per_mm": [4.0, 5.0], "smooth_seconds": None, "steering": True, "training_frames_known": True}
    return message | changed


def to_runs(classes):
    """Return (H, W) uint8 class indices as the bytes of runs."""
    flat = classes.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(np.append(starts, flat.size)).astype(np.uint32)
    return (flat[starts].astype(np.uint32) << 24 | lengths).astype("<u4").tobytes()


def pack(image, classes, id, jpeg=None, **changed):
    """Return the binary message of a frame: (H, W) uint8 grey levels and class indices. jpeg: sent instead of them."""
    labels, pixels = to_runs(classes), image.tobytes() if jpeg is None else jpeg
    header = {
        "id": id,
        "captured_ms": 1000.0 + 1000 / 30 * id,
        "time_s": id / 30,
        "name": f"sweep_{id:06d}",
        "width": image.shape[1],
        "height": image.shape[0],
        "frame": {"kind": "grey" if jpeg is None else "jpeg", "bytes": len(pixels)},
        "labels": {"kind": "runs", "bytes": len(labels)},
        "confidence": {"1": 0.93, "2": 0.81},
        "unlike": False,
        "measurements": {"1": {"area": 12.5, "top": 3.25, "thickness": 1.5, "centroid_x": 9, "centroid_y": 4}, "2": {}},
        "unit": "mm",
    } | changed
    text = json.dumps(header).encode()
    text += b" " * (-(4 + len(text)) % 8)
    return struct.pack("<I", len(text)) + text + pixels + b"\0" * (-len(pixels) % 4) + labels


@dataclass
class FakeServer:
    """Serves the page and a stream on a port of its own thread. A test sends frames and looks at what the page said."""

    hello: dict = field(default_factory=hello)
    port: int = 0

    def __post_init__(self):
        self.said, self.unpainted, self.paused, self.socket = [], set(), False, None
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self.thread.start()
        if not started.wait(10):
            raise TimeoutError("the fake server has not started")

    @property
    def address(self):
        """The address of the page."""
        return f"http://127.0.0.1:{self.port}/?token={TOKEN}"

    def send(self, *messages):
        """Send texts (dictionaries), binary messages and raw texts."""
        asyncio.run_coroutine_threadsafe(self._send(messages), self.loop).result(10)

    def send_frame(self, image, classes, id, **changed):
        """Send one frame and count it as unpainted."""
        self.unpainted.add(id)
        self.send(pack(image, classes, id, **changed))

    def may_send(self):
        """Return whether the page wants a frame now."""
        return self.socket is not None and not self.paused and len(self.unpainted) < MOST_UNPAINTED

    def stop(self):
        """Close everything; the port is free afterwards."""
        asyncio.run_coroutine_threadsafe(self._stop(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    def _run(self, started):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._start())
        started.set()
        self.loop.run_forever()

    async def _start(self):
        app = web.Application()
        for path in ("/", "/live.js", "/live.css"):
            app.router.add_get(path, self._file)
        app.router.add_get("/stream", self._stream)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", self.port)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]

    async def _file(self, request):
        name = request.path[1:] or "index.html"
        text = (PAGE / name).read_text(encoding="utf-8")
        return web.Response(text=text, content_type=mimetypes.guess_type(name)[0], headers=HEADERS)

    async def _stream(self, request):
        if request.query.get("token") != TOKEN:
            raise web.HTTPForbidden
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.unpainted, self.paused = set(), False
        await socket.send_str(json.dumps(self.hello))
        self.socket = socket
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                self._hear(json.loads(message.data))
        return socket

    def _hear(self, message):
        self.said.append(message)
        if message["type"] == "painted":
            self.unpainted = {id for id in self.unpainted if id > message["id"]}
        elif message["type"] in ("pause", "resume"):
            self.paused = message["type"] == "pause"

    async def _send(self, messages):
        for message in messages:
            if isinstance(message, bytes):
                await self.socket.send_bytes(message)
            else:
                await self.socket.send_str(message if isinstance(message, str) else json.dumps(message))

    async def _stop(self):
        if self.socket is not None:
            await self.socket.close()
        await self.runner.cleanup()
