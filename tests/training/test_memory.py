"""Out of memory: the same mathematics in less, then smaller parts of a batch; and what is said of it."""

import subprocess
import sys

import pandas as pd
import pytest
import torch
from conftest import make_folder, train_arguments
from killing import same
from torch import nn

from deeplab import train as deeplab_train
from deeplab.model import DeepLabV3
from sonogravity.common import folders
from sonogravity.common.files import load_torch
from sonogravity.inference.predictor import Predictor
from sonogravity.reporting import pictures
from sonogravity.training.losses import SegmentationLoss
from sonogravity.training.memory import Memory, compute_again
from unet import evaluate, predict, train
from unet.model import UNet

SAYS = "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."


@pytest.mark.parametrize(
    "build",
    [
        lambda: UNet(1, 3, 4),
        lambda: UNet(1, 3, 4, bilinear=True, depth_channel=True),
        lambda: DeepLabV3(1, 3, "mobilenet_v3_large"),
        lambda: DeepLabV3(1, 3, "resnet50", aux_loss=True),
    ],
    ids=["unet", "bilinear", "mobilenet", "resnet50 with auxiliary head"],
)
def test_checkpointing_is_the_same_mathematics(build):
    """Gradients, running statistics and counters of batch normalisation, and dropout: bit for bit."""
    outcomes = []
    for sparing in (False, True):
        torch.manual_seed(0)
        model = build().train()
        images = torch.rand(2, 1, 40, 36)
        if sparing:
            compute_again(model.blocks())
            compute_again(model.blocks())  # twice is once
        for _ in range(2):
            logits = model(images)
            logits = logits if isinstance(logits, tuple) else (logits,)
            sum(part.square().mean() for part in logits).backward()
        gradients = {name: value.grad for name, value in model.named_parameters()}
        outcomes.append({**gradients, **{f"state of {key}": value for key, value in model.state_dict().items()}})
        assert any(grad.abs().sum() > 0 for grad in gradients.values())
        model.eval()
        with torch.inference_mode():
            outcomes[-1]["logits"] = model(images)
    assert same(*outcomes)


def test_checkpointing_keeps_fewer_activations():
    kept = []
    for sparing in (False, True):
        model = UNet(1, 3, 8).train()
        if sparing:
            compute_again(model.blocks())
        total = 0

        def count(tensor):
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            model(torch.rand(2, 1, 64, 64))
        kept.append(total)
    assert kept[1] < kept[0] / 2


def test_what_is_tried_in_turn():
    tried, memory = [], Memory()
    while memory := memory.sparer(8, 2):
        tried.append((memory.checkpointing, memory.micro_batch))
    assert tried == [(True, None), (True, 4), (True, 2)]
    assert Memory(True).sparer(2, 2) is None and Memory(True).sparer(2, 1) == Memory(True, 1)


@pytest.mark.parametrize("smallest", [1, 2])
def test_parts_of_a_batch(smallest):
    for frames in range(smallest, 40):
        for micro in (None, *range(smallest, 20)):
            sizes = [len(range(frames)[part]) for part in Memory(True, micro).parts(frames, smallest)]
            assert sum(sizes) == frames and min(sizes) >= smallest and max(sizes) - min(sizes) <= 1
            assert micro is None or max(sizes) <= max(micro, 2 * smallest - 1)


def test_parts_sum_to_the_gradient_of_the_batch():
    """With batch statistics frozen and no Dice, accumulation is the whole batch's gradient to rounding."""
    gradients = []
    for memory in (Memory(), Memory(micro_batch=2)):
        torch.manual_seed(0)
        model = UNet(1, 3, 4).eval()
        images, masks = torch.rand(5, 1, 32, 32), torch.randint(0, 3, (5, 32, 32))
        criterion = SegmentationLoss("ce", 0)
        for part in memory.parts(5, 1):
            (criterion(model(images[part]), masks[part]) * (len(images[part]) / 5)).backward()
        gradients.append(torch.cat([value.grad.ravel() for value in model.parameters()]))
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-6) and gradients[0].abs().max() > 1e-3


def limited(monkeypatch, model_class, most, activations_kept=True):
    """Make the network's forward pass run out of memory above so many frames, or while activations are kept."""
    real, sizes = model_class.forward, []

    def forward(self, x, heights=None):
        spared = "forward" in vars(self.blocks()[0])
        if self.training and (len(x) > most or (not activations_kept and not spared)):
            raise RuntimeError(SAYS)
        if self.training:
            sizes.append(len(x))
        return real(self, x, heights)

    monkeypatch.setattr(model_class, "forward", forward)
    return sizes


def history(root, model="unet"):
    table = pd.read_csv(root / "results" / model / "run" / "epochs.csv")
    return table.drop(columns=["seconds", "images_per_second"])


