"""Generate longitudinal ultrasound frames of a lumbar spine phantom, with masks.

    python data/make_phantom.py

Write train/ and validation/ (images/ and masks/, values 0 background, 128 bone surface, 255 ligament)
and spacing.csv (pixels per mm of each frame). Every subject has its own anatomy, depth and gain; no
subject is in both sets. The same seed gives the same frames.
"""

import csv
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from sonogravity.commands.script import Parser, script
from sonogravity.common import folders, option_types
from sonogravity.common.messages import InputError, say

BONE, LIGAMENT = 128, 255
SAMPLES, BEAMS = 512, 192  # polar grid: depth x angle
ASPECT = 740 / 800  # width to height
DYNAMIC_RANGE_DB = 55.0


@dataclass(frozen=True)
class Subject:
    """The parameters that all frames of a subject share. Lengths in mm, angles in radians."""

    name: str
    depth_mm: float  # of the frame
    probe_radius_mm: float  # of the curved array
    half_angle: float
    level_spacing_mm: float  # between neighbouring spinous processes
    bone_depth_mm: float
    bone_height_mm: float  # of a process
    bone_width_mm: float
    bone_thickness_mm: float
    ligament_drop_mm: float  # of the ligament below the processes' tops
    ligament_thickness_mm: float
    attenuation_db_per_mm: float
    gain_db: float
    tilt: float  # of the spine against the skin


def draw_subject(name, seed):
    """Return the Subject of a name and a seed."""
    rng = np.random.default_rng([seed, *name.encode()])
    return Subject(
        name,
        depth_mm=rng.uniform(75, 105),
        probe_radius_mm=rng.uniform(40, 60),
        half_angle=np.radians(rng.uniform(24, 33)),
        level_spacing_mm=rng.uniform(25, 35),
        bone_depth_mm=rng.uniform(30, 46),
        bone_height_mm=rng.uniform(5, 10),
        bone_width_mm=rng.uniform(12, 19),
        bone_thickness_mm=rng.uniform(3.5, 6),
        ligament_drop_mm=rng.uniform(9, 15),
        ligament_thickness_mm=rng.uniform(3, 5),
        attenuation_db_per_mm=rng.uniform(0.15, 0.4),
        gain_db=rng.uniform(-5, 5),
        tilt=np.radians(rng.uniform(-8, 8)),
    )


def anatomy(x_mm, z_mm, subject, offset_mm, wobble):
    """Return (bone, ligament) booleans at points x_mm along the skin and z_mm deep.

    Processes are caps at intervals of level_spacing_mm; the ligament is a band between them.
    wobble: phases that make the outline in each frame slightly uneven.
    """
    x = x_mm - offset_mm
    z = z_mm - np.tan(subject.tilt) * x_mm
    level = np.round(x / subject.level_spacing_mm)
    u = (x - level * subject.level_spacing_mm) / (subject.bone_width_mm / 2)  # -1 to 1 over a process
    uneven = 0.5 * np.sin(1.1 * x + wobble[0]) + 0.4 * np.sin(0.43 * x + wobble[1])
    rise = 1.2 * np.sin(2.4 * level + wobble[2])  # the depth of the levels differs
    top = subject.bone_depth_mm + subject.bone_height_mm * u**2 + uneven + rise
    bone = (np.abs(u) <= 1) & (z >= top) & (z <= top + subject.bone_thickness_mm * (1 - 0.5 * u**2))
    band = subject.bone_depth_mm + subject.ligament_drop_mm + 0.6 * uneven
    ligament = (np.abs(u) > 1.05) & (z >= band) & (z <= band + subject.ligament_thickness_mm)
    return bone, ligament


def make_frame(subject, number, seed, height):
    """Return frame ``number`` of a subject: (H, W) uint8 image, (H, W) uint8 mask, pixels per mm."""
    rng = np.random.default_rng([seed, number, *subject.name.encode()])
    # The probe slides along the spine from frame to frame, with small random deviations.
    offset_mm = 2.5 * number + rng.normal(0, 1)
    wobble = rng.uniform(0, 2 * np.pi, 3) * [0.3, 0.3, 1]
    width = round(height * ASPECT)
    pixels_per_mm = height / subject.depth_mm

    # Scan conversion: the position of each pixel on the polar grid of the curved array.
    x_mm = (np.arange(width, dtype=np.float32) + 0.5 - width / 2)[None] / np.float32(pixels_per_mm)
    z_mm = (np.arange(height, dtype=np.float32) + 0.5)[:, None] / np.float32(pixels_per_mm)
    centre = subject.probe_radius_mm * np.cos(subject.half_angle)  # above the skin line
    radius = np.hypot(x_mm, z_mm + centre)
    angle = np.arctan2(x_mm, z_mm + centre)
    farthest = subject.probe_radius_mm + subject.depth_mm * 0.97
    sample = (radius - subject.probe_radius_mm) / (farthest - subject.probe_radius_mm) * (SAMPLES - 1)
    beam = (angle / subject.half_angle + 1) / 2 * (BEAMS - 1)
    inside = (sample >= 0) & (sample <= SAMPLES - 1) & (beam >= 0) & (beam <= BEAMS - 1)

    polar = _echo(subject, offset_mm, wobble, centre, farthest, rng)
    image = map_coordinates(polar, [sample, beam], order=1, mode="nearest")
    image = np.where(inside, image, 0)
    bone, ligament = anatomy(x_mm, z_mm, subject, offset_mm, wobble)
    mask = np.zeros((height, width), np.uint8)
    mask[ligament & inside] = LIGAMENT
    mask[bone & inside] = BONE
    return np.rint(image * 255).astype(np.uint8), mask, pixels_per_mm


