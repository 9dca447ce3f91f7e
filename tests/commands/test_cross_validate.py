"""Cross-validation: folds part subjects, every frame is scored once, and one workbook holds it all."""

import json
import math
import re
import shutil
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from conftest import make_folder, train_arguments
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import load_workbook

from sonogravity.commands import cross_validate
from sonogravity.datasets import loader, opening
from sonogravity.datasets.labels import Labels
from sonogravity.datasets.subjects import assign_folds
from sonogravity.metrics.summary import group_means
from sonogravity.modeling import checkpoints
from sonogravity.training import steps
from unet import evaluate, train
from unet.model import UNet

SUBJECTS = ("A", "B", "C", "D")


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1), st.integers(1, 8))
def test_every_subject_is_in_one_fold_and_none_is_empty(subjects, count):
    count = min(count, len(set(subjects)))
    assigned = assign_folds(subjects, count)
    assert set(assigned) == set(subjects)
    assert set(assigned.values()) == set(range(1, count + 1))
    assert assign_folds(subjects[::-1], count) == assigned  # the order of files changes nothing


def test_folds_are_as_even_as_whole_subjects_allow():
    assigned = assign_folds(["a"] * 6 + ["b"] * 5 + ["c"] * 4 + ["d"] * 3, 2)
    assert assigned == {"a": 1, "b": 2, "c": 2, "d": 1}


def test_group_means_count_groups_alike():
    labels = Labels.create([0, 1])
    clean = {"missed": "", "spurious": ""}
    rows = [
        {"fold": 1, "dice": 0.5, "dice_1": 0.5, **clean},
        {"fold": 1, "dice": 0.7, "dice_1": 0.7, **clean},
        {"fold": 2, "dice": 0.9, "dice_1": np.nan, **clean},
    ]
    table = group_means(rows, "fold", labels, ["dice"])
    assert [row["fold"] for row in table] == [1, 2, "mean", "sd"]
    assert [row["files"] for row in table] == [2, 1, 3, 3]
    np.testing.assert_allclose([row["dice"] for row in table], [0.6, 0.9, 0.75, 0.3 / np.sqrt(2)])
    np.testing.assert_allclose([row["dice_1"] for row in table], [0.6, np.nan, 0.6, np.nan])
    assert [row["n_dice"] for row in table] == [2, 1, 2, 2]
    assert [row["n_dice_1"] for row in table] == [2, 0, 1, 1]


def test_group_means_say_what_they_leave_out():
    labels = Labels.create([0, 1, 2])
    rows = [
        {
            "fold": 1,
            "assd_px": math.nan,
            "assd_px_1": math.nan,
            "assd_px_2": math.nan,
            "missed": "1, 2",
            "spurious": "",
        },
        {"fold": 1, "assd_px": 3.0, "assd_px_1": 3.0, "assd_px_2": math.nan, "missed": "", "spurious": "2"},
    ]
    found = group_means(rows, "fold", labels, ["assd_px"])[0]
    assert (found["assd_px"], found["n_assd_px"]) == (3, 1)
    assert [found[name] for name in ("missed", "missed_1", "missed_2")] == [2, 1, 1]
    assert [found[name] for name in ("spurious", "spurious_1", "spurious_2")] == [1, 0, 1]


@pytest.fixture(scope="module")
def crossvalidated(tmp_path_factory):
    """All three folds of four subjects, trained by one command."""
    root = tmp_path_factory.mktemp("folds")
    make_folder(root / "train", subjects=SUBJECTS, frames=6)
    trained_on = []  # by each fold's run
    init = loader.TrainingFrames.__init__

    def remember(self, store, *more):
        trained_on.append({pair.image.name for pair in store.pairs})
        init(self, store, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader.TrainingFrames, "__init__", remember)
        assert train.main(command(root)) == 0
    (root / "trained_on.json").write_text(json.dumps([sorted(names) for names in trained_on]))
    return root