def last(root, model="unet"):
    return load_torch(root / "checkpoints" / model / "run" / "last.pth")


def test_a_run_that_needs_checkpointing_ends_as_one_that_does_not(sets, tmp_path, monkeypatch, capsys):
    options = ["--epochs", 2, "--batch-size", 4, "--loss", "ce+dice"]
    assert train.main(train_arguments(*sets, tmp_path / "a", *options)) == 0
    limited(monkeypatch, UNet, most=8, activations_kept=False)
    assert train.main(train_arguments(*sets, tmp_path / "b", *options)) == 0
    assert "activation checkpointing): the weights are the same" in capsys.readouterr().err
    assert same(last(tmp_path / "a")["state_dict"], last(tmp_path / "b")["state_dict"])
    assert history(tmp_path / "a").equals(history(tmp_path / "b"))
    assert last(tmp_path / "b")["training"]["settings"]["memory"] == {"checkpointing": True, "micro_batch": None}


def test_parts_where_checkpointing_does_not_suffice(sets, tmp_path, monkeypatch, capsys):
    sizes = limited(monkeypatch, UNet, most=2)
    assert train.main(train_arguments(*sets, tmp_path, "--epochs", 1, "--batch-size", 4)) == 0
    said = capsys.readouterr().err
    assert said.count("out of memory: ") == 2 and "scores differ" in said and "2 frames at a time" in said
    assert max(sizes) <= 4 and 2 in sizes
    settings = last(tmp_path)["training"]["settings"]
    assert settings["memory"] == {"checkpointing": True, "micro_batch": 2}
    monkeypatch.undo()  # there is memory again, but a resumed and a repeated run do as the first did
    checkpoint = tmp_path / "checkpoints" / "unet" / "run" / "last.pth"
    sizes = limited(monkeypatch, UNet, most=99)
    assert train.main(["--resume", str(checkpoint), "--epochs", "2"]) == 0
    assert set(sizes[:4]) == {2}
    results = tmp_path / "results" / "unet" / "run" / "settings.json"
    assert train.main(["--repeat", str(results), "--name", "again"]) == 0
    again = load_torch(tmp_path / "checkpoints" / "unet" / "again" / "last.pth")
    assert same(again["state_dict"], last(tmp_path)["state_dict"])


@pytest.mark.parametrize("epoch", [2, 3])
def test_memory_that_runs_out_while_an_epoch_is_saved(sets, tmp_path, monkeypatch, epoch):
    """The epoch is trained again, also the last one, and the history has each epoch once."""
    options = ["--epochs", 3, "--save-every", 1, "--loss", "ce+dice"]
    assert train.main(train_arguments(*sets, tmp_path / "a", *options)) == 0
    real, calls = pictures.epoch_panels, []

    def panels(*arguments):
        calls.append(arguments)
        if len(calls) == epoch:
            raise MemoryError
        return real(*arguments)

    monkeypatch.setattr(pictures, "epoch_panels", panels)
    assert train.main(train_arguments(*sets, tmp_path / "b", *options)) == 0
    assert len(calls) == 4
    assert history(tmp_path / "b")["epoch"].tolist() == [1, 2, 3]
    assert history(tmp_path / "a").equals(history(tmp_path / "b"))
    assert last(tmp_path / "b")["epoch"] == 3 and same(
        last(tmp_path / "a")["state_dict"], last(tmp_path / "b")["state_dict"]
    )


def test_deeplab_is_never_given_one_frame(sets, tmp_path, monkeypatch, refused):
    arguments = [
        "--train",
        sets[0],
        "--validation",
        sets[1],
        "--checkpoints",
        tmp_path / "checkpoints",
        "--results",
        tmp_path / "results",
        "--name",
        "run",
        "--epochs",
        1,
        "--batch-size",
        5,
        "--scale",
        0.5,
        "--device",
        "cpu",
        "--backbone",
        "mobilenet_v3_large",
    ]
    sizes = limited(monkeypatch, DeepLabV3, most=3)
    assert deeplab_train.main([str(argument) for argument in arguments]) == 0
    assert set(sizes) <= {2, 3, 4} and 1 not in sizes[:-4]
    monkeypatch.undo()
    limited(monkeypatch, DeepLabV3, most=0)
    arguments[9] = "other"
    line = refused(deeplab_train.main, arguments)
    assert "out of memory even with 2 frames at a time" in line and "--scale" in line


