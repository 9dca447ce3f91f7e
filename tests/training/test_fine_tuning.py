"""Training from a checkpoint: its encoder frozen for a while, its head replaced for other classes, a lower rate."""

import json

import numpy as np
import pytest
import torch
from conftest import TRAIN_FAST, make_folder, simple_frame, train_arguments, write_frame

from deeplab import train as train_deeplab
from deeplab.model import DeepLabV3
from sonogravity.modeling import checkpoints
from unet import train
from unet.model import UNet


@pytest.fixture
def best(trained):
    return trained / "checkpoints/unet/run/best.pth"


def other_classes(folder, subjects=("P", "Q")):
    """Frames of two classes of other mask values than those of ``trained``."""
    for s, subject in enumerate(subjects):
        for i in range(4):
            write_frame(folder, f"{subject}_{i:03d}", *simple_frame([7, s, i], values=(0, 9)))
    return folder


def weights(root, name, model_class=UNet):
    return checkpoints.load(root / "checkpoints" / model_class.NAME / "run" / name, model_class).state_dict


def same(first, second, keys):
    return all(torch.equal(first[key], second[key]) for key in keys)


def test_the_encoder_stays_while_it_is_frozen_and_moves_after(best, sets, tmp_path):
    before = checkpoints.load(best, UNet).state_dict
    encoder = [key for key in before if key.startswith(("inc.", "down"))]
    decoder = [key for key in before if key.startswith("up") and "num_batches" not in key]
    options = ["--load", best, "--freeze-encoder", 2, "--save-every", 1, "--base-channels", 8, "--epochs", 3]
    assert train.main(train_arguments(*sets, tmp_path, *options)) == 0
    epochs = [weights(tmp_path, f"epoch_{epoch:03d}.pth") for epoch in (1, 2, 3)]
    assert same(before, epochs[0], encoder) and same(before, epochs[1], encoder)  # running statistics as well
    assert not any(torch.equal(before[key], epochs[0][key]) for key in decoder)
    moved = [key for key in encoder if not torch.equal(before[key], epochs[2][key])]
    assert set(moved) == set(encoder)


def test_a_frozen_run_resumes_as_it_would_have_gone_on(best, sets, tmp_path):
    options = ["--load", best, "--freeze-encoder", 2, "--base-channels", 8]
    for root, epochs in ((tmp_path / "whole", 3), (tmp_path / "parts", 1)):
        assert train.main(train_arguments(*sets, root, *options, "--epochs", epochs)) == 0
    last = tmp_path / "parts" / "checkpoints/unet/run/last.pth"
    assert train.main(["--resume", str(last), "--epochs", "3"]) == 0
    whole, parts = weights(tmp_path / "whole", "last.pth"), weights(tmp_path / "parts", "last.pth")
    assert same(whole, parts, whole)


def test_deeplab_freezes_its_backbone(sets, tmp_path):
    common = ["--backbone", "mobilenet_v3_large", "--batch-size", "4"]
    fast = [option for option in train_arguments(*sets, tmp_path) if option not in ("--base-channels", "4")]
    assert train_deeplab.main([*fast, *common, "--epochs", "1"]) == 0
    start = tmp_path / "checkpoints/deeplab/run/last.pth"
    before = checkpoints.load(start, DeepLabV3).state_dict
    fast[fast.index("--name") + 1] = "tuned"
    assert train_deeplab.main([*fast, *common, "--load", str(start), "--freeze-encoder", "2"]) == 0
    after = checkpoints.load(tmp_path / "checkpoints/deeplab/tuned/last.pth", DeepLabV3).state_dict
    backbone = [key for key in before if key.startswith("backbone.")]
    assert len(backbone) > 100 and same(before, after, backbone)
    assert not torch.equal(before["classifier.4.weight"], after["classifier.4.weight"])


def test_a_new_head_takes_the_classes_of_the_masks(best, tmp_path, capsys):
    train_folder, validation = other_classes(tmp_path / "train"), other_classes(tmp_path / "validation", ("R",))
    before = checkpoints.load(best, UNet).state_dict
    options = ["--load", best, "--new-head", "--freeze-encoder", 1, "--epochs", 1]
    arguments = [
        option
        for option in train_arguments(train_folder, validation, tmp_path, *options)
        if option not in ("--base-channels", "4")
    ]
    assert train.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "outc.conv.weight" in printed and "is replaced by a new one" in printed and "128" in printed
    tuned = checkpoints.load(tmp_path / "checkpoints/unet/run/last.pth", UNet)
    assert tuned.labels.values == (0, 9) and tuned.state_dict["outc.conv.weight"].shape[0] == 2
    assert same(before, tuned.state_dict, [key for key in before if key.startswith(("inc.", "down"))])


