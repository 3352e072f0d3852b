# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is a file a whole, undamaged snapshot of this cluster, of a version that our tools read? Otherwise the reason.

Three witnesses, none of which sees what the others see: the SHA-256 at the file's end (etcd's own), the sidecar (what was
written, of which cluster), and ``etcdutl snapshot status``, which walks every page and every key but looks at no checksum.
"""

from __future__ import annotations

import hashlib
import json
import struct
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Iterator

from .._commands import ENVIRONMENT, background
from .._errors import KubetuneError
from .._etcd.client import EtcdError
from . import encryption, tools
from .config import Config
from .context import Context
from .retention import Snapshot

SCHEMA = 1

_CHUNK = 1 << 20
#: Bytes of the checksum behind the database.
_TRAILER = hashlib.sha256().digest_size
#: Version of bbolt's file format.
_LAYOUT = 2
#: Seconds for etcdutl to walk the whole file: at 100 MB/s some 180 GB.
_CHECK_TIMEOUT = 1800


@dataclass(frozen=True)
class Content:
    """
    Attributes:
        bytes: length. sha256: hexadecimal.
    """

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Sidecar:
    """What a backup is, as it was seen when it was taken.

    Attributes:
        taken_at: ISO 8601. member_id, cluster_id: hexadecimal, as etcdctl prints them.
        etcd: version of the member. storage_version: of its database, empty before etcd 3.6.
        revision: the newest in the snapshot. keys: as etcdutl counts them. hash: etcdutl's CRC-32 over all keys.
        snapshot: of the plain file, before it was encrypted. files: name -> what is in the directory.
    """

    taken_at: str
    host: str
    member: str
    member_id: str
    cluster_id: str
    etcd: str
    storage_version: str
    revision: int
    keys: int
    hash: int
    verified_by: str
    encryption: str
    snapshot: Content
    files: dict[str, Content] = field(default_factory=dict)

    def text(self) -> str:
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2) + "\n"


def read_sidecar(path: Path) -> Sidecar:
    """
    Raises:
        KubetuneError: it is missing, damaged, or of another release.
    """
    try:
        data = json.loads(path.read_text())
        schema = data.pop("schema")
        if schema != SCHEMA:
            raise KubetuneError(f"{path} has schema {schema!r}, and this release reads {SCHEMA}: use the release that wrote it")
        data["snapshot"] = Content(**data["snapshot"])
        data["files"] = {name: Content(**each) for name, each in data["files"].items()}
        return Sidecar(**data)
    except FileNotFoundError as exc:
        raise KubetuneError(f"its sidecar {path.name} is missing: which cluster it is of, and what was written, is not known") from exc
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise KubetuneError(f"its sidecar {path.name} is damaged: {exc}") from exc


class Hash:
    """SHA-256 of a snapshot as it comes in, and whether the checksum at its end is that of what stands before it."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._tail = b""
        self.size = 0

    def update(self, data: bytes) -> None:
        joined = self._tail + data
        self._digest.update(joined[:-_TRAILER])
        self._tail = joined[-_TRAILER:]
        self.size += len(data)

    @property
    def content(self) -> Content:
        whole = self._digest.copy()
        whole.update(self._tail)
        return Content(self.size, whole.hexdigest())

    @property
    def matches(self) -> bool:
        return self._digest.digest() == self._tail


def hash_file(path: Path) -> Hash:
    found = Hash()
    with open(path, "rb") as stream:
        while data := stream.read(_CHUNK):
            found.update(data)
    return found


def recorded(snapshot: Snapshot) -> Sidecar | None:
    """Its sidecar, where the file has the length that is recorded in it; None otherwise. It costs nothing."""
    try:
        sidecar = read_sidecar(snapshot.sidecar)
        expected = sidecar.files.get(snapshot.path.name)
        return sidecar if expected is not None and snapshot.path.stat().st_size == expected.bytes else None
    except (KubetuneError, OSError):
        return None


def is_whole(snapshot: Snapshot) -> bool:
    """By its sidecar's word only: what is there has the length and the hash of what was written."""
    sidecar = recorded(snapshot)
    try:
        return sidecar is not None and hash_file(snapshot.path).content == sidecar.files[snapshot.path.name]
    except OSError:
        return False


def this_cluster(ctx: Context) -> str | None:
    """Id of the cluster of this host's member; None where it does not answer, as on the day of a restore."""
    try:
        return f"{ctx.client.status(ctx.config.endpoint).cluster_id:x}"
    except EtcdError:
        return None


def verify(ctx: Context, snapshot: Snapshot, cluster_id: str | None) -> tuple[Sidecar, str]:
    """(its sidecar, by what it was verified); of one that is encrypted for others only what can be said of the encrypted file.

    Args:
        cluster_id: which it has to be of; None where that is not known.

    Raises:
        KubetuneError: with the reason why it is refused.
    """
    if snapshot.encryption != "none" and not ctx.config.backup.identity_file:
        return _described(snapshot, cluster_id), "checksum"  # what is in it was verified before it was encrypted
    with opened(snapshot, cluster_id, tools.tool(ctx, "etcdutl"), ctx.config) as (sidecar, _plain, verified_by):
        return sidecar, verified_by


