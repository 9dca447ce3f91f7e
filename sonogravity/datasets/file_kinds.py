"""Kinds of files, by their suffix or content: images, sequences of frames, and others. The stem that names a file."""

import json
import re
import unicodedata

from sonogravity.common.messages import some
from sonogravity.datasets.image_files import EXTENSIONS

CONVERT = "convert them with python -m sonogravity.convert"
SAME_FOLDER = (
    "python -m sonogravity.convert makes one folder of them, with the folders as subjects; or move their files into "
    "this folder, the subject first in each name, as P1_001.png"
)
LABELME, COCO, CVAT = ANNOTATIONS = ("LabelMe annotation", "COCO annotation", "CVAT annotation")
SEGMENTATION = ".seg.nrrd"  # of 3D Slicer: labels, never an image
# Suffixes of each kind that is no plain image, and the remedy if only images are read.
KINDS = {
    "DICOM": ((".dcm", ".dicom", ".ima"), CONVERT),
    "video": ((".mp4", ".avi", ".mov", ".mkv", ".webm", ".wmv", ".m4v", ".mpg", ".mpeg"), CONVERT),
    "GIF": ((".gif",), CONVERT),
    "volume": ((".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr"), CONVERT),
    "NPZ": ((".npz",), CONVERT),
    "MATLAB": ((".mat",), "save their slices as PNG"),
    "archive": ((".zip", ".tar", ".tar.gz", ".tgz", ".gz", ".7z", ".rar"), "unpack them"),
    **dict.fromkeys(ANNOTATIONS, ((), CONVERT)),
    "JSON": ((".json",), ""),
    "XML": ((".xml",), ""),
    "folder": ((), SAME_FOLDER),
    "other": ((), ""),
}
SEQUENCES = ("DICOM", "video", "GIF", "volume", "NPZ")  # kinds that predict and evaluate read
TWO_SUFFIXES = (".nii.gz", SEGMENTATION, ".seq.nrrd", ".seq.mha", ".igs.mha", ".igs.nrrd")
SUFFIXES = (*EXTENSIONS, *(suffix for kind in SEQUENCES for suffix in KINDS[kind][0]))
START = 4096  # bytes, in which the first element of an XML file stands
DICOM_PREFIX = 128  # bytes before the letters DICM
DICOMDIR = "DICOMDIR"  # the name of the file that lists the DICOM files of a medium


def stem_of(name):
    """Return a file's name without its known suffix, with composed letters, because macOS stores "ü" as two characters.

    DICOM files often have no suffix, and points in their names: ``1.2.840.5`` is a stem.
    """
    lower = name.lower()
    known = (suffix for suffix in (*TWO_SUFFIXES, *SUFFIXES) if lower.endswith(suffix) and lower != suffix)
    return unicodedata.normalize("NFC", name[: len(name) - len(next(known, ""))])


def describe(paths):
    """Return files that are not read as text: how many of each kind, the first names, and the remedy."""
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
    if found == "JSON":
        return _kind_of_json(path)
    if found == "XML" and _is_cvat(path):
        return CVAT
    if found is None and _is_dicom(path):
        return "DICOM"
    return found or "other"


def is_frames(path):
    """Return whether predict and evaluate read a file: an image or a sequence of frames."""
    return path.suffix.lower() in EXTENSIONS or kind_of(path) in SEQUENCES


def _is_dicom(path):
    try:
        with open(path, "rb") as file:
            return file.read(DICOM_PREFIX + 4)[DICOM_PREFIX:] == b"DICM"
    except OSError:
        return False


def _kind_of_json(path):
    try:
        content = read_json(path)
    except (OSError, ValueError, RecursionError):
        return "JSON"
    held = {key for key, value in content.items() if isinstance(value, list)} if isinstance(content, dict) else set()
    if "shapes" in held:
        return LABELME
    return COCO if held >= {"images", "annotations", "categories"} else "JSON"


def read_json(path):
    """Return the content of a JSON file. Raise ValueError, OSError or RecursionError if it is none."""
    return json.loads(path.read_text(encoding="utf-8-sig"))


def _is_cvat(path):
    try:
        with open(path, "rb") as file:
            return re.search(rb"<annotations[\s>]", file.read(START)) is not None
    except OSError:
        return False
