"""The table of two runs side by side."""

import json

import openpyxl
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import wilcoxon

from sonogravity.commands import compare
from sonogravity.datasets.labels import Labels
from sonogravity.reporting import comparison


def write_run(folder, scores, panels=False):
    """files.csv with the given {file: (dice, iou)}, as evaluate.py leaves it."""
    folder.mkdir(parents=True)
    rows = [{"file": file, "dice": d, "iou": i, "dice_128": d, "missed": ""} for file, (d, i) in scores.items()]
    pd.DataFrame(rows).to_csv(folder / "files.csv", index=False)
    if panels:
        (folder / "panels").mkdir()
        for file in scores:
            Image.new("RGB", (300, 100), "navy").save(folder / "panels" / file)
    return folder


@pytest.fixture
def runs(tmp_path):
    """Eight subjects of three frames; the second run is better by 0.01 times the subject's number."""
    files = [(s, f"S{s}_{i:02d}.png") for s in range(1, 9) for i in range(3)]
    one = {file: (0.5 + 0.01 * s, 0.4) for s, file in files}
    other = {file: (0.5 + 0.02 * s, 0.4) for s, file in reversed(files)}
    folders = write_run(tmp_path / "one" / "evaluate", one), write_run(tmp_path / "other" / "predict", other, True)
    return [folder.parent for folder in folders]


def table(sheet):
    rows = list(sheet.iter_rows(values_only=True))
    return pd.DataFrame([row for row in rows[1:] if row[1] is not None], columns=rows[0])


def test_figures_are_per_subject(runs, tmp_path, capsys):
    assert compare.main([*map(str, runs), "--output", str(tmp_path / "c.xlsx")]) == 0
    assert "difference +0.0450" in capsys.readouterr().out
    book = openpyxl.load_workbook(tmp_path / "c.xlsx")
    assert book.sheetnames == ["Summary", "Files", "Subjects", "Disagreements", "Definitions"]
    summary = table(book["Summary"]).set_index("metric")
    dice = summary.loc["dice"]
    assert (dice["reference"], dice["other"], dice["n"], dice["subjects"]) == ("one", "other", 24, 8)
    assert dice["difference"] == pytest.approx(0.045) and dice["other_mean"] == pytest.approx(0.59)
    assert dice["wilcoxon_p"] == pytest.approx(wilcoxon([0.01 * s for s in range(1, 9)]).pvalue)
    assert dice["ci95_low"] < 0.045 < dice["ci95_high"]
    assert summary.loc["iou", "difference"] == 0 and pd.isna(summary.loc["iou", "wilcoxon_p"])
    files = table(book["Files"])
    assert len(files) == 24 and files["dice other - one"].iloc[0] == pytest.approx(0.01)
    assert len(table(book["Subjects"])) == 8
    worst = table(book["Disagreements"])
    assert worst["file"].iloc[0].startswith("S8") and len(book["Disagreements"]._images) == comparison.WORST


def test_few_subjects_are_warned_of(tmp_path, capsys):
    runs = [write_run(tmp_path / name, {"A_1.png": (0.5, 0.4), "B_1.png": (0.6, 0.4)}) for name in "xy"]
    assert compare.main([*map(str, runs), "--output", str(tmp_path / "c.xlsx")]) == 0
    said, error = capsys.readouterr()
    assert (
        "Only 2 subjects" in error
        and "no subject differs, 2 subjects, 2 files with a value in both (of 2 and 2)" in said
    )
    book = openpyxl.load_workbook(tmp_path / "c.xlsx")
    assert "do not differ" in book["Disagreements"]["A1"].value
    assert any("Only 2 subjects" in str(row[0]) for row in book["Summary"].iter_rows(values_only=True))


def test_three_runs_and_a_file_as_run(runs, tmp_path):
    third = write_run(tmp_path / "third", {f"S{s}_{i:02d}.png": (0.9, 0.8) for s in range(1, 9) for i in range(3)})
    given = [*map(str, runs), str(third / "files.csv")]
    assert compare.main([*given, "--output", str(tmp_path / "c.xlsx")]) == 0
    assert set(table(openpyxl.load_workbook(tmp_path / "c.xlsx")["Summary"])["other"]) == {"other", "third"}


