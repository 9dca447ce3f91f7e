"""Compare two or more evaluated runs on the same files in one workbook.

    python -m sonogravity.compare results/unet/RUN results/deeplab/RUN

Each RUN is a files.csv, a folder with one, or a folder with evaluate/ or predict/ in it (also with _w_margin).
The first is the reference. Each other run is compared with it file by file: Wilcoxon's signed-rank test
(Wilcoxon 1945) on the mean difference per subject, and a bootstrap interval that resamples subjects.
Neighbouring frames are near copies, so a test over frames would find almost any difference significant.
"""

import json
import math
import sys
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pandas as pd
from openpyxl import Workbook, load_workbook
from openpyxl.drawing.image import Image as Picture
from scipy.stats import wilcoxon

from sonogravity.commands import options, script
from sonogravity.common.file_names import FILES_CSV, PANEL_KINDS, PANELS, SETTINGS, panel_name
from sonogravity.common.files import BROKEN_FILE, whole
from sonogravity.common.folders import RESULTS
from sonogravity.common.messages import InputError, say, some, warn
from sonogravity.datasets.labels import Labels
from sonogravity.datasets.subjects import EXAMPLE, are_independent, subjects_or_stems
from sonogravity.metrics.columns import is_metric
from sonogravity.metrics.comparability import incomparable
from sonogravity.metrics.summary import bootstrap_interval
from sonogravity.reporting import workbook

WORST = 8  # disagreements shown with their panels
PANEL_WIDTH = 700  # pixels in the sheet
FEWEST_SUBJECTS = 6  # with fewer, no outcome of the test can reach p < 0.05


@dataclass
class ScoredRun:
    """Scores of one run. table: files.csv, indexed by file. panels: folders. labels: None if unknown."""

    name: str
    table: pd.DataFrame
    panels: list
    labels: Labels | None


def open_run(path):
    """Return the ScoredRun of a run folder or a files.csv. Raise InputError if it cannot be read."""
    scripts = ("evaluate", "predict", "evaluate_w_margin", "predict_w_margin")
    candidates = [path] if path.is_file() else [path / part / FILES_CSV for part in ("", *scripts)]
    for file in candidates:
        if file.is_file():
            folder = file.parent
            name = folder.parent.name if folder.name in scripts else folder.name
            panels = [each / PANELS for each in (folder, folder.parent / "predict", folder / "predict")]
            return ScoredRun(name, read_scores(file), panels, read_labels(folder / SETTINGS))
    raise InputError(f"{path}: no files.csv in it or in its folders {', '.join(scripts)}; run evaluate.py first")


def read_scores(file):
    """Return the table of a files.csv, indexed by file name. Raise InputError if it cannot be read or has no scores."""
    try:
        table = pd.read_csv(file, keep_default_na=False, na_values=[""])
    except (ValueError, OSError) as error:
        raise InputError(f"{file}: cannot be read as CSV ({error}); run evaluate.py again") from error
    if "file" not in table or "dice" not in table:
        raise InputError(f"{file}: has no Dice column; give a run scored against true masks")
    if table["file"].duplicated().any():
        raise InputError(
            f"{file}: lists {table['file'][table['file'].duplicated()].iloc[0]} twice; run evaluate.py again"
        )
    return table.set_index("file")


