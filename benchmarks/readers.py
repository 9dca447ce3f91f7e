"""Measure the readers of clips, stacks and volumes: speed, memory, and prediction on a clip against its frames.

    python benchmarks/data.py --tables readers [--rounds 3] [--clip-frames 60] [--counts 100 1000 5000]

speed       per format, one thread, frames of 800x740: seconds to open the file, frames per second in order, and ms to
            reach the middle frame of a file that was just opened
memory      peak memory above that after the imports, reading every frame of a clip of 100 to 5000 frames
prediction  seconds of ``predict.py`` on a clip of 300 frames in MP4 against the same frames as PNG, in turns, as a
            process each, and the ratio of the medians
"""

import itertools
import statistics
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import common
import numpy as np
from PIL import Image

PREDICTED = 300  # frames
OF_MEMORY = ("mp4", "DICOM RLE", "TIFF deflate")


def _video(codec, pixels, **options):
    def write(path, frames):
        import av

        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.height, stream.width, stream.pix_fmt, stream.options = *common.FRAME, pixels, options
            for number, array in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(array, format="gray").reformat(format=pixels)
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())

    return write


def _dicom(name):
    def write(path, frames):
        import imagecodecs
        from pydicom import uid
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.encaps import encapsulate
        from pydicom.pixels import get_encoder

        syntax, encode = {
            "uncompressed": (uid.ExplicitVRLittleEndian, np.ndarray.tobytes),
            "RLE": (uid.RLELossless, lambda frame: get_encoder(uid.RLELossless).encode(frame, **described)),
            "JPEG": (uid.JPEGBaseline8Bit, lambda frame: imagecodecs.jpeg8_encode(frame, level=90)),
            "JPEG-LS": (uid.JPEGLSLossless, imagecodecs.jpegls_encode),
            "JPEG 2000": (uid.JPEG2000Lossless, lambda f: imagecodecs.jpeg2k_encode(f, codecformat="j2k")),
        }[name]
        described = {
            "rows": common.FRAME[0],
            "columns": common.FRAME[1],
            "samples_per_pixel": 1,
            "photometric_interpretation": "MONOCHROME2",
            "bits_allocated": 8,
            "bits_stored": 8,
            "pixel_representation": 0,
            "number_of_frames": 1,
        }
        data, content = Dataset(), [encode(frame) for frame in frames]
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = syntax
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = uid.UltrasoundMultiFrameImageStorage
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
        data.Rows, data.Columns, data.SamplesPerPixel, data.NumberOfFrames = *common.FRAME, 1, len(content)
        data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 0
        data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
        data.PixelData = b"".join(content) if name == "uncompressed" else encapsulate(content)
        data["PixelData"].VR = "OB"
        data.save_as(path, enforce_file_format=True)

    return write


def _tiff(**options):
    def write(path, frames):
        import tifffile

        with tifffile.TiffWriter(path, imagej=not options) as pages:
            for frame in frames:
                pages.write(frame, contiguous=not options, **options)

    return write


def _volume(compress):
    def write(path, frames):
        import SimpleITK

        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.stack(list(frames))), str(path), compress)

    return write


def _pngs(path, frames):
    path.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f"frame_{number:06d}.png")


FORMATS = {
    "PNG files": ("png", _pngs),
    "mp4": ("mp4", _video("libx264", "yuv420p", crf="18")),
    "mkv ffv1": ("mkv", _video("ffv1", "gray")),
    "avi mjpeg": ("avi", _video("mjpeg", "yuvj420p")),
    "webm vp9": ("webm", _video("libvpx-vp9", "yuv420p", deadline="realtime", **{"cpu-used": "8"})),
    "DICOM": ("dcm", _dicom("uncompressed")),
    "DICOM RLE": ("dcm", _dicom("RLE")),
    "DICOM JPEG": ("dcm", _dicom("JPEG")),
    "DICOM JPEG-LS": ("dcm", _dicom("JPEG-LS")),
    "DICOM JPEG 2000": ("dcm", _dicom("JPEG 2000")),
    "TIFF ImageJ": ("tif", _tiff()),
    "TIFF deflate": ("tif", _tiff(compression="deflate", metadata=None)),
    "NPZ": ("npz", lambda path, frames: np.savez_compressed(path, np.stack(list(frames)))),
    "mha": ("mha", _volume(False)),
    "nii.gz": ("nii.gz", _volume(True)),
}


