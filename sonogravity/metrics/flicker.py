"""Flicker of clips: the share of pixels whose label changes from a frame to the next."""

import numpy as np

FLICKER, UNSMOOTHED, TRUE_FLICKER = "flicker", "flicker_without_smoothing", "true_flicker"
PAIRS = "flicker_n"


class Flicker:
    """Counts of changed labels over the pairs of successive frames (numbers k - 1 and k) of each clip.

    All frames of a clip have one size, so the share of all counted pixels is the mean of the shares of the pairs.
    """

    def __init__(self):
        self._frames = {}  # clip -> number of its frames
        self._counts = {}  # clip -> {name: [pairs, changed pixels, pixels]}
        self._last = (None, -1, {})  # clip, number and label maps of the frame before

    def add(self, image, maps):
        """Count a frame. image: its FrameFile. Frames that are in no clip are left out.

        maps: {FLICKER: (H, W) labels, UNSMOOTHED: the same without smoothing or None, TRUE_FLICKER: truth or None}.
        """
        if image.clip is None:
            return
        clip, number, before = self._last
        self._last = image.clip, image.number, maps
        self._frames[image.clip] = self._frames.get(image.clip, 0) + 1
        if (clip, number + 1) != (image.clip, image.number):
            return
        counts = self._counts.setdefault(image.clip, {name: np.zeros(3, np.int64) for name in maps})
        for name, labels in maps.items():
            if labels is not None and before[name] is not None:
                counts[name] += (1, np.count_nonzero(labels != before[name]), labels.size)

    def summary(self):
        """Return {clip: {"frames", "flicker", "flicker_n", ...}} of the clips with successive frames.

        flicker_without_smoothing, true_flicker: only if all the pairs of ``flicker`` have such label maps.
        """
        found = {}
        for clip, counts in self._counts.items():
            pairs = int(counts[FLICKER][0])
            shares = {name: changed / pixels for name, (n, changed, pixels) in counts.items() if n == pairs}
            found[clip] = {"frames": self._frames[clip], FLICKER: float(shares.pop(FLICKER)), PAIRS: pairs}
            found[clip] |= {name: float(share) for name, share in shares.items()}
        return found
