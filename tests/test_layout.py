"""The structure that must not drift: who imports whom, and how long things are."""

import ast
import re
import subprocess
import sys

import pytest

from sonogravity.common import folders

PACKAGES = ("sonogravity", "unet", "deeplab")
SOURCES = [path for name in PACKAGES for path in sorted((folders.ROOT / name).rglob("*.py"))]
SCRIPTS = ("train", "evaluate", "evaluate_w_margin", "predict", "predict_w_margin", "export")
NO_TORCH = (
    "datasets.labels",
    "datasets.pairs",
    "datasets.spacing",
    "datasets.subjects",
    "metrics.overlap",
    "metrics.summary",
    "metrics.boundary",
    "metrics.margin",
    "metrics.file_scores",
    "metrics.columns",
    "reporting.workbook",
    "reporting.output_folder",
    "reporting.write_queue",
    "training.stored_options",
    "commands.options",
    "commands.script",
)


def imports(path):
    """Dotted names of all that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_who_may_import_whom(path):
    package = path.relative_to(folders.ROOT).parts[0]
    barred = [other for other in PACKAGES if other not in (package, "sonogravity")]
    for name in imports(path):
        assert name.split(".")[0] not in barred, f"{path} imports {name}"
        parts = name.split(".")
        assert not (parts[0] in ("unet", "deeplab") and parts[-1] in SCRIPTS), f"{path} imports the script {name}"


@pytest.mark.parametrize("name", NO_TORCH)
def test_no_torch_comes_with(name):
    code = f"import sys, sonogravity.{name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_importing_does_no_work(path):
    """At module level stand only imports, definitions, constants, and the call under ``__main__``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{path} says nothing of what it is for"
    allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for node in tree.body[1:]:
        guarded = isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
        assert isinstance(node, allowed) or guarded, f"{path}:{node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_files_stay_short(path):
    limit = 120 if path.stem in SCRIPTS else 320
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limit


@pytest.mark.parametrize(
    "script",
    [*(f"unet/{name}.py" for name in SCRIPTS if name != "export"), "deeplab/train.py", "data/make_phantom.py"],
)
def test_help_needs_no_torch(script):
    path = folders.ROOT / script
    code = (
        f"import runpy, sys\nsys.argv = ['x', '--help']\n"
        f"try:\n    runpy.run_path({str(path)!r}, run_name='__main__')\n"
        "except SystemExit as stop:\n    sys.exit(bool(stop.code) or 'torch' in sys.modules)\nsys.exit(3)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout and "example:" in done.stdout


def test_every_promise_of_the_readme_names_its_tests():
    section = (folders.ROOT / "README.md").read_text(encoding="utf-8").split("## What is promised")[1].split("\n## ")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| ") and "held by" not in line]
    defined = "\n".join(path.read_text(encoding="utf-8") for path in (folders.ROOT / "tests").rglob("test_*.py"))
    assert len(rows) >= 10
    for row in rows:
        names = re.findall(r"`(test_\w+)`", row[2])
        assert names, f"no test holds: {row[1]}"
        for name in names:
            assert f"def {name}(" in defined, f"{name} is no test"
