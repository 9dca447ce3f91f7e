"""Of all that want a folder one has it, whatever the moment; and no claim outlives its process for good."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest

from sonogravity.common import claims, files
from sonogravity.common.claims import claim_file, claim_folder, claim_name
from sonogravity.common.file_names import IN_USE
from sonogravity.common.messages import InputError

PROCESSES, ROUNDS = 8, 20
HOLD = """
import os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored if the tests run in the background
from sonogravity.common.claims import claim_folder
with claim_folder(Path(sys.argv[1])):
    if sys.argv[2] == "forked" and os.fork() == 0:  # as a worker process of the data loader, which may live longer
        time.sleep(3)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder, *more):
    """A process that has the folder."""
    line = [sys.executable, "-c", HOLD, str(folder), *more]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def leave_claim(folder, **changed):
    """A claim without a lock, as of a process that is no more; by default of this machine."""
    folder.mkdir(exist_ok=True)
    (folder / IN_USE).write_text(json.dumps({**claims._describe_self(), "process": 1, **changed}))


def race(root, barrier, outcomes):
    for number in range(ROUNDS):
        folder = root / f"round_{number}"
        barrier.wait()
        with ExitStack() as held:
            try:
                held.enter_context(claim_folder(folder))
                won = True
            except InputError:
                won = False
            barrier.wait()  # all have tried
            alone = (folder / IN_USE).is_file()
            barrier.wait()
        barrier.wait()  # released
        outcomes.put((number, won, alone, (folder / IN_USE).exists()))


@pytest.mark.parametrize("stale", [False, True], ids=["no claim", "a claim of a dead process"])
def test_of_many_processes_exactly_one_has_the_folder(tmp_path, stale):
    if stale:
        for number in range(ROUNDS):
            leave_claim(tmp_path / f"round_{number}")
    context = multiprocessing.get_context("spawn")
    barrier, outcomes = context.Barrier(PROCESSES, timeout=60), context.Queue()
    started = [context.Process(target=race, args=(tmp_path, barrier, outcomes), daemon=True) for _ in range(PROCESSES)]
    for process in started:
        process.start()
    found = [outcomes.get(timeout=120) for _ in range(PROCESSES * ROUNDS)]
    for process in started:
        process.join()
    assert sorted(number for number, won, _, _ in found if won) == list(range(ROUNDS))
    assert all(alone and not left for _, _, alone, left in found)
    assert not list(tmp_path.rglob(".*"))