def test_a_resumed_run_keeps_the_head_that_it_trained(best, tmp_path):
    train_folder, validation = other_classes(tmp_path / "train"), other_classes(tmp_path / "validation", ("R",))
    fast = TRAIN_FAST[4:]  # all but the epochs and the width, which is the file's
    for root, epochs in ((tmp_path / "whole", 2), (tmp_path / "parts", 1)):
        assert (
            train.main(
                [
                    "--train",
                    str(train_folder),
                    "--validation",
                    str(validation),
                    "--checkpoints",
                    str(root / "checkpoints"),
                    "--results",
                    str(root / "results"),
                    "--name",
                    "run",
                    *fast,
                    "--load",
                    str(best),
                    "--new-head",
                    "--epochs",
                    str(epochs),
                ]
            )
            == 0
        )
    last = tmp_path / "parts" / "checkpoints/unet/run/last.pth"
    assert train.main(["--resume", str(last), "--epochs", "2"]) == 0
    whole, parts = weights(tmp_path / "whole", "last.pth"), weights(tmp_path / "parts", "last.pth")
    assert same(whole, parts, whole)


def test_the_rate_is_lower_unless_it_is_given(best, sets, tmp_path, capsys):
    fast = [
        option
        for option in train_arguments(*sets, tmp_path, "--epochs", 1)
        if option not in ("--learning-rate", "1e-2")
    ]
    rates = {}
    for name, options in (("usual", []), ("tuned", ["--load", str(best), "--base-channels", "8"])):
        fast[fast.index("--name") + 1] = name
        assert train.main([*fast, *options]) == 0
        settings = json.loads((tmp_path / "results/unet" / name / "settings.json").read_text())
        rates[name] = settings["options"]["learning_rate"]
    assert rates["tuned"] == pytest.approx(rates["usual"] / 10)
    assert f"learning rate {rates['tuned']:g}" in capsys.readouterr().out


def test_the_scale_and_the_architecture_are_the_files_unless_given(best, sets, tmp_path, capsys):
    fast = [
        option
        for option in train_arguments(*sets, tmp_path, "--epochs", 1)
        if option not in ("--scale", "0.5", "--base-channels", "4")
    ]
    small = ["--scale", "0.25", "--base-channels", "4", "--no-depth-channel"]
    assert train.main([*fast, *small, "--name", "quarter"]) == 0
    last = tmp_path / "checkpoints/unet/quarter/last.pth"
    capsys.readouterr()
    assert train.main([*fast, "--load", str(last), "--name", "tuned"]) == 0
    said = capsys.readouterr().out
    assert "--scale 0.25, as in the file" in said and "--no-depth-channel, as in the file" in said
    assert checkpoints.load(tmp_path / "checkpoints/unet/tuned/last.pth", UNet).scale == 0.25
    assert train.main([*fast, "--load", str(last), "--name", "half", "--scale", "0.5"]) == 0
    assert checkpoints.load(tmp_path / "checkpoints/unet/half/last.pth", UNet).scale == 0.5


def test_an_encoder_that_knows_nothing_is_not_frozen(sets, tmp_path, refused):
    assert "--load or --pretrained" in refused(train.main, train_arguments(*sets, tmp_path, "--freeze-encoder", 1))
    assert not (tmp_path / "checkpoints").exists()


def test_masks_of_other_classes_are_refused_without_a_new_head(best, tmp_path, refused):
    make_folder(tmp_path / "validation", subjects=("R",))
    line = refused(
        train.main,
        train_arguments(other_classes(tmp_path / "train"), tmp_path / "validation", tmp_path, "--load", best),
    )
    assert "P_000.png: holds 9" in line and "--new-head" in line


def test_a_new_head_wants_a_checkpoint(sets, tmp_path, refused):
    assert "--load" in refused(train.main, train_arguments(*sets, tmp_path, "--new-head"))


def test_the_encoders_and_heads_are_parts_of_the_models():
    for model in (UNet(base_channels=4), DeepLabV3(backbone="mobilenet_v3_large")):
        encoder = {id(weight) for module in model.encoder() for weight in module.parameters()}
        head = [key for key in model.state_dict() if key.startswith(model.HEAD)]
        assert head and 0 < len(encoder) < len(list(model.parameters()))
        assert np.all([id(weight) not in encoder for key, weight in model.named_parameters() if key in head])
