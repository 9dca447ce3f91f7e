"""convert: what is drawn in an annotation tool lies on its frame, pixel for pixel, with its value and its name."""

import numpy as np
import pandas as pd
import pytest
import tifffile
from annotation_files import (
    write_coco,
    write_cvat_images,
    write_cvat_video,
    write_labelme,
)
from conftest import train_arguments
from PIL import Image
from sequence_files import grey_frames, region, write_dicom, write_segmentation, write_video, write_volume

from sonogravity.commands import convert
from sonogravity.common import folders
from sonogravity.datasets.mask_files import decode_mask
from sonogravity.datasets.shapes import draw, polygon
from unet import predict, train

SIZE = (40, 48)
SQUARE, TRIANGLE = [(4, 5), (20, 5), (20, 21), (4, 21)], [(12.5, 12.25), (44.75, 14), (20, 36.5)]
DRAWING = [("bone", SQUARE), ("ligament", TRIANGLE)]
FRAMES = grey_frames(4, SIZE)


def run(*arguments):
    return convert.main([str(argument) for argument in arguments])


def read(folder):
    """{stem: mask} of a converted set."""
    return {path.stem: decode_mask(path) for path in sorted((folder / "masks").iterdir())}


def rasterised(drawing, values, size=SIZE):
    return draw([polygon(corners) for _, corners in drawing], [values[label] for label, _ in drawing], size)[0]


def write_drawing(kind, folder, name="P1_a"):
    """The drawing on the image ``name``, as a tool exports it."""
    image, path = f"{name}.png", folder / f"{name}.json"
    if kind == "LabelMe":
        return write_labelme(path, DRAWING, SIZE, image)
    if kind == "COCO":
        return write_coco(path, {image: DRAWING}, SIZE, {"bone": 1, "ligament": 2})
    if kind == "CVAT":
        return write_cvat_images(folder / f"{name}.xml", {image: DRAWING}, SIZE, ["bone", "ligament"])
    labels = rasterised(DRAWING, {"bone": 1, "ligament": 2})[None]
    return write_segmentation(folder / f"{name}.seg.nrrd", labels, {"bone": (1, 0), "ligament": (2, 0)})


@pytest.mark.parametrize("kind", ["LabelMe", "COCO", "CVAT", "3D Slicer"])
def test_one_drawing_gives_one_mask_whatever_the_tool(kind, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    Image.fromarray(FRAMES[0]).save(tmp_path / "in" / "P1_a.png")
    write_drawing(kind, tmp_path / "in")
    assert run(tmp_path / "in", "--output", tmp_path / "new") == 0
    expected = rasterised(DRAWING, {"bone": 1, "ligament": 2})
    np.testing.assert_array_equal(read(tmp_path / "new")["P1_a"], expected)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "new" / "images" / "P1_a.png")), FRAMES[0])
    assert (tmp_path / "new" / "classes.csv").read_text() == "value,name\n1,bone\n2,ligament\n"
    said = capsys.readouterr()
    assert "values:     0, 1 bone, 2 ligament, in" in said.out and "--class-names bone,ligament" in said.out
    assert not said.err.replace("\r", "").strip() or "warning" not in said.err