def test_prediction_takes_smaller_batches(trained, tmp_path, monkeypatch):
    best = trained / "checkpoints" / "unet" / "run" / "best.pth"
    arguments = ["--load", str(best), "--input", str(trained / "validation"), "--batch-size", "8"]
    assert evaluate.main([*arguments, "--output", str(tmp_path / "a")]) == 0
    real, sizes = Predictor.logits, []

    def logits(self, frames):
        if len(frames) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        sizes.append(len(frames))
        return real(self, frames)

    monkeypatch.setattr(Predictor, "logits", logits)
    assert evaluate.main([*arguments, "--output", str(tmp_path / "b")]) == 0
    assert sizes == [2, 2, 2, 2]
    one, other = (pd.read_csv(tmp_path / name / "files.csv").drop(columns="seconds") for name in "ab")
    pd.testing.assert_frame_equal(one, other, rtol=0, atol=1e-6)


def test_one_frame_too_large_is_one_line(trained, tmp_path, monkeypatch, refused):
    def logits(self, frames):
        raise RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)")

    monkeypatch.setattr(Predictor, "logits", logits)
    best = trained / "checkpoints" / "unet" / "run" / "best.pth"
    line = refused(predict.main, ["--load", best, "--input", trained / "validation", "--output", tmp_path / "o"])
    assert "out of memory" in line and "--scale" in line


# The first two tries of the epoch have less address space left than the first activation takes (46 MB), so that it is
# surely torch's allocator that is refused: nearer the edge the refusal meets other libraries, some of which crash.
LIMITED = """
import resource, sys
from sonogravity.training import steps
from unet import train

real, tries = steps.train_one_epoch, []

def limited(*arguments, **more):
    tries.append(1)
    taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    limit = taken + 40 * 2**20 if len(tries) < 3 else resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        return real(*arguments, **more)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

steps.train_one_epoch = limited
sys.exit(train.main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
def test_real_exhaustion_of_memory_on_a_cpu(tmp_path):
    """An address space too small for the batch: the allocator's own refusal, and a run that ends well."""
    make_folder(tmp_path / "train", size=(300, 300))
    make_folder(tmp_path / "validation", subjects=("C",), size=(300, 300), seed=1)
    arguments = train_arguments(
        tmp_path / "train",
        tmp_path / "validation",
        tmp_path,
        "--epochs",
        1,
        "--batch-size",
        8,
        "--scale",
        1,
        "--base-channels",
        16,
        "--no-augment",
    )
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *arguments], cwd=folders.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stderr.count("out of memory: ") == 2, done.stderr
    assert "4 frames at a time" in done.stderr and last(tmp_path)["epoch"] == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_real_exhaustion_of_memory_on_a_gpu(tmp_path, capsys):
    make_folder(tmp_path / "train", size=(400, 400))
    make_folder(tmp_path / "validation", subjects=("C",), size=(400, 400), seed=1)
    torch.cuda.set_per_process_memory_fraction(1.2e9 / torch.cuda.get_device_properties(0).total_memory)
    try:
        options = ["--epochs", 1, "--batch-size", 8, "--scale", 1, "--base-channels", 32, "--device", "cuda"]
        assert train.main(train_arguments(tmp_path / "train", tmp_path / "validation", tmp_path, *options)) == 0
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of memory: " in capsys.readouterr().err


def test_every_block_list_covers_the_batch_normalisation():
    """A normalisation outside the blocks would be no error, but one that is twice in them would be counted twice."""
    for model in (UNet(1, 3, 4), DeepLabV3(1, 3, "mobilenet_v3_large"), DeepLabV3(1, 3, "resnet101", aux_loss=True)):
        inside = [module for block in model.blocks() for module in block.modules()]
        assert len(inside) == len(set(map(id, inside)))
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        assert sum(module in inside for module in norms) > 0.9 * len(norms)


def test_low_memory_may_begin_when_a_run_is_resumed(sets, tmp_path):
    """Several processes that ran out of memory are told to give it."""
    for name, more in (("plain", []), ("sparing", ["--low-memory"])):
        assert train.main(train_arguments(*sets, tmp_path / name)) == 0
        path = tmp_path / name / "checkpoints/unet/run/last.pth"
        assert train.main(["--resume", str(path), "--epochs", "3", *more]) == 0
    one, other = (load_torch(tmp_path / name / "checkpoints/unet/run/last.pth") for name in ("plain", "sparing"))
    assert other["epoch"] == 3 and same(one["state_dict"], other["state_dict"])
    assert [root["training"]["settings"]["memory"]["checkpointing"] for root in (one, other)] == [False, True]


def test_low_memory_is_the_same_run(sets, tmp_path, capsys):
    for name, more in (("plain", []), ("sparing", ["--low-memory"])):
        assert train.main(train_arguments(*sets, tmp_path / name, *more)) == 0
    one, other = (load_torch(tmp_path / name / "checkpoints/unet/run/last.pth") for name in ("plain", "sparing"))
    assert same(one["state_dict"], other["state_dict"])
    assert [root["training"]["settings"]["memory"]["checkpointing"] for root in (one, other)] == [False, True]
    assert "out of memory" not in capsys.readouterr().err
