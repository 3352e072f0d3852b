# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup of the maintenance beside ``etcdctl snapshot save`` of the same member, in turns.

    python -m tests.benchmarks.backup [MEGABYTES, 500 by default] [PAIRS, 7 by default]

etcdctl alone writes and syncs the file. The maintenance has the same etcdctl do that, then hashes it while etcdutl walks all of it, and
writes a sidecar; what of that is the stream, its own journal says. Told are seconds of each, and how many times etcdctl's
throughput the maintenance has, pair by pair: of the stream, and of the whole program from its start to its end.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tests.conftest  # noqa: F401  the collection becomes importable
from ansible_collections.kubetune.control_plane.plugins.plugin_utils import _zipapp

from tests.integration.assets import binary
from tests.integration.etcd_cluster import EtcdCluster
from tests.integration.maintenance_node import Node

MODULE_UTILS = Path(__file__).resolve().parents[2] / "plugins/module_utils"


def etcdctl(node: Node, target: Path) -> float:
    """Seconds of a snapshot by hand."""
    tls = node.cluster.tls
    began = time.monotonic()
    subprocess.run(
        [
            binary("etcdctl"), f"--endpoints={node.member.client_url}", f"--cacert={tls.ca_file}", f"--cert={tls.cert_file}",
            f"--key={tls.key_file}", "snapshot", "save", target,
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    seconds = time.monotonic() - began
    target.unlink()
    return seconds


def maintenance(node: Node) -> tuple[float, float]:
    """(seconds of the whole program, seconds of the stream) of a backup."""
    began = time.monotonic()
    process = node.start("backup", "--json")
    text, _none = process.communicate()
    seconds = time.monotonic() - began
    if process.returncode:
        raise RuntimeError(text)
    (done,) = [each for each in map(json.loads, text.splitlines()) if (each["step"], each["outcome"]) == ("backup", "done")]
    for path in node.snapshots():
        path.unlink()
    return seconds, float(done["stream_seconds"])


def main(arguments: list[str]) -> int:
    megabytes, pairs = (int(each) for each in (*arguments, *("500", "7")[len(arguments):]))
    with tempfile.TemporaryDirectory(prefix="kubetune-benchmark-") as scratch:
        root = Path(scratch)
        program = root / "kubetune.pyz"
        program.write_bytes(_zipapp.build(MODULE_UTILS))
        cluster = EtcdCluster.create(root / "etcd", ["cp1"])
        try:
            cluster.fill(megabytes)
            node = Node(program, cluster, cluster.members[0], root)
            size = cluster.client().status().db_size
            print(f"a database of {size / 1e6:.0f} MB, etcd {cluster.client().status().version}, {pairs} pairs")
            etcdctl(node, root / "warm.db"), maintenance(node)
            streams, wholes = [], []
            for number in range(pairs):
                by_hand = etcdctl(node, root / "by-hand.db")
                whole, stream = maintenance(node)
                streams.append(by_hand / stream)
                wholes.append(by_hand / whole)
                print(
                    f"{number + 1}: etcdctl {by_hand:.2f} s; maintenance {whole:.2f} s, of which the stream {stream:.2f} s; "
                    f"throughput {streams[-1]:.2f} and {wholes[-1]:.2f} of etcdctl's"
                )
            for name, found in (("stream", streams), ("whole program, verified", wholes)):
                print(f"{name}: median {statistics.median(found):.2f} of etcdctl's throughput, {min(found):.2f} to {max(found):.2f}")
        finally:
            cluster.stop_all()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
