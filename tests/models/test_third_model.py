"""A third model is a copied folder: the edits that docs/adding-a-model.md names, and no others, make it work."""

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import make_folder
from killing import same

from sonogravity.common import folders
from sonogravity.common.files import load_torch
from sonogravity.datasets.mask_files import decode_mask

PAGE = folders.ROOT / "docs" / "adding-a-model.md"


def blocks():
    """{title: code} of the page: a block's first line is a comment with its title."""
    found = re.findall(r"```python\n# ([^\n]*)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) == 4
    return dict(found)


def replace_function(path, code):
    """Put the function of ``code`` in the place of the function of the same name."""
    name = re.match(r"def (\w+)\(", code)[1]
    text, count = re.subn(rf"def {name}\(.*?\n(?=\n\n)", lambda _: code, path.read_text(), flags=re.DOTALL)
    assert count == 1
    path.write_text(text)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A copy of the repository's code with the third model in it."""
    root = tmp_path_factory.mktemp("repository")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("sonogravity", "unet", "deeplab"):
        shutil.copytree(folders.ROOT / name, root / name, ignore=ignored)
    shutil.copytree(root / "unet", root / "mynet")
    for path in (root / "mynet").glob("*.py"):
        text = path.read_text()
        path.write_text(text.replace("unet", "mynet").replace("UNet", "MyNet").replace("U-Net", "MyNet"))
    code = blocks()
    (root / "mynet" / "model.py").write_text(code["mynet/model.py"])
    replace_function(root / "mynet" / "train.py", code["mynet/train.py: build_parser"])
    replace_function(root / "mynet" / "train.py", code["mynet/train.py: model_options_of"])
    known = root / "sonogravity" / "models.py"
    text, count = re.subn(r"MODELS = .*\n", code["sonogravity/models.py"], known.read_text())
    assert count == 1
    known.write_text(text)
    shutil.copy(folders.ROOT / "pyproject.toml", root)
    sort = [sys.executable, "-m", "ruff", "check", "--fix", "mynet"]  # unsorted and unused imports, and nothing else
    subprocess.run(sort, cwd=root, check=True, capture_output=True)
    assert "argparse" not in (root / "mynet" / "train.py").read_text()
    make_folder(root / "data" / "train", size=(40, 37))
    make_folder(root / "data" / "validation", subjects=("C",), size=(37, 40), seed=1)
    return root


def run(repository, *line):
    """Run a command in the model's folder; return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, line)], cwd=repository / "mynet", env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LEARN = ["--learning-rate", "1e-2", "--no-augment", "--scale", "1", "--device", "cpu", "--workers", "0"]


def epochs(repository, name):
    return pd.read_csv(repository / "results" / "mynet" / name / "epochs.csv")


def test_it_trains_predicts_and_resumes(repository):
    assert "training:" in run(repository, "train.py", "--check")
    run(repository, "train.py", "--epochs", 12, "--name", "first", "--width", 8, *LEARN)
    run(repository, "predict.py", "--load", "../checkpoints/mynet/first/best.pth")
    predicted = repository / "results" / "mynet" / "first" / "predict"
    files = pd.read_csv(predicted / "files.csv")
    best = epochs(repository, "first").loc[epochs(repository, "first")["dice"].idxmax()]
    assert best["dice"] > 0.3, "it learns"
    for score in ("dice", "accuracy", "sensitivity"):
        assert files[score].mean() == pytest.approx(best[score], abs=1e-6)
    for name in files["file"]:
        mask = decode_mask(predicted / "masks" / name)
        assert mask.shape == (37, 40) and len(np.unique(mask)) > 1
    assert "--source" in run(repository, "live.py", "--help")
    shorter = ["--scheduler", "constant", "--width", 8, *LEARN]
    run(repository, "train.py", "--epochs", 4, "--name", "whole", *shorter)
    run(repository, "train.py", "--epochs", 2, "--name", "cut", *shorter)
    run(repository, "train.py", "--resume", "../checkpoints/mynet/cut/last.pth", "--epochs", 4)
    whole, resumed = (load_torch(repository / "checkpoints" / "mynet" / name / "last.pth") for name in ("whole", "cut"))
    assert same(whole["state_dict"], resumed["state_dict"])


def test_it_starts_from_weights_with_their_options_and_with_a_new_head(repository):
    run(repository, "train.py", "--epochs", 1, "--name", "start", "--width", 4, "--device", "cpu")
    load = ["--load", "../checkpoints/mynet/start/last.pth", "--epochs", 1, "--device", "cpu"]
    assert "--width 4, as in the file" in run(repository, "train.py", *load, "--name", "tuned", "--freeze-encoder", 1)
    assert "last.weight" in run(repository, "train.py", *load, "--name", "headed", "--new-head")


def test_its_checkpoint_opens_by_name_and_by_weights_alone(repository):
    run(repository, "train.py", "--epochs", 1, "--name", "second", "--device", "cpu", "--low-memory")
    code = (
        "import sys, numpy, sonogravity, torch\n"
        "predictor = sonogravity.load(sys.argv[1])\n"
        "torch.save(predictor.model.state_dict(), 'bare.pth')\n"
        "image = numpy.zeros((30, 20), numpy.uint8)\n"
        "bare = sonogravity.load('bare.pth')\n"
        "print(type(predictor.model).__name__, type(bare.model).__name__, predictor.predict(image).shape)\n"
    )
    said = run(repository, "-c", code, "../checkpoints/mynet/second/last.pth")
    assert said.splitlines()[-1] == "MyNet MyNet (30, 20)"


def test_the_page_describes_the_contract():
    """Every name that a model must set or define stands on the page."""
    contract = (folders.ROOT / "sonogravity" / "modeling" / "segmentation_model.py").read_text()
    names = re.findall(r"^    (?:def )?([A-Za-z_]\w+)[:(]", contract, re.MULTILINE)
    page = PAGE.read_text(encoding="utf-8")
    assert {"NAME", "HEAD", "forward", "encoder", "blocks", "options_from"} <= set(names)
    assert not [name for name in names if name not in page]
    assert np.all([f'"{name}' in page for name in ("mynet*", "unet", "deeplab")])
