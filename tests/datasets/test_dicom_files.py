"""DICOM files: every way to store pixels gives the right grey levels; scale, regions and times are read."""

import io
import shutil

import numpy as np
import pydicom
import pydicom.fileset
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import convert_color_space
from pydicom.sequence import Sequence as DicomSequence
from sequence_files import ENCODERS, SIZE, example, grey_frames, region, write_dicom

from sonogravity.common.messages import InputError
from sonogravity.datasets.dicom_frames import Joined, PixelData, codestream_size
from sonogravity.datasets.inputs import find_input_pairs
from sonogravity.datasets.readers import members_of, open_sequence
from sonogravity.datasets.sequences import NotAnImage
from sonogravity.datasets.spacing import Spacing

UNCOMPRESSED = {
    "implicit little endian": "1.2.840.10008.1.2",
    "explicit little endian": "1.2.840.10008.1.2.1",
    "deflated": "1.2.840.10008.1.2.1.99",
    "explicit big endian": "1.2.840.10008.1.2.2",
}
FRAMES = grey_frames()


def all_frames(sequence, channels=1):
    return [sequence.read(k, channels) for k in range(sequence.count)]


def assert_frames(found, frames):
    assert len(found) == len(frames)
    for one, other in zip(found, frames, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", UNCOMPRESSED)
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_uncompressed_frames_are_read_back(name, kind, tmp_path):
    frames = [frame.astype(kind) * (1 if kind == "u1" else 37) for frame in FRAMES]
    sequence = open_sequence(write_dicom(tmp_path / "cine", frames, UNCOMPRESSED[name]))
    assert_frames(all_frames(sequence), frames)
    assert sequence.count == sequence.declared == len(frames) and sequence.numbered


@pytest.mark.parametrize("offsets", [True, False], ids=["with offset table", "without"])
@pytest.mark.parametrize("name", ENCODERS)
def test_compressed_frames_are_read_back_in_any_order(name, offsets, tmp_path):
    syntax, encode, exact = ENCODERS[name]
    sequence = open_sequence(write_dicom(tmp_path / "cine.dcm", FRAMES, syntax, encode, offsets))
    for k in (5, 0, 7, 2):
        found = sequence.read(k, 1)
        if exact:
            np.testing.assert_array_equal(found, FRAMES[k])
        assert np.abs(found.astype(int) - FRAMES[k]).mean() < 3  # another frame differs by 20 and more
    assert sequence.count == len(FRAMES)


def test_frames_in_several_fragments_are_told_apart(tmp_path):
    syntax, encode, _ = ENCODERS["JPEG-LS"]
    path = write_dicom(tmp_path / "cine.dcm", FRAMES, syntax, encode)
    data = pydicom.dcmread(path)
    for table in (True, False):
        data.PixelData = pydicom.encaps.encapsulate([encode(frame) for frame in FRAMES], 3, has_bot=table)
        data.save_as(path)
        assert_frames(all_frames(open_sequence(path)), FRAMES)


def test_an_extended_offset_table_is_used(tmp_path):
    syntax, encode, _ = ENCODERS["RLE"]
    path = write_dicom(tmp_path / "cine.dcm", FRAMES, syntax, encode)
    data = pydicom.dcmread(path)
    content = pydicom.encaps.encapsulate_extended([encode(frame) for frame in FRAMES])
    data.PixelData, data.ExtendedOffsetTable, data.ExtendedOffsetTableLengths = content
    data.save_as(path)
    assert_frames(all_frames(open_sequence(path)), FRAMES)


def test_one_frame_is_no_clip(tmp_path):
    sequence = open_sequence(write_dicom(tmp_path / "1.2.840.5", FRAMES[:1]))
    assert (sequence.count, sequence.numbered, sequence.times) == (1, False, None)


def ybr(frame):
    return convert_color_space(frame, "RGB", "YBR_FULL")


def colours(seed=1):
    """A smooth colour picture, whose neighbouring pairs of pixels share their colour."""
    picture = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(picture).resize((SIZE[1] // 2, SIZE[0]))).repeat(2, axis=1)


def test_colours_are_right_whatever_the_file_stores(tmp_path):
    """RGB, luminance with chrominance, half chrominance and a palette give the same picture, never a green one."""
    rgb = colours()
    half = ybr(rgb)
    packed = np.stack([half[:, ::2, 0], half[:, 1::2, 0], half[:, ::2, 1], half[:, ::2, 2]], axis=2)
    index = np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE) % 256
    table = np.random.default_rng(2).integers(0, 256, (256, 3), dtype=np.uint8)
    palette = {
        f"{name}PaletteColorLookupTable{what}": value
        for k, name in enumerate(("Red", "Green", "Blue"))
        for what, value in (
            ("Descriptor", [256, 0, 16]),
            ("Data", (table[:, k].astype("<u2") * 257).tobytes()),
        )
    }
    luma = np.array(Image.fromarray(rgb).convert("L"))
    for kind, frame, more, expected in (
        ("RGB", rgb, {"photometric": "RGB"}, rgb),
        ("planar RGB", rgb, {"photometric": "RGB", "PlanarConfiguration": 1}, rgb),
        ("YBR_FULL", ybr(rgb), {"photometric": "YBR_FULL"}, rgb),
        ("YBR_FULL_422", ybr(rgb), {"photometric": "YBR_FULL_422"}, rgb),
        ("PALETTE COLOR", index.astype(np.uint8), {"photometric": "PALETTE COLOR", **palette}, table[index]),
    ):
        path = write_dicom(tmp_path / f"{kind}.dcm", [frame], **more)
        data = pydicom.dcmread(path)
        if kind == "planar RGB":
            data.PixelData = np.moveaxis(rgb, 2, 0).tobytes()
        if kind == "YBR_FULL_422":
            data.PixelData = packed.tobytes()
        data.save_as(path)
        sequence = open_sequence(path)
        assert np.abs(sequence.read(0, 3).astype(int) - expected).max() <= 2, kind
        grey = luma if expected is rgb else np.array(Image.fromarray(expected).convert("L"))
        assert np.abs(sequence.read(0, 1).astype(int) - grey).max() <= 1, kind


def test_grey_images_stored_as_luminance_keep_every_grey_level(tmp_path):
    stored = np.stack([FRAMES[0], np.full(SIZE, 128, np.uint8), np.full(SIZE, 128, np.uint8)], axis=2)
    sequence = open_sequence(write_dicom(tmp_path / "a.dcm", [stored], photometric="YBR_FULL"))
    assert_frames(all_frames(sequence), FRAMES[:1])


def test_white_at_zero_is_turned(tmp_path):
    sequence = open_sequence(write_dicom(tmp_path / "a.dcm", [255 - FRAMES[0]], photometric="MONOCHROME1"))
    assert_frames(all_frames(sequence), FRAMES[:1])


def test_a_window_makes_more_than_eight_bits_eight(tmp_path):
    deep = FRAMES[0].astype(np.uint16) * 15 + 100
    window = {"WindowCenter": 2013, "WindowWidth": 3826, "BitsStored": 12, "HighBit": 11}
    found = open_sequence(write_dicom(tmp_path / "a.dcm", [deep], **window)).read(0, 1)
    np.testing.assert_array_equal(found, FRAMES[0])
    narrow = {**window, "WindowCenter": 1000, "WindowWidth": 101, "photometric": "MONOCHROME1"}
    found = open_sequence(write_dicom(tmp_path / "b.dcm", [deep], **narrow)).read(0, 1)
    assert found[deep <= 949].min() == 255 and found[deep > 1050].max() == 0
    signed = (FRAMES[0].astype(np.int16) - 100) * 2
    options = {"WindowCenter": 55.5, "WindowWidth": 511, "RescaleSlope": 1, "RescaleIntercept": 0}
    found = open_sequence(write_dicom(tmp_path / "c.dcm", [signed], **options)).read(0, 1)
    assert np.abs(found.astype(int) - FRAMES[0]).max() <= 1
    with pytest.raises(InputError, match="signed, but it has no window"):
        open_sequence(write_dicom(tmp_path / "d.dcm", [signed]))


def test_a_window_around_0_and_one_of_all_frames(tmp_path):
    deep = FRAMES[0].astype(np.uint16) * 4 + 512
    options = {"RescaleSlope": 1, "RescaleIntercept": -1024, "BitsStored": 12, "HighBit": 11}
    window = {"WindowCenter": 0, "WindowWidth": 1024}
    found = open_sequence(write_dicom(tmp_path / "a.dcm", [deep], **options, **window)).read(0, 1)
    assert found.dtype == np.uint8 and np.abs(found.astype(int) - FRAMES[0]).max() <= 1
    item, group = Dataset(), Dataset()
    item.WindowCenter, item.WindowWidth = 0, 1024
    group.FrameVOILUTSequence = DicomSequence([item])
    path = write_dicom(tmp_path / "b.dcm", [deep], **options, SharedFunctionalGroupsSequence=[group])
    np.testing.assert_array_equal(open_sequence(path).read(0, 1), found)
    with pytest.raises(InputError, match="its 12 bits end at bit 15, not 11"):
        open_sequence(write_dicom(tmp_path / "c.dcm", [deep], **{**options, "HighBit": 15}))


def test_a_table_of_grey_levels(tmp_path):
    """A VOI LUT, whose values may be stored as words (OW)."""
    deep = FRAMES[0].astype(np.uint16) * 4
    for kind in ("US", "OW"):
        table = Dataset()
        table.add_new("LUTDescriptor", "US", [1024, 0, 16])
        values = (np.arange(1024) // 4 * 257).astype("<u2")
        table.add_new("LUTData", kind, values.tobytes() if kind == "OW" else values.tolist())
        options = {"BitsStored": 10, "HighBit": 9, "VOILUTSequence": DicomSequence([table])}
        found = open_sequence(write_dicom(tmp_path / f"{kind}.dcm", [deep], **options)).read(0, 1)
        np.testing.assert_array_equal(found, FRAMES[0])


def test_scale_of_the_tissue_region_and_its_sign(tmp_path):
    items = [region(delta=(0.0125, -0.02)), region(kind=(2, 1), delta=(9, 9)), region(kind=(1, 2), delta=(8, 8))]
    sequence = open_sequence(write_dicom(tmp_path / "a.dcm", FRAMES, SequenceOfUltrasoundRegions=items))
    assert (sequence.spacing.x, sequence.spacing.y) == (pytest.approx(8), pytest.approx(5))
    assert [(each.number, each.top, each.left, each.height, each.width) for each in sequence.regions] == [
        (1, 0, 0, *SIZE)
    ]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (region(units=(4, 3)), "units 4 and 3, not in centimetres"),
        (region(delta=(0, 0.01)), "0 and 0.01 cm per pixel"),
        (region(left=30, right=20), "no place in the image"),
        (region(left=100, right=200), "outside the image"),
    ],
    ids=["units", "zero", "corners", "outside"],
)
def test_a_region_whose_scale_cannot_be_used_is_said(item, said, tmp_path):
    path = write_dicom(tmp_path / "a.dcm", FRAMES, SequenceOfUltrasoundRegions=[item], PixelSpacing=[0.5, 0.25])
    sequence = open_sequence(path)
    assert len(sequence.scale_warnings) == 1 and said in sequence.scale_warnings[0]
    assert sequence.spacing == Spacing(x=4, y=2), "else PixelSpacing: row distance, then column distance"


def test_pixel_spacing_of_the_shared_groups_and_a_scale_that_is_none(tmp_path):
    measures, group = Dataset(), Dataset()
    measures.PixelSpacing = [0.2, 0.1]
    group.PixelMeasuresSequence = DicomSequence([measures])
    sequence = open_sequence(write_dicom(tmp_path / "a.dcm", FRAMES, SharedFunctionalGroupsSequence=[group]))
    assert sequence.spacing == Spacing(x=10, y=5)
    sequence = open_sequence(write_dicom(tmp_path / "b.dcm", FRAMES, PixelSpacing=[1, 1]))
    assert sequence.spacing is None and "exactly 1 x 1 mm" in sequence.scale_warnings[0]


@pytest.mark.parametrize(
    ("elements", "times"),
    [
        ({"FrameTime": 40}, [0, 0.04, 0.08]),
        ({"FrameTimeVector": [0, 40, 60]}, [0, 0.04, 0.1]),
        ({"CineRate": 20}, [0, 0.05, 0.1]),
        ({"RecommendedDisplayFrameRate": 10}, [0, 0.1, 0.2]),
        ({}, None),
    ],
)
def test_times(elements, times, tmp_path):
    sequence = open_sequence(write_dicom(tmp_path / "a.dcm", FRAMES[:3], **elements))
    assert sequence.times == (times and pytest.approx(times))


@pytest.mark.parametrize("fragments", [1, 3])
@pytest.mark.parametrize("offsets", [True, False], ids=["with offset table", "without"])
@pytest.mark.parametrize("name", [None, "JPEG-LS", "JPEG 2000 lossless", "JPEG lossless", "RLE"])
def test_a_truncated_file_gives_the_frames_before_the_damage(name, offsets, fragments, tmp_path):
    syntax, encode, _ = ENCODERS[name] if name else ("1.2.840.10008.1.2.1", None, True)
    if fragments > 1 and name == "RLE":
        pytest.skip("RLE has one fragment per frame (PS3.5, A.4.2)")
    path = write_dicom(tmp_path / "cine", FRAMES, syntax, encode, offsets)
    if name and fragments > 1:
        data = pydicom.dcmread(path)
        data.PixelData = pydicom.encaps.encapsulate([encode(frame) for frame in FRAMES], fragments, has_bot=offsets)
        data.save_as(path)
    whole = path.read_bytes()
    for share in (0.9, 0.66, 0.5, 0.37):
        path.write_bytes(whole[: int(len(whole) * share)])
        sequence = open_sequence(path)
        assert 1 <= sequence.count < 8 * share + 0.2 and sequence.declared == len(FRAMES)
        kept = f"ends in frame {sequence.count} of 8; the {sequence.count} frames before it are used"
        assert kept in sequence.warnings[0]
        assert_frames(all_frames(sequence), FRAMES[: sequence.count])


def test_an_offset_table_of_zeros_is_not_used(tmp_path):
    syntax, encode, _ = ENCODERS["RLE"]
    path = write_dicom(tmp_path / "cine", FRAMES, syntax, encode)
    content = path.read_bytes()
    start = content.index(b"\xfe\xff\x00\xe0") + 8
    path.write_bytes(content[:start] + bytes(4 * len(FRAMES)) + content[start + 4 * len(FRAMES) :])
    assert_frames(all_frames(open_sequence(path)), FRAMES)


@pytest.mark.parametrize("how", ["cut", "emptied"])
@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "RLE"])
def test_a_damaged_frame_is_named(name, how, tmp_path):
    """Decoders fill what is missing with grey, without an error."""
    syntax, encode, _ = ENCODERS[name]
    content = [encode(frame) for frame in FRAMES]
    half = len(content[4]) // 2
    content[4] = content[4][:half] + (bytes(len(content[4]) - half) if how == "emptied" else b"")
    path = write_dicom(tmp_path / "cine.dcm", FRAMES, syntax, lambda frame: content.pop(0))
    sequence = open_sequence(path)
    assert np.abs(sequence.read(3, 1).astype(int) - FRAMES[3]).max() < 20
    with pytest.raises(InputError, match=r"cine.dcm, frame 4: cannot be read"):
        sequence.read(4, 1)


