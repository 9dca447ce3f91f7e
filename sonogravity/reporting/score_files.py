"""Output of predict and evaluate, one frame after another: masks, panels, worksheets and lines on the terminal."""

import csv
import math
from contextlib import nullcontext

import numpy as np

from sonogravity.common import file_names, files, progress, workers
from sonogravity.common.messages import say, some, warn
from sonogravity.datasets.label_checks import background_warning
from sonogravity.datasets.spacing import ASSUMED, doubts
from sonogravity.metrics import columns, confidence
from sonogravity.metrics.flicker import Flicker
from sonogravity.metrics.measurements import TRUE
from sonogravity.metrics.summary import FEW_SUBJECTS, group_means, pooled, summarise, summarise_measurements
from sonogravity.reporting import clips, output_folder, pictures, plots, workbook
from sonogravity.reporting.mask_output import MaskOutput
from sonogravity.reporting.overlay_video import OverlayVideos

UNLIKE = "unlike_training"
LOOK_FIRST = 5  # number of files named on the terminal


class PartialCsv:
    """files.partial.csv: one row per file, written immediately, so that a crash loses no row."""

    def __init__(self, folder, names):
        self._file = open(folder / file_names.ROWS_DONE, "w", newline="", encoding="utf-8")  # noqa: SIM115 - see __exit__
        self._writer = csv.DictWriter(self._file, names, restval="")
        self._writer.writeheader()

    def append(self, row):
        self._writer.writerow({k: "" if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()})
        self._file.flush()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self._file.close()


def write_scores(results, pairs, folder, measure, settings, request, natives=None, groups=None, more=()):
    """Score every FileResult; write masks and panels if requested, the worksheets and summary.json.

    Return the summary, without metrics if no file has a mask. The files stay in folder/partial until all are written.
    natives: {stem: native image} for panels and videos, filled while results arrive. groups: {stem: {"fold": 1,
    "subject": "D2"}}, columns by which scores are also averaged, one sheet each. more: columns that the results fill
    besides scores.
    """
    names = _column_names(pairs, measure, groups, more)
    columns.check(names, measure.labels.column_names)
    images = [pair.image for pair in pairs]
    found = request.subjects.of([image.stem for image in images], [image.clip for image in images])
    subjects = {pair.image.name: subject for pair, subject in zip(pairs, found, strict=True)}
    with output_folder.new_output(folder, settings) as unfinished:
        panels = any(request.has_panel(pair) for pair in pairs)
        for name, wanted in ((file_names.MASKS, request.predicting), (file_names.PANELS, panels)):
            if wanted:
                (unfinished / name).mkdir()
        files.write_whole(unfinished / file_names.SETTINGS, workbook.write_json, settings)
        flicker = Flicker()
        rows, confusions, measured, empty, reliability = _score_each(
            clips.counted(results, flicker), names, pairs, unfinished, measure, request, natives, groups
        )
        summary, few = _summarise(rows, confusions, measured, measure, subjects)
        summary |= request.describe_smoothing()
        if of_clips := flicker.summary():
            summary["clips"] = of_clips
        if reliability is not None:
            summary["calibration"] = confidence.calibration(reliability, measure.labels)
        files.write_whole(unfinished / file_names.FILES_CSV, workbook.write_csv, rows)
        files.write_whole(unfinished / file_names.SUMMARY, workbook.write_json, summary)
        if "margin" in summary:
            files.write_whole(unfinished / file_names.SWEEP, plots.write_sweep, summary["margin"])
        if reliability is not None:
            path = unfinished / file_names.CALIBRATION
            files.write_whole(path, plots.write_calibration, summary["calibration"], measure.labels)
        files.write_whole(unfinished / file_names.FILES_XLSX, workbook.write_files, rows, summary, settings, few)
        (unfinished / file_names.ROWS_DONE).unlink()
    _report(rows, summary, few, empty, measure, folder)
    shown = dict.fromkeys(pair.image.file_stem for pair in pairs if request.has_video(pair))
    if shown:
        say(f"overlay videos of {len(shown)} clips beside it: {some(map(file_names.overlay_name, shown))}")
    if confusions and more:  # a model has scored them
        _check_coding(np.sum(confusions, axis=0), measure.labels)
    return summary


def columns_of(predictor):
    """Return the columns that the results of a predictor fill besides scores."""
    return [*confidence.columns(predictor.labels), *([UNLIKE] if predictor.knows_grey_levels else [])]


def _column_names(pairs, measure, groups, more):
    """Return the columns of files.csv, which are known before the first file."""
    names = measure.columns(any(pair.mask for pair in pairs), more)
    places = dict.fromkeys(column for pair in pairs for column in _place_of(pair.image))
    return [names[0], *places, *(groups or {}).get(pairs[0].stem, {}), *names[1:]]


