"""Where the frames of a DICOM file lie in its pixel data (DICOM PS3.5, annex A.4).

The position of every frame is found once, from the lengths of the parts alone, so that a frame in the middle of a long
cine is read without the frames before it.
"""

import io
import os
from bisect import bisect_right
from itertools import pairwise
from struct import unpack

from sonogravity.common.messages import InputError

ITEM = b"\xfe\xff\x00\xe0"  # of a fragment, or of the offset table before the first
UNDEFINED = 0xFFFFFFFF
VRS = (b"OB", b"OW", b"UN")  # value representations of pixel data
STARTS, END = (b"\xff\xd8", b"\xff\x4f"), b"\xff\xd9"  # of a JPEG and of a JPEG 2000 image
LONGEST_PADDING = 4096  # bytes of 0 or FF after the end marker


class PixelData:
    """The pixel data of an open DICOM file. content: the file's path, or the bytes of a deflated file.

    offset: of the first byte of the value. length: of the value, UNDEFINED if it is made of fragments. size: of the
    content. vr: value representation.
    """

    def __init__(self, content, after_header, explicit, little_endian):
        self._content = content
        with self.open() as file:
            self.size = file.seek(0, os.SEEK_END)
            file.seek(after_header)
            order = "<" if little_endian else ">"
            head = file.read(12)
            explicit = explicit and head[4:6] in VRS  # some files have one element in the other encoding
            self.offset = after_header + (12 if explicit else 8)
            self.vr = head[4:6].decode() if explicit else "OW"
            self.length = unpack(f"{order}L", head[self.offset - after_header - 4 : self.offset - after_header])[0]

    def open(self):
        """Return an open binary file that holds the pixel data."""
        return io.BytesIO(self._content) if isinstance(self._content, bytes) else open(self._content, "rb")

    def read(self, parts):
        """Return the bytes of parts, (offset, length) each, one after the other."""
        with self.open() as file:
            found = []
            for offset, length in parts:
                file.seek(offset)
                found.append(file.read(length))
        return b"".join(found)

    def fragments(self):
        """Return the bytes of the basic offset table, and (offset, length) of each fragment that is complete."""
        found = []
        with self.open() as file:
            file.seek(self.offset)
            while True:
                head = file.read(8)
                if len(head) < 8 or head[:4] != ITEM:  # the delimiter at the end, or the end of a truncated file
                    break
                length, start = unpack("<L", head[4:])[0], file.tell()
                if start + length > self.size:
                    break
                found.append((start, length))
                file.seek(length, os.SEEK_CUR)
        return (self.read(found[:1]) if found else b""), found[1:]

    def frames(self, count, extended=None):
        """Return the parts of each frame that is complete, at most ``count``. extended: the extended offset table."""
        table, fragments = self.fragments()
        if extended:
            offsets = list(unpack(f"<{len(extended) // 8}Q", extended))
        else:
            offsets = list(unpack(f"<{len(table) // 4}L", table[: len(table) // 4 * 4]))
        if not fragments or count == 1:
            return [fragments] if fragments else []
        if len(offsets) >= count and all(one < other for one, other in pairwise(offsets[:count])):
            return _by_offsets(fragments, offsets[:count])
        return self._by_start(fragments)[:count]

    def _by_start(self, fragments):
        """Group fragments so that each group begins with the start of an image; without such starts, one per group."""
        with self.open() as file:
            starts = [file.seek(offset) >= 0 and file.read(2) in STARTS for offset, _ in fragments]
        groups = []
        for fragment, is_start in zip(fragments, starts, strict=True):
            if is_start or not groups or not any(starts):
                groups.append([])
            groups[-1].append(fragment)
        return groups

    def ends(self, parts):
        """Return whether the image in these parts, a JPEG or JPEG 2000, has its end marker."""
        last, length = parts[-1]
        tail = min(length, LONGEST_PADDING)
        return has_end(self.read([(last + length - tail, tail)]))


def has_end(data):
    """Return whether the bytes of a JPEG or JPEG 2000 end with its end marker, apart from padding."""
    return data[-LONGEST_PADDING:].rstrip(b"\0\xff").endswith(END)


def _by_offsets(fragments, offsets):
    """Group fragments by the offsets of the frames' first items, up to the first frame of which a part is missing."""
    first = fragments[0][0] - 8
    groups = [[] for _ in offsets]
    for fragment in fragments:
        place = bisect_right(offsets, fragment[0] - 8 - first) - 1
        if place < 0:
            raise ValueError("the offset table does not fit the frames")
        groups[place].append(fragment)
    for i, group in enumerate(groups):
        complete = group and (i + 1 == len(offsets) or sum(group[-1]) - first == offsets[i + 1])
        if not complete:
            return groups[:i]
    return groups


class Joined(io.RawIOBase):
    """The parts of a file, (offset, length) each, as one file: a video inside a DICOM file."""

    def __init__(self, pixel_data, parts):
        self._file = pixel_data.open()
        self._parts = parts
        self._starts = [0]
        for _, length in parts:
            self._starts.append(self._starts[-1] + length)
        self._position = 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=os.SEEK_SET):
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._starts[-1]}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self):
        return self._position

    def readinto(self, buffer):
        if self._position >= self._starts[-1]:
            return 0
        part = bisect_right(self._starts, self._position) - 1
        offset, length = self._parts[part]
        inside = self._position - self._starts[part]
        self._file.seek(offset + inside)
        count = self._file.readinto(memoryview(buffer)[: length - inside])
        self._position += count
        return count

    def close(self):
        self._file.close()
        super().close()


def codestream_size(data):
    """Return (H, W) that a JPEG or JPEG 2000 image declares in its own header, None for other data."""
    if data[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000: SOC, SIZ; then length, capabilities, width, height, offsets
        width, height, left, top = unpack(">4L", data[8:24])
        return height - top, width - left
    place = 2 if data[:2] == b"\xff\xd8" else len(data)
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], unpack(">H", data[place + 2 : place + 4])[0]
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:  # SOFn; of JPEG-LS
            height, width = unpack(">HH", data[place + 5 : place + 9])
            return height, width
        place += 2 + length
    return None


def refuse_other_size(path, number, data, size):
    """Raise InputError if a compressed frame declares another size than the header: it would be decoded at that."""
    found = codestream_size(data)
    if found is not None and found != size:
        raise InputError(
            f"{path}, frame {number}: is {found[1]}x{found[0]}, but the header says {size[1]}x{size[0]} (width x "
            "height); export the file again"
        )
