"""The figures of a live view: of the last ten seconds, and of the whole run, in bounded memory."""

import pytest

from sonogravity.live.statistics import MOST_KEPT, Statistics

NOTHING_LOST = {"reader": 0, "network": 0, "encoder": 0, "client": 0}


def test_rates_and_latencies_are_those_of_the_last_ten_seconds():
    statistics = Statistics()
    for k in range(600):  # 20 s at 30 frames per second, every second frame labelled
        now = k / 30
        statistics.note_read(now)
        if k % 2 == 0:
            statistics.note_labelled(now)
            statistics.note_painted(now, now - (0.5 if k < 300 else 0.03))
    found = statistics.recent(20.0)
    assert found["source_frames_per_s"] == pytest.approx(30, abs=0.2)
    assert found["frames_per_s"] == pytest.approx(15, abs=0.2)
    assert found["latency_ms"] == {"p50": 30.0, "p95": 30.0}
    assert statistics.recent(40.0) == {
        "frames_per_s": 0.0,
        "source_frames_per_s": 0.0,
        "latency_ms": {"p50": None, "p95": None},
    }


def test_a_young_source_has_its_rate_at_once():
    statistics = Statistics()
    for k in range(6):
        statistics.note_read(k / 30)
    assert statistics.recent(6 / 30)["source_frames_per_s"] == pytest.approx(30, abs=0.1)


def test_the_line_at_the_end_is_about_the_whole_run():
    statistics = Statistics()
    assert statistics.describe_all(NOTHING_LOST).startswith("0 frames labelled, no frames/s, none painted, dropped: ")
    for k in range(101):
        statistics.note_labelled(k / 20)
        statistics.note_painted(k / 20 + k / 1000, k / 20)
    line = statistics.describe_all({"reader": 1, "network": 2, "encoder": 3, "client": 4})
    assert line == (
        "101 frames labelled, 20.0 frames/s, 101 painted, latency p50 50 ms, p95 95 ms, "
        "dropped: reader 1, network 2, encoder 3, client 4"
    )


def test_memory_does_not_grow():
    statistics = Statistics()
    for k in range(MOST_KEPT + 100):
        statistics.note_read(k * 1e-6)
        statistics.note_painted(k * 1e-6, -1e9)
    assert len(statistics._read) == len(statistics._latencies) == MOST_KEPT