def _place_of(image):
    """Return the columns that tell where a frame of a clip lies: its file, and its time if the file gives it."""
    if not image.is_numbered:
        return {}
    return {columns.SOURCE: image.path.name} | ({} if image.time_s is None else {columns.TIME: image.time_s})


def _score_each(results, names, pairs, folder, measure, request, natives, groups):
    """Return rows, confusions and Measured of all files, names of background-only predictions, and the reliability.

    Other threads score and write while the network processes the next frames in this thread.
    """
    labels = measure.labels
    rows, confusions, measured, empty, reliability = [], [], [], [], None

    def score_and_write(result):
        pair = result.frame.pair
        height, width = result.prediction.shape
        row = {"file": pair.image.name, **_place_of(pair.image), **(groups or {}).get(pair.stem, {})}
        row |= {"width": width, "height": height}
        found = None
        if result.truth is not None:
            found = measure.of(pair.image.name, result.truth, result.prediction, result.confusion, result.ignored)
            row |= found.figures
        row |= result.certainty or {}
        if UNLIKE in names:
            row[UNLIKE] = result.frame.unlike
        row |= measure.measurements(pair.image.name, result.prediction, result.truth, result.ignored)
        row["seconds"] = result.seconds
        values = masks.write(pair, result.prediction) if masks else None
        image = natives.pop(pair.stem) if request.is_shown(pair) else None
        if request.has_panel(pair):
            _write_panel(folder, request.panels, image, result, found, row, labels)
        picture = videos.draw(result, row, image) if request.has_video(pair) else None
        is_empty = (result.prediction == labels.background).all()
        return row, found, result.confusion, is_empty, result.reliability, (pair, values), (pair, picture)

    videos = OverlayVideos(folder, labels, [pair for pair in pairs if request.has_video(pair)])
    scored = workers.ahead(score_and_write, results, workers.decoding_threads(request.workers))
    with PartialCsv(folder, names) as partial, _mask_output(folder, measure, pairs, request) as masks, videos:
        for row, found, confusion, is_empty, of_file, mask, shown in progress.bar(
            scored, "frames", len(pairs), "frame"
        ):
            rows.append(row)
            if masks:
                masks.append(*mask)
            videos.append(*shown)
            if found is not None:
                confusions.append(confusion)
                measured.append(found)
            if is_empty:
                empty.append(row["file"])
            if of_file is not None:
                reliability = of_file if reliability is None else reliability + of_file
            partial.append(row)
    return rows, confusions, measured, empty, reliability


def _mask_output(folder, measure, pairs, request):
    """Return the context of the MaskOutput, of None if no masks are written."""
    if not request.predicting:
        return nullcontext()
    return MaskOutput(
        folder / file_names.MASKS, request.mask_format, measure.labels, pairs, measure.spacings, request.grey_masks
    )


def _write_panel(folder, kind, image, result, found, row, labels):
    """Write a panel of image, truth (with a margin also dilated and eroded) and prediction."""
    stem = result.frame.pair.stem
    maps, caption = {}, stem
    if result.frame.region is not None:
        caption += f"  {result.frame.region}"
    if result.unsmoothed is not None:
        caption += "  smoothed over time"
    if found is not None:
        maps["truth"] = result.truth
        caption += f"  Dice {row['dice']:.4f}"
        if found.choice is not None:
            _, *moved = found.choice.maps.items()  # the first is the truth as drawn
            maps |= dict(moved)
            caption += f"  tolerant Dice {row['tolerant_dice']:.4f} ({found.choice.used})"
    maps["prediction"] = result.prediction
    maps = {title: result.frame.seen(classes) for title, classes in maps.items()}
    path = folder / file_names.PANELS / file_names.panel_name(stem, kind)
    files.write_whole(path, pictures.write_panel, kind, image, maps, labels, caption)


def _summarise(rows, confusions, measured, measure, subjects):
    """Return the content of summary.json, and the number of subjects if it is too small.

    subjects: {file: subject or None}.
    """
    independent = not any(subjects.values())
    rows = [row | {"subject": subjects[row["file"]]} for row in rows]
    scored = [row for row in rows if "dice" in row]
    summary = _summarise_scores(scored, confusions, measured, measure) if scored else {"files": 0}
    summary["files_independent"] = independent
    names = measure.measurement_names
    summary |= summarise_measurements(rows, names, independent)
    if not independent:
        both = [*names, *(f"{TRUE}{name}" for name in names)]
        grouped = [by for by in ("fold", "subject") if by in rows[0]]
        known = [row for row in rows if row["subject"]]
        summary["groups"] = {by: group_means(known, by, measure.labels, measure.names, both) for by in grouped}
        if len(known) < len(rows):
            without = [row["file"] for row in rows if not row["subject"]]
            counted = f"{len(without)} of {len(rows)} files"
            warn(f"{counted} have no subject, so no mean of subjects uses them: {some(without)}")
    few = len({row["subject"] or row["file"] for row in scored or rows})
    return summary, few if few < FEW_SUBJECTS and not independent else None


