"""Annotation files: every format gives the same drawing, and what is wrong in one is refused with its place."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from annotation_files import (
    add_shape,
    coco,
    cvat_root,
    write_coco,
    write_cvat_images,
    write_cvat_video,
    write_json,
    write_labelme,
    write_xml,
)

from sonogravity.common.messages import InputError
from sonogravity.datasets.annotation_pairs import match, read_annotations
from sonogravity.datasets.annotations import Annotations, Drawing, class_values
from sonogravity.datasets.file_kinds import kind_of
from sonogravity.datasets.frame_files import FrameFile
from sonogravity.datasets.sequences import Sequence
from sonogravity.datasets.shapes import draw, lengths_of_text

SIZE = (24, 30)
SQUARE, TRIANGLE = [(2, 3), (12, 3), (12, 13), (2, 13)], [(8.5, 8.25), (28.75, 10), (14, 22.5)]
DRAWING = [("bone", SQUARE), ("ligament", TRIANGLE)]


def masks_of(annotations, values=None):
    values = values or class_values([annotations])
    return [
        draw([shape.area for shape in each.shapes], [values[shape.label] for shape in each.shapes], SIZE)[0]
        for each in annotations.drawings
    ]


def bitmaps():
    """The drawing as two bool arrays."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return [("bone", (rows < 10) & (columns > 3) & (columns < 20)), ("ligament", (rows > 5) & (rows + columns < 35))]


@pytest.mark.parametrize("drawing", [DRAWING, bitmaps()], ids=["polygons", "bitmaps"])
def test_every_format_gives_the_same_mask(drawing, tmp_path):
    names = ["bone", "ligament"]
    tracks = [(label, {0: each}) for label, each in drawing]
    paths = {
        "LabelMe": write_labelme(tmp_path / "a.json", drawing, SIZE, "a.png"),
        "COCO": write_coco(tmp_path / "c.json", {"a.png": drawing}, SIZE, {"bone": 1, "ligament": 2}),
        "CVAT": write_cvat_images(tmp_path / "i.xml", {"a.png": drawing}, SIZE, names),
        "CVAT video": write_cvat_video(tmp_path / "v.xml", tracks, SIZE, names, "a.mp4", (0, 0)),
    }
    found = {name: read_annotations(path) for name, path in paths.items()}
    expected = masks_of(found["LabelMe"])[0]
    assert set(np.unique(expected)) == {0, 1, 2} and expected[9, 10] == 2  # where both are, the last one counts
    for name, annotations in found.items():
        np.testing.assert_array_equal(masks_of(annotations)[0], expected, name)
        assert annotations.drawings[0].size == SIZE
    assert [(each.drawings[0].name, each.drawings[0].number) for each in found.values()] == [
        ("a.png", None),
        ("a.png", None),
        ("a.png", None),
        ("a.mp4", 0),
    ]


def test_kinds_are_told_by_the_content(tmp_path):
    assert kind_of(write_labelme(tmp_path / "a.json", DRAWING, SIZE, "a.png")) == "LabelMe annotation"
    assert kind_of(write_coco(tmp_path / "b.json", {}, SIZE, {})) == "COCO annotation"
    assert kind_of(write_cvat_images(tmp_path / "c.xml", {}, SIZE, ["bone"])) == "CVAT annotation"
    assert kind_of(write_json(tmp_path / "d.json", {"images": []})) == "JSON"
    (tmp_path / "e.xml").write_text("<html><body/></html>")
    assert kind_of(tmp_path / "e.xml") == "XML"


