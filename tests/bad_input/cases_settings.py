"""Cases of bad input: settings to repeat."""

import json

from scene import add


def settings(change):
    def arrange(scene):
        content = json.loads(scene.checkpoints["settings"].read_text())
        content["options"] |= {"train": str(scene.train), "validation": str(scene.validation)}
        path = scene.root / "settings.json"
        changed_content = change(content)
        path.write_text(changed_content if isinstance(changed_content, str) else json.dumps(content))
        return ["--repeat", path]

    return arrange


add("no such settings", "unet/train", lambda s: ["--repeat", s.root / "no.json"], "no.json", "no such file")
add("settings cut in half", "unet/train", settings(lambda c: json.dumps(c)[:200]), "settings.json", "JSON")
add("settings that are a list", "unet/train", settings(lambda c: "[1, 2]"), "settings.json", "train.py")
add("settings without options", "unet/train", settings(lambda c: c.pop("options") and None), "settings.json", "options")
add(
    "settings with an unknown option",
    "unet/train",
    settings(lambda c: c["options"].update(magic=1)),
    "settings.json",
    "magic",
)
add(
    "settings out of range", "unet/train", settings(lambda c: c["options"].update(scale=-1)), "settings.json", "--scale"
)
add(
    "settings with a line break",
    "unet/train",
    settings(lambda c: c["options"].update(workers="\n")),
    "settings.json",
    "\\x0a",
)
add(
    "settings of another type",
    "unet/train",
    settings(lambda c: c["options"].update(epochs=[1])),
    "settings.json",
    "--epochs",
)
add("U-Net's settings in DeepLab", "deeplab/train", settings(lambda c: None), "settings.json", "unet")
add(
    "settings of a prediction", "unet/train", settings(lambda c: c.update(script="predict")), "settings.json", "predict"
)
add(
    "settings of other data",
    "unet/train",
    settings(lambda c: c["data"].update(digest="0" * 32)),
    "settings.json",
    "data",
)
add("--repeat and --load", "unet/train", lambda s: [*settings(lambda c: None)(s), "--load", s.best], "--repeat")
add(
    "--repeat and --learning-rate",
    "unet/train",
    lambda s: [*settings(lambda c: None)(s), "--learning-rate", "0.5"],
    "--learning-rate",
)
add(
    "settings that are whole repeat",
    "unet/train",
    settings(lambda c: None),
    check=lambda s: (s.output / "results" / "unet" / "run" / "epochs.csv").exists(),
)
