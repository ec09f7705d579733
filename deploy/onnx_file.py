"""Read and write what an ONNX file carries beside its graph, without the `onnx` package.

An ONNX file is one protobuf message. `metadata_props` is its field 14, each entry a message of key (1) and
value (2); the graph is field 7, its nodes are field 1 and its outputs field 12. Appending an encoded entry to the
file's end adds it to the message, which is how protobuf concatenates repeated fields.

Reference: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from onestride.hardware.errors import OneStrideError

CONTRACT_KEY = "onestride.contract"
HASH_KEY = "onestride.sha256"
_BLANK = b"0" * 64

_GRAPH, _METADATA, _VARINT, _BYTES = 7, 14, 0, 2
_NODE, _OUTPUT, _VALUE_INFO = 1, 12, 13  # of a graph
_NODE_INPUT, _NODE_OUTPUT, _ATTRIBUTE, _SUBGRAPHS = 1, 2, 5, (6, 11)  # of a node, and of its attributes
_FIXED = {1: 8, 5: 4}


@dataclass(frozen=True)
class _Field:
    number: int
    start: int  # of the whole field, tag included
    value: bytes
    at: int  # of the value
    end: int


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("truncated or oversized integer")
        byte = data[at]
        result |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return result, at


def _fields(data: bytes) -> Iterator[_Field]:
    """The fields of one protobuf message.

    Raises:
        ValueError: the message is truncated or is no protobuf.
    """
    at = 0
    while at < len(data):
        start = at
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            _, end = _varint(data, at)
        elif wire == _BYTES:
            length, at = _varint(data, at)
            end = at + length
        elif wire in _FIXED:
            end = at + _FIXED[wire]
        else:
            raise ValueError(f"unknown wire type {wire}")
        if number == 0 or end > len(data):
            raise ValueError("truncated message")
        yield _Field(number, start, data[at:end], at, end)
        at = end


def encode_bytes(number: int, value: bytes) -> bytes:
    """A field of a message that holds bytes, text or another message."""
    return _encode_varint(number << 3 | _BYTES) + _encode_varint(len(value)) + value


def encode_number(number: int, value: int) -> bytes:
    """A field of a message that holds a whole number, not negative."""
    return _encode_varint(number << 3 | _VARINT) + _encode_varint(value)


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_file(path: str | Path) -> bytes:
    """The bytes of an ONNX file.

    Raises:
        OneStrideError: no such file.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise OneStrideError(f"policy file {path}: {error.strerror or error}") from None


def metadata(data: bytes, source: str) -> dict[str, str]:
    """The file's metadata entries.

    onnxruntime silently keeps the last of duplicate keys; here a key that stands twice is refused.

    Raises:
        OneStrideError: no ONNX file, truncated, or a duplicate key.
    """
    entries: dict[str, str] = {}
    try:
        for field in _fields(data):
            if field.number != _METADATA:
                continue
            parts = {part.number: part.value for part in _fields(field.value)}
            key = parts.get(1, b"").decode()
            if key in entries:
                raise OneStrideError(f"{source}: metadata key {key!r} stands twice; refusing to guess which is meant")
            entries[key] = parts.get(2, b"").decode()
    except ValueError as error:
        raise OneStrideError(f"{source}: not an ONNX file, or truncated ({error})") from None
    return entries


def with_metadata(data: bytes, entries: dict[str, str]) -> bytes:
    """The file with metadata entries of these keys replaced, the others kept."""
    kept = bytearray()
    for field in _fields(data):
        if field.number == _METADATA:
            key = next((part.value.decode() for part in _fields(field.value) if part.number == 1), "")
            if key in entries:
                continue
        kept += data[field.start : field.end]
    for key, value in entries.items():
        kept += encode_bytes(_METADATA, encode_bytes(1, key.encode()) + encode_bytes(2, value.encode()))
    return bytes(kept)


