"""Downloads against a server on this machine: broken off, resumed, wrong, changed meanwhile, absent."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import tyro

from onestride.datasets import download
from onestride.datasets.catalogue import locate
from onestride.datasets.commands_download import Download
from onestride.datasets.download import Remote, fetch
from onestride.hardware.errors import OneStrideError

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """What the server holds, how it misbehaves, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    break_after: list[int] = field(default_factory=list)
    """Bytes after which each of the next answers breaks off."""
    errors: list[int] = field(default_factory=list)
    """Statuses of the next answers."""
    ranges: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server(files={"/x.bin": CONTENT}, headers={"/x.bin": {"ETag": '"one"'}})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _answer(self, state)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{served.server_port}"
    yield state
    served.shutdown()
    served.server_close()


def _answer(handler: BaseHTTPRequestHandler, state: Server) -> None:
    state.asked.append((handler.path, handler.headers.get("Range")))
    if state.errors:
        handler.send_error(state.errors.pop(0))
        return
    if handler.path not in state.files:
        handler.send_error(404)
        return
    content, more = state.files[handler.path], state.headers.get(handler.path, {})
    start = _start(handler, state, more)
    if start and start >= len(content):
        handler.send_response(416)
        handler.send_header("Content-Range", f"bytes */{len(content)}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    handler.send_response(206 if start else 200)
    for name, value in more.items():
        handler.send_header(name, value)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    handler.send_header("Content-Length", str(len(content) - start))
    handler.end_headers()
    stop = start + state.break_after.pop(0) if state.break_after else len(content)
    handler.wfile.write(content[start:stop])
    handler.close_connection = True


def _start(handler: BaseHTTPRequestHandler, state: Server, headers: dict[str, str]) -> int:
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    condition = handler.headers.get("If-Range")
    if not asked or not state.ranges or (condition and condition != headers.get("ETag")):
        return 0
    return int(asked.group(1))


def _remote(server: Server, **fields: Any) -> Remote:
    return Remote(f"{server.url}/x.bin", "set/x.bin", **fields)


def test_a_file_arrives_whole_and_its_checksum_is_compared(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    fetched = fetch(_remote(server, sha256=SHA256), tmp_path, lambda *done: seen.append(done))
    assert fetched is not None
    assert fetched.path.read_bytes() == CONTENT
    assert (fetched.sha256, fetched.verified, fetched.size) == (SHA256, True, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["x.bin"]
    asked = len(server.asked)
    assert fetch(_remote(server, sha256=SHA256), tmp_path) == fetched.__class__(
        fetched.path, SHA256, True, resumed=len(CONTENT), size=len(CONTENT)
    )
    assert len(server.asked) == asked, "what is there is not fetched again"


def test_it_goes_on_where_the_connection_broke_off(server: Server, tmp_path: Path) -> None:
    server.break_after = [100_000, 0, 300_000]
    fetched = fetch(_remote(server, sha256=SHA256), tmp_path, pause=0)
    assert fetched is not None
    assert fetched.path.read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=100000-", "bytes=100000-", "bytes=400000-"]


def test_a_later_command_goes_on_too(server: Server, tmp_path: Path) -> None:
    server.break_after = [50_000, 0, 0, 0, 0]
    with pytest.raises(OneStrideError, match=r"5 times in a row; 50000 bytes are kept in .*x\.bin\.part"):
        fetch(_remote(server), tmp_path, pause=0)
    assert not (tmp_path / "set" / "x.bin").exists()
    fetched = fetch(_remote(server), tmp_path, pause=0)
    assert fetched is not None
    assert (fetched.path.read_bytes(), fetched.resumed, fetched.verified) == (CONTENT, 50_000, False)
    assert server.asked[-1][1] == "bytes=50000-"
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["x.bin"]


def test_a_file_that_changed_meanwhile_starts_anew(server: Server, tmp_path: Path) -> None:
    server.break_after = [50_000] + [0] * 4
    with pytest.raises(OneStrideError):
        fetch(_remote(server), tmp_path, pause=0)
    server.files["/x.bin"], server.headers["/x.bin"] = CONTENT[::-1], {"ETag": '"two"'}
    fetched = fetch(_remote(server), tmp_path, pause=0)
    assert fetched is not None
    assert fetched.path.read_bytes() == CONTENT[::-1]


def test_a_kill_before_the_first_new_byte_glues_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file changed, the server's new word is noted, and then the power goes."""
    server.break_after = [50_000] + [0] * 4
    with pytest.raises(OneStrideError):
        fetch(_remote(server), tmp_path, pause=0)
    server.files["/x.bin"], server.headers["/x.bin"] = CONTENT[::-1], {"ETag": '"two"'}

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(download, "_receive", killed)
        fetch(_remote(server), tmp_path, pause=0)
    fetched = fetch(_remote(server), tmp_path, pause=0)
    assert fetched is not None
    assert fetched.path.read_bytes() == CONTENT[::-1]


def test_nothing_is_glued_together_on_no_ones_word(server: Server, tmp_path: Path) -> None:
    """No ETag, no date, no checksum: the bytes that are there may be of another file."""
    server.headers = {}
    server.break_after = [50_000]
    fetched = fetch(_remote(server), tmp_path, pause=0)
    assert fetched is not None
    assert fetched.path.read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, None]


def test_a_server_without_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.ranges, server.break_after = False, [50_000]
    fetched = fetch(_remote(server, sha256=SHA256), tmp_path, pause=0)
    assert fetched is not None
    assert fetched.path.read_bytes() == CONTENT


def test_a_part_that_is_already_whole_is_only_compared(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "x.bin.part").write_bytes(CONTENT)
    fetched = fetch(_remote(server, sha256=SHA256), tmp_path, pause=0)
    assert fetched is not None
    assert fetched.path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("known", "headers"),
    [
        ({"sha256": "0" * 64}, {}),
        ({"git_blob": "0" * 40}, {}),
        ({"size": 5}, {}),
        ({}, {"X-Linked-Etag": f'"{"0" * 64}"'}),
        ({}, {"ETag": f'"sha256:{"0" * 64}"'}),
        ({}, {"Repr-Digest": f"sha-256=:{base64.b64encode(bytes(32)).decode()}:"}),
    ],
)
def test_a_wrong_checksum_is_one_error_and_no_file(
    server: Server, tmp_path: Path, known: dict[str, Any], headers: dict[str, str]
) -> None:
    server.headers["/x.bin"].update(headers)
    with pytest.raises(OneStrideError, match=r"expected .*, got .*; what arrived was removed"):
        fetch(_remote(server, **known), tmp_path, pause=0)
    assert list((tmp_path / "set").iterdir()) == []


def test_right_checksums_of_every_kind(server: Server, tmp_path: Path) -> None:
    blob = hashlib.sha1(f"blob {len(CONTENT)}\0".encode() + CONTENT).hexdigest()
    digest = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
    for number, (known, headers) in enumerate(
        [({"git_blob": blob}, {}), ({}, {"Repr-Digest": f"sha-256=:{digest}:"}), ({}, {"X-Linked-Etag": f'"{SHA256}"'})]
    ):
        server.headers["/x.bin"] = {"ETag": f'"{"f" * 64}"', **headers}
        fetched = fetch(_remote(server, **known), tmp_path / str(number))
        assert fetched is not None
        assert fetched.verified
        again = fetch(_remote(server, **known), tmp_path / str(number))
        assert again is not None
        assert again.verified is bool(known)


@pytest.mark.parametrize("known", [{"sha256": SHA256}, {"git_blob": "0" * 40, "size": 4}, {"size": 5}])
def test_another_file_under_that_name_is_left_alone(server: Server, tmp_path: Path, known: dict[str, Any]) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "x.bin").write_text("mine")
    with pytest.raises(OneStrideError, match="move it away to fetch it anew"):
        fetch(_remote(server, **known), tmp_path)
    assert (tmp_path / "set" / "x.bin").read_text() == "mine"


