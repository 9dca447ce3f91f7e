"""What settings.json holds, and that runs older than one of its entries stay readable."""

import json

import pytest
from conftest import make_folder, train_arguments

from sonogravity.common.messages import InputError
from sonogravity.training import run_settings
from unet import train


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    sets = make_folder(root / "train"), make_folder(root / "validation", subjects=("C",), seed=1)
    assert train.main(train_arguments(*sets, root, "--epochs", 1)) == 0
    [path] = (root / "results" / "unet").glob("*/settings.json")
    return path


def test_it_holds_the_entries_of_the_table(settings):
    assert set(json.loads(settings.read_text())) == set(run_settings.ENTRIES)


@pytest.mark.parametrize("name", run_settings.ENTRIES)
def test_an_entry_that_is_missing_is_named_or_known(settings, tmp_path, name):
    content = json.loads(settings.read_text())
    del content[name]
    (tmp_path / "settings.json").write_text(json.dumps(content))
    if name in run_settings.OLDER:
        assert run_settings.read(tmp_path / "settings.json", "unet")[name] == run_settings.OLDER[name]
        return
    with pytest.raises(InputError, match=r"settings\.json: (is damaged|is of|was not written)") as refused:
        run_settings.read(tmp_path / "settings.json", "unet")
    assert name in str(refused.value) or name in ("script", "memory", "plan")
