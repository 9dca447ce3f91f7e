"""The server over a real loopback socket: who is let in, what clients get, and what they cannot do."""

import asyncio
import json
import socket
import ssl
import threading

import aiohttp
import numpy as np
import pytest
from live_parts import (
    FedSource,
    page_of,
    picture,
    run,
    serving,
    stand_in_pipeline,
    stream_url,
)

from sonogravity.common import folders
from sonogravity.common.messages import InputError
from sonogravity.datasets.spacing import Spacing
from sonogravity.live import clients, server, status
from sonogravity.live.gate import tls_context

SECRET = folders.ROOT / "tests" / "fixtures" / "live"
SECURITY = ("Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy", "Cache-Control")


async def status_of(gate, path, scheme=None, **headers):
    """The status of a request, after a look at its headers."""
    async with aiohttp.ClientSession() as session:
        url = f"{scheme or gate.scheme}://127.0.0.1:{gate.port}{path}"
        async with session.get(url, headers=headers) as answer:
            assert all(name in answer.headers for name in SECURITY), path
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
            return answer.status


async def refusal_of(gate, url=None, **headers):
    """The status with which a stream is refused; None if it is not."""
    async with aiohttp.ClientSession() as session:
        try:
            async with session.ws_connect(url or stream_url(gate), headers=headers):
                return None
        except aiohttp.WSServerHandshakeError as error:
            return error.status


def test_the_page_needs_the_token_and_its_script_and_style_do_not():
    async def scenario():
        async with serving(stand_in_pipeline()) as (gate, _):
            assert await status_of(gate, f"/?token={gate.token}") == 200
            assert await status_of(gate, "/live.js") == await status_of(gate, "/live.css") == 200
            for path in ("/", "/?token=", "/?token=wrong", "/?token=%C3%A9%ff", f"/?token={gate.token}x"):
                assert await status_of(gate, path) == 403
            assert await status_of(gate, f"/../server.py?token={gate.token}") == 404
            assert await status_of(gate, "/nothing") == 404

    run(scenario())


def test_a_stream_without_the_token_or_from_elsewhere_is_refused():
    async def scenario():
        async with serving(stand_in_pipeline()) as (gate, view):
            own = f"127.0.0.1:{gate.port}"
            assert await refusal_of(gate, stream_url(gate, "wrong")) == 403
            assert await refusal_of(gate, f"ws://{own}/stream") == 403
            for origin in ("http://evil.example", f"https://{own}", "http://127.0.0.1:1", "null", f"http://{own}.evil"):
                assert await refusal_of(gate, Origin=origin) == 403, origin
            for host in ("evil.example", f"evil.example:{gate.port}", "127.0.0.1:1", f"x@{own}", "127.0.0.1:x", "a b"):
                assert await refusal_of(gate, Host=host) == 403, host
                assert await status_of(gate, "/live.js", Host=host) == 403, host
            assert not view.views.clients
            assert await refusal_of(gate) is None
            assert await refusal_of(gate, Origin=f"http://{own}") is None
            local = f"localhost:{gate.port}"
            assert await refusal_of(gate, Host=local, Origin=f"http://{local}") is None

    run(scenario())


def test_a_page_gets_hello_and_then_frames_with_their_labels():
    async def scenario():
        source = FedSource()
        async with serving(stand_in_pipeline(source)) as (gate, _), page_of(gate) as page:
            source.put(picture(200), picture(250))
            assert await page.until("frame")
            [hello] = page.hellos
            assert (hello["protocol"], hello["model"], hello["run"], hello["engine"]) == (1, "unet", "first", "torch")
            assert (hello["width"], hello["height"], hello["pixels_per_mm"], hello["steering"]) == (36, 40, None, True)
            assert hello["classes"] == [
                {"index": 1, "name": "bone", "colour": [230, 159, 0]},
                {"index": 2, "name": "ligament", "colour": [86, 180, 233]},
            ]
            header, frame, labels = page.frames[0]
            image = np.frombuffer(frame, np.uint8).reshape(40, 36)
            assert np.array_equal(labels, (image > 100).astype(np.uint8) + (image > 180))
            assert header["confidence"] == {"1": 0.9, "2": None} and header["unit"] == "px"
            assert header["measurements"]["1"]["area"] == 140 and header["measurements"]["1"]["top"] == 5.5
            assert (header["width"], header["height"], header["name"]) == (36, 40, f"frame_{header['id']}")

    run(scenario())


