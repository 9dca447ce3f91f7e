"""DeepLabV3 (Chen, Papandreou, Schroff and Adam, arXiv 1706.05587, 2017), as torchvision builds it.

The last stages of the backbone are dilated instead of strided. Its features are an eighth of the frame (output
stride 8) with ResNet-50 and ResNet-101, and a sixteenth with MobileNetV3. Atrous spatial pyramid pooling then
combines five branches: a 1x1 convolution, 3x3 convolutions at atrous rates 12, 24 and 36, and the mean over the
frame. The loss is computed on the logits resized to the frame. With ``--aux-loss`` a small head on an earlier stage
is also trained (weight 0.5, as in torchvision's references); prediction does not use it. State-dict keys are
torchvision's (``backbone.*``, ``classifier.*``, ``aux_classifier.*``).
"""

from dataclasses import replace

import torch
from torch import nn
from torchvision.models import segmentation
from torchvision.models.mobilenetv3 import InvertedResidual
from torchvision.models.resnet import Bottleneck
from torchvision.models.segmentation.deeplabv3 import DeepLabV3 as TorchvisionDeepLabV3

from sonogravity.common.files import BROKEN_FILE, load_torch
from sonogravity.common.messages import InputError, say
from sonogravity.modeling.depth_channel import image_channels, with_depth
from sonogravity.modeling.normalisation import filters_for_grey
from sonogravity.modeling.segmentation_model import SegmentationModel

BUILDERS = {
    "resnet50": (segmentation.deeplabv3_resnet50, segmentation.DeepLabV3_ResNet50_Weights),
    "resnet101": (segmentation.deeplabv3_resnet101, segmentation.DeepLabV3_ResNet101_Weights),
    "mobilenet_v3_large": (
        segmentation.deeplabv3_mobilenet_v3_large,
        segmentation.DeepLabV3_MobileNet_V3_Large_Weights,
    ),
}
TORCHVISION_CLASSES = 21  # of torchvision's weights: COCO images with the labels of Pascal VOC
BATCH_NORM_MOMENTUM = 0.1
# The first convolution of ResNets and of MobileNetV3, and the mean that the batch normalisation after it subtracts.
FIRST = {"backbone.conv1.weight": "backbone.bn1.running_mean", "backbone.0.0.weight": "backbone.0.1.running_mean"}
CLASSIFIER, AUXILIARY = "classifier.4", "aux_classifier.4"  # the last convolutions, one output per class


class DeepLabV3(SegmentationModel, TorchvisionDeepLabV3):
    """(N, in_channels, H, W) float32 in 0 to 1 -> logits (N, classes, H, W), for any H and W.

    aux_loss: in training mode forward returns a pair of these logits, the classifier's and the auxiliary head's
    (see losses.HeadsLoss). depth_channel: the depth of each row is a further input channel (see
    modeling/depth_channel.py).
    """

    NAME = "deeplab"
    HEAD = (f"{CLASSIFIER}.", f"{AUXILIARY}.")
    HEAD_WEIGHTS = (0.5,)  # of the auxiliary head
    SMALLEST_BATCH = 2  # batch normalisation after the mean over the frame needs two values per channel

    def __init__(self, in_channels=1, classes=3, backbone="resnet50", aux_loss=False, depth_channel=False):
        build, _ = BUILDERS[backbone]
        built = build(weights=None, weights_backbone=None, num_classes=classes, aux_loss=aux_loss)
        super().__init__(built.backbone, built.classifier, built.aux_classifier)
        # MobileNetV3's own momentum of 0.01 suits the many steps of ImageNet. On small data its running statistics lag
        # hundreds of steps behind the weights, and predictions stay empty for ten epochs (benchmarks/README.md).
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = BATCH_NORM_MOMENTUM
        self.depth_channel = depth_channel
        if in_channels + depth_channel != 3:
            _replace_first_convolution(self.backbone, in_channels + depth_channel)

    def forward(self, x, heights=None):
        """Return the logits. heights: (N,) rows of each frame in training, without the padding below."""
        x = self.normalised(x)
        features = self.backbone(with_depth(x, heights if self.training else None) if self.depth_channel else x)
        if not self.training or self.aux_classifier is None:
            return self._resized(self.classifier(features["out"]), x)
        main, auxiliary = self.classifier(features["out"]), self.aux_classifier(features["aux"])
        return self._resized(main, x), self._resized(auxiliary, x)

    @staticmethod
    def _resized(logits, x):
        """Return the logits resized to x: (N, C, h, w) -> (N, C, H, W)."""
        return nn.functional.interpolate(logits, x.shape[-2:], mode="bilinear", align_corners=False)

    def encoder(self):
        """Return the modules that --freeze-encoder keeps fixed."""
        return [self.backbone]

    def blocks(self):
        """Return the modules whose activations fill the memory in training (see memory.compute_again)."""
        heads = [head for head in (self.classifier, self.aux_classifier) if head is not None]
        return [m for m in self.backbone.modules() if isinstance(m, (Bottleneck, InvertedResidual))] + heads

    @staticmethod
    def options_from(state_dict):
        """Return the options that give weights of these names and shapes; None if they are not a DeepLabV3's."""
        last = state_dict.get(f"{CLASSIFIER}.weight")
        first = next((state_dict[key] for key in FIRST if key in state_dict), None)
        if first is None or last is None or first.ndim != 4 or last.ndim != 4:
            return None
        resnet = "resnet101" if "backbone.layer3.22.conv1.weight" in state_dict else "resnet50"
        channels, depth_channel = image_channels(first)
        return {
            "in_channels": channels,
            "classes": last.shape[0],
            "backbone": resnet if "backbone.conv1.weight" in state_dict else "mobilenet_v3_large",
            "aux_loss": f"{AUXILIARY}.weight" in state_dict,
            "depth_channel": depth_channel,
        }


