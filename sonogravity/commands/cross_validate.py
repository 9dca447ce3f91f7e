"""Cross-validation by subject: each frame is scored once, by a model that has seen no frame of its subject.

Frames of one subject are near copies, so folds that split frames rather than subjects give scores that are too high
(Varoquaux and Cheplygina, npj Digital Medicine 2022).
"""

from dataclasses import replace

from sonogravity.commands.request import Request, describe_settings
from sonogravity.common import claims, workers
from sonogravity.common.file_names import LAST, fold_run_name
from sonogravity.common.files import absolute
from sonogravity.common.messages import InputError, say, warn
from sonogravity.common.processes import process_count
from sonogravity.datasets.opening import Seen
from sonogravity.datasets.pairs import find_training_pairs
from sonogravity.datasets.subjects import split_into_folds
from sonogravity.inference import segmentation
from sonogravity.inference.predictor import open_predictor
from sonogravity.reporting import score_files
from sonogravity.reporting.output_folder import refuse_foreign
from sonogravity.training import start, stored_options

SCRIPT = "folds"  # the script's name in settings.json of the joint scores


class CrossValidation:
    """The runs of all folds (RUN_fold_1, ...) and their joint scores.

    An interrupted fold is resumed, a completed one is kept. Raise InputError if the options do not fit folds. In its
    ``with`` block no other process has the name. Entering it raises InputError if one has, or if the folder of the
    joint scores holds other files.
    """

    def __init__(self, options, model_class, parts=None):
        if options.resume or options.repeat:
            raise InputError("--folds: --resume and --repeat take the file of one fold; leave --folds out")
        if process_count() > 1:
            raise InputError(
                "--folds: torchrun trains one fold at a time; give --fold, and after the last fold run the same "
                "command without torchrun and without --fold to score all folds"
            )
        if options.load is not None:
            warn(f"--load: if {options.load.name} was trained on any of these subjects, the folds' scores are too high")
        self._options = options
        self._model_class = model_class
        self._parts = parts
        self._seen = Seen()

    def __enter__(self):
        given = self._options.name
        self.name, self._claims = claims.claim_name(given or start.time_stamp(), given is not None, self._claim)
        if given is None:
            say(f"run {self.name}: if it is interrupted, the same command with --name {self.name} resumes it")
        return self

    def __exit__(self, *error):
        self._claims.close()

    def _claim(self, name, held):
        held.enter_context(claims.claim_file(self._folder(name), ", or give another --name"))
        refuse_foreign(self._folder(name), SCRIPT, "another --name")

    def _folder(self, name):
        return self._options.results / self._model_class.NAME / f"{name}_folds"

    def starts(self):
        """Yield one Beginning per fold; with --check only that of the first fold."""
        for fold in range(1, self._options.folds + 1):
            say(f"\nfold {fold} of {self._options.folds}: {fold_run_name(self.name, fold)}")
            options = self._options.with_given(name=self.name, fold=fold)
            yield replace(start.begin(options, self._model_class, self._parts), seen=self._seen)
            if self._options.check:
                return

    def score(self):
        """Score every frame by the run that was not trained on its subject. Write the joint worksheets."""
        options = self._options
        if options.check:
            return
        root = options.checkpoints / self._model_class.NAME
        names = [fold_run_name(self.name, fold) for fold in range(1, options.folds + 1)]
        request = Request(
            SCRIPT,
            [options.train],
            options.batch_size,
            options.workers,
            self._seen.subjects,
            stored_options.options_as_dict(options),
            output=self._folder(self.name),
        )
        score_folds(request, [root / name / LAST for name in names], self._model_class, options.device, self._seen)


def score_folds(request, files, model_class, device, seen=None):
    """Segment the frames of each fold with the last weights of its run. Write all results to request.output.

    request: a score.Request whose only input is the training folder. files: the last.pth of every fold, in order. The
    best weights are not used: they were chosen on these same frames, so their scores would be too high. seen:
    what the folds that were trained just now have found; the frames must be the same.
    """
    [folder] = request.inputs
    pairs, _ = find_training_pairs(folder)
    if seen is not None:
        seen.refuse_others(pairs, folder)
    of_pairs, subjects = split_into_folds(pairs, len(files), request.subjects, folder)
    groups = {
        pair.stem: {"fold": fold, "subject": subject}
        for pair, fold, subject in zip(pairs, of_pairs, subjects, strict=True)
    }
    pairs = sorted(pairs, key=lambda pair: groups[pair.stem]["fold"])

    def open_fold(file):
        return open_predictor(file, model_class, device=device, amp=None, scale=None, mask_values=None)[0]

    requested = segmentation.Requested(certainty=True, reliability=True)

    def results():
        for fold, file in enumerate(files, 1):
            predictor = first if fold == 1 else open_fold(file)
            own = [pair for pair in pairs if groups[pair.stem]["fold"] == fold]
            threads = workers.threads_beside(request.workers, predictor.device)
            frames = (frame for frame, _ in segmentation.read_frames(predictor, own, threads))
            yield from segmentation.segment(predictor, frames, request.batch_size, requested=requested)

    first = open_fold(files[0])
    settings = describe_settings(request, first.labels) | {
        "checkpoints": [str(absolute(file)) for file in files],
        "used": first.describe(),
    }
    say(f"\nscores of all {len(files)} folds, each frame by the last epoch of the run not trained on its subject:")
    measure, columns = request.measure(first.labels, pairs), score_files.columns_of(first)
    return score_files.write_scores(
        results(), pairs, request.output, measure, settings, request, groups=groups, more=columns
    )