def test_another_size_or_spacing_is_said_before_the_frame():
    async def scenario():
        source = FedSource()
        async with serving(stand_in_pipeline(source)) as (gate, _), page_of(gate) as page:
            source.put(picture())
            assert await page.until("frame")
            await page.paint()
            source.spacing = Spacing(9.5, 9.4)
            source.put(picture(size=(24, 30)))
            assert await page.until("hello") and await page.until("frame")
            assert (page.hellos[1]["width"], page.hellos[1]["height"]) == (30, 24)
            assert page.hellos[1]["pixels_per_mm"] == [9.5, 9.4]
            assert page.frames[1][2].shape == (24, 30) and page.frames[1][0]["unit"] == "mm"

    run(scenario())


def test_a_client_that_acknowledges_nothing_gets_two_frames_and_the_others_are_counted():
    async def scenario():
        source = FedSource()
        pipeline = stand_in_pipeline(source)
        async with serving(pipeline) as (gate, view), page_of(gate) as page:
            for number in range(1, 8):
                source.put(picture())
                while view.views.newest is None or view.views.newest.id < number:
                    await asyncio.sleep(0.002)
                await asyncio.sleep(0.01)
            assert await page.until("frame") and await page.until("frame")
            assert not await page.until("frame", 0.3)
            assert [frame[0]["id"] for frame in page.frames] == [1, 2]
            assert view.views.dropped == {"reader": 0, "network": 0, "encoder": 0, "client": 4}  # 3 to 6
            await page.paint()  # of 2, so 1 is no longer awaited either
            assert await page.until("frame") and page.frames[-1][0]["id"] == 7
            assert await page.until("statistics", 3)
            assert page.statistics[-1]["dropped"]["client"] == 4
            assert page.statistics[-1]["latency_ms"]["p50"] > 0

    run(scenario())


NOISE = np.random.default_rng(0).integers(0, 90, (2000, 3000), dtype=np.uint8)


async def connect_deaf(gate, view, deaf):
    """Ask for the stream by hand, with a socket that is never read from."""
    loop = asyncio.get_running_loop()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.setblocking(False)
    await loop.sock_connect(deaf, ("127.0.0.1", gate.port))
    request = [
        f"GET /stream?token={gate.token} HTTP/1.1",
        f"Host: 127.0.0.1:{gate.port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {'A' * 22}==",
    ]
    count = len(view.views.clients)
    await loop.sock_sendall(deaf, "\r\n".join([*request, "", ""]).encode())
    while len(view.views.clients) == count:
        await asyncio.sleep(0.01)


def test_a_client_that_stops_reading_is_closed_and_harms_no_other(monkeypatch):
    monkeypatch.setattr(clients, "STALLED_S", 0.2)
    monkeypatch.setattr(server, "TICK_S", 0.1)

    async def scenario():
        source = FedSource(NOISE.shape)
        async with serving(stand_in_pipeline(source)) as (gate, view), page_of(gate) as page:
            with socket.socket() as deaf:
                await connect_deaf(gate, view, deaf)
                for _ in range(40):
                    source.put(NOISE)
                    assert await page.until("frame")
                    await page.paint()
                    if len(view.views.clients) == 1:
                        break
                    await asyncio.sleep(0.05)
                assert len(view.views.clients) == 1, "the deaf client is closed"
                source.put(NOISE)
                assert await page.until("frame"), "the other one still gets frames"

    run(scenario())


def test_a_client_that_stops_reading_does_not_hold_up_the_end(monkeypatch):
    monkeypatch.setattr(server, "CLOSING_S", 0.3)

    async def scenario():
        source = FedSource(NOISE.shape)
        with socket.socket() as deaf:
            async with serving(stand_in_pipeline(source)) as (gate, view):
                await connect_deaf(gate, view, deaf)
                for number in (1, 2, 3):
                    source.put(NOISE)
                    while view.views.newest is None or view.views.newest.id < number:
                        await asyncio.sleep(0.01)
                begun = asyncio.get_running_loop().time()
            assert asyncio.get_running_loop().time() - begun < 5

    run(scenario())


