"""Measure live labelling: latency from capture to acknowledgement, frames per second, dropped frames, memory.

    python benchmarks/live.py --checkpoint CKPT --images FOLDER --engine torch openvino --rate 30 60 --seconds 120

The images of --images become an H.264 clip of --rate frames per second, which live.py plays in a loop. The client is
bare: it only acknowledges each frame, as soon as it has it, or after --slow milliseconds, as a page on a slow computer
does. With --browser the page itself, in a headless Chromium that is installed, paints the frames. Requires
``pip install -e ".[live,formats]"``, for --browser also playwright.

The output is a Markdown table. The latency ends when the acknowledgement is sent. first, last: p95 of the first and of
the last ten seconds, which must not differ if nothing queues. The first two seconds are not counted. MB: resident
memory of the server after these two seconds and at the end. With --browser the figures are medians of those that the
server sends once a second for the last ten seconds, and p99 is unknown.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import aiohttp
import av
import numpy as np
import torch
from PIL import Image

from sonogravity.common import choices
from sonogravity.common.option_types import non_negative_float, positive_int, scale_factor
from sonogravity.live import protocol

ROOT = Path(__file__).resolve().parent.parent
WARM_UP_S, PART_S = 2.0, 10.0
CLIP_S = 10  # length of the clip; the images are repeated
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
STAGES = ("reader", "network", "encoder", "client")
HEADINGS = (
    *("checkpoint", "engine", "source/s", "client", "frames/s", "p50 ms", "p95 ms", "p99 ms", "first p95", "last p95"),
    *(f"dropped {stage}" for stage in STAGES),
    *("MB start", "MB end"),
)


def write_clip(path, images, rate):
    """Write image files as a grey H.264 video, repeated up to CLIP_S seconds. All must be of the size of the first."""
    frames = [np.array(Image.open(image).convert("L")) for image in images]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "veryfast"})
        stream.height, stream.width = frames[0].shape
        stream.pix_fmt = "yuv420p"
        for number in range(CLIP_S * rate):
            picture = av.VideoFrame.from_ndarray(frames[number % len(frames)], format="gray")
            picture.pts, picture.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def memory_mb(process):
    """Return the resident memory of a process, NaN where the system does not tell (not Linux)."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024
    return float("nan")


def start(checkpoint, clip, engine, scale):
    """Start live.py of the checkpoint's model; return the process and the address of its stream."""
    model = torch.load(checkpoint, map_location="cpu", weights_only=True)["model_name"]
    line = [sys.executable, ROOT / model / "live.py", "--load", checkpoint, "--source", clip, "--loop"]
    line += ["--engine", engine, "--device", "cpu", "--no-browser"]
    line += ["--scale", scale] if scale else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([str(each) for each in line], stdout=subprocess.PIPE, text=True, env=environment)
    for text in process.stdout:
        if text.startswith("address:"):
            return process, text.split()[1].replace("http", "ws", 1).replace("/?", "/stream?")
    sys.exit(f"{checkpoint}: live.py has ended")


