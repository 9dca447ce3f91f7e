"""The colours of the classes are told apart with any colour vision, from each other and from tissue of any brightness.

Colours are compared by their Euclidean distance in CIELAB (CIE 1976). A distance of 2.3 is just noticeable between
large areas side by side (Mahy et al., Color Res Appl 1994). Contours are thin and lie apart, so about nine times as
much is demanded.
"""

import numpy as np
import pytest

from sonogravity.datasets.labels import Labels
from sonogravity.reporting import pictures

APART = 20
# Machado, Oliveira and Fernandes, IEEE TVCG 2009, severity 1.0: matrices on linear red, green and blue.
VISIONS = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ_OF_LINEAR = [
    [0.4124564, 0.3575761, 0.1804375],
    [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
]
WHITE = [0.95047, 1.0, 1.08883]  # D65
GREYS = np.repeat(np.arange(256)[:, None], 3, 1)
OKABE_ITO = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
by_vision = pytest.mark.parametrize("vision", VISIONS)


def seen(colours, vision):
    """(n, 3) CIELAB of (n, 3) sRGB colours as a person of this colour vision sees them."""
    levels = np.asarray(colours) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    linear = (linear @ np.transpose(VISIONS[vision])).clip(0, 1)
    ratio = linear @ np.transpose(XYZ_OF_LINEAR) / WHITE
    x, y, z = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio * (29 / 6) ** 2 / 3 + 4 / 29).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def least_distances(colours, vision):
    """The least distance of two colours, and of a colour and a grey level."""
    own, greys = seen(colours, vision), seen(GREYS, vision)
    pairs = np.linalg.norm(own[:, None] - own[None], axis=-1)[np.triu_indices(len(own), 1)]
    return pairs.min(), np.linalg.norm(own[:, None] - greys[None], axis=-1).min()


def test_cielab_and_the_simulation_are_those_of_the_papers():
    np.testing.assert_allclose(
        seen([(255, 255, 255), (255, 0, 0)], "normal"), [(100, 0, 0), (53.24, 80.09, 67.2)], atol=0.02
    )
    for vision in VISIONS:  # nobody sees colours in greys
        assert abs(seen(GREYS, vision)[:, 1:]).max() < 0.1
    red, green = seen([(255, 0, 0), (0, 255, 0)], "deutan")
    assert abs(red[1] - green[1]) < 40 < abs(np.subtract(*seen([(255, 0, 0), (0, 255, 0)], "normal"))[1]) / 4


@by_vision
def test_the_colours_differ_from_each_other_and_from_every_grey(vision):
    between, from_grey = least_distances(pictures.PALETTE, vision)
    assert between >= APART and from_grey >= APART


def test_the_test_would_find_colours_that_are_lost():
    """In the whole palette of Okabe and Ito two colours are grey to deutans, and orange is near yellow."""
    between, from_grey = least_distances(OKABE_ITO, "deutan")
    assert between < APART and from_grey < 10
    assert least_distances(OKABE_ITO, "normal")[0] > APART


def test_each_class_has_the_next_colour_and_the_eighth_the_first_again():
    labels = Labels.create(range(9), background=3)
    table = pictures.class_colours(labels)
    assert table[3].tolist() == [0, 0, 0]
    assert [tuple(table[c].tolist()) for c in labels.foreground] == [*pictures.PALETTE, pictures.PALETTE[0]]
    assert len(set(pictures.PALETTE)) == 7


def test_masks_have_the_colours_of_the_training_masks_or_else_ours():
    labels = Labels.create([0, 7, 300], palette={7: (1, 2, 3)})
    assert pictures.mask_colours(labels) == {0: (0, 0, 0), 7: (1, 2, 3)}
    assert pictures.mask_colours(Labels.create([0, 7])) == {0: (0, 0, 0), 7: pictures.PALETTE[0]}
