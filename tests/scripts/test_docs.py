"""The front page and docs/: every link leads somewhere, every option exists, every command works on small frames."""

import importlib
import re
import shlex
import shutil

import numpy as np
import pytest
import torch
from annotation_files import write_coco, write_cvat_images, write_cvat_video, write_labelme
from conftest import make_folder
from PIL import Image
from sequence_files import grey_frames, write_segmentation, write_video
from torchvision.models import segmentation

from sonogravity import models
from sonogravity.commands import compare, convert
from sonogravity.common import folders
from unet import train

PAGES = [folders.ROOT / "README.md", *sorted((folders.ROOT / "docs").glob("*.md"))]
SCRIPTS = ("train", "predict", "predict_w_margin", "evaluate", "evaluate_w_margin", "export", "live")
# Options of other programs that the pages name, and of our own tests and benchmarks.
OTHERS = {
    "--standalone",
    "--nproc-per-node",
    "--nnodes",
    "--rdzv-backend",
    "--rdzv-endpoint",
    "--max-restarts",
    "--soak",
    "--help",
    "--fix",
    "--rounds",
    "--steps",
    "--settings",
    "--models",
    "--seeds",
    "--recipes",
    "--jobs",
    "--data",
    "--panels",
    "--frames",
    "--few",
    "--checkpoint",
    "--tables",
    "--counts",
    "--scales",
    "--masks",
    "--images",
    "--rate",
    "--seconds",
    "--slow",
}
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def text_of(page):
    return page.read_text(encoding="utf-8")


def code_of(page):
    """The fenced blocks of a page, continued lines joined."""
    return re.sub(r"\\\n\s*", " ", "\n".join(re.findall(r"```\w*\n(.*?)```", text_of(page), re.DOTALL)))


def anchors_of(page):
    """What #... after a link to the page may be, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@by_page
def test_every_link_leads_somewhere(page):
    prose = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert target.is_relative_to(folders.ROOT)
        assert not anchor or anchor in anchors_of(target), f"{page.name}: {link}"


def test_the_front_page_is_one_page_and_names_all_others():
    lines = text_of(folders.ROOT / "README.md").splitlines()
    assert len(lines) <= 120 and max(map(len, lines)) <= 100
    for page in PAGES[1:]:
        assert f"(docs/{page.name})" in text_of(folders.ROOT / "README.md")


def known_options():
    parsers = [importlib.import_module(f"{model}.{name}").build_parser() for model in models.MODELS for name in SCRIPTS]
    parsers += [compare.build_parser(), convert.build_parser()]
    known = {option for parser in parsers for option in parser._option_string_actions}
    phantom = (folders.ROOT / "data" / "make_phantom.py").read_text()
    return known | set(re.findall(r'"(--[a-z-]+)"', phantom)) | OTHERS


@by_page
def test_every_option_exists(page):
    known = known_options()
    if page.stem == "adding-a-model":
        known |= {"--width"}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]", text_of(page)))
    assert named <= known, sorted(named - known)


def commands_of(page):
    """(script, arguments) of the commands that run one of our scripts as it is; torchrun's start several processes."""
    folder = "unet"
    for line in code_of(page).splitlines():
        if found := re.match(r"cd (?:\.\./)?(unet|deeplab|mynet)\s*$", line.strip()):
            folder = found[1]
        found = re.match(r"(?:\S*/)?python (?:(unet|deeplab)/)?(\w+)\.py(.*)", line.split("#")[0].strip())
        if found and found[2] in SCRIPTS and (found[1] or folder) in models.MODELS:
            yield f"{found[1] or folder}.{found[2]}", shlex.split(found[3])


COMMANDS = sorted({(script, *arguments) for page in PAGES for script, arguments in commands_of(page)})