def _echo(subject, offset_mm, wobble, centre, farthest, rng):
    """Return the log-compressed echo on the polar grid, (SAMPLES, BEAMS) in 0 to 1."""
    radius = np.linspace(subject.probe_radius_mm, farthest, SAMPLES)[:, None]
    angle = np.linspace(-subject.half_angle, subject.half_angle, BEAMS)[None]
    x_mm, z_mm = radius * np.sin(angle), radius * np.cos(angle) - centre
    bone, ligament = anatomy(x_mm, z_mm, subject, offset_mm, wobble)
    depth_mm = radius - subject.probe_radius_mm

    reflectivity = np.full((SAMPLES, BEAMS), 0.016)
    reflectivity *= 1 + 0.5 * gaussian_filter(rng.normal(size=(SAMPLES, BEAMS)), (9, 7)) * 12  # uneven tissue
    for layer_mm in rng.uniform(3, 22, 4):  # fascia near the skin
        ripple = layer_mm + 0.6 * np.sin(6 * angle + rng.uniform(0, 6))
        reflectivity += 0.12 * np.exp(-(((depth_mm - ripple) / 0.5) ** 2))
    reflectivity = np.where(ligament, 0.30, np.where(bone, 1.3, reflectivity)).clip(0.002)

    # Acoustic shadow: the intensity that remains behind the bone crossed so far.
    shadow = np.exp(-3.2 * np.cumsum(bone, 0) * (farthest - subject.probe_radius_mm) / SAMPLES / 3)
    shadow = np.maximum(gaussian_filter(np.where(bone, 1, shadow), (0, 1.2)), 0.015)

    # Fully developed speckle is a complex Gaussian sum of echoes (Goodman 1976). The pulse blurs it along the beam,
    # the beam width blurs it laterally. The lateral blur widens with depth because the beams diverge.
    noise = rng.normal(size=(2, SAMPLES, BEAMS)) * np.sqrt(reflectivity)
    noise = gaussian_filter(noise, (0, 1.6, 0.8))
    spread = gaussian_filter(noise, (0, 0, 2.2))
    deep = (depth_mm / depth_mm[-1])[None]
    field = noise / noise.std() * (1 - deep) + spread / spread.std() * deep
    envelope = np.hypot(*field) * shadow * np.sqrt(reflectivity.mean())

    decibels = 20 * np.log10(envelope + 1e-6) + subject.gain_db + 15
    decibels -= subject.attenuation_db_per_mm * depth_mm - 0.22 * depth_mm  # imperfect time gain compensation
    return gaussian_filter((decibels / DYNAMIC_RANGE_DB + 0.52).clip(0, 1), (0.7, 0.5))


def _write_frame(job, folder, seed, height):
    part, subject, number = job
    image, mask, pixels_per_mm = make_frame(subject, number, seed, height)
    name = f"{subject.name}_{number:03d}.png"
    Image.fromarray(image).save(folder / part / "images" / name, compress_level=1)
    Image.fromarray(mask).save(folder / part / "masks" / name, compress_level=1)
    return name, f"{pixels_per_mm:.6f}"


def make_dataset(folder, *, train_frames, validation_frames, subjects, validation_subjects, height, seed, workers):
    """Write both sets and spacing.csv under ``folder``; subjects differ between the sets."""
    jobs = []
    for part, frames, first, count in (
        ("train", train_frames, 1, subjects),
        ("validation", validation_frames, subjects + 1, validation_subjects),
    ):
        for kind in ("images", "masks"):
            (folder / part / kind).mkdir(parents=True)
        people = [draw_subject(f"S{first + i:02d}", seed) for i in range(count)]
        jobs += [(part, people[i % count], i // count + 1) for i in range(frames)]
    write = partial(_write_frame, folder=folder, seed=seed, height=height)
    if workers == 1:
        rows = sorted(map(write, jobs))
    else:
        with ProcessPoolExecutor(workers) as pool:
            rows = sorted(pool.map(write, jobs, chunksize=8))
    with open(folder / "spacing.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "pixels_per_mm"), *rows])


@script
def main(argv=None):
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--output", type=Path, default=folders.DATA, metavar="DIR", help="folder of train/, validation/, spacing.csv")
    add("--train-frames", type=option_types.positive_int, default=240, metavar="N")
    add("--validation-frames", type=option_types.positive_int, default=60, metavar="N")
    add("--subjects", type=option_types.positive_int, default=8, metavar="N", help="in the training set")
    add("--validation-subjects", type=option_types.positive_int, default=3, metavar="N", help="in the validation set")
    add(
        "--height",
        type=option_types.positive_int,
        default=800,
        metavar="PX",
        help="height of a frame; the width is 740/800 of it",
    )
    add("--seed", type=option_types.natural, default=0, metavar="N")
    add("--workers", type=option_types.positive_int, metavar="N", help="processes (default: one per core)")
    args = parser.parse_args(argv)
    for name in ("train", "validation", "spacing.csv"):
        if (args.output / name).exists():
            raise InputError(f"{args.output / name}: exists already; move it away, or give another --output")
    make_dataset(
        args.output,
        train_frames=args.train_frames,
        validation_frames=args.validation_frames,
        subjects=args.subjects,
        validation_subjects=args.validation_subjects,
        height=args.height,
        seed=args.seed,
        workers=args.workers,
    )
    say(f"{args.train_frames} training and {args.validation_frames} validation frames in {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