def reader(path, middle):
    """Return the turn of a worker: open a file, or a folder of files, and read its frames.

    middle: read the middle frame alone; else all. The answer: seconds to open, number of frames, seconds to read them,
    MB of memory that this took.
    """
    from sonogravity.datasets.frame_files import read_image
    from sonogravity.datasets.inputs import find_input_pairs

    common.imported()

    def turn():
        before = _peak_mb()
        start = time.perf_counter()
        pairs, _ = find_input_pairs([Path(path)], partial=True, use_masks=False)
        opened = time.perf_counter() - start
        images = [pair.image for pair in pairs]
        images = images[len(images) // 2 :][:1] if middle else images
        start = time.perf_counter()
        for image in images:
            read_image(image, 1)
        return opened, len(images), time.perf_counter() - start, _peak_mb() - before

    return turn


def _peak_mb():
    """Return the peak memory of this process in MB. On Linux ru_maxrss would begin with that of its parent."""
    status = Path("/proc/self/status")
    if not status.exists():
        return common.peak_mb()
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**10


def speed_table(root, frames, args):
    """Measure each format. frames: arrays."""
    rows, workers = [], {}
    for name, (suffix, write) in FORMATS.items():
        path = root / f"{name}.{suffix}"
        write(path, frames)
        workers |= {(name, middle): common.Worker(reader, path=path, middle=middle) for middle in (False, True)}
    answers = common.in_turns(workers, args.rounds, ())
    for name in FORMATS:
        opened, count, seconds, _ = (statistics.median(each) for each in zip(*answers[name, False], strict=True))
        reached = statistics.median(turn[2] for turn in answers[name, True])
        rows.append({"format": name, "open": opened, "speed": count / seconds, "middle": 1000 * reached})
    for worker in workers.values():
        worker.close()
    print(f"\nreading {len(frames)} frames of {common.FRAME[1]}x{common.FRAME[0]}, one thread:")
    columns = {"format": ("format", ""), "open, s": ("open", ".3f"), "frames/s": ("speed", ".0f")}
    common.print_table(rows, columns | {"middle frame, ms": ("middle", ".1f")})
    return rows


def memory_table(root, frames, args):
    """Measure the peak memory of reading clips of several lengths."""
    rows = []
    for name in OF_MEMORY:
        suffix, write = FORMATS[name]
        row = {"format": name}
        for count in args.counts:
            path = root / f"long.{suffix}"
            write(path, itertools.islice(itertools.cycle(frames), count))
            worker = common.Worker(reader, path=path, middle=False)
            row[f"at_{count}"] = worker.ask()[3]
            worker.close()
            path.unlink()
        rows.append(row)
    print("\npeak memory of reading every frame, MB above that after the imports:")
    columns = {f"{count} frames": (f"at_{count}", ".0f") for count in args.counts}
    common.print_table(rows, {"format": ("format", "")} | columns)
    return rows


def prediction_table(root, frames, args):
    """Time predict.py on a clip and on its frames."""
    frames = list(itertools.islice(itertools.cycle(frames), PREDICTED))
    paths = {"PNG": root / "clip", "MP4": root / "clip.mp4"}
    _pngs(paths["PNG"], frames)
    FORMATS["mp4"][1](paths["MP4"], frames)
    seconds = {name: [] for name in paths}
    for _ in range(args.rounds):
        for name, path in paths.items():
            command = [sys.executable, common.ROOT / "deeplab" / "predict.py", "--load", args.checkpoint]
            command += ["--input", path, "--panels", "none", "--output", root / f"out_{name}"]
            start = time.perf_counter()
            subprocess.run([str(part) for part in command], check=True, capture_output=True, env=common.environment())
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    print(
        f"\npredict.py on {PREDICTED} frames, s: PNG {medians['PNG']:.1f}, MP4 {medians['MP4']:.1f} "
        f"({medians['MP4'] / medians['PNG'] - 1:+.1%})"
    )
    return seconds


def tables(root, images, args):
    """Print all tables. images: paths of frames of 800x740."""
    frames = [np.array(Image.open(image).convert("L")) for image in images]
    frames = list(itertools.islice(itertools.cycle(frames), args.clip_frames))
    found = {"speed": speed_table(root, frames, args), "memory": memory_table(root, frames, args)}
    if args.checkpoint:
        found["prediction"] = prediction_table(root, frames, args)
    return found