def command(root, *more):
    learns = ["--epochs", 6, "--base-channels", 8, "--loss", "ce+dice", "--no-augment"]
    return train_arguments(root / "train", root / "no validation", root, "--folds", 3, *learns, *more)


def test_no_frame_is_scored_by_a_run_that_trained_on_its_subject(crossvalidated):
    trained_on = json.loads((crossvalidated / "trained_on.json").read_text())
    joint = pd.read_csv(crossvalidated / "results/unet/run_folds/files.csv")
    assert len(trained_on) == 3
    for fold, names in enumerate(trained_on, 1):
        scored = joint[joint.fold == fold]
        assert not {name.split("_")[0] for name in names} & set(scored.subject)
        assert {*names, *scored.file} == set(joint.file)


def test_every_fold_is_a_run_with_all_frames_in_training_or_validation(crossvalidated):
    seen = Counter()
    for fold in (1, 2, 3):
        settings = json.loads((crossvalidated / "results/unet" / f"run_fold_{fold}" / "settings.json").read_text())
        assert settings["options"]["fold"] == fold
        assert settings["data"]["training"] + settings["data"]["validation"] == 24
        seen[settings["data"]["validation"]] += 1
    assert seen == {6: 2, 12: 1}


def test_the_joint_scores_are_those_of_each_folds_last_weights(crossvalidated, tmp_path):
    joint = pd.read_csv(crossvalidated / "results/unet/run_folds/files.csv", index_col="file")
    assert len(joint) == 24 and list(joint.columns[:2]) == ["fold", "subject"]
    assert joint.groupby("subject").fold.nunique().max() == 1  # a subject is in one fold
    assert joint["dice"].nunique() > 8  # the weights have learned something, so those of another fold score otherwise
    for fold, own in joint.groupby("fold"):
        assert own.subject.nunique() in (1, 2)
        last = crossvalidated / "checkpoints/unet" / f"run_fold_{fold}" / "last.pth"
        images, masks = ([crossvalidated / "train" / kind / name for name in own.index] for kind in ("images", "masks"))
        folder = tmp_path / str(fold)
        for kind, paths in (("images", images), ("masks", masks)):
            (folder / kind).mkdir(parents=True)
            for path in paths:
                shutil.copy(path, folder / kind)
        assert evaluate.main(["--load", str(last), "--input", str(folder), "--output", str(tmp_path / f"o{fold}")]) == 0
        alone = pd.read_csv(tmp_path / f"o{fold}" / "files.csv", index_col="file").loc[own.index]
        np.testing.assert_allclose(own["dice"], alone["dice"], atol=1e-6)


def test_the_workbook_sums_up_by_fold_and_by_subject(crossvalidated):
    folder = crossvalidated / "results/unet/run_folds"
    joint = pd.read_csv(folder / "files.csv")
    book = load_workbook(folder / "files.xlsx")
    for by, names in (("fold", [1, 2, 3]), ("subject", list(SUBJECTS))):
        rows = list(book[f"By {by}"].values)
        table = pd.DataFrame(rows[1:], columns=rows[0]).set_index(by)
        assert list(table.index) == [*names, "mean", "sd"]
        expected = joint.groupby(by)["dice"].mean()
        np.testing.assert_allclose(table["dice"].iloc[:-2].astype(float), expected)
        assert table["dice"]["mean"] == pytest.approx(expected.mean())
        assert table["dice"]["sd"] == pytest.approx(expected.std(ddof=1))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["metrics"]["dice"]["mean"] == pytest.approx(joint["dice"].mean())
    assert [row["fold"] for row in summary["groups"]["fold"]] == [1, 2, 3, "mean", "sd"]
    definitions = list(book["Definitions"].values)
    assert {"fold", "subject"} <= {row[0] for row in definitions}
    assert any("n_<metric>" in str(row[1]) for row in definitions)