def test_refusals(server: Server, tmp_path: Path) -> None:
    with pytest.raises(OneStrideError, match="expected the file, got HTTP 404"):
        fetch(Remote(f"{server.url}/none", "none"), tmp_path)
    assert fetch(Remote(f"{server.url}/none", "none", optional=True), tmp_path) is None
    server.errors = [403]
    with pytest.raises(OneStrideError, match="HTTP 403"):
        fetch(_remote(server), tmp_path)
    server.errors = [503, 429]
    assert fetch(_remote(server), tmp_path, pause=0) is not None
    with pytest.raises(OneStrideError, match="5 times in a row"):
        fetch(Remote("http://127.0.0.1:9/x", "x"), tmp_path, pause=0)
    with pytest.raises(OneStrideError, match="expected an address of http or https"):
        fetch(Remote("file:///etc/hostname", "x"), tmp_path)
    for name in ("../x", "/x", "a/../../x", ""):
        with pytest.raises(OneStrideError, match="expected the name of a file inside"):
            fetch(Remote(f"{server.url}/x.bin", name), tmp_path)


def _hub(server: Server) -> None:
    """A Hub with one robomimic folder and one LeRobot dataset whose list has two pages."""
    sha = "c" * 40
    tree = "/api/datasets/robomimic/robomimic_datasets/tree/main/v1.5/lift/ph?recursive=true"
    folder = "v1.5/lift/ph"
    entries = [
        {"type": "file", "path": f"{folder}/{name}_v15.hdf5", "oid": "1", "size": len(CONTENT), "lfs": {"oid": SHA256}}
        for name in ("demo", "low_dim")
    ]
    server.files[tree] = json.dumps(entries).encode()
    server.files[f"/datasets/robomimic/robomimic_datasets/resolve/main/{folder}/low_dim_v15.hdf5"] = CONTENT
    server.files["/api/datasets/lerobot/toy"] = json.dumps({"sha": sha}).encode()
    info = b"{}"
    blob = hashlib.sha1(b"blob 2\0" + info).hexdigest()
    first = f"/api/datasets/lerobot/toy/tree/{sha}?recursive=true"
    pages = [
        [{"type": "directory", "path": "meta"}, {"type": "file", "path": "meta/info.json", "oid": blob, "size": 2}],
        [
            {"type": "file", "path": "data/a b.parquet", "oid": "1", "size": len(CONTENT), "lfs": {"oid": SHA256}},
            {"type": "file", "path": ".gitattributes", "oid": "1", "size": 1},
        ],
    ]
    server.files[first], server.files[f"{first}&cursor=2"] = (json.dumps(page).encode() for page in pages)
    server.headers[first] = {"Link": f'<{server.url}{first}&cursor=2>; rel="next"'}
    server.files[f"/datasets/lerobot/toy/resolve/{sha}/meta/info.json"] = info
    server.files[f"/datasets/lerobot/toy/resolve/{sha}/data/a%20b.parquet"] = CONTENT


