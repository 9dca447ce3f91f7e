"""The row per file: overlap, boundary and tolerant metrics, measurements, in the columns that all worksheets share."""

from dataclasses import dataclass

import numpy as np

from sonogravity.datasets.labels import Labels
from sonogravity.datasets.spacing import Spacing
from sonogravity.metrics import boundary, margin, measurements, overlap

SWEPT = ("tolerant_dice", "tolerant_dice_up_to", "nsd")  # scores of the sweep


@dataclass(frozen=True)
class Measured:
    """The scores of one file. figures: its columns. choice, sweep: results of the margin, None without a margin."""

    figures: dict
    choice: margin.Choice | None = None
    sweep: list | None = None


@dataclass(frozen=True)
class Measure:
    """How files are scored. spacings: by file name. margin_mm: None for scores without a margin."""

    labels: Labels
    spacings: dict[str, Spacing]
    margin_mm: float | None = None

    @property
    def boundary_names(self):
        """Return {metric: column} of the boundary metrics. All columns except that of NSD contain the unit."""
        unit = next(iter(self.spacings.values())).unit
        return {name: name if name == "nsd" else f"{name}_{unit}" for name in boundary.BOUNDARY}

    @property
    def names(self):
        """Return the metrics of a file, in the order of the sheet."""
        tolerant = [] if self.margin_mm is None else [f"tolerant_{name}" for name in overlap.OVERLAP]
        return [*overlap.OVERLAP, *self.boundary_names.values(), *tolerant]

    @property
    def measurement_names(self):
        """Return the columns of the measurements of a prediction, in the order of the sheet."""
        columns = measurements.columns_in(next(iter(self.spacings.values())).unit).values()
        return [f"{column}_{self.labels.names[c]}" for c in self.labels.foreground for column in columns]

    def measurements(self, file, prediction, truth=None, ignored=None):
        """Return the measurements of (H, W) class indices, and the spacing of a calibrated file.

        truth, ignored: as overlap.count returns them. The columns of the truth begin with ``true_``.
        """
        spacing, labels = self.spacings[file], self.labels
        found = {} if spacing.assumed else self._pixels_per_mm(spacing)
        prediction = overlap.with_background(prediction, ignored, labels.background)
        for prefix, classes in (("", prediction), (measurements.TRUE, truth)):
            if classes is not None:
                each = (measurements.measure(classes == c, spacing.pixel_size) for c in labels.foreground)
                values = [value for of_class in each for value in of_class.values()]
                found |= {f"{prefix}{name}": v for name, v in zip(self.measurement_names, values, strict=True)}
        return found

    def of(self, file, truth, prediction, confusion, ignored=None):
        """Return the Measured of (H, W) class indices of truth and prediction, and of their (C, C) counts.

        truth, confusion, ignored: as overlap.count returns them.
        """
        return self._of(self.spacings[file], truth, prediction, confusion, ignored)

    def _of(self, spacing, truth, prediction, confusion, ignored=None):
        labels = self.labels
        prediction = overlap.with_background(prediction, ignored, labels.background)
        distances = boundary.class_distances(truth, prediction, labels.foreground, spacing.pixel_size)
        tolerance = spacing.tolerance(self.margin_mm)
        per_class = {c: boundary.boundary_metrics(*distances[c], tolerance) for c in labels.foreground}
        columns = {
            column: {c: figures[name] for c, figures in per_class.items()}
            for name, column in self.boundary_names.items()
        }
        figures = overlap.file_metrics(confusion, labels, columns)
        if self.margin_mm is None:
            return Measured(figures if spacing.assumed else figures | self._pixels_per_mm(spacing))
        choice = margin.choose(truth, prediction, confusion, labels, self.margin_mm, spacing.pixel_size_mm, ignored)
        tolerant = overlap.file_metrics(choice.confusion, labels)
        figures["mask_used"] = choice.used
        figures |= {f"dice_{name}": choice.dice[name] for name in margin.VARIANTS}
        figures |= {f"tolerant_{name}": value for name, value in tolerant.items() if not isinstance(value, str)}
        figures |= self._pixels_per_mm(spacing) | {"margin_mm": self.margin_mm}
        sweep = margin.sweep(truth, prediction, confusion, labels, distances, spacing, ignored)
        return Measured(figures, choice, sweep)

    def _pixels_per_mm(self, spacing):
        if all(each.x == each.y for each in self.spacings.values()):
            return {"pixels_per_mm": spacing.x}
        return {"pixels_per_mm_x": spacing.x, "pixels_per_mm_y": spacing.y}

    def columns(self, scored, more=()):
        """Return the columns of files.csv before any file is scored.

        scored: at least one file has a mask. more: columns between the scores and the measurements.
        """
        file, spacing = next(iter(self.spacings.items()))
        nothing = np.zeros((1, 1), np.uint8) + np.uint8(self.labels.background)
        figures = {}
        if scored:
            counts = overlap.confusion_matrix(nothing, nothing, self.labels.count)
            figures = self._of(spacing, nothing, nothing, counts).figures
        measured = self.measurements(file, nothing, nothing if scored else None)
        return list(dict.fromkeys(["file", "width", "height", *figures, *more, *measured, "seconds"]))

    def margin_summary(self, measured):
        """Return ``margin`` of summary.json: how often each variant was chosen, and the sweep's means over files."""
        chosen = [each.choice.used for each in measured]
        given = {(each.x, each.y) for each in self.spacings.values()}
        x, y = next(iter(given))
        sweep = []
        for rows in zip(*(each.sweep for each in measured), strict=True):
            used = [row["mask_used"] for row in rows]
            sweep.append(
                {
                    "margin_mm": rows[0]["margin_mm"],
                    **{name: float(overlap.nan_mean([row[name] for row in rows])) for name in SWEPT},
                    "n": sum(not np.isnan(row["tolerant_dice"]) for row in rows),
                    **{name: used.count(name) for name in margin.VARIANTS},
                }
            )
        return {
            "mm": self.margin_mm,
            "pixels_per_mm": None if len(given) > 1 else x if x == y else [x, y],  # None: differs between files
            "assumed": any(each.assumed for each in self.spacings.values()),
            "chosen": {name: chosen.count(name) for name in margin.VARIANTS},
            "sweep": sweep,
        }
