"""The structure that must not drift: who imports whom, and how long things are."""

import ast
import graphlib
import re
import subprocess
import sys

import pytest

from sonogravity import models
from sonogravity.common import folders

PACKAGES = ("sonogravity", *models.MODELS)
SOURCES = [path for name in PACKAGES for path in sorted((folders.ROOT / name).rglob("*.py"))]
SCRIPTS = ("train", "evaluate", "evaluate_w_margin", "predict", "predict_w_margin", "export", "live")
SCRIPT_LINES, TRAIN_SCRIPT_LINES, MODULE_LINES, MOST_PARAMETERS = 120, 165, 300, 9
FUNCTION_LINES, TRAIN_LINES = 60, 80
# A package imports packages of lower floors only; those of one floor do not import each other.
FLOORS = {
    "common": 0,
    "datasets": 1,
    "metrics": 2,
    "modeling": 2,
    "inference": 3,
    "reporting": 3,
    "training": 4,
    "live": 4,
    "commands": 5,
}
ABOVE_ALL = {
    "sonogravity",
    "sonogravity.models",
    "sonogravity.compare",
    "sonogravity.convert",
}  # open doors, imported by nothing inside
TORCH = {"metrics.confidence"}  # in metrics; everything else there and below does without
NO_TORCH = (
    "datasets.labels",
    "datasets.pairs",
    "datasets.spacing",
    "datasets.subjects",
    "reporting.workbook",
    "reporting.output_folder",
    "reporting.write_queue",
    "training.stored_options",
    "commands.options",
    "commands.scoring_options",
    "commands.live_options",
    "commands.training_options",
    "commands.script",
    "commands.convert",
)
# What may be imported inside a function: slow, or installed by an extra.
SLOW_OR_OPTIONAL = {
    *("torch", "pandas", "scipy", "matplotlib", "onnx", "onnxruntime", "openvino", "nncf", "google"),
    *("pydicom", "av", "tifffile", "SimpleITK", "aiohttp"),
}


def name_of(path):
    """The dotted name of a module."""
    parts = path.relative_to(folders.ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in SOURCES}
by_module = pytest.mark.parametrize("name", MODULES)


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def names_in(node):
    """Dotted names that one import statement may mean."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]


def imports(path):
    """All names that a file imports, anywhere in it."""
    nodes = [node for node in ast.walk(tree_of(path)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert not [node for node in nodes if getattr(node, "level", 0)], f"{path}: a relative import"
    return [name for node in nodes for name in names_in(node)]


def own_imports(name):
    """The modules of the repository that a module imports, wherever the statement stands."""
    found = {each for each in imports(MODULES[name]) if each in MODULES}
    # Of "from package import module" only the module counts.
    return {each for each in found if not any(other.startswith(f"{each}.") for other in found)} - {name}


def functions_of(path):
    return [node for node in ast.walk(tree_of(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def inside_functions(path):
    """Names imported inside functions."""
    for function in functions_of(path):
        for node in ast.walk(function):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                yield names_in(node)[0]


def parameters_of(function):
    """How many parameters a function has, ``self`` and ``cls`` apart."""
    arguments = function.args
    named = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([each for each in named if each not in ("self", "cls")])


@by_module
def test_models_and_scripts_are_imported_by_nobody_else(name):
    package = name.split(".")[0]
    for each in imports(MODULES[name]):
        parts = each.split(".")
        assert parts[0] not in models.MODELS or parts[0] == package, f"{name} imports {each}"
        assert parts[0] not in models.MODELS or parts[-1] not in SCRIPTS, f"{name} imports the script {each}"


@pytest.mark.parametrize("name", [name for name in MODULES if name.count(".") >= 2])
def test_imports_lead_downwards_only(name):
    package = name.split(".")[1]
    for each in own_imports(name):
        assert each not in ABOVE_ALL, f"{name} imports {each}"
        other = each.split(".")[1]
        assert other == package or FLOORS[other] < FLOORS[package], f"{name} imports {each}, which is not below it"


def test_there_is_no_circle():
    graph = {name: own_imports(name) for name in MODULES}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(MODULES)


@by_module
def test_imports_inside_functions_are_of_slow_or_optional_libraries(name):
    """A script imports what needs torch after its options are parsed, and the package's door when it is asked to."""
    script = name.split(".")[-1] in SCRIPTS and name.split(".")[0] in models.MODELS
    if not script and name != "sonogravity":
        assert {each.split(".")[0] for each in inside_functions(MODULES[name])} <= SLOW_OR_OPTIONAL, name


