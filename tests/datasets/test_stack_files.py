"""Stacks and volumes: every frame as its writer stored it, one at a time, with the scale and time of the file."""

import json
import zipfile

import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image
from sequence_files import SIZE, grey_frames, write_segmentation, write_volume

from sonogravity.common.messages import InputError
from sonogravity.datasets import volume_files
from sonogravity.datasets.image_files import decode_image
from sonogravity.datasets.inputs import find_input_pairs
from sonogravity.datasets.readers import open_sequence
from sonogravity.datasets.spacing import Spacing

FRAMES = grey_frames(6)
STACK = np.stack(FRAMES)


def by_tifffile(**options):
    return lambda path: tifffile.imwrite(path, STACK, **options)


def page_by_page(path):
    with tifffile.TiffWriter(path) as pages:
        for frame in FRAMES:
            pages.write(frame, contiguous=False, compression="deflate")


def by_pillow(**options):
    pictures = [Image.fromarray(frame) for frame in FRAMES]
    return lambda path: pictures[0].save(path, save_all=True, append_images=pictures[1:], **options)


WRITERS = {
    "ImageJ, one directory.tif": by_tifffile(imagej=True),
    "ImageJ, named axes.tif": by_tifffile(imagej=True, metadata={"axes": "ZYX"}),
    "pages.tif": by_tifffile(photometric="minisblack"),
    "big-endian.tif": by_tifffile(photometric="minisblack", byteorder=">"),
    "LZW.tif": by_tifffile(photometric="minisblack", compression="lzw"),
    "tiles.tif": by_tifffile(photometric="minisblack", tile=(16, 16), compression="deflate"),
    "BigTIFF.tiff": by_tifffile(photometric="minisblack", bigtiff=True),
    "OME.ome.tif": by_tifffile(photometric="minisblack", metadata={"axes": "TYX"}),
    "page by page.tif": page_by_page,
    "Pillow.tif": by_pillow(compression="tiff_lzw"),
    "animated.gif": by_pillow(duration=40),
    "animated.webp": by_pillow(duration=40, lossless=True),
    "stored.npz": lambda path: np.savez(path, STACK),
    "deflated.npz": lambda path: np.savez_compressed(path, frames=STACK),
    "volume.mha": lambda path: write_volume(path, FRAMES),
    "deflated.mha": lambda path: write_volume(path, FRAMES, compress=True),
    "volume.mhd": lambda path: write_volume(path, FRAMES),
    "volume.nrrd": lambda path: write_volume(path, FRAMES, compress=True),
    "volume.nii": lambda path: write_volume(path, FRAMES),
    "volume.nii.gz": lambda path: write_volume(path, FRAMES),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_frame_is_read_as_it_was_written(name, tmp_path):
    path = tmp_path / name
    WRITERS[name](path)
    sequence = open_sequence(path)
    assert (sequence.count, sequence.size, sequence.numbered) == (6, SIZE, True)
    for k in (4, 0, 5, 1, 5, 2, 3):
        np.testing.assert_array_equal(sequence.read(k, 1), FRAMES[k])
        assert sequence.read(k, 3).shape == (*SIZE, 3)
    values = sequence.read_values(2)
    np.testing.assert_array_equal(values if values.ndim == 2 else values[:, :, 0], FRAMES[2])


@pytest.mark.parametrize("suffix", [".tif", ".npz", ".mha", ".nii.gz"])
def test_sixteen_bits_stay(suffix, tmp_path):
    deep = [frame.astype(np.uint16) * 200 for frame in FRAMES]
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, np.stack(deep), imagej=True)
    elif suffix == ".npz":
        np.savez(path, np.stack(deep))
    else:
        write_volume(path, deep)
    np.testing.assert_array_equal(open_sequence(path).read(3, 1), deep[3])


def test_one_image_is_no_stack(tmp_path):
    for name, write in (
        ("a.nii.gz", lambda path: write_volume(path, FRAMES[:1])),
        ("b.npz", lambda path: np.savez(path, FRAMES[0])),
        ("c.gif", lambda path: Image.fromarray(FRAMES[0]).save(path)),
    ):
        write(tmp_path / name)
        sequence = open_sequence(tmp_path / name)
        assert (sequence.count, sequence.numbered) == (1, False)
        np.testing.assert_array_equal(sequence.read(0, 1), FRAMES[0])
    Image.fromarray(FRAMES[0]).save(tmp_path / "d.tif")
    assert open_sequence(tmp_path / "d.tif") is None, "decode_image reads it"