def read_labels(path):
    """Return the Labels in a settings.json, or None, with a warning, if it cannot be read."""
    try:
        return Labels.from_dict(json.loads(path.read_text(encoding="utf-8"))["labels"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, InputError):
        warn(f"{path}: cannot be read, so whether the runs have the same classes and ignored values is not checked")
        return None


def comparable_columns(runs):
    """Return (metrics that all runs computed in the same way, lines on those left out). Raise InputError if none is."""
    shared = [name for name in runs[0].table if is_metric(name) and all(name in run.table for run in runs)]
    reasons, lines = {}, []
    for run in runs[1:]:
        found = incomparable(shared, (runs[0].table, runs[0].labels), (run.table, run.labels))
        for reason in dict.fromkeys(found.values()):
            concerned = [name for name in shared if found.get(name) == reason]
            lines.append(f"not compared, {runs[0].name} and {run.name}: {some(concerned)}: {reason}")
        reasons |= found
    left = [name for name in shared if name not in reasons]
    if not left:
        raise InputError("; ".join(lines) or "the runs have no metric in common; run evaluate.py again for each")
    return left, lines


def compare_column(reference, other, subjects, independent=False):
    """Return means, difference (other - reference), interval, p and counts of two columns over the same files.

    independent: the subjects are files, so there is no p value, and no subjects are counted.
    """
    difference = other - reference
    low, high = bootstrap_interval(difference, subjects)
    by_subject = difference.groupby(pd.Series(subjects, difference.index)).mean().dropna()
    p = math.nan
    if not independent and len(by_subject) and (by_subject != 0).any():
        p = float(wilcoxon(by_subject).pvalue)
    known = difference.notna()
    return {
        "reference_mean": float(reference[known].mean()),
        "other_mean": float(other[known].mean()),
        "difference": float(difference.mean()),
        "ci95_low": low,
        "ci95_high": high,
        "wilcoxon_p": p,
        "n": int(known.sum()),
        "subjects": None if independent else len(by_subject),
    }


SHEETS = ("Summary", "Files", "Subjects", "Disagreements", "Definitions")
INDEPENDENT = (
    "The file names give no subject, so files are taken as independent: the interval is too narrow if several are of "
    f"one subject, and there is no p value. To say how subjects are read, give such as {EXAMPLE}."
)
DEFINITIONS = (
    ("reference, other", "the runs compared; the first run named is the reference"),
    ("reference_mean, other_mean", "means over the files for which both runs have a value"),
    ("difference", "mean of other - reference over these files"),
    ("ci95_low, ci95_high", "95 % bootstrap interval of the difference, resampling subjects (files if none is known)"),
    (
        "wilcoxon_p",
        "two-sided Wilcoxon signed-rank test on the mean difference per subject; blank if no subject differs, or if "
        "the file names give no subject: neighbouring frames are no independent samples",
    ),
    ("n, subjects", "files with a value in both runs; subjects among them"),
)


def write_comparison(path, runs, columns, subjects, independent, notes):
    """Write the workbook: Summary, Files, Subjects, Disagreements, Definitions. Return the rows of the Summary.

    notes: lines below the Summary.
    """
    reference, *others = runs
    summary = [
        {"reference": reference.name, "other": run.name, "metric": column}
        | compare_column(reference.table[column], run.table[column], subjects, independent)
        for run in others
        for column in columns
    ]
    rows = []
    for file, subject in zip(reference.table.index, subjects, strict=True):
        row = {"file": file, "subject": subject}
        for column in columns:
            row |= {f"{column} {run.name}": run.table[column][file] for run in runs}
            for run in others:
                difference = run.table[column][file] - reference.table[column][file]
                row[f"{column} {run.name} - {reference.name}"] = difference
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
        by_subject = pd.DataFrame(rows).drop(columns="file").groupby("subject").mean().reset_index()
        workbook.add_table(sheet, by_subject.to_dict("records"))
    _disagreements(book.create_sheet("Disagreements"), runs, "dice" in columns)
    workbook.add_table(
        book.create_sheet("Definitions"), [{"column": name, "definition": text} for name, text in DEFINITIONS]
    )
    for letter, width in (("A", 28), ("B", 100)):
        book["Definitions"].column_dimensions[letter].width = width
    with whole(path) as file:
        book.save(file)
    return summary


def _test_of(row, independent):
    """Return p and the number of subjects of a row of the Summary, or why there are none, for the terminal."""
    if independent:
        return "files taken as independent"
    p = row["wilcoxon_p"]
    return f"{'no subject differs' if math.isnan(p) else f'p {p:.3g}'}, {row['subjects']} subjects"


def _caution(subjects, independent):
    """Return the reasons, at most one, why interval and p are not reliable."""
    if independent:
        return [INDEPENDENT]
    if len(set(subjects)) < FEWEST_SUBJECTS:
        return [
            f"Only {len(set(subjects))} subjects: with fewer than {FEWEST_SUBJECTS} the test cannot reach p < 0.05, "
            "and the interval is unreliable."
        ]
    return []


def _disagreements(sheet, runs, comparable):
    """Write the files whose Dice differs most between any two runs, with their panels if there are any.

    comparable: whether the runs have the same classes, so that their Dice can be compared.
    """
    if not comparable:
        workbook.write_cell(sheet, 1, 1, "The Dice of these runs cannot be compared, see the notes of the Summary.")
        return
    dice = pd.DataFrame({run.name: run.table["dice"] for run in runs})
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
            found = [folder / panel_name(Path(file).stem, kind) for folder in run.panels for kind in PANEL_KINDS]
            found = [path for path in found if path.is_file()]
            if not found:
                continue
            workbook.write_cell(sheet, line, 1, f"{file}: {run.name}")
            picture = Picture(BytesIO(found[0].read_bytes()))
            picture.height = picture.height * PANEL_WIDTH / picture.width
            picture.width = PANEL_WIDTH
            sheet.add_image(picture, f"A{line + 1}")
            line += 3 + math.ceil(picture.height / 20)  # a row is 20 pixels high


def _refuse_foreign(output):
    """Raise InputError if the output is no .xlsx file, or a file that this command did not write."""
    if output.suffix.lower() != ".xlsx":
        raise InputError(f"--output {output}: a workbook is written; give a name that ends in .xlsx")
    if not output.exists():
        return
    try:
        names = load_workbook(output, read_only=True).sheetnames
    except BROKEN_FILE:
        names = None
    if names != list(SHEETS):
        raise InputError(f"--output {output}: is not a comparison; give another name, or move this file away")


def build_parser():
    parser = script.Parser(__doc__)
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="files.csv, or a folder with it; the first is the reference")
    add("--output", type=Path, metavar="FILE.xlsx", help="workbook (default: results/compare/<run>_<run>.xlsx)")
    options.add_subject_regex(parser)
    return parser