def test_of_many_threads_exactly_one_has_the_folder(tmp_path):
    barrier, won = threading.Barrier(PROCESSES), []

    def attempt():
        barrier.wait()
        with ExitStack() as held:
            try:
                held.enter_context(claim_folder(tmp_path / "f"))
                won.append(1)
            except InputError as error:
                assert f"process {os.getpid()} on" in str(error)
            barrier.wait()

    threads = [threading.Thread(target=attempt) for _ in range(PROCESSES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [1] and list(tmp_path.iterdir()) == []


def test_a_live_claim_is_refused_with_its_process_and_released_at_the_end(tmp_path):
    process = holder(tmp_path / "f", "alone")
    with pytest.raises(InputError) as refused, claim_folder(tmp_path / "f", ", or give another --name"):
        pass
    line = str(refused.value)
    assert f"{tmp_path / 'f'}: is in use by process {process.pid} on " in line
    assert "wait until it has ended, or give another --name" in line and "delete" not in line
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert not (tmp_path / "f").exists()


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
@pytest.mark.parametrize("workers", ["alone", "forked"])
def test_the_claim_of_a_killed_process_is_taken_over_with_a_word(tmp_path, capsys, workers):
    process = holder(tmp_path / "f", workers)
    process.kill()
    process.wait()
    assert (tmp_path / "f" / IN_USE).exists()
    with claim_folder(tmp_path / "f"):
        assert f"process {process.pid}, which used it since 2" in capsys.readouterr().out
        owner = json.loads((tmp_path / "f" / IN_USE).read_text())
        assert owner["process"] == os.getpid()
    assert list((tmp_path / "f").iterdir()) == []


def taken_over(folder):
    """Whether the claim that is left in a folder becomes ours."""
    with claim_folder(folder):
        return json.loads((folder / IN_USE).read_text())["process"] == os.getpid()


def test_the_number_of_a_dead_process_may_be_in_use_again(tmp_path):
    leave_claim(tmp_path / "f", process=os.getppid())
    assert taken_over(tmp_path / "f")


def test_a_claim_of_another_machine_is_refused_until_it_is_deleted(tmp_path):
    leave_claim(
        tmp_path / "f", host="elsewhere", boot="other", machine="other", process=4711, since="2026-01-02 03:04:05+00:00"
    )
    with pytest.raises(InputError) as refused, claim_folder(tmp_path / "f"):
        pass
    line = str(refused.value)
    assert "in use by process 4711 on elsewhere, since 2026-01-02 03:04:05+00:00; wait" in line
    remedy = tmp_path / "f" / IN_USE
    assert line.endswith(f"if that process no longer runs, delete {remedy}")
    remedy.unlink()
    with claim_folder(tmp_path / "f"):
        pass


def test_a_container_of_the_same_machine_is_no_other_machine(tmp_path):
    if not claims._describe_self()["boot"]:
        pytest.skip("this system does not number its starts")
    leave_claim(tmp_path / "f", host="3f2a9c", machine="other")
    assert taken_over(tmp_path / "f")


def test_a_machine_that_was_restarted_is_the_same_and_a_copy_of_it_is_not(tmp_path):
    leave_claim(tmp_path / "restarted", boot="other")
    assert taken_over(tmp_path / "restarted")
    leave_claim(tmp_path / "copied", boot="other", host="elsewhere")
    with pytest.raises(InputError, match="on elsewhere, since"), claim_folder(tmp_path / "copied"):
        pass


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"host": "x"}'])
def test_a_claim_that_names_no_process_is_refused_with_the_remedy(tmp_path, monkeypatch, content):
    monkeypatch.setattr(claims, "TRIES", 3)
    (tmp_path / IN_USE).write_text(content)
    with (
        pytest.raises(InputError, match=r"an unknown process; wait until .* delete .*\.in_use$"),
        claim_folder(tmp_path),
    ):
        pass


def test_a_claim_of_another_user_is_not_taken_over(tmp_path, monkeypatch):
    leave_claim(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match=r"in use by process 1 .*; if that process no longer runs, delete"):
        claim_folder(tmp_path).__enter__()


def test_without_locks_a_claim_excludes_and_only_its_deletion_frees_it(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "_lock", lambda descriptor: None)
    with claim_folder(tmp_path / "f"):
        monkeypatch.setattr(claims, "_HELD", set())  # as seen by another process
        monkeypatch.setattr(os, "getpid", lambda: 4711)
        with pytest.raises(InputError, match=r"if that process no longer runs, delete"):
            claim_folder(tmp_path / "f").__enter__()
        monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_without_links_a_claim_is_as_exclusive(tmp_path, monkeypatch):
    def refuse(*names):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    with claim_folder(tmp_path / "f"), pytest.raises(FileExistsError):
        assert json.loads((tmp_path / "f" / IN_USE).read_text())["process"] == os.getpid()
        with files.whole(tmp_path / "f" / IN_USE, new=True) as beside:
            beside.write_text("{}")
    assert list(tmp_path.iterdir()) == []


def test_only_empty_folders_that_the_claim_made_are_removed(tmp_path):
    (tmp_path / "mine").mkdir()
    with claim_folder(tmp_path / "mine"), claim_folder(tmp_path / "a" / "b"):
        (tmp_path / "a" / "result.txt").write_text("kept")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "mine", "result.txt"]


def test_a_claim_deleted_by_hand_and_taken_by_another_is_left_to_it(tmp_path):
    with claim_folder(tmp_path):
        (tmp_path / IN_USE).unlink()
        leave_claim(tmp_path, process=4711)
    assert json.loads((tmp_path / IN_USE).read_text())["process"] == 4711


def test_the_claim_of_a_file_lies_beside_it(tmp_path):
    path = tmp_path / ("long" * 60)
    with claim_file(path):
        [claim] = tmp_path.iterdir()
        assert files.is_litter(claim.name) and claim.name.endswith(IN_USE)
        with claim_file(tmp_path / "other"), claim_folder(tmp_path):
            pass
        with pytest.raises(InputError, match="long: is in use"), claim_file(path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_is_numbered_unless_it_was_given(tmp_path):
    def enter(name, held):
        held.enter_context(claim_folder(tmp_path / name))

    first, held = claim_name("run", False, enter)
    with held:
        second, also_held = claim_name("run", False, enter)
        with also_held, pytest.raises(InputError, match="run: is in use"):
            claim_name("run", True, enter)
    assert (first, second) == ("run", "run_2") and list(tmp_path.iterdir()) == []
