"""Checkpoints of ours and of others: what loads, what is refused, and in which words."""

import io
import shutil

import numpy as np
import pytest
import torch

from sonogravity.common.messages import InputError, Terminated
from sonogravity.datasets.labels import Labels
from sonogravity.datasets.mask_files import decode_mask
from sonogravity.modeling import checkpoints
from unet import evaluate, predict, train
from unet.model import UNet


@pytest.fixture
def small():
    torch.manual_seed(0)
    return UNet(1, 3, 4)


def save(path, content):
    torch.save(content, path)
    return path


def test_ours_comes_back_whole(tmp_path, small):
    labels = Labels.create([0, 128, 255], class_names=["bone", "ligament"])
    options = {"in_channels": 1, "classes": 3, "base_channels": 4, "bilinear": False}  # of a version without depth
    content = {
        "model_name": "unet",
        "model_options": options,
        "state_dict": small.state_dict(),
        "run": "r",
        "labels": labels.as_dict(),
        "scale": 0.25,
        "amp": True,
        "image_maximum": 4095,
        "epoch": 3,
    }
    checkpoints.save(tmp_path / "deep" / "a.pth", content)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.pth"]
    read = checkpoints.load(tmp_path / "deep" / "a.pth", UNet)
    assert (read.labels, read.scale, read.amp, read.image_maximum, read.epoch) == (labels, 0.25, True, 4095, 3)
    model = UNet(**read.model_options)
    checkpoints.load_weights(model, read)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), small.state_dict().values(), strict=True))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
@pytest.mark.parametrize("nested", [False, True])
def test_bare_state_dict_with_foreign_extras_loads(tmp_path, small, prefix, nested, capsys):
    weights = {prefix + key: value for key, value in small.state_dict().items()}
    weights[prefix + "inc.total_ops"] = torch.zeros(1)
    content = (
        {"state_dict": weights, "epoch": 7, "mask_values": [0, 7, 9]}
        if nested
        else {**weights, "mask_values": [0, 7, 9]}
    )
    read = checkpoints.load(save(tmp_path / "old.pth", content), UNet)
    assert read.labels.values == (0, 7, 9)
    assert read.model_options == {
        "in_channels": 1,
        "classes": 3,
        "base_channels": 4,
        "bilinear": False,
        "depth_channel": False,
        "deep_supervision": False,
    }
    checkpoints.load_weights(UNet(**read.model_options), read)
    assert "mask_values" in capsys.readouterr().out


@pytest.mark.parametrize(("model", "inputs"), [(UNet(1, 3, 4, depth_channel=True), 2), (UNet(4, 3, 4), 4)])
def test_bare_weights_with_a_channel_that_nothing_explains_are_refused(tmp_path, model, inputs, capsys):
    with pytest.raises(InputError, match=rf"bare.pth: has {inputs} channels .* give train.py's own checkpoint"):
        checkpoints.load(save(tmp_path / "bare.pth", model.state_dict()), UNet)
    assert capsys.readouterr().out == ""  # nothing says first that it was read


def test_wrong_state_dict_is_refused_with_the_keys_that_differ(tmp_path, small):
    weights = dict(small.state_dict())
    weights["up1.up.extra"] = torch.zeros(1)
    del weights["down2.maxpool_conv.1.double_conv.0.weight"]
    weights["up4.conv.double_conv.0.weight"] = torch.zeros(1, 2, 3, 3)
    read = checkpoints.load(save(tmp_path / "wrong.pth", weights), UNet)
    with pytest.raises(InputError) as refusal:
        checkpoints.load_weights(UNet(**read.model_options), read)
    for part in (
        "wrong.pth",
        "1 missing (down2.maxpool_conv.1.double_conv.0.weight)",
        "1 unexpected (up1.up.extra)",
        "(1, 2, 3, 3) instead of (4, 8, 3, 3)",
    ):
        assert part in str(refusal.value)


def test_what_is_no_checkpoint_is_refused(tmp_path, small):
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "cut.pth").write_bytes(save(tmp_path / "whole.pth", small.state_dict()).read_bytes()[:5000])
    save(tmp_path / "list.pth", [1, 2])
    save(tmp_path / "other.pth", {"layer.weight": torch.zeros(2, 2)})
    save(tmp_path / "model.pth", small)  # a pickled module could run code
    for name in ("text", "cut", "list", "other", "model", "absent"):
        with pytest.raises(InputError, match=f"{name}.pth"):
            checkpoints.load(tmp_path / f"{name}.pth", UNet)


