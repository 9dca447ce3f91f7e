"""Compare two or more evaluated runs on the same files in one workbook.

    python -m sonogravity.compare results/unet/RUN results/deeplab/RUN

Each RUN is a files.csv, a folder with one, or a folder with evaluate/ or predict/ in it (also with _w_margin).
The first is the reference. Each other run is compared with it file by file: Wilcoxon's signed-rank test
(Wilcoxon 1945) on the mean difference per subject, and a bootstrap interval that resamples subjects.
Neighbouring frames are near copies, so a test over frames would find almost any difference significant.
"""

import math
import sys
from io import BytesIO
from pathlib import Path

import pandas as pd
from openpyxl import Workbook, load_workbook
from openpyxl.drawing.image import Image as Picture
from scipy.stats import wilcoxon

from sonogravity.commands import options, script
from sonogravity.common.file_names import FILES_CSV, PANEL_KINDS, PANELS, panel_name
from sonogravity.common.files import BROKEN_FILE, whole
from sonogravity.common.folders import RESULTS
from sonogravity.common.messages import InputError, say, some, warn
from sonogravity.datasets.subjects import subjects_or_stems
from sonogravity.metrics.columns import is_metric
from sonogravity.metrics.summary import bootstrap_interval
from sonogravity.reporting import workbook

WORST = 8  # disagreements shown with their panels
PANEL_WIDTH = 700  # pixels in the sheet
FEWEST_SUBJECTS = 6  # with fewer, no outcome of the test can reach p < 0.05


def find_run(path):
    """Return (name, files.csv, folders that may hold its panels) of a run folder or a files.csv."""
    scripts = ("evaluate", "predict", "evaluate_w_margin", "predict_w_margin")
    candidates = [path] if path.is_file() else [path / part / FILES_CSV for part in ("", *scripts)]
    for file in candidates:
        if file.is_file():
            folder = file.parent
            name = folder.parent.name if folder.name in scripts else folder.name
            return name, file, [each / PANELS for each in (folder, folder.parent / "predict", folder / "predict")]
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


def scored_columns(tables):
    """Return the metrics that all tables have. A name includes its unit, so shared metrics have the same unit."""
    names = [name for name in tables[0].columns if is_metric(name)]
    return [name for name in names if all(name in table for table in tables[1:])]


def compare_column(reference, other, subjects):
    """Return means, difference (other - reference), interval, p and counts of two columns over the same files."""
    difference = other - reference
    low, high = bootstrap_interval(difference, subjects)
    by_subject = difference.groupby(pd.Series(subjects, difference.index)).mean().dropna()
    p = math.nan
    if len(by_subject) and (by_subject != 0).any():
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
        "subjects": len(by_subject),
    }


SHEETS = ("Summary", "Files", "Subjects", "Disagreements", "Definitions")
DEFINITIONS = (
    ("reference, other", "the runs compared; the first run named is the reference"),
    ("reference_mean, other_mean", "means over the files for which both runs have a value"),
    ("difference", "mean of other - reference over these files"),
    ("ci95_low, ci95_high", "95 % bootstrap interval of the difference, resampling subjects (files if none is known)"),
    (
        "wilcoxon_p",
        "two-sided Wilcoxon signed-rank test on the mean difference per subject (per file if none is known); "
        "blank if no subject differs",
    ),
    ("n, subjects", "files with a value in both runs; subjects among them"),
)


