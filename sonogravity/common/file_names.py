"""Names of the files and folders that scripts write (docs/output-files.md)."""

import re

DIGITS = 6  # of the number in the name of a frame
SETTINGS = "settings.json"  # of a run and of an output folder
IN_USE = ".in_use"  # names the process that writes to a folder or file (claims.py)

# Of a run: in checkpoints/<model>/<run> and results/<model>/<run>.
LAST, BEST = "last.pth", "best.pth"
EPOCHS_CSV, EPOCHS_XLSX, PROGRESS = "epochs.csv", "epochs.xlsx", "progress.png"
INSPECTION, INSPECTION_PICTURES = "inspection.xlsx", "inspection"  # of --check

# Of an output folder.
MASKS, PANELS = "masks", "panels"
FILES_CSV, FILES_XLSX, SUMMARY = "files.csv", "files.xlsx", "summary.json"
SWEEP, CALIBRATION = "sweep.png", "calibration.png"
ROWS_DONE = "files.partial.csv"  # the rows of the files scored so far
UNFINISHED = "partial"  # the folder inside an output folder that holds all of these until the last is written
OUTPUT_FOLDERS = (MASKS, PANELS)
OUTPUT_FILES = (FILES_XLSX, FILES_CSV, ROWS_DONE, SUMMARY, SETTINGS, SWEEP, CALIBRATION)
PANEL_KINDS = ("png", "jpg")
OVERLAY = "_overlay.mp4"  # ending of the name of a clip's overlay video
MASK_SUFFIXES = {"png": ".png", "tiff": ".tif", "nifti": ".nii.gz"}


def epoch_name(epoch):
    """Return the name of an epoch's checkpoint (without .pth) and of its folder of panels."""
    return f"epoch_{epoch:03d}"


def frame_name(stem, number):
    """Return the identity of a frame of a clip, cine or stack. number: from 0, in the order of the file."""
    return f"{stem}_{number:0{DIGITS}d}"


def mask_name(stem, kind="png"):
    """Return the name of a predicted mask. kind: one of MASK_SUFFIXES."""
    return f"{stem}{MASK_SUFFIXES[kind]}"


def panel_name(stem, kind):
    """Return the name of a frame's panel. kind: one of PANEL_KINDS."""
    return f"{stem}.{kind}"


def overlay_name(clip):
    """Return the name of the overlay video of a clip. clip: the stem of its file."""
    return f"{clip}{OVERLAY}"


def fold_run_name(name, fold):
    """Return the name of the run of one fold."""
    return f"{name}_fold_{fold}"


def is_fold(run):
    """Return whether a run's name is that of one fold."""
    return re.search(r"_fold_\d+$", run) is not None
