"""Recipes for recipe.py: options of train.py, and parts that replace those of its ``train``."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel

from sonogravity.datasets.augmentation import Augmentation
from sonogravity.datasets.labels import IGNORE_INDEX
from sonogravity.datasets.loader import EpochBatches
from sonogravity.datasets.subjects import subjects_in_names
from sonogravity.training.losses import soft_dice_loss


@dataclass(frozen=True)
class Recipe:
    """options: of train.py. parts: keyword arguments of its ``train``. model: function that changes the model class."""

    options: tuple = ()
    parts: dict = field(default_factory=dict)
    model: Callable | None = None


def moving_average(decay):
    """Return the part ``averaging``: an exponential moving average of the weights, over fewer steps at first."""

    def average(averaged, current, steps):
        keep = min(decay, float(steps) / (float(steps) + 10))
        return averaged + (1 - keep) * (current - averaged)

    return lambda model: AveragedModel(model, avg_fn=average, use_buffers=True)


class Loss(torch.nn.Module):
    """Part ``criterion``: a loss of (N, C, H, W) logits and (N, H, W) classes, with the index of the background."""

    def __init__(self, function, kind, background=0):
        super().__init__()
        self.function = function
        self.background = background

    def forward(self, logits, classes):
        return self.function(logits.float(), classes, self.background)


def loss(function):
    """Return a recipe's parts with another loss; --loss then has no effect."""
    return {"criterion": partial(Loss, function)}


def cross_entropy(logits, classes, **options):
    return F.cross_entropy(logits, classes, ignore_index=IGNORE_INDEX, **options)


def focal(logits, classes, background):
    """Return the focal loss with gamma 2 (Lin et al. 2017) plus soft Dice loss."""
    entropy = cross_entropy(logits, classes, reduction="none")
    return ((1 - (-entropy).exp()) ** 2 * entropy).mean() + soft_dice_loss(logits, classes, background)


def weighted(logits, classes, background):
    """Return cross-entropy plus soft Dice loss. Class weights: inverse square root of the share of the batch."""
    counts = torch.bincount(classes.flatten().clamp(0, logits.shape[1]), minlength=logits.shape[1])
    counts = counts[: logits.shape[1]].float()
    weights = (counts.sum() / counts.clamp_min(1)).sqrt() * (counts > 0)
    return cross_entropy(logits, classes, weight=weights / weights.max()) + soft_dice_loss(logits, classes, background)


def tversky(logits, classes, background):
    """Return cross-entropy plus the Tversky loss over the batch, alpha 0.3 and beta 0.7 (Salehi et al. 2017)."""
    truth = F.one_hot(classes.clamp(0, logits.shape[1] - 1), logits.shape[1]).movedim(-1, 1)
    p = logits.softmax(1)
    tp, fp, fn = ((a * b).sum((0, 2, 3)) for a, b in ((p, truth), (p, 1 - truth), (1 - p, truth)))
    counted = truth.sum((0, 2, 3)) > 0
    counted[background] = False
    index = tp / (tp + 0.3 * fp + 0.7 * fn)
    return cross_entropy(logits, classes) + ((1 - index) * counted).sum() / counted.sum().clamp_min(1)


def marginal(logits, classes, background):
    """Return cross-entropy plus soft Dice loss. A class absent from a frame's truth is merged with its background.

    Shi et al., Marginal loss and exclusion loss for partially supervised multi-organ segmentation, 2021.
    """
    merged = []
    for own, truth in zip(logits, classes, strict=True):
        absent = [c for c in range(len(own)) if c != background and not (truth == c).any()]
        planes = list(own)
        planes[background] = torch.logsumexp(own[[background, *absent]], 0)
        for c in absent:
            planes[c] = torch.full_like(own[c], -1e4)
        merged.append(torch.stack(planes))
    merged = torch.stack(merged)
    return cross_entropy(merged, classes) + soft_dice_loss(merged, classes, background)


def standardised(model_class):
    """Return the model class with standardised input: each frame minus its mean, divided by its standard deviation."""

    class Standardised(model_class):
        def forward(self, x, heights=None):
            mean = x.mean((1, 2, 3), keepdim=True)
            deviation = x.std((1, 2, 3), keepdim=True).clamp_min(1e-3)
            return super().forward((x - mean) / deviation, heights)

    return Standardised


def normalised_by(layer):
    """Return a function that changes the normalisation of U-Net's class. layer: builds it for a number of channels."""

    def change(model_class):
        class Normalised(model_class):
            def __init__(self, *args, **options):
                super().__init__(*args, **options, norm=layer)

        return Normalised

    return change


