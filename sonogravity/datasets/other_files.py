"""Files that are no images: what they are, and how to get images from them."""

import json

from sonogravity.common.messages import some

# Suffixes of each kind, and the remedy.
KINDS = {
    "DICOM": ((".dcm", ".dicom", ".ima"), "save their frames as PNG"),
    "video": ((".mp4", ".avi", ".mov", ".mkv", ".webm", ".wmv", ".m4v", ".mpg", ".mpeg"), "save their frames as PNG"),
    "GIF": ((".gif",), "save their frames as PNG"),
    "volume": ((".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".mat", ".npz"), "save their slices as PNG"),
    "archive": ((".zip", ".tar", ".tar.gz", ".tgz", ".gz", ".7z", ".rar"), "unpack them"),
    "LabelMe annotation": ((), "draw them into mask files"),
    "JSON": ((".json",), ""),
    "folder": ((), "move their files into this folder, the subject first in each name, as P1_001.png"),
    "other": ((), ""),
}
DICOM_PREFIX = 128  # bytes before the letters DICM


def describe(paths):
    """Return files that are no images as text: how many of each kind, the first names, and the remedy."""
    found = {}
    for path in paths:
        found.setdefault(kind_of(path), []).append(path.name)
    parts = []
    for kind in (kind for kind in KINDS if kind in found):
        names, remedy = found[kind], KINDS[kind][1]
        plural = "s" if len(names) > 1 else ""
        noun = f"folder{plural}" if kind == "folder" else f"{kind} file{plural}"
        parts.append(f"{len(names)} {noun} ({some(names)}{'; ' if remedy else ''}{remedy})")
    return ", ".join(parts)


def kind_of(path):
    """Return the one of KINDS that a path is of, by its suffix, or else by its content."""
    if path.is_dir():
        return "folder"
    name = path.name.lower()
    found = next((kind for kind, (suffixes, _) in KINDS.items() if name.endswith(suffixes)), None)
    if found == "JSON" and _is_labelme(path):
        return "LabelMe annotation"
    if found is None and _is_dicom(path):
        return "DICOM"
    return found or "other"


def _is_dicom(path):
    try:
        with open(path, "rb") as file:
            return file.read(DICOM_PREFIX + 4)[DICOM_PREFIX:] == b"DICM"
    except OSError:
        return False


def _is_labelme(path):
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "shapes" in content
