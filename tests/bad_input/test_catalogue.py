"""Each case of catalogue.py: it works as documented, or ends with one line, exit code 2, and nothing left behind."""

import importlib
import os
import pickle
import re
import subprocess
import sys

import pytest
from catalogue import CASES
from scene import SMALL_RUN, Payload, Scene

from sonogravity.common import folders
from sonogravity.reporting import output_folder

THROUGH_THE_SHELL = 12  # cases a script, taken evenly
MODEL_OPTIONS = {
    "unet": ["--base-channels", "4", "--learning-rate", "1e-2"],
    "deeplab": ["--backbone", "mobilenet_v3_large", "--batch-size", "4"],
}


def main_of(script):
    return importlib.import_module(script.replace("/", ".")).main


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Both models trained for an epoch on a scene's data, with its settings and scores for reference."""
    root = tmp_path_factory.mktemp("good")
    made = {}
    scene = Scene(root, made)
    for model in MODEL_OPTIONS:
        assert main_of(f"{model}/train")(command_line(scene, f"{model}/train", [])) == 0
        made[model] = scene.output / "checkpoints" / model / "run" / "best.pth"
    made["settings"] = scene.output / "results" / "unet" / "run" / "settings.json"
    scene.output = root / "reference"
    assert main_of("unet/evaluate")(command_line(scene, "unet/evaluate", [])) == 0
    made["reference"] = scene.output / "files.csv"
    return made


def command_line(scene, script, options):
    """A good command line for the script, then the case's own options."""
    model, kind = script.split("/")
    if kind == "convert":
        line = ["--output", scene.output]
    elif kind == "train":
        line = ["--checkpoints", scene.output / "checkpoints", "--results", scene.output / "results"]
        if not {"--resume", "--repeat"} & set(map(str, options)):
            data = ["--train", scene.train, "--validation", scene.validation]
            line = [*data, *line, *SMALL_RUN, *MODEL_OPTIONS[model]]
        elif "--repeat" in options:
            line += ["--name", "run"]
    else:
        line = ["--input", scene.validation, "--output", scene.output]
        if not {"--load", "--predictions"} & set(map(str, options)):
            line += ["--load", scene.checkpoints[model]]
    return [str(argument) for argument in [*line, *options]]


def tree(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def judge(case, scene, before, code, errors):
    """The verdict on one case, whether it ran here or through the shell."""
    assert not scene.trace.exists(), "code from a file has run"
    assert not (scene.root.parent / "escape").exists()
    assert "Traceback" not in errors
    lines = [line.strip() for line in re.split(r"[\r\n]+", errors)]
    lines = [line for line in lines if line and not re.search(r"\d+%\||\d+/\d+ \[", line)]  # no progress bars
    refusals = [line for line in lines if not line.startswith("warning: ")]
    if case.says is None:
        assert (code, refusals) == (0, [])
        assert case.check(scene)
        return
    assert code == 2 and len(refusals) == 1 and refusals[0].startswith("error: "), errors
    for part in case.says:
        assert part in refusals[0]
    left = {path for path in tree(scene.root) - before if path != "out"}
    assert all(path.startswith(f"out/{output_folder.UNFINISHED}") for path in left), (
        "nothing that looks like a result is left"
    )
    assert not [path for path in left if path.endswith((".xlsx", "files.csv", "summary.json"))]
    assert before <= tree(scene.root), "nothing is lost"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case, tmp_path, checkpoints, capsys):
    if case.rights and os.geteuid() == 0:
        pytest.skip("root may read everything")
    scene = Scene(tmp_path / "scene", checkpoints)
    arguments = command_line(scene, case.script, case.arrange(scene))
    before = tree(scene.root)
    capsys.readouterr()
    try:
        code = main_of(case.script)(arguments)
    except SystemExit as stopped:
        code = stopped.code
    judge(case, scene, before, code, capsys.readouterr().err)


@pytest.mark.parametrize("case", CASES[:: len(CASES) // THROUGH_THE_SHELL], ids=lambda case: case.name)
def test_sample_through_the_shell(case, tmp_path, checkpoints):
    scene = Scene(tmp_path / "scene", checkpoints)
    command = [
        sys.executable,
        folders.ROOT / f"{case.script}.py",
        *command_line(scene, case.script, case.arrange(scene)),
    ]
    before = tree(scene.root)
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    judge(case, scene, before, done.returncode, done.stderr)


def test_the_payload_would_leave_a_trace(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "trace")))
    assert (tmp_path / "trace").is_dir()


def test_size_of_the_catalogue():
    assert len(CASES) >= 120 and len({case.name for case in CASES}) == len(CASES)