def test_labelme_rectangles_circles_and_lines(tmp_path):
    path = write_labelme(tmp_path / "a.json", [("bone", SQUARE)], SIZE, "a.png")
    content = json.loads(path.read_text())
    shape = content["shapes"][0]
    content["shapes"] = [
        shape | {"shape_type": "rectangle", "points": [[12, 13], [2, 3]]},
        shape | {"label": "ring", "shape_type": "circle", "points": [[20, 12], [23, 12]]},
        shape | {"label": "needle", "shape_type": "line", "points": [[0, 0], [5, 5]]},
        shape | {"label": "tip", "shape_type": "point", "points": [[5, 5]]},
    ]
    found = read_annotations(write_json(path, content))
    mask = masks_of(found, {"bone": 1, "ring": 2})[0]
    assert (mask == 1).sum() == 100 and mask[3:13, 2:12].all()
    assert (mask == 2).sum() == 32  # centres within 3 px of a corner of four pixels
    assert list(found.values) == ["bone", "ring"]
    assert found.notes() == [f"{path}: 2 shapes have no area and are left out: 1 of type line, 1 of type point"]
    del content["shapes"][0]["shape_type"]  # LabelMe 3.0 wrote polygons only
    content["shapes"][0]["points"] = SQUARE
    np.testing.assert_array_equal(
        masks_of(read_annotations(write_json(path, content)), {"bone": 1, "ring": 2})[0], mask
    )


def test_coco_parts_holes_and_crowds(tmp_path):
    parts = [[(1, 1), (4, 1), (4, 4), (1, 4)], [(10, 10), (12, 10), (12, 12), (10, 12)]]
    path = write_coco(tmp_path / "a.json", {"a.png": [("bone", parts)], "b.png": []}, SIZE, {"bone": 7})
    found = read_annotations(path)
    first, second = masks_of(found)
    assert (first == 7).sum() == 9 + 4 and not second.any() and found.values == {"bone": 7}
    ring = np.zeros(SIZE, bool)
    ring[2:12, 2:12] = True
    ring[5:8, 5:8] = False
    found = read_annotations(write_coco(path, {"a.png": [("bone", ring)]}, SIZE, {"bone": 7}))
    np.testing.assert_array_equal(masks_of(found)[0] == 7, ring)
    content = coco({"a.png": [("bone", SQUARE)]}, SIZE, {"bone": 1})
    content["annotations"].append(content["annotations"][0] | {"id": 2, "segmentation": []})
    found = read_annotations(write_json(path, content))
    assert "1 of type box or keypoints" in found.notes()[0]


def test_compressed_run_lengths_hold_differences():
    """Numbers by hand: 6 is one group, "6"; 40 is 01000 with a next group, and 00001; from the fourth on -1 is -1."""
    assert lengths_of_text("6") == [6]
    assert lengths_of_text("X1") == [40]
    assert lengths_of_text("123") == [1, 2, 3]
    assert lengths_of_text("123O") == [1, 2, 3, 2 - 1]
    for wrong in ("X", "6 6", "~~~"):
        with pytest.raises(ValueError, match="run lengths"):
            lengths_of_text(wrong)


def test_cvat_z_order_lies_above_the_order_of_the_file(tmp_path):
    root = cvat_root(["bone", "ligament"])
    image = ElementTree.SubElement(root, "image", id="0", name="a.png", width="30", height="24")
    add_shape(image, SQUARE, z_order=1, label="bone")
    add_shape(image, SQUARE, z_order=0, label="ligament")
    mask = masks_of(read_annotations(write_xml(tmp_path / "a.xml", root)))[0]
    assert set(np.unique(mask)) == {0, 1}
    image[0].set("z_order", "0")
    mask = masks_of(read_annotations(write_xml(tmp_path / "a.xml", root)))[0]
    assert set(np.unique(mask)) == {0, 2}


def moved(corners, distance):
    return [(x + distance, y) for x, y in corners]


