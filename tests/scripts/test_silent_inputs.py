"""What people really put in, through the scripts: nothing goes wrong in silence, and each remedy is right."""

import json

import matplotlib
import numpy as np
import openpyxl
import pandas as pd
import pytest
import torch
from conftest import train_arguments
from PIL import Image

from sonogravity.datasets.mask_files import decode_mask
from unet import evaluate, export, predict, train

SIZE = 72, 64


def pair(number, values=(0, 128, 255)):
    """A frame of 72x64 whose structures of 12 % and 5 % are brighter than the rest, and its mask."""
    rng = np.random.default_rng(number)
    mask = np.full(SIZE, values[0], np.uint8)
    row, column = rng.integers(0, 8, 2)
    mask[8 + row : 32 + row, 20 + column : 43 + column] = values[1]
    mask[46 + row : 60 + row, 12 + column : 28 + column] = values[2]
    image = rng.integers(10, 60, SIZE)
    for value, level in zip(values[1:], (190, 120), strict=True):
        image = np.where(mask == value, level + rng.integers(-20, 20, SIZE), image)
    return image.astype(np.uint8), mask


def make(root, *, code=lambda mask, number: mask, image=lambda array, number: array, count=12):
    """train/ of 8 frames and validation/ of 4 under root. code, image: what a mask, an image is saved as."""
    for number in range(count):
        part = "train" if number < 8 else "validation"
        frame, mask = pair(number)
        for kind, array in (("images", image(frame, number)), ("masks", code(mask, number))):
            folder = root / part / kind
            folder.mkdir(parents=True, exist_ok=True)
            array = array if isinstance(array, Image.Image) else Image.fromarray(array)
            array.save(folder / f"P{number // 2}_{number:03d}.png")
    return root / "train", root / "validation"