def test_what_cannot_be_compared_is_refused(runs, tmp_path, refused):
    assert "two runs" in refused(compare.main, [runs[0]])
    assert "run evaluate.py first" in refused(compare.main, [runs[0], tmp_path / "nothing"])
    apart = write_run(tmp_path / "apart", {"S9_00.png": (0.5, 0.4)})
    assert "no file is scored in both (S1_00.png" in refused(compare.main, [runs[0], apart])
    (tmp_path / "empty").mkdir()
    pd.DataFrame({"file": ["a.png"]}).to_csv(tmp_path / "empty" / "files.csv", index=False)
    assert "no Dice column" in refused(compare.main, [runs[0], tmp_path / "empty"])


@pytest.mark.parametrize("name, content", [("mine.xlsx", None), ("text.xlsx", b"file"), ("keep.csv", b"file")])
def test_a_file_that_it_did_not_write_is_never_replaced(runs, tmp_path, refused, name, content):
    path = tmp_path / name
    if content is None:
        openpyxl.Workbook().save(path)
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    assert f"--output {path}" in refused(compare.main, [*runs, "--output", path])
    assert path.read_bytes() == before


def test_its_own_workbook_is_replaced_with_a_word(runs, tmp_path, capsys):
    for said in (0, 1):
        assert compare.main([*map(str, runs), "--output", str(tmp_path / "c.xlsx")]) == 0
        assert capsys.readouterr().out.count("c.xlsx: holds an earlier comparison, which is replaced") == said


def test_files_without_subjects_have_no_p_value_and_are_not_counted_as_subjects(tmp_path, capsys):
    scores = {f"{word}.png": (0.5 + 0.01 * i, 0.4) for i, word in enumerate("abcdefgh")}
    better = {file: (dice + 0.1, iou) for file, (dice, iou) in scores.items()}
    runs = write_run(tmp_path / "one" / "evaluate", scores), write_run(tmp_path / "other" / "evaluate", better)
    assert compare.main([*map(str, runs), "--output", str(tmp_path / "c.xlsx")]) == 0
    caught = capsys.readouterr()
    assert (
        "files taken as independent, 8 files with a value in both (of 8 and 8)" in caught.out
        and " subjects," not in caught.out
        and "p " not in caught.out
    )
    assert "--subject-regex" in caught.err
    book = openpyxl.load_workbook(tmp_path / "c.xlsx")
    row = table(book["Summary"]).iloc[0]
    assert row["wilcoxon_p"] is None and row["subjects"] is None and row["n"] == 8
    assert "No file has a subject" in book["Subjects"]["A1"].value


def test_a_small_p_is_never_shown_as_0(tmp_path):
    files = [f"S{s:02d}_{i}.png" for s in range(25) for i in range(2)]
    scores = dict.fromkeys(files, (0.5, 0.4))
    better = {file: (0.6 + 0.001 * i, 0.4) for i, file in enumerate(files)}
    runs = write_run(tmp_path / "one" / "evaluate", scores), write_run(tmp_path / "other" / "evaluate", better)
    assert compare.main([*map(str, runs), "--output", str(tmp_path / "c.xlsx")]) == 0
    sheet = openpyxl.load_workbook(tmp_path / "c.xlsx")["Summary"]
    column = [cell.value for cell in sheet[1]].index("wilcoxon_p") + 1
    assert 0 < sheet.cell(2, column).value < 1e-5 and sheet.cell(2, column).number_format == "0.00E+00"


def test_scores_of_another_tolerance_are_left_out_and_said(tmp_path, capsys):
    runs = [write_run(tmp_path / name, {f"S{s}_1.png": (0.5, 0.4) for s in range(8)}) for name in ("plain", "margin")]
    for run, columns in zip(runs, ({"nsd": 0.3}, {"nsd": 0.9, "margin_mm": 1.5}), strict=True):
        pd.read_csv(run / "files.csv").assign(**columns).to_csv(run / "files.csv", index=False)
    assert compare.main([*map(str, runs), "--output", str(tmp_path / "c.xlsx")]) == 0
    line = "not compared, plain and margin: nsd: tolerance of one pixel and 1.5 mm"
    assert line in capsys.readouterr().err
    summary = openpyxl.load_workbook(tmp_path / "c.xlsx")["Summary"]
    cells = [str(cell) for row in summary.iter_rows(values_only=True) for cell in row]
    assert "dice" in cells and "nsd" not in cells and line in cells


