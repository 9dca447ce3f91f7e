"""Annotation files as the tools write them: LabelMe 5.5, COCO (with run lengths), CVAT XML 1.1 of CVAT 2.

A drawing is a list of (label, corners), the bottom one first; corners: [(x, y), ...] in pixels.
"""

import base64
import io
import json
from xml.etree import ElementTree

import numpy as np
from PIL import Image


def write_labelme(path, drawing, size, image_name, version="5.5.0", **more):
    """A LabelMe file. A shape whose corners are a bool array is a mask, stored as its box and a PNG."""
    shapes = []
    for label, corners in drawing:
        shape = {"label": label, "group_id": None, "description": "", "flags": {}, "mask": None}
        if isinstance(corners, np.ndarray):
            rows, columns = np.nonzero(corners)
            top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
            content = io.BytesIO()
            Image.fromarray(corners[top : bottom + 1, left : right + 1]).save(content, "PNG")
            shape |= {"shape_type": "mask", "points": [[float(left), float(top)], [float(right), float(bottom)]]}
            shape["mask"] = base64.b64encode(content.getvalue()).decode()
        else:
            shape |= {"shape_type": "polygon", "points": [list(map(float, each)) for each in corners]}
        shapes.append(shape)
    content = {"version": version, "flags": {}, "shapes": shapes, "imagePath": image_name, "imageData": None}
    content |= {"imageHeight": size[0], "imageWidth": size[1]} | more
    return write_json(path, content)


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def coco(drawings, size, categories):
    """The content of a COCO file. drawings: {image name: drawing}. categories: {label: id}."""
    images, annotations = [], []
    for number, (name, drawing) in enumerate(drawings.items(), 1):
        images.append({"id": number, "file_name": name, "height": size[0], "width": size[1]})
        for label, corners in drawing:
            if isinstance(corners, np.ndarray):
                segmentation = {"size": list(size), "counts": run_lengths(corners.ravel(order="F"))}
            elif isinstance(corners, dict):
                segmentation = corners
            else:
                parts = corners if isinstance(corners[0], list) else [corners]
                segmentation = [[float(value) for point in part for value in point] for part in parts]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": categories[label],
                    "segmentation": segmentation,
                    "iscrowd": int(isinstance(segmentation, dict)),
                    "bbox": [0, 0, 1, 1],
                    "area": 1,
                }
            )
    listed = [{"id": number, "name": label, "supercategory": ""} for label, number in categories.items()]
    return {"licenses": [], "info": {}, "categories": listed, "images": images, "annotations": annotations}


def write_coco(path, drawings, size, categories):
    return write_json(path, coco(drawings, size, categories))


def run_lengths(pixels):
    """Lengths of runs of equal pixels, the first one of False."""
    changes = np.flatnonzero(np.diff(np.r_[False, pixels, not pixels[-1]].astype(int)))
    return np.diff(np.r_[0, changes]).tolist()


def cvat_root(labels, size=None, source=None, frames=None, step=1):
    """The root of a CVAT file with its meta data. frames: (first, last) of a video task."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    meta = ElementTree.SubElement(root, "meta")
    task = ElementTree.SubElement(meta, "task")
    for name, text in (("id", "7"), ("name", "a task"), ("mode", "interpolation" if frames else "annotation")):
        ElementTree.SubElement(task, name).text = text
    if frames:
        for name, text in (("start_frame", frames[0]), ("stop_frame", frames[1])):
            ElementTree.SubElement(task, name).text = str(text)
        ElementTree.SubElement(task, "frame_filter").text = f"step={step}" if step > 1 else None
    listed = ElementTree.SubElement(task, "labels")
    for name in labels:
        label = ElementTree.SubElement(listed, "label")
        for key, text in (("name", name), ("color", "#c06060"), ("type", "any"), ("attributes", None)):
            ElementTree.SubElement(label, key).text = text
    if source:
        if size:
            original = ElementTree.SubElement(task, "original_size")
            for name, length in (("width", size[1]), ("height", size[0])):
                ElementTree.SubElement(original, name).text = str(length)
        ElementTree.SubElement(meta, "source").text = source
    return root


def add_shape(parent, corners, z_order=0, **attributes):
    """A polygon, or a mask for a bool array, with two decimals as CVAT writes them."""
    attributes = {key: str(value) for key, value in attributes.items()} | {"occluded": "0", "z_order": str(z_order)}
    if isinstance(corners, np.ndarray):
        rows, columns = np.nonzero(corners)
        top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
        inside = corners[top : bottom + 1, left : right + 1]
        attributes |= {"rle": ", ".join(map(str, run_lengths(inside.ravel()))), "left": str(left), "top": str(top)}
        attributes |= {"width": str(inside.shape[1]), "height": str(inside.shape[0])}
        return ElementTree.SubElement(parent, "mask", attributes)
    attributes["points"] = ";".join(f"{x:.2f},{y:.2f}" for x, y in corners)
    return ElementTree.SubElement(parent, "polygon", attributes)


def write_xml(path, root):
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
    return path


def write_cvat_images(path, drawings, size, labels, source=None):
    """ "CVAT for images 1.1". drawings: {image name: drawing}."""
    root = cvat_root(labels, size, source)
    for number, (name, drawing) in enumerate(drawings.items()):
        image = ElementTree.SubElement(
            root, "image", id=str(number), name=name, width=str(size[1]), height=str(size[0])
        )
        for label, corners in drawing:
            add_shape(image, corners, label=label, source="manual")
    return write_xml(path, root)


def write_cvat_video(path, tracks, size, labels, source, frames, step=1):
    """ "CVAT for video 1.1". tracks: [(label, {frame: corners, or None where it is outside})]."""
    root = cvat_root(labels, size, source, frames, step)
    for number, (label, shapes) in enumerate(tracks):
        track = ElementTree.SubElement(root, "track", id=str(number), label=label, source="manual")
        last = next(corners for corners in shapes.values() if corners is not None)
        for frame, corners in shapes.items():
            last = last if corners is None else corners
            add_shape(track, last, frame=frame, keyframe=1, outside=int(corners is None))
    return write_xml(path, root)
