"""Cases of bad input: clips, cines, stacks and volumes that are damaged, too large, or no images."""

import zipfile

import numpy as np
import pydicom
import SimpleITK
import tifffile
from scene import add
from sequence_files import grey_frames, region, write_dicom, write_video, write_volume

SIZE = (40, 36)
FRAMES = grey_frames(6, SIZE)


def alone(write):
    """The case's only input is the file that ``write`` makes of a path."""

    def arrange(scene):
        folder = scene.root / "clips"
        folder.mkdir()
        return ["--input", write(folder), "--no-masks"]

    return arrange


def cut(path, share=1 / 3):
    path.write_bytes(path.read_bytes()[: -int(path.stat().st_size * share)])
    return path


def renamed(path, old, new):
    path.write_bytes(path.read_bytes().replace(old, new))
    return path


def dicom(**elements):
    return lambda folder: write_dicom(folder / "cine", FRAMES, **elements)


def changed(change, **elements):
    """A DICOM file whose data set is changed after it was written."""

    def write(folder):
        path = write_dicom(folder / "cine", FRAMES, **elements)
        data = pydicom.dcmread(path)
        change(data)
        data.save_as(path)
        return path

    return write


def report(data):
    del data.PixelData, data.Rows
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"


def document(data):
    del data.PixelData, data.Rows
    data.SOPClassUID, data.EncapsulatedDocument = "1.2.840.10008.5.1.4.1.1.104.1", b"%PDF"


def huge(data):
    data.Rows = data.Columns = 60000


def none(data):
    data.PixelData = b""


def four_axes(folder):
    stack = np.stack([np.stack(FRAMES)] * 2)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(stack, isVector=False), str(folder / "scan.nii.gz"))
    return folder / "scan.nii.gz"


def two_sizes(folder):
    with tifffile.TiffWriter(folder / "stack.tif") as pages:
        pages.write(FRAMES[0])
        pages.write(FRAMES[0][:20])
    return folder / "stack.tif"


def circle(folder):
    """A stack whose last directory names the first as its next, as damage to 4 bytes may leave it."""
    path = folder / "stack.tif"
    with tifffile.TiffWriter(path, byteorder="<") as pages:
        for frame in FRAMES[:3]:
            pages.write(frame, contiguous=False)
    with tifffile.TiffFile(path) as stack:
        first, last = stack.pages[0], stack.pages[2]
        at = last.offset + 2 + 12 * len(last.tags)
    data = path.read_bytes()
    path.write_bytes(data[:at] + first.offset.to_bytes(4, "little") + data[at + 4 :])
    return path


def promised(folder):
    """An array that promises a million frames of 8000x8000."""
    with zipfile.ZipFile(folder / "a.npz", "w") as archive, archive.open("a.npy", "w") as member:
        header = {"descr": "|u1", "fortran_order": False, "shape": (1_000_000, 8000, 8000)}
        np.lib.format.write_array_header_1_0(member, header)
        member.write(b"\0" * 100)
    return folder / "a.npz"


def elsewhere(folder):
    path = write_volume(folder / "a.mha", FRAMES)
    path.write_bytes(path.read_bytes().replace(b"= LOCAL", b"= /etc/passwd"))
    return path


def text(name, content="this is no clip\n" * 9):
    def write(folder):
        (folder / name).write_text(content)
        return folder / name

    return write


for _name in ("clip.mp4", "clip.avi", "clip.mkv", "loop.gif", "scan.nii.gz", "scan.mha", "scan.nrrd", "a.npz"):
    add(f"{_name} that is text", "unet/predict", alone(text(_name)), _name, "cannot be read")
for _name, _list in (
    ("clip.avi", "ffconcat version 1.0\nfile /etc/passwd\n"),
    ("clip.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nhttp://127.0.0.1:1/a.mp4\n#EXT-X-ENDLIST\n"),
):
    add(f"a list of other files named {_name}", "unet/predict", alone(text(_name, _list)), _name, "cannot be read")
add(
    "a video without a decoder",
    "unet/predict",
    alone(lambda folder: renamed(write_video(folder / "clip.mkv", FRAMES), b"V_FFV1", b"V_XXXX")),
    "clip.mkv",
    "no decoder is installed",
    "MP4 with H.264",
)
add("cine.dcm that is text", "unet/predict", alone(text("cine.dcm")), "cine.dcm", "DICOM")
add(
    "an mp4 without its index",
    "unet/predict",
    alone(lambda folder: cut(write_video(folder / "clip.mp4", FRAMES, "libx264", "yuv420p"))),
    "clip.mp4",
    "cannot be read",
)
for _kind, _write in (
    ("cine", lambda folder: cut(write_dicom(folder / "cine", FRAMES))),
    ("video", lambda folder: cut(write_video(folder / "clip.mkv", FRAMES), 0.4)),
):
    add(
        f"a truncated {_kind} gives the frames before the damage",
        "unet/predict",
        alone(_write),
        check=lambda s: 1 <= len(s.rows()) < len(FRAMES),
    )
add("a cine without frames", "unet/predict", alone(changed(none)), "cine", "frame 0 of 6")
add("a DICOM report", "unet/predict", alone(changed(report)), "cine", "Basic Text SR", "holds no image")
add("a document in DICOM", "unet/predict", alone(changed(document)), "cine", "Encapsulated PDF", "holds no image")
add("a cine of 60000x60000", "unet/predict", alone(changed(huge)), "cine", "60000x60000")
add(
    "unknown units of the scale: lengths are in pixels",
    "unet/predict",
    alone(dicom(SequenceOfUltrasoundRegions=[region(right=35, bottom=39, units=(5, 5))])),
    check=lambda s: "area_px_128" in s.rows(),
)
add(
    "a region that is not there",
    "unet/predict",
    lambda s: [*alone(dicom())(s), "--region"],
    "cine",
    "no ultrasound region",
    "leave --region out",
)
add("frames of two sizes", "unet/predict", alone(two_sizes), "stack.tif", "different sizes", "separate files")
add("a stack without an end", "unet/predict", alone(circle), "stack.tif", "form a circle")
add("a volume of four axes", "unet/predict", alone(four_axes), "scan.nii.gz", "more than three axes")
add(
    "flipped axes of NIfTI",
    "unet/predict",
    alone(lambda folder: write_volume(folder / "a.nii.gz", FRAMES, direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1))),
    "a.nii.gz",
    "flipped",
    "direction 1 0 0 1",
)
add("a million frames that are not there", "unet/predict", alone(promised), "a.npz", "frame 0 of 1000000")
add("pixels in another file", "unet/predict", alone(elsewhere), "a.mha", "/etc/passwd", "not read")
