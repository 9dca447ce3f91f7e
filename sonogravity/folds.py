"""Cross-validation by subject: each frame is scored once, by a model that has seen no frame of its subject.

Frames of one subject are near copies, so folds that part frames rather than subjects flatter (Varoquaux and Cheplygina,
npj Digital Medicine 2022).
"""

import sys
from collections import Counter

from sonogravity import cli, paths, stored
from sonogravity.errors import InputError, process_count, say, some, warn
from sonogravity.metrics import subjects_of

SCRIPT = "folds"  # in settings.json of the scores of all folds


def assign(subjects, count):
    """A subject for each frame -> {subject: fold, from 1}: the largest first, each to the fold of fewest frames."""
    frames = Counter(subjects)
    sizes = dict.fromkeys(range(1, count + 1), 0)
    folds = {}
    for subject in sorted(frames, key=lambda subject: (-frames[subject], subject)):
        fold = min(sizes, key=lambda fold: (sizes[fold], fold))
        folds[subject] = fold
        sizes[fold] += frames[subject]
    return folds


def part(pairs, count, regex, folder):
    """The pairs of a folder -> (the fold of each pair, the subject of each pair).

    InputError where a file name gives no subject, or where there are fewer subjects than folds.
    """
    subjects = subjects_of([pair.stem for pair in pairs], regex)
    unknown = [pair.image.name for pair, subject in zip(pairs, subjects, strict=True) if not subject]
    if unknown:
        raise InputError(
            f"--folds {count}: {len(unknown)} of {len(pairs)} file names in {folder} give no subject "
            f"({some(unknown)}); folds part subjects, so say how to read them with --subject-regex"
        )
    if len(set(subjects)) < count:
        raise InputError(
            f"--folds {count}: {folder} has {len(set(subjects))} subjects ({some(sorted(set(subjects)), 8)}); ask for "
            "that many folds at most, or say how to read subjects with --subject-regex"
        )
    of_subject = assign(subjects, count)
    return [of_subject[subject] for subject in subjects], subjects


def describe(folds, subjects):
    """The folds in lines: each with its subjects and frames."""
    lines = []
    for fold in sorted(set(folds)):
        own = [subject for each, subject in zip(folds, subjects, strict=True) if each == fold]
        listed = ", ".join(f"{subject} ({frames})" for subject, frames in sorted(Counter(own).items()))
        lines.append(f"{'folds:' if fold == 1 else '':<12}{fold}: {len(own)} frames of {listed}")
    return lines


def run_name(name, fold):
    """The name of the run of one fold."""
    return f"{name}_fold_{fold}"


def train_each(main, parser, argv, model_class):
    """Train every fold as a run of its own, RUN_fold_1 and so on, then score them together.

    main: train.py's, called once a fold. A fold that was begun goes on, one that is done is kept.
    """
    options = parser.parse_args(argv)
    argv = sys.argv[1:] if argv is None else argv
    if options.resume or options.repeat:
        raise InputError("--folds: --resume and --repeat take the file of one fold; leave --folds out")
    if process_count() > 1:
        raise InputError(
            "torchrun trains one fold at a time: give --fold as well; afterwards, without torchrun, the "
            "same command without --fold scores them together"
        )
    if options.load is not None:
        warn(f"--load: if {options.load.name} has learned from any of these subjects, the folds' scores flatter")
    name = options.name or cli.time_stamp()
    if options.name is None:
        say(f"named {name}: if this is stopped, the same command with --name {name} goes on")
    folder = options.results / model_class.NAME / f"{name}_folds"
    paths.refuse_foreign(folder, SCRIPT, "another --name")
    for fold in range(1, options.folds + 1):
        say(f"\nfold {fold} of {options.folds}: {run_name(name, fold)}")
        main([*argv, "--name", name, "--fold", str(fold)])
        if options.check:
            return 0
    from sonogravity import crossvalidation, scoring

    root = options.checkpoints / model_class.NAME
    files = [root / run_name(name, fold) / "last.pth" for fold in range(1, options.folds + 1)]
    request = scoring.Request(
        SCRIPT,
        [options.train],
        options.batch_size,
        options.workers,
        options.subject_regex,
        stored.options_as_dict(options),
        output=folder,
    )
    crossvalidation.score(request, files, model_class, options.device)
    return 0