def test_the_rules_catch_what_they_forbid(tmp_path):
    file = tmp_path / "module.py"
    file.write_text("import os\ndef f(a, *, b=1):\n    from sonogravity.training import run\n    import torch\n")
    assert imports(file) == ["os", "sonogravity.training", "sonogravity.training.run", "torch"]
    assert list(inside_functions(file)) == ["sonogravity.training", "torch"]
    assert [parameters_of(function) for function in functions_of(file)] == [2]
    assert own_imports("sonogravity.training.run") >= {"sonogravity.common.files", "sonogravity.modeling.checkpoints"}


@pytest.mark.parametrize(
    "name",
    [*NO_TORCH, *(f"metrics.{path.stem}" for path in (folders.ROOT / "sonogravity" / "metrics").glob("[a-z]*.py"))],
)
def test_no_torch_comes_with(name):
    code = f"import sys, sonogravity.{name}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert (done.returncode == 0) == (name not in TORCH)


@by_module
def test_importing_does_no_work(name):
    """At module level stand only imports, definitions, constants, and the call under ``__main__``."""
    tree = tree_of(MODULES[name])
    assert ast.get_docstring(tree), f"{name} says nothing of what it is for"
    allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef)
    allowed += (ast.ClassDef, ast.Assign, ast.AnnAssign)
    for node in tree.body[1:]:
        guarded = isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
        assert isinstance(node, allowed) or guarded, f"{name}:{node.lineno}"


@by_module
def test_modules_and_functions_stay_short(name):
    path, script, train = MODULES[name], name.split(".")[0] in models.MODELS, name.endswith(".train")
    limit = TRAIN_SCRIPT_LINES if train else SCRIPT_LINES if name.split(".")[-1] in SCRIPTS and script else MODULE_LINES
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limit
    for function in functions_of(path):
        length = function.end_lineno - function.lineno + 1
        assert length <= (TRAIN_LINES if train else FUNCTION_LINES), f"{name}.{function.name} has {length} lines"
        assert parameters_of(function) <= MOST_PARAMETERS, f"{name}.{function.name}"


def lines_of_the_loop(path):
    """The epoch loop in a train.py: from the run's context to its end."""
    [loop] = [
        node for node in ast.walk(tree_of(path)) if isinstance(node, ast.With) and "run" in ast.unparse(node.items)
    ]
    return ast.unparse(loop)


def test_the_epoch_loop_stands_in_every_train_script_in_the_same_lines():
    loops = {lines_of_the_loop(folders.ROOT / name / "train.py") for name in models.MODELS}
    assert len(loops) == 1
    for call in ("train_one_epoch(", "validate(", "run.record(", "run.save_epoch("):
        assert call in loops.copy().pop()


@pytest.mark.parametrize(
    "script",
    [*(f"{model}/{name}.py" for model in models.MODELS for name in SCRIPTS), "data/make_phantom.py"],
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


def test_every_promise_names_its_tests():
    section = (
        (folders.ROOT / "docs" / "guarantees.md")
        .read_text(encoding="utf-8")
        .split("## What is promised")[1]
        .split("\n## ")[0]
    )
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| ") and "| tests |" not in line]
    defined = "\n".join(path.read_text(encoding="utf-8") for path in (folders.ROOT / "tests").rglob("test_*.py"))
    assert len(rows) >= 10
    for row in rows:
        names = re.findall(r"`(test_\w+)`", row[2])
        assert names, f"no test holds: {row[1]}"
        for name in names:
            assert f"def {name}(" in defined, f"{name} is no test"
