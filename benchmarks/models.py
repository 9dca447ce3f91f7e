"""Count the parameters and floating-point operations of each model with torch's own counter.

    python benchmarks/models.py

The frame is 400 pixels high and 370 wide (half of 800x740), with one grey channel and three classes. Operations are
counted on torch's meta device, without computing. An addition and a multiplication count as two operations.
"""

import torch
from torch.utils.flop_counter import FlopCounterMode

from deeplab.model import BUILDERS, DeepLabV3
from unet.model import UNet


def main():
    models = {"unet": lambda: UNet(1, 3), "unet --bilinear": lambda: UNet(1, 3, bilinear=True)}
    models |= {f"deeplab {name}": lambda name=name: DeepLabV3(1, 3, name) for name in BUILDERS}
    print(f"{'model':30}{'parameters':>12}{'GFLOP per frame':>15}")
    for name, build in models.items():
        with torch.device("meta"):
            model = build().eval()
            frame = torch.empty(1, 1, 400, 370)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(frame)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        print(f"{name:30}{parameters:>12,}{counter.get_total_flops() / 1e9:>15.1f}")


if __name__ == "__main__":
    main()
