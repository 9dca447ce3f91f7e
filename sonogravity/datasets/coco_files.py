"""Read COCO JSON (object detection with segmentation: polygons and run lengths), one file for many images."""

from sonogravity.common.messages import InputError
from sonogravity.datasets.annotations import Annotations, Drawing, Shape, is_background, label_of, shape_at, size_of
from sonogravity.datasets.file_kinds import read_json
from sonogravity.datasets.sequences import readable
from sonogravity.datasets.shapes import lengths_of_text, polygons, runs


def read_coco(path):
    """Return the Annotations of a COCO file. Raise InputError if it is damaged or contradicts itself."""
    found = Annotations(path, declares_order=True)
    with readable(path):
        content = read_json(path)
        images = {}
        for image in content["images"]:
            if images.setdefault(image["id"], image) is not image:
                raise InputError(f"{path}: two images have the id {image['id']}; export the file again")
        sizes = {number: size_of(image.get("height"), image.get("width")) for number, image in images.items()}
        labels = _labels(path, content["categories"])
        shapes = {number: [] for number in images}
        for stored in content["annotations"]:
            with shape_at(f"{path}: annotation {stored.get('id')}"):
                if stored["image_id"] not in images or stored["category_id"] not in labels:
                    raise ValueError("its image or its category is not in the file")
                area = _area(stored.get("segmentation"), sizes[stored["image_id"]])
            if area is None:
                found.left_out["box or keypoints"] += 1
                continue
            label = labels[stored["category_id"]]
            found.values.setdefault(label, 0 if is_background(label) else int(stored["category_id"]))
            shapes[stored["image_id"]].append(Shape(label, area))
        for number, image in images.items():
            size = sizes[number]
            found.drawings.append(Drawing(path, str(image["file_name"]), None, size, tuple(shapes[number])))
    return found


def _labels(path, categories):
    """Return {id: label}. Raise InputError if an id or a label is there twice."""
    labels = {each["id"]: label_of(each["name"], path) for each in categories}
    if len(labels) < len(categories) or len(set(labels.values())) < len(categories):
        raise InputError(f"{path}: two categories have one id or one name; rename one, and export the file again")
    return labels


def _area(stored, size):
    """Return the area of a segmentation, None if there is none. size: (H, W) of the image, or None.

    Raise ValueError if run lengths are those of an image of another size.
    """
    if not stored:
        return None
    if isinstance(stored, list):
        return polygons(stored)
    height, width = map(int, stored["size"])
    if size not in (None, (height, width)):
        raise ValueError(f"run lengths of {width}x{height} for an image of {size[1]}x{size[0]}")
    counts = stored["counts"]
    return runs(lengths_of_text(counts) if isinstance(counts, str) else counts, 0, 0, height, width, by_columns=True)
