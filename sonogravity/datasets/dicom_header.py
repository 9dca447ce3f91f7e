"""What is read from a DICOM header: scale, tissue regions and times. Nothing else of it reaches any output.

Sources: DICOM PS3.3, C.8.5.5 (ultrasound regions), 10.7.1.3 (pixel spacing), C.7.6.5 (cine).
"""

import re

from sonogravity.common.files import BROKEN_FILE
from sonogravity.datasets.sequences import Region, spacing_of

CENTIMETRES, TISSUE, TWO_DIMENSIONAL = 3, 1, 1  # codes of PhysicalUnitsXDirection, RegionDataType and -SpatialFormat
# Text that can tell a person, a place, a date or a file. CS, codes such as the modality, cannot.
TELLING = ("PN", "LO", "SH", "DA", "UI", "AE", "ST", "LT", "UC", "UT")
SHORTEST = 4  # characters of a value, or of a part of a person's name (3), that a file's name is searched for
FOLDERS = 3  # that are searched, from the file upwards: images/, and the folder that was given


def regions_of(header, size):
    """Return the 2D tissue regions of a header, each with its spacing, and warnings. size: (H, W) of the frames."""
    found, warnings = [], []
    for number, item in enumerate(header.get("SequenceOfUltrasoundRegions") or (), 1):
        if (item.get("RegionSpatialFormat"), item.get("RegionDataType")) != (TWO_DIMENSIONAL, TISSUE):
            continue
        left, top, right, bottom = (item.get(f"RegionLocation{name}") for name in ("MinX0", "MinY0", "MaxX1", "MaxY1"))
        if None in (left, top, right, bottom) or not (0 <= left < right and 0 <= top < bottom):
            warnings.append(f"ultrasound region {number} has no place in the image, so it is not used")
            continue
        right, bottom = min(right + 1, size[1]), min(bottom + 1, size[0])  # both corners belong to the region
        if right <= left or bottom <= top:
            warnings.append(f"ultrasound region {number} lies outside the image, so it is not used")
            continue
        units = item.get("PhysicalUnitsXDirection"), item.get("PhysicalUnitsYDirection")
        deltas = item.get("PhysicalDeltaX"), item.get("PhysicalDeltaY")
        spacing = None
        if units != (CENTIMETRES, CENTIMETRES):
            warnings.append(
                f"the scale of ultrasound region {number} is in units {units[0]} and {units[1]}, not in centimetres "
                f"({CENTIMETRES}), so it is not used"
            )
        else:
            spacing = spacing_of(*(abs(delta or 0) * 10 for delta in deltas))  # cm to mm; deltas may be negative
            if spacing is None:
                warnings.append(
                    f"the scale of ultrasound region {number} is {deltas[0]} and {deltas[1]} cm per pixel, "
                    "so it is not used"
                )
        found.append(Region(number, top, left, bottom - top, right - left, spacing))
    return tuple(found), warnings


def group_of(header, keyword):
    """Return the item of a functional group, that of all frames or else of the first, None without it."""
    for sequence in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (header.get(sequence) or ())[:1]:
            if group.get(keyword):
                return group[keyword][0]
    return None


def pixel_size_of(header):
    """Return (width, height) of a pixel in mm from PixelSpacing (row distance, column distance), None without it."""
    given = (group_of(header, "PixelMeasuresSequence") or header).get("PixelSpacing") or header.get("PixelSpacing")
    return (float(given[1]), float(given[0])) if given and len(given) == 2 else None


def times_of(header, count):
    """Return the seconds of each of ``count`` frames from the first, None if the header does not give them."""
    steps = header.get("FrameTimeVector") or ()
    steps = [float(step) for step in ([steps] if isinstance(steps, (int, float)) else steps)]
    if len(steps) >= count > 1:
        times = [0.0]
        for step in steps[1:count]:
            times.append(times[-1] + step / 1000)
        return times
    milliseconds = float(header.get("FrameTime") or 0)
    rate = float(header.get("CineRate") or header.get("RecommendedDisplayFrameRate") or 0)
    milliseconds = milliseconds or (1000 / rate if rate else 0)
    return [k * milliseconds / 1000 for k in range(count)] if count > 1 and milliseconds > 0 else None


def identifying_in_name(header, path):
    """Return the names of header elements whose values the names of the file or of its folders hold."""
    from pydicom.multival import MultiValue

    name = "/".join(path.absolute().parts[-1 - FOLDERS :]).casefold()
    bare = re.sub(r"[-_. ]", "", name)  # 2024-01-31 is the date 20240131
    found = []
    for tag in list(header.keys()):
        try:
            element = header[tag]
        except BROKEN_FILE:  # an element that has nothing to do with the pixels may be damaged
            continue
        if element.VR not in TELLING or not element.value:
            continue
        values = element.value if isinstance(element.value, MultiValue) else [element.value]
        shortest = SHORTEST - (element.VR == "PN")
        for value in (part.strip().casefold() for each in values for part in re.split(r"[\^=]", str(each))):
            if len(value) >= shortest and (value in name or (value.isdigit() and value in bare)):
                found.append(element.keyword or str(element.tag))
                break
    return found