def command(sets, root, *more):
    return train_arguments(
        *sets, root, "--epochs", 24, "--no-augment", "--base-channels", 8, "--loss", "ce+dice", *more
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A good model of these frames."""
    root = tmp_path_factory.mktemp("study")
    sets = make(root)
    assert train.main(command(sets, root)) == 0
    return root, root / "checkpoints" / "unet" / "run" / "best.pth"


def dice_of(folder):
    return pd.read_csv(folder / "files.csv")["dice"].mean()


def evaluated(best, inputs, output, *more):
    arguments = ["--load", best, "--input", inputs, "--output", output, "--device", "cpu", *more]
    assert evaluate.main([str(each) for each in arguments]) == 0
    return pd.read_csv(output / "files.csv")


def scored(predictions, inputs, output, *more):
    arguments = ["--predictions", predictions, "--input", inputs, "--output", output, *more]
    assert evaluate.main([str(each) for each in arguments]) == 0
    return pd.read_csv(output / "files.csv")


def test_black_structures_on_white_are_said_in_training_check_and_evaluation(tmp_path, capsys):
    """Reported: Dice 0.998 of the background, and 0.972 for empty masks."""
    sets = make(tmp_path, code=lambda mask, _: np.where(mask > 0, 0, 255).astype(np.uint8))
    train.main(train_arguments(*sets, tmp_path, "--check"))
    assert "if that is the background, give --background 255" in capsys.readouterr().err
    empty = tmp_path / "empty"
    empty.mkdir()
    for path in (sets[1] / "masks").iterdir():
        Image.fromarray(np.full(SIZE, 255, np.uint8)).save(empty / path.name)
    wrong = scored(empty, sets[1], tmp_path / "o")
    assert "--background 255" in capsys.readouterr().err and wrong["dice"].mean() > 0.8
    right = scored(empty, sets[1], tmp_path / "o", "--background", 255)
    assert right["dice"].mean() == 0 and "--background" not in capsys.readouterr().err
    assert train.main(command(sets, tmp_path, "--background", 255)) == 0
    assert "the background is" not in capsys.readouterr().err
    found = evaluated(tmp_path / "checkpoints/unet/run/best.pth", sets[1], tmp_path / "e")
    assert "dice_0" in found and found["dice"].mean() > 0.8


def test_a_model_scored_on_masks_of_the_other_coding_is_said(study, tmp_path, capsys):
    _, best = study
    _, validation = make(tmp_path, code=lambda mask, _: np.where(mask > 0, 0, 255).astype(np.uint8))
    evaluated(best, validation, tmp_path / "o")
    assert "these masks are coded otherwise than the training masks" in capsys.readouterr().err


def test_masks_by_imsave_have_the_colour_of_most_pixels_as_background(tmp_path):
    viridis = matplotlib.colormaps["viridis"]
    sets = make(tmp_path, code=lambda mask, _: (viridis(mask / 255) * 255).astype(np.uint8))
    assert train.main(command(sets, tmp_path)) == 0
    settings = json.loads((tmp_path / "results/unet/run/settings.json").read_text())
    labels = settings["labels"]
    assert labels["values"][labels["background"]] == (1 << 24) + 0x440154
    found = evaluated(tmp_path / "checkpoints/unet/run/best.pth", sets[1], tmp_path / "o")
    assert found["dice"].mean() > 0.8 and "dice_background" in found


def indexed(colours):
    def code(mask, number):
        order = colours(number)
        image = Image.fromarray(np.searchsorted([0, 128, 255], mask).astype(np.uint8), "P")
        image.putpalette([*order[0], *order[1], *order[2]])
        return image

    return code


BLACK, RED, BLUE = (0, 0, 0), (255, 0, 0), (0, 0, 255)


def test_palettes_that_differ_are_refused_in_training_and_in_scoring(tmp_path, refused):
    mixed = make(tmp_path / "mixed", code=indexed(lambda n: (BLACK, RED, BLUE) if n % 2 else (BLACK, BLUE, RED)))
    line = refused(train.main, train_arguments(*mixed, tmp_path))
    assert "_001.png" in line and "_000.png" in line and "one palette" in line
    sets = make(tmp_path / "one", code=indexed(lambda n: (BLACK, RED, BLUE)))
    other = make(tmp_path / "other", code=indexed(lambda n: (BLACK, BLUE, RED)))
    assert train.main(train_arguments(*sets, tmp_path)) == 0
    best = tmp_path / "checkpoints/unet/run/best.pth"
    assert "save all masks with one palette" in refused(
        evaluate.main, ["--load", best, "--input", other[1], "--output", tmp_path / "o"]
    )
    assert "save all masks with one palette" in refused(
        evaluate.main, ["--predictions", other[1] / "masks", "--input", sets[1], "--output", tmp_path / "o"]
    )
    assert dice_of_equal(sets[1] / "masks", sets[1], tmp_path / "o") == 1


def dice_of_equal(predictions, inputs, output, *more):
    return scored(predictions, inputs, output, *more)["dice"].mean()


def test_halves_of_0_and_1_and_of_0_and_255_are_pointed_out(tmp_path, refused, capsys):
    def code(mask, number):
        return ((mask > 0) * (1 if number % 2 else 255)).astype(np.uint8)

    sets = make(tmp_path, code=code)
    line = refused(train.main, train_arguments(*sets, tmp_path, "--classes", 2))
    assert "1 and 255 never occur in one mask" in line and "--snap-masks" not in line
    line = refused(train.main, train_arguments(*sets, tmp_path, "--classes", 2, "--snap-masks"))
    assert "--snap-masks would turn all its structures (the value 1) into background" in line
    train.main(train_arguments(*sets, tmp_path, "--check"))
    assert "1 and 255 never occur in one mask" in capsys.readouterr().err


def test_ignored_pixels_count_nowhere(tmp_path):
    """A void value around the structures, in loss, scores, margin and calibration; kept in the checkpoint."""

    def code(mask, number):
        marked = mask.copy()
        marked[:, :4] = 7
        marked[-6:] = 7
        return marked

    sets = make(tmp_path, code=code)
    assert train.main(command(sets, tmp_path, "--ignore", 7)) == 0
    best = tmp_path / "checkpoints/unet/run/best.pth"
    labels = torch.load(best, weights_only=True)["labels"]
    assert labels["values"] == [0, 128, 255] and labels["ignored"] == [7]
    found = evaluated(best, sets[1], tmp_path / "o")
    assert found["dice"].mean() > 0.8
    predict_arguments = ["--load", best, "--input", sets[1], "--output", tmp_path / "p", "--device", "cpu"]
    assert predict.main([str(each) for each in predict_arguments]) == 0
    for file in found["file"]:  # by hand: M without the void, where the prediction may be anything
        truth, prediction = decode_mask(sets[1] / "masks" / file), decode_mask(tmp_path / "p" / "masks" / file)
        known, row = truth != 7, found.set_index("file").loc[file]
        for value in (128, 255):
            both = ((truth == value) & (prediction == value) & known).sum()
            sizes = ((truth == value) & known).sum() + ((prediction == value) & known).sum()
            assert row[f"dice_{value}"] == pytest.approx(2 * both / sizes)
        assert row["accuracy"] == pytest.approx((truth == prediction)[known].mean())
    calibration = json.loads((tmp_path / "o" / "summary.json").read_text())["calibration"]["128"]["bins"]
    assert sum(row["pixels"] for row in calibration) == 4 * (SIZE[0] - 6) * (SIZE[1] - 4)


def test_what_is_predicted_in_ignored_pixels_changes_no_score(tmp_path):
    def code(mask, number):
        marked = mask.copy()
        marked[:10] = 7
        return marked

    _, validation = make(tmp_path, code=code)
    outcomes = []
    for name, value in (("one", 128), ("two", 0)):
        (tmp_path / name).mkdir()
        for path in (validation / "masks").iterdir():
            prediction = np.roll(decode_mask(path), 2, 1)
            prediction[:10] = value
            Image.fromarray(prediction).save(tmp_path / name / path.name)
        outcomes.append(scored(tmp_path / name, validation, tmp_path / f"o_{name}", "--ignore", 7))
    pd.testing.assert_frame_equal(*outcomes)
    assert 0.5 < outcomes[0]["dice"].mean() < 1


def test_other_tools_values_are_mapped_by_position(tmp_path, refused):
    _, validation = make(tmp_path)
    coded = tmp_path / "coded"
    coded.mkdir()
    for path in (validation / "masks").iterdir():
        Image.fromarray(np.searchsorted([0, 128, 255], decode_mask(path)).astype(np.uint8)).save(coded / path.name)
    given = ["--predictions", coded, "--input", validation, "--output", tmp_path / "o"]
    line = refused(evaluate.main, given)
    assert "--prediction-values" in line and "train" not in line.split(";")[-1]
    assert "give one per class" in refused(evaluate.main, [*given, "--prediction-values", "0,1"])
    more = ["--prediction-values", "0,1,2", "--class-names", "bone,ligament"]
    found = scored(coded, validation, tmp_path / "o", *more)
    assert found["dice"].mean() == 1 and "dice_ligament" in found
    line = refused(evaluate.main, [*given, "--class-names", "255,128"])
    assert "--class-names: '255' is the name of the value 128, but also another value" in line


def test_options_of_predictions_need_them(study, tmp_path, refused):
    root, best = study
    given = ["--load", best, "--input", root / "validation", "--output", tmp_path / "o"]
    for option in (["--background", 255], ["--class-names", "a,b"], ["--prediction-values", "0,1,2"]):
        assert f"{option[0]}: is for --predictions" in refused(evaluate.main, [*given, *option])
    assert "--no-masks and --masks" in refused(predict.main, [*given, "--no-masks", "--masks", tmp_path])


def test_masks_of_something_else_beside_the_images(study, tmp_path, refused):
    _, best = study
    _, validation = make(tmp_path, code=lambda mask, number: (mask // 2 + 3).astype(np.uint8))
    given = ["--load", best, "--input", validation, "--output", tmp_path / "o", "--device", "cpu"]
    line = refused(predict.main, given)
    assert "give masks of these classes" in line and "--no-masks" in line
    assert predict.main([*map(str, given), "--no-masks"]) == 0
    assert "dice" not in pd.read_csv(tmp_path / "o" / "files.csv")
    (tmp_path / "others").mkdir()
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "others" / "X.png")
    line = refused(predict.main, [*given, "--masks", tmp_path / "others"])
    assert "no mask there has the stem of an image" in line


def test_a_line_that_the_scale_removes_is_said_before_training(tmp_path, capsys):
    def code(mask, number):
        line = np.zeros(SIZE, np.uint8)
        line[20 + 2 * (number % 6), 4:60] = 255
        return line

    sets = make(tmp_path, code=code)
    train.main(train_arguments(*sets, tmp_path, "--check", "--scale", 0.5))
    said = capsys.readouterr().err
    assert "the network sees 255 in 0 of 8 masks" in said
    proposed = said.split("; --scale ")[1].split()[0]
    train.main(train_arguments(*sets, tmp_path, "--check", "--scale", proposed))
    assert "the network sees" not in capsys.readouterr().err


CHANGES = {
    "inverted": lambda x: 255 - x,
    "doubled gain": lambda x: np.clip(2 * x, 0, 255),
    "half gain": lambda x: x // 2,
    "shifted range": lambda x: np.clip(x + 60, 0, 255),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_images_unlike_the_training_images_are_named(study, tmp_path, capsys, change):
    root, best = study
    found = evaluated(best, root / "validation", tmp_path / "o")
    assert (found["unlike_training"] < 1).all() and "unlike" not in capsys.readouterr().err
    _, changed = make(tmp_path, image=lambda array, _: change(array.astype(int)).astype(np.uint8))
    found = evaluated(best, changed, tmp_path / "o2")
    assert (found["unlike_training"] > 1).all()
    assert "4 of 4 images are unlike the training images" in capsys.readouterr().err


def test_validation_images_unlike_the_training_images_are_said_before_training(tmp_path, capsys):
    sets = make(tmp_path)
    train.main(train_arguments(*sets, tmp_path, "--check"))
    assert "unlike" not in capsys.readouterr().err
    _, inverted = make(tmp_path / "x", image=lambda array, _: 255 - array)
    train.main(train_arguments(sets[0], inverted, tmp_path, "--check"))
    assert "4 of 4 validation images are unlike the training images" in capsys.readouterr().err


@pytest.mark.parametrize("factor", [16, 1 / 16], ids=["shifted to 16 bits", "8-bit values"])
def test_16_bit_images_of_another_range_are_named(tmp_path, capsys, factor):
    twelve_bits = {"image": lambda array, _: array.astype(np.uint16) * 16}
    sets = make(tmp_path, **twelve_bits)
    assert train.main(train_arguments(*sets, tmp_path)) == 0
    _, other = make(tmp_path / "x", image=lambda array, _: (array.astype(np.uint16) * 16 * factor).astype(np.uint16))
    capsys.readouterr()
    found = evaluated(tmp_path / "checkpoints/unet/run/best.pth", other, tmp_path / "o")
    assert (found["unlike_training"] > 1).all() and "bit depth" in capsys.readouterr().err


def test_a_dead_pixel_that_sets_the_divisor_is_said(tmp_path, capsys):
    def image(array, number):
        deep = array.astype(np.uint16) * 16
        deep[3, 3] = 65535 if number == 2 else deep[3, 3]
        return deep

    train.main(train_arguments(*make(tmp_path, image=image), tmp_path, "--check"))
    said = capsys.readouterr().err
    assert "P1_002.png: holds the value 65535" in said and "repair these images" in said


def test_an_older_checkpoint_says_what_it_lacks(study, tmp_path, capsys):
    root, best = study
    content = torch.load(best, weights_only=True)
    del content["grey_levels"], content["labels"]["ignored"], content["labels"]["palette"]
    torch.save(content, tmp_path / "old.pth")
    found = evaluated(tmp_path / "old.pth", root / "validation", tmp_path / "o")
    assert "unlike_training" not in found and found["dice"].mean() > 0.8
    assert "holds no grey levels of its training images" in capsys.readouterr().out


def test_check_lists_and_draws_suspect_labels(tmp_path, capsys):
    def code(mask, number):
        marked = mask.copy()
        if number % 2:
            marked[0:3, 2:12] = 255  # the same stroke, in the border
        return marked

    sets = make(tmp_path, code=code)
    train.main(train_arguments(*sets, tmp_path, "--check"))
    caught = capsys.readouterr()
    assert "the same component stands at the same place in many masks: 6 in 6 masks" in caught.err
    folder = tmp_path / "results" / "unet" / "run"
    book = openpyxl.load_workbook(folder / "inspection.xlsx")
    assert book.sheetnames == ["Labels to look at", "Files", "Definitions"]
    header, *rows = book["Labels to look at"].iter_rows()
    names = [cell.value for cell in header]
    assert {row[names.index("kind")].value for row in rows} == {"repeated"} and len(rows) == 6
    for row in rows:
        assert [row[names.index(name)].value for name in ("left", "top", "width", "height")] == [2, 0, 10, 3]
        picture = folder / row[names.index("picture")].hyperlink.target
        with Image.open(picture) as drawn:
            assert drawn.width > 2 * SIZE[1] and (np.asarray(drawn) == (255, 0, 0)).all(2).sum() > 20
    assert len(list(book["Files"].iter_rows())) == 13
    assert train.main(train_arguments(*sets, tmp_path)) == 0, "the name is free for the run"


def test_an_exported_model_is_not_hindered(study, tmp_path):
    pytest.importorskip("onnxruntime")
    root, best = study
    assert export.main(["--load", str(best), "--input", str(root / "validation")]) == 0


def test_a_prediction_with_the_ignored_value_counts_as_background_and_is_said(tmp_path, capsys):
    def code(mask, number):
        marked = mask.copy()
        marked[:4] = 7
        return marked

    _, validation = make(tmp_path, code=code)
    (tmp_path / "p").mkdir()
    for path in (validation / "masks").iterdir():
        Image.fromarray(np.roll(decode_mask(path), 2, 0)).save(tmp_path / "p" / path.name)
    found = scored(tmp_path / "p", validation, tmp_path / "o", "--ignore", 7)
    assert 0.5 < found["dice"].mean() < 1
    assert "4 predictions hold ignored values" in capsys.readouterr().err


def test_check_draws_masks_with_ignored_pixels(tmp_path):
    def code(mask, number):
        marked = mask.copy()
        marked[:, :4] = 7
        marked[40:43, 50:60] = 128  # the same in each mask
        return marked

    train.main(train_arguments(*make(tmp_path, code=code), tmp_path, "--check", "--ignore", 7))
    assert list((tmp_path / "results" / "unet" / "run" / "inspection").glob("*.png"))


def test_a_model_of_snapped_masks_refuses_masks_that_snapping_would_empty(tmp_path, refused):
    sets = make(tmp_path)
    assert train.main(train_arguments(*sets, tmp_path, "--snap-masks", "--classes", 3)) == 0
    best = tmp_path / "checkpoints" / "unet" / "run" / "best.pth"
    evaluated(best, sets[1], tmp_path / "o")
    _, coded = make(tmp_path / "x", code=lambda mask, _: np.searchsorted([0, 128, 255], mask).astype(np.uint8))
    given = ["--load", best, "--input", coded, "--output", tmp_path / "o2", "--device", "cpu"]
    assert "would turn the value 1, 2 into background" in refused(evaluate.main, given)
    _, frames = make(tmp_path / "y", code=lambda mask, number: pair(number)[0])
    given = ["--load", best, "--input", frames, "--output", tmp_path / "o2", "--device", "cpu"]
    assert "give masks of these classes" in refused(evaluate.main, given)


def test_a_repeated_run_keeps_its_background(tmp_path, capsys):
    """Earlier versions took the smallest value, now the value of most pixels is background."""
    sets = make(tmp_path, code=lambda mask, _: np.where(mask == 0, 200, mask // 2 + 1).astype(np.uint8))
    assert train.main(train_arguments(*sets, tmp_path)) == 0
    path = tmp_path / "results" / "unet" / "run" / "settings.json"
    settings = json.loads(path.read_text())
    assert settings["labels"]["values"][settings["labels"]["background"]] == 200
    settings["labels"]["background"] = 0
    path.write_text(json.dumps(settings))
    capsys.readouterr()
    assert train.main(["--repeat", str(path), "--name", "again"]) == 0
    assert "65 -> class 0 (background)" in capsys.readouterr().out


def test_an_ensemble_of_8_bit_models_refuses_16_bits_in_one_line(study, tmp_path, refused):
    _, best = study
    other = tmp_path / "other.pth"
    other.write_bytes(best.read_bytes())
    _, deep = make(tmp_path, image=lambda array, _: array.astype(np.uint16) * 16)
    given = ["--load", best, other, "--input", deep, "--output", tmp_path / "o", "--device", "cpu"]
    assert "is 16-bit" in refused(evaluate.main, given)


def test_palettes_are_compared_also_for_models_that_know_none(study, tmp_path, refused):
    _, best = study
    mixed = make(tmp_path, code=indexed(lambda n: (BLACK, RED, BLUE) if n % 2 else (BLACK, BLUE, RED)))
    content = torch.load(best, weights_only=True)
    content["labels"] |= {"values": [0, 1, 2], "names": ["0", "1", "2"]}
    torch.save(content, tmp_path / "indices.pth")
    given = ["--load", tmp_path / "indices.pth", "--input", mixed[1], "--output", tmp_path / "o", "--device", "cpu"]
    assert "save all masks with one palette" in refused(evaluate.main, given)
