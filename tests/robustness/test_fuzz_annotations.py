"""Fuzzing of annotation files: damaged ones give drawings or one InputError, nothing else."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
from annotation_files import coco, write_coco, write_cvat_images, write_cvat_video, write_labelme
from hypothesis import given
from hypothesis import strategies as st
from test_fuzz import damaged, in_one_folder

from sonogravity.common.messages import InputError
from sonogravity.datasets.annotation_pairs import match, read_annotations
from sonogravity.datasets.annotations import class_values
from sonogravity.datasets.file_kinds import kind_of
from sonogravity.datasets.frame_files import FrameFile
from sonogravity.datasets.shapes import draw

SIZE = (20, 24)
BOX = np.zeros(SIZE, bool)
BOX[4:9, 3:12] = True
DRAWING = [("bone", [(2, 3), (12, 3), (12, 13)]), ("skin", BOX)]
TRACKS = [("bone", {1: DRAWING[0][1], 4: DRAWING[0][1], 5: None}), ("skin", {2: BOX, 3: None})]
WRITERS = {
    "LabelMe": lambda path: write_labelme(path, DRAWING, SIZE, "a.png"),
    "COCO": lambda path: write_coco(path, {"a.png": DRAWING, "b.png": []}, SIZE, {"bone": 1, "skin": 2}),
    "CVAT": lambda path: write_cvat_images(path, {"a.png": DRAWING}, SIZE, ["bone", "skin"]),
    "CVAT video": lambda path: write_cvat_video(path, TRACKS, SIZE, ["bone", "skin"], "a.mp4", (0, 6)),
}
IMAGES = {"a": FrameFile(Path("a.png"))}


def use(path):
    """All that convert does with an annotation file, apart from images."""
    if not kind_of(path).endswith("annotation"):
        return
    try:
        found = read_annotations(path)
        values = class_values([found])
        match(found.drawings, IMAGES)
    except InputError as error:
        assert path.name in str(error)
        return
    for drawing in found.drawings:
        areas = [shape.area for shape in drawing.shapes]
        mask, _ = draw(areas, [values[shape.label] for shape in drawing.shapes], SIZE)
        assert mask.shape == SIZE


@pytest.mark.parametrize("kind", WRITERS)
def test_damaged_bytes(tmp_path, kind):
    path = tmp_path / ("a.xml" if "CVAT" in kind else "a.json")
    seed = WRITERS[kind](path).read_bytes()

    @in_one_folder
    @given(damaged([seed]))
    def check(content):
        path.write_bytes(content)
        use(path)

    check()


ODD = st.sampled_from(
    [None, True, -1, 0, 3, 2.5, 1e308, float("nan"), 10**30, "", "x", "1,2", [], [1], [[1, 2]], {}, {"a": 1}, "é\0"]
)


def places(node, path=()):
    """The paths of all values in a tree of lists and dictionaries."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


@pytest.mark.parametrize("kind", ["LabelMe", "COCO"])
def test_any_value_replaced_by_another(tmp_path, kind):
    path = tmp_path / "a.json"
    good = json.loads(WRITERS[kind](path).read_text())

    @in_one_folder
    @given(st.sampled_from(list(places(good))), ODD)
    def check(place, value):
        content = copy.deepcopy(good)
        node = content
        for key in place[:-1]:
            node = node[key]
        node[place[-1]] = value
        path.write_text(json.dumps(content), encoding="utf-8")
        use(path)

    check()


@pytest.mark.parametrize("kind", ["CVAT", "CVAT video"])
def test_any_attribute_replaced_by_another(tmp_path, kind):
    path = tmp_path / "a.xml"
    text = WRITERS[kind](path).read_text()
    quoted = [found.span(1) for found in re.finditer(r'="([^"]*)"', text)]

    @in_one_folder
    @given(
        st.sampled_from(quoted), st.sampled_from(["", "x", "-1", "1e308", "nan", "inf", "99999999999", "1,2;3", "0"])
    )
    def check(place, value):
        path.write_text(text[: place[0]] + value + text[place[1] :], encoding="utf-8")
        use(path)

    check()


def test_a_hostile_file_does_not_take_the_memory(tmp_path):
    huge = {"size": [10**9, 10**9], "counts": [10**18]}
    content = coco({"a.png": [("bone", huge)]}, SIZE, {"bone": 1})
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="annotation 1: cannot be drawn"):
        read_annotations(tmp_path / "a.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    assert kind_of(tmp_path / "deep.json") == "JSON"
