"""Cases of bad input: annotations that are damaged, fit nothing, or contradict each other, and convert's options."""

import json
import shutil

import numpy as np
from annotation_files import write_coco, write_cvat_images, write_cvat_video, write_labelme
from PIL import Image
from scene import add
from sequence_files import grey_frames, write_segmentation, write_video, write_volume

SIZE = (40, 36)
SQUARE = [(4, 5), (20, 5), (20, 21), (4, 21)]
FRAMES = grey_frames(4, SIZE)
CONVERT = "sonogravity/convert"


def folder(*writers, names=("P1_a",), options=()):
    """A folder of images and of what the writers put beside them, as the only source."""

    def arrange(scene):
        source = scene.root / "source"
        source.mkdir()
        for name in names:
            Image.fromarray(FRAMES[0]).save(source / f"{name}.png")
        for write in writers:
            write(source)
        return [source, *options]

    return arrange


def labelme(name="P1_a", label="bone", size=SIZE, file=None):
    return lambda source: write_labelme(source / f"{file or name}.json", [(label, SQUARE)], size, f"{name}.png")


def numbered(name="a.json", image="P1_a.png", **categories):
    drawing = [(label, SQUARE) for label in categories]
    return lambda source: write_coco(source / name, {image: drawing}, SIZE, categories)


def changed(write, old, new):
    def damage(source):
        path = write(source)
        path.write_text(path.read_text().replace(old, new, 1))

    return damage


def clip(source):
    return write_video(source / "P1_sweep.mkv", FRAMES)


def track(name, frames, last=3):
    shapes = dict.fromkeys(frames, SQUARE)
    return lambda source: write_cvat_video(source / "job.xml", [("bone", shapes)], SIZE, ["bone"], name, (0, last))


add(
    "an annotation that is cut",
    CONVERT,
    folder(changed(labelme(), "}", "")),
    "P1_a.json",
    "is no JSON",
    "export it again",
)
add("annotations without their images", CONVERT, folder(labelme("P1_b")), "P1_b.json", "nothing in it fits", "P1_a")
add("an image annotated at another size", CONVERT, folder(labelme(size=(80, 72))), "P1_a", "72x80", "36x40")
add("one image in two annotations", CONVERT, folder(labelme(), numbered(bone=1)), "P1_a.png: is drawn in", "give one")
add("a category with the value of the background", CONVERT, folder(numbered(bone=0)), "bone", "0", "--class-names")
add(
    "two files that give a label two values",
    CONVERT,
    folder(numbered(bone=1), numbered("b.json", "P1_b.png", bone=2), names=("P1_a", "P1_b")),
    "b.json",
    "bone has",
    "--class-names",
)
add(
    "a label that --class-names does not list",
    CONVERT,
    folder(labelme(label="skin"), options=("--class-names", "bone")),
    "P1_a.json",
    "skin",
    "list every label",
)


def with_masks(scene):
    source = scene.root / "source"
    for name in ("P1_a", "P1_b"):
        for kind, array in (("images", FRAMES[0]), ("masks", FRAMES[0] // 128)):
            (source / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(source / kind / f"{name}.png")
    return source


def mixed(scene):
    source = with_masks(scene)
    (source / "masks" / "P1_a.png").unlink()
    labelme()(source / "images")
    return [source]


def doubled(scene):
    source = with_masks(scene)
    labelme()(source / "images")
    return [source]


def small_mask(scene):
    source = with_masks(scene)
    Image.fromarray(FRAMES[0][:20] // 128).save(source / "masks" / "P1_a.png")
    return [source]


def of_two_kinds(scene):
    """A second conversion, whose labels have other values than those of the first."""
    source = folder(numbered(bone=1, skin=2))(scene)[0]
    scene.output.mkdir()
    (scene.output / "classes.csv").write_text("value,name\n1,skin\n2,bone\n")
    return [source]


def not_known(scene):
    source = folder()(scene)[0]
    shutil.copytree(source, scene.output / "images")
    Image.fromarray(FRAMES[1]).save(scene.output / "images" / "P1_a.png")
    return [source]


add("a mask with values and a drawing with names", CONVERT, mixed, "P1_b.png", "values without names", "separately")
add("a mask and a drawing of one image", CONVERT, doubled, "P1_a.json", "a drawing and a mask", "give one")
add("a mask of another size than its image", CONVERT, small_mask, "P1_a.png", "36x20", "36x40")
add("labels that an earlier conversion numbered otherwise", CONVERT, of_two_kinds, "a.json", "bone", "--class-names")
add("an image that exists with other pixels", CONVERT, not_known, "out/images/P1_a.png", "other pixels", "--output")
add(
    "tracks of a clip that is not there",
    CONVERT,
    folder(clip, track("other.mp4", [1])),
    "job.xml",
    "nothing in it fits",
)
add(
    "a track with a frame that the clip lacks",
    CONVERT,
    folder(clip, track("P1_sweep.mp4", [1, 2, 4], last=9)),
    "job.xml",
    "frame 4 does not exist",
    "P1_sweep.mkv has 4 frames",
    "numbered from 0",
)
add(
    "an XML bomb",
    CONVERT,
    folder(
        changed(
            lambda source: write_cvat_images(source / "job.xml", {"P1_a.png": []}, SIZE, ["bone"]),
            "<annotations>",
            '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><annotations>',
        )
    ),
    "job.xml",
    "DOCTYPE",
)
add(
    "nothing drawn",
    CONVERT,
    folder(lambda source: write_coco(source / "a.json", {"P1_a.png": []}, SIZE, {"bone": 1})),
    "nothing is drawn on any of 1 images",
    "--keep-empty",
)
add("only annotations", CONVERT, folder(labelme(), names=()), "source", "holds no images", "LabelMe")
add("an annotation of no known kind", CONVERT, lambda scene: [text_file(scene)], "notes.json", "not an image", "JSON")
add("a source that is not there", CONVERT, lambda scene: [scene.root / "gone"], "gone", "no such file or folder")
add("a link to the folder above", CONVERT, lambda scene: [linked(scene)], "loop", "remove the link")
add(
    "a volume whose segments have a stray value",
    CONVERT,
    lambda scene: [strayed(scene)],
    "P1_scan.seg.nrrd",
    "which no segment has",
)


def text_file(scene):
    (scene.root / "notes.json").write_text(json.dumps({"a": 1}))
    return scene.root / "notes.json"


def linked(scene):
    source = with_masks(scene)
    (source / "loop").symlink_to(source)
    return source


def strayed(scene):
    source = scene.root / "source"
    write_volume(source / "P1_scan.nrrd", FRAMES)
    write_segmentation(source / "P1_scan.seg.nrrd", np.stack(FRAMES) // 100, {"bone": (1, 0)})
    return source
