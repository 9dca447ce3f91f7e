"""The common part of predict.py and evaluate.py: open checkpoints, segment frames, score and write them."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from sonogravity.commands.scoring_options import scoring_values
from sonogravity.commands.spacings import choose_spacings
from sonogravity.common import folders, provenance
from sonogravity.common.devices import describe_use
from sonogravity.common.files import absolute, short
from sonogravity.common.messages import InputError, say, some, warn
from sonogravity.common.threads import say_if_busy
from sonogravity.common.workers import ahead, decoding_threads, threads_beside
from sonogravity.datasets.facts import count_values
from sonogravity.datasets.frame_files import read_mask_file
from sonogravity.datasets.inputs import WHOLE, Part, find_input_pairs
from sonogravity.datasets.label_checks import background_warning
from sonogravity.datasets.label_discovery import MANY_VALUES, common_palette, most_likely_background
from sonogravity.datasets.labels import Labels, value_text
from sonogravity.datasets.mask_inputs import find_mask_pairs
from sonogravity.datasets.spacing import ASSUMED
from sonogravity.datasets.subjects import Subjects
from sonogravity.inference import segmentation
from sonogravity.inference.engines import fastest, use
from sonogravity.inference.ensemble import Ensemble
from sonogravity.inference.predictor import open_all
from sonogravity.metrics.file_scores import Measure
from sonogravity.modeling.checkpoints import find_checkpoint
from sonogravity.reporting import overlay_video, score_files


@dataclass(frozen=True)
class Request:
    """The options that predict and evaluate share: input, output and settings.

    script: predict writes masks (and panels) and takes frames without a mask; evaluate writes only scores and needs a
    mask per frame; with ``_w_margin`` both have a margin_mm. output: if None, results/<model>/<run>/<script>.
    subjects: where those of the files stand. options: all options of the command line, for settings.json.
    """

    script: str
    inputs: list
    batch_size: int
    workers: int | None
    subjects: Subjects
    options: dict
    masks: Path | None = None
    use_masks: bool = True
    output: Path | None = None
    pixels_per_mm: float | None = None
    spacing: Path | None = None
    part: Part = WHOLE
    panels: str | None = None
    panels_of_clips: bool = False
    video: bool = False
    mask_format: str | None = None
    margin_mm: float | None = None
    engine: str = "torch"
    int8: bool = False
    tta: str = "none"
    grey_masks: bool = False

    @property
    def predicting(self):
        """Whether the script writes masks."""
        return self.script.startswith("predict")

    def output_folder(self, model_name, run):
        """Return the folder of the results."""
        return self.output or folders.RESULTS / model_name / run / self.script

    def has_panel(self, pair):
        """Return whether a panel of the frame is written: for frames of clips only if the user asked for panels."""
        return self.panels is not None and (self.panels_of_clips or not pair.image.is_numbered)

    def has_video(self, pair):
        """Return whether the frame is part of an overlay video."""
        return self.video and pair.image.is_of_several and overlay_video.is_small_enough(pair.image)

    def is_shown(self, pair):
        """Return whether the frame's image is needed after the network has seen it."""
        return self.has_panel(pair) or self.has_video(pair)

    def measure(self, labels, pairs):
        """Return the Measure of the pairs' files. Say which spacing is used; warn if the margin assumes one."""
        spacings = choose_spacings(self, [pair.image for pair in pairs])
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
        score_predictions(model_class.NAME, options, request)
        return
    opened = open_all(
        [find_checkpoint(path, folders.CHECKPOINTS / model_class.NAME) for path in options.load],
        model_class,
        device=options.device,
        amp=options.amp,
        scale=options.scale,
        mask_values=options.mask_values,
        ignored=options.ignore,
        normalise=options.normalise,
    )
    score_inputs(opened, request)


def score_inputs(opened, request):
    """Segment and score the frames of a Request and write the results. opened: from open_all."""
    pairs, notes = find_input_pairs(
        request.inputs,
        request.masks,
        partial=request.predicting,
        use_masks=request.use_masks,
        part=request.part,
    )
    for note in notes:
        warn(note)
    request = _without_impossible_video(request, pairs)
    first, main_checkpoint = next(iter(opened.values()))
    measure = request.measure(first.labels, pairs)
    predictor = _together(opened, pairs, request)
    _describe(opened, predictor)
    sources = [
        {"path": str(absolute(checkpoint.path)), "run": checkpoint.run, "epoch": checkpoint.epoch}
        for _, checkpoint in opened.values()
    ]
    natives = {}  # {stem: image at native size}, for panels and videos of the frames in progress

    def frames():
        threads = threads_beside(request.workers, predictor.device)
        for frame, image in segmentation.read_frames(predictor, pairs, threads):
            if request.is_shown(frame.pair):
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
    columns = score_files.columns_of(predictor)
    return score_files.write_scores(results, pairs, folder, measure, settings, request, natives, more=columns)


