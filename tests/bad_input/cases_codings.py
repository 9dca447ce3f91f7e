"""Cases of bad input: how people code masks, and what scanners and annotation tools leave beside the images."""

import json
import shutil

import numpy as np
from cases_given_masks import predictions
from cases_pixels import as_plain, encoded, pixels
from PIL import Image, TiffImagePlugin
from scene import add

CODES = (0, 128, 255)


def every(change, *, kind="masks", parts=("train", "validation"), suffix=None):
    """Each file of a kind put through change, which takes an array and gives an array or a Pillow image."""

    def arrange(scene):
        for part in parts:
            for path in sorted((scene.root / part / kind).iterdir()):
                changed = change(np.array(Image.open(path)))
                path.unlink()
                if suffix == "npy":
                    np.save(path.with_suffix(".npy"), changed)
                else:
                    image = changed if isinstance(changed, Image.Image) else Image.fromarray(changed)
                    image.save(path.with_suffix(f".{suffix}") if suffix else path)
        return []

    return arrange


def one_hot(array, channels=3):
    return np.eye(channels, dtype=np.uint8)[np.searchsorted(CODES, array)]


def in_alpha(mode):
    def change(array):
        image = Image.new("RGBA", array.shape[::-1], (0, 0, 0))
        image.putalpha(Image.fromarray(array))
        return image.convert(mode)

    return change


def imagej(images):
    """A TIFF with the description that ImageJ writes for a stack, and one directory, as of stacks over 4 GB."""

    def make(image):
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[270] = f"ImageJ=1.54f\nimages={images}\nslices={images}\nloop=false\n"
        return image, {"tiffinfo": tags}

    return make


def only(name, content, remove=True, part="validation"):
    """The images of a folder replaced by one file of a name and a content; remove: else beside them."""

    def arrange(scene):
        folder = scene.root / part / "images"
        if remove:
            shutil.rmtree(folder)
            folder.mkdir()
        (folder / name).write_bytes(content)
        return ["--no-masks"] if part == "validation" else []

    return arrange


def patient_folders(scene):
    for path in sorted((scene.validation / "images").iterdir()):
        folder = path.parent / f"patient {path.stem}"
        folder.mkdir()
        path.rename(folder / path.name)
    return []


def exchanged(*options):
    def arrange(scene):
        for part in ("train", "validation"):
            root = scene.root / part
            (root / "images").rename(root / "kept")
            (root / "masks").rename(root / "images")
            (root / "kept").rename(root / "masks")
        return list(options)

    return arrange


def frames_as_masks(scene):
    for path in sorted((scene.train / "masks").iterdir()):
        Image.open(scene.train / "images" / path.name).save(path.with_suffix(".jpg"))
        path.unlink()
    return ["--classes", 3]


def transparent_entry(image):
    indexed = Image.fromarray(np.searchsorted((0, 128, 255), np.array(image)).astype(np.uint8), "P")
    indexed.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    return indexed, {"transparency": 1}


def trained(scene):
    return (scene.output / "results" / "unet" / "run" / "epochs.csv").exists()


DICOM = bytes(128) + b"DICM" + bytes(64)
LABELME = json.dumps({"version": "5.2", "shapes": [{"label": "bone", "points": [[1, 2]]}]}).encode()