def sign(data: bytes) -> bytes:
    """The file with its own SHA-256, computed over the file with the digits zeroed.

    Integrity, not authenticity: who can change the file can also sign it anew.
    """
    blank = with_metadata(data, {HASH_KEY: _BLANK.decode()})
    at = len(blank) - len(_BLANK)  # the entry was appended last and its value ends it
    digest = hashlib.sha256(blank).hexdigest().encode()
    return blank[:at] + digest


def verify(data: bytes, source: str) -> str:
    """Check the file's hash and return it.

    Raises:
        OneStrideError: no hash, or the file was changed after signing.
    """
    recorded = metadata(data, source).get(HASH_KEY)
    if recorded is None:
        raise OneStrideError(
            f"{source}: carries no {HASH_KEY}: not exported by onestride, or truncated; "
            "a policy of another origin needs a contract file: --contract FILE"
        )
    if len(recorded) != len(_BLANK) or data.count(recorded.encode()) != 1:
        raise OneStrideError(f"{source}: {HASH_KEY}: expected 64 hex digits, once, got {recorded!r}")
    computed = hashlib.sha256(data.replace(recorded.encode(), _BLANK)).hexdigest()
    if computed != recorded:
        raise OneStrideError(
            f"{source}: damaged or changed after export: {HASH_KEY} is {recorded[:12]}…, "
            f"but its bytes give {computed[:12]}…"
        )
    return recorded


def with_output(data: bytes, *names: str) -> bytes:
    """The model with these as its only outputs and without the nodes that they do not need.

    onnxruntime evaluates every node of a graph, whether or not an output depends on it.

    Raises:
        ValueError: the model is truncated or has no such output.
    """
    model = bytearray()
    for field in _fields(data):
        if field.number == _GRAPH:
            model += encode_bytes(_GRAPH, _graph_with_outputs(field.value, [name.encode() for name in names]))
        else:
            model += data[field.start : field.end]
    return bytes(model)


def without_shapes(data: bytes) -> bytes:
    """The model without the shapes that its exporter wrote beside values within the graph.

    They are hints only, and wrong as soon as a weight is transposed. Inputs and outputs keep theirs.

    Raises:
        ValueError: the model is truncated.
    """
    model = bytearray()
    for field in _fields(data):
        if field.number != _GRAPH:
            model += data[field.start : field.end]
            continue
        kept = (one for one in _fields(field.value) if one.number != _VALUE_INFO)
        model += encode_bytes(_GRAPH, b"".join(field.value[one.start : one.end] for one in kept))
    return bytes(model)


def _graph_with_outputs(graph: bytes, names: list[bytes]) -> bytes:
    fields = list(_fields(graph))
    outputs = {at: b"".join(_strings(field.value, 1)) for at, field in enumerate(fields) if field.number == _OUTPUT}
    for name in names:
        if name not in outputs.values():
            available = b", ".join(outputs.values()).decode() or "none"
            raise ValueError(f"unknown output: got {name.decode()!r}, available: {available}")
    dropped = {at for at, output in outputs.items() if output not in names} | _not_needed(fields, set(names))
    return b"".join(graph[field.start : field.end] for at, field in enumerate(fields) if at not in dropped)


def _not_needed(fields: list[_Field], needed: set[bytes]) -> set[int]:
    """Positions of the nodes that no `needed` value depends on; nodes stand in topological order."""
    dropped = set()
    for at in reversed(range(len(fields))):
        if fields[at].number != _NODE:
            continue
        node = fields[at].value
        if _has_subgraph(node):
            return set()  # a subgraph uses outer values without naming them as inputs: keep everything
        if needed.intersection(_strings(node, _NODE_OUTPUT)):
            needed.update(_strings(node, _NODE_INPUT))
        else:
            dropped.add(at)
    return dropped


def _strings(message: bytes, number: int) -> list[bytes]:
    return [field.value for field in _fields(message) if field.number == number]


def _has_subgraph(node: bytes) -> bool:
    attributes = (field.value for field in _fields(node) if field.number == _ATTRIBUTE)
    return any(part.number in _SUBGRAPHS for attribute in attributes for part in _fields(attribute))