BAD = ["x", "[]", '{"type": "painted"}', json.dumps({"type": "steer", "smooth_seconds": -1}), b"\0\1"]


@pytest.mark.parametrize("message", [*BAD, "y" * (2**16 + 1)], ids=["text", "list", "id", "steer", "binary", "size"])
def test_a_malformed_or_oversized_message_closes_its_client_only(message):
    async def scenario():
        source = FedSource()
        async with serving(stand_in_pipeline(source)) as (gate, _), page_of(gate) as other, page_of(gate) as page:
            await (page.socket.send_bytes if isinstance(message, bytes) else page.socket.send_str)(message)
            assert await page.until("closed")
            assert page.socket.close_code == (1009 if len(message) > 2**16 else 1008)
            source.put(picture())
            assert await other.until("frame")

    run(scenario())


def test_the_first_page_steers_and_the_next_one_when_it_leaves():
    async def scenario():
        pipeline = stand_in_pipeline()
        async with serving(pipeline) as (gate, _), page_of(gate) as first, page_of(gate) as other:
            assert await first.until("hello") and await other.until("hello")
            assert first.hellos[0]["steering"] and not other.hellos[0]["steering"]
            await other.say(type="steer", smooth_seconds=0.2)
            assert await other.until("state") and "opened first" in other.states[-1]["text"]
            assert pipeline.labelling.smooth_seconds is None
            await first.say(type="steer", smooth_seconds=0.3)
            assert await first.until("hello") and await other.until("hello")
            assert first.hellos[-1]["smooth_seconds"] == other.hellos[-1]["smooth_seconds"] == 0.3
            assert pipeline.labelling.smooth_seconds == 0.3
            await first.socket.close()
            assert await other.until("hello") and other.hellos[-1]["steering"]
            await other.say(type="steer", smooth_seconds=None)
            assert await other.until("hello") and other.hellos[-1]["smooth_seconds"] is None

    run(scenario())


def test_smoothing_without_times_is_refused_with_a_word():
    async def scenario():
        source = FedSource()
        source.has_times = False
        async with serving(stand_in_pipeline(source)) as (gate, _), page_of(gate) as page:
            await page.say(type="steer", smooth_seconds=0.2)
            assert await page.until("state") and "no times" in page.states[-1]["text"]

    run(scenario())


def test_a_paused_page_gets_no_frames_and_the_newest_one_when_it_resumes():
    async def scenario():
        source = FedSource()
        async with serving(stand_in_pipeline(source)) as (gate, view), page_of(gate) as page:
            await page.say(type="pause")
            while not view.views.clients[0].paused:
                await asyncio.sleep(0.01)
            for number in (1, 2, 3):
                source.put(picture())
                while view.views.newest is None or view.views.newest.id < number:
                    await asyncio.sleep(0.002)
            assert not await page.until("frame", 0.2)
            await page.say(type="resume")
            assert await page.until("frame") and page.frames[-1][0]["id"] == 3
            assert view.views.dropped["client"] == 0, "frames that nobody wanted are not lost"
            await page.paint()
            await asyncio.sleep(0.05)
            assert view.views.statistics(view.views.now())["latency_ms"]["p50"] is None, "an old frame has no latency"

    run(scenario())


def test_the_last_frame_stays_for_pages_that_come_later():
    async def scenario():
        source = FedSource()
        async with serving(stand_in_pipeline(source)) as (gate, _):
            async with page_of(gate) as page:
                source.put(picture(), None)
                assert await page.until("frame") and (page.states or await page.until("state"))
            async with page_of(gate) as page:
                assert await page.until("frame")
                assert page.frames[-1][0]["id"] == 1 and "ended" in page.states[-1]["text"]

    run(scenario())


def test_the_source_waits_for_the_first_page():
    async def scenario():
        source = FedSource()
        source.put(picture())
        async with serving(stand_in_pipeline(source)) as (gate, _):
            await asyncio.sleep(0.1)
            assert source.items.qsize() == 1
            async with page_of(gate) as page:
                assert await page.until("frame")

    run(scenario())


