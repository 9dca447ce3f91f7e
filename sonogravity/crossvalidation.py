"""The runs of all folds scored together: every frame by the model that has seen no frame of its subject."""

from sonogravity import devices, evaluation, folds, paths, reporting, scoring, stored
from sonogravity.errors import say
from sonogravity.pairs import find_training_pairs


def score(options, name, model_class):
    """Segment each fold's frames with its run's last weights; write files.xlsx and the rest to results' RUN_folds.

    The last weights, not the best: the best were chosen by these very frames, so their scores would flatter.
    """
    pairs, _ = find_training_pairs(options.train)
    of_pairs, subjects = folds.part(pairs, options.folds, options.subject_regex, options.train)
    groups = {
        pair.stem: {"fold": fold, "subject": subject}
        for pair, fold, subject in zip(pairs, of_pairs, subjects, strict=True)
    }
    pairs = sorted(pairs, key=lambda pair: groups[pair.stem]["fold"])
    numbers = range(1, options.folds + 1)
    root = options.checkpoints / model_class.NAME
    files = {fold: root / folds.run_name(name, fold) / "last.pth" for fold in numbers}

    def open_fold(fold):
        return scoring.open_predictor(
            files[fold], model_class, device=options.device, amp=None, scale=None, mask_values=None
        )

    def results():
        for fold in numbers:
            predictor = first if fold == 1 else open_fold(fold)[0]
            own = [pair for pair in pairs if groups[pair.stem]["fold"] == fold]
            threads = devices.threads_beside(options.workers, predictor.device)
            frames = (frame for frame, _ in evaluation.read_frames(predictor, own, threads))
            yield from evaluation.segment(predictor, frames, options.batch_size)

    first, _ = open_fold(1)
    request = scoring.Request(
        "folds", [options.train], options.batch_size, options.workers, options.subject_regex,
        stored.options_as_dict(options),
    )  # fmt: skip
    settings = scoring.describe(request, first.labels) | {
        "checkpoints": [str(paths.absolute(file)) for file in files.values()],
        "used": first.describe(),
    }
    say(f"\nthe {options.folds} folds together, each frame by the last epoch of the run that has not seen its subject:")
    folder = options.results / model_class.NAME / f"{name}_folds"
    return reporting.write_scores(
        results(), pairs, folder, request.measure(first.labels, pairs), settings, request, groups=groups
    )
