"""Cases of bad input: options: out of range, and at odds with one another."""

from scene import add

OUT_OF_RANGE = {
    "unet/train": (
        ("--epochs", "0"),
        ("--epochs", "-3"),
        ("--epochs", "1.5"),
        ("--epochs", "many"),
        ("--batch-size", "0"),
        ("--learning-rate", "0"),
        ("--learning-rate", "-1e-3"),
        ("--learning-rate", "inf"),
        ("--scale", "0"),
        ("--scale", "nan"),
        ("--scale", "5"),
        ("--classes", "1"),
        ("--classes", "256"),
        ("--channels", "2"),
        ("--patience", "0"),
        ("--seed", "-1"),
        ("--workers", "-1"),
        ("--workers", "100000"),
        ("--save-every", "0"),
        ("--weight-decay", "-1"),
        ("--cache-mb", "-5"),
        ("--base-channels", "3"),
        ("--base-channels", "0"),
        ("--device", "tpu"),
        ("--device", "cuda:99"),
        ("--name", "../up"),
        ("--name", "a/b"),
        ("--name", ".."),
        ("--class-names", "a,,b"),
        ("--class-names", "a"),
        ("--class-names", "a,a"),
        ("--class-names", "background,b"),
        ("--background", "-1"),
        ("--background", "70000"),
        ("--background", "#12"),
        ("--background", "7"),
        ("--subject-regex", "("),
        ("--optimizer", "lion"),
        ("--scheduler", "step"),
        ("--loss", "focal"),
        ("--accumulate", "0"),
        ("--accumulate", "1.5"),
        ("--folds", "1"),
        ("--folds", "200"),
        ("--fold", "1"),
        ("--fold", "0"),
        ("--freeze-encoder", "-1"),
        ("--normalise", "imagenet"),
    ),
    "unet/evaluate_w_margin": (
        ("--margin-mm", "0"),
        ("--margin-mm", "-1"),
        ("--margin-mm", "1000"),
        ("--pixels-per-mm", "0"),
        ("--pixels-per-mm", "nan"),
        ("--pixels-per-mm", "1e9"),
        ("--mask-values", "a,b"),
        ("--mask-values", "0,128"),
    ),
    "deeplab/train": (("--backbone", "vgg"), ("--batch-size", "1"), ("--base-channels", "8")),
    "unet/predict": (
        ("--panels", "gif"),
        ("--margin-mm", "1"),
        ("--threshold", "0.5"),
        ("--engine", "tensorrt"),
        ("--engine", "auto"),
        ("--tta", "vertical"),
        ("--normalise", "imagenet"),
        ("--normalise", "imagnet"),
        ("--smooth", "0"),
        ("--smooth", "-0.1"),
        ("--smooth", "61"),
        ("--smooth", "nan"),
        ("--smooth", "0.1"),
    ),
    "unet/evaluate": (("--engine", "auto"), ("--engine", "")),
}
for _script, _options in OUT_OF_RANGE.items():
    for _name, _value in _options:
        add(f"{_script} {_name} {_value}", _script, lambda s, pair=(_name, _value): list(pair), _name)

add("--load and --resume", "unet/train", lambda s: ["--load", s.best, "--resume", s.best], "only one")
add("--new-head without --load", "unet/train", lambda s: ["--new-head"], "--new-head", "--load")
add("--folds and --resume", "unet/train", lambda s: ["--folds", 2, "--resume", s.best], "--folds", "one fold")
add("--folds and --repeat", "unet/train", lambda s: ["--folds", 2, "--repeat", s.best], "--folds", "one fold")
add("folds of names without a subject", "unet/train", lambda s: ["--folds", 2, "--subject-regex", "(zebra)"], "subject")
add("one checkpoint twice", "unet/predict", lambda s: ["--load", s.best, s.best], "given twice")
add(
    "an ensemble with another model",
    "unet/evaluate",
    lambda s: ["--load", s.best, s.checkpoints["deeplab"]],
    "deeplab",
    "this script runs unet",
)
add("an ensemble that lacks a file", "unet/evaluate", lambda s: ["--load", s.best, s.root / "no.pth"], "no.pth")
add(
    "--tta for masks",
    "unet/evaluate",
    lambda s: ["--predictions", s.validation / "masks", "--tta", "flip"],
    "--tta",
    "no",
)
add("--int8 without its engine", "unet/predict", lambda s: ["--int8"], "--int8", "--engine openvino")
add(
    "an int8 model that was never made",
    "unet/predict",
    lambda s: ["--engine", "openvino", "--int8"],
    "int8.xml",
    "export.py",
)
add(
    "--engine for masks",
    "unet/evaluate",
    lambda s: ["--predictions", s.validation / "masks", "--engine", "onnx"],
    "--engine",
    "no",
)
add(
    "--smooth for masks",
    "unet/evaluate",
    lambda s: ["--predictions", s.validation / "masks", "--smooth", "0.1"],
    "--smooth",
    "leave them out",
)
add("--snap-masks without --classes", "unet/train", lambda s: ["--snap-masks"], "--classes")
add(
    "--pretrained and --load",
    "deeplab/train",
    lambda s: ["--load", s.checkpoints["deeplab"], "--pretrained", s.best],
    "--pretrained",
    "--load",
)
add(
    "--predictions and --load",
    "unet/evaluate",
    lambda s: ["--predictions", s.root, "--load", s.best],
    "--predictions",
    "not allowed",
)
add(
    "--spacing and --pixels-per-mm",
    "unet/evaluate",
    lambda s: ["--spacing", s.root, "--pixels-per-mm", 3],
    "not allowed",
)
add("more classes than the masks hold", "unet/train", lambda s: ["--classes", "5"], "--classes is 5")
add("fewer classes than the masks hold", "unet/train", lambda s: ["--classes", "2"], "3 values")
add(
    "other mask values than the checkpoint's",
    "unet/evaluate",
    lambda s: ["--mask-values", "0,1,2"],
    "--mask-values",
    "has its own",
)
add("a model too large for any memory", "unet/train", lambda s: ["--base-channels", "1000000"], "out of memory")
