"""Compare two or more evaluated runs on the files that both have, in one workbook.

    python -m sonogravity.compare results/unet/RUN results/deeplab/RUN

Each RUN is a files.csv, a folder with one, or a folder with evaluate/ or predict/ in it (also with _w_margin).
The first is the reference. Each other run is compared with it file by file: Wilcoxon's signed-rank test
(Wilcoxon 1945) on the mean difference per subject, and a bootstrap interval that resamples subjects.
Neighbouring frames are near copies, so a test over frames would find almost any difference significant.
"""

import json
import math
import sys
from pathlib import Path

import pandas as pd

from sonogravity.commands import options, script
from sonogravity.common.claims import claim_file
from sonogravity.common.file_names import FILES_CSV, PANELS, SETTINGS
from sonogravity.common.folders import RESULTS
from sonogravity.common.messages import InputError, say, some, warn
from sonogravity.datasets.file_kinds import stem_of
from sonogravity.datasets.labels import Labels
from sonogravity.datasets.subjects import Subjects
from sonogravity.metrics.columns import SOURCE, is_metric
from sonogravity.metrics.comparability import differing_smoothing, incomparable
from sonogravity.reporting.comparison import INDEPENDENT, ScoredRun, refuse_foreign, write_comparison

FEWEST_SUBJECTS = 6  # with fewer, no outcome of the test can reach p < 0.05


def open_run(path):
    """Return the ScoredRun of a run folder or a files.csv. Raise InputError if it cannot be read."""
    scripts = ("evaluate", "predict", "evaluate_w_margin", "predict_w_margin")
    candidates = [path] if path.is_file() else [path / part / FILES_CSV for part in ("", *scripts)]
    for file in candidates:
        if file.is_file():
            folder = file.parent
            name = folder.parent.name if folder.name in scripts else folder.name
            panels = [each / PANELS for each in (folder, folder.parent / "predict", folder / "predict")]
            return ScoredRun(name, read_scores(file), panels, *read_settings(folder / SETTINGS))
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


def read_settings(path):
    """Return the Labels and the seconds of --smooth (or None) in a settings.json.

    If it cannot be read, return None for both, with a warning.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        seconds = settings.get("used", {}).get("smooth_seconds")
        return Labels.from_dict(settings["labels"]), None if seconds is None else float(seconds)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, InputError):
        warn(
            f"{path}: cannot be read, so whether the runs have the same classes, ignored values and smoothing is not "
            "checked"
        )
        return None, None


def _files_of_one_only(reference, run):
    """Return a line, if any, on the files that only one of two runs has. Raise InputError if they share no file."""
    one, other = set(reference.table.index), set(run.table.index)
    if not one & other:
        raise InputError(
            f"{reference.name} and {run.name}: no file is scored in both ({some(sorted(one))}; {some(sorted(other))}); "
            "evaluate both on the same frames"
        )
    if one == other:
        return []
    return [
        f"{reference.name} has {len(one)} files, {run.name} {len(other)}: the {len(one & other)} that both have are "
        f"compared, without {some(sorted(one ^ other))}"
    ]


def comparable_columns(runs):
    """Return (metrics that all runs computed in the same way, lines on those left out). Raise InputError if none is."""
    shared = [name for name in runs[0].table if is_metric(name) and all(name in run.table for run in runs)]
    reasons, lines = {}, []
    for run in runs[1:]:
        common = runs[0].table.index.intersection(run.table.index)
        found = incomparable(shared, (runs[0].table.loc[common], runs[0].labels), (run.table.loc[common], run.labels))
        for reason in dict.fromkeys(found.values()):
            concerned = [name for name in shared if found.get(name) == reason]
            lines.append(f"not compared, {runs[0].name} and {run.name}: {some(concerned)}: {reason}")
        reasons |= found
    left = [name for name in shared if name not in reasons]
    if not left:
        raise InputError("; ".join(lines) or "the runs have no metric in common; run evaluate.py again for each")
    return left, lines


def _names_of(files, runs):
    """Return the stem of each file, and that of the clip that holds it, None for single images."""
    sources = {}
    for run in runs:
        if SOURCE in run.table:
            sources |= run.table[SOURCE].dropna().to_dict()
    clips = [stem_of(sources[file]) if file in sources else None for file in files]
    return [file if clip else stem_of(file) for file, clip in zip(files, clips, strict=True)], clips


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


def build_parser():
    parser = script.Parser(__doc__)
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="files.csv, or a folder with it; the first is the reference")
    add("--output", type=Path, metavar="FILE.xlsx", help="workbook (default: results/compare/<run>_<run>.xlsx)")
    options.add_subjects(parser)
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
    cautions = [line for run in others for line in _files_of_one_only(reference, run)]
    columns, left_out = comparable_columns(runs)
    shared = [file for file in reference.table.index if any(file in run.table.index for run in others)]
    names, naming = _names_of(shared, runs), Subjects.given(args)
    subjects, independent = dict(zip(shared, naming.or_stems(*names), strict=True)), naming.unknown(*names)
    cautions += differing_smoothing({run.name: run.smooth_seconds for run in runs})
    cautions += [*left_out, *_caution(subjects.values(), independent)]
    default = RESULTS / "compare" / ("_".join(run.name.replace("/", "-") for run in runs) + ".xlsx")
    output = args.output or default
    with claim_file(output, ", or give another --output"):
        refuse_foreign(output)
        if output.exists():
            say(f"{output}: holds an earlier comparison, which is replaced")
        rows = write_comparison(output, runs, columns, subjects, independent, cautions)
    for row in rows:
        if row["metric"] == "dice" or row["metric"].startswith("dice_"):
            say(
                f"{row['metric']:14} {row['reference']} {row['reference_mean']:.4f}  "
                f"{row['other']} {row['other_mean']:.4f}  "
                f"difference {row['difference']:+.4f} ({row['ci95_low']:+.4f} to {row['ci95_high']:+.4f}), "
                f"{_test_of(row, independent)}, {row['n']} files with a value in both (of "
                f"{row['reference_n']} and {row['other_n']})"
            )
    for caution in cautions:
        warn(caution)
    say(f"written: {output}")


if __name__ == "__main__":
    sys.exit(main())
