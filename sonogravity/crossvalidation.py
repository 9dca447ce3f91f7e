"""The runs of all folds scored together: every frame by the model that has seen no frame of its subject."""

from sonogravity import devices, evaluation, folds, paths, reporting, scoring
from sonogravity.errors import say
from sonogravity.pairs import find_training_pairs


def score(request, files, model_class, device):
    """Segment each fold's frames with its run's last weights; write files.xlsx and the rest to request.output.

    request: a scoring.Request whose one input is the training folder. files: the last.pth of every fold, in order. The
    last weights, not the best: the best were chosen by these very frames, so their scores would flatter.
    """
    [folder] = request.inputs
    pairs, _ = find_training_pairs(folder)
    of_pairs, subjects = folds.part(pairs, len(files), request.subject_regex, folder)
    groups = {
        pair.stem: {"fold": fold, "subject": subject}
        for pair, fold, subject in zip(pairs, of_pairs, subjects, strict=True)
    }
    pairs = sorted(pairs, key=lambda pair: groups[pair.stem]["fold"])

    def open_fold(file):
        return scoring.open_predictor(file, model_class, device=device, amp=None, scale=None, mask_values=None)[0]

    def results():
        for fold, file in enumerate(files, 1):
            predictor = first if fold == 1 else open_fold(file)
            own = [pair for pair in pairs if groups[pair.stem]["fold"] == fold]
            threads = devices.threads_beside(request.workers, predictor.device)
            frames = (frame for frame, _ in evaluation.read_frames(predictor, own, threads))
            yield from evaluation.segment(predictor, frames, request.batch_size, certain=True, calibrate=True)

    first = open_fold(files[0])
    settings = scoring.describe(request, first.labels) | {
        "checkpoints": [str(paths.absolute(file)) for file in files],
        "used": first.describe(),
    }
    say(f"\nthe {len(files)} folds together, each frame by the last epoch of the run that has not seen its subject:")
    measure = request.measure(first.labels, pairs)
    return reporting.write_scores(results(), pairs, request.output, measure, settings, request, groups=groups)
