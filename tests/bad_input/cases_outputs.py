"""Cases of bad input: outputs."""

from scene import add


def occupied(scene):
    scene.output.mkdir()
    (scene.output / "thesis.docx").write_text("mine")
    return []


def output_file(scene):
    scene.output.write_text("mine")
    return []


add("an output folder with other files", "unet/predict", occupied, "thesis.docx", "--output")
add("an output that is a file", "unet/evaluate", output_file, "is a file")
add("an output under a file", "unet/predict", lambda s: output_file(s) or ["--output", s.output / "deep"], "out")
add("checkpoints under a file", "unet/train", lambda s: _under_file(s), "taken")


def _under_file(scene):
    (scene.root / "taken").write_text("mine")
    return ["--checkpoints", scene.root / "taken"]