def test_the_same_command_goes_on_where_it_was_stopped(crossvalidated, tmp_path, capsys):
    root = tmp_path / "copy"
    shutil.copytree(crossvalidated, root)
    whole = checkpoints.load(root / "checkpoints/unet/run_fold_3/last.pth", UNet).state_dict
    for kind in ("checkpoints", "results"):
        shutil.rmtree(root / kind / "unet" / "run_fold_3")
    assert train.main(command(root)) == 0
    said = capsys.readouterr().out
    assert "run exists: resumes from" in said
    *_, mean, sd = json.loads((root / "results/unet/run_folds/summary.json").read_text())["groups"]["fold"]
    assert f"Dice over 3 folds: mean {mean['dice']:.4f}, standard deviation {sd['dice']:.4f}" in said
    again = checkpoints.load(root / "checkpoints/unet/run_fold_3/last.pth", UNet).state_dict
    assert all((again[key] == value).all() for key, value in whole.items())


def test_a_fold_stopped_in_training_goes_on_to_the_same_weights(crossvalidated, tmp_path, monkeypatch, capsys):
    for part in ("train", "checkpoints/unet/run_fold_1", "results/unet/run_fold_1"):  # the first fold is complete
        shutil.copytree(crossvalidated / part, tmp_path / part)
    validate, calls = steps.validate, []

    def stopped(*args):
        calls.append(args)
        if len(calls) == 3:  # in the third epoch of the second fold
            raise KeyboardInterrupt
        return validate(*args)

    with monkeypatch.context() as patch:
        patch.setattr(steps, "validate", stopped)
        with pytest.raises(SystemExit):
            train.main(command(tmp_path))
    assert train.main(command(tmp_path)) == 0
    assert "run exists: resumes from" in capsys.readouterr().out
    for fold in (1, 2, 3):
        one, other = (
            checkpoints.load(root / "checkpoints/unet" / f"run_fold_{fold}" / "last.pth", UNet).state_dict
            for root in (tmp_path, crossvalidated)
        )
        assert all((one[key] == value).all() for key, value in other.items())


def test_one_fold_alone(crossvalidated, tmp_path):
    shutil.copytree(crossvalidated / "train", tmp_path / "train")
    assert train.main(command(tmp_path, "--fold", 2)) == 0
    assert [path.name for path in (tmp_path / "results/unet").iterdir()] == ["run_fold_2"]
    one, all_of_them = (
        checkpoints.load(root / "checkpoints/unet/run_fold_2/last.pth", UNet).state_dict
        for root in (tmp_path, crossvalidated)
    )
    assert all((one[key] == value).all() for key, value in all_of_them.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--folds", 5], "has 4 subjects"),
        (["--folds", 1], "at least 2"),
        (["--fold", 4], "a fold from 1 to K"),
        (["--subject-regex", "X(.)"], "give no subject"),
        (["--resume", "last.pth"], "leave --folds out"),
    ],
)
def test_wrong_folds_are_refused(crossvalidated, tmp_path, refused, options, message):
    shutil.copytree(crossvalidated / "train", tmp_path / "train")
    assert message in refused(train.main, command(tmp_path, *options))
    assert not (tmp_path / "checkpoints").exists()


def test_a_fold_without_folds_is_refused(sets, tmp_path, refused):
    assert "--folds" in refused(train.main, train_arguments(*sets, tmp_path, "--fold", 1))


def test_options_that_contradict_a_begun_fold_are_refused(crossvalidated, refused):
    assert "--learning-rate 0.5 contradicts" in refused(train.main, command(crossvalidated, "--learning-rate", "0.5"))


@pytest.mark.parametrize(
    ("begun", "message"),
    [
        (["--subject-regex", "^(.)_"], "--subject-regex None contradicts"),
        (["--loss", "ce"], "--loss ce+dice contradicts"),
    ],
)
def test_folds_begun_with_other_options_are_not_scored_together(crossvalidated, tmp_path, refused, begun, message):
    shutil.copytree(crossvalidated / "train", tmp_path / "train")
    assert train.main(command(tmp_path, "--epochs", 1, "--fold", 1, *begun)) == 0
    assert message in refused(train.main, command(tmp_path, "--epochs", 1))
    assert not (tmp_path / "results/unet/run_folds").exists()


