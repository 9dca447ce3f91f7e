"""DeepLabV3: each backbone, its weights from elsewhere, and its scripts for real."""

import pandas as pd
import pytest
import torch
from conftest import make_folder, train_arguments
from torchvision.models import resnet50, segmentation

from deeplab import evaluate, predict, train
from deeplab.model import BUILDERS, DeepLabV3, adapt, from_torchvision, load_pretrained
from sonogravity.common.messages import InputError
from sonogravity.modeling import checkpoints
from sonogravity.training.losses import HeadsLoss, SegmentationLoss

MOBILE = "mobilenet_v3_large"


@pytest.fixture(scope="module")
def mobile():
    torch.manual_seed(0)
    return DeepLabV3(1, 3, MOBILE)


def plain_torchvision(classes, **options):
    """torchvision's own DeepLabV3 with MobileNetV3."""
    build = segmentation.deeplabv3_mobilenet_v3_large
    return build(weights=None, weights_backbone=None, num_classes=classes, **options)


def deeplab_arguments(folders, root, *more):
    arguments = train_arguments(*folders, root, "--epochs", 1, "--backbone", MOBILE, *more)
    at = arguments.index("--base-channels")
    return arguments[:at] + arguments[at + 2 :]


@pytest.mark.parametrize("backbone", list(BUILDERS))
@pytest.mark.parametrize(("channels", "aux", "depth"), [(1, False, True), (3, True, False), (1, False, False)])
def test_every_backbone_takes_grey_and_colour_of_odd_sizes(backbone, channels, aux, depth):
    model = DeepLabV3(channels, 3, backbone, aux, depth)
    names = BUILDERS[backbone][0](weights=None, weights_backbone=None, num_classes=3, aux_loss=aux).state_dict()
    assert set(model.state_dict()) == set(names), "key names are torchvision's"
    assert DeepLabV3.options_from(model.state_dict()) == {
        "in_channels": channels,
        "classes": 3,
        "backbone": backbone,
        "aux_loss": aux,
        "depth_channel": depth,
    }
    images = torch.rand(2, channels, 37, 51)
    model.train()
    logits = model(images)
    assert isinstance(logits, tuple) == aux
    for part in logits if aux else (logits,):
        assert part.shape == (2, 3, 37, 51)
    model.eval()
    with torch.inference_mode():
        assert model(images[:1]).shape == (1, 3, 37, 51)
        assert model(torch.rand(1, channels, 5, 3)).shape == (1, 3, 5, 3)


def test_logits_equal_torchvision_s():
    torch.manual_seed(0)
    theirs = plain_torchvision(4).eval()
    ours = DeepLabV3(3, 4, MOBILE).eval()
    ours.load_state_dict(theirs.state_dict())
    image = torch.rand(1, 3, 40, 33)
    with torch.inference_mode():
        assert torch.equal(ours(image), theirs(image)["out"])


def test_auxiliary_loss_trains_both_heads():
    model = DeepLabV3(1, 3, MOBILE, aux_loss=True).train()
    classes = torch.randint(3, (2, 32, 32))
    logits = model(torch.rand(2, 1, 32, 32))
    criterion = SegmentationLoss("ce")
    loss, main = HeadsLoss(criterion, DeepLabV3.HEAD_WEIGHTS)(logits, classes)
    assert main == criterion(logits[0], classes)
    assert loss.item() == pytest.approx((criterion(logits[0], classes) + 0.5 * criterion(logits[1], classes)).item())
    loss.backward()
    assert model.aux_classifier[4].weight.grad.abs().sum() > 0 and model.classifier[4].weight.grad.abs().sum() > 0


def test_rgb_filters_are_summed_for_grey_and_heads_replaced(mobile):
    theirs = plain_torchvision(21, aux_loss=True)
    fitted, words = adapt(theirs.state_dict(), mobile)
    mobile.load_state_dict(fitted)
    first = theirs.state_dict()["backbone.0.0.weight"]
    assert torch.equal(fitted["backbone.0.0.weight"], first.sum(1, keepdim=True))
    grey = torch.rand(1, 1, 20, 20)
    same = torch.nn.functional.conv2d(grey.repeat(1, 3, 1, 1), first)
    assert torch.allclose(torch.nn.functional.conv2d(grey, fitted["backbone.0.0.weight"]), same, atol=1e-5)
    assert any("of 21 classes replaced" in word for word in words)


def test_depth_begins_without_a_say_beside_pretrained_filters():
    theirs = plain_torchvision(21).state_dict()
    for channels in (1, 3):
        fitted, words = adapt(theirs, DeepLabV3(channels, 3, MOBILE, depth_channel=True))
        first = fitted["backbone.0.0.weight"]
        assert first.shape[1] == channels + 1 and (first[:, -1] == 0).all()
        assert "the depth's filters start at zero" in words


@pytest.mark.parametrize("depth", [False, True])
def test_torchvisions_weights_load_with_a_depth_channel_or_without(depth, tmp_path, capsys):
    torch.save(plain_torchvision(21, aux_loss=True).state_dict(), tmp_path / "voc.pth")
    model = DeepLabV3(1, 3, MOBILE, depth_channel=depth)
    options = {"in_channels": 1, "classes": 3, "backbone": MOBILE, "aux_loss": False, "depth_channel": depth}
    found = from_torchvision(checkpoints.load(tmp_path / "voc.pth", DeepLabV3), model, options)
    checkpoints.start_from(found, model, options, new_head=False)
    assert ("the depth's filters start at zero" in capsys.readouterr().out) == depth


