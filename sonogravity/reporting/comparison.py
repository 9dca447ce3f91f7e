"""The workbook that compares runs: differences with interval and test, per file, per subject, and the largest.

The test is over subjects: neighbouring frames are near copies, so a test over frames would find almost any difference
significant.
"""

import math
from dataclasses import dataclass
from io import BytesIO

import pandas as pd
from openpyxl import Workbook, load_workbook
from openpyxl.drawing.image import Image as Picture
from scipy.stats import wilcoxon

from sonogravity.common.file_names import PANEL_KINDS, panel_name
from sonogravity.common.files import BROKEN_FILE, whole
from sonogravity.common.messages import InputError
from sonogravity.datasets.file_kinds import stem_of
from sonogravity.datasets.labels import Labels
from sonogravity.datasets.subjects import EXAMPLE
from sonogravity.metrics.summary import bootstrap_interval
from sonogravity.reporting import workbook

WORST = 8  # disagreements shown with their panels
PANEL_WIDTH = 700  # pixels in the sheet
SHEETS = ("Summary", "Files", "Subjects", "Disagreements", "Definitions")
INDEPENDENT = (
    "No file has a subject, so files are taken as independent: the interval is too narrow if several are of "
    f"one subject, and there is no p value. Say how subjects are read, for example with {EXAMPLE}."
)
IN_BOTH = "All means are over the n files with a value in both runs; reference_n and other_n count those of each run."
DEFINITIONS = (
    ("reference, other", "the runs compared; the first run named is the reference"),
    ("reference_mean, other_mean", "means over the n files for which both runs have a value"),
    ("reference_n, other_n", "files for which the run itself has a value"),
    ("difference", "mean of other - reference over these files"),
    ("ci95_low, ci95_high", "95 % bootstrap interval of the difference, resampling subjects (files if none is known)"),
    (
        "wilcoxon_p",
        "two-sided Wilcoxon signed-rank test on the mean difference per subject; blank if no subject differs, or if "
        "no file has a subject: neighbouring frames are no independent samples",
    ),
    ("n, subjects", "files with a value in both runs; subjects among them"),
)


@dataclass
class ScoredRun:
    """Scores of one run. table: files.csv, indexed by file. panels: folders. labels: None if unknown.

    smooth_seconds: of the logits of clips, None without smoothing.
    """

    name: str
    table: pd.DataFrame
    panels: list
    labels: Labels | None
    smooth_seconds: float | None = None


def compare_column(reference, other, subjects, independent=False):
    """Return means, difference (other - reference), interval, p and counts of two columns over the files of both.

    reference, other: indexed by file. subjects: {file of both: subject}. independent: the subjects are files, so there
    is no p value, and no subjects are counted.
    """
    difference = (other - reference).dropna()
    own = [subjects[file] for file in difference.index]
    low, high = bootstrap_interval(difference, own)
    by_subject = difference.groupby(pd.Series(own, difference.index)).mean()
    p = math.nan
    if not independent and len(by_subject) and (by_subject != 0).any():
        p = float(wilcoxon(by_subject).pvalue)
    return {
        "reference_mean": float(reference[difference.index].mean()),
        "other_mean": float(other[difference.index].mean()),
        "difference": float(difference.mean()),
        "ci95_low": low,
        "ci95_high": high,
        "wilcoxon_p": p,
        "n": len(difference),
        "reference_n": int(reference.notna().sum()),
        "other_n": int(other.notna().sum()),
        "subjects": None if independent else len(by_subject),
    }


def refuse_foreign(output):
    """Raise InputError if the output is no .xlsx file, or a file that this command did not write."""
    if output.suffix.lower() != ".xlsx":
        raise InputError(f"--output {output}: a workbook is written; give a name that ends in .xlsx")
    if not output.exists():
        return
    try:
        book = load_workbook(output, read_only=True)
        names = book.sheetnames
        book.close()  # an open file cannot be replaced on Windows
    except BROKEN_FILE:
        names = None
    if names != list(SHEETS):
        raise InputError(f"--output {output}: is not a comparison; give another name, or move this file away")


