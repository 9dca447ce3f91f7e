"""The generator: the same frames for the same seed, other subjects in validation, plausible physics."""

import csv

import numpy as np
import pytest
from conftest import load_phantom_script
from PIL import Image

phantom = load_phantom_script()


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    assert (
        phantom.main(
            [
                "--output",
                str(folder),
                "--train-frames",
                "12",
                "--validation-frames",
                "4",
                "--height",
                "200",
                "--workers",
                "1",
            ]
        )
        == 0
    )
    return folder


def test_folders_names_and_values(generated):
    for part, count in (("train", 12), ("validation", 4)):
        images = sorted(p.name for p in (generated / part / "images").iterdir())
        assert images == sorted(p.name for p in (generated / part / "masks").iterdir()) and len(images) == count
        for name in images:
            image, mask = (np.array(Image.open(generated / part / kind / name)) for kind in ("images", "masks"))
            assert image.shape == mask.shape == (200, 185) and image.dtype == np.uint8
            assert set(np.unique(mask)) == {0, 128, 255}
    train = {path.name[:3] for path in generated.glob("train/images/*")}
    validation = {path.name[:3] for path in generated.glob("validation/images/*")}
    assert not train & validation and len(train) == 8 and len(validation) == 3


def test_spacing_lists_every_frame(generated):
    rows = list(csv.DictReader((generated / "spacing.csv").open()))
    names = {p.name for p in generated.glob("*/images/*")}
    assert {row["file"] for row in rows} == names and len(rows) == len(names)
    subject = phantom.draw_subject("S01", 0)
    spacing = {row["file"]: float(row["pixels_per_mm"]) for row in rows}
    assert spacing["S01_001.png"] == pytest.approx(200 / subject.depth_mm, rel=1e-5)


def test_the_seed_decides(generated):
    subject = phantom.draw_subject("S02", 0)
    image, mask, _ = phantom.make_frame(subject, 1, 0, 200)
    assert (image == np.array(Image.open(generated / "train" / "images" / "S02_001.png"))).all()
    assert (mask == np.array(Image.open(generated / "train" / "masks" / "S02_001.png"))).all()
    assert (phantom.make_frame(subject, 2, 0, 200)[0] != image).any()
    assert phantom.draw_subject("S02", 1) != subject


def test_bone_is_bright_and_casts_a_shadow():
    bone, shadow, tissue = [], [], []
    for name in ("S01", "S02", "S03", "S04"):
        image, mask, _ = phantom.make_frame(phantom.draw_subject(name, 0), 1, 0, 400)
        columns = range(150, 220)  # near the middle, where beams run down the picture
        for x in columns:
            rows = np.flatnonzero(mask[:, x] == phantom.BONE)
            if len(rows):
                bone.append(image[rows, x].mean())
                shadow.append(image[rows[-1] + 15 : rows[-1] + 60, x].mean())
                tissue.append(image[rows[0] - 60 : rows[0] - 15, x].mean())
    assert np.mean(bone) > 1.5 * np.mean(tissue) and np.mean(shadow) < 0.3 * np.mean(tissue)


def test_nothing_is_written_over(generated, refused):
    assert "exists already" in refused(phantom.main, ["--output", str(generated)])
