"""Read CVAT XML 1.1: "CVAT for images" and "CVAT for video", of tasks and of jobs.

Frame numbers are those of the video, from 0, also if the task has only a part or every n-th frame of it. Tracks list
every frame: CVAT interpolates when it exports. If frames are missing between two keyframes, as in files that other
programs write, the corners are interpolated linearly.
"""

import re
from xml.etree import ElementTree

import numpy as np

from sonogravity.common.messages import InputError
from sonogravity.datasets.annotations import Annotations, Drawing, Shape, label_of, shape_at, size_of
from sonogravity.datasets.sequences import readable
from sonogravity.datasets.shapes import ellipse, polygon, rectangle, runs

WITHOUT_AREA = ("polyline", "points", "cuboid", "skeleton", "tag")
WITH_AREA = ("polygon", "box", "mask", "ellipse")
MOST_FRAMES = 2_000_000  # of a video; 18 hours at 30 frames per second
FRAME = re.compile(r"frame_(\d{6,})(\.\w+)?", re.IGNORECASE)  # the name that CVAT gives a frame of a video


def read_cvat(path):
    """Return the Annotations of a CVAT file. Raise InputError if it is damaged, or if a track cannot be filled in."""
    found = Annotations(path, declares_order=True)
    with readable(path, ElementTree.ParseError):
        if b"<!DOCTYPE" in path.read_bytes():
            raise InputError(f"{path}: holds a DOCTYPE, which CVAT does not write; export the file again")
        root = ElementTree.parse(path).getroot()
        meta = root.find("meta")
        source = None if meta is None else meta.findtext(".//source")
        for label in () if meta is None else meta.iter("label"):
            if label.findtext("type") not in WITHOUT_AREA and label.find("parent") is None:
                found.values.setdefault(label_of(label.findtext("name"), path), None)
        _refuse_several_tasks(found, root)
        for image in root.iter("image"):
            found.drawings.append(_drawing_of_image(found, image, source))
        tracks = list(root.iter("track"))
        if tracks:
            found.drawings += _drawings_of_tracks(found, tracks, meta, source)
    return found


def _refuse_several_tasks(found, root):
    """Raise InputError for an export of a project, whose tasks may give different images the same name."""
    tasks = {each.get("task_id") for kind in ("image", "track") for each in root.iter(kind)}
    if len(tasks) > 1 or len({each.text for each in root.iter("source")}) > 1:
        raise InputError(f"{found.source}: holds images or tracks of several tasks; export each task by itself")


def _drawing_of_image(found, image, source):
    name, number, also = image.get("name"), None, None
    if not name:
        raise InputError(f"{found.source}: image {image.get('id')} has no name; export the file again")
    if source and (frame := FRAME.fullmatch(name)):
        name, number, also = source, int(frame[1]), name  # also an image that CVAT has exported
    size = size_of(image.get("height"), image.get("width"))
    shapes = [(_depth(each), _shape(found, each, each.get("label"))) for each in image]
    return Drawing(found.source, name, number, size, _in_order(shapes), also)


def _drawings_of_tracks(found, tracks, meta, source):
    """Return the Drawings of the frames of a video. A frame without a shape has none, unless the task lists it."""
    size = None
    if meta is not None and (stated := meta.find(".//original_size")) is not None:
        size = size_of(stated.findtext("height"), stated.findtext("width"))
    frames, step = _frames_of_task(found, meta)
    end, count = max(frames, default=MOST_FRAMES) + step, 0
    for track in tracks:
        for number, element, corners in _frames_of(found, track, step, end):
            if (count := count + 1) > MOST_FRAMES:
                raise InputError(
                    f"{found.source}: its tracks have over {MOST_FRAMES} shapes; export parts of the video"
                )
            shape = _shape(found, element, track.get("label"), corners)
            frames.setdefault(number, []).append((_depth(element), shape))
    return [Drawing(found.source, source, number, size, _in_order(shapes)) for number, shapes in sorted(frames.items())]


def _frames_of_task(found, meta):
    """Return {frame: []} of the frames that a task shows, empty if the file does not tell, and its step."""
    texts = [None if meta is None else meta.findtext(f".//{name}") for name in ("start_frame", "stop_frame")]
    if None in texts:
        return {}, 1
    step = re.fullmatch(r"step=(\d+)", (meta.findtext(".//frame_filter") or "").strip())
    step = max(1, int(step[1])) if step else 1
    numbers = range(int(texts[0]), int(texts[1]) + 1, step)
    if len(numbers) > MOST_FRAMES:
        raise InputError(f"{found.source}: declares {len(numbers)} frames; export the file again")
    return {number: [] for number in numbers}, step


def _frames_of(found, track, step, last):
    """Yield (frame, element, corners) of a track; corners: (n, 2) of a frame between two keyframes, else None.

    last: the number that no frame exceeds.
    """
    elements = [each for each in track if each.tag in (*WITH_AREA, *WITHOUT_AREA)]
    for before, after in zip(elements, [*elements[1:], None], strict=True):
        if before.get("outside") == "1":
            continue
        first, end = (int(each.get("frame")) if each is not None else 0 for each in (before, after))
        if not (0 <= first <= last and end <= last):
            raise InputError(
                f"{found.source}: track {track.get('id')} has a shape in frame {max(first, end)}; correct it"
            )
        yield first, before, None
        for number in range(first + step, end, step):
            if after.get("outside") == "1" or before.tag not in ("polygon", "box"):
                yield number, before, None
                continue
            here, there = _corners(before), _corners(after)
            if after.tag != before.tag or len(here) != len(there):
                raise InputError(
                    f"{found.source}: track {track.get('id')} has no shape in frame {number}, and those around it have "
                    "other numbers of corners; export it from CVAT as 'CVAT for video 1.1', which lists every frame"
                )
            share = (number - first) / (end - first)
            yield number, before, here + share * (there - here)


def _shape(found, element, label, corners=None):
    """Return the Shape of an element, None if it has no area. corners: (n, 2) in place of its own."""
    if element.tag in WITHOUT_AREA:
        found.left_out[element.tag] += 1
    if element.tag not in WITH_AREA:
        return None
    with shape_at(f"{found.source}: a {element.tag} of the label {label}"):
        label = label_of(label, found.source)
        found.values.setdefault(label, None)
        return Shape(label, _area(element, corners))


def _area(element, corners):
    corners = _corners(element) if corners is None and element.tag in ("polygon", "box") else corners
    if element.tag == "polygon":
        return polygon(corners)
    degrees = float(element.get("rotation", 0))
    if element.tag == "box":
        return rectangle(*corners.ravel().tolist(), degrees)
    if element.tag == "ellipse":
        return ellipse(*(float(element.get(name)) for name in ("cx", "cy", "rx", "ry")), degrees)
    place = [int(element.get(name)) for name in ("top", "left", "height", "width")]
    return runs([int(length) for length in element.get("rle").split(",")], *place)


def _corners(element):
    """Return the (n, 2) corners of a polygon, or the two of a box."""
    if element.tag == "box":
        return np.array([float(element.get(name)) for name in ("xtl", "ytl", "xbr", "ybr")]).reshape(2, 2)
    return np.array([[float(each) for each in point.split(",")] for point in element.get("points").split(";")])


def _depth(element):
    return int(element.get("z_order", 0))


def _in_order(shapes):
    """Return Shapes, the bottom one first: by z_order, or else in the order of the file."""
    with_area = [each for each in shapes if each[1] is not None]
    return tuple(shape for _, shape in sorted(with_area, key=lambda each: each[0]))
