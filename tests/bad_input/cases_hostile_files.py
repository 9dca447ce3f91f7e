"""Cases of bad input: hostile files: nothing in them may run."""

import pickle

import numpy as np
import torch
from scene import Payload, add


def hostile(suffix, kind, part="validation"):
    def arrange(scene):
        path = scene.replace(suffix, kind=kind, part=part)
        if suffix == "npy":
            np.save(path, np.array([Payload(scene.trace)], dtype=object), allow_pickle=True)
        elif suffix == "pth":
            torch.save(Payload(scene.trace), path)
        else:
            path.write_bytes(pickle.dumps(Payload(scene.trace)))
        return []

    return arrange


for _suffix in ("pth", "npy", "png"):
    add(f"a pickle with code as .{_suffix} image", "unet/predict", hostile(_suffix, "images"), f"C_001.{_suffix}")
    add(f"a pickle with code as .{_suffix} mask", "unet/train", hostile(_suffix, "masks", "train"), f"A_001.{_suffix}")
add(
    "an old-style pickle with code as image",
    "unet/evaluate",
    lambda s: s.replace("pth", pickle.dumps(Payload(s.trace), protocol=2)) and [],
    "C_001.pth",
)
add(
    "a checkpoint with code",
    "unet/predict",
    lambda s: ["--load", s.write({"a": Payload(s.trace)})],
    "spoilt.pth",
    "safely",
)
add(
    "a checkpoint with code beside good weights",
    "deeplab/evaluate",
    lambda s: ["--load", s.write({**s.content(), "extras": Payload(s.trace)})],
    "spoilt.pth",
    "safely",
)
add("an old-style checkpoint with code", "unet/train", lambda s: ["--load", _pickled(s)], "spoilt.pth", "safely")
add(
    "a checkpoint with code to resume",
    "unet/train",
    lambda s: ["--resume", s.write(Payload(s.trace))],
    "spoilt.pth",
    "safely",
)
add(
    "weights with code as --pretrained",
    "deeplab/train",
    lambda s: ["--pretrained", s.write({"a": Payload(s.trace)})],
    "spoilt.pth",
    "safely",
)


def _pickled(scene):
    (scene.root / "spoilt.pth").write_bytes(pickle.dumps(Payload(scene.trace)))
    return scene.root / "spoilt.pth"