def _summarise_scores(rows, confusions, measured, measure):
    """Return the part of summary.json that needs masks. rows: with their subject."""
    summary = summarise(rows, measure.labels, [row["subject"] or row["file"] for row in rows], measure.names)
    summary["pooled"] = pooled(confusions, measure.labels)
    for what in ("missed", "spurious"):
        summary[what] = sum(len(row[what].split(", ")) for row in rows if row[what])
    if measure.margin_mm is not None:
        summary["pooled"] |= {
            f"tolerant_{name}": value
            for name, value in pooled([each.choice.confusion for each in measured], measure.labels).items()
        }
        summary["margin"] = measure.margin_summary(measured)
    return summary


def _report(rows, summary, few, empty, measure, folder):
    """Print the summary and the warnings on the terminal."""
    labels, smoothed = measure.labels, clips.smoothed_over(summary)
    if "metrics" in summary:
        if summary["files"] < len(rows):
            say(f"{len(rows) - summary['files']} of {len(rows)} files have no mask: their scores are blank")
        dice = summary["metrics"]["dice"]
        low, high = dice["ci95"]
        independent = ", files taken as independent" if summary["files_independent"] else ""
        of_classes = {c: summary["classes"][labels.names[c]]["dice"]["mean"] for c in labels.foreground}
        classes = ", ".join(f"{labels.title(c)} {mean:.4f}" for c, mean in of_classes.items())
        interval = f"95 % interval {low:.4f} to {high:.4f}{independent}"
        say(f"Dice {dice['mean']:.4f}{smoothed} ({interval}), n {dice['n']}; {classes}")
        if "margin" in summary:
            margin_mm, chosen = summary["margin"]["mm"], summary["margin"]["chosen"]
            assumed = f" ({ASSUMED.x} pixels per mm ASSUMED)" if summary["margin"]["assumed"] else ""
            say(
                f"tolerant Dice {summary['metrics']['tolerant_dice']['mean']:.4f} at a margin of {margin_mm:g} "
                f"mm{assumed}{smoothed}; chosen: {', '.join(f'{name} {count}' for name, count in chosen.items())}"
            )
        for name in list(measure.boundary_names.values())[1:]:
            entry = summary["metrics"][name]
            mean = f"{entry['mean']:.4f}" if entry["n"] else "undefined"
            say(f"{name} {mean}, n {entry['n']} (missed {entry['missed']}, spurious {entry['spurious']})")
        for by, groups in summary.get("groups", {}).items():
            mean, sd = groups[-2:]
            if mean.get("n_dice", 0) < 2:
                continue
            over = f"Dice over {mean['n_dice']} {by}s{smoothed}"
            say(f"{over}: mean {mean['dice']:.4f}, standard deviation {sd['dice']:.4f}")
        if few is not None:
            warn(f"only {few} subject{'s' * (few > 1)}: the interval is unreliable")
    for line in clips.describe_flicker(summary.get("clips", {})):
        say(line)
    if unseen := workbook.least_certain_first(rows):
        known = {row["file"]: row["expected_dice"] for row in unseen[:LOOK_FIRST]}
        first = [f"{file} ({'nothing found' if math.isnan(dice) else f'{dice:.2f}'})" for file, dice in known.items()]
        say(f"files without a mask cannot be scored; look first at the lowest expected_dice: {', '.join(first)}")
        say("(expected_dice orders files by the certainty of the model; it is no estimate of their Dice)")
    for doubt in doubts(measure.spacings, {row["file"]: row["width"] for row in rows}):
        warn(doubt)
    unlike = [row["file"] for row in rows if (row.get(UNLIKE) or 0) > 1]
    if unlike:
        warn(
            f"{len(unlike)} of {len(rows)} images are unlike the training images in brightness, contrast or bit depth "
            f"({some(unlike)}; column {UNLIKE}); do not trust their predictions, however confident they are"
        )
    if empty:
        warn(f"{len(empty)} of {len(rows)} predictions are background only: {some(empty)}")
    say(f"written: {folder / file_names.FILES_XLSX}")


def _check_coding(counts, labels):
    """Warn if most true pixels are of another class than the background and the model disagrees. counts: (C, C)."""
    true = dict(zip(labels.values, counts.sum(1).tolist(), strict=True))
    if counts.sum(1).argmax() == counts.sum(0).argmax():
        return
    if warning := background_warning(labels, true, "these masks are coded otherwise than the training masks"):
        warn(warning)