def test_a_fault_of_a_frame_is_shown_for_a_while(monkeypatch, capsys):
    monkeypatch.setattr(server, "TICK_S", 0.05)
    monkeypatch.setattr(status, "SHOWN_S", 0.3)

    async def scenario():
        source = FedSource()
        async with serving(stand_in_pipeline(source)) as (gate, view), page_of(gate) as page:
            source.put(InputError("clip.mkv, frame 3: cannot be read"), picture())
            assert await page.until("frame")
            assert page.states or await page.until("state")
            assert page.states[0]["text"] == "clip.mkv, frame 3: cannot be read"
            assert await page.until("state") and page.states[-1]["text"] == ""
            assert view.views.dropped["reader"] == 1

    run(scenario())
    assert capsys.readouterr().err.count("frame 3: cannot be read") == 1


def test_the_seventeenth_page_is_refused_and_a_hundred_more():
    async def scenario():
        source = FedSource()
        async with serving(stand_in_pipeline(source)) as (gate, view), aiohttp.ClientSession() as session:
            pages = [await session.ws_connect(stream_url(gate), max_msg_size=0) for _ in range(server.MOST_CLIENTS)]
            refusals = await asyncio.gather(*(refusal_of(gate) for _ in range(100)))
            assert refusals == [503] * 100
            source.put(picture())
            for page in pages:
                while (message := await page.receive(5)).type != aiohttp.WSMsgType.BINARY:
                    assert message.type == aiohttp.WSMsgType.TEXT
            await pages[3].close()
            while len(view.views.clients) == server.MOST_CLIENTS:
                await asyncio.sleep(0.01)
            assert await refusal_of(gate) is None

    run(scenario())


def test_connections_that_ask_for_nothing_are_closed_and_the_view_goes_on(monkeypatch):
    monkeypatch.setattr(server, "TICK_S", 0.1)
    monkeypatch.setattr(server, "IDLE_S", 0.3)

    async def scenario():
        source = FedSource()
        async with serving(stand_in_pipeline(source)) as (gate, _), page_of(gate) as page:
            idle = [await asyncio.open_connection("127.0.0.1", gate.port) for _ in range(200)]
            idle[0][1].write(b"GET / HTTP/1.1\r\nHost: ")  # a request that never ends
            ends = await asyncio.gather(*(reader.read() for reader, _ in idle), return_exceptions=True)
            assert all(end == b"" or isinstance(end, ConnectionError) for end in ends)
            for _, writer in idle:
                writer.close()
            source.put(picture())
            assert await page.until("frame")

    run(scenario())


def test_with_a_certificate_the_stream_is_encrypted():
    tls = tls_context(SECRET / "certificate.pem", SECRET / "key.pem")
    trusted = ssl.create_default_context(cafile=SECRET / "certificate.pem")

    async def scenario():
        source = FedSource()
        async with serving(stand_in_pipeline(source), tls) as (gate, _):
            assert gate.url.startswith("https://127.0.0.1:")
            source.put(picture())
            async with page_of(gate, ssl=trusted) as page:
                assert await page.until("frame")
            with pytest.raises(aiohttp.ClientError):
                await status_of(gate, "/live.js", scheme="http")

    run(scenario())


def test_a_fault_of_the_program_ends_the_server_with_it():
    class Broken(FedSource):
        def read(self, stop):
            raise KeyError("a fault of the program")

    async def scenario():
        async with serving(stand_in_pipeline(Broken())) as (gate, _), page_of(gate) as page:
            await page.until("closed")

    with pytest.raises(KeyError, match="a fault of the program"):
        run(scenario())


def test_no_thread_and_no_socket_is_left():
    before = threading.active_count()
    ports = []

    async def scenario():
        source = FedSource()
        async with serving(stand_in_pipeline(source)) as (gate, _), page_of(gate) as page:
            ports.append(gate.port)
            source.put(picture())
            assert await page.until("frame")

    run(scenario())
    assert threading.active_count() == before
    with socket.socket() as again:
        assert again.connect_ex(("127.0.0.1", ports[0])) != 0