@contextmanager
def opened(snapshot: Snapshot, cluster_id: str | None, etcdutl: str | None, config: Config | None) -> Iterator[tuple[Sidecar, Path, str]]:
    """A backup that holds: its sidecar, what is in it as a plain file for the time of the block, and by what it was verified.

    Args:
        cluster_id: which it has to be of; None where that does not matter.
        etcdutl: path of the program; None where there is none.
        config: for one that is encrypted, with its private key.

    Raises:
        KubetuneError: with the reason why it is refused.
    """
    sidecar = _described(snapshot, cluster_id)
    with encryption.plain(config, snapshot.path, snapshot.encryption, sidecar.snapshot.bytes) as path:
        facts, _content = check_plain(etcdutl, path)
        for name, recorded in (("revision", sidecar.revision), ("totalKey", sidecar.keys), ("hash", sidecar.hash)):
            if name in facts and facts["verified_by"] == sidecar.verified_by and facts[name] != recorded:
                raise KubetuneError(f"etcdutl finds {name} {facts[name]}, and {recorded} was recorded when it was taken")
        yield sidecar, path, facts["verified_by"]


def _described(snapshot: Snapshot, cluster_id: str | None) -> Sidecar:
    """The sidecar of files that are what was written, and of this cluster; KubetuneError otherwise."""
    # What can be said without a sidecar comes first: it is what somebody wants to know who has only the file.
    if snapshot.path.stat().st_size == 0:
        raise KubetuneError("it is empty")
    if snapshot.encryption == "none":
        check_file(snapshot.path)
    sidecar = read_sidecar(snapshot.sidecar)
    if snapshot.path.name in sidecar.files:
        for name, expected in sidecar.files.items():
            _compare(snapshot.path.with_name(name), expected)
    elif f"{snapshot.path.name}.{sidecar.encryption}" in sidecar.files:
        _compare(snapshot.path, sidecar.snapshot)  # decrypted where the private key is
    else:
        raise KubetuneError(f"its sidecar {snapshot.sidecar.name} is that of another file ({', '.join(sidecar.files)})")
    if cluster_id is not None and sidecar.cluster_id != cluster_id:
        raise KubetuneError(f"it is of another cluster: of {sidecar.cluster_id} ({sidecar.member}), and this one is {cluster_id}")
    return sidecar


def check_plain(program: str | None, path: Path) -> tuple[dict[str, Any], Content]:
    """What etcdutl says of a snapshot, beside ``verified_by``; nothing more where there is no etcdutl. And what is in the file.

    Args:
        program: path of etcdutl, which walks the file while it is hashed here.

    Raises:
        KubetuneError: with the reason why it is none.
    """
    check_file(path)
    if program is None:
        return {"verified_by": "checksum"}, _sound(path)
    version = tools.version(program)
    with background([program, "snapshot", "status", str(path), "--write-out=json"], ENVIRONMENT, read=True) as walk:
        content = _sound(path)
        try:
            walk.finish(_CHECK_TIMEOUT)
            assert walk.process.stdout
            facts = json.loads(walk.process.stdout.read())
        except (KubetuneError, ValueError) as exc:
            raise KubetuneError(f"etcdutl {version} does not accept it: {str(exc)[-300:]}") from exc
    if not tools.reads(version, facts.get("version", "")):
        raise KubetuneError(
            f"it has storage version {facts['version']}, and etcdutl here is {version}: it takes etcd {facts['version'].rpartition('.')[0]} "
            "or newer to restore it"
        )
    return {**facts, "verified_by": f"etcdutl {version}"}, content


def _sound(path: Path) -> Content:
    """What is in a snapshot; KubetuneError where the checksum at its end is not of what stands before it."""
    hashed = hash_file(path)
    if not hashed.matches:
        raise KubetuneError("its content is not what etcd's checksum at its end was made of: it is damaged")
    return hashed.content


def _compare(path: Path, expected: Content) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise KubetuneError(f"{path.name} is missing") from None
    if size != expected.bytes:
        raise KubetuneError(f"{path.name} has {size} bytes, and {expected.bytes} were written: it was cut or changed")
    if hash_file(path).content.sha256 != expected.sha256:
        raise KubetuneError(f"{path.name} is damaged: its SHA-256 is not the one that was recorded when it was written")


def check_file(path: Path) -> None:
    """Look at the frame of a snapshot: whole pages, a valid meta page, the trailer (bbolt's page.go and db.go).

    Raises:
        KubetuneError: it is no complete bbolt database with a checksum behind it.
    """
    size = path.stat().st_size - hashlib.sha256().digest_size
    with open(path, "rb") as stream:
        # Two meta pages stand at the front; the page size is in them, so the second is looked for at each usual size.
        front = stream.read(2 * 65536 + 80)
    metas = [meta for meta in (_meta(front, offset) for offset in (0, 4096, 8192, 16384, 32768, 65536)) if meta]
    if not metas:
        raise KubetuneError(f"{path.name} has no valid meta page: it is not a bbolt database")
    page_size, high_water, _transaction, layout = max(metas, key=lambda meta: meta[2])
    if layout != _LAYOUT:
        raise KubetuneError(f"{path.name} has bbolt's layout {layout}, and etcd's is {_LAYOUT}: another program wrote it, or another age")
    if not page_size or size <= 0 or size % page_size or size < high_water * page_size:
        raise KubetuneError(f"{path.name} has {size} bytes, and {high_water} pages of {page_size} are needed: it was cut")


def _meta(data: bytes, offset: int) -> tuple[int, int, int, int] | None:
    """(page size, number of pages, transaction, layout) of the meta page at an offset; None when there is none or it is torn."""
    if len(data) < offset + 80 or struct.unpack_from("<H", data, offset + 8)[0] != 0x04:
        return None
    body = data[offset + 16 : offset + 72]
    magic, version, page_size, _flags, _root, _sequence, _freelist, high_water, transaction = struct.unpack(
        "<IIIIQQQQQ", body
    )
    (checksum,) = struct.unpack_from("<Q", data, offset + 72)
    if magic != 0xED0CDAED or _fnv1a(body) != checksum:
        return None
    return page_size, high_water, transaction, version


def _fnv1a(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value
