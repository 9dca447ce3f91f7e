"""Speed and memory of training: frames a second, seconds a step, peak memory.

    python benchmarks/training.py

Trains the named model on generated frames of 800x740 in a process of its own for each setting, so that
each peak is its own, and prints a table and a JSON line. Median of the steps after warm-up.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time


def measure(setting, steps, warm_up, results):
    """Time training steps of one setting (scale, batch size, mixed precision) and put a row in ``results``."""
    import torch

    from sonogravity import devices
    from sonogravity.data import network_size
    from sonogravity.losses import SegmentationLoss
    from sonogravity.optimizers import make_optimizer
    from unet.model import UNet

    device = devices.pick_device("auto")
    amp = devices.amp_type(device, setting["amp"])
    height, width = network_size((800, 740), setting["scale"])
    model = UNet(1, 3).to(device, memory_format=torch.channels_last).train()
    optimizer = make_optimizer("adam", model.parameters(), 1e-4, 0.0)
    criterion = SegmentationLoss("ce")
    images = torch.rand(setting["batch"], 1, height, width, device=device)
    masks = torch.randint(3, (setting["batch"], height, width), device=device)
    before = _memory_mb(device)
    times = []
    for _ in range(warm_up + steps):
        _wait(device)
        start = time.perf_counter()
        with torch.autocast(device.type, amp, enabled=amp is not None):
            logits = model(images.contiguous(memory_format=torch.channels_last))
        loss = criterion(logits, masks)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        _wait(device)
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[warm_up:])
    results.put({
        **setting, "size": f"{width}x{height}", "precision": str(amp or torch.float32).removeprefix("torch."),
        "device": str(device), "torch": torch.__version__, "seconds_a_step": seconds,
        "frames_a_second": setting["batch"] / seconds, "start_mb": before, "peak_mb": _memory_mb(device),
    })  # fmt: skip


def _wait(device):
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def _memory_mb(device):
    """Peak memory so far: of the GPU's allocator, else resident memory of the process."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--scale", type=float, default=0.5)
    parser.add_argument("--batch-size", type=int, default=2)
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    rows = []
    for amp in (False, True):
        results = context.Queue()
        setting = {"model": "unet", "scale": args.scale, "batch": args.batch_size, "amp": amp}
        process = context.Process(target=measure, args=(setting, args.steps, args.warm_up, results))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"{setting}: the process ended with {process.exitcode}")
        rows.append(results.get())
    print(f"{'model':8}{'frame':>10}{'batch':>7}{'precision':>11}{'s/step':>9}{'frames/s':>10}{'peak MB':>9}")
    for row in rows:
        print(f"{row['model']:8}{row['size']:>10}{row['batch']:>7}{row['precision']:>11}"
              f"{row['seconds_a_step']:>9.2f}{row['frames_a_second']:>10.3f}{row['peak_mb']:>9.0f}")  # fmt: skip
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