def test_a_compressed_frame_larger_than_the_header_says_is_not_decoded(tmp_path):
    """A bomb: a small file whose image would need gigabytes."""
    for name in ("JPEG baseline", "JPEG-LS", "JPEG 2000 lossless"):
        syntax, encode, _ = ENCODERS[name]
        content = encode(grey_frames(1, (200, 300))[0])
        assert codestream_size(content) == (200, 300)
        path = write_dicom(tmp_path / f"{name}.dcm", FRAMES, syntax, lambda frame, content=content: content)
        with pytest.raises(InputError, match="is 300x200, but the header says 64x48"):
            open_sequence(path).read(0, 1)
    path = write_dicom(tmp_path / "huge.dcm", FRAMES, Rows=60000, Columns=60000)
    with pytest.raises(InputError, match="60000x60000"):
        open_sequence(path)


def test_a_missing_decoder_is_answered_with_the_line_that_installs_it(tmp_path, monkeypatch):
    syntax, encode, _ = ENCODERS["JPEG-LS"]
    path = write_dicom(tmp_path / "cine.dcm", FRAMES, syntax, encode)
    monkeypatch.setattr(pydicom.pixels.get_decoder(syntax), "_available", {})
    with pytest.raises(InputError, match=r"JPEG-LS Lossless.*, a decoder must be installed; run pip install -e"):
        open_sequence(path)


