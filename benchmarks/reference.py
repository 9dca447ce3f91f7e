"""References for the benchmarks: a published study's training and prediction in plain code, and the same code with
the models of common libraries.

The study's training: float32, batches of 2, NCHW, every frame decoded and resized in every epoch, Adam with torch's
defaults, the loss read (``.item()``) at every step. Its prediction: one file after another, with two forward passes per
file, one for the mask and one for the score.
"""

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

VALUES = (0, 128, 255)


def double_conv(inside, outside):
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
        nn.Conv2d(outside, outside, 3, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    )


class PlainUNet(nn.Module):
    """The U-Net of many studies: 64 to 1024 features, transposed convolutions, padding if sizes are odd."""

    def __init__(self, classes=3):
        super().__init__()
        widths = (64, 128, 256, 512, 1024)
        self.down = nn.ModuleList(double_conv(a, b) for a, b in zip((1, *widths), widths, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(w, w // 2, 2, stride=2) for w in reversed(widths[1:]))
        self.join = nn.ModuleList(double_conv(w, w // 2) for w in reversed(widths[1:]))
        self.last = nn.Conv2d(64, classes, 1)

    def forward(self, x):
        skips = []
        for block in self.down:
            x = block(F.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        for up, join, skip in zip(self.up, self.join, reversed(skips[:-1]), strict=True):
            x = up(x)
            missing_rows, missing_columns = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
            x = F.pad(x, (0, missing_columns, 0, missing_rows))
            x = join(torch.cat([skip, x], 1))
        return self.last(x)


class Logits(nn.Module):
    """torchvision's DeepLabV3, which returns logits instead of a dictionary and takes one grey channel."""

    def __init__(self, model, first):
        super().__init__()
        old = model.backbone.get_submodule(first)
        new = nn.Conv2d(1, old.out_channels, old.kernel_size, old.stride, old.padding, bias=False)
        model.backbone.set_submodule(first, new)
        self.model = model

    def forward(self, x):
        return self.model(x)["out"]


class Padded(nn.Module):
    """A model that needs sides divisible by ``multiple``, as smp's models do. Pads the input and crops the logits."""

    def __init__(self, model, multiple):
        super().__init__()
        self.model = model
        self.multiple = multiple

    def forward(self, x):
        height, width = x.shape[2:]
        x = F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple))
        return self.model(x)[:, :, :height, :width]


def study_model(name):
    """Return the study's network: PlainUNet, or DeepLabV3 as torchvision builds it."""
    from torchvision.models import segmentation

    if name == "unet":
        return PlainUNet()
    build = getattr(segmentation, f"deeplabv3_{name}")
    first = "conv1" if name == "resnet50" else "0.0"
    return Logits(build(weights=None, weights_backbone=None, num_classes=3, aux_loss=False), first)


def smp_model(name):
    """Return the model of segmentation_models_pytorch that is closest in size.

    Its U-Net always has a classifier's encoder. VGG-19 with a wide decoder comes closest (203 against 225 GFLOP per
    frame of 400x370). Its DeepLabV3 models are of equal size.
    """
    import segmentation_models_pytorch as smp

    options = {"encoder_weights": None, "in_channels": 1, "classes": 3}
    if name == "unet":
        return Padded(smp.Unet("vgg19_bn", decoder_channels=(512, 256, 128, 64, 64), **options), 32)
    if name == "resnet50":
        return Padded(smp.DeepLabV3("resnet50", encoder_output_stride=8, **options), 8)
    return Padded(smp.DeepLabV3("tu-mobilenetv3_large_100", encoder_output_stride=16, **options), 16)


def monai_model(name):
    """Return MONAI's U-Net of equal size. Raise ImportError for DeepLabV3, which MONAI does not have."""
    if name != "unet":
        raise ImportError("MONAI has no DeepLabV3")
    from monai.networks.nets import BasicUNet

    return BasicUNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=3,
        features=(64, 128, 256, 512, 1024, 64),
        act=("relu", {"inplace": True}),
        norm="batch",
    )


SOURCES = {"study": study_model, "smp": smp_model, "monai": monai_model}


def read_image(path, scale):
    """Return a file's image as (1, h, w) float32 in 0 to 1, and its native (H, W)."""
    image = Image.open(path).convert("L")
    small = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    array = np.asarray(small, dtype=np.float32) / 255
    return torch.from_numpy(array)[None], (image.height, image.width)


def read_mask(path, scale=1.0):
    """Return a mask file as (h, w) int64 class indices."""
    mask = Image.open(path)
    if scale != 1:
        mask = mask.resize((round(mask.width * scale), round(mask.height * scale)), Image.Resampling.NEAREST)
    values = np.asarray(mask)
    classes = np.zeros(values.shape, np.int64)
    for index, value in enumerate(VALUES):
        classes[values == value] = index
    return classes


class PlainFrames(Dataset):
    """Frames and masks, decoded and resized at each access."""

    def __init__(self, pairs, scale):
        self.pairs = pairs
        self.scale = scale

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        pair = self.pairs[index]
        return read_image(pair.image, self.scale)[0], torch.from_numpy(read_mask(pair.mask, self.scale))


def training(model, pairs, *, scale, batch_size, bfloat16, device, workers):
    """Return a function that trains one epoch in plain code, as a study or a library's user writes it."""
    model = model.to(device)
    loader = DataLoader(
        PlainFrames(pairs, scale),
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    criterion = nn.CrossEntropyLoss()

    def epoch():
        model.train()
        total = 0.0
        for images, masks in loader:
            images, masks = images.to(device), masks.to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                loss = criterion(model(images), masks)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += loss.item()
        return total / len(loader)

    return epoch


class PlainPrediction:
    """Prediction of one file after another by a model in NCHW, with bfloat16 autocast if requested."""

    def __init__(self, model, *, scale, bfloat16, device):
        self.model = model.to(device).eval()
        self.scale = scale
        self.bfloat16 = bfloat16
        self.device = device

    @torch.no_grad()
    def logits(self, images, size):
        """Return (N, C, H, W) logits at native size for (N, 1, h, w) images."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            logits = self.model(images.to(self.device))
        return F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)

    def label_map(self, path):
        """Return the (H, W) class indices of a file: decode, resize, one pass, native size, argmax."""
        image, size = read_image(path, self.scale)
        return self.logits(image[None], size).argmax(1)[0].cpu().numpy()

    def predict_files(self, pairs, output):
        """Write one mask per file and a worksheet of overlap scores, with the study's two passes per frame."""
        (output / "masks").mkdir(parents=True)
        rows = []
        for pair in pairs:
            mask = self.label_map(pair.image)  # the first pass writes the mask
            Image.fromarray(np.array(VALUES, np.uint8)[mask]).save(output / "masks" / f"{pair.image.stem}.png")
            prediction = self.label_map(pair.image)  # the second pass is scored
            rows.append({"file": pair.image.name, **overlap_scores(read_mask(pair.mask), prediction)})
        pd.DataFrame(rows).to_excel(output / "files.xlsx", index=False)


def overlap_scores(truth, prediction):
    """Return the overlap scores of each foreground class and their means, in plain numpy."""
    row = {}
    for index, value in enumerate(VALUES[1:], start=1):
        true, found = truth == index, prediction == index
        tp, fp = (true & found).sum(), (~true & found).sum()
        fn, tn = (true & ~found).sum(), (~true & ~found).sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            row |= {
                f"dice_{value}": 2 * tp / (2 * tp + fp + fn),
                f"iou_{value}": tp / (tp + fp + fn),
                f"precision_{value}": tp / (tp + fp),
                f"sensitivity_{value}": tp / (tp + fn),
                f"specificity_{value}": tn / (tn + fp),
                f"fpr_{value}": fp / (fp + tn),
                f"fnr_{value}": fn / (fn + tp),
            }
    names = ("dice", "iou", "precision", "sensitivity", "specificity", "fpr", "fnr")
    means = {name: np.nanmean([row[f"{name}_{value}"] for value in VALUES[1:]]) for name in names}
    return means | {"accuracy": (truth == prediction).mean()} | row