add("one-hot masks (H, W, 3) as PNG", "unet/train", every(one_hot), "A_000.png", "one-hot", "argmax", "axis=2")
add(
    "one-hot masks (3, H, W)",
    "unet/train",
    every(lambda a: one_hot(a).transpose(2, 0, 1), suffix="npy"),
    "A_000.npy",
    "one-hot",
    "axis=0",
)
add(
    "one-hot masks of five channels",
    "deeplab/train",
    every(lambda a: one_hot(a, 5).astype(np.float32), suffix="npy"),
    "5 channels",
    "axis=2",
)
add("one-hot, the remedy", "unet/train", every(lambda a: np.argmax(one_hot(a), 2).astype(np.uint8)), check=trained)
add("a one-hot mask in evaluation", "unet/evaluate", pixels("png", one_hot, "masks"), "C_001.png", "one-hot")
add(
    "one-hot predictions",
    "unet/evaluate",
    predictions(lambda f: Image.fromarray(one_hot(np.array(Image.open(f / "C_001.png")))).save(f / "C_001.png")),
    "C_001.png",
    "one-hot",
)
add("labels in alpha alone, RGBA", "unet/train", every(in_alpha("RGBA")), "A_000.png", "alpha channel only")
add("labels in alpha alone, LA", "unet/evaluate", every(in_alpha("LA")), "C_000.png", "alpha channel only")
add(
    "a transparent palette entry beside index 0",
    "unet/evaluate",
    encoded("png", transparent_entry, "masks"),
    "C_001.png",
    "entry 1 is transparent",
)
add("images and masks exchanged", "unet/train", exchanged(), "masks", "exchanged")
add("images and masks exchanged, classes given", "unet/train", exchanged("--classes", 3), "exchanged")
add("images and masks exchanged, snapped", "unet/train", exchanged("--classes", 3, "--snap-masks"), "exchanged")
add("JPEGs of the frames as masks", "unet/train", frames_as_masks, "A_000.jpg", "as pictures do")
add(
    "frames as predictions",
    "unet/evaluate",
    predictions(lambda f: shutil.copy(f.parent / "validation" / "images" / "C_001.png", f / "C_001.png")),
    "C_001.png",
    "unknown values",
)
add("an ignored class", "unet/train", lambda s: ["--ignore", 128, "--classes", 2], check=trained)
add("an ignored value that no mask holds", "unet/train", lambda s: ["--ignore", 9], check=trained)
add(
    "an ignored value that is a class of the model",
    "unet/evaluate",
    lambda s: ["--ignore", 128],
    "--ignore 128",
    "class",
)
add("an ignored value that is none", "unet/train", lambda s: ["--ignore", "x"], "--ignore", "mask value")
add("a background that no mask holds", "unet/train", lambda s: ["--background", 7], "--background 7")
add(
    "too few prediction values",
    "unet/evaluate",
    lambda s: [*predictions(lambda f: None)(s), "--prediction-values", "0,1"],
    "--prediction-values",
    "3 classes",
)
add(
    "prediction values that are not those of the files",
    "unet/evaluate",
    lambda s: [*predictions(lambda f: None)(s), "--prediction-values", "0,1,2"],
    "drawn",
    "--prediction-values",
)
add(
    "a mask folder of something else",
    "unet/predict",
    lambda s: ["--masks", s.train / "masks"],
    "no mask there has the stem",
)
add("--no-masks and --masks", "unet/predict", lambda s: ["--no-masks", "--masks", s.train], "--no-masks and --masks")
add(
    "--no-masks predicts without scores",
    "unet/predict",
    lambda s: ["--no-masks"],
    check=lambda s: "dice" not in s.rows() and len(list((s.output / "masks").iterdir())) == 4,
)
add("an ImageJ stack of one directory", "unet/evaluate", encoded("tif", imagej(5)), "C_001_000000", "no mask")
add("an ImageJ stack as a mask", "unet/train", encoded("tif", imagej(3), "masks"), "C_001.tif", "3 frames")
add("an ImageJ file of one image works", "unet/evaluate", encoded("tif", imagej(1)), check=as_plain("tif"))
add(
    "a lossless WebP frame works",
    "unet/evaluate",
    encoded("webp", lambda image: (image.convert("RGB"), {"lossless": True})),
    check=as_plain("webp"),
)
add(
    "an animated WebP",
    "unet/evaluate",
    encoded(
        "webp",
        lambda i: (
            i.convert("RGB"),
            {"save_all": True, "append_images": [i.convert("L").rotate(90).convert("RGB").resize(i.size)]},
        ),
    ),
    "C_001_000000",
    "no mask",
)
add(
    "a .jfif frame works",
    "unet/predict",
    encoded("jfif", lambda image: (image, {"format": "JPEG", "quality": 95})),
    check=lambda s: len(s.rows()) == 4,
)
for _name, _file, _content in (
    ("archive", "frames.zip", b"PK"),
    ("LabelMe annotation", "C_001.json", LABELME),
    ("MATLAB", "scan.mat", b"MATLAB 5.0"),
    ("other", "notes.txt", b"x"),
):
    add(f"only {_file} among the images", "unet/predict", only(_file, _content), "holds no images", _name, _file)
    add(
        f"{_file} beside the images",
        "unet/predict",
        only(_file, _content, remove=False),
        check=lambda s: len(s.rows()) == 4,
    )
for _file, _content in (("IM_0001.dcm", DICOM), ("IM_0002", DICOM)):
    add(f"only {_file} among the images", "unet/predict", only(_file, _content), _file, "is DICOM", "no image")
    add(
        f"{_file}, which holds no image, beside the images",
        "unet/predict",
        only(_file, _content, remove=False),
        check=lambda s: len(s.rows()) == 4,
    )
for _file, _content in (
    ("clip.mp4", b"\0\0\0\x18ftypmp42"),
    ("scan.nii.gz", b"\x1f\x8b"),
    ("scan.npz", b"PK"),
    ("loop.gif", b"GIF89a"),
):
    add(f"a damaged {_file} beside the images", "unet/predict", only(_file, _content, remove=False), _file, "read")
for _file, _content in (("IM_0002", DICOM), ("clip.mp4", b"x"), ("scan.nii.gz", b"x")):
    add(
        f"{_file} beside the images to train on",
        "unet/train",
        only(_file, _content, remove=False, part="train"),
        check=lambda s: (s.output / "results" / "unet" / "run" / "epochs.csv").exists(),
    )
add("a folder per patient", "unet/predict", patient_folders, "4 folders", "patient C_000", "P1_001.png")
add(
    "a DICOM file as input",
    "unet/predict",
    lambda s: [*only("a.dcm", DICOM)(s), "--input", s.validation / "images/a.dcm"],
    "DICOM",
)
