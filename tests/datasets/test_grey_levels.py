"""Images of another brightness, contrast or bit depth are told from those of training."""

import numpy as np
import pytest

from sonogravity.datasets.grey_levels import GreyLevels, full_scale, grey_quantiles
from sonogravity.datasets.image_files import decode_image


def image(seed, subject=0):
    """Speckle under a brightness that falls with depth, in 0 to 1, of a gain that a subject has."""
    rng = np.random.default_rng([seed, subject])
    depth = np.linspace(1, 0.3, 120)[:, None] * (0.85 + 0.1 * (subject % 3))
    return np.clip(rng.rayleigh(0.25, (120, 100)) * depth, 0, 0.95)


CHANGES = {
    "inverted": lambda x: 1 - x,
    "doubled gain": lambda x: np.clip(2 * x, 0, 1),
    "half gain": lambda x: x / 2,
    "shifted range": lambda x: np.clip(x + 0.2, 0, 1),
}


def described(images, subjects, maximum=255):
    frames = np.array([grey_quantiles(each) / full_scale(each.dtype, maximum) for each in images])
    return GreyLevels.of(frames, subjects)


def as_uint8(x):
    return np.rint(x * 255).astype(np.uint8)


def test_changed_images_are_unlike_and_new_ones_are_not():
    subjects = [subject for subject in range(6) for _ in range(5)]
    levels = described([as_uint8(image(i, s)) for i, s in enumerate(subjects)], subjects)
    new = [image(100 + i, s) for s in range(6, 10) for i in range(5)]
    assert max(levels.unlikeness(as_uint8(x), None) for x in new) < 1
    for name, change in CHANGES.items():
        assert min(levels.unlikeness(as_uint8(change(x)), None) for x in new) > 1, name


@pytest.mark.parametrize("shift", [1 / 16, 16, 1 / 256])
def test_16_bit_images_of_another_range_are_unlike(shift):
    """Trained on 12 bits; frames shifted to 16 bits, or 8-bit values in 16-bit files."""
    subjects = [subject for subject in range(6) for _ in range(5)]
    images = [np.rint(image(i, s) * 4095).astype(np.uint16) for i, s in enumerate(subjects)]
    levels = described(images, subjects, maximum=4095)
    new = np.rint(image(100, 7) * 4095)
    assert levels.unlikeness(new.astype(np.uint16), 4095) < 1
    assert levels.unlikeness(np.clip(new * shift, 0, 65535).astype(np.uint16), 4095) > 1


def test_the_description_is_small_and_survives_storing():
    images = [as_uint8(image(i, i)) for i in range(300)]
    levels = described(images, list(range(300)))
    assert levels.frames.shape == (256, 10)
    stored = GreyLevels.from_dict(levels.as_dict())
    assert stored.unlikeness(images[5], None) == pytest.approx(levels.unlikeness(images[5], None), abs=1e-3)
    for damaged in ({}, {"frames": [[1, 2]], "limit": 1}, {"frames": levels.frames.tolist(), "limit": 0}, None):
        with pytest.raises((KeyError, TypeError, ValueError)):
            GreyLevels.from_dict(damaged)


def test_one_frame_and_one_subject():
    assert described([as_uint8(image(0))], ["A"]).unlikeness(as_uint8(image(1)), None) < 1
    assert described([as_uint8(image(i)) for i in range(4)], ["A"] * 4).limit == pytest.approx(0.11)


def test_on_the_phantom_it_names_changed_frames_only(real_frames):
    def read(part):
        files = sorted((real_frames / "phantom" / part / "images").iterdir())
        return [decode_image(file, 1) for file in files], [file.name.split("_")[0] for file in files]

    images, subjects = read("train")
    levels = described(images, subjects)
    unseen, _ = read("validation")
    assert np.mean([levels.unlikeness(each, None) > 1 for each in unseen]) <= 0.04
    for name, change in CHANGES.items():
        found = [levels.unlikeness(as_uint8(change(each / 255)), None) for each in unseen]
        assert min(found) > 1, name