def test_there_are_commands():
    assert len(COMMANDS) > 12 and {command[0].split(".")[1] for command in COMMANDS} >= set(SCRIPTS) - {
        "predict_w_margin"
    }


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_is_one_that_the_script_takes(command):
    script, *arguments = command
    arguments = [each.replace("*", "x") for each in arguments]  # nothing is there that a pattern could match
    options = importlib.import_module(script).build_parser().parse_args(arguments)
    assert bool(options.given) == bool(arguments)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Frames of 64 pixels as data/ holds them, and a run of both models on them."""
    root = tmp_path_factory.mktemp("docs")
    make_folder(root / "train", subjects=("A", "B", "C"), frames=3, size=(64, 60))
    make_folder(root / "validation", subjects=("D",), frames=3, size=(64, 60), seed=1)
    stems = [path.name for part in ("train", "validation") for path in (root / part / "images").iterdir()]
    (root / "spacing.csv").write_text("file,pixels_per_mm\n" + "".join(f"{stem},9.5\n" for stem in stems))
    for model, more in (("unet", ["--base-channels", "4"]), ("deeplab", ["--backbone", "mobilenet_v3_large"])):
        line = [
            "--train",
            root / "train",
            "--validation",
            root / "validation",
            "--checkpoints",
            root / "checkpoints",
            "--results",
            root / "results",
            "--name",
            "first",
            "--epochs",
            1,
            "--device",
            "cpu",
            *more,
        ]
        assert importlib.import_module(f"{model}.train").main([str(each) for each in line]) == 0
    return root


def weights_of_torchvision(root):
    """A file of the weights alone, for three colours: our checkpoints know which input they expect."""
    network = segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    torch.save(network.state_dict(), root / "OLD.pth")
    return root / "OLD.pth"


def clip_of(small, root):
    """A clip of the validation frames, for the options that apply to clips."""
    frames = [np.array(Image.open(path)) for path in sorted((small / "validation" / "images").iterdir())]
    return write_video(root / "clip.mkv", frames)


def overridden(script, arguments, small, root):
    """The command on small data: options given again count, so folders and sizes are put behind."""
    model, name = script.split(".")
    best = small / "checkpoints" / model / "first" / "best.pth"
    if name == "train":
        more = [
            "--train",
            small / "train",
            "--validation",
            small / "validation",
            "--checkpoints",
            root / "c",
            "--results",
            root / "r",
            "--epochs",
            1,
            "--device",
            "cpu",
            "--workers",
            0,
            "--scale",
            0.5,
            "--batch-size",
            2,
            "--name",
            "new",
        ]
        more += ["--base-channels", 4] if model == "unet" else ["--backbone", "mobilenet_v3_large"]
        return [*(["--load", best] if "--load" in arguments else []), *more]
    more = ["--input", clip_of(small, root) if "--smooth" in arguments else small / "validation"]
    if name == "export":
        return [*more, "--load", shutil.copy(best, root), "--calibration-frames", small / "train"]
    if "--predictions" in arguments:
        more += ["--predictions", small / "validation" / "masks"]
    else:
        more += ["--load", weights_of_torchvision(root) if "--normalise" in arguments else best]
    spacing = ["--spacing", small / "spacing.csv"] if "--spacing" in arguments else []
    return [*more, *spacing, "--output", root / "out"]


RUNNABLE = [
    command
    for command in COMMANDS
    if not {"--resume", "--repeat", "--pretrained", "--compile", "--int8", "--folds", "--engine", "--region", "--from"}
    & set(command)
    and not command[0].endswith(("export", "live"))  # live.py runs until it is ended; test_live.py runs it
]


@pytest.mark.parametrize("command", RUNNABLE, ids=" ".join)
def test_commands_run_on_small_frames(command, small, tmp_path):
    script, *arguments = command
    line = [*arguments, *overridden(script, arguments, small, tmp_path)]
    assert importlib.import_module(script).main([str(each) for each in line]) == 0


def conversions_of(page):
    """The arguments of the commands that run convert, in blocks and in tables."""
    blocks, cells = code_of(page), "\n".join(re.findall(r"`([^`\n]+)`", text_of(page)))
    lines = dict.fromkeys(line.strip() for line in f"{blocks}\n{cells}".splitlines())
    found = [re.fullmatch(r"python -m sonogravity\.convert (.+)", line) for line in lines]
    return [shlex.split(each[1]) for each in found if each]


CONVERSIONS = sorted({tuple(each) for page in PAGES for each in conversions_of(page)})
SIZE, SQUARE = (40, 48), [(4, 5), (20, 5), (20, 21), (4, 21)]
LABELS = [("bone", SQUARE), ("ligament", [(22, 5), (40, 5), (40, 30)])]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """The folder in which a user of the pages stands, with clips, images and the exports of annotation tools."""
    frames, names = grey_frames(12, SIZE), [label for label, _ in LABELS]
    tracks = [(label, {0: corners, 11: corners}) for label, corners in LABELS]
    for person in ("P1", "P2", "P3", "P4", "P5"):
        write_video(tmp_path / "patients" / person / "sweep.mkv", frames)
    write_video(tmp_path / "sweep.mp4", frames, "libx264", "yuv420p")
    write_cvat_video(tmp_path / "annotations.xml", tracks, SIZE, names, "sweep.mp4", (0, 11))
    for folder in ("labelme", "frames", "slicer", "scans"):
        (tmp_path / folder).mkdir()
        Image.fromarray(frames[0]).save(tmp_path / folder / "P1_a.png")
    write_labelme(tmp_path / "labelme" / "P1_a.json", LABELS, SIZE, "P1_a.png")
    write_coco(tmp_path / "instances.json", {"P1_a.png": LABELS}, SIZE, {"bone": 1, "ligament": 2})
    drawn = (frames[0] // 100).astype(np.uint8)
    write_segmentation(tmp_path / "slicer" / "P1_a.seg.nrrd", drawn[None], {"bone": (1, 0), "ligament": (2, 0)})
    (tmp_path / "labels").mkdir()
    Image.fromarray(drawn).save(tmp_path / "labels" / "P1_a.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_conversions():
    assert len(CONVERSIONS) > 7


@pytest.mark.parametrize("command", [each for each in CONVERSIONS if "data/frames" not in each[:1]], ids=" ".join)
def test_conversions_run_on_files_made_on_the_spot(command, desk):
    assert convert.main(list(command)) == 0
    output = desk / command[command.index("--output") + 1]
    images, masks = ({path.name for path in (output / kind).glob("*")} for kind in ("images", "masks"))
    assert images and masks == (set() if command[0] == "patients" else images)


def test_from_the_scanner_to_training_as_the_page_says(desk, capsys):
    """The commands of the section in order; what the user draws in between is written on the spot."""
    section = text_of(folders.ROOT / "docs" / "scanner-files.md").split("## Training")[1].split("`convert` writes:")[0]
    commands = [shlex.split(line) for line in re.findall(r"^ +(python .+)$", section, re.MULTILINE)]
    assert [command[1] for command in commands] == ["-m", "-m", "unet/train.py"]
    assert convert.main(commands[0][3:]) == 0
    images = sorted((desk / "data" / "frames" / "images").iterdir())
    assert len(images) == 10
    drawings = {path.name: LABELS for path in images}
    write_cvat_images(desk / "annotations.xml", drawings, SIZE, [label for label, _ in LABELS])
    capsys.readouterr()
    assert convert.main(commands[1][3:]) == 0
    printed = shlex.split(capsys.readouterr().out.split("next: ")[1])
    assert printed[1] == str(folders.ROOT / commands[2][1]) and printed[2:] == commands[2][2:]
    small = ["--epochs", 1, "--base-channels", 4, "--device", "cpu", "--workers", 0, "--name", "run", "--scale", 0.5]
    small += ["--checkpoints", desk / "c", "--results", desk / "r"]
    assert train.main([*commands[2][2:], *map(str, small)]) == 0


def test_the_python_of_the_front_page_runs(small, monkeypatch, tmp_path):
    [block] = re.findall(r"```python\n(.*?)```", text_of(folders.ROOT / "README.md"), re.DOTALL)
    monkeypatch.chdir(small)
    image = np.array(Image.open(next((small / "validation" / "images").iterdir())))
    scope = {"image": image}
    exec(compile(block, "README.md", "exec"), scope)
    assert scope["labels"].shape == image.shape


def test_the_architecture_names_every_module():
    table = (
        (folders.ROOT / "docs" / "architecture.md")
        .read_text(encoding="utf-8")
        .split("## Packages")[1]
        .split("\n## ")[0]
    )
    named = set(
        re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `")))
    )
    packages = [
        path for path in (folders.ROOT / "sonogravity").iterdir() if path.is_dir() and path.name != "__pycache__"
    ]
    assert {path.stem for package in packages for path in package.glob("[a-z]*.py")} == named
