"""What predict.py and evaluate.py of all models share: a checkpoint opened, files scored and written."""

import csv
import sys

import numpy as np
from tqdm import tqdm

from sonogravity import checkpoints, devices, evaluation, figures, metrics, paths, runs, worksheets
from sonogravity.cli import say, warn
from sonogravity.decoding import write_mask
from sonogravity.errors import some
from sonogravity.inference import Predictor
from sonogravity.pairs import find_input_pairs

DEFAULT_SCALE = 0.5  # train.py's, for a weights file that doesn't say


def open_predictor(path, model_class, *, device, amp, scale, mask_values):
    """A checkpoint -> (Predictor, Checkpoint). amp, scale: None takes the checkpoint's own."""
    checkpoint = checkpoints.load(path, model_class)
    model = model_class(**checkpoint.model_options)
    checkpoints.load_weights(model, checkpoint)
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


def score_inputs(
    predictor, checkpoint, inputs, masks_folder, *, script, output, options, batch_size, workers, subject_regex, panels
):  # fmt: skip
    """Find the frames, claim the output folder, then segment, score and write.

    script: ``predict`` writes masks (and panels) and takes frames without a mask; ``evaluate`` writes scores
    only and wants a mask for each. output: None takes results/<model>/<run>/<script>.
    """
    predicting = script == "predict"
    pairs, notes = find_input_pairs(inputs, masks_folder, partial=predicting)
    for note in notes:
        warn(note)
    run = checkpoint.run or checkpoint.path.stem
    folder = output or paths.RESULTS / checkpoint.model_name / run / script
    paths.claim_output(folder, script)
    score_files(
        predictor, pairs, folder, describe(predictor, checkpoint, options, script), batch_size=batch_size,
        workers=devices.decoding_threads(workers), subject_regex=subject_regex, masks=predicting, panels=panels,
    )  # fmt: skip


def describe(predictor, checkpoint, options, script):
    """The content of settings.json and of the Settings sheet."""
    return {
        "script": script,
        "options": options,
        "checkpoint": {"path": str(checkpoint.path.resolve()), "run": checkpoint.run, "epoch": checkpoint.epoch},
        "labels": predictor.labels.as_dict(),
        "used": {"scale": predictor.scale, "mixed_precision": str(predictor.amp or "float32"),
                 "device": str(predictor.device)},
        "commit": runs.commit(),
        "versions": runs.describe_versions(),
    }  # fmt: skip


class PartialCsv:
    """files.partial.csv: a row a file as soon as it is known, so that a crash loses nothing."""

    def __init__(self, folder, names):
        self._path = folder / "files.partial.csv"
        self._file = open(self._path, "w", newline="", encoding="utf-8")  # noqa: SIM115 - closed by __exit__
        self._writer = csv.DictWriter(self._file, names, restval="")
        self._writer.writeheader()

    def append(self, row):
        self._writer.writerow({k: "" if isinstance(v, float) and np.isnan(v) else v for k, v in row.items()})
        self._file.flush()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self._file.close()
        if kind is None:  # files.csv has it all now
            self._path.unlink()


def score_files(predictor, pairs, folder, settings, *, batch_size, workers, subject_regex, masks, panels):
    """Segment every pair; write masks and panels where asked for, the worksheets and summary.json.

    masks: write ``masks/<stem>.png``. panels: ``png``, ``jpg`` or None for ``panels/<stem>``.
    Returns the summary, None where no file had a mask.
    """
    labels = predictor.labels
    for name, wanted in (("masks", masks), ("panels", panels)):
        if wanted:
            (folder / name).mkdir()
    worksheets.write_json(folder / "settings.json", settings)
    natives = {}  # stem -> native image, while its frame is under way

    def frames():
        for frame, image in evaluation.read_frames(predictor, pairs, workers):
            if panels:
                natives[frame.pair.stem] = image
            yield frame

    rows, confusions, empty = [], [], []
    size = labels.count
    columns = evaluation.row_names(labels, scored=any(pair.mask for pair in pairs))
    with PartialCsv(folder, columns) as partial:
        results = evaluation.segment(predictor, frames(), batch_size)
        for result in tqdm(results, "frames", len(pairs), unit="frame", leave=False, file=sys.stderr):
            stem = result.frame.pair.stem
            row = evaluation.file_row(result, labels)
            rows.append(row)
            confusions.append(np.zeros((size, size), np.int64) if result.confusion is None else result.confusion)
            if (result.prediction == labels.background).all():
                empty.append(row["file"])
            if masks:
                with paths.whole(folder / "masks" / f"{stem}.png") as beside:
                    write_mask(beside, labels.to_values(result.prediction))
            if panels:
                maps = {} if result.truth is None else {"truth": result.truth}
                caption = f"{stem}  Dice {row['dice']:.4f}" if "dice" in row else stem
                maps["prediction"] = result.prediction
                with paths.whole(folder / "panels" / f"{stem}.{panels}") as beside:
                    figures.save_panel(beside, panels, natives.pop(stem), maps, labels, caption)
            partial.append(row)
        summary, few = _summarise(rows, confusions, labels, subject_regex)
        worksheets.write_files(folder, rows, summary, settings, few)
        if summary is not None:
            worksheets.write_json(folder / "summary.json", summary)
    _report(rows, summary, few, empty, labels, folder)
    return summary


def _summarise(rows, confusions, labels, subject_regex):
    """summary.json's content, and the number of subjects where it is too small; None, None without masks."""
    scored = [i for i, row in enumerate(rows) if "dice" in row]
    if not scored:
        return None, None
    rows = [rows[i] for i in scored]
    stems = [row["file"].rsplit(".", 1)[0] for row in rows]
    subjects = metrics.subjects_of(stems, subject_regex)
    groups = [subject or stem for subject, stem in zip(subjects, stems, strict=True)]
    summary = metrics.summarise(rows, labels, groups)
    summary["pooled"] = metrics.pooled([confusions[i] for i in scored], labels)
    for what in ("missed", "spurious"):
        summary[what] = sum(len(row[what].split(", ")) for row in rows if row[what])
    few = len(set(groups)) if len(set(groups)) < metrics.FEW_SUBJECTS else None
    return summary, few


def _report(rows, summary, few, empty, labels, folder):
    """What a user should read on the terminal."""
    if summary is not None:
        if summary["files"] < len(rows):
            say(f"{len(rows) - summary['files']} of {len(rows)} files have no mask: their scores are blank")
        dice = summary["metrics"]["dice"]
        low, high = dice["ci95"]
        names = [labels.names[c] for c in labels.foreground]
        classes = ", ".join(f"{name} {summary['classes'][name]['dice']['mean']:.4f}" for name in names)
        say(f"Dice {dice['mean']:.6f} (95 % interval {low:.4f} to {high:.4f}), n {dice['n']}; {classes}")
        if few is not None:
            warn(f"only {few} subjects: the interval means little")
    if empty:
        warn(f"{len(empty)} of {len(rows)} predictions are background only: {some(empty)}")
    say(f"written: {folder / 'files.xlsx'}")
