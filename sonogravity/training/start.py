"""Start of a training run: new, from given weights, resumed, or as the repetition of an earlier run."""

from dataclasses import dataclass, replace
from datetime import datetime

from sonogravity.common import files, processes
from sonogravity.common.file_names import LAST, fold_run_name
from sonogravity.common.messages import InputError, say, warn
from sonogravity.datasets.labels import Labels
from sonogravity.datasets.opening import Seen
from sonogravity.modeling import checkpoints
from sonogravity.training import distributed, run_settings, stored_options
from sonogravity.training.optimization import DECAYS, Plan

FINE_TUNING_RATE = 0.1  # factor of the recipe's learning rate for weights that are already trained


def time_stamp():
    """Return the default name of a run: date and time."""
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


@dataclass(frozen=True)
class Beginning:
    """The start of a run: its options, plan and parts, and the checkpoint or settings that it starts from.

    loaded, resumed: Checkpoints; a resumed one is also the loaded one. repeated: settings. Each is None if it does not
    apply. plan: an optimization.Plan. parts: {part of train.py that an experiment replaces: name of the replacement}.
    seen: what earlier folds have found in the same data.
    named: whether the user chose the run's name; otherwise a number is added to it if another run has it.
    """

    options: object
    plan: Plan
    parts: dict
    loaded: object = None
    resumed: object = None
    repeated: dict | None = None
    seen: Seen | None = None
    named: bool = True

    @property
    def new_head(self):
        """Return whether the loaded weights are used without their head."""
        return self.options.new_head and self.resumed is None

    @property
    def known_labels(self):
        """Return the classes of the loaded weights, or of the run to repeat; None if the masks decide."""
        if self.repeated:
            return Labels.from_dict(self.repeated["labels"])
        return None if self.loaded is None or self.new_head else self.loaded.labels


def begin(options, model_class, parts=None):
    """Return the Beginning for the options of train.py.

    With --load, architecture options that were not given are taken from the file. parts: the keyword arguments of
    train.py's ``train``; a run to resume or repeat must have had the same.
    """
    parts = {name: _described(part) for name, part in (parts or {}).items() if part is not None}
    ways = [name for name in ("load", "pretrained", "resume", "repeat") if getattr(options, name, None) is not None]
    if len(ways) > 1:
        raise InputError(f"--{ways[0]} and --{ways[1]}: both determine how the run starts; give only one of them")
    if options.resume is not None:
        return _resume(options, options.resume, model_class, parts)
    if options.repeat is not None:
        return _repeat(options, options.repeat, model_class, parts)
    if processes.may_restart() and options.name is None:
        raise InputError("torchrun --max-restarts: a restart finds the run by its name; give --name")
    named = options.name is not None or options.fold is not None  # the name of a fold ends in its number
    name = options.name or distributed.broadcast(time_stamp())
    if options.fold is not None:
        _check_fold(options)
        name = fold_run_name(name, options.fold)
    options = options.with_given(name=name)
    if options.load is None and options.new_head:
        raise InputError("--new-head: replaces the head of the --load file; give both options, or neither")
    if options.normalise not in (None, "none") and not ways:
        raise InputError("--normalise: is for the weights of --load or --pretrained; give one of them, or leave it out")
    if options.freeze_encoder and not ways:
        raise InputError("--freeze-encoder: needs trained weights; give --load or --pretrained")
    loaded = None
    if options.load is not None:
        file = checkpoints.find_checkpoint(options.load, options.checkpoints / model_class.NAME)
        options = options.with_given(load=file)
        loaded = checkpoints.load(file, model_class, options.normalise)
        options = _adopt(options, loaded)
    usual = "imagenet" if "pretrained" in ways else "none"  # torchvision's weights were trained with it
    options = options.with_given(normalise=options.normalise or usual)
    last = options.checkpoints / model_class.NAME / options.name / LAST
    if (processes.restarted() or options.fold is not None) and last.is_file():
        say(f"{'restarted by torchrun' if processes.restarted() else 'run exists'}: resumes from {last}")
        return _resume(options, last, model_class, parts, wanted=options)
    _check_augmentation(options, parts)
    return Beginning(options, Plan([[0, options.epochs]]), parts, loaded, named=named)