def _without_impossible_video(request, pairs):
    """Return the Request, without overlay videos if none can be written here. Warn of clips that get none."""
    clips = {pair.image.path: pair for pair in pairs if pair.image.is_of_several} if request.video else {}
    if not clips:
        return request
    if reason := overlay_video.reason_for_none():
        warn(f"no overlay video is written: {reason}")
        return replace(request, video=False)
    large = [path.name for path, pair in clips.items() if not request.has_video(pair)]
    if large:
        warn(
            f"no overlay video is written of {len(large)} clips ({some(large)}): their frames are more than "
            f"{overlay_video.LARGEST_SIDE} pixels wide or high"
        )
    return request


def _describe(opened, predictor):
    """Print which models are used, and how."""
    for _, checkpoint in opened.values():
        epoch = "" if checkpoint.epoch is None else f", epoch {checkpoint.epoch}"
        say(f"model:      {checkpoint.path}, {checkpoint.model_name}{epoch}")
    used = predictor.describe()
    say(f"runs on:    {describe_use(used['device'], used['mixed_precision'])}, engine {used['engine']}")
    say_if_busy()


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


def score_predictions(model_name, options, request):
    """Score masks of any origin against the true masks of the inputs, without a model.

    options: of evaluate.py, with ``predictions``, the folder of these masks.
    """
    pairs, found, notes = find_mask_pairs(request.inputs, request.masks, options.predictions, request.part)
    for note in notes:
        warn(note)
    threads = decoding_threads(request.workers)
    labels = _labels_of_truth(pairs, options, threads)
    own_labels = labels
    if options.prediction_values:
        if len(set(options.prediction_values)) != labels.count:
            raise InputError(
                f"--prediction-values: {len(set(options.prediction_values))} values for {labels.count} classes "
                f"({labels.describe()}); give one per class, all different, in this order"
            )
        own_labels = replace(labels, values=tuple(options.prediction_values), ignored=(), palette={})
        say(f"prediction values: {', '.join(map(value_text, options.prediction_values))}, in the order of the classes")
    measure = request.measure(labels, pairs)
    own = absolute(options.predictions)
    folder = request.output_folder(model_name, own.parent.name if own.name == "masks" else own.name)
    voids = []
    results = segmentation.read_predictions(pairs, found, labels, own_labels, threads, voids)
    settings = describe_settings(request, labels) | {"predictions": own.name}
    score_files.write_scores(results, pairs, folder, measure, settings, request)
    if voids:
        warn(
            f"{len(voids)} predictions hold ignored values ({some(voids)}), which count as background where the truth "
            "is not ignored"
        )


def _labels_of_truth(pairs, options, threads):
    """The Labels of the true masks, or of --mask-values; said, with a warning if the background is not most pixels."""

    def look(pair):
        values, palette = read_mask_file(pair.mask)
        return pair.mask, palette, count_values(values)

    masks = list(ahead(look, pairs, threads))
    ignored, totals = options.ignore or (), Counter()
    for _, _, counts in masks:
        totals.update({value: pixels for value, pixels in counts.items() if value not in ignored})
    values = options.mask_values or sorted(totals)
    if len(values) > MANY_VALUES:
        raise InputError(
            f"{pairs[0].mask.path.parent}: the true masks hold {len(values)} values, as images or JPEG files do; "
            "give a folder of masks, or list the values of the classes with --mask-values"
        )
    background = options.background
    if background is None:
        background = most_likely_background(totals, values)
    labels = Labels.create(values, background, options.class_names, ignored=ignored, palette=common_palette(masks))
    say(f"classes: {labels.describe()}")
    if options.background is None and (warning := background_warning(labels, totals)):
        warn(warning)
    return labels


def describe_settings(request, labels):
    """Return the entries of settings.json and of the Settings sheet that all scripts share."""
    return {
        "script": request.script,
        "options": request.options,
        "labels": labels.as_dict(),
        "commit": provenance.commit(),
        "versions": provenance.describe_versions(),
    }
