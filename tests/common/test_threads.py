"""How threads wait: briefly in the scripts, as the user says where the user says it, and never by an import."""

import os
import subprocess
import sys
import time

import pytest

from sonogravity.common import folders, threads

LOADED = "import sys, os\n{}\nprint({{k: os.environ.get(k) for k in {!r}}})"
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
    for others in (False, True):
        found, runtime = waiting(
            f"from sonogravity.common import threads; threads._others_run = lambda: {others}{SCRIPT}"
        )
        expected = threads.BESIDE_OTHERS if others else threads.ALONE
        assert found == {**expected, "OMP_WAIT_POLICY": None}
        if "GOMP_SPINCOUNT" in runtime:  # torch with another runtime does not show it
            assert f"GOMP_SPINCOUNT = '{expected['GOMP_SPINCOUNT']}'" in runtime


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells what runs")
def test_other_programs_on_the_processor_are_noticed():
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() + 1)]
    try:
        limit = time.monotonic() + 30
        while not threads._others_run():  # they may still be starting
            assert time.monotonic() < limit
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_a_quiet_or_unknown_processor(monkeypatch, tmp_path):
    stat = tmp_path / "stat"
    monkeypatch.setattr(threads, "STAT", stat)
    for content, others in (("cpu 1 2\nprocs_running 1\n", False), ("procs_running 2\n", True), ("cpu 1\n", False)):
        stat.write_text(content)
        assert threads._others_run() == others
    stat.unlink()
    assert not threads._others_run()


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


@pytest.mark.parametrize(("load", "others", "said"), [(1.01, True, True), (0.99, True, False), (1.01, False, False)])
def test_other_programs_are_mentioned_once(load, others, said, monkeypatch, capsys):
    """But not the load of an earlier run, which the average still shows."""
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 9, 9), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(threads, "_others_run", lambda: others)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")  # so that nothing is set in this process
    threads.wait_briefly()
    for _ in range(2):
        threads.say_if_busy()
    out = capsys.readouterr().out
    assert out.count("other programs use it (load average 1.0 on 2 cores)") == said and bool(out) == said