def test_colours_and_palettes_of_tiff_stacks(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (4, *SIZE, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "rgb.tif", colour, photometric="rgb")
    tifffile.imwrite(tmp_path / "planes.tif", np.moveaxis(colour, 3, 1), photometric="rgb", planarconfig="separate")
    for name in ("rgb.tif", "planes.tif"):
        sequence = open_sequence(tmp_path / name)
        np.testing.assert_array_equal(sequence.read(2, 3), colour[2])
        np.testing.assert_array_equal(sequence.read(2, 1), np.array(Image.fromarray(colour[2]).convert("L")))
    table = np.random.default_rng(1).integers(0, 256, (3, 256), dtype=np.uint16) * 257
    tifffile.imwrite(tmp_path / "palette.tif", STACK, photometric="palette", colormap=table)
    sequence = open_sequence(tmp_path / "palette.tif")
    np.testing.assert_array_equal(sequence.read(1, 3), (table.T // 257)[FRAMES[1]])
    np.testing.assert_array_equal(sequence.read_values(1), FRAMES[1])
    tifffile.imwrite(tmp_path / "narrow.tif", STACK, photometric="palette", colormap=table // 257)
    np.testing.assert_array_equal(open_sequence(tmp_path / "narrow.tif").read(1, 3), (table.T // 257)[FRAMES[1]])
    bits = [frame > 128 for frame in FRAMES]
    for photometric in ("minisblack", "miniswhite"):
        with tifffile.TiffWriter(tmp_path / "bits.tif") as pages:
            for each in bits:
                pages.write(each, photometric=photometric, contiguous=False)
        with tifffile.TiffWriter(tmp_path / "page.tif") as pages:
            pages.write(bits[2], photometric=photometric)
        page = decode_image(tmp_path / "page.tif", 1)
        np.testing.assert_array_equal(open_sequence(tmp_path / "bits.tif").read(2, 1), page)
        np.testing.assert_array_equal(open_sequence(tmp_path / "bits.tif").read_values(2), page)
    tifffile.imwrite(tmp_path / "white.tif", 255 - STACK, photometric="miniswhite")
    np.testing.assert_array_equal(open_sequence(tmp_path / "white.tif").read(1, 1), FRAMES[1])


def test_the_calibration_of_imagej_is_the_spacing_and_print_resolution_is_not(tmp_path):
    for unit, per_mm in (("mm", 12.5), ("cm", 1.25), ("inch", 12.5 / 25.4), ("micron", None), ("parsec", None)):
        options = {"resolution": (12.5, 10), "metadata": {"unit": unit, "axes": "TYX", "finterval": 0.05}}
        tifffile.imwrite(tmp_path / f"{unit}.tif", STACK, imagej=True, **options)
        sequence = open_sequence(tmp_path / f"{unit}.tif")
        assert sequence.times == pytest.approx([0, 0.05, 0.1, 0.15, 0.2, 0.25])
        if per_mm is None:
            assert sequence.spacing is None and len(sequence.scale_warnings) == 1
        else:
            assert sequence.spacing == Spacing(pytest.approx(per_mm), pytest.approx(per_mm * 0.8))
    for tunit, seconds in (("ms", 0.001), ("min", 60), ("weeks", None)):
        options = {"metadata": {"axes": "TYX", "finterval": 40, "tunit": tunit}}
        tifffile.imwrite(tmp_path / "t.tif", STACK, imagej=True, **options)
        assert open_sequence(tmp_path / "t.tif").times == (
            seconds and pytest.approx([k * 40 * seconds for k in range(6)])
        )
    tifffile.imwrite(tmp_path / "print.tif", STACK, photometric="minisblack", resolution=(300, 300), resolutionunit=2)
    assert open_sequence(tmp_path / "print.tif").spacing is None


def test_times_of_animations(tmp_path):
    for name, lossless in (("a.gif", {}), ("a.webp", {"lossless": True})):
        by_pillow(duration=[40, 40, 120, 40, 40, 40], **lossless)(tmp_path / name)
        assert open_sequence(tmp_path / name).times == pytest.approx([0, 0.04, 0.08, 0.2, 0.24, 0.28])


def test_the_spacing_of_volumes(tmp_path):
    sequence = open_sequence(write_volume(tmp_path / "a.nrrd", FRAMES, spacing=(0.2, 0.1, 3)))
    assert sequence.spacing == Spacing(x=5, y=10)
    sequence = open_sequence(write_volume(tmp_path / "b.nrrd", FRAMES, spacing=(1, 1, 1)))
    assert sequence.spacing is None and "exactly 1 x 1 mm" in sequence.scale_warnings[0]


@pytest.mark.parametrize("name", ["a.mha", "a.nii"])
def test_a_slice_is_read_without_the_others(name, tmp_path, monkeypatch):
    sequence = open_sequence(write_volume(tmp_path / name, FRAMES))
    monkeypatch.setattr(SimpleITK, "ReadImage", None)
    np.testing.assert_array_equal(sequence.read(4, 1), FRAMES[4])


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
def test_pixels_in_a_file_beside_a_short_header(name, tmp_path):
    """The header alone is a few hundred bytes, however large the volume is."""
    frames = grey_frames(8, (400, 370))
    sequence = open_sequence(write_volume(tmp_path / name, frames))
    np.testing.assert_array_equal(sequence.read(7, 1), frames[7])


def test_a_series_of_single_slices_and_a_list_of_images(tmp_path):
    """As PLUS and 3D Slicer save sequences: four axes, or one component per frame."""
    image = SimpleITK.GetImageFromArray(STACK[:, None], isVector=False)
    SimpleITK.WriteImage(image, str(tmp_path / "a.mha"))
    SimpleITK.WriteImage(image, str(tmp_path / "b.nrrd"))
    listed = SimpleITK.GetImageFromArray(np.moveaxis(STACK, 0, 2)[None], isVector=True)
    SimpleITK.WriteImage(listed, str(tmp_path / "c.seq.nrrd"))
    for name in ("a.mha", "b.nrrd", "c.seq.nrrd"):
        sequence = open_sequence(tmp_path / name)
        assert sequence.count == 6
        np.testing.assert_array_equal(sequence.read(3, 1), FRAMES[3])


def test_notes_of_plus(tmp_path):
    for stored, fine in (("MFA", True), ("MF", True), ("UNA", False)):
        path = write_volume(tmp_path / "a.mha", FRAMES)
        stamps = "".join(f"Seq_Frame{k:04d}_Timestamp = {10 + k / 4}\n" for k in range(6))
        notes = f"UltrasoundImageOrientation = {stored}\n{stamps}ElementDataFile".encode()
        path.write_bytes(path.read_bytes().replace(b"ElementDataFile", notes, 1))
        if fine:
            sequence = open_sequence(path)
            assert sequence.times == [0, 0.25, 0.5, 0.75, 1, 1.25]
            np.testing.assert_array_equal(sequence.read(5, 1), FRAMES[5])
        else:
            with pytest.raises(InputError, match="its axes are in the orientation UNA"):
                open_sequence(path)


def test_a_scale_in_other_units_than_mm_is_not_used(tmp_path):
    path = write_volume(tmp_path / "a.nrrd", FRAMES, spacing=(100, 100, 100))
    path.write_bytes(path.read_bytes().replace(b"\n\n", b'\nspace units: "um" "um" "um"\n\n', 1))
    sequence = open_sequence(path)
    assert sequence.spacing is None and "its scale is in um" in sequence.scale_warnings[0]


def test_segments_of_3d_slicer_are_labels(tmp_path):
    labels = np.stack([frame // 100 for frame in FRAMES])
    path = write_segmentation(tmp_path / "a.seg.nrrd", labels, {"bone": (1, 0), "ligament": (2, 0)})
    sequence = open_sequence(path)
    np.testing.assert_array_equal(sequence.read_values(4), labels[4])
    assert [(each.name, each.value) for each in sequence.segments] == [("bone", 1), ("ligament", 2)]
    np.testing.assert_array_equal(sequence.drawn(4, {"bone": 9, "ligament": 300}), np.array([0, 9, 300])[labels[4]])
    stray = open_sequence(write_segmentation(tmp_path / "c.seg.nrrd", labels, {"bone": (1, 0)}))
    with pytest.raises(InputError, match="frame 4: holds the value 2, which no segment has"):
        stray.drawn(4, {"bone": 1})


@pytest.mark.parametrize("count", [2, 3, 4])  # three or four layers are no colours
def test_overlapping_segments_lie_in_layers_and_the_last_one_counts(count, tmp_path):
    labels = np.stack([(frame > 50 * k).astype(np.uint8) * (k + 1) for k in range(count) for frame in FRAMES])
    layers = np.moveaxis(labels.reshape(count, len(FRAMES), *FRAMES[0].shape), 0, 3)
    names = {f"part {k}": (k + 1, k) for k in range(count)}
    sequence = open_sequence(write_segmentation(tmp_path / "b.seg.nrrd", layers, names))
    assert sequence.count == len(FRAMES)
    np.testing.assert_array_equal(sequence.read_values(4), layers[4].max(-1))


def test_a_damaged_segmentation_is_refused_with_its_name(tmp_path):
    labels = np.stack([frame // 100 for frame in FRAMES])
    path = write_segmentation(tmp_path / "a.seg.nrrd", labels, {"bone": (1, 3), "skin": (2, 0)})
    with pytest.raises(InputError, match=r"a.seg.nrrd: segment bone is in layer 3 of 1"):
        open_sequence(path)
    path = write_segmentation(tmp_path / "b.seg.nrrd", labels, {"bone": (1, 0), "skin": (2, 0)})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"b.seg.nrrd"):
        open_sequence(path).drawn(0, {"bone": 1, "skin": 2})


def test_layers_whose_segments_have_one_value_have_no_labels(tmp_path):
    layers = np.stack([np.stack(FRAMES) > 50, np.stack(FRAMES) > 100], axis=3).astype(np.uint8)
    sequence = open_sequence(write_segmentation(tmp_path / "b.seg.nrrd", layers, {"a": (1, 0), "b": (1, 1)}))
    with pytest.raises(InputError, match=r"same value; in 3D Slicer export it as a label map, or run .* --class-names"):
        sequence.read_values(4)
    np.testing.assert_array_equal(sequence.drawn(4, {"a": 1, "b": 2}), layers[4].sum(-1))
    nameless = SimpleITK.GetImageFromArray(layers, isVector=True)
    SimpleITK.WriteImage(nameless, str(tmp_path / "c.seg.nrrd"))
    with pytest.raises(InputError, match="2 layers, but names no segments; in 3D Slicer, export it as a label map"):
        open_sequence(tmp_path / "c.seg.nrrd")


@pytest.mark.parametrize(
    ("direction", "said"),
    [
        ((-1, 0, 0, 0, -1, 0, 0, 0, 1), "flipped or exchanged"),
        ((0, 1, 0, 1, 0, 0, 0, 0, -1), "flipped or exchanged"),
        ((0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1), "oblique"),
    ],
)
@pytest.mark.parametrize("suffix", [".nii.gz", ".mha"])
def test_axes_of_which_no_one_knows_which_side_is_up_are_refused(direction, said, suffix, tmp_path):
    path = write_volume(tmp_path / f"a{suffix}", FRAMES, direction=direction)
    with pytest.raises(InputError, match=f"its axes are {said}.*not clear which side is up"):
        open_sequence(path)
    image = SimpleITK.ReadImage(str(path))  # the remedy
    image.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, str(path))
    np.testing.assert_array_equal(open_sequence(path).read(2, 1), FRAMES[2])


def test_masks_whose_slices_run_the_other_way_are_refused(tmp_path):
    write_volume(tmp_path / "images" / "a.nii.gz", FRAMES)
    mask = write_volume(tmp_path / "masks" / "a.nii.gz", FRAMES, direction=(1, 0, 0, 0, 1, 0, 0, 0, -1))
    with pytest.raises(InputError, match=f"{mask}: lies elsewhere in space than a.nii.gz"):
        find_input_pairs([tmp_path])
    write_volume(tmp_path / "masks" / "a.nii.gz", FRAMES)
    assert len(find_input_pairs([tmp_path])[0]) == 6
    write_volume(tmp_path / "masks" / "a.nii.gz", FRAMES, spacing=(1, 1, 1))
    assert len(find_input_pairs([tmp_path])[0]) == 6, "a mask without a place"
    image = SimpleITK.ReadImage(str(mask))
    image.SetSpacing((0.1, 0.1, 1))
    image.SetOrigin((0, 0, 2))
    SimpleITK.WriteImage(image, str(mask))
    with pytest.raises(InputError, match="lies elsewhere in space"):
        find_input_pairs([tmp_path])


def test_four_axes_are_refused(tmp_path):
    for suffix in (".nii.gz", ".mha", ".nrrd"):
        path = tmp_path / f"a{suffix}"
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.stack([STACK, STACK]), isVector=False), str(path))
        with pytest.raises(InputError, match=r"more than three axes \(64x48x6x2\)"):
            open_sequence(path)


def test_a_volume_that_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(volume_files, "MOST_IN_MEMORY", STACK.nbytes - 1)
    with pytest.raises(InputError, match="must be decoded as a whole"):
        open_sequence(write_volume(tmp_path / "a.nrrd", FRAMES))
    assert open_sequence(write_volume(tmp_path / "a.mha", FRAMES)).count == 6, "which is read by slices: the remedy"


def test_channels_and_positions_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([STACK, STACK]), imagej=True, metadata={"axes": "TCYX"})
    with pytest.raises(InputError, match="has the axes TCYX of 2x6x48x64"):
        open_sequence(tmp_path / "a.tif")
    with tifffile.TiffWriter(tmp_path / "b.tif") as pages:
        pages.write(FRAMES[0])
        pages.write(FRAMES[0][:20])
    with pytest.raises(InputError, match="different sizes"):
        open_sequence(tmp_path / "b.tif")


@pytest.mark.parametrize("share", [0.9, 0.6, 0.3])
@pytest.mark.parametrize("name", WRITERS)
def test_a_truncated_file_gives_whole_frames_and_says_so_or_is_refused(name, share, tmp_path):
    """No frame of a truncated file is other than it was written, and none is missing without a word."""
    path = tmp_path / name
    WRITERS[name](path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    if path.suffix == ".mhd":  # whose pixels are in a file beside it
        return
    try:
        sequence = open_sequence(path)
        frames = [sequence.read(k, 1) for k in range(sequence.count)] if sequence else [decode_image(path, 1)]
    except InputError as error:
        assert str(path) in str(error)
        return
    for frame, original in zip(frames, FRAMES, strict=False):
        np.testing.assert_array_equal(frame, original)
    if len(frames) < len(FRAMES):
        assert f"the {len(frames)} frames before it are used" in sequence.warnings[0]


def test_which_truncated_files_are_used(tmp_path):
    for name in ("ImageJ, one directory.tif", "volume.nii", "volume.nii.gz", "volume.mha", "animated.gif"):
        path = tmp_path / name
        WRITERS[name](path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.7)])
        assert 3 <= open_sequence(path).count < 6, name


def test_arrays_that_are_no_stack(tmp_path):
    for name, arrays, said in (
        ("two", {"a": STACK, "b": STACK}, "holds 2 arrays"),
        ("shape", {"a": STACK[None]}, r"the shape \(1, 6, 48, 64\)"),
        ("order", {"a": np.asfortranarray(STACK)}, "numpy.ascontiguousarray"),
        ("objects", {"a": np.array([None, {}], object)}, "cannot be read frame by frame"),
    ):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(InputError, match=said):
            open_sequence(tmp_path / f"{name}.npz")
    with zipfile.ZipFile(tmp_path / "json.npz", "w") as archive:
        archive.writestr("a.json", json.dumps({}))
    with pytest.raises(InputError, match="holds 1 arrays"):
        open_sequence(tmp_path / "json.npz")


def test_files_that_declare_far_more_than_they_hold(tmp_path):
    """Bombs: small files that would cost minutes and gigabytes."""
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, metadata={"axes": "TYX", "finterval": 0.04})
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content.replace(b"images=6\n", b"images=9\n"))
    sequence = open_sequence(tmp_path / "a.tif")
    assert len(sequence.times) == sequence.count <= 9
    path = write_volume(tmp_path / "b.mha", FRAMES)
    path.write_bytes(path.read_bytes().replace(b"DimSize = 64 48 6", b"DimSize = 64 48 3000000"))
    sequence = open_sequence(path)
    assert (sequence.count, sequence.declared) == (6, 3_000_000)
    path = write_volume(tmp_path / "c.mha", FRAMES, compress=True)
    path.write_bytes(path.read_bytes().replace(b"DimSize = 64 48 6", b"DimSize = 64 48 90000"))
    with pytest.raises(InputError, match="declares 276480000 bytes of pixels, but holds"):
        open_sequence(path)


def test_an_array_that_claims_more_frames_than_it_holds(tmp_path):
    """A bomb: the header promises a million frames."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (1_000_000, *SIZE)}
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, archive.open("a.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, header)
        member.write(STACK.tobytes())
    sequence = open_sequence(tmp_path / "a.npz")
    assert sequence.count == 6 and "ends in frame 6 of 1000000" in sequence.warnings[0]
