"""The options of predict and evaluate as one object."""

from dataclasses import dataclass
from pathlib import Path

from sonogravity.commands.spacings import choose_spacings
from sonogravity.common import folders, provenance
from sonogravity.common.messages import some, warn
from sonogravity.datasets.inputs import WHOLE, Part
from sonogravity.datasets.spacing import ASSUMED
from sonogravity.datasets.subjects import Subjects
from sonogravity.metrics.file_scores import Measure
from sonogravity.reporting import overlay_video


@dataclass(frozen=True)
class Request:
    """The options that predict and evaluate share: input, output and settings.

    script: predict writes masks (and panels) and takes frames without a mask; evaluate writes only scores and needs a
    mask per frame; with ``_w_margin`` both have a margin_mm. output: if None, results/<model>/<run>/<script>.
    subjects: where those of the files stand. options: all options of the command line, for settings.json.
    """

    script: str
    inputs: list
    batch_size: int
    workers: int | None
    subjects: Subjects
    options: dict
    masks: Path | None = None
    use_masks: bool = True
    output: Path | None = None
    pixels_per_mm: float | None = None
    spacing: Path | None = None
    part: Part = WHOLE
    panels: str | None = None
    panels_of_clips: bool = False
    video: bool = False
    mask_format: str | None = None
    margin_mm: float | None = None
    engine: str = "torch"
    int8: bool = False
    tta: str = "none"
    smooth_seconds: float | None = None
    grey_masks: bool = False

    @property
    def predicting(self):
        """Whether the script writes masks."""
        return self.script.startswith("predict")

    def output_folder(self, model_name, run):
        """Return the folder of the results."""
        return self.output or folders.RESULTS / model_name / run / self.script

    def describe_smoothing(self):
        """Return the smoothing over time, for settings.json and summary.json; empty without it."""
        return {} if self.smooth_seconds is None else {"smooth_seconds": self.smooth_seconds}

    def has_panel(self, pair):
        """Return whether a panel of the frame is written: for frames of clips only if the user asked for panels."""
        return self.panels is not None and (self.panels_of_clips or not pair.image.is_numbered)

    def has_video(self, pair):
        """Return whether the frame is part of an overlay video."""
        return self.video and pair.image.is_of_several and overlay_video.is_small_enough(pair.image)

    def is_shown(self, pair):
        """Return whether the frame's image is needed after the network has seen it."""
        return self.has_panel(pair) or self.has_video(pair)

    def measure(self, labels, pairs):
        """Return the Measure of the pairs' files. Say which spacing is used; warn if the margin assumes one."""
        spacings = choose_spacings(self, [pair.image for pair in pairs])
        if self.margin_mm is not None:
            self._warn_of_margin(spacings)
        return Measure(labels, spacings, self.margin_mm)

    def _warn_of_margin(self, spacings):
        if any(each.assumed for each in spacings.values()):
            near = [table for path in self.inputs if (table := path.parent / "spacing.csv").is_file()]
            hint = f" ({near[0]} may be the table)" if near else ""
            warn(
                f"without --pixels-per-mm or --spacing{hint}, {ASSUMED.x} pixels per mm are ASSUMED, so the margin of "
                f"{self.margin_mm:g} mm is {self.margin_mm * ASSUMED.x:.3g} pixels; boundary metrics stay in pixels"
            )
        still = [file for file, each in spacings.items() if self.margin_mm * max(each.x, each.y) < 1]
        if still:
            warn(f"the margin is below one pixel in {len(still)} files and has no effect on them: {some(still)}")


def describe_settings(request, labels):
    """Return the entries of settings.json and of the Settings sheet that all scripts share."""
    return {
        "script": request.script,
        "options": request.options,
        "labels": labels.as_dict(),
        "commit": provenance.commit(),
        "versions": provenance.describe_versions(),
    }
