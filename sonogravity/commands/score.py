"""The common part of predict.py and evaluate.py: open checkpoints, segment frames, score and write them."""

from dataclasses import replace

from sonogravity.commands.request import Request, describe_settings
from sonogravity.commands.score_masks import score_predictions
from sonogravity.commands.scoring_options import scoring_values
from sonogravity.common import folders
from sonogravity.common.devices import describe_use
from sonogravity.common.files import absolute, short
from sonogravity.common.messages import InputError, say, some, warn
from sonogravity.common.threads import say_if_busy
from sonogravity.common.workers import threads_beside
from sonogravity.datasets.clips import check_times, with_unlabelled
from sonogravity.datasets.inputs import find_input_pairs
from sonogravity.inference import segmentation
from sonogravity.inference.engines import fastest, use
from sonogravity.inference.ensemble import Ensemble
from sonogravity.inference.predictor import open_all
from sonogravity.inference.smoothing import Smoothing
from sonogravity.modeling.checkpoints import find_checkpoint
from sonogravity.reporting import overlay_video, score_files


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
    seen = pairs if request.smooth_seconds is None else _frames_to_smooth(pairs, request)
    first, main_checkpoint = next(iter(opened.values()))
    measure = request.measure(first.labels, pairs)
    predictor = _together(opened, pairs, request)
    _describe(opened, predictor, request.smooth_seconds)
    sources = [
        {"path": str(absolute(checkpoint.path)), "run": checkpoint.run, "epoch": checkpoint.epoch}
        for _, checkpoint in opened.values()
    ]
    natives = {}  # {stem: image at native size}, for panels and videos of the frames in progress

    def frames():
        threads = threads_beside(request.workers, predictor.device)
        for frame, image in segmentation.read_frames(predictor, seen, threads):
            if request.is_shown(frame.pair):
                natives[frame.pair.stem] = image
            yield frame

    results = segmentation.segment(
        predictor,
        frames(),
        request.batch_size,
        requested=segmentation.Requested(certainty=True, reliability=not request.predicting),
        smoothing=request.smooth_seconds and Smoothing(request.smooth_seconds),
    )
    if len(seen) > len(pairs):
        results = (result for result in results if result.truth is not None)
    settings = describe_settings(request, predictor.labels) | {
        "checkpoint": sources[0] if len(sources) == 1 else sources,
        "used": predictor.describe() | request.describe_smoothing(),
    }
    run = short("_and_".join(checkpoint.run or checkpoint.path.stem for _, checkpoint in opened.values()))
    folder = request.output_folder(main_checkpoint.model_name, run)
    columns = score_files.columns_of(predictor)
    return score_files.write_scores(results, pairs, folder, measure, settings, request, natives, more=columns)


def _frames_to_smooth(pairs, request):
    """Return the Pairs of the frames that the network sees if their logits are smoothed over time.

    The label of a frame depends on the frames before it. Therefore evaluate also needs those that it does not score, to
    give a frame the score that predict gives it.
    """
    seen = pairs if request.predicting else with_unlabelled(pairs, request.part)
    for note in check_times(pair.image for pair in seen):
        warn(note)
    return seen


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


def _describe(opened, predictor, smooth_seconds):
    """Print which models are used, and how."""
    for _, checkpoint in opened.values():
        epoch = "" if checkpoint.epoch is None else f", epoch {checkpoint.epoch}"
        say(f"model:      {checkpoint.path}, {checkpoint.model_name}{epoch}")
    used = predictor.describe()
    say(f"runs on:    {describe_use(used['device'], used['mixed_precision'])}, engine {used['engine']}")
    if smooth_seconds is not None:
        say(f"smoothing:  logits of the frames of clips, time constant {smooth_seconds:g} s (causal)")
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
