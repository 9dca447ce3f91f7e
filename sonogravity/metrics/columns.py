"""What every column of the worksheets means: formula, unit, empty case; the text of the Definitions sheets."""

from sonogravity.metrics import summary

DEFINITIONS = {
    "epoch": ("number of the epoch, from 1", ""),
    "learning_rate": ("learning rate of the epoch's last step", ""),
    "train_loss": (
        "mean over the epoch's batches of the training loss, at the size the network sees; with deep "
        "supervision or an auxiliary head theirs are added, so it is not to be compared with val_loss",
        "",
    ),
    "val_loss": ("mean over validation files of the loss of each file alone, at native size", ""),
    "images_per_second": ("training frames a second, validation not counted", "frames/s"),
    "file": ("file name of the image", ""),
    "fold": ("the fold that held the file out: its model has seen no frame of the file's subject", ""),
    "subject": ("whose frame it is, as read from the file name", ""),
    "width": ("width of the image", "px"),
    "height": ("height of the image", "px"),
    "dice": ("2TP / (2TP + FP + FN)", "0 to 1"),
    "iou": ("TP / (TP + FP + FN), Jaccard index", "0 to 1"),
    "accuracy": ("share of all pixels with the right class, background included", "0 to 1"),
    "precision": ("TP / (TP + FP); 0 where the class is in the truth and nowhere predicted", "0 to 1"),
    "sensitivity": ("TP / (TP + FN), recall", "0 to 1"),
    "specificity": ("TN / (TN + FP)", "0 to 1"),
    "fpr": ("1 - specificity", "0 to 1"),
    "fnr": ("1 - sensitivity", "0 to 1"),
    **{
        f"hd_{unit}": (
            "Hausdorff distance: the largest distance from a pixel of either boundary to the other boundary",
            unit,
        )
        for unit in ("px", "mm")
    },
    **{
        f"hd95_{unit}": (
            "the larger of the two directed 95th percentiles (linear interpolation) of these distances",
            unit,
        )
        for unit in ("px", "mm")
    },
    **{
        f"assd_{unit}": ("average symmetric surface distance: mean of the distances of both directions pooled", unit)
        for unit in ("px", "mm")
    },
    "nsd": (
        "normalised surface Dice: share of both boundaries within the tolerance of the other one. The tolerance is "
        "margin_mm where there is a margin, else 1 px (of the coarser axis)",
        "0 to 1",
    ),
    "mask_used": ("the variant of the truth (original, dilated, eroded) that agrees best with the prediction", ""),
    "dice_original": ("foreground mean Dice against the truth as drawn: equals dice", "0 to 1"),
    "dice_dilated": ("the same against the truth dilated by margin_mm", "0 to 1"),
    "dice_eroded": ("the same against the truth eroded by margin_mm", "0 to 1"),
    "pixels_per_mm": ("of the image, as given or assumed (see Settings)", "px/mm"),
    "pixels_per_mm_x": ("along a row of the image", "px/mm"),
    "pixels_per_mm_y": ("along a column of the image", "px/mm"),
    "margin_mm": ("the distance within which a border is taken to be as true", "mm"),
    "entropy": (
        "mean over the image's pixels of -sum p ln p / ln C over the C classes: 0 is sure, 1 is no idea",
        "0 to 1",
    ),
    "expected_dice": (
        "the Dice that the model itself expects, p being the probability of the class: 2 sum p over the "
        "pixels labelled / (these pixels + sum p over all); mean over the foreground classes that are "
        "predicted, blank where none is",
        "0 to 1",
    ),
    "missed": ("foreground classes that are in the truth only", "class names"),
    "spurious": ("foreground classes that are in the prediction only", "class names"),
    "seconds": ("epochs: the whole epoch; files: network and resizing to native size, per frame", "s"),
}
NOTES = (
    "TP, FP, FN, TN: pixels of one class against the rest, at the image's native size.",
    "A metric without a class is the mean over the foreground classes for which it is defined; background is "
    "left out of every mean and shown in columns of its own. <metric>_<class> is one class.",
    "A class in neither truth nor prediction has no Dice and no IoU; one that is not in the truth has no "
    "sensitivity and no FNR: blank cells, left out of means, and n counts what is left. A class in one of the "
    "two only has Dice and IoU 0.",
    "mean: over files of the column, so AVERAGE of the column gives the same. In epochs.xlsx every score is "
    "this mean over the validation files.",
    "mean_of_classes: mean over files per class first, then over classes (the figure that nnU-Net reports).",
    "pooled: from the summed pixel counts of all files, as of one large image.",
    "sd: standard deviation over files (n - 1). q1, median, q3: quartiles over files.",
    f"ci95: 95 % bootstrap interval of the mean ({summary.BOOTSTRAP_RESAMPLES} resamples, fixed seed), "
    "resampling subjects where the file names give one, else files.",
    "entropy and expected_dice need no mask: they say which predictions to look at first. They come from the model's "
    "probabilities (softmax) at native size, so they are as right as these are calibrated (see evaluate.py's "
    "calibration.png), and a model can be surely wrong.",
    "Calibration (evaluate.py, folds): for each class all pixels of all files by the probability that the model gives "
    "the class, in ten bins. probability: its mean in the bin; observed: the share of these pixels that are of the "
    "class. Expected calibration error: mean over pixels of the difference of the two.",
    "Boundary metrics: the boundary of a class is its pixels with a 4-neighbour outside it (beyond the image is "
    "outside); distances run between pixel centres, scaled by the pixel size of each axis, and always against the "
    "original truth. They are given for foreground classes. A class in neither truth nor prediction: blank. In one of "
    "the two only: infinite, so hd, hd95 and assd are blank and left out of means, the class is named under missed or "
    "spurious, and the Summary counts both beside every boundary mean; nsd is 0 and counts.",
)
GROUP_NOTES = (
    "By fold, By subject: the mean of each metric over the group's files; files: how many there are; n_<metric>: how "
    "many of them have the metric; missed, spurious (and of one class): classes that boundary means leave out. The "
    "last two rows: mean and standard deviation (n - 1) over the groups, each group counting alike, n_<metric> being "
    "the groups that have it.",
)
MARGIN_NOTES = (
    "Margin: in the dilated truth, background within margin_mm of a structure takes the class of the nearest one "
    "(ties: the lowest value); in the eroded truth, structure within margin_mm of background becomes background. "
    "Disks are Euclidean, at native size, radii are never rounded, and beyond the image nothing is assumed.",
    "Choice: one variant a file, that of best foreground mean Dice, in the order original, dilated, eroded, a later "
    "one only if better by more than 1e-12; a variant that loses a class of the truth is not eligible. All tolerant "
    "figures of the file are then against that variant.",
    "Caution: the reference is chosen per image, knowing the prediction. So tolerant Dice is never below plain Dice, "
    "it gains most on thin structures, and it must not be compared with published Dice. It never chooses a checkpoint.",
    "Sweep: the same for margins of 0 to 3 mm: means over files of the tolerant Dice (best of the three) and of nsd at "
    "that tolerance, and how many files chose each variant.",
)


def definition(column):
    """The text and unit of a column of any sheet."""
    if column in DEFINITIONS:
        return DEFINITIONS[column]
    if column.startswith("tolerant_"):
        text, unit = definition(column.removeprefix("tolerant_"))
        return f"{text}, against the chosen variant of the truth (mask_used)", unit
    metric = max((name for name in DEFINITIONS if column.startswith(f"{name}_")), key=len)
    return f"{metric} of class {column.removeprefix(f'{metric}_')} alone", DEFINITIONS[metric][1]