class BySubject(EpochBatches):
    """Part ``sampler``: equal frames per subject on average, drawn with replacement; the epoch keeps its length."""

    def __init__(self, frames, *options):
        super().__init__(len(frames), *options)
        self.subjects = subjects_in_names([pair.stem for pair in frames.store.pairs])

    def keys(self, generator):
        share = torch.tensor([1 / self.subjects.count(subject) for subject in self.subjects])
        order = torch.multinomial(share, self.frames, replacement=True, generator=generator).tolist()
        draws = torch.randint(2**62, (self.frames,), generator=generator).tolist()
        return list(zip(order, draws, strict=True))


class Ultrasound:
    """Augmentation by geometry in one resampling, then by effects of probe and settings, each with a strength."""

    def __init__(
        self, background=0, *, geometry=1.0, grey=1.0, depth=0.5, speckle=0.3, shadow=0.25, elastic=0, blur=0.2
    ):
        self.background = background
        self.geometry, self.grey = geometry, grey
        self.depth, self.speckle, self.shadow, self.elastic, self.blur = depth, speckle, shadow, elastic, blur

    def __call__(self, image, classes):
        image, classes = self.moved(image, classes)
        if self.grey:
            if chance(0.5):
                image = image.clamp(0, 1) ** math.exp(uniform(-0.5, 0.5) * self.grey)
            if chance(0.5):
                mean = image.mean()
                image = (image - mean) * math.exp(uniform(-0.35, 0.35) * self.grey) + mean
            if chance(0.5):
                image = image * math.exp(uniform(-0.3, 0.3) * self.grey)
        if chance(self.depth):
            gain = F.interpolate(torch.randn(1, 1, 5) * 0.25, image.shape[1], mode="linear", align_corners=True)
            image = image * gain.exp()[0, :, :, None]
        if chance(self.speckle):
            size = [max(1, round(side / uniform(1, 2.5))) for side in image.shape[1:]]
            noise = torch.randn(1, 1, *size) * uniform(0.05, 0.25)
            image = image * (1 + F.interpolate(noise, image.shape[1:], mode="bilinear")[0])
        if chance(self.shadow):
            image = image * self.shade(image.shape[1:])
        if chance(self.blur):
            from torchvision.transforms.v2 import functional

            image = functional.gaussian_blur(image, [5, 5], [uniform(0.4, 1.2)])
        if self.grey and chance(0.25):
            image = image + torch.randn(image.shape) * uniform(0, 0.05)
        return image.clamp(0, 1), classes

    def moved(self, image, classes):
        flip = -1 if chance(0.5) else 1
        height, width = image.shape[1:]
        angle, zoom, dx, dy = 0.0, 1.0, 0.0, 0.0
        if self.geometry and chance(0.8):
            angle = math.radians(uniform(-20, 20) * self.geometry)
            zoom = math.exp(uniform(-0.25, 0.25) * self.geometry)
            dx, dy = (uniform(-0.16, 0.16) * self.geometry for _ in range(2))
        elif flip == 1 and not self.elastic:
            return image, classes
        aspect = height / width
        cos, sin = math.cos(angle) * zoom, math.sin(angle) * zoom
        matrix = torch.tensor([[[flip * cos, -sin * aspect, dx], [flip * sin / aspect, cos, dy]]])
        grid = F.affine_grid(matrix, (1, 1, height, width), align_corners=False)
        if self.elastic and chance(self.elastic):
            bend = F.interpolate(torch.randn(1, 2, 6, 6) * 0.03, (height, width), mode="bicubic").movedim(1, -1)
            grid = grid + bend
        image = F.grid_sample(image[None], grid, align_corners=False)[0]
        shifted = F.grid_sample((classes + 1)[None, None].float(), grid, mode="nearest", align_corners=False)[0, 0]
        return image, torch.where(shifted > 0, shifted - 1, self.background).to(classes.dtype)

    def shade(self, size):
        height, width = size
        columns = torch.linspace(0, 1, width)
        centre, half = uniform(0, 1), uniform(0.03, 0.12)
        band = torch.exp(-(((columns - centre) / half) ** 4))
        depth = torch.sigmoid((torch.linspace(0, 1, height) - uniform(0, 0.6)) * 30)
        return 1 - uniform(0.3, 0.9) * depth[:, None] * band[None]


def uniform(low, high):
    return low + (high - low) * float(torch.rand(()))


def chance(probability):
    return float(torch.rand(())) < probability


def own_augmentation(geometry):
    """Return the program's own augmentation, with or without rotation, shift and zoom, for any model."""
    return {"augmentation": partial(Augmentation, geometry=geometry)}


