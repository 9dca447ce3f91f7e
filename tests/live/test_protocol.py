"""The messages: label maps come back bit for bit, and what the protocol does not allow is refused."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sonogravity.live import protocol
from sonogravity.live.protocol import MalformedMessage, Painted, Pause, Steer, of_runs, read_message, to_runs

maps = arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 254))


def test_runs_go_row_by_row_across_the_ends_of_rows():
    runs = to_runs(np.array([[0, 0, 2], [2, 2, 1]], np.uint8))
    assert [(int(run) >> 24, int(run) & 0xFFFFFF) for run in runs] == [(0, 2), (2, 3), (1, 1)]
    assert runs.dtype == "<u4"


@given(maps)
def test_label_maps_come_back(classes):
    assert np.array_equal(of_runs(to_runs(classes), classes.shape), classes)


def test_a_run_longer_than_its_bits_is_split():
    classes = np.zeros((4200, 8192), np.uint8)
    classes[-1, -3:] = 254
    runs = to_runs(classes)
    assert [int(run) & 0xFFFFFF for run in runs] == [2**24 - 1, 2**24 - 1, 4200 * 8192 - 3 - 2 * (2**24 - 1), 3]
    assert np.array_equal(of_runs(runs, classes.shape), classes)


@given(maps, st.binary(max_size=9), st.text(max_size=9))
def test_a_message_comes_back_and_its_parts_are_aligned(classes, frame, name):
    header = {"id": 3, "name": name, "height": classes.shape[0], "width": classes.shape[1]}
    message = protocol.pack(header, "jpeg", frame, to_runs(classes))
    found, bytes_of_frame, labels = protocol.unpack(message)
    assert header.items() <= found.items() and found["frame"] == {"kind": "jpeg", "bytes": len(frame)}
    assert bytes_of_frame == frame and np.array_equal(labels, classes)
    length = int.from_bytes(message[:4], "little")
    assert (4 + length) % 8 == 0 and (len(message) - found["labels"]["bytes"]) % 4 == 0


def test_numbers_that_json_does_not_have_are_null():
    assert protocol.to_text({"a": float("nan"), "b": {1: [float("inf"), 1.5]}}) == '{"a":null,"b":{"1":[null,1.5]}}'


def test_what_clients_may_say():
    assert read_message('{"type": "painted", "id": 17}') == Painted(17)
    assert read_message('{"type": "pause"}') == Pause(True)
    assert read_message('{"type": "resume", "more": 1}') == Pause(False)
    assert read_message('{"type": "steer", "smooth_seconds": null}') == Steer(None)
    assert read_message('{"type": "steer", "smooth_seconds": 0.1}') == Steer(0.1)


MALFORMED = [
    "",
    "x",
    "[]",
    "null",
    '"painted"',
    "{}",
    '{"type": "paint", "id": 1}',
    '{"type": ["painted"], "id": 1}',
    '{"type": "painted"}',
    '{"type": "painted", "id": "1"}',
    '{"type": "painted", "id": 1.0}',
    '{"type": "painted", "id": true}',
    '{"type": "painted", "id": -1}',
    '{"type": "painted", "id": ' + "9" * 5000 + "}",
    '{"type": "steer"}',
    '{"type": "steer", "smooth_seconds": 0}',
    '{"type": "steer", "smooth_seconds": 61}',
    '{"type": "steer", "smooth_seconds": NaN}',
    '{"type": "steer", "smooth_seconds": 1e999}',
    '{"type": "steer", "smooth_seconds": true}',
    '{"type": "steer", "smooth_seconds": "0.1"}',
    "[" * 60_000,
]


@pytest.mark.parametrize("text", MALFORMED, ids=range(len(MALFORMED)))
def test_what_the_protocol_does_not_allow_is_refused(text):
    with pytest.raises(MalformedMessage):
        read_message(text)


def test_texts_are_json_in_one_line():
    assert json.loads(protocol.to_text({"text": "a\nb"})) == {"text": "a\nb"}
    assert "\n" not in protocol.to_text({"text": "a\nb"})
