"""Time the scores of one frame against MONAI and medpy, the margin, and the growth of cost with image size.

    python benchmarks/metrics.py [--masks FOLDER]

Frames are masks (0, 128, 255) of FOLDER, else generated phantoms of 800x740. The prediction is the truth, shifted
and roughened. All times are medians of one run on this machine. Each tool computes all overlap scores, HD, HD95, ASSD
and NSD (except medpy) of both foreground classes.
"""

import argparse
import statistics
import sys
import tempfile
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from sonogravity.datasets.labels import Labels
from sonogravity.datasets.mask_files import decode_mask
from sonogravity.metrics import boundary, margin
from sonogravity.metrics.overlap import confusion_matrix, file_metrics

LABELS = Labels.create([0, 128, 255])
RADIUS_PX = 5.67
FRAMES = 9


def phantom_masks(folder):
    """Return the class maps of the folder's masks, or of generated phantoms if ``folder`` is None."""
    if folder is None:
        import runpy

        script = Path(__file__).resolve().parent.parent / "data" / "make_phantom.py"
        make_main = runpy.run_path(str(script))["main"]
        with tempfile.TemporaryDirectory() as made:
            make_main(["--output", made, "--train-frames", "8", "--validation-frames", str(FRAMES)])
            return phantom_masks(Path(made) / "validation" / "masks")
    files = sorted(folder.iterdir())
    files = files[:: max(1, len(files) // FRAMES)][:FRAMES]
    return [LABELS.to_classes(decode_mask(path), path) for path in files]


def roughened(truth, seed=0, shift=(2, 3), amplitude=2.5):
    """Return a prediction: the truth, shifted, with borders displaced by a smooth random field of a few pixels."""
    rng = np.random.default_rng(seed)
    fields = [gaussian_filter(rng.standard_normal(truth.shape), 4) for _ in range(2)]
    rows, columns = np.indices(truth.shape)
    rows = rows + shift[0] + np.rint(amplitude * fields[0] / fields[0].std())
    columns = columns + shift[1] + np.rint(amplitude * fields[1] / fields[1].std())
    height, width = truth.shape
    return truth[rows.clip(0, height - 1).astype(int), columns.clip(0, width - 1).astype(int)]


def ours(truth, prediction):
    counts = confusion_matrix(truth, prediction, 3)
    distances = boundary.class_distances(truth, prediction, LABELS.foreground)
    scores = {c: boundary.boundary_metrics(*distances[c], 1.0) for c in LABELS.foreground}
    return file_metrics(counts, LABELS), scores


def ours_with_margin(truth, prediction):
    counts = confusion_matrix(truth, prediction, 3)
    return margin.choose(truth, prediction, counts, LABELS, RADIUS_PX, (1.0, 1.0))


def with_monai(truth, prediction):
    import torch
    from monai import metrics as monai

    one_hot = [
        torch.nn.functional.one_hot(torch.from_numpy(m.astype(np.int64)), 3).movedim(2, 0)[None].float()
        for m in (prediction, truth)
    ]
    options = {"include_background": False}
    counts = monai.get_confusion_matrix(*one_hot, include_background=False)
    overlap = [
        monai.compute_confusion_matrix_metric(name, counts)
        for name in ("f1 score", "threat score", "precision", "sensitivity", "specificity")
    ]
    distances = [
        monai.compute_hausdorff_distance(*one_hot, **options),
        monai.compute_hausdorff_distance(*one_hot, percentile=95, **options),
        monai.compute_average_surface_distance(*one_hot, symmetric=True, **options),
        monai.compute_surface_dice(*one_hot, class_thresholds=[1.0, 1.0], **options),
    ]
    return overlap, distances


def with_medpy(truth, prediction):
    """Score with medpy, which computes less because it has no NSD."""
    from medpy.metric import binary

    found = []
    for c in (1, 2):
        masks = prediction == c, truth == c
        found.append(
            [
                score(*masks)
                for score in (
                    binary.dc,
                    binary.jc,
                    binary.precision,
                    binary.sensitivity,
                    binary.specificity,
                    binary.hd,
                    binary.hd95,
                    binary.assd,
                )
            ]
        )
    return found


def median_ms(function, frames, rounds):
    times = []
    for _ in range(rounds):
        for truth, prediction in frames:
            start = time.perf_counter()
            function(truth, prediction)
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--masks", type=Path, metavar="FOLDER", help="masks with the values 0, 128, 255")
    args = parser.parse_args(argv)
    warnings.filterwarnings("ignore")
    frames = [(truth, roughened(truth, seed)) for seed, truth in enumerate(phantom_masks(args.masks))]
    shapes = {truth.shape for truth, _ in frames}
    dice = statistics.mean(ours(*pair)[0]["dice"] for pair in frames)
    print(f"{len(frames)} frames of {shapes} (H, W), mean Dice {dice:.3f}")
    peers = [("ours", ours, 5)]
    for name, function in (("MONAI", with_monai), ("medpy", with_medpy)):
        try:
            function(*frames[0])
        except ImportError:
            print(f"{name} is not installed: pip install -e .[test]")
        else:
            peers.append((name, function, 2))
    base = None
    for name, function, rounds in peers:
        took = median_ms(function, frames, rounds)
        base = base or took
        print(f"{name:8} {took:8.2f} ms per frame  {took / base:6.1f} times ours")
    print(
        f"margin   {median_ms(ours_with_margin, frames, 3):8.2f} ms per frame (both variants and the choice, "
        f"r {RADIUS_PX} px; the confusion matrix is counted in)"
    )
    print("growth with the image (one frame enlarged; scores and margin, the radius in pixels unchanged):")
    truth, prediction = frames[0]
    for side in (512, 1024, 2048, 4096):
        rows, columns = (np.arange(side) * n // side for n in truth.shape)
        large = truth[np.ix_(rows, columns)], prediction[np.ix_(rows, columns)]
        took = [median_ms(function, [large], 5) for function in (ours, ours_with_margin)]
        tracemalloc.start()
        ours(*large)
        ours_with_margin(*large)
        peak = tracemalloc.get_traced_memory()[1] / large[0].nbytes
        tracemalloc.stop()
        per_pixel = [1e6 * value / side**2 for value in took]
        print(
            f"  {side:4}x{side:<4}  scores {took[0]:8.2f} ms, {per_pixel[0]:5.2f} ns/px   margin {took[1]:8.2f} ms, "
            f"{per_pixel[1]:5.2f} ns/px   peak memory {peak:.1f} masks"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