def _check_fold(options):
    if options.folds is None or options.fold > options.folds:
        raise InputError(f"--fold {options.fold}: give the number of folds K with --folds, and a fold from 1 to K")


def _described(part):
    """Return the name of a part for settings.json; for a ``functools.partial`` that of its function."""
    part = getattr(part, "func", part)
    part = part if hasattr(part, "__qualname__") else type(part)
    return f"{part.__module__}.{part.__qualname__}"


def _check_augmentation(options, parts):
    if "augmentation" in parts and not options.augment:
        raise InputError("--no-augment: contradicts the augmentation passed to train.py; remove one of the two")


def _refuse_other_parts(settings, parts, path):
    """Raise InputError if the parts differ from those of the run, because the training would differ unnoticed."""
    earlier = settings["parts"]
    if earlier != parts:
        words = [", ".join(f"{name} {part}" for name, part in each.items()) or "none" for each in (earlier, parts)]
        raise InputError(
            f"{path}: was trained with parts passed to train.py ({words[0]}), now they are {words[1]}; pass the same"
        )


def _resume(options, path, model_class, parts, wanted=None):
    """Resume a run. If ``wanted`` is given, every option must equal the one the run started with."""
    resumed = checkpoints.load(path, model_class)
    if resumed.training is None:
        raise InputError(f"{path}: holds weights only; resume from last.pth beside it, or start a new run with --load")
    settings = run_settings.checked(resumed.training["settings"], path, model_class.NAME)
    resumed = replace(resumed, training={**resumed.training, "settings": settings})
    _refuse_other_parts(settings, parts, path)
    options = stored_options.take_up(options, settings["options"], path, stored_options.FREE_ON_RESUME)
    if wanted is not None:  # folds with different options must not be scored together
        stored_options.refuse_differences(wanted, options, path, stored_options.FREE_ON_RESUME)
    expected = files.absolute(options.checkpoints) / resumed.model_name / options.name
    if files.absolute(path).parent != expected:
        raise InputError(f"{path}: belongs in {expected}; move it back, or give --checkpoints ROOT and --results ROOT")
    options = options.with_given(load=None)  # the run already contains its weights
    earlier = Plan.from_stored(settings["plan"])
    plan = earlier.lengthened(resumed.epoch, options.epochs)
    if plan != earlier and options.scheduler in DECAYS:
        warn(
            f"--epochs {options.epochs}: the {options.scheduler} schedule was planned for "
            f"{earlier.epochs(resumed.epoch)} epochs, so the learning rate jumps when the run is resumed"
        )
    return Beginning(options, plan, parts, resumed, resumed)


def _repeat(options, path, model_class, parts):
    settings = run_settings.read(path, model_class.NAME)
    _refuse_other_parts(settings, parts, path)
    run = stored_options.take_up(options, settings["options"], path, stored_options.FREE_ON_REPEAT)
    device = options.device if "device" in options.given else settings["device"]
    named = options.name is not None
    options = run.with_given(name=options.name or distributed.broadcast(time_stamp()), device=device)
    loaded = checkpoints.load(options.load, model_class, options.normalise) if options.load else None
    return Beginning(options, Plan.from_stored(settings["plan"]), parts, loaded, None, settings, named=named)


def _adopt(options, loaded):
    """Return options with the scale and architecture of a loaded file and a lower rate, unless they were given."""
    adopted = {}
    kept = {"channels" if name == "in_channels" else name: value for name, value in loaded.model_options.items()}
    if loaded.scale is not None:
        kept["scale"] = loaded.scale
    if loaded.normalise != "none":
        kept["normalise"] = loaded.normalise
    for name, value in kept.items():
        if name != "classes" and name not in options.given and getattr(options, name) != value:
            option = name.replace("_", "-")
            shown = f"--{'' if value else 'no-'}{option}" if isinstance(value, bool) else f"--{option} {value}"
            say(f"{loaded.path.name}: {shown}, as in the file")
            adopted[name] = value
    if "learning_rate" not in options.given:
        adopted["learning_rate"] = options.learning_rate * FINE_TUNING_RATE
        say(f"--load: learning rate {adopted['learning_rate']:g}, {FINE_TUNING_RATE:g} of the usual one (-l sets it)")
    return options.with_given(**adopted)
