# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Back to a recorded state, on real nodes, with a client writing meanwhile."""

from __future__ import annotations

import pytest

from tests.benchmarks.writer import Writer
from tests.faults.conftest import Playbook, fingerprint
from tests.lab.nodes import Lab

CHANGE = {"etcd_static_pod_flags": {"max-wals": 9}, "kube_apiserver_static_pod_flags": {"event-ttl": "2h"}, "node_window_watch_seconds": 0}


def to(target: str) -> dict:
    return {"kubetune_rollback_to": target, "node_window_watch_seconds": 0}


@pytest.mark.long
def test_the_state_before_a_run_is_listed_and_comes_back(lab: Lab, playbook: Playbook, no_write_lost: Writer) -> None:
    assert playbook().status == 0
    before = [node.shell("sha256sum /etc/kubernetes/manifests/* /var/lib/kubetune/applied/*").stdout for node in lab.nodes]
    changed = playbook("site", CHANGE)
    assert changed.status == 0, changed.output
    listed = playbook("rollback", to("list"))
    assert set(listed.changed.values()) == {0}
    newest = listed.output.partition("before window ")[2].partition("before window ")[0]
    assert "etcd --max-wals: 9 now, 5 then" in newest and "kube-apiserver --event-ttl: 2h now, not set then" in newest, listed.output
    unknown = playbook("rollback", to("run-9"))
    assert unknown.status != 0 and "no state is recorded under 'run-9'" in unknown.output
    back = playbook("rollback", to("latest"))
    assert back.status == 0, back.output
    after = [node.shell("sha256sum /etc/kubernetes/manifests/* /var/lib/kubetune/applied/*").stdout for node in lab.nodes]
    assert after == before
    plain = playbook()
    assert plain.status == 0 and set(plain.changed.values()) == {0}, plain.output


@pytest.mark.long
def test_one_node_goes_back_alone_to_before_a_window_of_its_own(lab: Lab, playbook: Playbook, no_write_lost: Writer) -> None:
    assert playbook().status == 0
    node, others = lab.nodes[1], [lab.nodes[0], lab.nodes[2]]
    before = node.shell("sha256sum /etc/kubernetes/manifests/* /var/lib/kubetune/applied/*").stdout
    changed = playbook("site", CHANGE)
    assert changed.status == 0, changed.output
    window = node.shell("ls -t /var/lib/kubetune/history | head -1").stdout.strip()
    untouched = [fingerprint(each) for each in others]
    back = playbook("rollback", to(window), "--limit", node.name)
    assert back.status == 0, back.output
    assert node.shell("sha256sum /etc/kubernetes/manifests/* /var/lib/kubetune/applied/*").stdout == before
    assert [fingerprint(each) for each in others] == untouched
    assert "--max-wals=5" in node.arguments("etcd") and all("--max-wals=9" in each.arguments("etcd") for each in others)
    plain = playbook()
    assert plain.status == 0 and {name for name, number in plain.changed.items() if number} == {each.name for each in others}, plain.output
