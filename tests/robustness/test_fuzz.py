"""Fuzzing: whatever bytes, texts or contents come in, there is an answer or one InputError, and nothing else.

A hundred examples each here, thousands in ``make soak``; what they found stands as cases in catalogue.py.
"""

import csv
import json
import math
from io import BytesIO

import numpy as np
import openpyxl
import pytest
import torch
from conftest import simple_frame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scene import SUFFIXES, save_as

from deeplab.model import DeepLabV3
from sonogravity.common.messages import InputError
from sonogravity.datasets.image_files import decode_image
from sonogravity.datasets.labels import Labels
from sonogravity.datasets.mask_files import decode_mask
from sonogravity.datasets.pairs import list_files
from sonogravity.datasets.spacing import read_table
from sonogravity.inference.predictor import Predictor
from sonogravity.modeling import checkpoints
from sonogravity.reporting import workbook
from sonogravity.training import run_settings, start
from unet import train
from unet.model import UNet

in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
slow = settings(in_one_folder, max_examples=max(100, settings.default.max_examples // 10))


def seeds():
    """{suffix: bytes of good files}: grey, colour, palette, 16 bits, compressed."""
    image, mask = simple_frame(0, (20, 24))
    found = {suffix: [] for suffix in SUFFIXES}
    for suffix in ("png", "jpg", "bmp", "tif"):
        for picture, options in (
            (Image.fromarray(image), {}),
            (Image.fromarray(image).convert("RGB"), {}),
            (Image.fromarray(mask).convert("P"), {}),
            (Image.fromarray(mask).convert("1"), {}),
            (Image.fromarray(image.astype(np.uint16) * 200), {}),
            (Image.fromarray(image), {"compression": "tiff_lzw"}),
            (Image.fromarray(image).convert("RGBA"), {"compression": "tiff_deflate"}),
        ):
            buffer = BytesIO()
            try:
                picture.save(buffer, format={"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()), **options)
            except OSError:  # a format that lacks the mode
                continue
            found[suffix].append(buffer.getvalue())
    for array in (image, mask.astype(np.int32), (image / 255).astype(np.float32), np.stack([image] * 3, 2)):
        buffer = BytesIO()
        np.save(buffer, array)
        found["npy"].append(buffer.getvalue())
        buffer = BytesIO()
        torch.save(torch.from_numpy(array), buffer)
        found["pth"].append(buffer.getvalue())
    return found


SEEDS = seeds()


@st.composite
def damaged(draw, contents):
    """One of the contents with bytes changed, pieces cut out, doubled or put in."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.sampled_from(("byte", "early byte", "cut", "drop", "insert", "double")))
        if kind == "byte" and content:
            content[at] = draw(st.integers(0, 255))
        elif kind == "early byte" and content:  # headers are where it hurts
            content[at % min(len(content), 160)] = draw(st.integers(0, 255))
        elif kind == "cut":
            del content[at:]
        elif kind == "drop":
            del content[at : at + draw(st.integers(1, 64))]
        elif kind == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=16))
        else:
            content[at:at] = content[at : at + 40]
    return bytes(content)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_decoders(tmp_path, suffix):
    @in_one_folder
    @given(damaged(SEEDS[suffix]), st.sampled_from([1, 3]))
    def check(content, channels):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(content)
        try:
            image = decode_image(path, channels)
        except InputError as error:
            assert str(path) in str(error)
        else:
            assert image.ndim == (2 if channels == 1 else 3) and image.size
            assert image.dtype in (np.uint8, np.uint16, np.float32)
            assert image.dtype != np.float32 or (image.min() >= 0 and image.max() <= 1)
        try:
            mask = decode_mask(path)
        except InputError as error:
            assert str(path) in str(error)
        else:
            assert mask.ndim == 2 and mask.dtype in (np.uint8, np.int32) and mask.min() >= 0

    check()


texts = st.text(max_size=60) | st.sampled_from(
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        '=HYPERLINK("x")',
        "\t=1",
        "_x0041_",
        "'=1",
        "a\x00b",
        "\x1b[31m",
        "\ud800",
        "\ufffe",
    ]
)
# openpyxl writes 16 digits, which makes infinity of the largest floats
numbers = st.floats(-1e300, 1e300) | st.sampled_from([math.nan, math.inf, -math.inf]) | st.integers(-(2**53), 2**53)


@st.composite
def tables(draw):
    names = ["file", *draw(st.lists(st.sampled_from(["dice", "hd_px", "width", "note", "dice_a"]), unique=True))]
    rows = draw(st.integers(1, 4))
    return [{name: draw(texts if name in ("file", "note") else numbers) for name in names} for _ in range(rows)]


def shown(value):
    """What a cell holds for a value."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        escaped = workbook.NOT_IN_XML.sub(lambda found: f"\\x{ord(found[0]):02x}", value)
        return escaped.replace("\r\n", "\n") or None
    return value


@slow
@given(tables())
def test_worksheets_keep_texts_and_numbers(rows):
    book = openpyxl.Workbook()
    workbook.add_table(book.active, rows)
    buffer = BytesIO()
    book.save(buffer)
    buffer.seek(0)
    sheet = openpyxl.load_workbook(buffer).active
    names = list(rows[0])
    assert [cell.value for cell in sheet[1]] == names
    for i, row in enumerate(rows):
        for j, name in enumerate(names):
            cell = sheet.cell(i + 2, j + 1)
            assert cell.data_type != "f", "a formula"
            expected = shown(row[name])
            assert cell.value == expected or cell.value == pytest.approx(expected, rel=1e-15)
            if isinstance(expected, str):
                assert cell.quotePrefix == expected.startswith(("=", "+", "-", "@"))


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@in_one_folder
@given(st.dictionaries(texts, json_values, max_size=4))
def test_json_can_be_read_again(tmp_path, content):
    workbook.write_json(tmp_path / "a.json", content)
    read = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert list(read) == list(content)


def good_checkpoint():
    torch.manual_seed(0)
    model = UNet(1, 3, 2)
    return {
        "format": checkpoints.FORMAT,
        "model_name": "unet",
        "run": "r",
        "epoch": 1,
        "scale": 0.5,
        "amp": False,
        "model_options": {"in_channels": 1, "classes": 3, "base_channels": 2, "bilinear": False},
        "state_dict": dict(model.state_dict()),
        "labels": Labels.create([0, 128, 255]).as_dict(),
        "image_maximum": None,
        "training": {
            "optimizer": {},
            "scheduler": {},
            "scaler": {},
            "history": [{"epoch": 1, "dice": 0.5}],
            "settings": {"options": {"name": "r", "epochs": 2}},
        },
    }


GOOD = good_checkpoint()
BYTES = BytesIO()
torch.save(GOOD, BYTES)
WEIGHTS = BytesIO()
torch.save(GOOD["state_dict"], WEIGHTS)
strange = st.one_of(
    json_values,
    st.sampled_from(
        [
            torch.ones(3),
            torch.zeros(0),
            torch.tensor(float("nan")),
            torch.ones(2, 2).to_sparse(),
            torch.empty(2, device="meta"),
            torch.ones(1).expand(10**6, 10**5),
            torch.ones(4, dtype=torch.cfloat),
            torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.quint8),
        ]
    ),
)


def load_and_use(path):
    """A checkpoint's way into a model, as scoring.open_predictor and train.py go it."""
    for model_class in (UNet, DeepLabV3):
        try:
            checkpoint = checkpoints.load(path, model_class)
            model = model_class(**checkpoint.model_options)
            checkpoints.load_weights(model, checkpoint)
            labels = checkpoints.labels_for(checkpoint)
            Predictor(
                model,
                labels=labels,
                scale=checkpoint.scale or 0.5,
                channels=1,
                image_maximum=None,
                device=torch.device("cpu"),
            )
            if model_class is UNet and checkpoint.training is not None:
                start.begin(train.build_parser().parse_args(["--resume", str(path)]), UNet)
        except InputError as error:
            assert str(path) in str(error)


@slow
@given(damaged([BYTES.getvalue(), WEIGHTS.getvalue()]))
def test_checkpoints_of_damaged_bytes(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    load_and_use(tmp_path / "a.pth")


@st.composite
def altered(draw):
    """The good content with some entries, at any depth, replaced, removed or added."""
    content = {key: dict(value) if isinstance(value, dict) else value for key, value in GOOD.items()}
    for _ in range(draw(st.integers(1, 3))):
        inner = draw(st.sampled_from([content, *(v for v in content.values() if isinstance(v, dict) and v)]))
        key = draw(st.sampled_from(list(inner)))
        kind = draw(st.sampled_from(("replace", "remove", "add")))
        if kind == "replace":
            inner[key] = draw(strange)
        elif kind == "remove":
            del inner[key]
        else:
            inner[draw(texts)] = draw(strange)
        if not content:
            break
    return draw(st.sampled_from([content, content.get("state_dict", content)]))


@slow
@given(altered())
def test_checkpoints_of_altered_content(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    load_and_use(tmp_path / "a.pth")


@in_one_folder
@given(
    st.dictionaries(st.sampled_from([*vars(train.build_parser().parse_args([])), "magic"]), json_values, max_size=5),
    st.dictionaries(st.sampled_from(list(run_settings.ENTRIES)), json_values, max_size=2),
)
def test_settings_to_repeat(tmp_path, options, entries):
    content = {
        "script": "train",
        "model": "unet",
        "data": {},
        "device": "cpu",
        "initial_weights": "",
        "versions": {},
        "labels": Labels.create([0, 128, 255]).as_dict(),
        "image_maximum": None,
        "mixed_precision": "float32",
        "processes": 1,
        "commit": None,
        "memory": {"checkpointing": False, "micro_batch": None},
        "plan": [[0, 3]],
        "options": options,
        **entries,
    }
    (tmp_path / "settings.json").write_text(json.dumps(content))
    try:
        begun = start.begin(train.build_parser().parse_args(["--repeat", str(tmp_path / "settings.json")]), UNet)
    except InputError as error:
        assert "settings.json" in str(error) or f"{options.get('load')}:" in str(error)  # or the file that they name
    else:
        assert begun.options.epochs >= 1 and begun.plan.pairs[0][0] == 0


@in_one_folder
@given(
    st.binary(max_size=200)
    | st.lists(st.lists(texts, max_size=4), max_size=4).map(
        lambda rows: "\n".join(["file,pixels_per_mm", *(",".join(row) for row in rows)]).encode(
            "utf-8", "surrogatepass"
        )
    )
)
def test_spacing_tables(tmp_path, content):
    (tmp_path / "spacing.csv").write_bytes(content)
    try:
        found = read_table(tmp_path / "spacing.csv")
    except InputError as error:
        assert "spacing.csv" in str(error)
    except csv.Error as error:
        raise AssertionError(f"{content!r}: {error}") from error
    else:
        assert all(0 < value.x <= 1000 and 0 < value.y <= 1000 for value in found.values())


@settings(in_one_folder, max_examples=50)
@given(st.lists(st.text(st.characters(exclude_characters="/\x00"), min_size=1, max_size=30), min_size=1, max_size=3))
def test_file_names(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("names")
    for name in names:
        try:
            save_as(folder / f"{name}.bmp", np.zeros((2, 2), np.uint8))
        except (OSError, UnicodeEncodeError):  # a name that this system refuses
            continue
    try:
        found, others = list_files(folder)
    except InputError as error:
        assert str(folder) in str(error)
    else:
        assert not others
        for stem, path in found.items():
            assert ((folder / f"{stem}.png").parent == folder and stem.isprintable()) or path.exists()
