"""What predict.py and evaluate.py of all models share: a checkpoint opened, files scored and written."""

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sonogravity import checkpoints, data, devices, evaluation, figures, margin, metrics, paths, runs, worksheets
from sonogravity.calibration import ASSUMED, calibrate
from sonogravity.decoding import decode_mask, write_mask
from sonogravity.engines import fastest, use
from sonogravity.errors import InputError, process_count, say, some, warn
from sonogravity.inference import Predictor
from sonogravity.labels import Labels
from sonogravity.measures import Measure
from sonogravity.pairs import find_input_pairs, find_mask_pairs

DEFAULT_SCALE = 0.5  # train.py's, for a weights file that doesn't say
MANY_VALUES = 32  # more grey levels than that in "masks" are an image


def open_predictor(path, model_class, *, device, amp, scale, mask_values):
    """A checkpoint -> (Predictor, Checkpoint). device: ``auto``, ``cpu``, ...; amp, scale: None takes its own."""
    if process_count() > 1:
        raise InputError("this script runs as one process: torchrun is for train.py")
    device = devices.pick_device(device)
    checkpoint = checkpoints.load(path, model_class)
    model = checkpoints.open_model(model_class, checkpoint)
    if scale is None and checkpoint.scale is None:
        say(f"{path.name}: holds no scale, so {DEFAULT_SCALE} is taken (--scale sets it)")
    predictor = Predictor(
        model,
        labels=checkpoints.labels_for(checkpoint, mask_values),
        scale=scale or checkpoint.scale or DEFAULT_SCALE,
        channels=checkpoint.model_options["in_channels"],
        image_maximum=checkpoint.image_maximum,
        device=device,
        amp=devices.amp_type(device, checkpoint.amp if amp is None else amp),
    )
    return predictor, checkpoint


@dataclass(frozen=True)
class Request:
    """What to score and where to write it: the options that predict and evaluate share.

    script: predict writes masks (and panels) and takes frames without a mask; evaluate writes scores only and wants a
    mask for each; with ``_w_margin`` both have a margin_mm. output: None takes results/<model>/<run>/<script>.
    options: all of the command line, for settings.json.
    """

    script: str
    inputs: list
    masks: Path | None
    output: Path | None
    batch_size: int
    workers: int | None
    subject_regex: str | None
    pixels_per_mm: float | None
    spacing: Path | None
    options: dict
    panels: str | None = None
    margin_mm: float | None = None
    engine: str = "torch"
    int8: bool = False

    @property
    def predicting(self):
        """Whether masks are written."""
        return self.script.startswith("predict")

    def output_folder(self, model_name, run):
        """Where the results go."""
        return self.output or paths.RESULTS / model_name / run / self.script

    def measure(self, labels, pairs):
        """How the pairs' files are measured; says so where the margin must assume a calibration."""
        files = [pair.image.name for pair in pairs]
        calibrations = calibrate(files, self.pixels_per_mm, self.spacing)
        if self.margin_mm is not None:
            self._warn_of_margin(calibrations)
        return Measure(labels, calibrations, self.margin_mm)

    def _warn_of_margin(self, calibrations):
        if any(each.assumed for each in calibrations.values()):
            near = [table for path in self.inputs if (table := path.parent / "spacing.csv").is_file()]
            hint = f" ({near[0]} looks like such a table)" if near else ""
            warn(
                f"no --pixels-per-mm and no --spacing{hint}: {ASSUMED.x} pixels per mm are ASSUMED, so the margin of "
                f"{self.margin_mm:g} mm is {self.margin_mm * ASSUMED.x:.3g} pixels; boundary figures stay in pixels"
            )
        still = [file for file, each in calibrations.items() if self.margin_mm * max(each.x, each.y) < 1]
        if still:
            warn(f"the margin is under one pixel in {len(still)} files, so it changes nothing there: {some(still)}")


def score_inputs(predictor, checkpoint, request):
    """Find the frames, claim the output folder, then segment, score and write."""
    pairs, notes = find_input_pairs(request.inputs, request.masks, partial=request.predicting)
    for note in notes:
        warn(note)
    measure = request.measure(predictor.labels, pairs)
    predictor = _with_engine(predictor, checkpoint.path, pairs, request)
    source = {"path": str(paths.absolute(checkpoint.path)), "run": checkpoint.run, "epoch": checkpoint.epoch}
    used = {
        "engine": predictor.engine,
        "scale": predictor.scale,
        "mixed_precision": str(predictor.amp or "float32"),
        "device": str(predictor.device),
    }
    natives = {}  # stem -> native image, while its frame is under way

    def frames():
        threads = devices.threads_beside(request.workers, predictor.device)
        for frame, image in evaluation.read_frames(predictor, pairs, threads):
            if request.panels:
                natives[frame.pair.stem] = image
            yield frame

    results = evaluation.segment(predictor, frames(), request.batch_size)
    settings = describe(request, predictor.labels) | {"checkpoint": source, "used": used}
    folder = request.output_folder(checkpoint.model_name, checkpoint.run or checkpoint.path.stem)
    return write_scores(results, pairs, folder, measure, settings, request, natives)