def test_of_several_windows_the_first_is_used_and_said(tmp_path):
    deep = FRAMES[0].astype(np.uint16) * 16
    options = {"WindowCenter": [2048, 100], "WindowWidth": [4081, 10]}
    sequence = open_sequence(write_dicom(tmp_path / "a.dcm", [deep], **options))
    assert sequence.warnings == [f"{tmp_path / 'a.dcm'}: has 2 windows, of which the first is used"]
    assert np.abs(sequence.read(0, 1).astype(int) - FRAMES[0]).max() <= 1


def test_what_is_dicom_but_no_image(tmp_path):
    for name in ("test-SR.dcm", "reportsi.dcm", "rtplan.dcm", "waveform_ecg.dcm"):
        with pytest.raises(NotAnImage, match=r"is DICOM .*, but holds no image; leave it out"):
            open_sequence(pathlib_copy(name, tmp_path))
    path = write_dicom(tmp_path / "report.dcm", FRAMES[:1])
    data = pydicom.dcmread(path)
    for keyword in ("Rows", "Columns", "PixelData"):
        delattr(data, keyword)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.104.1"
    data.EncapsulatedDocument = b"%PDF-1.4"
    data.save_as(path)
    with pytest.raises(NotAnImage, match="Encapsulated PDF"):
        open_sequence(path)


