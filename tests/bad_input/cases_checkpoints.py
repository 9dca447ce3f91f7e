"""Cases of bad input: checkpoints."""

import numpy as np
import torch
from PIL import Image
from scene import add


def changed(**entries):
    """The good checkpoint with entries changed; None takes one out."""

    def arrange(scene):
        content = scene.content() | entries
        return ["--load", scene.write({key: value for key, value in content.items() if value is not None})]

    return arrange


def with_weights(change):
    def arrange(scene):
        content = scene.content()
        change(content["state_dict"])
        return ["--load", scene.write(content)]

    return arrange


def without_depth(scene):
    weights = scene.content()["state_dict"]
    return weights | {"inc.double_conv.0.weight": weights["inc.double_conv.0.weight"][:, :1].clone()}


def bytes_of_checkpoint(change):
    def arrange(scene):
        (scene.root / "spoilt.pth").write_bytes(change(scene.best.read_bytes()))
        return ["--load", scene.root / "spoilt.pth"]

    return arrange


LABELS = {"values": [0, 128, 255], "names": ["0", "128", "255"], "background": 0, "snap": False}
OPTIONS = {"in_channels": 1, "classes": 3, "base_channels": 4, "bilinear": False}
add("a truncated checkpoint", "unet/predict", bytes_of_checkpoint(lambda b: b[: len(b) // 2]), "spoilt.pth", "safely")
add("an empty checkpoint", "unet/predict", bytes_of_checkpoint(lambda b: b""), "spoilt.pth", "safely")
add(
    "a checkpoint with a byte changed in its weights",
    "unet/predict",
    bytes_of_checkpoint(lambda b: b[: len(b) // 2] + bytes([b[len(b) // 2] ^ 255]) + b[len(b) // 2 + 1 :]),
    "spoilt.pth",
    "damaged",
)
add("a text as checkpoint", "deeplab/predict", bytes_of_checkpoint(lambda b: b"hello"), "spoilt.pth", "safely")
add("a folder as checkpoint", "unet/predict", lambda s: ["--load", s.root], "no such file")
add("no such checkpoint", "deeplab/evaluate", lambda s: ["--load", s.root / "no.pth"], "no.pth", "no such file")
add("a list as checkpoint", "unet/predict", lambda s: ["--load", s.write([1, 2])], "spoilt.pth", "list")
add("a tensor as checkpoint", "unet/predict", lambda s: ["--load", s.write(torch.ones(3))], "spoilt.pth", "Tensor")
add("an empty dictionary as checkpoint", "unet/predict", lambda s: ["--load", s.write({})], "spoilt.pth", "no weights")
add("DeepLab's checkpoint in U-Net", "unet/predict", lambda s: ["--load", s.checkpoints["deeplab"]], "deeplab")
add("U-Net's checkpoint in DeepLab", "deeplab/predict", lambda s: ["--load", s.best], "unet")
add(
    "U-Net's weights alone in DeepLab",
    "deeplab/evaluate",
    lambda s: ["--load", s.write(s.content()["state_dict"])],
    "spoilt.pth",
    "no deeplab model",
)
add("an image as checkpoint", "unet/evaluate", lambda s: ["--load", s.frame()], "C_001.png", "safely")
add(
    "a checkpoint of a later version",
    "unet/predict",
    changed(format="sonogravity checkpoint 9"),
    "spoilt.pth",
    "checkpoint 9",
)
add(
    "a checkpoint of an older version",
    "unet/train",
    changed(format="sonogravity checkpoint 0"),
    "spoilt.pth",
    "checkpoint 0",
)
add("a checkpoint of another class count", "unet/train", lambda s: [*_two_classes(s), "--load", s.best], "128", "255")


def _two_classes(scene):
    for path in (*(scene.train / "masks").iterdir(), *(scene.validation / "masks").iterdir()):
        Image.fromarray((np.array(Image.open(path)) > 0).astype(np.uint8) * 9).save(path)
    return []


add(
    "a checkpoint whose labels are fewer than its classes",
    "unet/predict",
    changed(labels={**LABELS, "values": [0, 255], "names": ["0", "255"]}),
    "spoilt.pth",
    "damaged",
)
add(
    "a checkpoint whose names are alike",
    "unet/predict",
    changed(labels={**LABELS, "names": ["0", "a", "a"]}),
    "spoilt.pth",
    "damaged",
)
add("a checkpoint whose labels are text", "unet/predict", changed(labels="none"), "spoilt.pth", "damaged")
add(
    "a checkpoint with a background that is no class",
    "unet/predict",
    changed(labels={**LABELS, "background": 7}),
    "spoilt.pth",
    "damaged",
)
add("a checkpoint without labels", "unet/predict", changed(labels=None), "spoilt.pth", "damaged")
add("a checkpoint of scale NaN", "unet/predict", changed(scale=float("nan")), "spoilt.pth", "damaged")
add("a checkpoint of scale 0", "unet/predict", changed(scale=0.0), "spoilt.pth", "damaged")
add(
    "a checkpoint of a billion channels",
    "unet/predict",
    changed(model_options={**OPTIONS, "base_channels": 10**9}),
    "spoilt.pth",
    "damaged",
)
add(
    "a checkpoint with a strange option",
    "unet/predict",
    changed(model_options={**OPTIONS, "depth": 9}),
    "spoilt.pth",
    "damaged",
)
add("a checkpoint whose run leads elsewhere", "unet/predict", changed(run="../../../escape"), "spoilt.pth", "damaged")
add("a checkpoint of an unknown normalisation", "unet/predict", changed(normalise="imagnet"), "spoilt.pth", "damaged")
add("a checkpoint with an unknown entry", "unet/predict", changed(surprise=1), "spoilt.pth", "surprise")
add(
    "a checkpoint of weights NaN",
    "unet/predict",
    with_weights(lambda w: w["outc.conv.weight"].fill_(float("nan"))),
    "spoilt.pth",
    "outc.conv.weight",
)
add("a checkpoint with tensors for its labels", "unet/predict", changed(labels=torch.ones(3)), "spoilt.pth", "labels")
add("a checkpoint whose format is a tensor", "unet/predict", changed(format=torch.ones(2, 2)), "spoilt.pth", "is a")
add(
    "a checkpoint whose model is a tensor",
    "unet/predict",
    changed(model_name=torch.ones(2, 2)),
    "spoilt.pth",
    "model_name",
)
add(
    "a checkpoint whose weight claims more than the file holds",
    "unet/predict",
    with_weights(lambda w: w.update({"outc.conv.bias": torch.ones(1).expand(10**6, 10**5)})),
    "spoilt.pth",
    "outc.conv.bias",
)
add(
    "a checkpoint that lacks a weight",
    "unet/predict",
    with_weights(lambda w: w.pop("outc.conv.bias")),
    "spoilt.pth",
    "outc.conv.bias",
)
add(
    "a checkpoint with a weight of another shape",
    "unet/predict",
    with_weights(lambda w: w.update({"outc.conv.bias": torch.zeros(7)})),
    "spoilt.pth",
    "outc.conv.bias",
)
add(
    "a checkpoint whose weight is a number",
    "unet/predict",
    with_weights(lambda w: w.update({"outc.conv.bias": 3})),
    "spoilt.pth",
    "outc.conv.bias",
)
add("weights without scores to resume from", "unet/train", lambda s: ["--resume", s.best], "weights only")
add(
    "a bare state dict works",
    "unet/evaluate",
    lambda s: ["--load", s.write(without_depth(s)), "--mask-values", "0,128,255"],
    check=lambda s: len(s.rows()) == 4,
)
add(
    "a bare state dict with a channel that nothing explains",
    "unet/evaluate",
    lambda s: ["--load", s.write(s.content()["state_dict"]), "--mask-values", "0,128,255"],
    "spoilt.pth",
    "2 channels",
)
add(
    "mask values too few for the checkpoint",
    "unet/evaluate",
    lambda s: ["--load", s.write(without_depth(s)), "--mask-values", "0,128"],
    "spoilt.pth",
    "3 classes",
)