@pytest.mark.parametrize("bare", [False, True])
def test_pretrained_from_a_file(tmp_path, bare, capsys):
    torch.manual_seed(1)
    if bare:
        source = resnet50(weights=None).state_dict()
    else:
        source = segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21).state_dict()
    torch.save(source, tmp_path / "w.pth")
    model = DeepLabV3(1, 3, "resnet50")
    load_pretrained(model, "resnet50", tmp_path / "w.pth")
    key = "layer1.0.conv1.weight" if bare else "backbone.layer1.0.conv1.weight"
    assert torch.equal(model.backbone["layer1"][0].conv1.weight.data, source[key])
    assert "RGB filters summed" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"w\.pth: is not for mobilenet_v3_large"):
        load_pretrained(DeepLabV3(1, 3, MOBILE), MOBILE, tmp_path / "w.pth")


def test_pretrained_without_a_network_says_what_to_do(mobile, monkeypatch):
    from urllib.error import URLError

    def offline(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(InputError, match="pass it as --pretrained FILE"):
        load_pretrained(mobile, MOBILE)


def test_scripts_end_to_end_with_one_dice(tmp_path, sets):
    arguments = deeplab_arguments(sets, tmp_path, "--aux-loss", "--batch-size", 3, "--learning-rate", 1e-3)
    assert train.main(arguments) == 0  # 8 frames: the last batch joins the one before
    run = tmp_path / "checkpoints" / "deeplab" / "run"
    assert sorted(path.name for path in run.iterdir()) == ["best.pth", "last.pth"]
    in_training = pd.read_csv(tmp_path / "results" / "deeplab" / "run" / "epochs.csv")["dice"][0]
    for name, main, batch in (("p", predict.main, 1), ("e", evaluate.main, 4)):
        output = tmp_path / name
        assert (
            main(
                [
                    "--load",
                    str(run / "best.pth"),
                    "--input",
                    str(sets[1]),
                    "--output",
                    str(output),
                    "--batch-size",
                    str(batch),
                ]
            )
            == 0
        )
        assert pd.read_csv(output / "files.csv")["dice"].mean() == pytest.approx(in_training, abs=1e-6)
    assert train.main(["--resume", str(run / "last.pth"), "--epochs", "2"]) == 0
    assert len(pd.read_csv(tmp_path / "results" / "deeplab" / "run" / "epochs.csv")) == 2


def test_a_resumed_run_equals_an_unbroken_one(tmp_path, sets):
    """Dropout in the pyramid draws random numbers too."""
    for name, epochs in (("whole", 2), ("cut", 1)):
        assert train.main(deeplab_arguments(sets, tmp_path / name, "--epochs", epochs)) == 0
    last = [tmp_path / name / "checkpoints" / "deeplab" / "run" / "last.pth" for name in ("whole", "cut")]
    assert train.main(["--resume", str(last[1]), "--epochs", "2"]) == 0
    one, other = (torch.load(path, weights_only=True)["state_dict"] for path in last)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_batch_of_one_never_forms(tmp_path, sets, refused):
    line = refused(train.main, deeplab_arguments(sets, tmp_path, "--batch-size", 1))
    assert "--batch-size 1" in line and "2 frames" in line
    one = make_folder(tmp_path / "one", subjects=("A",), frames=1)
    line = refused(train.main, deeplab_arguments((one, sets[1]), tmp_path))
    assert "A_000.png: the only training frame" in line
    assert not (tmp_path / "checkpoints").exists()


def test_foreign_weights_load(tmp_path, sets, capsys):
    torch.manual_seed(0)
    theirs = plain_torchvision(3)
    torch.save({**theirs.state_dict(), "mask_values": [0, 128, 255]}, tmp_path / "old.pth")
    assert (
        evaluate.main(["--load", str(tmp_path / "old.pth"), "--input", str(sets[1]), "--output", str(tmp_path / "e")])
        == 0
    )
    assert "backbone mobilenet_v3_large" in capsys.readouterr().out
    theirs = plain_torchvision(21, aux_loss=True)
    torch.save(theirs.state_dict(), tmp_path / "voc.pth")
    assert train.main(deeplab_arguments(sets, tmp_path, "--load", tmp_path / "voc.pth")) == 0
    assert "of 21 classes replaced by a fresh one of 3" in capsys.readouterr().out


def test_other_weights_are_refused_and_both_are_named(tmp_path, sets, trained, refused, mobile):
    unet = trained / "checkpoints" / "unet" / "run" / "best.pth"
    line = refused(predict.main, ["--load", unet, "--input", sets[1]])
    assert "holds a unet model" in line and "deeplab" in line
    torch.save(torch.load(unet, weights_only=True)["state_dict"], tmp_path / "bare.pth")
    line = refused(predict.main, ["--load", tmp_path / "bare.pth", "--input", sets[1]])
    assert "no deeplab model" in line and "inc.double_conv" in line
    torch.save(mobile.state_dict(), tmp_path / "mobile.pth")
    other = deeplab_arguments(sets, tmp_path, "--backbone", "resnet50", "--load", tmp_path / "mobile.pth")
    line = refused(train.main, other)
    assert "backbone is mobilenet_v3_large in the file, but resnet50 here" in line
    torch.save(DeepLabV3(1, 4, MOBILE).state_dict(), tmp_path / "four.pth")
    line = refused(train.main, deeplab_arguments(sets, tmp_path, "--load", tmp_path / "four.pth"))
    assert "classes is 4 in the file, but 3 here" in line
    from unet import predict as unet_predict

    line = refused(unet_predict.main, ["--load", tmp_path / "mobile.pth", "--input", sets[1]])
    assert "no unet model" in line and "backbone." in line