def _replace_first_convolution(backbone, in_channels):
    """Give the backbone's first convolution another number of input channels."""
    parent, name = (backbone, "conv1") if "conv1" in backbone else (backbone["0"], "0")
    old = getattr(parent, name)
    new = nn.Conv2d(in_channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=False)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    setattr(parent, name, new)


def adapt(weights, model):
    """Return weights adapted to the model's classes and channels, and a list of the changes in words.

    Heads of another class count keep the model's initial values. RGB filters of the first convolution are summed for
    one grey channel, as the model's normalisation requires. If the model has a depth channel, filters of zeros are
    added. An auxiliary head that the model lacks is left out.
    """
    own, words = model.state_dict(), []
    fitted = dict(weights)
    if not any(key.startswith("aux_classifier.") for key in own):
        fitted = {key: value for key, value in fitted.items() if not key.startswith("aux_classifier.")}
    for head in (CLASSIFIER, AUXILIARY):
        given = fitted.get(f"{head}.weight")
        if given is not None and len(given) != len(own[f"{head}.weight"]):
            words.append(f"{head} of {len(given)} classes replaced by a fresh one of {len(own[f'{head}.weight'])}")
            fitted |= {f"{head}.{part}": own[f"{head}.{part}"] for part in ("weight", "bias")}
    for key in FIRST.keys() & fitted.keys() & own.keys():
        (given, _), (wanted, depth) = image_channels(fitted[key]), image_channels(own[key])
        if (given, wanted) == (3, 1):
            if model.normalisation == "none":
                words.append("RGB filters summed for the grey channel")
                fitted[key] = fitted[key].sum(1, keepdim=True)
            elif (statistic := FIRST[key]) in fitted:
                words.append("normalised RGB filters combined for the grey channel")
                fitted[key], shift = filters_for_grey(fitted[key], model.normalisation)
                fitted[statistic] = fitted[statistic] + shift
        if depth and fitted[key].shape[1] == wanted:
            words.append("the depth's filters start at zero")
            fitted[key] = torch.cat([fitted[key], torch.zeros_like(fitted[key][:, :1])], 1)
    return fitted, words


def from_torchvision(checkpoint, model, options):
    """Return a bare state dict of torchvision's 21 classes, or with a surplus auxiliary head, adapted to the model.

    Return any other checkpoint unchanged, for the strict checks of all checkpoints.
    """
    given = checkpoint.model_options
    foreign_head = given["classes"] == TORCHVISION_CLASSES != options["classes"]
    spare_head = given["aux_loss"] and not options["aux_loss"]
    if checkpoint.labels is not None or checkpoint.run is not None or not (foreign_head or spare_head):
        return checkpoint
    fitted, words = adapt(checkpoint.state_dict, model)
    if words:
        say(f"{checkpoint.path.name}: {'; '.join(words)}")
    same = {**given, "aux_loss": given["aux_loss"] and options["aux_loss"], "depth_channel": options["depth_channel"]}
    if foreign_head:
        same["classes"] = options["classes"]
    if words and given["in_channels"] == 3:
        same["in_channels"] = options["in_channels"]
    return replace(checkpoint, state_dict=fitted, model_options=same)


def load_pretrained(model, backbone, file=None):
    """Load torchvision's weights for the backbone, downloaded or from a file, and print the changes.

    file: a state dict of DeepLabV3, or of the backbone alone as torchvision's classifiers save it. Raise InputError if
    the download fails or the weights do not fit.
    """
    if file is None:
        source = BUILDERS[backbone][1].DEFAULT
        try:
            weights = source.get_state_dict(progress=True, check_hash=True)
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"--pretrained: {source.url} cannot be downloaded ({error}); download it elsewhere and pass it as "
                "--pretrained FILE"
            ) from error
        name = str(source)
    else:
        weights, name = _read_weights(file), str(file)
    fitted, words = adapt(weights, model)
    own = model.state_dict()
    fresh = [key for key in own if key not in fitted and not key.startswith("backbone.")]
    if fresh:  # the weights of a backbone alone have no heads
        words.append(f"{len(fresh)} tensors of the heads are newly initialised")
        fitted |= {key: own[key] for key in fresh}
    wrong = [key for key in own if key not in fitted or fitted[key].shape != own[key].shape]
    wrong += [key for key in fitted if key not in own]
    if wrong:
        raise InputError(
            f"{name}: is not for {backbone}: {len(wrong)} weights differ ({wrong[0]}, ...); give weights of {backbone}"
        )
    model.load_state_dict(fitted)
    words.append(f"input as --normalise {model.normalisation} says")
    say(f"training starts from {name}: {'; '.join(words)}")


def _read_weights(file):
    """Return the state dict in a file, with DeepLabV3's key names. Raise InputError if it has none."""
    if not file.is_file():
        raise InputError(f"--pretrained {file}: no such file; check the path")
    try:
        weights = load_torch(file)
    except BROKEN_FILE as error:
        raise InputError(f"--pretrained {file}: not a state dict that can be read safely; give another file") from error
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise InputError(f"--pretrained {file}: holds no state dict of tensors; give another file")
    if any(key.startswith("backbone.") for key in weights):
        return weights
    heads = ("fc.", "classifier.")  # of the image classifiers
    kept = {key: value for key, value in weights.items() if not key.startswith(heads)}
    return {f"backbone.{key.removeprefix('features.')}": value for key, value in kept.items()}


MODEL = DeepLabV3
