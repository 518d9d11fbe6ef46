"""Identify the embedded teacher: its name, and a digest of all that decides what it says."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from schema_student.core.resources import DATA_DIR, PACKAGE
from schema_student.core.stamps import digest

MODEL = "embedded-teacher"
DISPLAY_NAME = "embedded rule-based teacher (not an LLM)"
LEXICON = DATA_DIR / "lexicon.json"


@lru_cache(maxsize=1)
def model_digest() -> str:
    """Compute the digest of what decides the teacher's answers: its phrases, its lexicon and its rules."""
    data = [DATA_DIR / "phrases_teacher.json", DATA_DIR / "operators.json", DATA_DIR / "values.json", LEXICON]
    here = Path(__file__).parent
    code = sorted([*(PACKAGE / "schema").rglob("*.py"), *here.rglob("*.py"), here.parent / "roles.py"])
    return digest([digest(path) for path in data + code])
