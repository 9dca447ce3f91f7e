"""The columns of all worksheets: what each means, its unit and number format, and where it has one per class.

A column is written by CSV files, workbooks, definitions, summaries and comparisons as this table says; one that is not
in it fails when a script starts.
"""

from dataclasses import dataclass, replace

from sonogravity.metrics import summary
from sonogravity.metrics.margin import VARIANTS

WHOLE, SCORE = "0", "0.0000"  # number formats


@dataclass(frozen=True)
class Column:
    """One column, or with per_class one for all foreground classes together and one for each, NAME_CLASS.

    metric: a score against a truth, which is compared between runs.
    """

    text: str
    unit: str = ""
    form: str = SCORE
    per_class: bool = False
    metric: bool = False


def _metric(text, unit="0 to 1", per_class=True):
    return Column(text, unit, per_class=per_class, metric=True)


def _distances(unit):
    """Boundary distances in a unit, px or mm."""
    return {
        f"hd_{unit}": _metric(
            "Hausdorff distance: the largest distance from a pixel of either boundary to the other boundary", unit
        ),
        f"hd95_{unit}": _metric(
            "the larger of the two directed 95th percentiles (linear interpolation) of these distances", unit
        ),
        f"assd_{unit}": _metric(
            "average symmetric surface distance: mean of the distances of both directions pooled", unit
        ),
    }


COLUMNS = {
    "epoch": Column("number of the epoch, from 1", form=WHOLE),
    "learning_rate": Column("learning rate of the epoch's last step", form="0.00E+00"),
    "train_loss": Column(
        "mean over the epoch's batches of the training loss, at the size the network sees; with deep supervision or an "
        "auxiliary head their losses are added, so it must not be compared with val_loss"
    ),
    "val_loss": Column("mean over validation files of the loss of each file alone, at native size"),
    "images_per_second": Column("training frames per second, validation not counted", "frames/s", "0.00"),
    "file": Column("file name of the image"),
    "fold": Column("the fold that held the file out: its model has seen no frame of the file's subject", form=WHOLE),
    "subject": Column("whose frame it is, as read from the file name"),
    "width": Column("width of the image", "px", WHOLE),
    "height": Column("height of the image", "px", WHOLE),
    "dice": _metric("2TP / (2TP + FP + FN)"),
    "iou": _metric("TP / (TP + FP + FN), Jaccard index"),
    "accuracy": _metric("share of all pixels with the right class, background included", per_class=False),
    "precision": _metric("TP / (TP + FP); 0 if the class is in the truth and nowhere predicted"),
    "sensitivity": _metric("TP / (TP + FN), recall"),
    "specificity": _metric("TN / (TN + FP)"),
    "fpr": _metric("1 - specificity"),
    "fnr": _metric("1 - sensitivity"),
    **_distances("px"),
    **_distances("mm"),
    "nsd": _metric(
        "normalised surface Dice: share of both boundaries within the tolerance of the other one. The tolerance is "
        "margin_mm if there is a margin, else 1 px (of the coarser axis)"
    ),
    "mask_used": Column(f"the variant of the truth ({', '.join(VARIANTS)}) that agrees best with the prediction"),
    **{f"dice_{name}": Column(variant.text, "0 to 1") for name, variant in VARIANTS.items()},
    "pixels_per_mm": Column("of the image, as given or assumed (see Settings)", "px/mm"),
    "pixels_per_mm_x": Column("along a row of the image", "px/mm"),
    "pixels_per_mm_y": Column("along a column of the image", "px/mm"),
    "margin_mm": Column("the distance within which a border is taken to be as true", "mm", "0.00"),
    "entropy": Column(
        "mean over the image's pixels of -sum p ln p / ln C over the C classes: 0 is sure, 1 is no idea", "0 to 1"
    ),
    "expected_dice": Column(
        "Dice that the model itself expects, p being the probability of the class: 2 sum p over the labelled pixels "
        "/ (these pixels + sum p over all); mean over the foreground classes that are predicted, blank if none is",
        "0 to 1",
        per_class=True,
    ),
    "missed": Column("foreground classes that are in the truth only", "class names", WHOLE, per_class=True),
    "spurious": Column("foreground classes that are in the prediction only", "class names", WHOLE, per_class=True),
    "seconds": Column("epochs: the whole epoch; files: network and resizing to native size, per frame", "s", "0.000"),
    # Of groups of files, and of the sheets Summary, Sweep, Calibration and of comparisons.
    "n": Column("values that entered a mean", form=WHOLE),
    "files": Column("number of files", form=WHOLE),
    "subjects": Column("number of subjects", form=WHOLE),
    "pixels": Column("number of pixels", form=WHOLE),
    **{name: Column("files that chose this variant of the truth", form=WHOLE) for name in VARIANTS},
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
    "resampling subjects if the file names give one, else files.",
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
    "Choice: one variant per file, that of best foreground mean Dice, in the order "
    f"{', '.join(VARIANTS)}; a later one only if better by more than 1e-12. A variant that loses a class of the truth "
    "is not eligible. All tolerant scores of the file are then against that variant.",
    "Caution: the reference is chosen per image, knowing the prediction. So tolerant Dice is never below plain Dice, "
    "it gains most on thin structures, and it must not be compared with published Dice. It never chooses a checkpoint.",
    "Sweep: the same for margins of 0 to 3 mm: means over files of the tolerant Dice (best of the three) and of nsd at "
    "that tolerance, and how many files chose each variant.",
)


def find(name, classes):
    """The Column of a name. classes: names of the classes that columns end in, as Labels.column_names has them.

    Raise LookupError if the table has no entry for it.
    """
    if name in COLUMNS:
        return COLUMNS[name]
    if name.startswith("tolerant_"):
        plain = find(name.removeprefix("tolerant_"), classes)
        return replace(plain, text=f"{plain.text}, against the chosen variant of the truth (mask_used)", metric=False)
    if name.startswith("n_"):
        return replace(COLUMNS["n"], text=f"files that have {name.removeprefix('n_')}")
    for owner in classes:
        base = name.removesuffix(f"_{owner}")
        if base != name and base in COLUMNS and COLUMNS[base].per_class:
            return replace(COLUMNS[base], text=f"{base} of class {owner} alone")
    raise LookupError(f"the column {name} has no entry in sonogravity/metrics/columns.py")


def check(names, classes):
    """LookupError for the first of the names that find() does not know, at the start of a script."""
    for name in names:
        find(name, classes)


def form_of(name):
    """The number format of a column of any table, also of one made of several runs."""
    name = name.removeprefix("tolerant_")
    if name.startswith("n_"):
        return WHOLE
    known = [base for base in COLUMNS if name == base or (COLUMNS[base].per_class and name.startswith(f"{base}_"))]
    return COLUMNS[max(known, key=len)].form if known else SCORE


def is_metric(name):
    """Whether a column of files.csv, of whatever class, is a score that two runs are compared by."""
    if name in COLUMNS:
        return COLUMNS[name].metric
    return any(column.metric and column.per_class and name.startswith(f"{base}_") for base, column in COLUMNS.items())
