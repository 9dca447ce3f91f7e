"""Files that appear whole or not at all."""

import pytest

from sonogravity.common import files


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    files.write_whole(path, lambda beside, text: beside.write_text(text), "old")
    with pytest.raises(RuntimeError), files.whole(path) as beside:
        beside.write_text("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
