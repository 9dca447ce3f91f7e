"""The options of every train.py, in groups. Nothing here imports torch, so that --help responds at once."""

from pathlib import Path

from sonogravity.commands.options import (
    add_background,
    add_common,
    add_ignore,
    add_normalise,
    add_subjects,
    add_switch,
    class_names,
)
from sonogravity.common import choices, folders
from sonogravity.common.option_types import (
    class_count,
    fold_count,
    natural,
    non_negative_float,
    positive_float,
    positive_int,
    run_name,
    scale_factor,
)


def add_training(parser, *, batch_size, learning_rate, loss, optimizer="adam", scheduler="plateau"):
    """Add the options of training; the defaults are the model's recipe. Return the group of the model's own options."""
    _add_data(parser.add_argument_group("data"))
    model = parser.add_argument_group("model")
    _add_weights(model)
    optimisation = parser.add_argument_group("optimisation")
    add_common(optimisation, batch_size)
    _add_optimisation(optimisation, learning_rate, loss, optimizer, scheduler)
    _add_run(parser.add_argument_group("run"))
    _add_cross_validation(parser.add_argument_group("cross-validation"))
    _add_memory(parser.add_argument_group("memory"))
    return model


def add_depth_channel(group):
    """Add --depth-channel, for models that take the depth of each row as an input."""
    add_switch(
        group,
        "--depth-channel",
        True,
        "add the depth of each row as an input channel: similar patterns can be different tissue at different depths",
    )


def _add_data(group):
    add = group.add_argument
    add("--train", type=Path, default=folders.DATA / "train", metavar="DIR", help="folder with images/ and masks/")
    add(
        "--validation",
        type=Path,
        default=folders.DATA / "validation",
        metavar="DIR",
        help="folder with images/ and masks/",
    )
    add("--scale", "-s", type=scale_factor, default=0.5, metavar="S", help="factor by which frames are resized")
    add("--channels", type=int, choices=(1, 3), default=1, help="1: read frames as grey; 3: as colour")
    add("--classes", "-c", type=class_count, metavar="C", help="number of classes in the masks, with background")
    add("--class-names", type=class_names, metavar="A,B", help="names of foreground classes, by increasing mask value")
    add_background(group)
    add_ignore(group, "default: none")
    add("--snap-masks", action="store_true", help="replace unknown mask values by the nearest class; needs --classes")
    add_switch(
        group, "--augment", True, "random flip, gamma, contrast, gain, noise, and further changes set in dataset.py"
    )
    add_subjects(group)
    add("--allow-overlap", action="store_true", help="allow a subject in both training and validation")
    add("--check", action="store_true", help="check the data, write inspection.xlsx and stop")


def _add_weights(group):
    add = group.add_argument
    add(
        "--load",
        "-f",
        type=Path,
        metavar="CKPT",
        help="start from the weights of this file, or of the run with this name",
    )
    add_normalise(group, "as in a checkpoint of train.py; imagenet with --pretrained; else none")
    add_switch(group, "--new-head", False, "with --load: take the classes of the masks and start with a new last layer")
    add(
        "--freeze-encoder",
        type=natural,
        default=0,
        metavar="N",
        help="keep the encoder's weights fixed for the first N epochs",
    )


def _add_optimisation(group, learning_rate, loss, optimizer, scheduler):
    add = group.add_argument
    add_switch(group, "--amp", False, "mixed precision, if the device supports it")
    add("--epochs", "-e", type=positive_int, default=100, metavar="E", help="total number of epochs, also when resumed")
    add("--learning-rate", "-l", type=positive_float, default=learning_rate, metavar="LR", help="maximum learning rate")
    add("--optimizer", choices=choices.OPTIMIZERS, default=optimizer, help="method that updates the weights")
    add("--weight-decay", type=non_negative_float, default=0.0, metavar="W", help="weight decay of the optimizer")
    add(
        "--scheduler",
        choices=choices.SCHEDULES,
        default=scheduler,
        help="schedule of the learning rate. plateau: divide it by 10 after more than 5 epochs without a better Dice; "
        "cosine, poly: warm-up, then decrease to 0; constant: no change",
    )
    add("--loss", choices=choices.LOSSES, default=loss, help="cross-entropy, soft Dice, or their sum")
    add("--patience", type=positive_int, metavar="N", help="stop after N epochs without a better Dice (default: never)")
    add("--seed", type=natural, default=0, metavar="N", help="random seed of weights, order and augmentation")
    add(
        "--accumulate",
        type=positive_int,
        default=1,
        metavar="N",
        help="sum the gradients of N batches per step (batch normalisation still sees one batch)",
    )


def _add_run(group):
    add = group.add_argument
    add("--name", type=run_name, metavar="RUN", help="name of the run (default: a time stamp)")
    add("--checkpoints", type=Path, default=folders.CHECKPOINTS, metavar="DIR", help="folder for <model>/<run>/*.pth")
    add("--results", type=Path, default=folders.RESULTS, metavar="DIR", help="folder for <model>/<run>/epochs.xlsx ...")
    add("--save-every", type=positive_int, default=5, metavar="N", help="save epoch_NNN.pth and panels every N epochs")
    add("--resume", type=Path, metavar="CKPT", help="resume the run of this last.pth, with its options")
    add("--repeat", type=Path, metavar="SETTINGS", help="repeat the run of this settings.json")


def _add_cross_validation(group):
    group.add_argument(
        "--folds",
        type=fold_count,
        metavar="K",
        help="cross-validate: split the subjects of --train into K folds and validate each by a run trained on the "
        "others; --validation is not read",
    )
    group.add_argument("--fold", type=positive_int, metavar="k", help="train only this fold of --folds")


def _add_memory(group):
    add = group.add_argument
    add("--cache-mb", type=non_negative_float, default=4096, metavar="N", help="memory for decoded frames, in MiB")
    add_switch(
        group,
        "--low-memory",
        False,
        "recompute activations in the backward pass instead of keeping them: the same weights, but slower",
    )
    add(
        "--compile",
        action="store_true",
        help="torch.compile: the first step takes half a minute or more, the others are faster",
    )
