"""How threads wait: briefly in the scripts, as the user says where the user says it, and never by an import."""

import os
import subprocess
import sys

import pytest

from sonogravity.common import folders, threads

LOADED = "import sys, os; sys.argv = ['x']\n{}\nimport torch; print({{k: os.environ.get(k) for k in {!r}}})"
SCRIPT = """
from unet import predict
try:
    predict.main(["--no-such-option"])
except SystemExit:
    pass
"""


def waiting(code, **variables):
    """The variables of the runtime as a new process has them when it loads torch, and what GNU's runtime took up."""
    clean = {name: value for name, value in os.environ.items() if name not in threads.USERS_OWN}
    found = subprocess.run(
        [sys.executable, "-c", LOADED.format(code, threads.USERS_OWN)],
        env={**clean, **variables, "OMP_DISPLAY_ENV": "VERBOSE"},
        cwd=folders.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return eval(found.stdout), found.stderr


def test_a_script_s_threads_wait_briefly():
    found, runtime = waiting(SCRIPT)
    assert found == {**threads.WAITING, "OMP_WAIT_POLICY": None}
    if "GOMP_SPINCOUNT" in runtime:  # torch with another runtime does not show it
        assert f"GOMP_SPINCOUNT = '{threads.WAITING['GOMP_SPINCOUNT']}'" in runtime


@pytest.mark.parametrize(
    ("name", "value"), [("GOMP_SPINCOUNT", "7"), ("KMP_BLOCKTIME", "3"), ("OMP_WAIT_POLICY", "ACTIVE")]
)
def test_what_the_user_sets_stays(name, value):
    found, _ = waiting(SCRIPT, **{name: value})
    assert found == {**dict.fromkeys(threads.USERS_OWN), name: value}


@pytest.mark.parametrize("code", ["import sonogravity", "from unet import train", "import torch, unet.predict"])
def test_an_import_changes_nothing(code):
    assert waiting(code)[0] == dict.fromkeys(threads.USERS_OWN)


def test_once_torch_is_loaded_nothing_is_set():
    assert waiting(f"import torch{SCRIPT}")[0] == dict.fromkeys(threads.USERS_OWN)


@pytest.mark.parametrize(("load", "said"), [(1.01, True), (0.99, False)])
def test_a_busy_processor_is_said(load, said, monkeypatch, capsys):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 9, 9), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    threads.say_if_busy()
    out = capsys.readouterr().out
    assert bool(out) == said and ("load average 1.0 on 2 cores" in out) == said
