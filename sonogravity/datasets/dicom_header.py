"""What is read from a DICOM header: scale, tissue regions and times. Nothing else of it reaches any output.

Sources: DICOM PS3.3, C.8.5.5 (ultrasound regions), 10.7.1.3 (pixel spacing), C.7.6.5 (cine).
"""

from sonogravity.datasets.sequences import Region, spacing_of

CENTIMETRES, TISSUE, TWO_DIMENSIONAL = 3, 1, 1  # codes of PhysicalUnitsXDirection, RegionDataType and -SpatialFormat
MEASURED = (
    "SOPClassUID",
    "NumberOfFrames",
    "SequenceOfUltrasoundRegions",
    "PixelSpacing",
    "SharedFunctionalGroupsSequence",
    "FrameTime",
    "FrameTimeVector",
    "CineRate",
    "RecommendedDisplayFrameRate",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)
# Elements that identify a person, a place or a file: read only to see whether a file's name holds their values.
IDENTIFYING = (
    "PatientName",
    "PatientID",
    "OtherPatientIDs",
    "OtherPatientNames",
    "PatientBirthDate",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "InstitutionName",
    "ReferringPhysicianName",
    "OperatorsName",
    "PerformingPhysicianName",
    "StationName",
    "DeviceSerialNumber",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
)
SHORTEST = 3  # characters of a value, or of a part of a name, that a file's name is searched for


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


def pixel_size_of(header):
    """Return (width, height) of a pixel in mm from PixelSpacing (row distance, column distance), None without it."""
    given = header.get("PixelSpacing")
    for group in header.get("SharedFunctionalGroupsSequence") or ():
        for measures in group.get("PixelMeasuresSequence") or ():
            given = given or measures.get("PixelSpacing")
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
    """Return the names of header elements whose values the file's name or its folder's name holds."""
    name = f"{path.parent.name}/{path.name}".casefold()
    found = []
    for keyword in IDENTIFYING:
        values = header.get(keyword)
        values = values if isinstance(values, (list, tuple)) or hasattr(values, "append") else [values]
        parts = {part.casefold() for value in values if value for part in str(value).replace("=", "^").split("^")}
        if any(len(part.strip()) >= SHORTEST and part.strip() in name for part in parts):
            found.append(keyword)
    return found