def pathlib_copy(name, folder):
    return shutil.copy(example(name), folder / name) and folder / name


@pytest.mark.parametrize(
    ("name", "count", "size", "scale"),
    [
        ("examples_ybr_color.dcm", 30, (240, 320), 1.9589),
        ("examples_palette.dcm", 1, (350, 800), 3.8126),
        ("examples_jpeg2k.dcm", 1, (480, 640), None),
        ("examples_rgb_color.dcm", 1, (240, 320), None),
        ("MR_small_RLE.dcm", 1, (64, 64), 3.2),
        ("JPGExtended.dcm", 1, (1024, 256), 0.4425),
        ("SC_rgb_jpeg.dcm", 1, (256, 256), None),
        ("JPEGLSNearLossless_16.dcm", 1, (50, 10), None),
    ],
)
def test_real_files(name, count, size, scale, tmp_path):
    sequence = open_sequence(pathlib_copy(name, tmp_path))
    assert (sequence.count, sequence.size) == (count, size)
    assert (sequence.spacing.x if sequence.spacing else None) == (scale and pytest.approx(scale, abs=1e-4))
    shown = pydicom.dcmread(tmp_path / name).pixel_array
    shown = shown[-1] if count > 1 else shown
    found = sequence.read(count - 1, 3)
    if shown.dtype == np.uint8 and shown.ndim == 3:
        np.testing.assert_array_equal(found, shown)
    assert found.max() > 100 and found.std() > 0.5