def test_values_are_kept_and_names_in_their_order_are_printed(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    Image.fromarray(FRAMES[0]).save(tmp_path / "in" / "P1_a.png")
    write_coco(tmp_path / "in" / "a.json", {"P1_a.png": DRAWING}, SIZE, {"bone": 300, "ligament": 17, "other": 5})
    assert run(tmp_path / "in", "--output", tmp_path / "new") == 0
    expected = rasterised(DRAWING, {"bone": 300, "ligament": 17})
    np.testing.assert_array_equal(read(tmp_path / "new")["P1_a"], expected)
    assert "--class-names ligament,bone" in capsys.readouterr().out
    assert run(tmp_path / "in", "--output", tmp_path / "other", "--class-names", "other,ligament,bone") == 0
    expected = rasterised(DRAWING, {"bone": 3, "ligament": 2})
    np.testing.assert_array_equal(read(tmp_path / "other")["P1_a"], expected)


def barred(number, size=(48, 64)):
    """A frame that shows its number as a bar code of eight blocks, and a bright box whose place tells it, too."""
    frame = np.full(size, 30, np.uint8)
    frame[20:32, place_of(number) : place_of(number) + 12] = 200
    for bit in range(8):
        frame[36:46, 8 * bit : 8 * bit + 8] = 250 if number >> bit & 1 else 5
    return frame


def place_of(number):
    return 2 + 4 * number


def number_on(image):
    blocks = [image[38:44, 8 * bit + 2 : 8 * bit + 6].mean() > 128 for bit in range(8)]
    return sum(1 << bit for bit, is_set in enumerate(blocks) if is_set)


def write_barred(kind, folder):
    frames = [barred(number) for number in range(12)]
    if kind == "mp4":
        options = {"crf": "4", "g": "12", "bf": "3", "x264-params": "open-gop=1"}
        return write_video(folder / "P1_sweep.mp4", frames, "libx264", "yuv420p", options=options)
    if kind == "mkv":
        return write_video(folder / "P1_sweep.mkv", frames, stamps=[0, 40, 90, *range(200, 1100, 100)])
    if kind == "DICOM":
        return write_dicom(folder / "P1_sweep.dcm", frames, FrameTime=40)
    folder.mkdir(parents=True)
    tifffile.imwrite(folder / "P1_sweep.tif", np.stack(frames), imagej=True, metadata={"axes": "TYX"})
    return folder / "P1_sweep.tif"


def box_of(number):
    left = place_of(number)
    return [(left, 20), (left + 12, 20), (left + 12, 32), (left, 32)]


@pytest.mark.parametrize("kind", ["mp4", "mkv", "DICOM", "TIFF"])
@pytest.mark.parametrize("export", ["video", "images", "frames of COCO"])
def test_each_mask_lies_on_its_frame(kind, export, trained, tmp_path):
    """The bar code of each converted image is the number that was annotated; prediction and truth agree on the box."""
    clip, annotated = write_barred(kind, tmp_path / "clips"), (2, 3, 7, 11)
    if export == "video":
        tracks = [("box", {number: box_of(number), number + 1: None}) for number in annotated]
        write_cvat_video(tmp_path / "clips" / "job.xml", tracks, (48, 64), ["box"], clip.name, (0, 11))
    else:
        drawings = {f"frame_{number:06d}": [("box", box_of(number))] for number in annotated}
        if export == "images":
            write_cvat_images(tmp_path / "clips" / "job.xml", drawings, (48, 64), ["box"], clip.name)
        else:
            drawings = {f"{name}.PNG": drawing for name, drawing in drawings.items()}
            write_coco(tmp_path / "clips" / "instances.json", drawings, (48, 64), {"box": 128})
    names = [] if "COCO" in export else ["--class-names", "box"]
    assert run(tmp_path / "clips", "--output", tmp_path / "new", *names) == 0
    images = {path.stem: np.array(Image.open(path)) for path in sorted((tmp_path / "new" / "images").iterdir())}
    assert list(images) == [f"P1_sweep_{number:06d}" for number in annotated]
    assert [number_on(image) for image in images.values()] == list(annotated)
    masks = read(tmp_path / "new")
    for number, mask in zip(annotated, masks.values(), strict=True):
        inside = np.zeros((48, 64), bool)
        inside[20:32, place_of(number) : place_of(number) + 12] = True
        np.testing.assert_array_equal(mask > 0, inside)
    for path in (tmp_path / "new" / "masks").iterdir():  # as the model that predicts knows the values
        Image.fromarray((decode_mask(path) > 0).astype(np.uint8) * 128).save(path)
    best = trained / "checkpoints" / "unet" / "run" / "best.pth"
    line = ["--load", best, "--input", clip, "--masks", tmp_path / "new" / "masks", "--output", tmp_path / "out"]
    assert predict.main([str(each) for each in [*line, "--device", "cpu"]]) == 0
    rows = pd.read_csv(tmp_path / "out" / "files.csv").set_index("file")
    predicted = {
        stem: decode_mask(path) for stem, path in sorted((p.stem, p) for p in (tmp_path / "out" / "masks").iterdir())
    }
    assert len(predicted) == 12
    for number in range(12):
        stem = f"P1_sweep_{number:06d}"
        overlap = [(predicted[stem][20:32, place_of(k) : place_of(k) + 12] == 128).sum() for k in range(12)]
        assert np.argmax(overlap) == number, (number, overlap)
    left = rows["true_centroid_x_px_128"].dropna() - 6
    assert dict(left) == {f"P1_sweep_{number:06d}": place_of(number) for number in annotated}


def test_interpolated_tracks_and_every_nth_frame(tmp_path, capsys):
    write_barred("mkv", tmp_path / "clips")
    tracks = [("box", {1: box_of(1), 9: box_of(9), 10: None})]
    write_cvat_video(tmp_path / "clips" / "job.xml", tracks, (48, 64), ["box"], "P1_sweep.mp4", (0, 11))
    assert run(tmp_path / "clips", "--output", tmp_path / "new", "--every", 4) == 0
    masks = read(tmp_path / "new")
    assert list(masks) == ["P1_sweep_000004", "P1_sweep_000008"]
    assert [int(mask.nonzero()[1].min()) for mask in masks.values()] == [place_of(4), place_of(8)]
    said = capsys.readouterr().out
    assert "1 of 3 images have an annotation without an area and are left out (--keep-empty" in said
    assert run(tmp_path / "clips", "--output", tmp_path / "all", "--every", 4, "--keep-empty") == 0
    assert [bool(mask.any()) for mask in read(tmp_path / "all").values()] == [False, True, True]


def test_label_stacks_and_volumes(tmp_path, capsys):
    labels = np.stack([(frame > 120).astype(np.uint8) * 3 for frame in FRAMES])
    labels[2] = 0
    write_volume(tmp_path / "in" / "images" / "P1_scan.nii.gz", FRAMES)
    write_volume(tmp_path / "in" / "masks" / "P1_scan.nii.gz", list(labels))
    assert run(tmp_path / "in", "--output", tmp_path / "new") == 0
    masks = read(tmp_path / "new")
    assert list(masks) == [f"P1_scan_{number:06d}" for number in (0, 1, 3)]
    for stem, mask in masks.items():
        np.testing.assert_array_equal(mask, labels[int(stem[-6:])])
    said = capsys.readouterr().out
    assert "without an area and are left out (--keep-empty takes them as background): 1 frames of P1_scan" in said
    assert "values:     0, 3" in said and "--class-names" not in said
    (tmp_path / "elsewhere").mkdir()
    tifffile.imwrite(tmp_path / "elsewhere" / "P1_scan.tif", labels, photometric="minisblack")
    images = tmp_path / "in" / "images"
    assert run(images, "--masks", tmp_path / "elsewhere", "--output", tmp_path / "stack", "--keep-empty") == 0
    assert len(read(tmp_path / "stack")) == 4


def test_a_converted_set_keeps_its_names_when_it_is_converted_again(tmp_path, refused):
    (tmp_path / "in").mkdir()
    Image.fromarray(FRAMES[0]).save(tmp_path / "in" / "P1_a.png")
    write_drawing("LabelMe", tmp_path / "in")
    assert run(tmp_path / "in", "--output", tmp_path / "new") == 0
    assert run(tmp_path / "new", "--output", tmp_path / "again") == 0
    for name in ("classes.csv", "masks/P1_a.png", "images/P1_a.png"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "new" / name).read_bytes()
    said = refused(convert.main, [tmp_path / "new", "--output", tmp_path / "other", "--class-names", "ligament,bone"])
    assert "--class-names: " in said and "holds values without names; give the names to train.py instead" in said


def test_segments_in_layers_are_told_apart_by_their_names(tmp_path, refused):
    layers = np.stack([np.stack(FRAMES) > 60, np.stack(FRAMES) > 150], axis=3).astype(np.uint8)
    write_volume(tmp_path / "in" / "P1_scan.nrrd", FRAMES)
    write_segmentation(tmp_path / "in" / "P1_scan.seg.nrrd", layers, {"skin": (1, 0), "bone": (1, 1)})
    image = write_volume(tmp_path / "in" / "P1_scan.nrrd", FRAMES, spacing=(1, 1, 1))
    assert run(tmp_path / "in", "--output", tmp_path / "new") == 0
    np.testing.assert_array_equal(read(tmp_path / "new")["P1_scan_000003"], layers[3].sum(-1))
    assert (tmp_path / "new" / "classes.csv").read_text() == "value,name\n1,skin\n2,bone\n"
    assert run(tmp_path / "in", "--output", tmp_path / "other", "--class-names", "bone,skin") == 0
    assert image.exists() and read(tmp_path / "other")["P1_scan_000003"].max() == 2


def test_the_region_cuts_image_and_mask_alike(tmp_path):
    items = [region(left=8, top=4, right=39, bottom=33, delta=(0.02, 0.01))]
    write_dicom(tmp_path / "in" / "P1_cine", FRAMES, SequenceOfUltrasoundRegions=items, FrameTime=40)
    drawings = {"frame_000001": DRAWING}
    write_cvat_images(tmp_path / "in" / "job.xml", drawings, SIZE, ["bone", "ligament"], "P1_cine")
    assert run(tmp_path / "in", "--region", "--output", tmp_path / "new") == 0
    expected = rasterised(DRAWING, {"bone": 1, "ligament": 2})[4:34, 8:40]
    np.testing.assert_array_equal(read(tmp_path / "new")["P1_cine_000001"], expected)
    image = np.array(Image.open(tmp_path / "new" / "images" / "P1_cine_000001.png"))
    np.testing.assert_array_equal(image, FRAMES[1][4:34, 8:40])


def test_what_lacks_a_partner_is_listed(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("P1_a", "P1_b"):
        Image.fromarray(FRAMES[0]).save(tmp_path / "in" / f"{name}.png")
    write_drawing("LabelMe", tmp_path / "in", "P1_a")
    write_drawing("LabelMe", tmp_path / "in", "P1_c")
    write_drawing("3D Slicer", tmp_path / "in", "P1_d")
    assert run(tmp_path / "in", "--output", tmp_path / "new") == 0
    said = capsys.readouterr()
    assert "1 of 2 images have no annotation and are left out: P1_b.png" in said.out
    assert "P1_c.json: 1 annotated images or frames are not among the images given: P1_c.png" in said.err
    assert "1 masks have no image of the same name: P1_d.seg.nrrd" in said.err
    assert list(read(tmp_path / "new")) == ["P1_a"]


def test_a_converted_set_is_trained_on_with_the_printed_command(tmp_path, capsys, monkeypatch):
    for person in ("Ann", "Ben", "Cy"):
        write_barred("mkv", tmp_path / "clips" / person)
        tracks = [("box", {1: box_of(1), 9: box_of(9), 10: None})]
        write_cvat_video(tmp_path / "clips" / person / "job.xml", tracks, (48, 64), ["box"], "P1_sweep.mkv", (0, 11))
    assert run(tmp_path / "clips", "--output", tmp_path / "new", "--every", 2) == 0
    printed = capsys.readouterr().out.split("next: ")[1].split()
    assert printed == [
        *("python", str(folders.ROOT / "unet" / "train.py"), "--train", str(tmp_path / "new")),
        *("--folds", "3", "--class-names", "box"),
    ]
    small = ["--epochs", 1, "--base-channels", 4, "--device", "cpu", "--workers", 0, "--name", "run"]
    small += ["--checkpoints", tmp_path / "c", "--results", tmp_path / "r"]
    assert train.main([*printed[2:], *map(str, small)]) == 0
    assert "box: " in capsys.readouterr().out


def test_sets_whose_values_mean_other_structures_are_not_trained_on(sets, tmp_path, refused):
    for folder, names in ((sets[0], "128,bone\n255,ligament"), (sets[1], "128,ligament\n255,bone")):
        (folder / "classes.csv").write_text(f"value,name\n{names}\n")
    said = refused(train.main, train_arguments(*sets, tmp_path))
    assert "classes.csv: 128 is ligament, but bone in" in said and "--class-names" in said
    (sets[1] / "classes.csv").write_text("value,name\n128,bone\n")
    said = refused(train.main, train_arguments(*sets, tmp_path, "--class-names", "ligament,bone"))
    assert "classes.csv: 128 is bone, but the model or --class-names calls it ligament" in said
    assert train.main(train_arguments(*sets, tmp_path, "--check")) == 0
