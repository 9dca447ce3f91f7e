"""Measure Dice and flicker of a sweep with and without smoothing over time.

    python benchmarks/flicker.py --checkpoint CKPT [CKPT ...] --images FOLDER --masks FOLDER --sweep D12_ --rate 20

The frames of --images whose names begin with --sweep are written, in the order of their names, to a lossless MKV clip
of --rate frames per second. With --numbered the last number in each name is the frame's place in the sweep, so that
time passes where frames are missing. predict.py predicts it with each checkpoint and each time constant of --smooth; 0
is without smoothing. Requires ``pip install -e ".[formats]"``.

The output is a Markdown table. flicker: share of the pixels whose label changes from a frame to the next, mean over the
pairs of frames. true flicker: the same of the masks, the reference, because structures move.
"""

import argparse
import contextlib
import importlib
import io
import json
import re
import shutil
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from sonogravity.common.option_types import positive_int

SWEEP = "sweep"  # stem of the clip
HEADINGS = ("checkpoint", "smoothing, s", "Dice", "flicker", "true flicker")


def write_clip(path, images, places, rate):
    """Write image files as the grey frames of an FFV1 video, which keeps every grey level. places: of the frames."""
    frames = [np.array(Image.open(image).convert("L")) for image in images]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.height, stream.width = frames[0].shape
        stream.pix_fmt = "gray"
        stream.codec_context.time_base = Fraction(1, rate)
        for place, frame in zip(places, frames, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="gray")
            picture.pts, picture.time_base = place - places[0], Fraction(1, rate)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def write_set(root, images, masks, places, rate):
    """Write the clip to root/images, and a copy of the mask of each of its frames to root/masks."""
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    write_clip(root / "images" / f"{SWEEP}.mkv", images, places, rate)
    for number, image in enumerate(images):
        shutil.copy(masks / image.name, root / "masks" / f"{SWEEP}_{number:06d}{image.suffix}")


def summary_of(checkpoint, data, seconds, output):
    """Return the summary.json of predict.py, run on the clip in ``data``. Its messages are not printed."""
    model = torch.load(checkpoint, map_location="cpu", weights_only=True)["model_name"]
    line = ["--load", checkpoint, "--input", data, "--output", output]
    line += ["--smooth", seconds] if seconds else []
    with contextlib.redirect_stdout(io.StringIO()):
        importlib.import_module(f"{model}.predict").main([str(each) for each in line])
    return json.loads((output / "summary.json").read_text(encoding="utf-8"))


def print_row(cells):
    print(f"| {' | '.join(cells)} |", flush=True)


def build_parser():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--checkpoint", type=Path, nargs="+", required=True, metavar="CKPT")
    add("--images", type=Path, required=True, metavar="FOLDER")
    add("--masks", type=Path, required=True, metavar="FOLDER", help="masks with the names of the images")
    add("--sweep", default="", metavar="PREFIX", help="beginning of the names of the sweep's frames (default: all)")
    add("--rate", type=positive_int, required=True, metavar="N", help="frames per second of the clip")
    add("--numbered", action="store_true", help="take the place of each frame in the sweep from its name")
    add("--smooth", type=float, nargs="+", default=[0, 0.1, 0.3], metavar="SECONDS")
    return parser


def main(argv=None):
    args = build_parser().parse_args(argv)
    images = sorted(path for path in args.images.iterdir() if path.name.startswith(args.sweep))
    if len(images) < 2:
        sys.exit(f"{args.images}: holds {len(images)} images that begin with '{args.sweep}'; at least two are needed")
    numbered = " by their numbers" * args.numbered
    print(f"{len(images)} frames, {images[0].name} to {images[-1].name}, at {args.rate} frames per second{numbered}\n")
    print_row(HEADINGS)
    print_row("---" for _ in HEADINGS)
    with tempfile.TemporaryDirectory() as root:
        data = Path(root) / "data"
        data.mkdir()
        places = [int(re.findall(r"\d+", path.stem)[-1]) for path in images] if args.numbered else range(len(images))
        write_set(data, images, args.masks, places, args.rate)
        for number, checkpoint in enumerate(args.checkpoint):
            for seconds in args.smooth:
                summary = summary_of(checkpoint, data, seconds, Path(root) / f"{number}_{seconds:g}")
                clip = summary["clips"][SWEEP]
                scores = (summary["metrics"]["dice"]["mean"], clip["flicker"], clip["true_flicker"])
                name = f"{checkpoint.parent.name}/{checkpoint.name}"
                print_row((name, f"{seconds:g}", *(f"{score:.4f}" for score in scores)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
