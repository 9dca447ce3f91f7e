"""Weights of other code: a bare state dict, and the model options that can be inferred from it."""

import torch

from sonogravity.common import choices
from sonogravity.common.messages import InputError, say, some
from sonogravity.datasets.labels import Labels, parse_value

WRAPPERS = ("module.", "_orig_mod.", "model.", "net.")  # prefixes of all keys by DataParallel, torch.compile, Lightning
# Entries in which other code stores the weights.
NESTED = ("state_dict", "model_state_dict", "model", "net", "params", "params_ema", "weights")
COUNTERS = ("total_ops", "total_params")  # entries of a FLOP counter among the weights


def interpret(path, content, model_class):
    """Return (model options, weights, Labels or None) of a dictionary that other code saved; print the options.

    Unwrap the weights, and infer the architecture from their names and shapes. Raise InputError, with the path, if they
    are not of the model, or if the labels stored beside them do not fit.
    """
    weights, extras, counters = _unwrap(content)
    try:
        check_tensors(weights)
    except TypeError as error:
        raise InputError(f"{path}: {error}; save the weights as plain tensors") from error
    options = model_class.options_from(weights)
    if options is not None and options["classes"] == 1:
        weights = with_background_logit(weights, model_class.HEAD)
        options = model_class.options_from(weights)
        say(f"{path.name}: one output channel, of which the sigmoid is the probability; read as two classes")
    if options is None:
        raise InputError(
            f"{path}: no {model_class.NAME} model: it holds {some(weights) or 'no weights'} instead of "
            f"{some(model_class().state_dict())}; give weights of {model_class.NAME}"
        )
    inputs = options["in_channels"] + options.get("depth_channel", False)
    if inputs not in (1, 3) or options["classes"] < 2:
        raise InputError(
            f"{path}: has {inputs} channels and {options['classes']} classes, but bare weights need 1 or 3 channels (a "
            "further one may be the depth or anything else) and at least two classes; give train.py's own checkpoint, "
            "which stores the options"
        )
    say(
        f"{path.name}: a bare state dict, read as {model_class.NAME} with "
        + ", ".join(f"{key} {value}" for key, value in options.items())
        + (f"; entries beside the weights: {some([*extras, *counters])}" if extras or counters else "")
    )
    labels = None
    if "mask_values" in extras:
        values = _mask_values(extras["mask_values"])
        if values is None or len(set(values)) != options["classes"]:
            raise InputError(
                f"{path}: mask_values {extras['mask_values']} do not fit {options['classes']} classes; correct them"
            )
        labels = Labels.create(values)
    return options, weights, labels


def expected_input(path, channels, normalise):
    """Return the normalisation of bare weights: ``normalise``, or ``none`` if it is None. Print what it means.

    Raise InputError if it is unknown, or not defined for this number of image channels.
    """
    if normalise not in (None, *choices.NORMALISATIONS):
        raise InputError(f"--normalise {normalise}: is unknown; give one of {', '.join(choices.NORMALISATIONS)}")
    if normalise not in (None, "none"):
        if channels != 3:
            raise InputError(
                f"--normalise {normalise}: has a mean and a deviation for each of three colours, but {path} takes one "
                "grey channel; give weights of three channels, or leave this option out"
            )
        say(f"{path.name}: bare weights, whose input is normalised as --normalise {normalise} says")
        return normalise
    hint = "; if they were trained with ImageNet's mean and deviation, give --normalise imagenet"
    say(f"{path.name}: bare weights, taken to expect pixels in 0 to 1" + hint * (normalise is None and channels == 3))
    return "none"


def with_background_logit(weights, head):
    """Return weights of one output channel z as those of two classes with the logits 0 and z.

    The softmax of (0, z) is the sigmoid of z, so the second class is predicted where the sigmoid is above 0.5. head:
    beginnings of the keys of the last layers, as of SegmentationModel.HEAD.
    """
    own = {key: value for key, value in weights.items() if key.startswith(tuple(head)) and len(value) == 1}
    return weights | {key: torch.cat([torch.zeros_like(value), value]) for key, value in own.items()}


def _unwrap(content):
    """Return the weights in a dictionary of other code, its other entries, and the keys of a FLOP counter."""
    outer = {}
    for name in NESTED:
        if isinstance(content.get(name), dict):
            outer, content = content, content[name]
            break
    extras = {k: v for k, v in {**outer, **content}.items() if not isinstance(v, (torch.Tensor, dict))}
    extras |= {key: content[key] for key in ("mask_values",) if key in content}  # sometimes a tensor
    tensors = {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}
    weights = {key: value for key, value in tensors.items() if isinstance(key, str) and key not in extras}
    for wrapper in WRAPPERS:
        if weights and all(key.startswith(wrapper) for key in weights):
            weights = {key.removeprefix(wrapper): value for key, value in weights.items()}
    counters = [key for key in weights if key.rsplit(".", 1)[-1] in COUNTERS]
    weights = {key: value for key, value in weights.items() if key not in counters}
    return weights, extras, counters


def _mask_values(stored):
    """Return mask values from the whole numbers, floats or [red, green, blue] of other code; None if unclear."""
    stored = stored.tolist() if isinstance(stored, torch.Tensor) else stored
    if not isinstance(stored, (list, tuple)):
        return None
    values = []
    for value in stored:
        if isinstance(value, (list, tuple)) and len(value) == 3 and all(v in range(256) for v in value):
            values.append(parse_value("#" + bytes(map(int, value)).hex()))
        elif isinstance(value, (int, float)) and value in range(65536):
            values.append(int(value))
        else:
            return None
    return values


def check_tensors(weights):
    """Raise TypeError for the first entry that is not an ordinary tensor in memory."""
    for key, value in weights.items():
        plain = isinstance(value, torch.Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        # A tensor may have any shape over a few bytes. An ordinary one has storage for all its elements.
        if not (plain and value.nbytes <= value.untyped_storage().nbytes() and not value.is_quantized):
            raise TypeError(f"{key} is not a plain tensor")


def fits(content, model_class):
    """Return whether a dictionary of other code holds weights of a model."""
    weights, _, _ = _unwrap(content)
    try:
        check_tensors(weights)
    except TypeError:
        return False
    return model_class.options_from(weights) is not None
