"""scipy as the oracle of the measurements: areas, centres, boxes, and components as those of a graph of neighbours."""

import math

import numpy as np
import pytest
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from sonogravity.datasets.labels import Labels
from sonogravity.datasets.spacing import ASSUMED, Spacing
from sonogravity.metrics.file_scores import Measure

CLASSES = 4
LABELS = Labels.create(range(CLASSES), class_names=["bone", "ligament", "disc"])


def random_classes(rng):
    """Blobs, specks and single pixels of up to three classes in (H, W), some of them absent."""
    shape = tuple(rng.integers(1, 48, 2))
    fields = np.stack([ndimage.gaussian_filter(rng.standard_normal(shape), rng.uniform(0, 3)) for _ in range(CLASSES)])
    fields[0] += rng.uniform(0, 0.3)
    fields[rng.integers(1, CLASSES)] -= rng.choice([0, rng.uniform(0, 0.6), 10])  # 10: absent
    classes = fields.argmax(0).astype(np.uint8)
    if rng.random() < 0.2:
        classes[:] = 0
        classes[rng.integers(shape[0]), rng.integers(shape[1])] = rng.integers(CLASSES)
    return classes


def components(mask):
    """Components of the graph that joins pixels at most sqrt(2) apart."""
    points = np.argwhere(mask)
    one, other = cKDTree(points).query_pairs(1.5, output_type="ndarray").T
    return connected_components(coo_matrix((np.ones(len(one)), (one, other)), [len(points)] * 2))[0]


@pytest.mark.parametrize("chunk", range(10))
def test_fifty_random_masks_are_measured_as_by_scipy(chunk):
    rng = np.random.default_rng(chunk)
    held = absent = 0
    for _ in range(50):
        prediction, spacing = random_classes(rng), Spacing(*rng.uniform(1, 20, 2))
        given = ASSUMED if rng.random() < 0.2 else spacing
        (height, width), unit = given.pixel_size, given.unit
        found = Measure(LABELS, {"a": given}).measurements("a", prediction)
        boxes = ndimage.find_objects(prediction, CLASSES - 1)
        for c, box in zip(LABELS.foreground, boxes, strict=True):
            own = {name.removesuffix(f"_{LABELS.names[c]}"): v for name, v in found.items() if LABELS.names[c] in name}
            area, parts = own.pop("area_px" if unit == "px" else "area_mm2"), own.pop("components")
            mask = prediction == c
            assert area == pytest.approx(ndimage.sum_labels(mask) * height * width, rel=1e-12)
            if box is None:
                absent += 1
                assert area == parts == 0 and len(own) == 4 and all(map(math.isnan, own.values()))
                continue
            held += 1
            y, x = ndimage.center_of_mass(mask)
            expected = {
                f"top_{unit}": (box[0].start + 0.5) * height,
                f"centroid_x_{unit}": (x + 0.5) * width,
                f"centroid_y_{unit}": (y + 0.5) * height,
                f"thickness_{unit}": np.mean([column.sum() for column in mask.T if column.any()]) * height,
            }
            assert own == pytest.approx(expected, rel=1e-12)
            assert parts == components(mask)
    assert held > 50 and absent > 20