def test_the_files_that_a_dicomdir_lists(tmp_path):
    medium = pydicom.fileset.FileSet()
    for k in range(3):
        path = write_dicom(
            tmp_path / f"source_{k}",
            FRAMES[k : k + 1],
            PatientID="P1",
            StudyInstanceUID="1.2.3",
            SeriesInstanceUID="1.2.3.4",
            StudyDate="20200101",
            StudyTime="120000",
            StudyID="1",
            SeriesNumber=1,
            InstanceNumber=k + 1,
            PatientName="A^B",
            AccessionNumber="",
            Modality="US",
        )
        medium.add(path)
    medium.write(tmp_path / "medium")
    found = members_of(tmp_path / "medium" / "DICOMDIR")
    assert len(found) == 3
    for k, (stem, path) in enumerate(sorted(found.items())):
        assert stem == "_".join(path.relative_to(tmp_path / "medium").parts)
        assert_frames(all_frames(open_sequence(path)), FRAMES[k : k + 1])
    for given in (tmp_path / "medium" / "DICOMDIR", tmp_path / "medium"):
        assert sorted(pair.stem for pair in find_input_pairs([given], partial=True)[0]) == sorted(found)
    names = {pair.image.name for pair in find_input_pairs([tmp_path / "medium"], partial=True)[0]}
    assert names == set(found), "file names alone may repeat on a medium"
    path.unlink()
    with pytest.raises(InputError, match="lists 1 files that are missing"):
        members_of(tmp_path / "medium" / "DICOMDIR")