def test_cvat_tracks_end_where_they_are_outside_and_missing_frames_are_interpolated(tmp_path):
    shapes = {2: SQUARE, 6: moved(SQUARE, 8), 7: None, 9: SQUARE}
    path = write_cvat_video(tmp_path / "a.xml", [("bone", shapes)], SIZE, ["bone"], "a.mp4", (0, 9))
    found = read_annotations(path)
    masks = dict(zip([each.number for each in found.drawings], masks_of(found), strict=True))
    assert sorted(masks) == list(range(10))
    assert [number for number, mask in masks.items() if mask.any()] == [2, 3, 4, 5, 6, 9]
    for number in range(2, 7):
        left = 2 + 2 * (number - 2)
        assert masks[number][3:13, left : left + 10].all() and masks[number].sum() == 100, number
    held = write_cvat_video(tmp_path / "b.xml", [("bone", {2: SQUARE, 5: None})], SIZE, ["bone"], "a.mp4", (0, 9))
    assert [each.number for each in read_annotations(held).drawings if each.shapes] == [2, 3, 4]


def test_cvat_numbers_are_those_of_the_video_also_with_a_step(tmp_path):
    tracks = [("bone", {10: SQUARE, 20: moved(SQUARE, 4), 25: None})]
    path = write_cvat_video(tmp_path / "a.xml", tracks, SIZE, ["bone"], "a.mp4", (10, 40), step=5)
    found = read_annotations(path)
    assert [each.number for each in found.drawings] == [10, 15, 20, 25, 30, 35, 40]
    assert [each.number for each in found.drawings if each.shapes] == [10, 15, 20]
    images = {f"frame_{number:06d}": DRAWING for number in (10, 15)}
    found = read_annotations(write_cvat_images(tmp_path / "b.xml", images, SIZE, ["bone", "ligament"], "a.mp4"))
    assert [(each.name, each.number) for each in found.drawings] == [("a.mp4", 10), ("a.mp4", 15)]


def test_cvat_boxes_ellipses_and_lines(tmp_path):
    root = cvat_root(["bone", "ring", "needle"])
    element = ElementTree.SubElement
    image = element(root, "image", id="0", name="a.png", width="30", height="24")
    element(image, "box", label="bone", xtl="2.00", ytl="3.00", xbr="12.00", ybr="13.00", z_order="0")
    element(image, "ellipse", label="ring", cx="20.00", cy="12.00", rx="3.00", ry="3.00", z_order="0")
    element(image, "polyline", label="needle", points="0.00,0.00;5.00,5.00", z_order="0")
    element(image, "tag", label="good")
    found = read_annotations(write_xml(tmp_path / "a.xml", root))
    mask = masks_of(found)[0]
    assert [(mask == value).sum() for value in (1, 2)] == [100, 32]
    assert "1 of type polyline, 1 of type tag" in found.notes()[0]


def break_coco(change):
    content = coco({"a.png": [("bone", SQUARE)]}, SIZE, {"bone": 1})
    change(content)
    return content


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["annotations"][0].update(category_id=5), "annotation 1: cannot be drawn .*category"),
        (lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3]]), "annotation 1: cannot be drawn"),
        (lambda c: c["annotations"][0].update(segmentation={"size": [24, 30], "counts": [5]}), "annotation 1: .*runs"),
        (lambda c: c["annotations"][0].update(segmentation={"size": [24, 30], "counts": "~"}), "annotation 1: "),
        (lambda c: c["annotations"][0].update(segmentation={"size": [12, 15], "counts": [180]}), "15x12 .* 30x24"),
        (lambda c: c["annotations"][0].update(segmentation={"size": [24, 30], "counts": "o" * 99}), "too large"),
        (lambda c: c["images"].append(c["images"][0]), "two images have the id 1"),
        (lambda c: c["categories"].append({"id": 2, "name": "bone"}), "two categories"),
        (lambda c: c["categories"][0].update(name=" "), "label ' '"),
        (lambda c: c["categories"][0].update(name="a\nb"), "a shape has the label"),
        (lambda c: c["images"][0].pop("file_name"), "cannot be read"),
    ],
)
def test_a_damaged_coco_file_is_refused_with_the_place(change, said, tmp_path):
    with pytest.raises(InputError, match=said):
        read_annotations(write_json(tmp_path / "a.json", break_coco(change)))


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"points": [[1, 2], [3, 4]]}, "shape 1: cannot be drawn .*2 corners"),
        ({"points": [[1, 2], [3, 4], [5, float("nan")]]}, "shape 1: cannot be drawn"),
        ({"shape_type": "blob"}, "shape 1: cannot be drawn .unknown type blob"),
        ({"shape_type": "mask", "points": [[0, 0], [3, 3]], "mask": "no base64!"}, "shape 1: cannot be drawn"),
        ({"label": ""}, "has the label ''"),
    ],
)
def test_a_damaged_labelme_file_is_refused_with_the_place(shape, said, tmp_path):
    path = write_labelme(tmp_path / "a.json", [("bone", SQUARE)], SIZE, "a.png")
    content = json.loads(path.read_text())
    content["shapes"][0] |= shape
    with pytest.raises(InputError, match=said):
        read_annotations(write_json(path, content))