def _with_engine(predictor, path, pairs, request):
    if request.engine != "auto":
        return use(request.engine, predictor, path, request.int8)
    if masked := [pair.mask.name for pair in pairs if pair.mask]:
        raise InputError(
            f"--engine auto: {len(masked)} of {len(pairs)} frames have masks ({some(masked)}), and scores must not "
            "hang on which engine was faster today; name an engine, or give frames alone"
        )
    return fastest(predictor, path, pairs)


def score_predictions(model_name, predictions, mask_values, request):
    """Masks that any tool or person drew against the true masks of the inputs: scores, without a model.

    predictions: a folder. The classes are those of the true masks, or mask_values.
    """
    pairs, found, notes = find_mask_pairs(request.inputs, request.masks, predictions)
    for note in notes:
        warn(note)
    threads = devices.decoding_threads(request.workers)
    if mask_values is None:
        present = data.ahead(lambda pair: np.unique(decode_mask(pair.mask)), pairs, threads)
        mask_values = sorted(set().union(*(values.tolist() for values in present)))
        if len(mask_values) > MANY_VALUES:
            raise InputError(
                f"{pairs[0].mask.parent}: the true masks hold {len(mask_values)} values; are these images, or masks "
                "saved as JPEG? --mask-values names the classes"
            )
    labels = Labels.create(mask_values)
    say(f"classes: {labels.describe()}")
    measure = request.measure(labels, pairs)
    own = paths.absolute(predictions)
    folder = request.output_folder(model_name, own.parent.name if own.name == "masks" else own.name)
    results = evaluation.read_predictions(pairs, found, labels, threads)
    settings = describe(request, labels) | {"predictions": str(own)}
    return write_scores(results, pairs, folder, measure, settings, request)


def describe(request, labels):
    """The content of settings.json and of the Settings sheet, as far as all scripts share it."""
    return {
        "script": request.script,
        "options": request.options,
        "labels": labels.as_dict(),
        "commit": runs.commit(),
        "versions": runs.describe_versions(),
    }


class PartialCsv:
    """files.partial.csv: a row a file as soon as it is known, so that a crash loses nothing."""

    def __init__(self, folder, names):
        self._file = open(folder / paths.ROWS_DONE, "w", newline="", encoding="utf-8")  # noqa: SIM115 - see __exit__
        self._writer = csv.DictWriter(self._file, names, restval="")
        self._writer.writeheader()

    def append(self, row):
        self._writer.writerow({k: "" if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()})
        self._file.flush()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self._file.close()


def write_scores(results, pairs, folder, measure, settings, request, natives=None):
    """Score every FileResult; write masks and panels where asked for, the worksheets and summary.json.

    The files lie in folder/partial until all are there. natives: {stem: native image} that fills as results come, for
    panels. Returns the summary, None where no file had a mask.
    """
    with paths.new_output(folder, request.script) as unfinished:
        for name, wanted in (("masks", request.predicting), ("panels", request.panels)):
            if wanted:
                (unfinished / name).mkdir()
        paths.write_whole(unfinished / paths.MARKER, worksheets.write_json, settings)
        rows, confusions, measured, empty = _score_each(results, pairs, unfinished, measure, request, natives)
        summary, few = _summarise(rows, confusions, measured, measure, request.subject_regex)
        paths.write_whole(unfinished / "files.csv", worksheets.write_csv, rows)
        if summary is not None:
            paths.write_whole(unfinished / "summary.json", worksheets.write_json, summary)
            if "margin" in summary:
                paths.write_whole(unfinished / "sweep.png", figures.write_sweep, summary["margin"])
        paths.write_whole(unfinished / "files.xlsx", worksheets.write_files, (rows, summary, settings, few))
        (unfinished / paths.ROWS_DONE).unlink()
    _report(rows, summary, few, empty, measure, folder)
    return summary


