"""Open a file as a sequence of frames: which reader takes which kind of file."""

import re

from sonogravity.common.messages import InputError, one_line
from sonogravity.datasets.dicom_files import open_dicom
from sonogravity.datasets.file_kinds import DICOMDIR, kind_of
from sonogravity.datasets.image_files import EXTENSIONS, frame_count
from sonogravity.datasets.pairs import check_name
from sonogravity.datasets.sequences import NotAnImage, need, readable
from sonogravity.datasets.stack_files import ArrayStack, PillowStack, TiffStack
from sonogravity.datasets.video_files import Video
from sonogravity.datasets.volume_files import Volume

READERS = {"DICOM": open_dicom, "video": Video, "GIF": PillowStack, "volume": Volume, "NPZ": ArrayStack}
TIFF = (".tif", ".tiff")


def reader_of(path):
    """Return what opens a file as a Sequence, None for a plain image."""
    if path.suffix.lower() not in EXTENSIONS:
        return READERS.get(kind_of(path))
    if frame_count(path) == 1:
        return None
    return TiffStack if path.suffix.lower() in TIFF else PillowStack


def open_sequence(path):
    """Return the Sequence of a file, None for a plain image. Raise InputError if the file is unusable."""
    reader = reader_of(path)
    if reader is None:
        return None
    with readable(path):
        return reader(path)


def members_of(dicomdir):
    """Return {stem: path} of the images that a DICOMDIR lists. A stem joins the parts of the file's ID by ``_``.

    Raise InputError if the file is no such list, or if a listed file is missing.
    """
    need(dicomdir, "DICOM files", "pydicom")
    import pydicom

    with readable(dicomdir, pydicom.errors.InvalidDicomError):
        listed = pydicom.dcmread(dicomdir).get("DirectoryRecordSequence")
    if listed is None:
        raise NotAnImage(f"{dicomdir}: lists no files; give the DICOM files themselves")
    found = {}
    for record in listed:
        parts = record.get("ReferencedFileID")
        if record.get("DirectoryRecordType") == "IMAGE" and parts:
            parts = [parts] if isinstance(parts, str) else list(parts)
            path = dicomdir.parent.joinpath(*parts)
            if any(part in ("", ".", "..") or re.search(r"[/\\:]", part) for part in parts):
                raise InputError(f"{dicomdir}: lists '{one_line(str(path))}', which is not a file of this medium")
            if found.setdefault("_".join(parts), path) != path:
                raise InputError(
                    f"{dicomdir}: {path} and another file have one name when joined by _; give the folders"
                )
            check_name(path)
    missing = [path for path in found.values() if not path.is_file()]
    if missing or not found:
        what = f"lists {len(missing)} files that are missing, such as {missing[0]}" if missing else "lists no image"
        raise InputError(f"{dicomdir}: {what}; copy the whole medium, or give the DICOM files themselves")
    return found


def is_dicomdir(path):
    """Return whether a path is the list of a medium."""
    return path.name.upper() == DICOMDIR and path.is_file()