def write_comparison(path, runs, columns, subjects, independent, notes):
    """Write the workbook: Summary, Files, Subjects, Disagreements, Definitions. Return the rows of the Summary.

    notes: lines below the Summary. Raise InputError if another program has written a file of this name meanwhile.
    """
    reference, *others = runs
    notes = [IN_BOTH, *notes]
    summary = [
        {"reference": reference.name, "other": run.name, "metric": column}
        | compare_column(reference.table[column], run.table[column], subjects, independent)
        for run in others
        for column in columns
    ]
    rows = []
    for file, subject in subjects.items():
        row = {"file": file, "subject": subject}
        for column in columns:
            values = {run.name: run.table[column].get(file, math.nan) for run in runs}
            row |= {f"{column} {name}": value for name, value in values.items()}
            for run in others:
                row[f"{column} {run.name} - {reference.name}"] = values[run.name] - values[reference.name]
        rows.append(row)
    book = Workbook()
    book.active.title = "Summary"
    workbook.add_table(book.active, summary)
    for letter, width in (("A", 24), ("B", 24), ("C", 20)):
        book.active.column_dimensions[letter].width = width
    for line, note in enumerate(notes, len(summary) + 3):
        workbook.write_cell(book.active, line, 1, note).font = workbook.NOTE_FONT
    workbook.add_table(book.create_sheet("Files"), rows)
    sheet = book.create_sheet("Subjects")
    if independent:
        workbook.write_cell(sheet, 1, 1, INDEPENDENT)
    else:
        of_all = [row for row in rows if all(row["file"] in run.table.index for run in runs)]
        by_subject = pd.DataFrame(of_all).drop(columns="file").groupby("subject").mean().reset_index()
        workbook.add_table(sheet, by_subject.to_dict("records"))
    _disagreements(book.create_sheet("Disagreements"), runs, "dice" in columns)
    workbook.add_table(
        book.create_sheet("Definitions"), [{"column": name, "definition": text} for name, text in DEFINITIONS]
    )
    for letter, width in (("A", 28), ("B", 100)):
        book["Definitions"].column_dimensions[letter].width = width
    new = not path.exists()
    try:
        with whole(path, new=new) as file:
            book.save(file)
            refuse_foreign(path)
    except FileExistsError:
        refuse_foreign(path)
        raise
    return summary


def _disagreements(sheet, runs, comparable):
    """Write the files whose Dice differs most between any two runs, with their panels if there are any.

    comparable: whether the runs have the same classes, so that their Dice can be compared.
    """
    if not comparable:
        workbook.write_cell(sheet, 1, 1, "The Dice of these runs cannot be compared, see the notes of the Summary.")
        return
    dice = pd.DataFrame({run.name: run.table["dice"] for run in runs}).reindex(runs[0].table.index).dropna(thresh=2)
    spread = (dice.max(axis=1) - dice.min(axis=1)).fillna(0).sort_values(ascending=False, kind="stable")
    worst = [file for file in spread.index[:WORST] if spread[file] > 0]
    rows = [
        {"file": file, **{f"dice {name}": dice[name][file] for name in dice}, "spread": spread[file]} for file in worst
    ]
    if not rows:
        workbook.write_cell(sheet, 1, 1, "The runs do not differ in Dice on any file.")
        return
    workbook.add_table(sheet, rows)
    line = len(rows) + 3
    for file in worst:
        for run in runs:
            found = [folder / panel_name(stem_of(file), kind) for folder in run.panels for kind in PANEL_KINDS]
            found = [path for path in found if path.is_file()]
            if not found:
                continue
            workbook.write_cell(sheet, line, 1, f"{file}: {run.name}")
            picture = Picture(BytesIO(found[0].read_bytes()))
            picture.height = picture.height * PANEL_WIDTH / picture.width
            picture.width = PANEL_WIDTH
            sheet.add_image(picture, f"A{line + 1}")
            line += 3 + math.ceil(picture.height / 20)  # a row is 20 pixels high