def test_runs_of_other_classes_or_ignored_values(tmp_path, capsys, refused):
    def write(name, labels):
        run = write_run(tmp_path / name, {f"S{s}_1.png": (0.5 + 0.01 * len(name), 0.4) for s in range(8)})
        (run / "settings.json").write_text(json.dumps({"labels": labels.as_dict()}))
        return str(run)

    labels = Labels.create([0, 128, 255], 0)
    one, more = write("one", labels), write("more", Labels.create([0, 64, 128], 0))
    ignoring = write("ignoring", labels.with_ignored([7]))
    assert compare.main([one, more, "--output", str(tmp_path / "c.xlsx")]) == 0
    said, error = capsys.readouterr()
    assert "dice, iou: different classes (128, 255 and 64, 128)" in error and "not checked" not in error
    assert "dice_128 " in said and "dice  " not in said
    assert "cannot be compared" in openpyxl.load_workbook(tmp_path / "c.xlsx")["Disagreements"]["A1"].value
    assert "different mask values are ignored" in refused(compare.main, [one, ignoring])


def test_runs_of_other_files_are_compared_on_the_files_that_both_have(runs, tmp_path, capsys):
    """With the numbers of files of each, and never by means over other files."""
    some = {f"S{s}_{i:02d}.png": (0.5 + 0.02 * s, 0.4) for s in range(1, 8) for i in range(3)}
    more = some | {"S9_00.png": (0.1, 0.1)}
    third = write_run(tmp_path / "third" / "evaluate", more)
    assert compare.main([*map(str, (runs[0], third)), "--output", str(tmp_path / "c.xlsx")]) == 0
    caught = capsys.readouterr()
    assert "21 files with a value in both (of 24 and 22)" in caught.out and "7 subjects" in caught.out
    assert "one has 24 files, third 22: the 21 that both have are compared, without S8_00.png" in caught.err
    book = openpyxl.load_workbook(tmp_path / "c.xlsx")
    dice = table(book["Summary"]).set_index("metric").loc["dice"]
    assert (dice["n"], dice["reference_n"], dice["other_n"], dice["subjects"]) == (21, 24, 22, 7)
    assert dice["other_mean"] == pytest.approx(0.58) and dice["difference"] == pytest.approx(0.04)
    notes = [row[0] for row in book["Summary"].iter_rows(values_only=True) if row[0]]
    assert comparison.IN_BOTH in notes and any("without S8_00.png" in str(note) for note in notes)
    assert len(table(book["Files"])) == 21
    by_subject = table(book["Subjects"])
    assert len(by_subject) == 7 and (by_subject["dice third"] - by_subject["dice one"]).mean() == pytest.approx(0.04)


def test_a_table_names_the_subjects(tmp_path, capsys, refused):
    scores = {f"{word}.png": (0.5, 0.4) for word in "abcdefgh"}
    better = {file: (0.6 + 0.01 * i, 0.4) for i, file in enumerate(scores)}
    runs = write_run(tmp_path / "one" / "evaluate", scores), write_run(tmp_path / "other" / "evaluate", better)
    lines = [f"{word}.png,P{i // 2}" for i, word in enumerate("abcdefgh")]
    subjects = tmp_path / "subjects.csv"
    subjects.write_text("\n".join(["file,subject", *lines]))
    given = [*map(str, runs), "--output", str(tmp_path / "c.xlsx"), "--subjects", str(subjects)]
    assert compare.main(given) == 0
    assert "p 0.125, 4 subjects" in capsys.readouterr().out
    subjects.write_text("\n".join(["file,subject", *lines[1:]]))
    assert f"{subjects}: no line for 1 of 8 files: a; add them" in refused(compare.main, given)
