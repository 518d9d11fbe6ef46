"""Record beside a fetched base what it was made of: base.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from schema_student.core.errors import UserError
from schema_student.core.jsonl import read_json, write_json

NAME = "base.json"


@dataclass(frozen=True)
class BaseRecord:
    """What a fetched base was made of, in the words of reports and cards."""

    source: str  # the file, ollama:NAME:TAG, the packages or the hub id, as a person named it
    sha256: str  # of the GGUF file; of the hub's files its commit
    quantization: str = ""  # "Q4_K_M"; "" where the weights are as published
    architecture: str = ""
    licence: str = ""
    licence_file: str = ""
    dtype: str = "bfloat16"
    tokenizer: str = ""  # where it is from
    tokenizer_differs: list[str] = field(default_factory=list)  # from the one in the GGUF file, on which texts
    left_out: list[str] = field(default_factory=list)  # tokens that have no row in the embedding

    def describe(self) -> str:
        """Say how the weights came to be, for reports: "dequantized from Q4_K_M"; "" where they are as published."""
        if not self.quantization:
            return ""
        plain = self.quantization in ("F32", "F16", "BF16", "F64")
        return f"{'read' if plain else 'dequantized'} from {self.quantization}"


def write_record(folder: Path, record: BaseRecord) -> None:
    """Write base.json, the last file of a fetched base."""
    write_json(folder / NAME, asdict(record))


def read_record(folder: Path) -> BaseRecord | None:
    """Read base.json; None for a folder that was not fetched."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        return BaseRecord(**read_json(path))
    except TypeError as error:
        raise UserError(f"{path} is no record of a fetched base: {error}; fetch the base again") from None