@pytest.mark.parametrize("parts", [["..", "cine"], ["/", "cine"], ["a", "b/../../cine"], ["C:", "cine"]])
def test_a_dicomdir_that_leads_out_of_its_folder_is_refused(parts, tmp_path):
    write_dicom(tmp_path / "cine", FRAMES[:1])
    listed, record = Dataset(), Dataset()
    record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", parts
    listed.DirectoryRecordSequence = DicomSequence([record])
    listed.file_meta = FileMetaDataset()
    listed.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    listed.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    listed.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    (tmp_path / "medium").mkdir()
    listed.save_as(tmp_path / "medium" / "DICOMDIR", enforce_file_format=True)
    for given in (tmp_path / "medium" / "DICOMDIR", tmp_path / "medium"):
        with pytest.raises(InputError, match="which is not a file of this medium"):
            find_input_pairs([given], partial=True)


def test_a_file_that_ends_before_its_pixels_is_no_report(tmp_path):
    path = write_dicom(tmp_path / "cine.dcm", FRAMES)
    path.write_bytes(path.read_bytes()[:450])
    with pytest.raises(InputError, match=r"ends before its pixels .Ultrasound Multi-frame Image Storage") as refused:
        open_sequence(path)
    assert not isinstance(refused.value, NotAnImage), "in a folder it is not left out"


def test_parts_of_a_file_read_as_one(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", FRAMES[:1])
    content = path.read_bytes()
    start = content.index(b"\xe0\x7f\x10\x00")
    joined = io.BufferedReader(Joined(PixelData(path, start, True, True), [(3, 5), (20, 1), (30, 7)]))
    assert joined.read() == content[3:8] + content[20:21] + content[30:37]
    assert (joined.seek(4), joined.read(3), joined.seek(-2, 2), joined.read(9)) == (
        4,
        content[7:8] + content[20:21] + content[30:31],
        11,
        content[35:37],
    )
    joined.close()
