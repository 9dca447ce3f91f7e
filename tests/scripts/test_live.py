"""live.py as a user runs it: what it refuses before it begins, what it prints, and how it ends."""

import asyncio
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys

import aiohttp
import pytest
from conftest import make_folder, simple_frame
from live_parts import Page
from sequence_files import write_video, write_volume

from sonogravity.common import folders
from sonogravity.live import server
from unet import live

LIMIT_S = 120  # of a whole subprocess, of which most starts torch
SECRET = folders.ROOT / "tests" / "fixtures" / "live"


@pytest.fixture(scope="module")
def best(trained):
    return trained / "checkpoints" / "unet" / "run" / "best.pth"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "sweep.mkv", [simple_frame(k)[0] for k in range(5)], rate=25)


def line_of(best, source, *options):
    return [str(each) for each in ("--load", best, "--source", source, "--device", "cpu", "--no-browser", *options)]


def test_a_port_in_use_is_one_line(best, clip, refused):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused(live.main, line_of(best, clip, "--port", port))
    assert f"--port {port}: cannot listen there" in said and "another --port" in said


def test_a_missing_aiohttp_is_one_line_that_installs_it(best, clip, refused, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None if name == "aiohttp" else find(name))
    assert "pip install -e '.[live]'" in refused(live.main, line_of(best, clip))


def test_what_cannot_be_played_is_refused(best, clip, tmp_path, refused):
    for options, text in (
        (["--crop", "0,0,37,40"], "is 36x40"),
        (["--crop", "1,2,3"], "is not a rectangle"),
        (["--speed", "0"], "a speed above 0"),
        (["--certificate", SECRET / "certificate.pem"], "belong together"),
        (["--engine", "tensorrt"], "invalid choice"),
        (["--port", "70000"], "a port from 0 to 65535"),
        (["--host", "192.0.2.7"], "cannot listen there"),
        (["--spacing", tmp_path / "missing.csv"], "missing.csv"),
    ):
        assert text in refused(live.main, line_of(best, clip, *options)), options
    assert "no such file" in refused(live.main, line_of(best, tmp_path / "missing"))
    assert "neither a file nor a run" in refused(live.main, line_of("no_run", clip))
    volume = write_volume(tmp_path / "volume.mha", [simple_frame(k)[0] for k in range(3)])
    assert "has no times" in refused(live.main, line_of(best, volume, "--smooth", "0.1"))


def first_lines(process):
    """What the script prints up to its address; the address last."""
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if line.startswith("address:"):
            return lines, line.split()[1]
    raise AssertionError(process.stderr.read())


async def watch(url, count):
    """Look at the page, and paint that many frames."""
    async with aiohttp.ClientSession() as session:
        async with session.get(url) as answer:
            assert answer.status == 200 and "html" in answer.headers["Content-Type"]
        stream = url.replace("http", "ws", 1).replace("/?", "/stream?")
        async with session.ws_connect(stream, max_msg_size=0) as connection:
            page = Page(connection)
            while len(page.frames) < count:
                assert await page.until("frame", 20)
                await page.paint()
            return page


@pytest.mark.parametrize(
    ("name", "code", "engine"), [("SIGINT", 130, "torch"), ("SIGTERM", 143, "auto")], ids=["Ctrl-C", "SIGTERM"]
)
def test_it_labels_until_a_signal_and_ends_with_its_figures(best, clip, name, code, engine):
    line = line_of(best, clip, "--loop", "--engine", engine, "--crop", "0,0,30,40", "--pixels-per-mm", "2")
    environment = {**os.environ, "PYTHONPATH": str(folders.ROOT)}
    process = subprocess.Popen(
        [sys.executable, folders.ROOT / "unet" / "live.py", *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        lines, url = first_lines(process)
        text = "\n".join(lines)
        assert re.search(r"model: .*best\.pth, unet, epoch \d, [\d,]+ parameters", text)
        assert re.search(rf"runs on: .*cpu, float32, \d+ threads?, engine {'torch' if engine == 'torch' else ''}", text)
        assert "source:     sweep.mkv, 5 frames of 30x40, crop 0,0,30,40, speed 1, in a loop" in text
        assert ("--engine auto: " in text) == (engine == "auto")
        page = asyncio.run(asyncio.wait_for(watch(url, 7), LIMIT_S))
        assert page.hellos[0]["pixels_per_mm"] == [2, 2] and page.hellos[0]["crop"] == [0, 0, 30, 40]
        assert all(labels.shape == (40, 30) for _, _, labels in page.frames)
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
    assert process.returncode == code
    assert re.fullmatch(
        r"\d+ frames labelled, [\d.]+ frames/s, \d+ painted, latency p50 \d+ ms, p95 \d+ ms, dropped: reader 0, "
        r"network \d+, encoder \d+, client \d+",
        out.strip().splitlines()[-1],
    )
    assert "Traceback" not in err and err.strip().splitlines()[-1] == "interrupted"


def test_opening_it_to_the_network_is_said_loudly(best, tmp_path):
    make_folder(tmp_path / "stills", subjects=("A",), frames=2)
    for more, text in (
        ([], "NOT ENCRYPTED"),
        (
            ["--certificate", SECRET / "certificate.pem", "--key", SECRET / "key.pem"],
            "anyone with the address sees the frames",
        ),
    ):
        line = line_of(best, tmp_path / "stills", "--host", "0.0.0.0", "--engine", "torch", *more)
        process = subprocess.Popen(
            [sys.executable, folders.ROOT / "unet" / "live.py", *line],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(folders.ROOT)},
        )
        try:
            _, url = first_lines(process)
            for line in process.stdout:
                if "Ctrl-C ends" in line:
                    break
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
        assert text in err and ("https" in url) == bool(more)
        assert out.startswith("0 frames labelled")
