"""The common part of predict.py and evaluate.py: open checkpoints, segment frames, score and write them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sonogravity.commands.options import scoring_values
from sonogravity.common import folders, provenance
from sonogravity.common.files import absolute, short
from sonogravity.common.messages import InputError, say, some, warn
from sonogravity.common.workers import ahead, decoding_threads, threads_beside
from sonogravity.datasets.image_files import decode_mask
from sonogravity.datasets.labels import Labels
from sonogravity.datasets.pairs import find_input_pairs, find_mask_pairs
from sonogravity.datasets.spacing import ASSUMED, find_spacings
from sonogravity.inference import segmentation
from sonogravity.inference.engines import fastest, use
from sonogravity.inference.ensemble import Ensemble
from sonogravity.inference.predictor import open_all
from sonogravity.metrics.file_scores import Measure
from sonogravity.modeling.checkpoints import find_checkpoint
from sonogravity.reporting import score_files

MANY_VALUES = 32  # more values than this suggest images, not masks


@dataclass(frozen=True)
class Request:
    """The options that predict and evaluate share: input, output and settings.

    script: predict writes masks (and panels) and takes frames without a mask; evaluate writes only scores and needs a
    mask per frame; with ``_w_margin`` both have a margin_mm. output: if None, results/<model>/<run>/<script>.
    options: all options of the command line, for settings.json.
    """

    script: str
    inputs: list
    batch_size: int
    workers: int | None
    subject_regex: str | None
    options: dict
    masks: Path | None = None
    output: Path | None = None
    pixels_per_mm: float | None = None
    spacing: Path | None = None
    panels: str | None = None
    margin_mm: float | None = None
    engine: str = "torch"
    int8: bool = False
    tta: str = "none"

    @property
    def predicting(self):
        """Whether the script writes masks."""
        return self.script.startswith("predict")

    def output_folder(self, model_name, run):
        """Return the folder of the results."""
        return self.output or folders.RESULTS / model_name / run / self.script

    def measure(self, labels, pairs):
        """Return the Measure of the pairs' files. Warn if the margin relies on an assumed spacing."""
        files = [pair.image.name for pair in pairs]
        spacings = find_spacings(files, self.pixels_per_mm, self.spacing)
        if self.margin_mm is not None:
            self._warn_of_margin(spacings)
        return Measure(labels, spacings, self.margin_mm)

    def _warn_of_margin(self, spacings):
        if any(each.assumed for each in spacings.values()):
            near = [table for path in self.inputs if (table := path.parent / "spacing.csv").is_file()]
            hint = f" ({near[0]} may be the table)" if near else ""
            warn(
                f"without --pixels-per-mm or --spacing{hint}, {ASSUMED.x} pixels per mm are ASSUMED, so the margin of "
                f"{self.margin_mm:g} mm is {self.margin_mm * ASSUMED.x:.3g} pixels; boundary metrics stay in pixels"
            )
        still = [file for file, each in spacings.items() if self.margin_mm * max(each.x, each.y) < 1]
        if still:
            warn(f"the margin is below one pixel in {len(still)} files and has no effect on them: {some(still)}")


def score(script, model_class, options):
    """Run predict.py or evaluate.py, with or without a margin. options: those of scoring_parser."""
    request = Request(script, **scoring_values(options))
    if getattr(options, "predictions", None):
        score_predictions(model_class.NAME, options.predictions, options.mask_values, request)
        return
    opened = open_all(
        [find_checkpoint(path, folders.CHECKPOINTS / model_class.NAME) for path in options.load],
        model_class,
        device=options.device,
        amp=options.amp,
        scale=options.scale,
        mask_values=options.mask_values,
    )
    score_inputs(opened, request)


def score_inputs(opened, request):
    """Segment and score the frames of a Request and write the results. opened: from open_all."""
    pairs, notes = find_input_pairs(request.inputs, request.masks, partial=request.predicting)
    for note in notes:
        warn(note)
    first, main_checkpoint = next(iter(opened.values()))
    measure = request.measure(first.labels, pairs)
    predictor = _together(opened, pairs, request)
    sources = [
        {"path": str(absolute(checkpoint.path)), "run": checkpoint.run, "epoch": checkpoint.epoch}
        for _, checkpoint in opened.values()
    ]
    natives = {}  # {stem: image at native size}, for the panels of the frames in progress

    def frames():
        threads = threads_beside(request.workers, predictor.device)
        for frame, image in segmentation.read_frames(predictor, pairs, threads):
            if request.panels:
                natives[frame.pair.stem] = image
            yield frame

    results = segmentation.segment(
        predictor, frames(), request.batch_size, certain=True, calibrate=not request.predicting
    )
    settings = describe_settings(request, predictor.labels) | {
        "checkpoint": sources[0] if len(sources) == 1 else sources,
        "used": predictor.describe(),
    }
    run = short("_and_".join(checkpoint.run or checkpoint.path.stem for _, checkpoint in opened.values()))
    folder = request.output_folder(main_checkpoint.model_name, run)
    return score_files.write_scores(results, pairs, folder, measure, settings, request, natives)


def _together(opened, pairs, request):
    """Return one predictor: the models with the chosen engine, as an Ensemble if there are several models or views."""
    if request.engine == "auto":
        members = {file: _fastest(predictor, file, pairs) for file, (predictor, _) in opened.items()}
    else:
        members = {file: use(request.engine, predictor, file, request.int8) for file, (predictor, _) in opened.items()}
    if len(members) == 1 and request.tta == "none":
        return next(iter(members.values()))
    return Ensemble(members, request.tta)


def _fastest(predictor, path, pairs):
    if masked := [pair.mask.name for pair in pairs if pair.mask]:
        raise InputError(
            f"--engine auto: {len(masked)} of {len(pairs)} frames have masks ({some(masked)}), and scores must not "
            "depend on the speed of the engines; name an engine, or give frames without masks"
        )
    return fastest(predictor, path, pairs)


def score_predictions(model_name, predictions, mask_values, request):
    """Score masks of any origin against the true masks of the inputs, without a model.

    predictions: the folder of these masks. mask_values: one per class; None takes the values of the true masks.
    """
    pairs, found, notes = find_mask_pairs(request.inputs, request.masks, predictions)
    for note in notes:
        warn(note)
    threads = decoding_threads(request.workers)
    if mask_values is None:
        present = ahead(lambda pair: np.unique(decode_mask(pair.mask)), pairs, threads)
        mask_values = sorted(set().union(*(values.tolist() for values in present)))
        if len(mask_values) > MANY_VALUES:
            raise InputError(
                f"{pairs[0].mask.parent}: the true masks have {len(mask_values)} values, as images or JPEG files do; "
                "give a folder of masks, or list the values of the classes with --mask-values"
            )
    labels = Labels.create(mask_values)
    say(f"classes: {labels.describe()}")
    measure = request.measure(labels, pairs)
    own = absolute(predictions)
    folder = request.output_folder(model_name, own.parent.name if own.name == "masks" else own.name)
    results = segmentation.read_predictions(pairs, found, labels, threads)
    settings = describe_settings(request, labels) | {"predictions": str(own)}
    return score_files.write_scores(results, pairs, folder, measure, settings, request, certain=False)


def describe_settings(request, labels):
    """Return the entries of settings.json and of the Settings sheet that all scripts share."""
    return {
        "script": request.script,
        "options": request.options,
        "labels": labels.as_dict(),
        "commit": provenance.commit(),
        "versions": provenance.describe_versions(),
    }
