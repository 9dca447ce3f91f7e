"""The messages between the server and its pages, as docs/live.md describes them."""

import json
import math
import struct
from dataclasses import dataclass

import numpy as np

PROTOCOL = 1
MOST_BYTES = 2**16  # of a message from a client
MOST_SMOOTHING_S = 60  # as --smooth allows
RUN_BITS = 24  # of a run's length; the class index is in the bits above
LONGEST_RUN = 2**RUN_BITS - 1


class MalformedMessage(ValueError):
    """A message of a client that the protocol does not allow. The text says why."""


@dataclass(frozen=True)
class Painted:
    """The client has painted the frame ``id``."""

    id: int


@dataclass(frozen=True)
class Pause:
    """The client wants no frames, or frames again. paused: which of both."""

    paused: bool


@dataclass(frozen=True)
class Steer:
    """The client sets the smoothing. None: off."""

    smooth_seconds: float | None


def read_message(text):
    """Return the Painted, Pause or Steer of a client's text. Raise MalformedMessage for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedMessage("the message is no JSON") from None
    kind = found.get("type") if isinstance(found, dict) else None
    if kind == "painted":
        if not _is_number(found.get("id"), int) or found["id"] < 0:
            raise MalformedMessage("painted needs the id of a frame")
        return Painted(found["id"])
    if kind in ("pause", "resume"):
        return Pause(kind == "pause")
    if kind == "steer":
        seconds = found.get("smooth_seconds", math.nan)
        if seconds is not None and not (_is_number(seconds, int, float) and 0 < seconds <= MOST_SMOOTHING_S):
            raise MalformedMessage(f"smooth_seconds is null, or above 0 and up to {MOST_SMOOTHING_S}")
        return Steer(seconds)
    raise MalformedMessage("the message has no known type")


def _is_number(value, *kinds):
    return isinstance(value, kinds) and not isinstance(value, bool)


def to_text(message):
    """Return a message to a client as text. Numbers that JSON does not have, such as NaN, are null."""
    return json.dumps(_finite(message), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_runs(classes):
    """Return (H, W) uint8 class indices as runs: (n,) uint32, class << 24 | number of pixels, row by row."""
    flat = classes.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(np.append(starts, flat.size))
    pieces = -(-lengths // LONGEST_RUN)
    if (pieces > 1).any():  # more than 16 million pixels of one class in a row
        starts = np.concatenate([start + LONGEST_RUN * np.arange(n) for start, n in zip(starts, pieces, strict=True)])
        lengths = np.diff(np.append(starts, flat.size))
    return (flat[starts].astype(np.uint32) << RUN_BITS | lengths.astype(np.uint32)).astype("<u4")


def of_runs(runs, size):
    """Return the (H, W) uint8 class indices of to_runs. Raise ValueError if the runs do not fill the size."""
    return np.repeat((runs >> RUN_BITS).astype(np.uint8), runs & LONGEST_RUN).reshape(size)


def pack(header, kind, frame, runs):
    """Return the bytes of a frame's message.

    header: the JSON header without the entries ``frame`` and ``labels``. kind: ``grey`` or ``jpeg``, of the bytes
    ``frame``. runs: of to_runs.
    """
    labels = runs.tobytes()
    entries = {"frame": {"kind": kind, "bytes": len(frame)}, "labels": {"kind": "runs", "bytes": len(labels)}}
    text = to_text(header | entries).encode()
    text += b" " * (-(4 + len(text)) % 8)
    return b"".join([struct.pack("<I", len(text)), text, frame, b"\0" * (-len(frame) % 4), labels])


def header_of(message):
    """Return the header of a frame's message."""
    (length,) = struct.unpack_from("<I", message)
    return json.loads(message[4 : 4 + length])


def unpack(message):
    """Return (header, bytes of the frame, (H, W) uint8 class indices) of a frame's message, as a client reads it."""
    header = header_of(message)
    start, size = 4 + struct.unpack_from("<I", message)[0], header["frame"]["bytes"]
    frame = message[start : start + size]
    labels = start + size + -size % 4
    runs = np.frombuffer(message, "<u4", header["labels"]["bytes"] // 4, labels)
    return header, frame, of_runs(runs, (header["height"], header["width"]))