def ultrasound(**options):
    return {"augmentation": partial(Ultrasound, **options)}


# Options added to every recipe except ``default``, which uses train.py's own defaults.
PLAIN = {"unet": ("--no-depth-channel", "--no-deep-supervision"), "deeplab": ("--no-depth-channel",)}
ORIGINAL = (
    "--optimizer",
    "adam",
    "--learning-rate",
    "1e-4",
    "--batch-size",
    "2",
    "--scheduler",
    "plateau",
    "--no-augment",
)


def cosine(rate="1e-3", batch="4"):
    """Return options for Adam with a cosine schedule and warm-up, and the loss ce+dice."""
    return (
        "--optimizer",
        "adam",
        "--learning-rate",
        rate,
        "--batch-size",
        batch,
        "--scheduler",
        "cosine",
        "--loss",
        "ce+dice",
    )


RECIPES = {
    # The study's recipes: cross-entropy for U-Net, plus soft Dice for DeepLabV3. They differ in nothing else.
    "original_ce": Recipe((*ORIGINAL, "--loss", "ce")),
    "original_ce_dice": Recipe((*ORIGINAL, "--loss", "ce+dice")),
    "default": Recipe(),
    # Earlier names, which the log contains.
    "cosine": Recipe((*cosine(), "--no-augment")),
    "cosine_augmented": Recipe(cosine()),
    "cosine_ultrasound": Recipe(cosine(), ultrasound()),
    "cosine_2": Recipe((*cosine(batch="2"), "--no-augment")),
    "cosine_2_augmented": Recipe(cosine(batch="2")),
    "cosine_2_rate_3e-4": Recipe((*cosine("3e-4", "2"), "--no-augment")),
    "cosine_2_marginal": Recipe((*cosine(batch="2"), "--no-augment"), loss(marginal)),
    # One base: Adam with warm-up and cosine, ce+dice, no augmentation. +NAME adds one of the changes below.
    **{
        f"cosine_{batch}_{rate}": Recipe((*cosine(rate, batch), "--no-augment"))
        for batch in "24"
        for rate in ("1e-4", "3e-4", "5e-4", "1e-3", "2e-3")
    },
    "adamw_0.01": Recipe(("--optimizer", "adamw", "--weight-decay", "0.01")),
    "ce": Recipe(("--loss", "ce")),
    "dice": Recipe(("--loss", "dice")),
    "augment": Recipe(("--augment",)),
    "geometry": Recipe(("--augment",), own_augmentation(True)),
    "no_geometry": Recipe(("--augment",), own_augmentation(False)),
    "depth": Recipe(("--depth-channel",)),
    "aux": Recipe(("--aux-loss",)),
    "batch_2": Recipe(("--batch-size", "2")),
    "3e-4": Recipe(("--learning-rate", "3e-4")),
    "deep": Recipe(("--deep-supervision",)),
    "average": Recipe(parts={"averaging": moving_average(0.99)}),
    "standardised": Recipe(model=standardised),
    # Instance normalisation (Ulyanov et al. 2016) and group normalisation (Wu and He 2018), for U-Net.
    "instance": Recipe(model=normalised_by(partial(torch.nn.InstanceNorm2d, affine=True))),
    "group": Recipe(model=normalised_by(partial(torch.nn.GroupNorm, 8))),
    "grey": Recipe(("--augment",), ultrasound(geometry=0, depth=0, speckle=0, shadow=0, blur=0)),
    "probe": Recipe(("--augment",), ultrasound(geometry=0)),
    "elastic": Recipe(("--augment",), ultrasound(geometry=0, depth=0, speckle=0, shadow=0, blur=0, elastic=0.5)),
    "half": Recipe(("--augment",), ultrasound(geometry=0.4, grey=0.6, depth=0.3, speckle=0.2, shadow=0.1)),
    "whole": Recipe(("--augment",), ultrasound()),
    "focal": Recipe((), loss(focal)),
    "tversky": Recipe((), loss(tversky)),
    "weighted": Recipe((), loss(weighted)),
    "by_subject": Recipe(parts={"sampler": BySubject}),
}


def named(name, folder):
    """Return the recipe of a name for a model folder. ``A+B`` has A's options, then B's, and the parts of both."""
    recipes = [RECIPES[part] for part in name.split("+")]
    plain = () if recipes[0] is RECIPES["default"] else PLAIN[folder]
    parts, model = {}, None
    for recipe in recipes:
        parts |= recipe.parts
        model = recipe.model or model
    return Recipe(sum((recipe.options for recipe in recipes), plain), parts, model)
