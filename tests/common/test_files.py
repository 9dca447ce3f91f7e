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


def test_a_new_file_never_replaces_one_that_appeared_meanwhile(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(FileExistsError), files.whole(path, new=True) as beside:
        beside.write_text("ours")
        path.write_text("of the user")
    assert path.read_text() == "of the user"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_leftovers_of_a_run_are_removed_but_nothing_that_a_prediction_is_writing(tmp_path):
    left = ".a.png-0123abcd.4711.partial"
    kept = [tmp_path / "predict" / "partial" / "masks" / left, tmp_path / "mine.partial"]
    gone = [tmp_path / left, tmp_path / "panels" / "epoch_005" / left]
    for path in (*kept, *gone):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    files.remove_leftovers(tmp_path)
    assert all(path.exists() for path in kept) and not any(path.exists() for path in gone)
