"""A bar on a terminal, lines in a file."""

import io
import re
import sys

from sonogravity.common import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(progress.bar(iter("abc"), "frames", 3, "frame")) == ["a", "b", "c"]
    assert "\r" in sys.stderr.getvalue() and "\n" not in sys.stderr.getvalue().strip()


def test_redirected_output_has_lines_and_no_pieces_of_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0)
    bar = progress.bar(iter("abc"), "epoch 1/2", 3, "batch")
    for _ in bar:
        bar.set_postfix_str("loss 0.5", refresh=False)
    said = capsys.readouterr().err
    lines = said.splitlines()
    assert "\r" not in said and len(lines) >= 3 and all(lines)
    assert all(re.fullmatch(r"epoch 1/2: \d of 3 batch, \S+ elapsed, \S+ left(, loss 0\.5)?", line) for line in lines)


def test_a_short_loop_prints_nothing_into_a_file(capsys):
    assert list(progress.bar(range(3), "frames", 3, "frame")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
