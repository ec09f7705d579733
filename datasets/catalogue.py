"""Official datasets by name, and where their files are.

Reference: robomimic 0.5's list (Hugging Face, `robomimic/robomimic_datasets`, v1.5: for robosuite 1.5);
`ogbench.utils.DATASET_URL` of ogbench 1.2; the Hub's API as `huggingface_hub` uses it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from onestride.datasets.download import Remote, read_json, read_sidecar
from onestride.hardware.errors import OneStrideError, unknown

HUB = "https://huggingface.co"
OGBENCH = "https://rail.eecs.berkeley.edu/datasets/ogbench"
ROBOMIMIC_REPOSITORY = "robomimic/robomimic_datasets"
ROBOMIMIC_VERSION = "v1.5"

ROBOMIMIC = {
    "ph": ("lift", "can", "square", "transport", "tool_hang"),
    "mh": ("lift", "can", "square", "transport"),
    "mg": ("lift", "can"),
    "paired": ("can",),
}
"""How demonstrations were made (proficient, several, machine, paired) -> tasks."""

FAMILIES = ("robomimic/<task>/<ph|mh|mg|paired>[/<low_dim|raw|...>]", "ogbench/<dataset>", "lerobot/<repository>")

_MOST_PAGES = 1000


def locate(name: str, endpoint: str | None = None) -> list[Remote]:
    """The files of a dataset, with what is known of them.

    Args:
        name: for instance `robomimic/lift/ph`, `ogbench/cube-double-play-v0` or `lerobot/pusht`.
        endpoint: address of a mirror; None = the official server (for the Hub: `HF_ENDPOINT`, where set).

    Raises:
        OneStrideError: no such dataset, or its server cannot be asked.
    """
    family, _, rest = name.strip("/").partition("/")
    if family == "ogbench" and rest:
        return _ogbench(rest, endpoint or OGBENCH)
    hub = (endpoint or os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    if family == "robomimic" and rest:
        return _robomimic(rest, hub)
    if family == "lerobot" and rest:
        return _lerobot(rest, hub)
    raise unknown("dataset", name, FAMILIES)


def _robomimic(rest: str, hub: str) -> list[Remote]:
    task, _, tail = rest.partition("/")
    kind, _, wanted = tail.partition("/")
    known = [f"robomimic/{one}/{kind_}" for kind_, tasks in ROBOMIMIC.items() for one in tasks]
    if kind not in ROBOMIMIC or task not in ROBOMIMIC[kind]:
        raise unknown("dataset", f"robomimic/{rest}", known)
    wanted = {"": "low_dim_sparse" if kind == "mg" else "low_dim", "raw": "demo"}.get(wanted, wanted)
    folder = f"{ROBOMIMIC_VERSION}/{task}/{kind}"
    files = list(_tree(hub, ROBOMIMIC_REPOSITORY, "main", folder))
    stem = {re.sub(r"_v\d+\.hdf5$", "", str(one["path"]).rsplit("/", 1)[-1]): one for one in files}
    if wanted not in stem:
        raise unknown(f"kind of robomimic/{task}/{kind}", wanted, stem)
    return [_hub_file(hub, ROBOMIMIC_REPOSITORY, "main", stem[wanted], f"robomimic/{task}/{kind}/", folder)]


def _ogbench(rest: str, base: str) -> list[Remote]:
    words = rest.split("-")
    if "/" in rest or not re.fullmatch(r"[a-z0-9-]+-v\d+", rest):
        raise unknown("dataset", f"ogbench/{rest}", ["ogbench/cube-double-play-v0 and the others of ogbench's list"])
    for word in ("singletask", "oraclerep"):
        if word in words:
            # The data are the same for every task; only the rewards differ, which `convert --env` computes.
            words = [*words[: words.index(word)], words[-1]]
    name = "-".join(words)
    urls = [(f"{base.rstrip('/')}/{name}{part}.npz", f"ogbench/{name}{part}.npz") for part in ("", "-val")]
    return [Remote(url, path, sha256=read_sidecar(f"{url}.sha256")) for url, path in urls]


def _lerobot(rest: str, hub: str) -> list[Remote]:
    repository = rest if "/" in rest else f"lerobot/{rest}"
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise unknown("dataset", f"lerobot/{rest}", ["lerobot/<user>/<repository>"])
    about, _ = read_json(f"{hub}/api/datasets/{repository}")
    revision = about.get("sha") if isinstance(about, dict) else None
    if not isinstance(revision, str):
        raise OneStrideError(f"{repository}: expected a repository with a commit, got none")
    files = [one for one in _tree(hub, repository, revision, "") if not str(one["path"]).startswith(".")]
    if not any(one["path"] == "meta/info.json" for one in files):
        raise OneStrideError(
            f"{repository}: expected a LeRobot dataset with meta/info.json, got {len(files)} other files"
        )
    return [_hub_file(hub, repository, revision, one, f"lerobot/{repository}/", "") for one in files]


def _tree(hub: str, repository: str, revision: str, folder: str) -> Iterator[dict[str, Any]]:
    """Every file below a folder of a repository, page by page."""
    url: str | None = f"{hub}/api/datasets/{repository}/tree/{revision}/{quote(folder)}?recursive=true".replace(
        "/?", "?"
    )
    for _ in range(_MOST_PAGES):
        entries, headers = read_json(str(url))
        if not isinstance(entries, list) or not all(isinstance(one, dict) and "path" in one for one in entries):
            raise OneStrideError(f"{url}: expected a list of files, got something else")
        yield from (one for one in entries if one.get("type") == "file")
        following = re.search(r'<([^>]+)>;\s*rel="next"', {k.lower(): v for k, v in headers.items()}.get("link", ""))
        if following is None:
            return
        url = urljoin(str(url), following.group(1))
        if urlsplit(url).netloc != urlsplit(hub).netloc:
            raise OneStrideError(f"expected the next page of {repository} at {hub}, got {url}")


def _hub_file(hub: str, repository: str, revision: str, entry: dict[str, Any], to: str, folder: str) -> Remote:
    path = str(entry["path"])
    large, size = entry.get("lfs"), entry.get("size")
    large = large if isinstance(large, dict) else {}
    return Remote(
        url=f"{hub}/datasets/{repository}/resolve/{revision}/{quote(path)}",
        path=to + path.removeprefix(f"{folder}/" if folder else ""),
        sha256=str(large["oid"]).removeprefix("sha256:") if "oid" in large else None,
        git_blob=str(entry["oid"]) if not large and "oid" in entry else None,
        size=size if isinstance(size, int) else None,
    )
