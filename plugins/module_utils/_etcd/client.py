# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of etcd's JSON gateway (``/v3/...`` on the client URLs), etcd 3.4 to 3.7.

64-bit numbers travel as strings, zero values are left out, bytes are base64: all of that ends here.
The gateway is on by default; ``--enable-grpc-gateway=false`` turns it off (said in the error).
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Iterator, Mapping, Protocol, Sequence
from urllib.parse import urlsplit

from .._errors import KubetuneError

#: gRPC status codes that are told apart (google.golang.org/grpc/codes). Unavailable: a member that has only just started answers
#: for a server that it does not have yet, or it has no leader; another one may be able to.
OUT_OF_RANGE, UNAVAILABLE = 11, 14


class EtcdError(KubetuneError):
    """etcd answered, and said no. ``code`` is the gRPC status code."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class Unreachable(EtcdError):
    """No answer: refused, reset, timed out, a TLS failure, or unavailable. A write may or may not have happened."""


class Sink(Protocol):
    """What takes the bytes of a snapshot: an open file, or something around one."""

    def write(self, data: bytes, /) -> int: ...


@dataclass(frozen=True)
class Tls:
    """Paths of PEM files on this machine: the CA that signed the server, and a client certificate."""

    ca_file: str
    cert_file: str
    key_file: str


@dataclass(frozen=True)
class Member:
    member_id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool


@dataclass(frozen=True)
class Alarm:
    member_id: int
    alarm: str


@dataclass(frozen=True)
class Status:
    """One member's own view (``/v3/maintenance/status``). Sizes in bytes; ``leader_id`` 0 means no leader."""

    member_id: int
    cluster_id: int
    leader_id: int
    version: str
    revision: int
    raft_term: int
    raft_index: int
    raft_applied_index: int
    db_size: int
    db_size_in_use: int
    errors: tuple[str, ...]
    is_learner: bool

    @property
    def is_leader(self) -> bool:
        return self.leader_id == self.member_id


@dataclass(frozen=True)
class KeyValue:
    key: str
    value: str
    create_revision: int
    mod_revision: int
    lease: int


