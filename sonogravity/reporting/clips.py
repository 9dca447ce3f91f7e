"""Scores of clips as a whole: the flicker of their predictions."""

from sonogravity.metrics.flicker import FLICKER, PAIRS, TRUE_FLICKER, UNSMOOTHED
from sonogravity.metrics.overlap import finite_mean

LISTED = 3  # clips named on the terminal


def counted(results, flicker):
    """Yield FileResults, and count the flicker of their clips."""
    for result in results:
        seen = result.frame.seen
        maps = {FLICKER: result.prediction, UNSMOOTHED: result.unsmoothed, TRUE_FLICKER: result.truth}
        flicker.add(result.frame.pair.image, {k: None if v is None else seen(v) for k, v in maps.items()})
        yield result


def smoothed_over(summary):
    """Return what lines with a Dice say of smoothing; nothing without it. summary: the content of summary.json."""
    return f", smoothed over {summary['smooth_seconds']:g} s" if "smooth_seconds" in summary else ""


def describe_flicker(clips):
    """Return the lines for the terminal: one per clip, or the mean and the clips with the highest flicker.

    clips: of summary.json.
    """
    if len(clips) <= LISTED:
        return [f"flicker of {clip}: {_shares(entry)}; {entry[PAIRS]} pairs of frames" for clip, entry in clips.items()]
    highest = sorted(clips, key=lambda clip: clips[clip][FLICKER], reverse=True)[:LISTED]
    means = {
        name: finite_mean([entry[name] for entry in clips.values()])
        for name in (FLICKER, UNSMOOTHED, TRUE_FLICKER)
        if all(name in entry for entry in clips.values())
    }
    named = ", ".join(f"{clip} {clips[clip][FLICKER]:.5f}" for clip in highest)
    return [f"flicker, mean of {len(clips)} clips: {_shares(means)}; highest: {named}"]


def _shares(entry):
    more = [
        f"{what} {entry[name]:.5f}"
        for name, what in ((UNSMOOTHED, "without smoothing"), (TRUE_FLICKER, "of the truth"))
        if name in entry
    ]
    return f"{entry[FLICKER]:.5f}" + (f" ({', '.join(more)})" if more else "")
