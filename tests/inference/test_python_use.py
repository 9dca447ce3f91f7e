"""Two lines of Python: a checkpoint opened, an array labelled, with the pixels that predict.py writes."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import make_folder, train_arguments
from PIL import Image

import sonogravity
from sonogravity.datasets.mask_files import decode_mask
from unet import predict, train


@pytest.fixture
def best(trained):
    return trained / "checkpoints" / "unet" / "run" / "best.pth"


KINDS = {
    "uint8": lambda image: image,
    "float": lambda image: (image / 255).astype(np.float32),
    "colour": lambda image: np.stack([image, image // 2, 255 - image], 2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_two_lines_give_the_pixels_of_predict(trained, best, tmp_path, kind):
    images = {}
    for path in (trained / "validation" / "images").iterdir():
        images[path.stem] = KINDS[kind](np.array(Image.open(path)))
        np.save(tmp_path / f"{path.stem}.npy", images[path.stem])
    output = tmp_path / "out"
    assert predict.main(["--load", str(best), "--input", str(tmp_path), "--output", str(output)]) == 0
    predictor = sonogravity.load(str(best))
    seen = set()
    for stem, image in images.items():
        labels = predictor.predict(image)
        assert labels.dtype == np.uint8 and labels.shape == image.shape[:2]
        np.testing.assert_array_equal(labels, decode_mask(output / "masks" / f"{stem}.png"))
        seen |= set(np.unique(labels))
    assert kind == "colour" or seen == {0, 128, 255}


def test_16_bit_images(tmp_path):
    folders = [make_folder(tmp_path / "train"), make_folder(tmp_path / "validation", subjects=("C",), seed=1)]
    for folder in folders:
        for path in (folder / "images").iterdir():
            Image.fromarray(np.array(Image.open(path)).astype(np.uint16) * 200).save(path)
    assert train.main(train_arguments(*folders, tmp_path, "--epochs", 3)) == 0
    last = tmp_path / "checkpoints" / "unet" / "run" / "last.pth"
    assert predict.main(["--load", str(last), "--input", str(folders[1]), "--output", str(tmp_path / "o")]) == 0
    predictor = sonogravity.load(last)
    for path in (folders[1] / "images").iterdir():
        image = np.asarray(Image.open(path)).astype(np.uint16)
        assert image.max() > 255
        np.testing.assert_array_equal(predictor.predict(image), decode_mask(tmp_path / "o" / "masks" / path.name))


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((2, 3, 4, 5), np.uint8), "the array has the shape"),
        (np.full((4, 5), 200.0), "save them as numbers in 0 to 1"),
        (np.zeros((4, 5), np.int64) - 1, "int64"),
        (np.zeros((4, 5), np.uint16), "16-bit"),
    ],
)
def test_what_is_no_image_is_refused(best, image, says):
    with pytest.raises(sonogravity.InputError, match=says):
        sonogravity.load(best).predict(image)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "other.pth")
    torch.save({"format": "sonogravity checkpoint 1", "state_dict": {}, "model_name": "os"}, tmp_path / "hostile.pth")
    torch.save({"format": "sonogravity checkpoint 1", "state_dict": {}, "model_name": ["unet"]}, tmp_path / "list.pth")
    for name, says in (
        ("other", "no weights of unet or deeplab"),
        ("hostile", "'os'"),
        ("list", "unet"),
        ("no", "no s"),
    ):
        with pytest.raises(sonogravity.InputError, match=f"{name}.pth.*{says}"):
            sonogravity.load(tmp_path / f"{name}.pth")


def test_importing_the_package_imports_no_torch():
    code = "import sonogravity, sys; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_prediction_switches_tf32_off_and_back(best):
    """Scores on a GPU would else differ from those on a CPU in the fourth digit."""
    seen = []

    def network(images):
        seen.append(torch.backends.cudnn.allow_tf32)
        return torch.zeros(len(images), 3, *images.shape[2:])

    before = torch.backends.cudnn.allow_tf32
    sonogravity.load(str(best), device="cpu").using(network, "torch", None).predict(np.zeros((40, 36), np.uint8))
    assert seen == [False] and torch.backends.cudnn.allow_tf32 == before
