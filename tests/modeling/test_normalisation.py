"""Weights trained with ImageNet's mean and deviation get that input: as torchvision gives it, up to the border."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import train_arguments
from torchvision.models import segmentation
from torchvision.transforms.functional import normalize

import sonogravity
from deeplab import evaluate as deeplab_evaluate
from deeplab import train as deeplab_train
from deeplab.model import BUILDERS, FIRST, DeepLabV3, adapt, load_pretrained
from sonogravity.common import choices
from sonogravity.common.files import load_torch
from sonogravity.common.messages import InputError
from sonogravity.common.provenance import digest_of_weights
from sonogravity.datasets.mask_files import decode_mask
from sonogravity.inference import engines, exported
from sonogravity.inference.predictor import folded
from sonogravity.modeling import checkpoints, normalisation
from unet import export, predict, train
from unet.model import UNet

MOBILE = "mobilenet_v3_large"
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # as torchvision's documentation gives them
SIZE = (61, 50)


def trained_a_little(model):
    """The model with the statistics of a few normalised frames, in inference mode: its batch normalisation acts."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over the batches
    with torch.no_grad():
        for _ in range(5):
            model(normalize(torch.rand(4, 3, 64, 64), MEAN, DEVIATION))
    return model.eval()


@pytest.fixture(scope="module", params=["mobilenet_v3_large", "resnet50"])
def theirs(request):
    """torchvision's own network, of three classes, and its name."""
    torch.manual_seed(0)
    build = BUILDERS[request.param][0]
    return trained_a_little(build(weights=None, weights_backbone=None, num_classes=3)), request.param


@pytest.fixture
def bare(tmp_path):
    """A file of torchvision's weights alone."""
    torch.manual_seed(0)
    build = segmentation.deeplabv3_mobilenet_v3_large
    path = tmp_path / "owner.pth"
    torch.save(trained_a_little(build(weights=None, weights_backbone=None, num_classes=3)).state_dict(), path)
    return path


def opened(path, model_class, normalise=None):
    return checkpoints.open_model(model_class, checkpoints.load(path, model_class, normalise)).eval()


def test_the_names_are_those_that_the_option_offers():
    assert ("none", *normalisation.NORMALISATIONS) == choices.NORMALISATIONS


@pytest.mark.parametrize("kind", ["model", "folded"])
def test_logits_equal_torchvisions_on_the_normalised_frame_up_to_the_border(theirs, tmp_path, kind):
    network, _ = theirs
    torch.save(network.state_dict(), tmp_path / "owner.pth")
    ours, plain = (opened(tmp_path / "owner.pth", DeepLabV3, name) for name in ("imagenet", None))
    ours = folded(ours) if kind == "folded" else ours
    frames = torch.rand(2, 3, *SIZE)
    with torch.inference_mode():
        expected = network(normalize(frames, MEAN, DEVIATION))["out"]
        assert torch.allclose(ours(frames), expected, rtol=1e-4, atol=1e-5 if kind == "model" else 1e-4)
        assert not torch.allclose(plain(frames), expected, rtol=0.01, atol=0.01), "the option matters"


def test_a_unet_of_three_channels_too(tmp_path):
    torch.manual_seed(0)
    network = trained_a_little(UNet(3, 3, 4))
    torch.save(network.state_dict(), tmp_path / "owner.pth")
    frames = torch.rand(2, 3, *SIZE)
    with torch.inference_mode():
        assert torch.allclose(
            opened(tmp_path / "owner.pth", UNet, "imagenet")(frames),
            network(normalize(frames, MEAN, DEVIATION)),
            rtol=1e-4,
            atol=1e-5,
        )


@pytest.mark.skipif(bool(engines.missing("onnx")), reason="the extra onnx is not installed")
def test_an_exported_network_takes_the_same_frames_and_is_used_with_its_normalisation_only(sets, tmp_path, capsys):
    torch.manual_seed(0)
    path = tmp_path / "owner.pth"
    torch.save(trained_a_little(UNet(3, 3, 4)).state_dict(), path)
    given = ["--load", str(path), "--scale", "1", "--input", str(sets[1])]
    assert export.main([*given, "--mask-values", "0,128,255", "--normalise", "imagenet"]) == 0
    file = path.with_suffix(exported.ONNX)
    assert exported.find(path, opened(path, UNet, "imagenet")) == file
    capsys.readouterr()
    assert exported.find(path, opened(path, UNet)) is None
    assert "so it is not used" in capsys.readouterr().out
    masks = []
    installed = [name for name, each in engines.ENGINES.items() if each.packages and not engines.missing(name)]
    for more in (["none"], *(["imagenet", "--engine", name] for name in ("torch", *installed))):
        output = tmp_path / str(len(masks))
        assert predict.main([*given, "--output", str(output), "--no-masks", "--normalise", *more]) == 0
        masks.append(np.stack([decode_mask(path) for path in sorted((output / "masks").iterdir())]))
    plain, by_torch, *by_engines = masks
    assert (by_torch == plain).mean() < 0.999
    assert all((by_torch == each).mean() > 0.999 for each in by_engines) and by_engines