def _score_each(results, pairs, folder, measure, request, natives):
    """Rows, confusions and Measured of all files, and the names of those that are background only.

    Scoring and writing go on in threads while the network, in this one, is at the next frames.
    """
    labels = measure.labels
    rows, confusions, measured, empty = [], [], [], []

    def score_and_write(result):
        pair = result.frame.pair
        height, width = result.frame.size
        row, found = {"file": pair.image.name, "width": width, "height": height}, None
        if result.truth is not None:
            found = measure.of(pair.image.name, result.truth, result.prediction, result.confusion)
            row |= found.figures
        row["seconds"] = result.seconds
        if request.predicting:
            values = labels.to_values(result.prediction)
            paths.write_whole(folder / "masks" / f"{pair.stem}.png", write_mask, values)
        if request.panels:
            _write_panel(folder, request.panels, natives.pop(pair.stem), result, found, row, labels)
        return row, found, result.confusion, (result.prediction == labels.background).all()

    scored = data.ahead(score_and_write, results, devices.decoding_threads(request.workers))
    with PartialCsv(folder, measure.columns(scored=any(pair.mask for pair in pairs))) as partial:
        for row, found, confusion, is_empty in tqdm(
            scored, "frames", len(pairs), unit="frame", leave=False, file=sys.stderr
        ):
            rows.append(row)
            if found is not None:
                confusions.append(confusion)
                measured.append(found)
            if is_empty:
                empty.append(row["file"])
            partial.append(row)
    return rows, confusions, measured, empty


def _write_panel(folder, kind, image, result, found, row, labels):
    """Image, truth (with a margin also dilated and eroded), prediction."""
    stem = result.frame.pair.stem
    maps, caption = {}, stem
    if found is not None:
        maps["truth"] = result.truth
        caption += f"  Dice {row['dice']:.4f}"
        if found.choice is not None:
            maps |= {name: found.choice.maps[name] for name in margin.VARIANTS[1:]}
            caption += f"  tolerant Dice {row['tolerant_dice']:.4f} ({found.choice.used})"
    maps["prediction"] = result.prediction
    content = (kind, image, maps, labels, caption)
    paths.write_whole(folder / "panels" / f"{stem}.{kind}", figures.write_panel, content)


def _summarise(rows, confusions, measured, measure, subject_regex):
    """summary.json's content, and the number of subjects where it is too small; None, None without masks."""
    rows = [row for row in rows if "dice" in row]
    if not rows:
        return None, None
    stems = [row["file"].rsplit(".", 1)[0] for row in rows]
    subjects = metrics.subjects_of(stems, subject_regex)
    groups = [subject or stem for subject, stem in zip(subjects, stems, strict=True)]
    summary = metrics.summarise(rows, measure.labels, groups, measure.names)
    summary["pooled"] = metrics.pooled(confusions, measure.labels)
    for what in ("missed", "spurious"):
        summary[what] = sum(len(row[what].split(", ")) for row in rows if row[what])
    if measure.margin_mm is not None:
        summary["pooled"] |= {
            f"tolerant_{name}": value
            for name, value in metrics.pooled([each.choice.confusion for each in measured], measure.labels).items()
        }
        summary["margin"] = measure.margin_summary(measured)
    few = len(set(groups)) if len(set(groups)) < metrics.FEW_SUBJECTS else None
    return summary, few


def _report(rows, summary, few, empty, measure, folder):
    """What a user should read on the terminal."""
    labels = measure.labels
    if summary is not None:
        if summary["files"] < len(rows):
            say(f"{len(rows) - summary['files']} of {len(rows)} files have no mask: their scores are blank")
        dice = summary["metrics"]["dice"]
        low, high = dice["ci95"]
        names = [labels.names[c] for c in labels.foreground]
        classes = ", ".join(f"{name} {summary['classes'][name]['dice']['mean']:.4f}" for name in names)
        say(f"Dice {dice['mean']:.6f} (95 % interval {low:.4f} to {high:.4f}), n {dice['n']}; {classes}")
        if "margin" in summary:
            margin_mm, chosen = summary["margin"]["mm"], summary["margin"]["chosen"]
            say(
                f"tolerant Dice {summary['metrics']['tolerant_dice']['mean']:.6f} at a margin of {margin_mm:g} mm; "
                f"chosen: {', '.join(f'{name} {count}' for name, count in chosen.items())}"
            )
        for name in list(measure.boundary_names.values())[1:]:
            entry = summary["metrics"][name]
            say(f"{name} {entry['mean']:.4f}, n {entry['n']} (missed {entry['missed']}, spurious {entry['spurious']})")
        if few is not None:
            warn(f"only {few} subjects: the interval means little")
    if empty:
        warn(f"{len(empty)} of {len(rows)} predictions are background only: {some(empty)}")
    say(f"written: {folder / 'files.xlsx'}")
