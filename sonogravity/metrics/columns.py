"""The columns of all worksheets: definition, unit, number format, and whether there is one column per class.

CSV files, workbooks, definitions, summaries and comparisons use this table. A column without an entry ends a script at
its start.
"""

from dataclasses import dataclass, replace

from sonogravity.metrics import summary
from sonogravity.metrics.flicker import FLICKER, PAIRS, UNSMOOTHED
from sonogravity.metrics.margin import VARIANTS
from sonogravity.metrics.measurements import SD_IN_LIMITS, TRUE, columns_in

SOURCE, TIME = "source", "time_s"  # columns of frames that are in one file with others
EXPECTED_DICE = "expected_dice"
WHOLE, SCORE, FINE, MEASUREMENT = "0", "0.0000", "0.00000", "0.00"  # number formats


@dataclass(frozen=True)
class Column:
    """One column; if per_class, one column for all foreground classes together and one per class, NAME_CLASS.

    text: definition. form: number format. metric: compared between runs. only_per_class: there is no column for all
    classes together.
    """

    text: str
    unit: str = ""
    form: str = SCORE
    per_class: bool = False
    metric: bool = False
    only_per_class: bool = False


def _metric(text, unit="0 to 1", per_class=True):
    return Column(text, unit, per_class=per_class, metric=True)


def _distances(unit):
    """Return the columns of boundary distances in a unit, px or mm."""
    return {
        f"hd_{unit}": _metric(
            "Hausdorff distance: the largest distance from a pixel of either boundary to the nearest pixel of the "
            "other boundary",
            unit,
        ),
        f"hd95_{unit}": _metric(
            "as hd, but with the 95th percentile (linear interpolation) of the distances in each direction instead of "
            "the maximum; the larger of the two",
            unit,
        ),
        f"assd_{unit}": _metric(
            "average symmetric surface distance: mean distance from a pixel of either boundary to the nearest pixel of "
            "the other boundary, both directions together",
            unit,
        ),
    }


def _measurements(unit):
    """Return the columns of measurements in a unit, px or mm."""
    columns = columns_in(unit)
    texts = {
        "area": ("number of pixels x height x width of a pixel", columns["area"].split("_")[1]),
        "components": ("number of connected components (8 neighbours)", ""),
        "top": ("depth of the shallowest pixel's centre below the image's top edge (not the skin)", unit),
        "centroid_x": ("distance of the centroid from the image's left edge", unit),
        "centroid_y": ("depth of the centroid below the image's top edge (not the skin)", unit),
        "thickness": ("mean vertical extent: pixels x height of a pixel / number of image columns that hold any", unit),
    }
    return {
        columns[name]: Column(text, of, MEASUREMENT, per_class=True, metric=True, only_per_class=True)
        for name, (text, of) in texts.items()
    }