def test_robomimic_by_name(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _hub(server)
    assert Download("robomimic/lift/ph", folder=tmp_path, mirror=server.url, json=True)() == 0
    told = json.loads(capsys.readouterr().out)
    path = tmp_path / "robomimic" / "lift" / "ph" / "low_dim_v15.hdf5"
    assert told["convert"] == str(path)
    assert told["files"] == [
        {"path": str(path), "bytes": len(CONTENT), "sha256": SHA256, "verified": True, "resumed": 0}
    ]
    with pytest.raises(OneStrideError, match="kind of robomimic/lift/ph: got 'image', available: demo, low_dim"):
        locate("robomimic/lift/ph/image", server.url)


def test_lerobot_by_name(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _hub(server)
    assert Download("lerobot/toy", folder=tmp_path, mirror=server.url)() == 0
    root = tmp_path / "lerobot" / "lerobot" / "toy"
    assert (root / "meta" / "info.json").read_bytes() == b"{}"
    assert (root / "data" / "a b.parquet").read_bytes() == CONTENT
    assert f"onestride convert {root}" in capsys.readouterr().out.replace("\n", "")
    server.files["/datasets/lerobot/toy/resolve/" + "c" * 40 + "/meta/info.json"] = b"[]"
    with pytest.raises(OneStrideError, match="expected git blob"):
        Download("lerobot/lerobot/toy", folder=tmp_path / "again", mirror=server.url)()


def test_ogbench_by_name(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("", "-val"):
        server.files[f"/cube-double-play-v0{part}.npz"] = CONTENT
    server.files["/cube-double-play-v0.npz.sha256"] = f"{SHA256}  cube-double-play-v0.npz\n".encode()
    name = "ogbench/cube-double-play-singletask-task2-v0"
    assert Download(name, folder=tmp_path, mirror=server.url, json=True)() == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert [(Path(one["path"]).name, one["verified"]) for one in files] == [
        ("cube-double-play-v0.npz", True),
        ("cube-double-play-v0-val.npz", False),
    ]
    with pytest.raises(OneStrideError, match="expected 2 checksums, one for each file, got 1"):
        Download(name, folder=tmp_path, sha256=(SHA256,), mirror=server.url)()
    with pytest.raises(OneStrideError, match="expected a SHA-256 of 64"):
        Download(name, folder=tmp_path, sha256=(SHA256, "abc"), mirror=server.url)()
    with pytest.raises(OneStrideError, match=r"x-val\.npz|expected SHA-256"):
        Download(name, folder=tmp_path, sha256=(SHA256, "0" * 64), mirror=server.url)()


@pytest.mark.parametrize("name", ["", "x", "rlds/bridge", "robomimic", "robomimic/fly/ph", "robomimic/lift/zz"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(OneStrideError, match=r"unknown dataset: got .*, available: "):
        locate(name, "http://127.0.0.1:9")


def test_the_official_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onestride.datasets.catalogue.read_sidecar", lambda _url: None)
    assert [one.url for one in locate("ogbench/cube-double-play-v0")] == [
        "https://rail.eecs.berkeley.edu/datasets/ogbench/cube-double-play-v0.npz",
        "https://rail.eecs.berkeley.edu/datasets/ogbench/cube-double-play-v0-val.npz",
    ]
    ogbench = pytest.importorskip("ogbench.utils", reason="needs the extra `sim`")
    assert locate("ogbench/x-v0")[0].url == f"{ogbench.DATASET_URL}/x-v0.npz"


def test_the_command_line_takes_it_as_written() -> None:
    command = tyro.cli(Download, args=["ogbench/x-v0", "--folder", "d", "--sha256", "a", "b"])
    assert command == Download("ogbench/x-v0", folder=Path("d"), sha256=("a", "b"))
