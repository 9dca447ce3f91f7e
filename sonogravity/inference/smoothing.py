"""Smoothing over time: the logits of the frames of a clip, averaged with those of the frames before."""

import math


class Smoothing:
    """Exponential moving average of logits with a time constant. It is causal: no later frame changes an earlier one.

    x_k are the logits of frame k of a clip, t_k is its time in seconds, and s_k are the smoothed logits::

        s_0 = x_0
        s_k = a s_{k-1} + (1 - a) x_k,   a = exp(-(t_k - t_{k-1}) / seconds)

    A frame ``seconds`` ago therefore has 1/e of the weight that it had at its own time, at any frame rate, also an
    irregular one. If t_k is not after t_{k-1} (a time that is repeated, goes back or is no number), the time between
    the two frames is unknown, and the average begins anew: s_k = x_k. With a = exp(0) = 1 it would keep the labels of
    frame k-1 for good.

    The logits of an Ensemble are the logarithm of its mean probabilities.

    seconds: the time constant, above 0. An object holds the state of one clip and forgets it when the next one begins.
    """

    def __init__(self, seconds):
        self.seconds = seconds
        self._clip = self._time_s = self._average = None

    def smooth(self, logits, time_s, clip=None):
        """Return the smoothed (C, H, W) logits of the next frame, as a new tensor.

        logits: (C, H, W), the same shape for each frame of a clip. time_s: the frame's time, from any origin. clip: any
        value that is another one for another clip.
        """
        passed = time_s - self._time_s if self._average is not None and clip == self._clip else 0
        if passed > 0:
            self._average = logits.lerp(self._average, math.exp(-passed / self.seconds))
        else:
            self._average = logits.clone()  # an engine may write the next frame into the same memory
        self._clip, self._time_s = clip, time_s
        return self._average