def test_without_it_nothing_is_computed_and_the_digest_is_that_of_the_weights():
    model = UNet(3, 3, 4)
    frames = torch.rand(1, 3, 16, 16)
    assert model.normalised(frames) is frames
    digest = digest_of_weights(model)
    assert digest == digest_of_weights(model.use_normalisation("none", 3))
    assert digest != digest_of_weights(model.use_normalisation("imagenet", 3))
    assert set(model.state_dict()) == set(UNet(3, 3, 4).state_dict()), "the constants are no weights"


def test_what_bare_weights_are_taken_to_expect_is_said(bare, sets, tmp_path, capsys):
    hint = "taken to expect pixels in 0 to 1; if they were trained with ImageNet's mean and deviation, give --normalise"
    line = ["--input", str(sets[1]), "--output", str(tmp_path / "out"), "--mask-values", "0,128,255"]
    assert deeplab_evaluate.main(["--load", str(bare), *line]) == 0
    assert f"owner.pth: bare weights, {hint} imagenet" in capsys.readouterr().out
    assert deeplab_evaluate.main(["--load", str(bare), *line, "--normalise", "imagenet"]) == 0
    said = capsys.readouterr().out
    assert "owner.pth: bare weights, whose input is normalised as --normalise imagenet says" in said
    assert hint not in said
    sonogravity.load(bare)
    assert hint in capsys.readouterr().out
    torch.save(UNet(1, 3, 4).state_dict(), tmp_path / "grey.pth")
    assert predict.main(["--load", str(tmp_path / "grey.pth"), *line[:3], str(tmp_path / "grey"), "--no-masks"]) == 0
    said = capsys.readouterr().out
    assert "grey.pth: bare weights, taken to expect pixels in 0 to 1\n" in said


def test_from_python(bare):
    image = np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8)
    one, other = (sonogravity.load(bare, normalise=name) for name in ("imagenet", "none"))
    assert (one.predict(image) != other.predict(image)).any()
    with pytest.raises(InputError, match="--normalise imagnet: is unknown; give one of none, imagenet"):
        sonogravity.load(bare, normalise="imagnet")


def test_refusals(bare, trained, sets, tmp_path, refused):
    best = trained / "checkpoints" / "unet" / "run" / "best.pth"
    frames = ["--input", sets[1], "--output", tmp_path / "out"]
    line = refused(predict.main, ["--load", best, *frames, "--normalise", "imagenet"])
    assert "--normalise imagenet" in line and "best.pth has its own (none); leave this option out" in line
    torch.save(UNet(1, 3, 4).state_dict(), tmp_path / "grey.pth")
    line = refused(predict.main, ["--load", tmp_path / "grey.pth", *frames, "--normalise", "imagenet"])
    assert "grey.pth takes one grey channel" in line
    line = refused(predict.main, ["--load", best, *frames, "--normalise", "imagnet"])
    assert "invalid choice: 'imagnet'" in line
    line = refused(train.main, train_arguments(*sets, tmp_path, "--normalise", "imagenet"))
    assert "is for the weights of --load or --pretrained" in line
    predictions = ["--predictions", sets[1] / "masks", "--input", sets[1], "--normalise", "imagenet"]
    assert "--predictions uses none" in refused(deeplab_evaluate.main, predictions)
    assert not (tmp_path / "out").exists() and not (tmp_path / "checkpoints").exists()
    assert predict.main([str(each) for each in ["--load", best, *frames, "--normalise", "none"]]) == 0  # as it is


