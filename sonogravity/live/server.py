"""The web server of live labelling: the page, the stream, and the checks of every request. Needs aiohttp."""

import asyncio
import contextlib
import importlib.util
import signal
import weakref
from pathlib import Path

from sonogravity.common.messages import InputError
from sonogravity.live.clients import Client
from sonogravity.live.protocol import MOST_BYTES
from sonogravity.live.views import Views

PAGE = Path(__file__).parent / "page"
FILES = {
    "/": ("index.html", "text/html"),
    "/live.js": ("live.js", "text/javascript"),
    "/live.css": ("live.css", "text/css"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
MOST_CLIENTS = 16
WRITE_BUFFER = 2**23  # bytes; with the usual 64 KiB a frame waits for the client several times (home-assistant #89905)
HEARTBEAT_S = 10.0  # a client that does not answer a ping within half of it is gone
IDLE_S = 5.0  # after which a connection without a stream is closed
MOST_IDLE = 64  # such connections; further ones are closed sooner
TICK_S = 1.0
CLOSING_S = 2.0  # for clients to answer that the server ends
GOING_AWAY = 1001  # close code: the server ends (RFC 6455)


def need_aiohttp():
    """Raise InputError, with the line that installs it, if aiohttp is missing."""
    if importlib.util.find_spec("aiohttp") is None:
        raise InputError("live.py needs aiohttp; run pip install -e '.[live]' in the repository")


class Server:
    """The server of one Pipeline. stream: of views.describe_stream. gate: a Gate; tls: its SSLContext, or None."""

    def __init__(self, pipeline, stream, gate, tls=None):
        self.views = Views(pipeline, stream)
        self._pipeline, self._gate, self._tls = pipeline, gate, tls
        self._seen = weakref.WeakKeyDictionary()  # when each transport was first seen without a stream
        self._streams = weakref.WeakSet()  # transports of the streams

    async def serve(self, listening, stop, when_ready=lambda: None):
        """Serve on a listening socket until ``stop``, a future, is done. Raise what ends a thread of the pipeline."""
        from aiohttp import web

        loop = asyncio.get_running_loop()
        runner = web.AppRunner(
            self._application(), access_log=None, shutdown_timeout=TICK_S, keepalive_timeout=IDLE_S, lingering_time=0
        )
        await runner.setup()
        try:
            await web.SockSite(runner, listening, ssl_context=self._tls).start()

            def deliver():  # called in the encoder's thread, which may outlive the loop by a frame
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self.views.deliver)

            self._pipeline.start(deliver)
            when_ready()
            ticking = asyncio.ensure_future(self._tick(runner.server))
            await asyncio.wait({ticking, stop}, return_when=asyncio.FIRST_COMPLETED)
            if ticking.done():
                ticking.result()
            ticking.cancel()
        finally:
            closing = [asyncio.ensure_future(client.close(GOING_AWAY)) for client in self.views.clients]
            if closing:  # a client that reads nothing does not hold up the end
                await asyncio.wait(closing, timeout=CLOSING_S)
            await runner.cleanup()

    def _application(self):
        from aiohttp import web

        application = web.Application(middlewares=[self._checked()])
        application.on_response_prepare.append(_add_headers)
        for path in FILES:
            application.router.add_get(path, self._send_file)
        application.router.add_get("/stream", self._stream)
        application.router.add_get("/favicon.ico", _send_nothing)
        return application

    def _checked(self):
        """Return the check of every request: its Host, its Origin, and the token where one is needed."""
        from aiohttp import web

        @web.middleware
        async def check(request, handler):
            host = request.headers.get("Host")
            if not self._gate.admits_host(host):
                return web.Response(status=403, text="403: this host name is not that of the live view\n")
            if not self._gate.admits_origin(request.headers.get("Origin"), host):
                return web.Response(status=403, text="403: the request comes from another web page\n")
            if request.path in ("/", "/stream") and not self._gate.admits_token(request.query.get("token", "")):
                text = "403: the token is missing or wrong; open the address that live.py has printed\n"
                return web.Response(status=403, text=text)
            return await handler(request)

        return check

    async def _send_file(self, request):
        from aiohttp import web

        name, kind = FILES[request.path]
        return web.Response(body=(PAGE / name).read_bytes(), content_type=kind, charset="utf-8")

    async def _stream(self, request):
        from aiohttp import web

        if len(self.views.clients) >= MOST_CLIENTS:
            text = f"503: {MOST_CLIENTS} pages are connected already; close one of them\n"
            return web.Response(status=503, text=text, headers={"Connection": "close"})
        socket = web.WebSocketResponse(
            max_msg_size=MOST_BYTES, compress=False, heartbeat=HEARTBEAT_S, timeout=CLOSING_S, writer_limit=WRITE_BUFFER
        )
        client = Client(socket, self.views)
        self.views.add(client)
        try:
            await socket.prepare(request)
            self._streams.add(request.transport)
            request.transport.set_write_buffer_limits(high=WRITE_BUFFER)
            client.connect(request.transport, self.views.now())
            self._pipeline.begin()
            await _until_one_ends(client.send_all(), client.receive_all())
        finally:
            self.views.remove(client)
        return socket

    async def _tick(self, connections):
        while True:
            await asyncio.sleep(TICK_S)
            self._pipeline.check()
            now = self.views.now()
            for client in self.views.clients:
                client.tick(now)
            self._close_idle(connections.connections, now)

    def _close_idle(self, connections, now):
        """Close connections that ask for nothing, so that they cannot use up the files that a process may open."""
        transports = [each.transport for each in connections if each.transport is not None]
        idle = [each for each in transports if each not in self._streams]
        for place, transport in enumerate(reversed(idle)):  # the newest first
            if now - self._seen.setdefault(transport, now) > IDLE_S or place >= MOST_IDLE:
                transport.abort()


async def _send_nothing(request):
    """Answer the request for an icon that browsers make by themselves."""
    from aiohttp import web

    return web.Response(status=204)


async def _add_headers(request, response):
    response.headers.update(HEADERS)


async def _until_one_ends(*parts):
    """Run coroutines until one ends, and cancel the others. A connection that breaks is no error."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    await asyncio.wait(tasks)
    for task in done:
        with contextlib.suppress(ConnectionError):
            task.result()


def stop_on_signals(loop):
    """Return a future of the number of the signal that ends the server, where the system has such signals.

    Elsewhere (Windows, or another thread than the main one) the signal raises an exception in the main thread.
    """
    stop = loop.create_future()

    def end(number):
        if not stop.done():
            stop.set_result(number)

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, end, number)
    return stop