def test_a_labelme_mask_of_another_size_than_its_box_is_refused(tmp_path):
    path = write_labelme(tmp_path / "a.json", bitmaps(), SIZE, "a.png")
    content = json.loads(path.read_text())
    content["shapes"][1]["points"][1][0] += 1
    with pytest.raises(InputError, match=r"shape 2: cannot be drawn .*its mask is"):
        read_annotations(write_json(path, content))


def test_a_damaged_cvat_file_is_refused(tmp_path):
    path = write_cvat_images(tmp_path / "a.xml", {"a.png": DRAWING}, SIZE, ["bone", "ligament"])
    text = path.read_text()
    for old, new, said in (
        ("2.00,3.00;", "2.00;", "a polygon of the label bone: cannot be drawn"),
        ("</annotations>", "", "cannot be read"),
        ("<annotations>", '<!DOCTYPE a [<!ENTITY b "c">]><annotations>', "DOCTYPE"),
        ('label="bone"', 'label=""', "has the label ''"),
    ):
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(InputError, match=said):
            read_annotations(path)
    other = {2: SQUARE, 6: TRIANGLE}
    path = write_cvat_video(tmp_path / "b.xml", [("bone", other)], SIZE, ["bone"], "a.mp4", (0, 9))
    with pytest.raises(InputError, match=r"track 0 has no shape in frame 3, .*'CVAT for video 1.1'"):
        read_annotations(path)
    path = write_cvat_video(tmp_path / "c.xml", [("bone", {2: SQUARE})], SIZE, ["bone"], "a.mp4", (0, 10**12))
    with pytest.raises(InputError, match="declares 1000000000001 frames"):
        read_annotations(path)
    path = write_cvat_video(tmp_path / "d.xml", [("bone", {2: SQUARE, 10**6: SQUARE})], SIZE, ["bone"], "a.mp4", (0, 9))
    with pytest.raises(InputError, match="track 0 has a shape in frame 1000000"):
        read_annotations(path)


def test_an_export_of_several_tasks_is_refused(tmp_path):
    root = cvat_root(["bone"])
    for task in ("1", "2"):
        ElementTree.SubElement(root, "image", id=task, name="frame_000000", width="30", height="24", task_id=task)
    with pytest.raises(InputError, match="several tasks; export each task by itself"):
        read_annotations(write_xml(tmp_path / "a.xml", root))


def labelled(name, declares=False, **values):
    return Annotations(Path(name), values=values, declares_order=declares)


