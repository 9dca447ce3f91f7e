"""What an earlier version wrote stays readable: a run of commit f6191a4 loads, resumes, repeats and predicts."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import sonogravity
from sonogravity.common import folders
from sonogravity.common.files import load_torch
from sonogravity.datasets.image_files import decode_image
from sonogravity.datasets.mask_files import decode_mask
from unet import predict, train

FIXTURE = folders.ROOT / "tests" / "fixtures" / "f6191a4"
DATA = ["--train", str(FIXTURE / "train"), "--validation", str(FIXTURE / "validation")]
TIMES = ["seconds", "images_per_second"]


@pytest.fixture(autouse=True)
def one_thread():
    """As when the fixture was written: sums in another order end elsewhere after many epochs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def roots(root):
    return ["--checkpoints", str(root / "checkpoints"), "--results", str(root / "results")]


def assert_same_weights(path):
    """To rounding: another processor may add up in another order."""
    found, expected = (load_torch(each)["state_dict"] for each in (path, FIXTURE / "epoch_032.pth"))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.allclose(found[key].float(), value.float(), rtol=1e-3, atol=1e-4), key


def assert_same_epochs(path):
    """The training loss of the earlier version contained the heads of deep supervision; that of its epochs is kept."""
    found, expected = (pd.read_csv(each).drop(columns=TIMES) for each in (path, FIXTURE / "epochs.csv"))
    assert (found["train_loss"][30:] < expected["train_loss"][30:]).all()
    found.loc[30:, "train_loss"] = expected.loc[30:, "train_loss"]
    pd.testing.assert_frame_equal(found, expected, rtol=0.01, atol=0.01)


def test_the_fixture_is_small():
    sizes = [path.stat().st_size for path in FIXTURE.rglob("*") if path.is_file()]
    assert sum(sizes) < 600_000 and max(sizes) < 500_000


def test_it_resumes_to_the_weights_that_the_earlier_version_reached(tmp_path, capsys):
    run = tmp_path / "checkpoints" / "unet" / "run"
    run.mkdir(parents=True)
    shutil.copy(FIXTURE / "last.pth", run)
    assert load_torch(run / "last.pth")["epoch"] == 30
    assert train.main(["--resume", str(run / "last.pth"), *DATA, *roots(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "epoch 31/32" in said.out and "epoch 30/32" not in said.out
    assert "is of commit f6191a4" in said.err
    assert "train_loss contains the auxiliary heads so far, but not from now on" in said.err
    assert_same_weights(run / "last.pth")
    assert_same_epochs(tmp_path / "results" / "unet" / "run" / "epochs.csv")


def test_it_repeats(tmp_path):
    settings = FIXTURE / "settings.json"
    assert json.loads(settings.read_text())["commit"].startswith("f6191a4")
    assert train.main(["--repeat", str(settings), "--name", "again", *DATA, *roots(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "results" / "unet" / "again" / "epochs.csv")
    first = pd.read_csv(FIXTURE / "epochs.csv")
    # Many epochs amplify another processor's rounding; the first ones do not.
    np.testing.assert_allclose(table["val_loss"][:2], first["val_loss"][:2], rtol=0.01)
    assert table["val_loss"].iloc[-1] == pytest.approx(first["val_loss"].iloc[-1], rel=0.3)


def test_it_predicts(tmp_path):
    arguments = ["--load", str(FIXTURE / "epoch_032.pth"), "--input", str(FIXTURE / "validation")]
    assert predict.main([*arguments, "--output", str(tmp_path / "out")]) == 0
    found, expected = (pd.read_csv(path / "files.csv") for path in (tmp_path / "out", FIXTURE / "predicted"))
    np.testing.assert_allclose(found["dice"], expected["dice"], atol=0.005)
    predictor = sonogravity.load(FIXTURE / "epoch_032.pth", device="cpu")
    for name in found["file"]:
        mask = decode_mask(FIXTURE / "predicted" / name)
        assert len(np.unique(mask)) == 3
        image = decode_image(FIXTURE / "validation" / "images" / name, 1)
        for labels in (decode_mask(tmp_path / "out" / "masks" / name), predictor.predict(image)):
            assert (labels == mask).mean() > 0.995
