# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the guide sets on etcd and kube-apiserver, what each version makes of it, and what is never touched.

The target's own binary has the last word on names and types; this table carries what the binary cannot tell:
the guide's values, ranges that are checked only at start, defaults (to say what really changes), and meaning.

Sources: etcd server/embed/config.go and server/etcdmain/config.go at 3.4 to 3.7; kube-apiserver
pkg/controlplane/apiserver/options and staging apiserver pkg/server/options at 1.28 to 1.37.
tests/unit/module_utils/test_catalogue.py holds names, versions, types and defaults against what the binaries themselves say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping

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
        versions: the first and the last minor version that the collection is made for.
        gates_gone: feature gate -> the first version that refuses to start with it, whatever its value.
    """

    name: str
    role: str
    flags: tuple[Flag, ...]
    identity: frozenset[str]
    own_flags: tuple[str, ...]
    guide_resources: dict[str, str]
    versions: tuple[tuple[int, int], tuple[int, int]]
    gates_gone: Mapping[str, tuple[int, ...]]

    def flag(self, name: str) -> Flag:
        """The known flag of a present or former name, or one of type string that only the binary can judge: it may be repeatable."""
        for known in self.flags:
            if name in known.lives:
                return known
        return Flag(name, "string", repeatable=True)

    @property
    def manifest(self) -> str:
        return f"{self.name}.yaml"



def _renamed(name: str, kind: str, default: str, **others: Any) -> Flag:
    """etcd 3.6 took "experimental-" off these names, keeps the old ones, and does not start with both; 3.7 has only the new ones."""
    return Flag(
        name, kind, defaults=(((3, 4), default),), since=(3, 6), formerly=f"experimental-{name}", formerly_removed=(3, 7), **others,
    )


def _became_gate(name: str, gate: str, default: str) -> Flag:
    """etcd 3.6 made a feature gate of it, keeps the flag, and does not start with both; 3.7 has only the gate."""
    return Flag(
        f"experimental-{name}", "bool", defaults=(((3, 4), default),), removed=(3, 7), gate=gate, gate_since=(3, 6),
        instead=f"give the feature gate {gate} instead",
    )


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
        note="deprecated since 3.6, gone in 3.8", removed=(3, 8), instead="nothing takes its place",
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
    _renamed("compaction-batch-limit", "int", "1000", minimum=0),
    _renamed("watch-progress-notify-interval", "duration", "10m", minimum=0),
    # Known for their names only.
    _renamed("compaction-sleep-interval", "duration", "10ms"),
    _renamed("compact-hash-check-time", "duration", "1m", minimum=0.001),
    _renamed("corrupt-check-time", "duration", "0s"),
    _renamed("warning-apply-duration", "duration", "100ms"),
    _renamed("warning-unary-request-duration", "duration", "300ms", formerly_since=(3, 6)),
    _renamed("bootstrap-defrag-threshold-megabytes", "int", "0", minimum=0),
    _renamed("memory-mlock", "bool", "false"),
    _renamed("snapshot-catchup-entries", "int", "5000", minimum=0),
    _renamed("downgrade-check-time", "duration", "5s"),
    _renamed("peer-skip-client-san-verification", "bool", "false"),
    _renamed("enable-distributed-tracing", "bool", "false"),
    _renamed("distributed-tracing-address", "string", "localhost:4317"),
    _renamed("distributed-tracing-service-name", "string", "etcd"),
    _renamed("distributed-tracing-instance-id", "string", ""),
    _renamed("distributed-tracing-sampling-rate", "int", "0"),
    Flag("feature-gates", "gates", defaults=(((3, 6), ""),), since=(3, 6), repeatable=True),
    _became_gate("initial-corrupt-check", "InitialCorruptCheck", "false"),
    _became_gate("compact-hash-check-enabled", "CompactHashCheck", "false"),
    _became_gate("stop-grpc-service-on-defrag", "StopGRPCServiceOnDefrag", "false"),
    _became_gate("txn-mode-write-with-shared-buffer", "TxnModeWriteWithSharedBuffer", "true"),
    _became_gate("enable-lease-checkpoint", "LeaseCheckpoint", "false"),
    _became_gate("enable-lease-checkpoint-persist", "LeaseCheckpointPersist", "false"),
    Flag("enable-v2", "bool", removed=(3, 6), instead="no version since has the v2 API"),
    Flag("experimental-enable-v2v3", "string", removed=(3, 6), instead="no version since has the v2 API"),
    *(
        Flag(name, "string", removed=(3, 6), instead="the v2 proxy is gone: etcd grpc-proxy is the one for v3")
        for name in (
            "proxy", "proxy-failure-wait", "proxy-refresh-interval", "proxy-dial-timeout", "proxy-write-timeout", "proxy-read-timeout",
        )
    ),
    Flag("discovery", "string", removed=(3, 7), instead="--discovery-endpoints and --discovery-token are its successors"),
    Flag("discovery-proxy", "string", removed=(3, 7)),
    Flag("v2-deprecation", "string", removed=(3, 8), instead="nothing takes its place"),
)

_ETCD_IDENTITY = frozenset(
    """
    name data-dir wal-dir config-file
    listen-client-urls listen-client-http-urls listen-peer-urls listen-metrics-urls advertise-client-urls
    initial-advertise-peer-urls initial-cluster initial-cluster-state initial-cluster-token force-new-cluster
    discovery discovery-proxy discovery-endpoints discovery-token discovery-srv discovery-srv-name
    cert-file key-file trusted-ca-file client-cert-auth client-cert-file client-key-file auto-tls
    peer-cert-file peer-key-file peer-trusted-ca-file peer-client-cert-auth peer-client-cert-file peer-client-key-file
    peer-auto-tls peer-skip-client-san-verification experimental-peer-skip-client-san-verification unsafe-no-fsync
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
    Flag(
        "enable-priority-and-fairness", "bool", "true", defaults=(((1, 20), "true"),),
        note="without it, --max-requests-inflight and --max-mutating-requests-inflight are two plain limits",
    ),
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
        "shutdown-watch-termination-grace-period", "duration", "5s", minimum=0, defaults=(((1, 27), "0s"),), since=(1, 27),
        larger_is_on_purpose=True,
        note="not in the guide: lets the API server leave within seconds when it is changed",
    ),
    # The collection's own, too: watches are drained, other streams (logs -f, exec) hold the server for --request-timeout. Measured: 31 s
    # and killed without it, 3 s with it.
    Flag(
        "shutdown-send-retry-after", "bool", "true", defaults=(((1, 23), "false"),),
        note="not in the guide: closes streams such as kubectl logs -f within 2 s when the API server is changed",
    ),
    # Not in the guide, but checked: --version takes any number of them, the start does not, or it would do harm.
    Flag("goaway-chance", "number", minimum=0, maximum=0.02, defaults=(((1, 20), "0"),)),
    Flag("shutdown-delay-duration", "duration", minimum=0, defaults=(((1, 20), "0s"),), larger_is_on_purpose=True),
    Flag("delete-collection-workers", "int", minimum=0, defaults=(((1, 20), "1"),)),
    # Known for their versions only.
    Flag("feature-gates", "gates", defaults=(((1, 20), ""),), repeatable=True),
    Flag("storage-initialization-timeout", "duration", defaults=(((1, 31), "1m0s"),), since=(1, 31)),
    Flag("audit-log-maxage", "int", minimum=0, defaults=(((1, 20), "0"), ((1, 36), "366"))),
    Flag("audit-log-maxbackup", "int", minimum=0, defaults=(((1, 20), "0"), ((1, 36), "100"))),
    Flag("azure-container-registry-config", "string", removed=(1, 30), instead="the kubelet's credential provider plugins take its place"),
    Flag("cloud-provider-gce-l7lb-src-cidrs", "string", removed=(1, 31), instead="the cloud controller manager has it"),
    Flag("cloud-provider", "string", removed=(1, 33), instead="the cloud controller manager and the kubelet have it"),
    Flag("cloud-config", "string", removed=(1, 33), instead="the cloud controller manager has it"),
)

