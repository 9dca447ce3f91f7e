"""Figures of a live view: frames per second, latency, over a sliding window and over the whole run."""

import threading
from collections import deque

import numpy as np

WINDOW_S = 10.0
MOST_KEPT = 20_000  # entries of a window, so that memory is bounded at any rate
LONGEST_MS = 60_000  # latencies above it count as this one
STAGES = ("reader", "network", "encoder", "client")


class Statistics:
    """Times of frames. Several threads may note at the same time. now: seconds of the source's clock.

    frames: the number of frames that were labelled and encoded since the start.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._read, self._labelled, self._latencies = (deque(maxlen=MOST_KEPT) for _ in range(3))
        self._all_latencies = np.zeros(LONGEST_MS + 1, np.int64)  # how many frames took so many ms
        self._span = []  # of the first and the last labelled frame
        self.frames = 0

    def note_read(self, now):
        """Count a frame that the reader has read."""
        with self._lock:
            self._read.append(now)

    def note_labelled(self, now):
        """Count a frame that is ready for the pages."""
        with self._lock:
            self.frames += 1
            self._labelled.append(now)
            self._span = [self._span[0] if self._span else now, now]

    def note_painted(self, now, captured_s):
        """Count a frame that a page has painted, and the time since it was captured."""
        latency_ms = max(0.0, 1000 * (now - captured_s))
        with self._lock:
            self._latencies.append((now, latency_ms))
            self._all_latencies[min(LONGEST_MS, round(latency_ms))] += 1

    def recent(self, now):
        """Return frames per second and latency of the last WINDOW_S seconds, as the protocol names them."""
        with self._lock:
            read, labelled = (_per_second(times, now) for times in (self._read, self._labelled))
            latencies = [latency for time_s, latency in self._latencies if time_s > now - WINDOW_S]
        p50, p95 = np.percentile(latencies, [50, 95]) if latencies else (None, None)
        return {
            "frames_per_s": round(labelled, 1),
            "source_frames_per_s": round(read, 1),
            "latency_ms": {"p50": _rounded(p50), "p95": _rounded(p95)},
        }

    def describe_all(self, dropped):
        """Return one line about the whole run. dropped: {stage: number of frames}."""
        with self._lock:
            counts, frames, span = self._all_latencies.cumsum(), self.frames, self._span
        seconds = span[1] - span[0] if span else 0
        rate = f"{(frames - 1) / seconds:.1f} frames/s" if seconds > 0 else "no frames/s"
        painted = int(counts[-1])
        latency = "none painted"
        if painted:
            p50, p95 = (int(np.searchsorted(counts, share * painted)) for share in (0.5, 0.95))
            latency = f"{painted} painted, latency p50 {p50} ms, p95 {p95} ms"
        lost = ", ".join(f"{stage} {dropped[stage]}" for stage in STAGES)
        return f"{frames} frames labelled, {rate}, {latency}, dropped: {lost}"


def _per_second(times, now):
    """Return how many of the times lie in the window, per second of it; of a younger source, of its own age."""
    while times and times[0] <= now - WINDOW_S:
        times.popleft()
    if len(times) < 2 or now <= times[0]:
        return 0.0
    return len(times) / (now - times[0])


def _rounded(value):
    return None if value is None else round(float(value), 1)