COLUMNS = {
    "epoch": Column("number of the epoch, from 1", form=WHOLE),
    "learning_rate": Column("learning rate of the epoch's last step", form="0.00E+00"),
    "train_loss": Column(
        "training loss at the size that the network sees, mean over the epoch's frames; of the main output alone, as "
        "val_loss, without the heads of deep supervision or the auxiliary head"
    ),
    "val_loss": Column("validation loss, computed per file at native size, mean over files"),
    "images_per_second": Column("training frames per second, without the time of the validation", "frames/s", "0.00"),
    "file": Column("file name of the image"),
    SOURCE: Column("file that holds the frame: a clip, cine, stack or volume"),
    TIME: Column("time of the frame, from the first frame of its source", "s", "0.000"),
    "fold": Column(
        "the fold whose model scored the file; it was trained without any frame of the file's subject", form=WHOLE
    ),
    "subject": Column("person or phantom that the frame shows, from --subjects or the file name"),
    "width": Column("width of the image", "px", WHOLE),
    "height": Column("height of the image", "px", WHOLE),
    "dice": _metric("2TP / (2TP + FP + FN)"),
    "iou": _metric("TP / (TP + FP + FN), Jaccard index"),
    "accuracy": _metric("share of all pixels with the correct class, background included", per_class=False),
    "precision": _metric("TP / (TP + FP); 0 if the class is in the truth but not in the prediction"),
    "sensitivity": _metric("TP / (TP + FN), recall"),
    "specificity": _metric("TN / (TN + FP)"),
    "fpr": _metric("1 - specificity"),
    "fnr": _metric("1 - sensitivity"),
    **_distances("px"),
    **_distances("mm"),
    "nsd": _metric(
        "normalised surface Dice: share of the pixels of both boundaries that lie within the tolerance of the other "
        "boundary. The tolerance is margin_mm if there is a margin, else 1 px (of the coarser axis if the two differ)"
    ),
    "mask_used": Column(f"the chosen variant of the truth ({', '.join(VARIANTS)}), see Choice below"),
    **{f"dice_{name}": Column(variant.text, "0 to 1") for name, variant in VARIANTS.items()},
    "tolerant_dice_up_to": Column(
        "mean over files of the best tolerant Dice of the margins up to this one, so it never falls", "0 to 1"
    ),
    "pixels_per_mm": Column("pixels per mm of the image, as given or assumed (see Settings)", "px/mm"),
    "pixels_per_mm_x": Column("horizontal pixels per mm of the image", "px/mm"),
    "pixels_per_mm_y": Column("vertical pixels per mm of the image", "px/mm"),
    "margin_mm": Column("distance by which the truth is dilated and eroded; also the tolerance of nsd", "mm", "0.00"),
    "entropy": Column(
        "mean over the image's pixels of -sum(p ln p) / ln C over the C classes: 0 is certain, 1 is undecided", "0 to 1"
    ),
    EXPECTED_DICE: Column(
        "order of certainty, not an estimate of Dice: 2 sum(p over the pixels labelled with the class) / (number of "
        "these pixels + sum(p over all pixels)), p being the model's probabilities. Mean over the foreground classes "
        "that are predicted; blank if there are none",
        "0 to 1",
        per_class=True,
    ),
    "unlike_training": Column(
        "distance of the grey levels of the image from those of the nearest training image, divided by the distance "
        "that is "
        "usual between subjects; above 1 the image is unlike the training images",
        form="0.00",
    ),
    **_measurements("px"),
    **_measurements("mm"),
    "missed": Column("foreground classes that are in the truth only", "class names", WHOLE, per_class=True),
    "spurious": Column("foreground classes that are in the prediction only", "class names", WHOLE, per_class=True),
    "seconds": Column(
        "in epochs.xlsx: time of the whole epoch; for files: time of network and resizing to native size, per frame",
        "s",
        "0.000",
    ),
    "clip": Column("file that holds the frames of the clip, without its extension"),
    "frames": Column("number of frames of the clip in the sheet Files", form=WHOLE),
    FLICKER: Column(
        "share of the pixels (with --region those of the region) whose label differs from that of the frame before, "
        "mean over the flicker_n pairs of frames",
        "0 to 1",
        FINE,
    ),
    PAIRS: Column("number of pairs of successive frames (numbers k - 1 and k) in flicker", form=WHOLE),
    UNSMOOTHED: Column("flicker of the same frames without smoothing over time (--smooth)", "0 to 1", FINE),
    # Columns of groups of files, of the sheets Summary, Sweep and Calibration, and of comparisons.
    "n": Column("number of values in the mean", form=WHOLE),
    "files": Column("number of files", form=WHOLE),
    "subjects": Column("number of subjects", form=WHOLE),
    "pixels": Column("number of pixels", form=WHOLE),
    "wilcoxon_p": Column("two-sided Wilcoxon signed-rank test, see the Definitions of compare", form="0.00E+00"),
    **{name: Column("number of files for which this variant of the truth was chosen", form=WHOLE) for name in VARIANTS},
}
NOTES = (
    "TP, FP, FN, TN: number of true positive, false positive, false negative and true negative pixels of one class "
    "against all others, at the image's native size.",
    "<metric> is the mean over the foreground classes for which the metric is defined. <metric>_<class> is the metric "
    "of one class. The background has its own columns and is left out of every mean.",
    "A blank cell is an undefined value or an infinite distance. Dice and IoU are undefined if the class is in neither "
    "truth nor prediction. Sensitivity and FNR are undefined if the class is not in the truth. Blank cells are left "
    "out of means, and n is the number of values in the mean. If the class is in only one of truth and prediction, "
    "Dice and IoU are 0.",
    "mean: mean of the column over files; AVERAGE of the column gives the same number. In epochs.xlsx every score is "
    "this mean over the validation files.",
    "mean_of_classes: mean over files per class first, then over classes (the number that nnU-Net reports).",
    "pooled: from the pixel counts summed over all files, as if they were one large image.",
    "sd: standard deviation over files (divided by n - 1). q1, median, q3: quartiles over files.",
    f"ci95: 95 % bootstrap interval of the mean ({summary.BOOTSTRAP_RESAMPLES} resamples, fixed seed). If "
    "files have subjects, subjects are resampled, else files.",
    "entropy and expected_dice need no mask. They show which predictions to check first. They are computed from the "
    "model's probabilities (softmax) at native size, so they are only as reliable as the calibration of these "
    "probabilities (see calibration.png of evaluate.py). A model can be certain and wrong.",
    "Calibration (evaluate.py, folds): per class, all pixels of all files are sorted into ten bins by the probability "
    "that the model gives the class. probability: mean probability of the pixels in the bin. observed: share of these "
    "pixels that belong to the class. Expected calibration error: mean over all pixels of the absolute "
    "difference between probability and observed in the bin of the pixel.",
    "Boundary metrics are computed for foreground classes, always against the original truth. The boundary of a class "
    "consists of its pixels with a neighbour above, below, left or right outside the class; the area beyond the image "
    "counts as outside. Distances are measured between pixel centres and scaled by the pixel size of each axis. If "
    "the class is in neither truth nor prediction, the cells are blank. If it is in only one of the two, hd, hd95 and "
    "assd are infinite: their cells are blank and left out of means, the class is named under missed or spurious, and "
    "the Summary counts both beside every boundary mean. nsd is then 0 and is part of the mean.",
)
GROUP_NOTES = (
    "By fold, By subject: mean of each metric over the files of the group. files: number of files. n_<metric>: number "
    "of files for which the metric is defined. missed, spurious (also per class): number of classes that boundary "
    "means leave out. The last two rows: mean and standard deviation (n - 1) over the groups, with equal weight per "
    "group; there n_<metric> is the number of groups for which the metric is defined.",
)
MEASUREMENT_NOTES = (
    "Measurements: of each foreground class of the prediction, also in files without a mask; columns that begin with "
    f"{TRUE} are those of the truth. They are in mm if spacing is given, else in px. Positions are those of pixel "
    "centres, from the top left corner of the image. Depths start at the image's top edge, which need not be the skin. "
    "If a class is absent, its area and its number of components are 0 and the other cells are blank. In a file with "
    "a mask, ignored pixels are background in truth and prediction.",
    "Agreement with the truth (Bland and Altman, Lancet 1986), in the sheet Summary: differences prediction - truth "
    "over the n files in which both hold the class. missed, spurious: files in which only the truth or only the "
    "prediction holds it; they are left out. bias: mean difference. sd: standard deviation (divided by n - 1). "
    f"limit_low, limit_high: limits of agreement, bias -+ {SD_IN_LIMITS} sd. subjects_<name>: the same from the mean "
    "difference of each subject, because files of one subject are not independent (Bland and Altman, J Biopharm Stat "
    "2007); these limits are those of a mean over files, not of a single file. If no file has a subject, there "
    "are no subjects_ columns, and the limits take files as independent.",
)
MARGIN_NOTES = (
    "Margin: in the dilated truth, background within margin_mm of a structure takes the class of the nearest structure "
    "(if two are equally near, the lowest class). In the eroded truth, pixels of structures within margin_mm of "
    "background become background. Distances are Euclidean, at native size, and never rounded to pixels. Nothing is "
    "known beyond the edge of the image, so a structure is not eroded from there.",
    "Choice: one variant per file, the one with the best foreground mean Dice. The variants are compared in the order "
    f"{', '.join(VARIANTS)}; a later one is chosen only if it is better by more than 1e-12. A variant that loses a "
    "foreground class of the truth is not eligible. All tolerant scores of the file are computed against the chosen "
    "variant.",
    "Caution: the variant is chosen per image, by Dice, and the choice depends on the prediction. Tolerant Dice is "
    "therefore never below plain Dice; other tolerant scores can be, and sensitivity often is. Tolerant Dice gains "
    "most on thin structures and must not be compared with published Dice. It is never used to choose a checkpoint.",
    "Sweep: margins of 0 to 3 mm. Means over files of tolerant Dice (against the chosen variant) and of nsd with the "
    "margin as tolerance, and the number of files for which each variant was chosen.",
)
SMOOTHING_NOTES = (
    "Smoothing (--smooth): the logits of each frame of a clip are averaged with those of the frames before it: s_k = a "
    "s_(k-1) + (1 - a) x_k with a = exp(-(t_k - t_(k-1)) / smooth_seconds); x are the logits of the model at native "
    "size, t the times of the frames in s, and s the smoothed logits, with s_0 = x_0. If a time is not after the one "
    "before, s_k = x_k. All scores, entropy, expected_dice and the calibration are those of the smoothed logits. "
    "Frames that are in no clip are not smoothed.",
)


