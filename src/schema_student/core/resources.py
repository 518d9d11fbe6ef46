"""Locate the files that are installed with the package: config/, data/, templates, the embedded student.

In a checkout they lie at its top level, the one source; a wheel carries them in `_resources` inside the package.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = PACKAGE.parents[1]
IS_INSTALLED = (PACKAGE / "_resources").is_dir()
RESOURCES = PACKAGE / "_resources" if IS_INSTALLED else CHECKOUT
CONFIG_DIR = RESOURCES / "config"
DATA_DIR = RESOURCES / "data"
EMBEDDED_STUDENT = RESOURCES / "models" / "embedded-student"


def models_dir() -> Path:
    """Return the folder of bases that were fetched: models/ of a checkout, else of the current folder."""
    return Path("models") if IS_INSTALLED else CHECKOUT / "models"