def test_foreign_weights_through_the_scripts(sets, tmp_path, small, capsys):
    _, validation = sets
    values = tmp_path / "with.pth"
    torch.save({**small.state_dict(), "mask_values": [0, 128, 255]}, values)
    assert evaluate.main(["--load", str(values), "--input", str(validation), "--output", str(tmp_path / "e")]) == 0
    assert "bare state dict" in capsys.readouterr().out
    bare = save(tmp_path / "bare.pth", small.state_dict())
    arguments = ["--load", str(bare), "--input", str(validation), "--output", str(tmp_path / "f")]
    assert evaluate.main([*arguments, "--mask-values", "0,128,255"]) == 0
    said = capsys.readouterr().out
    assert "holds no scale, so 0.5 is used" in said and "mask values" not in said
    assert (tmp_path / "e" / "files.csv").read_text().split(",")[:9] == (
        tmp_path / "f" / "files.csv"
    ).read_text().split(",")[:9]


def test_foreign_weights_without_values_give_class_indices(sets, tmp_path, small, capsys):

    images = sets[1] / "images"
    shutil.rmtree(sets[1] / "masks")
    bare = save(tmp_path / "bare.pth", small.state_dict())
    assert predict.main(["--load", str(bare), "--input", str(images), "--output", str(tmp_path / "p")]) == 0
    assert "0 to 2 are used" in capsys.readouterr().out
    assert np.unique(decode_mask(next((tmp_path / "p" / "masks").iterdir()))).max() <= 2


def test_training_starts_from_given_weights(trained, sets, tmp_path, refused):
    best = trained / "checkpoints" / "unet" / "run" / "best.pth"
    common = [
        "--train",
        sets[0],
        "--validation",
        sets[1],
        "--checkpoints",
        tmp_path / "c",
        "--results",
        tmp_path / "r",
        "--epochs",
        1,
        "--learning-rate",
        1e-9,
        "--load",
        best,
    ]
    line = refused(train.main, [*common, "--base-channels", 4])
    assert "base_channels is 8 in the file, but 4 here" in line
    assert not (tmp_path / "c").exists()
    assert train.main([str(a) for a in [*common, "--base-channels", 8, "--name", "tuned"]]) == 0
    old = checkpoints.load(best, UNet).state_dict
    new = checkpoints.load(tmp_path / "c" / "unet" / "tuned" / "best.pth", UNet).state_dict
    assert torch.allclose(old["outc.conv.weight"], new["outc.conv.weight"], atol=1e-5)


@pytest.mark.parametrize("at", [2, 5])
def test_a_signal_while_a_checkpoint_is_written_stays_a_signal(tmp_path, monkeypatch, at):
    """torch.save turns what its file raises into a RuntimeError, and the run would end with 1 and a traceback."""

    class Interrupted(io.BytesIO):
        written = 0

        def write(self, content):
            self.written += 1
            if self.written == at:
                raise Terminated
            return super().write(content)

    monkeypatch.setattr(checkpoints, "open", lambda *_: Interrupted(), raising=False)
    with pytest.raises(Terminated):
        checkpoints.save(tmp_path / "last.pth", {"state_dict": {"weight": torch.ones(100, 100)}})
    assert not (tmp_path / "last.pth").exists()


@pytest.mark.parametrize("entry", ["net", "params", "params_ema", "weights"])
@pytest.mark.parametrize("prefix", ["", "model.", "net."])
def test_weights_under_other_names_are_found(tmp_path, small, entry, prefix):
    weights = {f"{prefix}{key}": value for key, value in small.state_dict().items()}
    read = checkpoints.load(save(tmp_path / "a.pth", {entry: weights, "epoch": 3}), UNet)
    assert read.model_options["base_channels"] == 4 and set(read.state_dict) == set(small.state_dict())


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_one_output_channel_is_the_sigmoid_of_two_classes(tmp_path, deep_supervision):
    torch.manual_seed(0)
    binary = UNet(1, 1, 4, deep_supervision=deep_supervision).eval()
    read = checkpoints.load(save(tmp_path / "a.pth", binary.state_dict()), UNet)
    model = checkpoints.open_model(UNet, read).eval()
    frames = torch.rand(2, 1, 33, 40)
    with torch.inference_mode():
        probability, logits = binary(frames)[:, 0].sigmoid(), model(frames)
    assert read.model_options["classes"] == 2 and (logits[:, 0] == 0).all()
    assert torch.allclose(logits.softmax(1)[:, 1], probability, atol=1e-6)
    assert torch.equal(logits.argmax(1) == 1, probability > 0.5)


def test_a_whole_pickled_model_is_told_from_weights(tmp_path, small):
    torch.save(small, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"as a whole pickled model does: save model\.state_dict\(\)"):
        checkpoints.load(tmp_path / "a.pth", UNet)