def write_comparison(path, names, tables, subjects, panels):
    """Write the workbook: Summary, Files, Subjects, Disagreements, Definitions. Return the rows of the Summary."""
    columns = scored_columns(tables)
    files = tables[0].index
    summary = [
        {"reference": names[0], "other": name, "metric": column}
        | compare_column(tables[0][column], table[column], subjects)
        for name, table in zip(names[1:], tables[1:], strict=True)
        for column in columns
    ]
    rows = [{"file": file, "subject": subject} for file, subject in zip(files, subjects, strict=True)]
    for column in columns:
        for name, table in zip(names, tables, strict=True):
            for row, value in zip(rows, table[column], strict=True):
                row[f"{column} {name}"] = value
        for name, table in zip(names[1:], tables[1:], strict=True):
            for row, value in zip(rows, table[column] - tables[0][column], strict=True):
                row[f"{column} {name} - {names[0]}"] = value
    book = Workbook()
    book.active.title = "Summary"
    workbook.add_table(book.active, summary)
    for letter, width in (("A", 24), ("B", 24), ("C", 20)):
        book.active.column_dimensions[letter].width = width
    if len(set(subjects)) < FEWEST_SUBJECTS:
        note = few_subjects(subjects)
        workbook.write_cell(book.active, len(summary) + 3, 1, note).font = workbook.NOTE_FONT
    workbook.add_table(book.create_sheet("Files"), rows)
    by_subject = pd.DataFrame(rows).drop(columns="file").groupby("subject").mean().reset_index()
    workbook.add_table(book.create_sheet("Subjects"), by_subject.to_dict("records"))
    _disagreements(book.create_sheet("Disagreements"), names, tables, panels)
    workbook.add_table(
        book.create_sheet("Definitions"), [{"column": name, "definition": text} for name, text in DEFINITIONS]
    )
    book["Definitions"].column_dimensions["A"].width = 28
    book["Definitions"].column_dimensions["B"].width = 110
    with whole(path) as beside:
        book.save(beside)
    return summary


def few_subjects(subjects):
    """Return the warning for fewer than FEWEST_SUBJECTS subjects."""
    return (
        f"Only {len(set(subjects))} subjects: with fewer than {FEWEST_SUBJECTS} the test cannot reach p < 0.05, "
        "and the interval is unreliable."
    )


def _disagreements(sheet, names, tables, panels):
    """Write the files whose Dice differs most between any two runs, with their panels if there are any."""
    dice = pd.DataFrame({name: table["dice"] for name, table in zip(names, tables, strict=True)})
    spread = (dice.max(axis=1) - dice.min(axis=1)).fillna(0).sort_values(ascending=False, kind="stable")
    worst = [file for file in spread.index[:WORST] if spread[file] > 0]
    rows = [
        {"file": file, **{f"dice {name}": dice[name][file] for name in names}, "spread": spread[file]} for file in worst
    ]
    if not rows:
        workbook.write_cell(sheet, 1, 1, "The runs do not differ in Dice on any file.")
        return
    workbook.add_table(sheet, rows)
    line = len(rows) + 3
    for file in worst:
        for name, folders in zip(names, panels, strict=True):
            found = [folder / panel_name(Path(file).stem, kind) for folder in folders for kind in PANEL_KINDS]
            found = [path for path in found if path.is_file()]
            if not found:
                continue
            workbook.write_cell(sheet, line, 1, f"{file}: {name}")
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
    names, files, panels = map(list, zip(*map(find_run, args.runs), strict=True))
    if len(set(names)) < len(names):  # U-Net and DeepLab runs may share a name
        names = [str(path) for path in args.runs]
    tables = [read_scores(file) for file in files]
    for name, table in zip(names[1:], tables[1:], strict=True):
        missing = sorted(set(tables[0].index) ^ set(table.index))
        if missing:
            raise InputError(
                f"{names[0]} and {name}: {len(missing)} files are scored in only one of them ({some(missing)}); "
                "evaluate both on the same frames"
            )
    tables = [table.loc[tables[0].index] for table in tables]
    subjects = subjects_or_stems([Path(file).stem for file in tables[0].index], args.subject_regex)
    default = RESULTS / "compare" / ("_".join(name.replace("/", "-") for name in names) + ".xlsx")
    output = args.output or default
    _refuse_foreign(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    for row in write_comparison(output, names, tables, subjects, panels):
        if row["metric"] == "dice" or row["metric"].startswith("dice_"):
            say(
                f"{row['metric']:14} {row['reference']} {row['reference_mean']:.4f}  "
                f"{row['other']} {row['other_mean']:.4f}  "
                f"difference {row['difference']:+.4f} ({row['ci95_low']:+.4f} to {row['ci95_high']:+.4f}), "
                f"p {row['wilcoxon_p']:.3g}, {row['subjects']} subjects, {row['n']} files"
            )
    if len(set(subjects)) < FEWEST_SUBJECTS:
        warn(few_subjects(subjects))
    say(f"written: {output}")


if __name__ == "__main__":
    sys.exit(main())
