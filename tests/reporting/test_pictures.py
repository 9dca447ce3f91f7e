"""The panels of an epoch: one file per frame shown, the worst one marked."""

import numpy as np
import pytest
from conftest import simple_frame, write_frame
from PIL import Image

from sonogravity.datasets.frame_files import FrameFile
from sonogravity.datasets.frames import Frame
from sonogravity.datasets.labels import Labels
from sonogravity.datasets.pairs import Pair
from sonogravity.inference.segmentation import FileResult
from sonogravity.reporting import pictures

LABELS = Labels.create([0, 128, 255])


@pytest.fixture
def results(tmp_path):
    """FileResults of two frames, one with a long name; the prediction is the truth mirrored."""
    found = []
    for number, stem in enumerate(("short", "x" * 100)):
        image, mask = simple_frame(number)
        write_frame(tmp_path, stem, image, mask)
        frame = Frame(Pair(FrameFile(tmp_path / "images" / f"{stem}.png")), {}, mask, mask.shape)
        truth = LABELS.to_classes(mask)
        found.append(FileResult(frame, truth[:, ::-1], truth, None, None, None))
    return found


def test_each_frame_has_a_panel_of_three_pictures(results, tmp_path):
    panels = pictures.epoch_panels([("", 0.5, results[0]), ("worst_", 0.25, results[1])], 1, LABELS)
    first, second = panels
    assert first == "short.png" and second.startswith("worst_xxx") and len(second) < 70
    for name, panel in panels.items():
        pictures.write_panel(tmp_path / name, *panel)
        with Image.open(tmp_path / name) as picture:
            assert picture.width == 3 * 36 + 2 * pictures.GAP and picture.height > 40
    with Image.open(tmp_path / first) as picture:
        tiles = np.split(np.asarray(picture)[:, : 3 * (36 + pictures.GAP) - pictures.GAP], [36, 42, 78, 84], axis=1)
    assert not np.array_equal(tiles[2], tiles[4]), "truth and prediction differ"
    assert not np.array_equal(tiles[0], tiles[2]), "the truth is laid over the image"