def test_values_of_labels():
    assert class_values([labelled("a", ligament=None), labelled("b", bone=None)]) == {"bone": 1, "ligament": 2}
    assert class_values([labelled("a", True, ligament=None, bone=None)]) == {"ligament": 1, "bone": 2}
    assert class_values([labelled("a", ligament=7, bone=3)]) == {"ligament": 7, "bone": 3}
    assert class_values([labelled("a", bone=None, _background_=None)]) == {"_background_": 0, "bone": 1}
    assert class_values([labelled("a", ligament=7, bone=3)], ["bone", "ligament"]) == {"bone": 1, "ligament": 2}
    assert class_values([labelled("a", bone=None, other=None)], None, {"other": 1}) == {"other": 1, "bone": 2}
    assert class_values([labelled("a", bone=5), labelled("b", tendon=None)]) == {"bone": 5, "tendon": 6}
    assert class_values([labelled("a", Background=None, bone=None)]) == {"Background": 0, "bone": 1}


@pytest.mark.parametrize(
    ("files", "names", "known", "said"),
    [
        ([labelled("a", bone=1), labelled("b", bone=2)], None, {}, "b: the label bone has the value 2, but bone has"),
        ([labelled("a", bone=1), labelled("b", skin=1)], None, {}, "b: the label skin has the value 1, but bone has"),
        ([labelled("a", bone=0)], None, {}, "value 0, but 1 to 65535 are possible; give --class-names"),
        ([labelled("a", bone=70000)], None, {}, "value 70000, but"),
        ([labelled("a", bone=None, skin=None)], ["bone"], {}, "holds the labels skin, which --class-names does not"),
        ([labelled("a", bone=1)], None, {"skin": 1}, "bone has the value 1, but skin has 1"),
        (
            [labelled("a", bone=None)],
            ["bone"],
            {"bone": 3},
            "the set holds the values bone 3; give the names in this order, or another --output",
        ),
        ([labelled("a", bone=None)], ["bone"], {"skin": 1}, "the set holds the values skin 1; give the names"),
    ],
)
def test_labels_and_values_that_contradict_each_other_are_refused(files, names, known, said):
    with pytest.raises(InputError, match=said):
        class_values(files, names, known)


def stills(*paths):
    return {image.stem: image for image in (FrameFile(Path(path)) for path in paths)}


def drawing(source, name, number=None, also=None, shapes=("one",)):
    return Drawing(Path(source), name, number, None, shapes, also)


def test_images_are_found_by_stem_and_the_nearer_folder_wins():
    images = {key: FrameFile(Path(path), key) for key, path in (("P1_a", "s/P1/a.png"), ("P2_a", "s/P2/a.png"))}
    found = match([drawing("s/P1/x.json", "a.jpg"), drawing("s/P2/y.json", "a.jpg")], images)
    assert {key: str(each.source) for key, each in found.drawings.items()} == {
        "P1_a": "s/P1/x.json",
        "P2_a": "s/P2/y.json",
    }
    found = match([drawing("c.json", "P1/a.jpg"), drawing("c.json", r"P2\a.jpg")], images)
    assert {key: each.name for key, each in found.drawings.items()} == {"P1_a": "P1/a.jpg", "P2_a": r"P2\a.jpg"}
    with pytest.raises(InputError, match=r"c.json: a.jpg may be"):
        match([drawing("c.json", "a.jpg")], images)


def test_an_annotation_of_another_folder_does_not_take_an_image():
    images = {"P2_a": FrameFile(Path("s/P2/a.png"), "P2_a")}
    both = [drawing("c.json", "P1/a.jpg"), drawing("c.json", "P2/a.jpg", shapes=())]
    for drawings in (both, both[::-1]):  # the right one counts, although it is empty
        found = match(drawings, images)
        assert found.drawings["P2_a"].name == "P2/a.jpg" and [each.name for each in found.without] == ["P1/a.jpg"]
    with pytest.raises(InputError, match=r"a.png: is drawn in c.json and in b.json; give one"):
        match([drawing("c.json", "a.jpg"), drawing("b.json", "a.jpg")], stills("a.png"))
    found = match([drawing("c.json", "train2017/a.jpg"), drawing("c.json", "train2017/b.jpg")], stills("a.png"))
    assert "1 names stand in other folders than their images: train2017/a.jpg is a.png" in found.notes[0]