@pytest.mark.parametrize("value", ["imagnet", None, 3, ["imagenet"]])
def test_a_checkpoint_of_an_unknown_normalisation_is_damaged(trained, tmp_path, value):
    content = load_torch(trained / "checkpoints" / "unet" / "run" / "best.pth")
    assert content["normalise"] == "none"
    torch.save(content | {"normalise": value}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a\.pth: is damaged \(normalisation"):
        checkpoints.load(tmp_path / "a.pth", UNet)


def deeplab_arguments(sets, root, *more):
    arguments = train_arguments(*sets, root, "--epochs", 1, "--backbone", MOBILE, "--no-depth-channel", *more)
    at = arguments.index("--base-channels")
    return arguments[:at] + arguments[at + 2 :]


def test_our_checkpoint_keeps_it_from_then_on(bare, sets, tmp_path, capsys):
    arguments = deeplab_arguments(sets, tmp_path, "--load", bare, "--normalise", "imagenet")
    assert deeplab_train.main(arguments) == 0
    run = tmp_path / "checkpoints" / "deeplab" / "run"
    assert {load_torch(path)["normalise"] for path in run.iterdir()} == {"imagenet"}
    in_training = pd.read_csv(tmp_path / "results" / "deeplab" / "run" / "epochs.csv")["dice"][0]
    line = ["--load", str(run / "best.pth"), "--input", str(sets[1]), "--output", str(tmp_path / "e")]
    assert deeplab_evaluate.main(line) == 0
    assert pd.read_csv(tmp_path / "e" / "files.csv")["dice"].mean() == pytest.approx(in_training, abs=1e-6)
    assert deeplab_train.main(["--resume", str(run / "last.pth"), "--epochs", "2"]) == 0
    assert load_torch(run / "last.pth")["normalise"] == "imagenet"
    settings = tmp_path / "results" / "deeplab" / "run" / "settings.json"
    assert deeplab_train.main(["--repeat", str(settings), "--name", "again"]) == 0
    one, other = (load_torch(run.parent / name / "last.pth") for name in ("run", "again"))
    assert all(torch.equal(value, other["state_dict"][key]) for key, value in one["state_dict"].items())
    capsys.readouterr()
    tuned = deeplab_arguments(sets, tmp_path, "--load", run / "best.pth", "--name", "tuned")
    assert deeplab_train.main(tuned) == 0
    assert "best.pth: --normalise imagenet, as in the file" in capsys.readouterr().out
    assert load_torch(run.parent / "tuned" / "best.pth")["normalise"] == "imagenet"


def features(backbone, frames):
    """The output of the batch normalisation after the backbone's first convolution."""
    first = [backbone["conv1"], backbone["bn1"]] if "conv1" in backbone else [backbone["0"][0], backbone["0"][1]]
    return first[1](first[0](frames))


@pytest.mark.parametrize("depth", [False, True])
def test_pretrained_weights_get_the_frames_they_were_trained_on(theirs, tmp_path, depth, capsys):
    network, backbone = theirs
    torch.save(network.state_dict(), tmp_path / "voc.pth")
    grey = torch.rand(2, 1, *SIZE)
    colour = grey.expand(-1, 3, -1, -1)
    with torch.inference_mode():
        expected = features(network.backbone, normalize(colour, MEAN, DEVIATION))
    errors = {}
    for channels, name in ((3, "imagenet"), (1, "imagenet"), (1, "none")):
        model = DeepLabV3(channels, 3, backbone, depth_channel=depth).use_normalisation(name, channels).eval()
        load_pretrained(model, backbone, tmp_path / "voc.pth")
        assert f"input as --normalise {name} says" in capsys.readouterr().out
        with torch.inference_mode():
            x = model.normalised(grey if channels == 1 else colour)
            found = features(model.backbone, torch.cat([x, grey], 1) if depth else x)
        errors[channels, name] = (found - expected).abs()
    assert errors[3, "imagenet"].max() < 1e-4, "exact for colour, the border included"
    assert errors[1, "imagenet"][..., 2:-2, 2:-2].max() < 1e-4, "exact for grey inside"
    assert errors[1, "imagenet"].max() < 0.1 * errors[1, "none"].max(), "at grey's border nearly"


@pytest.mark.parametrize(("given", "kept"), [([], "imagenet"), (["--normalise", "none"], "none")])
def test_pretrained_is_normalised_unless_told_otherwise(bare, sets, tmp_path, given, kept):
    assert deeplab_train.main(deeplab_arguments(sets, tmp_path, "--pretrained", bare, *given)) == 0
    last = load_torch(tmp_path / "checkpoints" / "deeplab" / "run" / "last.pth")
    assert last["normalise"] == last["training"]["settings"]["options"]["normalise"] == kept


def test_a_pretrained_run_of_an_earlier_version_goes_on_as_it_began(bare, sets, tmp_path):
    arguments = deeplab_arguments(sets, tmp_path, "--pretrained", bare, "--normalise", "none", "--epochs", 2)
    arguments += ["--scheduler", "constant"]
    assert deeplab_train.main([*arguments, "--name", "whole"]) == 0
    assert deeplab_train.main([*arguments, "--name", "cut", "--epochs", "1"]) == 0
    runs = tmp_path / "checkpoints" / "deeplab"
    content = load_torch(runs / "cut" / "last.pth")
    del content["normalise"], content["training"]["settings"]["options"]["normalise"]
    torch.save(content, runs / "cut" / "last.pth")
    assert deeplab_train.main(["--resume", str(runs / "cut" / "last.pth"), "--epochs", "2"]) == 0
    one, other = (load_torch(runs / name / "last.pth")["state_dict"] for name in ("cut", "whole"))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_filters_for_grey_and_their_shift():
    """One filter of 1x1 by hand: 2 for red, nothing for the others."""
    filters, shift = normalisation.filters_for_grey(torch.tensor([2.0, 0, 0]).view(1, 3, 1, 1), "imagenet")
    grey = 0.7
    old, new = 2 * (grey - 0.485) / 0.229, filters.item() * (grey - 0.449) / 0.226
    assert new == pytest.approx(old + shift.item(), abs=1e-6)
    weights = segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None).state_dict()
    fitted, _ = adapt(weights, DeepLabV3(1, 3, MOBILE))
    [key] = FIRST.keys() & weights.keys()
    assert torch.equal(fitted[key], weights[key].sum(1, keepdim=True)), "without a normalisation as ever"
    assert torch.equal(fitted[FIRST[key]], weights[FIRST[key]])
