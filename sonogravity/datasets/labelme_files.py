"""Read LabelMe JSON, one file per image (LabelMe 3 to 5; masks since 5.3)."""

import base64
import io

import numpy as np
from PIL import Image

from sonogravity.datasets.annotations import Annotations, Drawing, Shape, label_of, shape_at, size_of
from sonogravity.datasets.file_kinds import read_json
from sonogravity.datasets.sequences import readable
from sonogravity.datasets.shapes import check_numbers, ellipse, polygon, rectangle, runs_of


def read_labelme(path):
    """Return the Annotations of a LabelMe file. Raise InputError if it is damaged."""
    found = Annotations(path)
    with readable(path):
        content = read_json(path)
        size = size_of(content.get("imageHeight"), content.get("imageWidth"))
        shapes = []
        for number, stored in enumerate(content["shapes"], 1):
            with shape_at(f"{path}: shape {number}"):
                kind = stored.get("shape_type") or "polygon"
                area = _area(kind, np.asarray(stored["points"], np.float64).reshape(-1, 2), stored)
            if area is None:
                found.left_out[kind] += 1
                continue
            label = label_of(stored["label"], path)
            found.values.setdefault(label, None)
            shapes.append(Shape(label, area))
        name = str(content.get("imagePath") or path.stem)
    found.drawings.append(Drawing(path, name, None, size, tuple(shapes), also=path.stem))
    return found


def _area(kind, points, stored):
    """Return the area of a shape, None if its kind has none. points: (n, 2)."""
    check_numbers(points)
    if kind in ("polygon", "oriented_rectangle"):
        return polygon(points)
    if kind == "rectangle":
        (left, top), (right, bottom) = points.min(0), points.max(0)
        return rectangle(left, top, right, bottom)
    if kind == "circle":
        centre, edge = points
        radius = float(np.hypot(*(edge - centre)))
        return ellipse(*centre.tolist(), radius, radius)
    if kind == "mask":
        (left, top), (right, bottom) = points.astype(int)
        with Image.open(io.BytesIO(base64.b64decode(stored["mask"], validate=True))) as picture:
            if picture.size != (right - left + 1, bottom - top + 1):
                raise ValueError(f"its mask is {picture.size}, but its corners are {points.tolist()}")
            return runs_of(np.array(picture.convert("L")) > 0, int(top), int(left))
    if kind in ("line", "linestrip", "point", "points"):
        return None
    raise ValueError(f"unknown type {kind}")
