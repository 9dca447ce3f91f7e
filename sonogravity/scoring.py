"""What predict.py and evaluate.py of all models share: a checkpoint opened, files scored and written."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sonogravity import checkpoints, data, devices, evaluation, paths, reporting, runs
from sonogravity.calibration import ASSUMED, calibrate
from sonogravity.decoding import decode_mask
from sonogravity.engines import fastest, use
from sonogravity.ensemble import Ensemble
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


def open_all(files, model_class, **options):
    """Checkpoints -> {path: (Predictor, Checkpoint)}, in order; options: as of open_predictor."""
    if doubles := [file for file, count in Counter(map(paths.absolute, files)).items() if count > 1]:
        raise InputError(f"--load: {some(doubles)} is given twice; in an ensemble each file counts once")
    return {file: open_predictor(file, model_class, **options) for file in files}


@dataclass(frozen=True)
class Request:
    """What to score and where to write it: the options that predict and evaluate share.

    script: predict writes masks (and panels) and takes frames without a mask; evaluate writes scores only and wants a
    mask for each; with ``_w_margin`` both have a margin_mm. output: None takes results/<model>/<run>/<script>.
    options: all of the command line, for settings.json.
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


def score_inputs(opened, request):
    """Find the frames, claim the output folder, then segment, score and write. opened: of open_all."""
    pairs, notes = find_input_pairs(request.inputs, request.masks, partial=request.predicting)
    for note in notes:
        warn(note)
    first, main_checkpoint = next(iter(opened.values()))
    measure = request.measure(first.labels, pairs)
    predictor = _together(opened, pairs, request)
    sources = [
        {"path": str(paths.absolute(checkpoint.path)), "run": checkpoint.run, "epoch": checkpoint.epoch}
        for _, checkpoint in opened.values()
    ]
    natives = {}  # stem -> native image, while its frame is under way

    def frames():
        threads = devices.threads_beside(request.workers, predictor.device)
        for frame, image in evaluation.read_frames(predictor, pairs, threads):
            if request.panels:
                natives[frame.pair.stem] = image
            yield frame

    results = evaluation.segment(
        predictor, frames(), request.batch_size, certain=True, calibrate=not request.predicting
    )
    settings = describe(request, predictor.labels) | {
        "checkpoint": sources[0] if len(sources) == 1 else sources,
        "used": predictor.describe(),
    }
    run = paths.short("_and_".join(checkpoint.run or checkpoint.path.stem for _, checkpoint in opened.values()))
    folder = request.output_folder(main_checkpoint.model_name, run)
    return reporting.write_scores(results, pairs, folder, measure, settings, request, natives)


def _together(opened, pairs, request):
    """The predictors with the engine asked for, as one predictor."""
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
    return reporting.write_scores(results, pairs, folder, measure, settings, request, certain=False)


def describe(request, labels):
    """The content of settings.json and of the Settings sheet, as far as all scripts share it."""
    return {
        "script": request.script,
        "options": request.options,
        "labels": labels.as_dict(),
        "commit": runs.commit(),
        "versions": runs.describe_versions(),
    }