def notes_of_files(with_margin, grouped, smoothed):
    """Return the notes below the definitions of scored files. grouped: there are sheets by group."""
    conditional = ((MARGIN_NOTES, with_margin), (GROUP_NOTES, grouped), (SMOOTHING_NOTES, smoothed))
    return NOTES + MEASUREMENT_NOTES + tuple(note for notes, wanted in conditional if wanted for note in notes)


def find(name, classes):
    """Return the Column of a name. classes: the class names with which columns end (Labels.column_names).

    Raise LookupError if the table has no entry for the name.
    """
    if name in COLUMNS and not COLUMNS[name].only_per_class:
        return COLUMNS[name]
    if name.startswith(TRUE):
        plain = find(name.removeprefix(TRUE), classes)
        return replace(plain, text=f"{plain.text}, in the truth", metric=False)
    if name.startswith("tolerant_"):
        plain = find(name.removeprefix("tolerant_"), classes)
        return replace(plain, text=f"{plain.text}, against the chosen variant of the truth (mask_used)", metric=False)
    if name.startswith("n_"):
        return replace(COLUMNS["n"], text=f"number of files for which {name.removeprefix('n_')} is defined")
    for owner in classes:
        base = name.removesuffix(f"_{owner}")
        if base != name and base in COLUMNS and COLUMNS[base].per_class:
            text = (
                f"{COLUMNS[base].text}; of class {owner}"
                if COLUMNS[base].only_per_class
                else f"{base} of class {owner} alone"
            )
            return replace(COLUMNS[base], text=text)
    raise LookupError(f"the column {name} has no entry in sonogravity/metrics/columns.py")


def check(names, classes):
    """Raise LookupError for the first name without an entry. Scripts call this at their start."""
    for name in names:
        find(name, classes)


def form_of(name):
    """Return the number format of a column of any table, also of a table of several runs."""
    name = name.removeprefix("tolerant_").removeprefix(TRUE)
    if name.startswith("n_"):
        return WHOLE
    known = [base for base in COLUMNS if name == base or (COLUMNS[base].per_class and name.startswith(f"{base}_"))]
    return COLUMNS[max(known, key=len)].form if known else SCORE


def is_metric(name):
    """Return whether a column of files.csv, of any class, is a score by which runs are compared."""
    if name in COLUMNS:
        return COLUMNS[name].metric
    return any(column.metric and column.per_class and name.startswith(f"{base}_") for base, column in COLUMNS.items())
