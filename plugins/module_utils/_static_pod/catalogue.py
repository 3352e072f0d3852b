# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the guide sets on etcd and kube-apiserver, what each version makes of it, and what is never touched.

The target's own binary has the last word on names and types; this table carries what the binary cannot tell:
the guide's values, ranges that are checked only at start, defaults (to say what really changes), and meaning.

Sources: etcd server/embed/config.go and server/etcdmain/config.go at 3.4 to 3.7; kube-apiserver
pkg/controlplane/apiserver/options and staging apiserver pkg/server/options at 1.28 to 1.37.
"""

from __future__ import annotations

from dataclasses import dataclass

from .flags import Flag

ETCD = "etcd"
KUBE_APISERVER = "kube-apiserver"


@dataclass(frozen=True)
class Component:
    """A static pod of the control plane.

    Attributes:
        name: of the pod, its container and its program.
        role: the role that owns it, as reports name it.
        flags: the known tuning flags.
        identity: flags that say who the process is and whom it trusts; merge mode never touches them.
        own_flags: (name, value) that tell this process from another of the same program on the host.
        guide_resources: the guide's requests and limits (G11).
    """

    name: str
    role: str
    flags: tuple[Flag, ...]
    identity: frozenset[str]
    own_flags: tuple[str, ...]
    guide_resources: dict[str, str]

    def flag(self, name: str) -> Flag:
        """The known flag, or one of type string for a name that only the binary can judge: it may be repeatable."""
        for known in self.flags:
            if known.name == name:
                return known
        return Flag(name, "string", repeatable=True)

    @property
    def manifest(self) -> str:
        return f"{self.name}.yaml"


_ETCD_FLAGS = (
    Flag(
        "snapshot-count", "int", "100000", minimum=1, defaults=(((3, 4), "100000"), ((3, 6), "10000")),
        larger_is_on_purpose=True,
    ),
    Flag(
        "heartbeat-interval", "milliseconds", "100", minimum=1, defaults=(((3, 4), "100"),), larger_is_on_purpose=True,
    ),
    Flag(
        "election-timeout", "milliseconds", "1000", minimum=1, maximum=50000, defaults=(((3, 4), "1000"),),
        larger_is_on_purpose=True,
    ),
    Flag(
        "max-snapshots", "int", "5", minimum=0, defaults=(((3, 4), "5"),), larger_is_on_purpose=True,
        note="deprecated since 3.6, gone in 3.8",
    ),
    Flag("max-wals", "int", "5", minimum=0, larger_is_on_purpose=True, defaults=(((3, 4), "5"),)),
    Flag("quota-backend-bytes", "bytes", "8589934592", defaults=(((3, 4), "2147483648"),), larger_is_on_purpose=True),
    Flag("backend-batch-limit", "int", "10000", minimum=0, defaults=(((3, 4), "10000"),)),
    Flag("backend-batch-interval", "duration", "100ms", minimum=0, defaults=(((3, 4), "100ms"),)),
    Flag(
        "auto-compaction-retention",
        "retention",
        "1h",
        minimum=0,
        defaults=(((3, 4), "0"),),
        larger_is_on_purpose=True,
        note="kube-apiserver compacts every --etcd-compaction-interval already; the shorter of the two decides",
    ),
    Flag("auto-compaction-mode", "string", "periodic", choices=("periodic", "revision"), defaults=(((3, 4), "periodic"),)),
    # Not in the guide, but checked: --version takes any number, and zero lets no write through.
    Flag(
        "max-request-bytes", "bytes", minimum=1, defaults=(((3, 4), "1572864"),),
        note="etcd warns above 10 MiB: large requests delay heartbeats",
    ),
    Flag("compaction-batch-limit", "int", minimum=0, defaults=(((3, 6), "1000"),)),
    Flag("watch-progress-notify-interval", "duration", minimum=0, defaults=(((3, 6), "10m"),)),
)

_ETCD_IDENTITY = frozenset(
    """
    name data-dir wal-dir config-file
    listen-client-urls listen-client-http-urls listen-peer-urls listen-metrics-urls advertise-client-urls
    initial-advertise-peer-urls initial-cluster initial-cluster-state initial-cluster-token force-new-cluster
    discovery discovery-endpoints discovery-token discovery-srv discovery-srv-name
    cert-file key-file trusted-ca-file client-cert-auth client-cert-file client-key-file auto-tls
    peer-cert-file peer-key-file peer-trusted-ca-file peer-client-cert-auth peer-client-cert-file peer-client-key-file
    peer-auto-tls unsafe-no-fsync
    """.split()
)

_APISERVER_FLAGS = (
    Flag(
        "max-requests-inflight", "int", "3000", minimum=0, defaults=(((1, 20), "400"),), larger_is_on_purpose=True,
        note="with priority and fairness on, only the sum with --max-mutating-requests-inflight matters: the server's seats",
    ),
    Flag(
        "max-mutating-requests-inflight", "int", "1000", minimum=0, defaults=(((1, 20), "200"),),
        larger_is_on_purpose=True,
    ),
    Flag(
        "request-timeout", "duration", "300s", minimum=1, defaults=(((1, 20), "1m0s"),), larger_is_on_purpose=True,
    ),
    Flag("min-request-timeout", "seconds", "1800", minimum=0, defaults=(((1, 20), "1800"),), larger_is_on_purpose=True),
    Flag("etcd-compaction-interval", "duration", "300s", minimum=0, defaults=(((1, 20), "5m0s"),)),
    Flag("etcd-count-metric-poll-period", "duration", "60s", minimum=0, defaults=(((1, 20), "1m0s"),)),
    Flag(
        "watch-cache-sizes", "cache sizes", "default#1000,pods#5000,nodes#1000", defaults=(((1, 20), ""),), no_effect=True,
        repeatable=True,
        note="watch caches size themselves: only #0 (off) still means something, and 'default' is no resource",
    ),
    Flag(
        "default-watch-cache-size", "int", "1000", minimum=0, defaults=(((1, 20), "100"),), no_effect=True,
        note="deprecated since 1.25 and without effect: watch caches size themselves",
    ),
    Flag("enable-priority-and-fairness", "bool", "true", defaults=(((1, 20), "true"),)),
    Flag(
        "authentication-token-webhook-cache-ttl", "duration", "300s", minimum=0, defaults=(((1, 20), "2m0s"),),
        smaller_is_on_purpose=True,
        note="acts only where a token webhook is configured; a revoked token stays valid this long",
    ),
    Flag(
        "authorization-webhook-cache-authorized-ttl", "duration", "300s", minimum=0, defaults=(((1, 20), "5m0s"),),
        smaller_is_on_purpose=True,
        note="acts only where an authorization webhook is configured",
    ),
    # The collection's own (G31): without it each later change waits 30 s for watches that never end.
    Flag(
        "shutdown-watch-termination-grace-period", "duration", "5s", minimum=0, defaults=(((1, 27), "0s"),),
        larger_is_on_purpose=True,
        note="not in the guide: lets the API server leave within seconds when it is changed",
    ),
    # Not in the guide, but checked: --version takes any number of them, the start does not, or it would do harm.
    Flag("goaway-chance", "number", minimum=0, maximum=0.02, defaults=(((1, 20), "0"),)),
    Flag("shutdown-delay-duration", "duration", minimum=0, defaults=(((1, 20), "0s"),)),
    Flag("delete-collection-workers", "int", minimum=0, defaults=(((1, 20), "1"),)),
)

_APISERVER_IDENTITY = frozenset(
    """
    advertise-address bind-address secure-port etcd-servers etcd-cafile etcd-certfile etcd-keyfile etcd-prefix
    client-ca-file tls-cert-file tls-private-key-file
    service-account-issuer service-account-key-file service-account-signing-key-file service-cluster-ip-range
    requestheader-allowed-names requestheader-client-ca-file requestheader-extra-headers-prefix
    requestheader-group-headers requestheader-username-headers proxy-client-cert-file proxy-client-key-file
    kubelet-client-certificate kubelet-client-key
    """.split()
)

COMPONENTS = {
    ETCD: Component(
        name=ETCD,
        role="etcd_static_pod",
        flags=_ETCD_FLAGS,
        identity=_ETCD_IDENTITY,
        own_flags=("name", "data-dir"),
        guide_resources={
            "requests.cpu": "1000m", "requests.memory": "2Gi", "limits.cpu": "2000m", "limits.memory": "4Gi",
        },
    ),
    KUBE_APISERVER: Component(
        name=KUBE_APISERVER,
        role="kube_apiserver_static_pod",
        flags=_APISERVER_FLAGS,
        identity=_APISERVER_IDENTITY,
        own_flags=("advertise-address", "secure-port"),
        guide_resources={
            "requests.cpu": "2000m", "requests.memory": "4Gi", "limits.cpu": "4000m", "limits.memory": "8Gi",
        },
    ),
}

#: etcd releases that can corrupt data (CHANGELOG 3.5.3: consistent index saved non-atomically).
UNSAFE_ETCD = ((3, 5, 0), (3, 5, 1), (3, 5, 2))
#: The newest patch release of each line when this table was written (2026-08-20).
RECOMMENDED_ETCD = {(3, 5): "3.5.33", (3, 6): "3.6.14", (3, 7): "3.7.1"}