def test_a_folder_that_is_taken_is_found_before_training(crossvalidated, tmp_path, refused):
    shutil.copytree(crossvalidated / "train", tmp_path / "train")
    taken = tmp_path / "results/unet/run_folds/epochs.csv"
    taken.parent.mkdir(parents=True)
    taken.write_text("of a run of that name")
    said = refused(train.main, command(tmp_path))
    assert "epochs.csv" in said and "--name" in said
    assert not (tmp_path / "checkpoints").exists()


def test_a_cross_validation_without_a_name_says_how_to_go_on(crossvalidated, tmp_path, capsys):
    shutil.copytree(crossvalidated / "train", tmp_path / "train")
    given = command(tmp_path, "--check")
    at = given.index("--name")
    assert train.main([*given[:at], *given[at + 2 :]]) == 0
    said = capsys.readouterr().out
    assert re.search(r"same command with --name (\S+) resumes it", said)[1] + "_fold_1" in said


def test_weights_that_may_know_the_subjects_are_pointed_out(crossvalidated, tmp_path, capsys):
    shutil.copytree(crossvalidated / "train", tmp_path / "train")
    last = crossvalidated / "checkpoints/unet/run_fold_1/last.pth"
    assert train.main(command(tmp_path, "--load", last, "--check")) == 0
    assert "last.pth was trained on any of these subjects" in capsys.readouterr().err


def test_the_folds_are_printed_before_training(crossvalidated, capsys):
    assert train.main(command(crossvalidated, "--fold", 1, "--check")) == 0
    printed = capsys.readouterr().out
    assert all(f"{subject} (6)" in printed for subject in SUBJECTS)
    assert "fold 1 is validation" in printed


def test_the_data_are_inspected_once(crossvalidated, tmp_path, capsys, monkeypatch):
    """That the folds are trained as each alone is test_one_fold_alone's."""
    shutil.copytree(crossvalidated / "train", tmp_path / "train")
    reviews, real = [], opening.find_suspects
    monkeypatch.setattr(opening, "find_suspects", lambda *given: reviews.append(1) or real(*given))
    assert train.main(command(tmp_path, "--epochs", 1)) == 0
    said = capsys.readouterr().out
    assert len(reviews) == 1
    for word in ("classes:", "training:", "folds:"):
        assert len(re.findall(rf"^{word}", said, re.MULTILINE)) == 1, word
    for fold in (1, 2, 3):
        assert said.count(f"fold {fold} is validation, the rest training") == 1


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_file_that_changes_between_folds_is_noticed(crossvalidated, tmp_path, monkeypatch, refused, kind):
    shutil.copytree(crossvalidated / "train", tmp_path / "train")
    changed, other = sorted((tmp_path / "train" / kind).iterdir())[:2]
    real = opening.look_again

    def change(*given):
        changed.write_bytes(other.read_bytes())
        return real(*given)

    monkeypatch.setattr(opening, "look_again", change)
    assert f"{changed}: has changed since the first fold" in refused(train.main, command(tmp_path, "--epochs", 1))


@pytest.mark.parametrize("when", ["look_again", "score_folds"])
def test_a_frame_that_is_added_between_folds_is_noticed(crossvalidated, tmp_path, monkeypatch, refused, when):
    """Else a subject could be trained on in one fold and scored by that fold's run."""
    shutil.copytree(crossvalidated / "train", tmp_path / "train")
    module = opening if when == "look_again" else cross_validate
    real = getattr(module, when)

    def add(*given):
        for kind in ("images", "masks"):
            shutil.copy(tmp_path / "train" / kind / "A_000.png", tmp_path / "train" / kind / "A_999.png")
        return real(*given)

    monkeypatch.setattr(module, when, add)
    line = refused(train.main, command(tmp_path, "--epochs", 1))
    assert f"{tmp_path / 'train'}: frames were added or removed since the first fold (A_999.png)" in line
