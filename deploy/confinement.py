"""Keep simulated runs to themselves: this machine only, a domain of their own, a namespace of their own.

Two demos side by side, or a demo beside a real robot, must never hear each other. Three fences, each enough by
itself against honest neighbours: DDS discovers through the loopback interface only, every session locks a domain
id that no other session has, and every topic lives in a random namespace.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from onestride.hardware.errors import OneStrideError

#: Domain ids whose ports stay below those that Linux hands out to anyone (7400 + 250 * id < 32768).
DOMAINS = range(1, 101)

#: The DDS implementation of simulated runs.
TRANSPORT = "rmw_fastrtps_cpp"

#: How it finds neighbours there. A profile that the user has is set aside, for it may reach beyond this machine.
PROFILE = Path(__file__).resolve().with_name("discovery.xml")

#: The same for a process that does without shared memory.
DATAGRAMS = PROFILE.with_name("datagrams.xml")


def unique_namespace() -> str:
    """A topic namespace that no other session has, such as `/onestride_1f2e3d4c`."""
    return f"/onestride_{secrets.token_hex(4)}"


def simulated_environment(domain: int) -> dict[str, str]:
    """The environment variables that confine a ROS 2 process to this machine and to a domain.

    Args:
        domain: DDS domain id, see `claim_domain`.
    """
    variables = {
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_STATIC_PEERS": "",
        "RMW_IMPLEMENTATION": TRANSPORT,
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(PROFILE),
        "FASTDDS_DEFAULT_PROFILES_FILE": str(PROFILE),
    }
    if os.environ.get("ROS_DISTRO") == "humble":  # it does not know the discovery range, Jazzy warns of this one
        variables["ROS_LOCALHOST_ONLY"] = "1"
    return variables


def without_shared_memory(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that keep a ROS 2 process off Fast DDS's shared memory, whose locks a stopped neighbour may hold.

    Whoever writes to such a neighbour waits as long as it stands still. On this machine alone rmw_fastrtps adds shared
    memory whatever Fast DDS is told; there a profile keeps the process on the loopback in place of the range.

    Args:
        environment: the process's own.
    """
    if environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE") != "LOCALHOST":
        return {"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}
    profiles = {name: str(DATAGRAMS) for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")}
    return {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT", **profiles}


@contextlib.contextmanager
def environment_applied(variables: dict[str, str]) -> Iterator[None]:
    """This process's environment with `variables` set, and as it was afterwards."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def claim_domain(folder: Path | None = None, wanted: int | None = None) -> Iterator[int]:
    """A domain id that no other session on this machine holds, for as long as the context lasts.

    The claim is a lock on a file, so the system frees it even when the process is killed.

    Args:
        folder: where the lock files are; default the system's temporary folder.
        wanted: take this one or none.

    Raises:
        OneStrideError: every domain is taken, or the one that is wanted.
    """
    folder = Path(tempfile.gettempdir()) if folder is None else folder
    if wanted is not None and wanted not in DOMAINS:
        raise OneStrideError(f"expected a DDS domain from {DOMAINS[0]} to {DOMAINS[-1]}, got {wanted}")
    first = secrets.randbelow(len(DOMAINS))
    shuffled = [DOMAINS[(first + offset) % len(DOMAINS)] for offset in range(len(DOMAINS))]
    for domain in shuffled if wanted is None else [wanted]:
        lock = _lock(folder / f"onestride-domain-{domain}.lock")
        if lock is not None:
            try:
                yield domain
            finally:
                os.close(lock)
            return
    taken = f"ids {DOMAINS[0]} to {DOMAINS[-1]} are" if wanted is None else f"id {wanted} is"
    raise OneStrideError(f"no free DDS domain: {taken} locked in {folder}")


def _lock(path: Path) -> int | None:
    """A locked file descriptor; None where another session holds the file or another user owns it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