#: kube-apiserver's pkg/features and staging apiserver pkg/features at 1.28 to 1.37: gates of this guide's matters which were
#: taken out. Until then they could be set to their one value; after that they are unknown, and the server does not start.
_APISERVER_GATES_GONE = {
    "APIPriorityAndFairness": (1, 31),
    "CustomResourceValidationExpressions": (1, 31),
    "ZeroLimitedNominalConcurrencyShares": (1, 32),
    "APIListChunking": (1, 33),
    "WatchBookmark": (1, 33),
    "EfficientWatchResumption": (1, 33),
    "RemainingItemCount": (1, 33),
    "StructuredAuthorizationConfiguration": (1, 36),
    "WatchFromStorageWithoutResourceVersion": (1, 36),
    "RetryGenerateName": (1, 37),
    "BtreeWatchCache": (1, 37),
    "OrderedNamespaceDeletion": (1, 37),
    "StreamingCollectionEncodingToJSON": (1, 37),
    "StreamingCollectionEncodingToProtobuf": (1, 37),
    "APIServerTracing": (1, 37),
    "ResilientWatchCacheInitialization": (1, 37),
    "ConsistentListFromCache": (1, 37),
    "AnonymousAuthConfigurableEndpoints": (1, 37),
    "AuthorizeWithSelectors": (1, 37),
    "StructuredAuthenticationConfiguration": (1, 37),
}

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
        versions=((3, 5), (3, 7)),
        gates_gone={},
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
        versions=((1, 29), (1, 37)),
        gates_gone=_APISERVER_GATES_GONE,
    ),
}

#: etcd releases that can corrupt data (CHANGELOG 3.5.3: consistent index saved non-atomically).
UNSAFE_ETCD = ((3, 5, 0), (3, 5, 1), (3, 5, 2))
#: The newest patch release of each line when this table was written (2026-08-20).
RECOMMENDED_ETCD = {(3, 5): "3.5.33", (3, 6): "3.6.14", (3, 7): "3.7.1"}