class Client:
    """Calls etcd. Cluster-wide calls try the endpoints in turn; calls about one member take that member's endpoint.

    Args:
        endpoints: client URLs, the preferred one first.
        tls: client certificate and CA; None for plain http.
        timeout: seconds for each call, where a call does not say otherwise.

    A connection per call: nothing to keep alive or to share, and no stale connection after a restart.
    """

    def __init__(self, endpoints: Sequence[str], tls: Tls | None = None, timeout: float = 5.0) -> None:
        if not endpoints:
            raise KubetuneError("no etcd endpoint was given")
        self.endpoints = [endpoint.rstrip("/") for endpoint in endpoints]
        self.timeout = timeout
        self._context = _tls_context(tls) if tls else None

    # --- one member -------------------------------------------------------------------------------------------

    def status(self, endpoint: str | None = None, timeout: float | None = None) -> Status:
        answer = self.call("/v3/maintenance/status", {}, endpoint, timeout)
        header = answer.get("header", {})
        return Status(
            member_id=int(header.get("member_id", 0)),
            cluster_id=int(header.get("cluster_id", 0)),
            leader_id=int(answer.get("leader", 0)),
            version=answer.get("version", ""),
            revision=int(header.get("revision", 0)),
            raft_term=int(answer.get("raftTerm", 0)),
            raft_index=int(answer.get("raftIndex", 0)),
            raft_applied_index=int(answer.get("raftAppliedIndex", 0)),
            db_size=int(answer.get("dbSize", 0)),
            db_size_in_use=int(answer.get("dbSizeInUse", 0)),
            errors=tuple(answer.get("errors", [])),
            is_learner=bool(answer.get("isLearner", False)),
        )

    def defragment(self, endpoint: str, timeout: float) -> None:
        """Blocks the member until it is done; the member serves nothing meanwhile."""
        self.call("/v3/maintenance/defragment", {}, endpoint, timeout)

    def move_leader(self, leader_endpoint: str, target_id: int, timeout: float = 10.0) -> None:
        """Only the leader itself takes this call; the target has to be a voter."""
        self.call("/v3/maintenance/transfer-leadership", {"targetID": str(target_id)}, leader_endpoint, timeout)

    def snapshot(self, endpoint: str, sink: Sink, timeout: float = 60.0) -> int:
        """Write one member's snapshot into ``sink``; return its size in bytes.

        The stream ends with the SHA-256 of all that came before it: it is checked here, so a cut or
        damaged stream raises. ``timeout`` is for each read, not for the whole.
        """
        total = 0
        digest = hashlib.sha256()
        tail = b""
        connection = self._connect(endpoint, timeout)
        try:
            connection.request("POST", "/v3/maintenance/snapshot", "{}", {"Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status != 200:
                raise _refusal(endpoint, "/v3/maintenance/snapshot", response.status, response.read())
            for part in _snapshot_parts(endpoint, response):
                sink.write(part)
                total += len(part)
                data = tail + part
                digest.update(data[:-32])
                tail = data[-32:]
        except (OSError, http.client.HTTPException) as exc:
            raise Unreachable(f"etcd at {endpoint}: the snapshot stream broke after {total} bytes: {exc}") from exc
        finally:
            connection.close()
        if total % 512 != 32 or digest.digest() != tail:
            raise EtcdError(f"etcd at {endpoint}: the snapshot of {total} bytes does not match its own checksum")
        return total

    def metric(self, name: str, endpoint: str) -> float | None:
        """A metric without labels from the member's /metrics; None where this version has none of that name."""
        for line in self._exchange("GET", endpoint, "/metrics", None, self.timeout).decode().splitlines():
            words = line.split()
            if len(words) == 2 and words[0] == name:
                return float(words[1])
        return None

    # --- the cluster ------------------------------------------------------------------------------------------

    def members(self, linearizable: bool = True) -> list[Member]:
        """Voters and learners; without ``linearizable`` from the local, possibly stale, view."""
        answer = self.call("/v3/cluster/member/list", {"linearizable": linearizable})
        return [_member(each) for each in answer.get("members", [])]

    def add_learner(self, peer_urls: Sequence[str]) -> Member:
        """A member that has no vote until it is promoted. It has to be started with ``--initial-cluster-state=existing``."""
        return _member(self.call("/v3/cluster/member/add", {"peerURLs": list(peer_urls), "isLearner": True})["member"])

    def remove_member(self, member_id: int) -> None:
        """etcd refuses it where those that are left and started could not decide (``--strict-reconfig-check``)."""
        self.call("/v3/cluster/member/remove", {"ID": str(member_id)})

    def promote(self, member_id: int) -> None:
        """Give a learner its vote; etcd refuses as long as it has less than nine tenths of the leader's entries."""
        self.call("/v3/cluster/member/promote", {"ID": str(member_id)})

    def alarms(self) -> list[Alarm]:
        """A raft proposal: it needs quorum. `Status.errors` shows the same without one."""
        answer = self.call("/v3/maintenance/alarm", {"action": "GET", "alarm": "NONE"})
        return [Alarm(int(a.get("memberID", 0)), a.get("alarm", "NONE")) for a in answer.get("alarms", [])]

    def disarm(self, alarm: Alarm) -> None:
        self.call(
            "/v3/maintenance/alarm",
            {"action": "DEACTIVATE", "memberID": str(alarm.member_id), "alarm": alarm.alarm},
        )

    def compact(self, revision: int, timeout: float = 60.0) -> bool:
        """Forget history before ``revision``, and wait until it is gone; False when that was done before."""
        try:
            self.call("/v3/kv/compaction", {"revision": str(revision), "physical": True}, None, timeout)
        except EtcdError as exc:
            if exc.code == OUT_OF_RANGE and "compacted" in str(exc):
                return False
            raise
        return True

    # --- keys and leases --------------------------------------------------------------------------------------

    def get(self, key: str, endpoint: str | None = None, serializable: bool = False) -> KeyValue | None:
        found = self.range(key, None, endpoint, serializable)
        return found[0] if found else None

    def range(
        self, key: str, range_end: str | None = None, endpoint: str | None = None, serializable: bool = False
    ) -> list[KeyValue]:
        body: dict[str, Any] = {"key": _b64(key), "serializable": serializable}
        if range_end is not None:
            body["range_end"] = _b64(range_end)
        answer = self.call("/v3/kv/range", body, endpoint)
        return [_key_value(item) for item in answer.get("kvs", [])]

    def keys(self, prefix: str, timeout: float | None = None) -> list[KeyValue]:
        """All keys that begin with the prefix, without their values."""
        body = {"key": _b64(prefix), "range_end": _b64(prefix_end(prefix)), "keys_only": True}
        return [_key_value(item) for item in self.call("/v3/kv/range", body, None, timeout).get("kvs", [])]

    def revision(self, endpoint: str | None = None, timeout: float | None = None) -> int:
        """The cluster's revision by a linearizable read: every write that was acknowledged before is in it."""
        answer = self.call("/v3/kv/range", {"key": _b64("\0"), "count_only": True}, endpoint, timeout)
        return int(answer["header"]["revision"])

    def count(self, endpoint: str | None = None, timeout: float | None = None, revision: int = 0) -> int:
        """How many keys there are, or were at a revision."""
        body = {"key": _b64("\0"), "range_end": _b64("\0"), "count_only": True, "revision": str(revision)}
        return int(self.call("/v3/kv/range", body, endpoint, timeout).get("count", 0))

    def put(self, key: str, value: str, lease: int = 0, endpoint: str | None = None, timeout: float | None = None) -> int:
        """Return the revision of the write."""
        body = {"key": _b64(key), "value": _b64(value), "lease": str(lease)}
        return int(self.call("/v3/kv/put", body, endpoint, timeout)["header"]["revision"])

    def create(self, key: str, value: str, lease: int = 0) -> KeyValue | None:
        """Put only if the key does not exist; return the key that is in the way, or None on success."""
        answer = self.call(
            "/v3/kv/txn",
            {
                "compare": [{"key": _b64(key), "target": "CREATE", "result": "EQUAL", "create_revision": "0"}],
                "success": [{"request_put": {"key": _b64(key), "value": _b64(value), "lease": str(lease)}}],
                "failure": [{"request_range": {"key": _b64(key)}}],
            },
        )
        if answer.get("succeeded"):
            return None
        return _key_value(answer["responses"][0]["response_range"]["kvs"][0])

    def delete(self, key: str, range_end: str | None = None) -> int:
        """Return how many keys were deleted."""
        body = {"key": _b64(key)}
        if range_end is not None:
            body["range_end"] = _b64(range_end)
        return int(self.call("/v3/kv/deleterange", body).get("deleted", 0))

    def grant_lease(self, ttl: int) -> int:
        """``ttl`` in seconds; return the lease's id."""
        return int(self.call("/v3/lease/grant", {"TTL": str(ttl)})["ID"])

    def keep_alive(self, lease: int) -> int:
        """Renew once; return the remaining seconds, 0 when the lease is gone."""
        answer = self.call("/v3/lease/keepalive", {"ID": str(lease)})
        return int(answer.get("result", {}).get("TTL", 0))

    def revoke_lease(self, lease: int) -> None:
        self.call("/v3/lease/revoke", {"ID": str(lease)})

    # --- transport --------------------------------------------------------------------------------------------

    def call(
        self, path: str, body: Mapping[str, Any], endpoint: str | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """POST ``body``; the endpoints in turn while none answers, or ``endpoint`` alone.

        Raises:
            Unreachable: no endpoint answered in time (the last cause is in the message).
            EtcdError: etcd refused.
        """
        failures = []
        for target in [endpoint] if endpoint else self.endpoints:
            try:
                return self._post(target, path, body, timeout or self.timeout)
            except Unreachable as exc:
                failures.append(str(exc))
        raise Unreachable("; ".join(failures))

    def _post(self, endpoint: str, path: str, body: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        data = self._exchange("POST", endpoint, path, json.dumps(body), timeout)
        try:
            return json.loads(data or b"{}")
        except ValueError as exc:
            raise EtcdError(f"etcd at {endpoint} answered {path} with something that is not JSON: {data[:80]!r}") from exc

    def _exchange(self, method: str, endpoint: str, path: str, body: str | None, timeout: float) -> bytes:
        connection = self._connect(endpoint, timeout)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException) as exc:
            raise Unreachable(f"etcd at {endpoint} does not answer {path}: {_why(exc, timeout)}") from exc
        finally:
            connection.close()
        if response.status != 200:
            raise _refusal(endpoint, path, response.status, data)
        return data

    def _connect(self, endpoint: str, timeout: float) -> http.client.HTTPConnection:
        url = urlsplit(endpoint)
        if url.scheme == "https":
            if self._context is None:
                raise KubetuneError(f"etcd at {endpoint} speaks TLS: a CA and a client certificate are needed")
            return http.client.HTTPSConnection(url.hostname or "", url.port or 2379, timeout=timeout, context=self._context)
        if url.scheme == "http":
            return http.client.HTTPConnection(url.hostname or "", url.port or 2379, timeout=timeout)
        raise KubetuneError(f"etcd endpoint {endpoint!r}: a URL such as https://10.0.0.1:2379 is needed")


def _tls_context(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        context.load_cert_chain(tls.cert_file, tls.key_file)
    except (OSError, ssl.SSLError) as exc:
        raise KubetuneError(
            f"cannot use the etcd client certificate {tls.cert_file} with key {tls.key_file} and CA {tls.ca_file}: {exc}"
        ) from exc
    return context


def _snapshot_parts(endpoint: str, lines: Iterator[bytes]) -> Iterator[bytes]:
    for line in lines:
        if not line.strip():
            continue
        try:
            message = json.loads(line)
        except ValueError as exc:
            raise EtcdError(f"etcd at {endpoint}: the snapshot stream ends in the middle of a message") from exc
        if "error" in message:
            raise EtcdError(f"etcd at {endpoint} stopped the snapshot: {message['error'].get('message', message)}")
        yield base64.b64decode(message.get("result", {}).get("blob", ""))


def _refusal(endpoint: str, path: str, status: int, data: bytes) -> EtcdError:
    if status == 404:
        return EtcdError(f"etcd at {endpoint} does not serve {path}: its gRPC gateway is off (--enable-grpc-gateway)")
    try:
        answer = json.loads(data)
    except ValueError:
        return EtcdError(f"etcd at {endpoint} answered {path} with HTTP {status}: {data[:200].decode(errors='replace')}")
    message, code = answer.get("message", answer), answer.get("code")
    if code == UNAVAILABLE:
        return Unreachable(f"etcd at {endpoint} is not available for {path}: {message}", code)
    return EtcdError(f"etcd at {endpoint} refused {path}: {message}", code)


def _why(exc: Exception, timeout: float) -> str:
    if isinstance(exc, socket.timeout):
        return f"no answer within {timeout:g} s"
    return str(exc) or type(exc).__name__


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def prefix_end(prefix: str) -> str:
    """The ``range_end`` of all keys that begin with a prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _member(found: Mapping[str, Any]) -> Member:
    return Member(
        member_id=int(found["ID"]),
        name=found.get("name", ""),
        peer_urls=tuple(found.get("peerURLs", [])),
        client_urls=tuple(found.get("clientURLs", [])),
        is_learner=bool(found.get("isLearner", False)),
    )


def _key_value(item: Mapping[str, Any]) -> KeyValue:
    return KeyValue(
        key=base64.b64decode(item["key"]).decode(errors="replace"),
        value=base64.b64decode(item.get("value", "")).decode(errors="replace"),
        create_revision=int(item.get("create_revision", 0)),
        mod_revision=int(item.get("mod_revision", 0)),
        lease=int(item.get("lease", 0)),
    )
