"""Read the metadata and the tensor list of a GGUF file, and refuse what is broken before any library allocates for it.

Layout by the GGUF specification: magic, version, counts, key-value pairs, tensor infos, padding, data; little-endian.
A count or a length is believed only as far as the file has bytes for it.
"""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from schema_student.core.errors import UserError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
MOST_DIMENSIONS = 4
NOT_QUANTIZED = ("F32", "F16", "BF16", "F64")


@dataclass(frozen=True)
class Tensor:
    """One tensor of the file: its name, its shape (innermost first, as GGUF has it), the name of its type."""

    name: str
    shape: tuple[int, ...]
    kind: str


@dataclass(frozen=True)
class Header:
    """What stands before the tensor data. `spans`: where the bytes of each key-value pair lie."""

    path: Path
    version: int
    metadata: dict[str, Any]
    spans: dict[str, tuple[int, int]]
    tensors: tuple[Tensor, ...]
    infos_at: int
    infos_end: int
    data_at: int

    @property
    def architecture(self) -> str:
        """Return the architecture that the file names: "gemma3", "llama"."""
        return str(self.metadata["general.architecture"])

    @property
    def quantization(self) -> str:
        """Name the quantization as its makers do ("Q4_K_M"), else the commonest type of its matrices."""
        from gguf import LlamaFileType

        kind = self.metadata.get("general.file_type")
        if kind in set(LlamaFileType) and (named := LlamaFileType(kind).name.partition("_")[2]):
            return named
        kinds = Counter(tensor.kind for tensor in self.tensors if len(tensor.shape) > 1)
        return kinds.most_common(1)[0][0] if kinds else "F32"


class _Cursor:
    """A place in the file's bytes; raises ValueError where something would lie beyond their end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def take(self, form: str, count: int = 1) -> tuple[Any, ...]:
        size = struct.calcsize(form) * count
        self.need(size)
        found = struct.unpack_from(f"<{count}{form}", self.data, self.at)
        self.at += size
        return found

    def number(self, form: str) -> Any:
        return self.take(form)[0]

    def text(self) -> str:
        length = self.number("Q")
        self.need(length)
        found = self.data[self.at : self.at + length].decode("utf-8", errors="replace")
        self.at += length
        return found

    def need(self, size: int) -> None:
        if size > len(self.data) - self.at:
            raise ValueError(f"it ends at byte {len(self.data):,}, within what its header announces")

    def value(self, kind: int, inside: bool = False) -> Any:
        if kind == STRING:
            return self.text()
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind != ARRAY or inside:
            raise ValueError(f"a value of the unknown type {kind}")
        item, count = self.number("I"), self.number("Q")
        if item in SCALARS:
            return list(self.take(SCALARS[item], count))
        self.need(count * 8)  # each text has a length of eight bytes at least
        return [self.value(item, inside=True) for _ in range(count)]


def read_header(path: Path) -> Header:
    """Read a GGUF file's header; raises UserError that says what is wrong with the file."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(path, _Cursor(data))
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (ValueError, struct.error, OverflowError, IsADirectoryError) as error:
        raise UserError(f"{path} is not a GGUF file that can be read: {error}") from None


def _parse(path: Path, cursor: _Cursor) -> Header:
    if cursor.data[:4] != MAGIC:
        raise ValueError(f"it begins with {cursor.data[:4]!r}, not with {MAGIC!r}")
    cursor.at = 4
    version = cursor.number("I")
    if version not in VERSIONS:
        raise ValueError(f"version {version}; versions {VERSIONS[0]} and {VERSIONS[1]} in little-endian order are read")
    tensor_count, pair_count = cursor.take("Q", 2)
    cursor.need(tensor_count * 24 + pair_count * 13)  # the least that an entry takes
    metadata, spans = _read_pairs(cursor, pair_count)
    _check_metadata(metadata)
    infos_at = cursor.at
    infos = [_read_tensor(cursor) for _ in range(tensor_count)]
    alignment = _read_alignment(metadata)
    data_at = -(-cursor.at // alignment) * alignment
    _check_tensors(infos, len(cursor.data) - data_at)
    tensors = tuple(tensor for tensor, _ in infos)
    return Header(path, version, metadata, spans, tensors, infos_at, cursor.at, data_at)


def _read_pairs(cursor: _Cursor, count: int) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    metadata: dict[str, Any] = {}
    spans: dict[str, tuple[int, int]] = {}
    for _ in range(count):
        start, key = cursor.at, cursor.text()
        if key in metadata:
            raise ValueError(f"its key {key!r} stands there twice")
        metadata[key] = cursor.value(cursor.number("I"))
        spans[key] = (start, cursor.at)
    return metadata, spans


def _check_metadata(metadata: dict[str, Any]) -> None:
    if not isinstance(metadata.get("general.architecture"), str):
        raise ValueError("it names no architecture (general.architecture)")
    parts = metadata.get("split.count", 1)
    if isinstance(parts, int) and parts > 1:
        number = int(metadata.get("split.no", 0)) + 1
        raise ValueError(f"it is part {number} of {parts}; join them first (llama-gguf-split --merge)")


def _read_alignment(metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= 2**20:
        raise ValueError(f"its alignment is {alignment!r}")
    return alignment


def _read_tensor(cursor: _Cursor) -> tuple[Tensor, int]:
    """Read one tensor's info: the tensor, and the offset of its data."""
    name, dimensions = cursor.text(), cursor.number("I")
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise ValueError(f"its tensor {name!r} has {dimensions} dimensions")
    shape = cursor.take("Q", dimensions)
    kind, offset = cursor.number("I"), cursor.number("Q")
    return Tensor(name, shape, _name_type(name, kind)), offset


def _name_type(name: str, kind: int) -> str:
    from gguf import GGMLQuantizationType

    if kind not in set(GGMLQuantizationType):
        raise ValueError(f"its tensor {name!r} is of the unknown type {kind}")
    return GGMLQuantizationType(kind).name


def _check_tensors(infos: list[tuple[Tensor, int]], room: int) -> None:
    """Raise ValueError for a tensor that has no data in the file, or stands there twice."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if not infos:
        raise ValueError("it holds no tensors (a vocabulary alone)")
    twice = [name for name, count in Counter(tensor.name for tensor, _ in infos).items() if count > 1]
    if twice:
        raise ValueError(f"its tensor {twice[0]!r} stands there twice")
    for tensor, offset in infos:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType[tensor.kind]]
        if not prod(tensor.shape) or tensor.shape[0] % block:
            raise ValueError(f"its tensor {tensor.name!r} of type {tensor.kind} has the shape {tensor.shape}")
        if (end := offset + prod(tensor.shape) // block * size) > room:
            raise ValueError(f"it is cut off: {tensor.name!r} ends {end - room:,} bytes behind the file's end")
