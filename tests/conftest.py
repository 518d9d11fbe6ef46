"""What all tests share. Warnings are errors (pyproject.toml lists the exceptions with their reasons)."""

import os
from pathlib import Path

# For the scripts that tests start.
os.environ["PYTHONPATH"] = str(Path(__file__).parents[1] / "src")
# Before torch is imported: spinning threads make small tensors slow on few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from hypothesis import settings

# Derandomized: the same examples on every machine. No deadline: cores are shared.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("repeatable")