@script.script
def main(argv=None):
    args = build_parser().parse_args(argv)
    if len(args.runs) < 2:
        raise InputError("only one run is given; at least two runs are needed")
    runs = [open_run(path) for path in args.runs]
    if len({run.name for run in runs}) < len(runs):  # U-Net and DeepLab runs may share a name
        for run, path in zip(runs, args.runs, strict=True):
            run.name = str(path)
    reference, *others = runs
    for run in others:
        missing = sorted(set(reference.table.index) ^ set(run.table.index))
        if missing:
            raise InputError(
                f"{reference.name} and {run.name}: {len(missing)} files are scored in only one of them "
                f"({some(missing)}); evaluate both on the same frames"
            )
        run.table = run.table.loc[reference.table.index]
    columns, left_out = comparable_columns(runs)
    stems = [Path(file).stem for file in reference.table.index]
    subjects, independent = subjects_or_stems(stems, args.subject_regex), are_independent(stems, args.subject_regex)
    cautions = [*left_out, *_caution(subjects, independent)]
    default = RESULTS / "compare" / ("_".join(run.name.replace("/", "-") for run in runs) + ".xlsx")
    output = args.output or default
    _refuse_foreign(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    for row in write_comparison(output, runs, columns, subjects, independent, cautions):
        if row["metric"] == "dice" or row["metric"].startswith("dice_"):
            say(
                f"{row['metric']:14} {row['reference']} {row['reference_mean']:.4f}  "
                f"{row['other']} {row['other_mean']:.4f}  "
                f"difference {row['difference']:+.4f} ({row['ci95_low']:+.4f} to {row['ci95_high']:+.4f}), "
                f"{_test_of(row, independent)}, {row['n']} files"
            )
    for caution in cautions:
        warn(caution)
    say(f"written: {output}")


if __name__ == "__main__":
    sys.exit(main())