def test_an_annotation_of_one_patient_fits_no_image_of_another():
    """Each patient has a sweep; the annotation of P2 must not go to P1 because P2's clip has another name."""
    images = clip("s/P1/sweep.mp4", 20, stem="P1_sweep") | {"P1_a": FrameFile(Path("s/P1/a.png"), "P1_a")}
    drawings = [drawing("s/P2/job.xml", "sweep.mp4", 3), drawing("s/P2/a.json", "a.png", also="a")]
    trees = {"P1_sweep": "P1", "P1_a": "P1"}, {Path("s/P2/job.xml"): "P2", Path("s/P2/a.json"): "P2"}
    found = match(drawings, images, *trees)
    assert not found.drawings and found.without == drawings
    assert match(drawings, images, trees[0], {}).drawings.keys() == {"P1_sweep_000003", "P1_a"}


def test_frames_that_cvat_exported_are_found_by_their_names():
    found = match([drawing("x.xml", "sweep.mp4", 5, also="frame_000005")], stills("images/frame_000005.PNG"))
    assert set(found.drawings) == {"frame_000005"}
    images = clip("v/sweep.mp4", 20) | stills("images/frame_000005.PNG")
    found = match([drawing("x.xml", "sweep.mp4", 5, also="frame_000005")], images)
    assert set(found.drawings) == {"sweep_000005"}


def test_the_name_of_a_labelme_file_counts_too():
    images = stills("a.png", "b.png")
    found = match([drawing("a.json", "gone.png", also="a")], images)
    assert (
        set(found.drawings) == {"a"} and "names gone.png, which is not there; taken by its own name" in found.notes[0]
    )
    assert set(match([drawing("x.json", "b.png", also="x")], images).drawings) == {"b"}
    with pytest.raises(InputError, match=r"a.json: is named like a.png, but names b.png; rename it"):
        match([drawing("a.json", "b.png", also="a")], images)


def clip(path, count, used=None, stem=None):
    sequence = Sequence(Path(path), count, (4, 4))
    frames = [FrameFile(Path(path), stem or Path(path).stem, sequence, number) for number in used or range(count)]
    return {frame.stem: frame for frame in frames}


def test_frames_are_found_by_the_name_of_the_clip_and_their_number():
    images = clip("v/sweep.mp4", 20) | clip("v/other.mp4", 20)
    found = match([drawing("x.xml", "sweep.mp4", 12), drawing("o.json", "other_000003.png")], images)
    assert set(found.drawings) == {"sweep_000012", "other_000003"}
    found = match([drawing("x.xml", "gone.mp4", 1)], images)
    assert [each.number for each in found.without] == [1]
    for beyond in (drawing("x.xml", "sweep.mp4", 20), drawing("x.json", "sweep_000020.png")):
        with pytest.raises(InputError, match=r"does not exist: sweep.mp4 has 20 frames, which are numbered from 0"):
            match([drawing("x.xml", "sweep.mp4", 1), beyond], images)  # all numbers may be shifted by one
    assert not match([drawing("x.json", "frame_000012.PNG")], images).drawings  # of which clip?
    found = match([drawing("x.json", "frame_000012.PNG")], clip("v/sweep.mp4", 20))
    assert (
        set(found.drawings) == {"sweep_000012"} and "taken to be those of v/sweep.mp4, the only one" in found.notes[0]
    )


def test_frames_that_are_left_out_are_not_missing():
    images = clip("v/sweep.mp4", 20, used=range(0, 20, 5))
    drawings = [
        drawing("x.xml", "sweep.mp4", 5),
        drawing("x.xml", "sweep.mp4", 6),
        drawing("a.json", "sweep_000007.png"),
    ]
    found = match(drawings, images)
    assert set(found.drawings) == {"sweep_000005"} and not found.without
