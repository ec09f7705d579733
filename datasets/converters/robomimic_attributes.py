"""A demonstration's attributes: masks, model file and scalars of robomimic's, as attributes of an episode and back."""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from typing import Any

import h5py
import numpy as np
from pydantic import JsonValue

from onestride.datasets.converters import Report
from onestride.datasets.converters.passport import NAME, is_plain, pack_attributes, unpack_attributes
from onestride.datasets.schema import Array
from onestride.hardware.errors import OneStrideError

_OURS = ("model_file", "num_samples", NAME)
_DERIVED = ("demo", "split", "model_file", "model_file_sha256")
_LARGEST_MODEL = 64 << 20
"""What a model file may unpack to: it is text, and a damaged one must not fill the memory."""


def read_masks(file: Any, demos: tuple[str, ...], report: Report) -> dict[str, list[str]]:
    """Names of the masks that list each demonstration; names that no demonstration bears are reported."""
    splits: dict[str, list[str]] = {demo: [] for demo in demos}
    masks: Any = file.get("mask")
    for name in list(masks) if isinstance(masks, h5py.Group) else []:
        if not isinstance(masks[name], h5py.Dataset):
            report.left_out.append(f"mask/{name}: not a list of demonstrations")
            continue
        recorded: Any = masks[name]
        listed = [one.decode() if isinstance(one, bytes) else str(one) for one in recorded[...].ravel()]
        known = [demo for demo in listed if demo in splits]
        for demo in dict.fromkeys(known):
            splits[demo].append(name)
        if len(known) < len(listed):
            absent = next(demo for demo in listed if demo not in splits)
            report.left_out.append(
                f"mask/{name}: {len(listed) - len(known)} names without a demonstration, as {absent}"
            )
        if known != sorted(set(known)):
            report.changed.append(f"mask/{name}: each name once, in alphabetical order")
        report.kept.append(f"mask/{name}: as attribute 'split' of {len(set(known))} episodes")
    return splits


def read_attributes(
    demo: Any, name: str, splits: list[str], success: bool | None, report: Report
) -> dict[str, JsonValue]:
    """The attributes of an episode: those recorded and what follows from the file.

    Args:
        demo: the demonstration's group.
        name: of the demonstration.
        splits: masks that list it.
        success: what its rewards say; None = nothing.
        report: told about attributes that are left out.
    """
    found: dict[str, JsonValue] = {**plain_attributes(demo, _OURS, report), "demo": name, "split": list(splits)}
    if success is not None:
        found["success"] = success
    if "model_file" in demo.attrs:
        text = str(demo.attrs["model_file"])
        found["model_file_sha256"] = hashlib.sha256(text.encode()).hexdigest()
        found["model_file"] = _pack(text)
    note = demo.attrs.get(NAME)
    return found if note is None else _as_noted(found, unpack_attributes(note))


def plain_attributes(group: Any, known: tuple[str, ...], report: Report) -> dict[str, JsonValue]:
    """Attributes of a group besides the known ones; what is no short scalar is reported, once for all groups."""
    kept: dict[str, JsonValue] = {}
    for key in (key for key in group.attrs if key not in known):
        value = group.attrs[key]
        value = value.item() if isinstance(value, np.generic) else value
        if is_plain(value):
            kept[key] = value
        elif (line := f"attribute {key}: {type(value).__name__}, not a short scalar") not in report.left_out:
            report.left_out.append(line)
    return kept


def write_attributes(demo: Any, name: str, attributes: dict[str, JsonValue], length: int) -> None:
    """Give a demonstration its attributes: scalars as such, the model file as text, the rest in a note of ours."""
    demo.attrs["num_samples"] = length
    text = _unpack(attributes.get("model_file"))
    if text is not None:
        demo.attrs["model_file"] = text
    noted: dict[str, JsonValue] = {}
    for key, value in attributes.items():
        if _follows(key, value, name, text):
            continue
        if key in (*_DERIVED, *_OURS, "success") or not (is_plain(key) and key and is_plain(value)):
            noted[key] = value
        else:
            demo.attrs[key] = value
    demo.attrs[NAME] = pack_attributes({"keys": list(attributes), "values": noted})


def splits_of(attributes: dict[str, JsonValue]) -> list[str]:
    """Names of the masks that shall list an episode."""
    split = attributes.get("split")
    named = [split] if isinstance(split, str) else split if isinstance(split, list) else []
    return [one for one in named if isinstance(one, str) and _is_mask_name(one)]


def mask_array(demos: list[str]) -> Array:
    """A mask as robomimic writes it: names in alphabetical order."""
    return np.array(sorted(demos), dtype="S")


def _as_noted(found: dict[str, JsonValue], note: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """The attributes an episode had when it left, and what was added to the file since."""
    keys, values = note.get("keys"), note.get("values")
    if not isinstance(keys, list) or not isinstance(values, dict):
        raise OneStrideError(f"attribute {NAME}: expected keys and values, got {', '.join(note) or 'nothing'}")
    present = {**found, **values}
    before = {str(key): present[str(key)] for key in keys if key in present}
    added = {key: value for key, value in found.items() if key not in before and key not in (*_DERIVED, "success")}
    if found["split"] and "split" not in before:
        added["split"] = found["split"]
    return {**before, **added}


def _follows(key: str, value: JsonValue, name: str, model: str | None) -> bool:
    """Whether the reader finds an attribute again without being told."""
    if key == "demo":
        return value == name
    if key == "split":
        return isinstance(value, list) and value == sorted(set(splits_of({"split": value})))
    if key == "model_file":
        return model is not None and value == _pack(model)
    if key == "model_file_sha256":
        return model is not None and value == hashlib.sha256(model.encode()).hexdigest()
    return False


def _is_mask_name(name: str) -> bool:
    return bool(name) and "/" not in name and name not in (".", "..") and is_plain(name)


def _pack(text: str) -> str:
    """Text compressed, for it is kept once for each episode: XML shrinks to a fifth."""
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _unpack(packed: JsonValue) -> str | None:
    """What `_pack` packed; None for anything else."""
    if not isinstance(packed, str):
        return None
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(base64.b64decode(packed, validate=True), _LARGEST_MODEL)
        return text.decode() if unpacker.eof else None
    except (binascii.Error, zlib.error, ValueError):
        return None
