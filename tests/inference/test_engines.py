"""Engines: each labels as torch in float32 does, what is missing is said, and nothing is exported unchecked."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import make_folder, write_frame
from torch import nn

from deeplab.model import DeepLabV3
from sonogravity.common import devices
from sonogravity.common.messages import InputError
from sonogravity.datasets.frames import Frame
from sonogravity.datasets.inputs import find_input_pairs
from sonogravity.datasets.labels import Labels
from sonogravity.datasets.mask_files import decode_mask
from sonogravity.inference import engines, exported, segmentation
from sonogravity.inference.predictor import (
    Predictor,
    folded,
    open_predictor,
    run_by_torch,
    to_label_maps,
)
from sonogravity.modeling import checkpoints
from sonogravity.reporting import score_files
from unet import evaluate, export, predict
from unet.model import UNet

MODELS = {
    "unet": lambda: UNet(1, 3, 4),
    "bilinear": lambda: UNet(3, 2, 4, bilinear=True),
    "mobilenet": lambda: DeepLabV3(1, 3, "mobilenet_v3_large", aux_loss=True, depth_channel=True),
    "supervised": lambda: UNet(1, 3, 4, depth_channel=True, deep_supervision=True),
    "resnet": lambda: DeepLabV3(1, 3, "resnet50"),
}


def with_statistics(build):
    """A model whose batch normalisation does something."""
    torch.manual_seed(0)
    model = build()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.7, 1.4)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return model.eval()


@pytest.fixture
def best(trained, tmp_path):
    """A checkpoint alone in its folder, for files to be put beside."""
    return shutil.copy(trained / "checkpoints" / "unet" / "run" / "best.pth", tmp_path / "best.pth")


@pytest.fixture
def images(trained, tmp_path):
    """Frames without masks."""
    return shutil.copytree(trained / "validation" / "images", tmp_path / "frames")


def masks_of(folder):
    return {path.name: decode_mask(path) for path in sorted((folder / "masks").iterdir())}


def run(main, checkpoint, inputs, output, *more):
    assert main([str(a) for a in ("--load", checkpoint, "--input", inputs, "--output", output, *more)]) == 0
    return json.loads((output / "settings.json").read_text())["used"]


def label_share(ours, theirs):
    return np.mean(np.concatenate([(ours[name] == theirs[name]).ravel() for name in theirs]))


def change_weights(checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["outc.conv.bias"] += 1e-3
    content.pop("format")
    checkpoints.save(checkpoint, content)


@pytest.mark.parametrize("name", MODELS)
def test_folding_changes_the_figures_by_rounding_only(name):
    model = with_statistics(MODELS[name])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = torch.rand(2, 3 if name == "bilinear" else 1, 53, 70)
    with torch.no_grad():
        expected = model(x)
        found = folded(model)(x)
    assert torch.allclose(found, expected, atol=1e-4 * expected.abs().max().item())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded(model).modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_folded_model_in_bfloat16_is_near():
    model = with_statistics(MODELS["unet"])
    x = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        difference = (run_by_torch(model, torch.bfloat16)(x) - model(x)).abs().max()
        assert 0 < difference < 0.05 * model(x).abs().max()


@pytest.mark.parametrize("classes", [2, 3, 20])
def test_label_maps_are_the_argmax_and_the_first_of_equals(classes):
    logits = torch.randint(-3, 4, (2, classes, 33, 21), generator=torch.Generator().manual_seed(0)).float()
    assert (to_label_maps(logits) == logits.numpy().argmax(1)).all()
    assert to_label_maps(logits).dtype == np.uint8


def test_a_predictor_keeps_its_weights_until_it_is_told():
    model = UNet(1, 2, 2).eval()
    predictor = predictor_of(model)
    frame = a_frame()
    before = predictor.logits([frame])
    with torch.no_grad():
        model.outc.conv.bias += 1
    assert torch.equal(predictor.logits([frame]), before)
    predictor.renew()
    assert torch.allclose(predictor.logits([frame]), before + 1, atol=1e-5)


def predictor_of(model):

    labels = Labels.create([0, 1])
    return Predictor(model, labels=labels, scale=1.0, channels=1, image_maximum=None, device=torch.device("cpu"))


def a_frame():

    return Frame(None, {1.0: np.random.default_rng(0).integers(0, 255, (20, 24), np.uint8)}, None, (20, 24))


@pytest.mark.parametrize("name", ["compile", "onnx", "openvino"])
def test_every_engine_labels_as_torch_does(name, trained, best, tmp_path, capsys):
    if engines.missing(name) or (name == "compile" and devices.cpp_compiler() is None):
        pytest.skip(f"--engine {name} is not installed")
    write_frame(tmp_path / "more", "odd_000", *odd_frame())  # another size: another graph
    inputs = [trained / "validation", tmp_path / "more"]
    arguments = ["--load", best, "--input", *inputs, "--panels", "none"]
    for engine in ("torch", name):
        assert predict.main([str(a) for a in (*arguments, "--engine", engine, "--output", tmp_path / engine)]) == 0
    assert label_share(masks_of(tmp_path / name), masks_of(tmp_path / "torch")) >= 0.999
    settings = json.loads((tmp_path / name / "settings.json").read_text())
    assert settings["used"]["engine"] == name
    assert len(np.unique(masks_of(tmp_path / name)["odd_000.png"])) > 1  # else the agreement proves little


def odd_frame():
    from conftest import simple_frame

    return simple_frame(7, (57, 91))


def test_what_cannot_run_here_is_refused_before_anything_is_written(best, trained, tmp_path, refused, monkeypatch):
    common = ["--load", best, "--input", trained / "validation", "--output", tmp_path / "out"]
    assert "--int8: needs --engine openvino" in refused(predict.main, [*common, "--int8"])
    with pytest.raises(InputError, match="give --device cpu"):
        engines.check("onnx", torch.device("cuda"))
    find_spec = engines.importlib.util.find_spec
    with monkeypatch.context() as patched:
        patched.setattr(engines.importlib.util, "find_spec", lambda name: None if "onnx" in name else find_spec(name))
        line = refused(predict.main, [*common, "--engine", "onnx"])
        assert "needs onnxruntime and onnxscript; run pip install -e '.[onnx]'" in line
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(tmp_path))
        patched.delenv("CXX", raising=False)
        line = refused(predict.main, [*common, "--engine", "compile"])
        assert "--engine compile: torch.compile needs a C++ compiler" in line
    masks = ["--predictions", trained / "validation" / "masks", "--input", trained / "validation"]
    assert "--engine" in refused(evaluate.main, [*masks, "--engine", "compile"])
    assert not (tmp_path / "out").exists()


def test_auto_is_refused_where_something_is_scored(best, trained, tmp_path, refused):
    line = refused(
        predict.main,
        ["--load", best, "--input", trained / "validation", "--engine", "auto", "--output", tmp_path / "out"],
    )
    assert "--engine auto: 8 of 8 frames have masks" in line
    assert not (tmp_path / "out").exists()
    assert "invalid choice: 'auto'" in refused(evaluate.main, ["--load", best, "--engine", "auto"])


def test_auto_for_real(best, images, tmp_path, capsys):
    used = run(predict.main, best, images, tmp_path / "auto", "--engine", "auto")
    printed = capsys.readouterr().out
    assert "--engine auto: torch " in printed and f"--engine auto: {used['engine']} is used" in printed
    run(predict.main, best, images, tmp_path / "torch")
    assert label_share(masks_of(tmp_path / "auto"), masks_of(tmp_path / "torch")) >= 0.999


def test_auto_takes_the_fastest_of_those_that_agree(best, images, monkeypatch, capsys):
    predictor, _ = open_predictor(best, UNet, device="cpu", amp=None, scale=None, mask_values=None)
    pairs, _ = find_input_pairs([images], partial=True)
    right = run_by_torch(predictor.model)

    def wrong(images):
        return -right(images)

    networks = {"torch": right, "onnx": right, "openvino": wrong}
    seconds = {"torch": 3.0, "onnx": 2.0, "openvino": 1.0}
    monkeypatch.setattr(engines, "missing", lambda name: [])
    monkeypatch.setattr(engines, "use", lambda name, *rest: predictor.using(networks[name], name, None))
    monkeypatch.setattr(engines, "_seconds", lambda candidate, frames: seconds[candidate.engine])
    assert engines.fastest(predictor, best, pairs).engine == "onnx"
    assert "left out" in capsys.readouterr().out
    networks.update(torch=wrong, onnx=wrong)
    taken = engines.fastest(predictor, best, pairs)
    assert taken.engine == "torch" and taken.amp is None
    assert "torch in float32 is used" in capsys.readouterr().out


needs_onnx = pytest.mark.skipif(bool(engines.missing("onnx")), reason="the extra onnx is not installed")
needs_openvino = pytest.mark.skipif(bool(engines.missing("openvino")), reason="the extra openvino is not installed")


@needs_onnx
def test_an_exported_file_is_used_while_it_is_of_these_weights(best, trained, tmp_path, capsys):
    import onnx

    assert export.main(["--load", str(best), "--input", str(trained / "validation")]) == 0
    file = best.with_name("best.onnx")
    assert "of the labels of 8 frames equal those of torch in float32" in capsys.readouterr().out
    notes = {note.key: note.value for note in onnx.load(file).metadata_props}
    assert json.loads(notes["labels"])["values"] == [0, 128, 255] and notes["scale"] == "0.5"
    run(predict.main, best, trained / "validation", tmp_path / "first", "--engine", "onnx")
    assert "exported in" not in capsys.readouterr().out
    change_weights(best)
    run(predict.main, best, trained / "validation", tmp_path / "second", "--engine", "onnx")
    printed = capsys.readouterr().out
    assert "best.onnx: holds other weights than best.pth, so it is not used" in printed and "exported in" in printed
    file.write_bytes(b"no protocol buffer")
    with pytest.raises(SystemExit):
        predict.main(["--load", str(best), "--input", str(trained / "validation"), "--engine", "onnx"])
    assert "best.onnx: cannot be read; remove it" in capsys.readouterr().err


@needs_onnx
def test_an_export_that_labels_otherwise_is_not_written(best, trained, refused, monkeypatch):
    monkeypatch.setattr(engines, "onnx_network", lambda file: lambda images: torch.zeros(len(images), 3, 20, 18))
    line = refused(export.main, ["--load", best, "--input", trained / "validation"])
    assert "best.onnx: not written:" in line and "99.9% are needed" in line
    assert [path.name for path in best.parent.iterdir()] == ["best.pth"]


@needs_onnx
def test_what_cannot_be_exported_is_one_line(best, trained, images, tmp_path, refused):
    frames = ["--input", trained / "validation"]
    assert "nothing.pth: no such file" in refused(export.main, ["--load", tmp_path / "nothing.pth", *frames])
    (tmp_path / "empty").mkdir()
    assert "empty: holds no images" in refused(export.main, ["--load", best, "--input", tmp_path / "empty"])
    if not engines.missing("openvino"):
        line = refused(export.main, ["--load", best, "--input", images, "--int8", "--calibration-frames", images])
        assert "frames: no frame has a mask, but --int8 is checked by Dice" in line
    assert not list(tmp_path.glob("best.*[!h]"))


@needs_onnx
def test_an_exported_deeplab_takes_any_size_and_number(tmp_path):
    model = with_statistics(MODELS["mobilenet"])
    exported.write_onnx(tmp_path / "model.onnx", predictor_of(model), {})
    network = engines.onnx_network(tmp_path / "model.onnx")
    for shape in ((1, 1, 40, 37), (3, 1, 65, 101)):
        x = torch.rand(shape)
        with torch.inference_mode():
            expected = model(x)
        assert torch.allclose(network(x), expected, atol=1e-4 * expected.abs().max().item())


def in_its_own_process(main, arguments, most_dice_lost):
    """Run a U-Net script as users do, so that OpenVINO and NNCF share no process with the engines of other tests."""
    code = (
        "import sys\n"
        "import sonogravity.commands.export as exporting\n"
        "from unet import export, predict\n"
        "exporting.MOST_DICE_LOST = float(sys.argv[2])\n"
        "sys.exit(globals()[sys.argv[1]].main(sys.argv[3:]))\n"
    )
    line = [sys.executable, "-X", "faulthandler", "-c", code, main, most_dice_lost, *arguments]
    return subprocess.run([str(part) for part in line], capture_output=True, text=True)


def refusal(process):
    """The one line of a finished process that must have refused."""
    lines = [line for line in process.stderr.replace("\r", "\n").split("\n") if "error:" in line]
    assert process.returncode == 2 and len(lines) == 1 and lines[0].startswith("error: "), process.stderr
    return lines[0]


@needs_openvino
def test_int8_is_allowed_by_its_dice(best, trained, tmp_path, refused):
    pytest.importorskip("nncf")
    arguments = ["--load", best, "--input", trained / "validation", "--calibration-frames", trained / "train", "--int8"]
    int8 = ["--load", best, "--input", trained / "validation", "--engine", "openvino", "--int8"]
    assert "best.int8.xml: no such file; make it with export.py --load" in refused(predict.main, int8)
    never = in_its_own_process("export", arguments, most_dice_lost=-1)
    assert "best.int8.xml: not written: class 128 loses" in refusal(never)
    assert [path.name for path in best.parent.glob("*int8*")] == []
    # so small a network on so small frames may lose more than 0.005
    written = in_its_own_process("export", arguments, most_dice_lost=0.1)
    assert written.returncode == 0, written.stderr
    done = in_its_own_process("predict", [*int8, "--output", tmp_path / "p"], most_dice_lost=0.1)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "p" / "settings.json").read_text())["used"]["engine"] == "openvino int8"
    run(predict.main, best, trained / "validation", tmp_path / "float")
    assert label_share(masks_of(tmp_path / "p"), masks_of(tmp_path / "float")) > 0.9
    change_weights(best)
    changed = in_its_own_process("predict", int8, most_dice_lost=0.1)
    assert "best.int8.xml: holds other weights" in refusal(changed)


@needs_openvino
def test_openvino_does_not_report_home(best, images, tmp_path):
    code = (
        "import sys, socket\n"
        "def no(*_): raise SystemExit('a connection was tried')\n"
        "socket.socket.connect = no\n"
        "from unet import predict\n"
        "assert predict.main(sys.argv[1:]) == 0\n"
        "assert 'openvino' in sys.modules and sys.modules['openvino_telemetry'] is None\n"
    )
    arguments = ["--load", best, "--input", images, "--output", tmp_path / "o", "--engine", "openvino"]
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, env=dict(os.environ))


def test_the_network_is_at_work_while_files_are_written(best, trained, tmp_path, monkeypatch):
    """Frames after the first go through the network before the first one's row is there."""
    events = []
    segment, append = segmentation.segment, score_files.PartialCsv.append

    def segmented(*rest, **more):
        for result in segment(*rest, **more):
            events.append("network")
            yield result

    monkeypatch.setattr(segmentation, "segment", segmented)
    monkeypatch.setattr(score_files.PartialCsv, "append", lambda self, row: (events.append("row"), append(self, row)))
    make_folder(tmp_path / "set", frames=4)
    run(predict.main, best, tmp_path / "set", tmp_path / "o", "--workers", "2", "--batch-size", "1")
    assert events.count("network") == events.count("row") == 8
    assert events[:4] == ["network"] * 4