@contextlib.contextmanager
def page_in_browser(url):
    """Have the page open in headless Chromium."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, BROWSERS)), None) or sys.exit(f"--browser: needs {BROWSERS[0]}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        browser.new_page(viewport={"width": 1280, "height": 900}).goto(url)
        yield
        browser.close()


async def listen(url, seconds, process):
    """Return the statistics that the server sends while a page paints, and its memory. Take no frames."""
    found, memory, begun = [], [], time.monotonic()
    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
        await socket.send_json({"type": "pause"})
        async for message in socket:
            passed = time.monotonic() - begun - WARM_UP_S
            if passed > seconds:
                break
            content = message.json() if message.type == aiohttp.WSMsgType.TEXT else {}
            if content.get("type") == "statistics" and passed > 0:
                memory += [memory_mb(process)] if not memory else []
                found.append(content)
    return found, (*memory, memory_mb(process))


def row_of_browser(found):
    """Return what row_of returns, p99 as NaN, and the dropped frames, of statistics of the server."""
    p50, p95 = ([each["latency_ms"][name] or np.nan for each in found] for name in ("p50", "p95"))
    later = found[int(PART_S) :] or found  # each figure is of the ten seconds before it
    rate = np.median([each["frames_per_s"] for each in later])
    dropped = {stage: found[-1]["dropped"][stage] - found[0]["dropped"][stage] for stage in STAGES}
    return [rate, np.nanmedian(p50), np.nanmedian(p95), np.nan, p95[min(len(p95) - 1, int(PART_S))], p95[-1]], dropped


async def look(url, seconds, slow_ms, process):
    """Return [(seconds since the start, latency in ms)], the dropped frames by stage, and the server's memory.

    The clock of the stamps is that of this process, because both run on one machine.
    """
    found, dropped, memory = [], [], []
    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
        begun = None
        async for message in socket:
            if message.type == aiohttp.WSMsgType.TEXT:
                content = message.json()
                dropped += [content["dropped"]] if content["type"] == "statistics" else []
                continue
            header = protocol.header_of(message.data)
            if slow_ms:
                await asyncio.sleep(slow_ms / 1000)
            await socket.send_json({"type": "painted", "id": header["id"]})
            now = time.monotonic()
            begun = begun or now
            passed = now - begun - WARM_UP_S
            if passed < 0:
                dropped = dropped[-1:]
                continue
            memory += [memory_mb(process)] if len(memory) < 1 else []
            found.append((passed, 1000 * now - header["captured_ms"]))
            if passed > seconds:
                break
    before = dropped[0] if dropped else dict.fromkeys(STAGES, 0)
    after = dropped[-1] if dropped else before
    return found, {stage: after[stage] - before[stage] for stage in STAGES}, (*memory, memory_mb(process))


def row_of(found, seconds):
    """Return frames per second, p50, p95, p99, and p95 of the first and of the last part."""
    times, latencies = np.array(found).T
    parts = (latencies[times < PART_S], latencies[times > seconds - PART_S])
    return [len(found) / seconds, *np.percentile(latencies, [50, 95, 99]), *(np.percentile(p, 95) for p in parts)]


def measure(checkpoint, clip, engine, options):
    """Return the cells of one row from the frames per second on."""
    process, url = start(checkpoint, clip, engine, options.scale)
    try:
        if options.browser:
            address = url.replace("ws", "http", 1).replace("/stream?", "/?")
            with page_in_browser(address), ThreadPoolExecutor(1) as pool:  # playwright has this thread's event loop
                found, memory = pool.submit(asyncio.run, listen(url, options.seconds, process)).result()
            row, dropped = row_of_browser(found)
        else:
            found, dropped, memory = asyncio.run(look(url, options.seconds, options.slow, process))
            row = row_of(found, options.seconds)
    finally:
        process.terminate()
        process.communicate(timeout=60)
    figures = [f"{figure:.1f}" for figure in row]
    return [*figures, *(str(dropped[stage]) for stage in STAGES), *(f"{each:.0f}" for each in memory)]


def print_row(cells):
    print(f"| {' | '.join(cells)} |", flush=True)


def build_parser():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--checkpoint", type=Path, nargs="+", required=True, metavar="CKPT")
    add("--images", type=Path, required=True, metavar="FOLDER", help="images of one size")
    add("--engine", nargs="+", choices=choices.ENGINES, default=["torch", "openvino"])
    add("--rate", type=positive_int, nargs="+", default=[30, 60], metavar="N", help="frames per second of the source")
    add("--seconds", type=positive_int, default=120, metavar="S", help="of each row, after the warm-up")
    add("--scale", type=scale_factor, metavar="S", help="as for live.py (default: as in training)")
    add("--browser", action="store_true", help="measure the page in an installed Chromium instead of a bare client")
    add("--slow", type=non_negative_float, default=0, metavar="MS", help="the client waits before it acknowledges")
    return parser


def main(argv=None):
    options = build_parser().parse_args(argv)
    images = sorted(options.images.iterdir())
    print_row(HEADINGS)
    print_row("---" for _ in HEADINGS)
    with tempfile.TemporaryDirectory() as root:
        for rate in options.rate:
            clip = Path(root) / f"clip_{rate}.mp4"
            write_clip(clip, images, rate)
            for checkpoint in options.checkpoint:
                for engine in options.engine:
                    name = f"{checkpoint.parent.name}/{checkpoint.name}"
                    client = "Chromium" if options.browser else f"waits {options.slow:g} ms" if options.slow else "bare"
                    print_row([name, engine, str(rate), client, *measure(checkpoint, clip, engine, options)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
