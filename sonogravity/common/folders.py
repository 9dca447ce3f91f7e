"""The folders of the repository that scripts read from and write to by default."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DATA, CHECKPOINTS, RESULTS = ROOT / "data", ROOT / "checkpoints", ROOT / "results"
