# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole runs against a host in a directory."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._block import udev
from ansible_collections.kubetune.control_plane.plugins.module_utils._errors import KubetuneError, Refusal
from ansible_collections.kubetune.control_plane.plugins.module_utils._host_tuning import apply, record
from ansible_collections.kubetune.control_plane.plugins.module_utils._host_tuning.run import Outcome, run
from ansible_collections.kubetune.control_plane.plugins.module_utils._node.host_lock import LOCK
from ansible_collections.kubetune.control_plane.plugins.module_utils._kernel import sysctl
from ansible_collections.kubetune.control_plane.plugins.module_utils._limits import logins, units

from tests.unit.module_utils.fake_host import DEFAULTS, FakeHost, ordinary_host

SDA_QUEUE = "/sys/devices/pci0000:00/scsi0/block/sda/queue"
DROP_IN = units.drop_in("containerd.service")


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return ordinary_host(tmp_path)


def tune(host: FakeHost, check: bool = False, **options: Any) -> Outcome:
    return run(host, {**DEFAULTS, **options}, check=check, execute=host.execute)


def verdicts(outcome: Outcome) -> dict[str, str]:
    return {each["item"]: each["verdict"] for each in outcome.report if each["verdict"] != "warning"}


def said(outcome: Outcome, item: str, verdict: str = "") -> dict[str, Any]:
    (found,) = [each for each in outcome.report if each["item"] == item and verdict in ("", each["verdict"])]
    return found


def live(host: FakeHost, name: str) -> str:
    return sysctl.normalise(host.read(sysctl.path_of(name)) or "")


def test_guide_on_an_ordinary_host(host: FakeHost) -> None:
    outcome = tune(host)
    assert outcome.changed
    assert verdicts(outcome) == {
        "sda scheduler": "changed",
        "sda read_ahead_kb": "changed",
        "net.core.rmem_max": "changed",
        "net.core.wmem_max": "changed",
        "net.ipv4.tcp_rmem": "changed",
        "net.ipv4.tcp_wmem": "changed",
        "vm.dirty_background_ratio": "changed",
        "vm.dirty_ratio": "changed",
        "vm.swappiness": "changed",
        "nofile of logins as etcd": "changed",
        "containerd.service LimitNOFILE": "kept",
        "nofile of the running etcd": "already_right",
        udev.OWN_FILE: "changed",
        sysctl.OWN_FILE: "changed",
        logins.OWN_FILE: "changed",
    }
    assert host.read(f"{SDA_QUEUE}/scheduler") == "none [mq-deadline] kyber bfq\n"
    assert live(host, "net.ipv4.tcp_rmem") == "4096 65536 134217728"
    assert host.read(logins.OWN_FILE) == f"{sysctl.OWN_HEADER}\netcd soft nofile 65536\netcd hard nofile 65536\n"
    assert (
        'ENV{ID_WWN}=="0x5000c500a1b2c3d4", ATTR{queue/scheduler}="mq-deadline", ATTR{queue/read_ahead_kb}="1024"'
        in (host.read(udev.OWN_FILE) or "")
    )
    assert said(outcome, "sda scheduler")["previous"] == "none"
    assert "131072" in said(outcome, "net.ipv4.tcp_rmem")["reason"]
    assert "no swap" in said(outcome, "vm.swappiness")["reason"]
    assert host.commands == [["udevadm", "control", "--reload"]]


def test_scheduler_is_written_before_read_ahead(host: FakeHost) -> None:
    tune(host)
    assert [path for path, _ in host.writes[:2]] == [f"{SDA_QUEUE}/scheduler", f"{SDA_QUEUE}/read_ahead_kb"]


def test_second_run_writes_nothing(host: FakeHost) -> None:
    tune(host)
    before, state = host.snapshot(), host.read(record.PATH)
    host.writes.clear()
    host.commands.clear()
    outcome = tune(host)
    assert not outcome.changed and outcome.diff == []
    assert (host.writes, host.commands) == ([], [])
    assert (host.snapshot(), host.read(record.PATH)) == (before, state)
    assert said(outcome, "vm.swappiness")["verdict"] == "ignored"
    assert set(verdicts(outcome).values()) == {"already_right", "ignored", "kept"}


def test_check_mode_foresees_the_very_same_and_writes_nothing(host: FakeHost) -> None:
    before = host.snapshot()
    foreseen = tune(host, check=True)
    assert host.snapshot() == before and not host.exists("/var/lib/kubetune") and host.writes == []
    assert foreseen == tune(host)


def test_absent_brings_everything_back(host: FakeHost) -> None:
    host.file(logins.OWN_FILE, "# somebody's\n")
    before = host.snapshot()
    tune(host, sysctls={"kernel.pid_max": 99999}, scheduler="bfq", nofile=600000)
    assert host.exists(DROP_IN) and host.snapshot() != before
    host.commands.clear()
    outcome = tune(host, state="absent")
    assert outcome.changed and set(verdicts(outcome).values()) == {"restored"}
    assert host.snapshot() == before
    assert not host.exists(record.PATH)
    assert host.commands == [["udevadm", "control", "--reload"], ["systemctl", "daemon-reload"]]
    again = tune(host, state="absent")
    assert not again.changed and verdicts(again) == {record.PATH: "already_right"}


def test_a_value_that_is_not_wanted_any_more_goes_back(host: FakeHost) -> None:
    tune(host, sysctls={"vm.swappiness": 10, "kernel.pid_max": 99999})
    outcome = tune(host, sysctls={"vm.swappiness": None})
    assert live(host, "vm.swappiness") == "60" and live(host, "kernel.pid_max") == "4194304"
    assert said(outcome, "kernel.pid_max")["verdict"] == "restored"
    assert "pid_max" not in (host.read(sysctl.OWN_FILE) or "") and "swappiness" not in (
        host.read(sysctl.OWN_FILE) or ""
    )
    assert not tune(host, sysctls={"vm.swappiness": None}).changed


def test_drift_is_set_right_and_shown(host: FakeHost) -> None:
    tune(host)
    host.sysctls({"vm/dirty_ratio": "40"})
    outcome = tune(host)
    assert (said(outcome, "vm.dirty_ratio")["previous"], said(outcome, "vm.dirty_ratio")["value"]) == ("40", "15")
    assert outcome.diff == [
        {
            "before_header": "kernel values",
            "after_header": "kernel values",
            "before": "vm.dirty_ratio = 40\n",
            "after": "vm.dirty_ratio = 15\n",
        }
    ]
    tune(host, state="absent")
    assert live(host, "vm.dirty_ratio") == "20"


def test_the_record_is_for_root_alone(host: FakeHost) -> None:
    tune(host)
    assert host.mode(record.PATH) == 0o600 and host.mode("/var/lib/kubetune") == 0o700
    data = json.loads(host.read(record.PATH) or "")
    assert data["schema"] == record.SCHEMA
    assert data["settings"]["sysctl vm.swappiness"] == {
        "original": ["vm.swappiness", "60"],
        "applied": ["vm.swappiness", "1"],
    }
    assert data["files"][sysctl.OWN_FILE]["content"] is None


@pytest.mark.parametrize(
    ("text", "says"), [("{", "is damaged"), ('{"schema": 2}', "has schema 2"), ('{"schema": 1}', "is damaged")]
)
def test_a_record_that_cannot_be_read_stops_the_run(host: FakeHost, text: str, says: str) -> None:
    host.file(record.PATH, text)
    with pytest.raises(KubetuneError, match=says):
        tune(host)
    assert host.writes == []


def test_stricter_and_larger_values_stay(host: FakeHost) -> None:
    host.sysctls({"net/core/rmem_max": "268435456", "vm/dirty_ratio": "10", "vm/swappiness": "0"})
    outcome = tune(host)
    for name, value in {"net.core.rmem_max": "268435456", "vm.dirty_ratio": "10", "vm.swappiness": "0"}.items():
        assert (said(outcome, name, "kept")["value"], live(host, name)) == (value, value)
        assert "no file of sysctl.d sets the value" in said(outcome, name, "warning")["reason"]
        assert name not in (host.read(sysctl.OWN_FILE) or "")
    explicit = tune(host, sysctls={"net.core.rmem_max": 4194304})
    assert said(explicit, "net.core.rmem_max")["verdict"] == "changed"


def test_a_kept_value_that_a_file_keeps_needs_no_warning(host: FakeHost) -> None:
    host.sysctls({"vm/swappiness": "0", "vm/dirty_ratio": "0", "vm/dirty_bytes": "1073741824"})
    host.file("/usr/lib/sysctl.d/50-x.conf", "vm.swapp* = 0\nvm.dirty_bytes = 1073741824\n")
    outcome = tune(host)
    assert (said(outcome, "vm.swappiness")["verdict"], said(outcome, "vm.dirty_ratio")["verdict"]) == ("kept", "kept")


def test_a_limit_in_bytes_is_a_choice_of_the_host(host: FakeHost) -> None:
    """Writing the profile's percentage would make the bytes 0."""
    host.sysctls({"vm/dirty_ratio": "0", "vm/dirty_bytes": "1073741824"})
    outcome = tune(host)
    assert said(outcome, "vm.dirty_ratio", "kept")["value"] == "vm.dirty_bytes = 1073741824"
    assert live(host, "vm.dirty_bytes") == "1073741824"


def test_bytes_instead_of_percentages_and_back(host: FakeHost) -> None:
    outcome = tune(host, sysctls={"vm.dirty_bytes": 1073741824, "vm.dirty_background_bytes": 268435456})
    assert (live(host, "vm.dirty_ratio"), live(host, "vm.dirty_bytes")) == ("0", "1073741824")
    assert said(outcome, "vm.dirty_bytes")["previous"] == "vm.dirty_ratio = 20"
    assert said(outcome, "vm.dirty_ratio")["verdict"] == "left_out"
    assert "vm.dirty_bytes = 1073741824" in (host.read(sysctl.OWN_FILE) or "")
    assert not tune(host, sysctls={"vm.dirty_bytes": 1073741824, "vm.dirty_background_bytes": 268435456}).changed
    tune(host)
    assert (live(host, "vm.dirty_ratio"), live(host, "vm.dirty_bytes")) == ("15", "0")
    tune(host, state="absent")
    assert (live(host, "vm.dirty_ratio"), live(host, "vm.dirty_background_ratio")) == ("20", "10")


def test_dirty_limits_in_bytes_and_back(host: FakeHost) -> None:
    outcome = tune(host, dirty_limits="bytes")
    assert said(outcome, "vm.dirty_bytes", "changed")["previous"] == "vm.dirty_ratio = 20"
    assert live(host, "vm.dirty_background_bytes") == "268435456" and live(host, "vm.dirty_background_ratio") == "0"
    assert not tune(host, dirty_limits="bytes").changed
    tune(host, dirty_limits="bytes", sysctls={"vm.dirty_ratio": 30})
    assert (live(host, "vm.dirty_ratio"), live(host, "vm.dirty_bytes")) == ("30", "0")
    tune(host, state="absent")
    assert (live(host, "vm.dirty_ratio"), live(host, "vm.dirty_background_ratio")) == ("20", "10")


def test_in_a_container_what_cannot_be_set_is_refused_and_the_rest_is_set(host: FakeHost) -> None:
    host.read_only = {"/proc/sys/net/core/rmem_max", f"{SDA_QUEUE}/scheduler", f"{SDA_QUEUE}/read_ahead_kb"}
    Path(host.locate("/proc/sys/net/core/wmem_max")).unlink()
    Path(host.locate(udev.CONTROL)).unlink()
    outcome = tune(host)
    for item in ("net.core.rmem_max", "net.core.wmem_max", "sda scheduler", "sda read_ahead_kb"):
        assert said(outcome, item)["verdict"] == "refused" and said(outcome, item)["reason"]
    assert "net.core" not in (host.read(sysctl.OWN_FILE) or "")
    assert not host.exists(udev.OWN_FILE)
    assert live(host, "vm.dirty_ratio") == "15"
    assert not tune(host).changed


def test_rules_wait_for_udevd(host: FakeHost) -> None:
    Path(host.locate(udev.CONTROL)).unlink()
    assert said(tune(host), udev.OWN_FILE, "pending")["reason"].startswith("udevd does not run here")
    assert host.exists(udev.OWN_FILE) and host.commands == []
    assert said(tune(host), udev.OWN_FILE)["verdict"] == "pending"


def test_a_profile_value_that_the_kernel_does_not_take_is_left_as_it_was(host: FakeHost) -> None:
    host.refusing = {"/proc/sys/vm/dirty_ratio"}
    outcome = tune(host)
    assert (
        said(outcome, "vm.dirty_ratio")["verdict"] == "refused"
        and "Invalid argument" in said(outcome, "vm.dirty_ratio")["reason"]
    )
    assert "vm.dirty_ratio" not in (host.read(sysctl.OWN_FILE) or "") + (host.read(record.PATH) or "")
    assert not tune(host).changed


def test_an_explicit_value_that_the_kernel_does_not_take_undoes_the_run(host: FakeHost) -> None:
    before = host.snapshot()
    host.refusing = {"/proc/sys/vm/dirty_ratio"}
    with pytest.raises(KubetuneError, match=r"vm.dirty_ratio: the kernel does not take 30.*is undone"):
        tune(host, sysctls={"vm.dirty_ratio": 30})
    assert host.snapshot() == before and not host.exists(record.PATH)


def test_a_failing_program_undoes_the_run(host: FakeHost) -> None:
    before = host.snapshot()

    def no_reload(command: Any) -> None:
        raise KubetuneError(f"{command[0]} failed")

    with pytest.raises(
        KubetuneError, match=r"udevadm failed; everything this run had changed is undone; except that udevadm failed"
    ):
        run(host, DEFAULTS, execute=no_reload)
    assert host.snapshot() == before and not host.exists(record.PATH)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"scheduler": "cfq"},
            "sda scheduler cfq: the kernel offers none, mq-deadline, kyber, bfq for sda, and not cfq",
        ),
        ({"sysctls": {"vm.nonsense": 1}}, "vm.nonsense 1: there is no /proc/sys/vm/nonsense here"),
        ({"sysctls": {"kernel.pid_max": "many"}}, "kernel.pid_max: 'many' has to be a number"),
        ({"nofile": 2000000}, "nofile 2000000: at most 1048576"),
        ({"paths": ["/ram"], "scheduler": "none"}, "/ram has no disk"),
    ],
)
def test_explicit_values_that_cannot_be_had_here_are_errors(host: FakeHost, options: dict[str, Any], says: str) -> None:
    host.place("/ram", (0, 44))
    host.file("/proc/self/mountinfo", "30 22 0:44 / /ram rw - tmpfs tmpfs rw\n")
    before = host.snapshot()
    with pytest.raises(Refusal) as caught:
        tune(host, **options)
    assert says in str(caught.value)
    assert host.snapshot() == before and host.writes == []


def test_the_profiles_scheduler_where_the_kernel_has_none_such(host: FakeHost) -> None:
    host.file(f"{SDA_QUEUE}/scheduler", "[none] kyber\n")
    outcome = tune(host)
    assert "offers none, kyber" in said(outcome, "sda scheduler", "refused")["reason"]
    assert "queue/scheduler" not in (host.read(udev.OWN_FILE) or "")


def test_nvme_has_no_scheduler_unless_told(host: FakeHost) -> None:
    nvme = host.disk("nvme0n1", "259:0", bus="nvme", udev={"ID_WWN": "eui.1"})
    host.place("/var/lib/etcd", (259, 0))
    tune(host)
    assert host.read(f"{nvme}/queue/scheduler") == "[none] mq-deadline kyber bfq\n"
    tune(host, scheduler_by_class={"nvme": "kyber"})
    assert host.read(f"{nvme}/queue/scheduler") == "none mq-deadline [kyber] bfq\n"
    tune(host, state="absent")
    assert host.read(f"{nvme}/queue/scheduler") == "none [mq-deadline] kyber bfq\n"


def test_multipath_is_scheduled_at_its_top_and_undone(host: FakeHost) -> None:
    paths = [host.disk(name, number, udev={"ID_WWN": "0x6001"}) for name, number in (("sdb", "8:16"), ("sdc", "8:32"))]
    multipath = host.stacked("dm-0", "253:0", "dm", paths)
    host.file(f"{multipath}/dm/uuid", "mpath-36001\n")
    host.file(f"{multipath}/queue/scheduler", "[none] mq-deadline\n")
    host.place("/var/lib/etcd", (253, 0))
    before = host.snapshot()
    outcome = tune(host)
    assert "by several paths" in said(outcome, "dm-0 scheduler", "changed")["reason"]
    assert "sdb scheduler" not in verdicts(outcome)
    rules = host.read(udev.OWN_FILE) or ""
    assert 'ENV{DM_UUID}=="mpath-36001", ATTR{queue/scheduler}="mq-deadline", ATTR{queue/read_ahead_kb}="1024"' in rules
    assert "0x6001" not in rules
    tune(host, state="absent")
    assert host.snapshot() == before


def test_head_of_nvme_multipath_has_nothing_to_schedule(host: FakeHost) -> None:
    host.disk("nvme0n1", "259:0", bus="nvme-subsystem", schedulers="", udev={"ID_WWN": "eui.1"})
    host.place("/var/lib/etcd", (259, 0))
    assert "no queue of its own" in said(tune(host), "nvme0n1 scheduler", "left_out")["reason"]
    with pytest.raises(Refusal, match="nvme0n1 scheduler kyber: nvme0n1 has no scheduler"):
        tune(host, scheduler_by_class={"nvme": "kyber"})


def test_automatic_choice(host: FakeHost) -> None:
    assert said(tune(host, scheduler="auto"), "sda scheduler", "changed")["value"] == "mq-deadline"
    for number in "0123":
        host.directory(f"{SDA_QUEUE.replace('queue', 'mq')}/{number}")
    outcome = tune(host, scheduler="auto")
    assert said(outcome, "sda scheduler", "changed")["value"] == "none"
    assert "with 4 hardware queues" in said(outcome, "sda scheduler")["reason"]


def test_keep_is_said(host: FakeHost) -> None:
    assert said(tune(host, scheduler="keep"), "sda scheduler", "left_out")["value"] == "none"


def test_read_ahead_modes(host: FakeHost) -> None:
    host.file(f"{SDA_QUEUE}/read_ahead_kb", "8192\n")
    assert said(tune(host, read_ahead_mode="at_least"), "sda read_ahead_kb")["verdict"] == "kept"
    assert "sda read_ahead_kb" not in verdicts(tune(host, read_ahead_mode="keep"))
    assert "less than the 8192" in said(tune(host), "sda read_ahead_kb", "changed")["reason"]
    assert host.read(f"{SDA_QUEUE}/read_ahead_kb") == "1024\n"
    tune(host, read_ahead_mode="at_least")
    assert host.read(f"{SDA_QUEUE}/read_ahead_kb") == "8192\n"


def test_read_ahead_acts_on_the_volume_and_the_scheduler_on_its_disks(host: FakeHost) -> None:
    disk = host.disk("sdb", "8:16", udev={"ID_SERIAL": "b"})
    volume = host.stacked("dm-0", "253:0", "dm", [disk])
    host.file(f"{volume}/dm/uuid", "LVM-xyz\n")
    host.place("/var/lib/etcd", (253, 0))
    tune(host)
    assert [path for path, _ in host.writes if path.startswith("/sys")] == [f"{volume}/queue/read_ahead_kb"]
    rules = host.read(udev.OWN_FILE) or ""
    assert 'ENV{DM_UUID}=="LVM-xyz", ATTR{queue/read_ahead_kb}="1024"\n' in rules
    assert 'ENV{ID_SERIAL}=="b", ATTR{queue/scheduler}="mq-deadline"\n' in rules


def test_all_paths_to_one_disk_are_set_and_put_back(host: FakeHost) -> None:
    """Below multipath the disks share their identity: one rule, one record, several queues."""
    queues = [
        host.disk(name, number, schedulers="[none] mq-deadline\n", udev={"ID_WWN": "0x6001"})
        for name, number in (("sdb", "8:16"), ("sdc", "8:32"))
    ]
    host.stacked("dm-0", "253:0", "dm", queues)
    host.place("/var/lib/etcd", (253, 0))
    before = host.snapshot()
    tune(host)
    assert [host.read(f"{each}/queue/scheduler") for each in queues] == ["none [mq-deadline]\n"] * 2
    assert (host.read(udev.OWN_FILE) or "").count("0x6001") == 1
    assert not tune(host).changed
    tune(host, state="absent")
    assert host.snapshot() == before


def test_paths_say_what_is_special_about_them(host: FakeHost) -> None:
    host.place("/ram", (0, 44))
    host.file("/proc/self/mountinfo", "30 22 0:44 / /ram rw - tmpfs tmpfs rw\n")
    outcome = tune(host, paths=["/var/lib/etcd", "/srv/none/such", "/ram", "/var/lib/etcd/"])
    assert said(outcome, "disks of /ram")["verdict"] == "left_out"
    assert "does not exist: the disk of / is taken" in said(outcome, "disks of /srv/none/such")["reason"]
    assert "two directories are not two disks" in said(outcome, "disks of /var/lib/etcd and /srv/none/such")["reason"]


def test_the_wal_has_a_disk_when_it_is_there(host: FakeHost) -> None:
    """Its mount point below the data directory is tuned by default; before etcd_wal made it there is nothing to say."""
    assert not [each for each in tune(host).report if each["item"].startswith("disks of ")]
    host.directory("/var/lib/etcd/wal-disk")
    item = "disks of /var/lib/etcd and /var/lib/etcd/wal-disk"
    assert said(tune(host), item)["verdict"] == "warning"
    wal = host.disk("sdb", "8:16", schedulers="[none] mq-deadline\n", udev={"ID_SERIAL": "b"})
    host.place("/var/lib/etcd/wal-disk", (8, 16))
    outcome = tune(host)
    assert item not in verdicts(outcome) and said(outcome, "sdb scheduler")["verdict"] == "changed"
    assert host.read(f"{wal}/queue/read_ahead_kb") == "1024\n"


def test_a_disk_that_is_gone_keeps_its_record_until_it_is_back(host: FakeHost) -> None:
    disk = host.disk("sdb", "8:16", schedulers="[none] mq-deadline\n", udev={"ID_SERIAL": "b"})
    host.place("/wal", (8, 16))
    tune(host, paths=["/wal"])
    Path(host.locate("/sys/block/sdb")).unlink()
    outcome = tune(host, state="absent")
    assert said(outcome, "scheduler of ENV{ID_SERIAL}=b")["verdict"] == "left_out"
    assert host.exists(record.PATH)
    host.link("/sys/block/sdb", disk)
    assert said(tune(host, state="absent"), "sdb scheduler")["verdict"] == "restored"
    assert host.read(f"{disk}/queue/scheduler") == "[none] mq-deadline\n" and not host.exists(record.PATH)


def test_a_disk_is_known_again_after_udev_came_up(host: FakeHost) -> None:
    disk = host.disk("vda", "254:0", bus="virtio", schedulers="[none] mq-deadline\n")
    host.file(f"{disk}/serial", "disk-1\n")
    host.place("/var/lib/etcd", (254, 0))
    tune(host)
    host.udev_data("254:0", {"ID_SERIAL": "disk-1"})
    tune(host)
    assert 'ENV{ID_SERIAL}=="disk-1"' in (host.read(udev.OWN_FILE) or "")
    tune(host, state="absent")
    assert host.read(f"{disk}/queue/scheduler") == "[none] mq-deadline\n"


def test_weak_identity_is_said(host: FakeHost) -> None:
    host.loop("loop3", "7:3", "/images/etcd.img")
    host.place("/var/lib/etcd", (7, 3))
    outcome = tune(host)
    assert said(outcome, udev.OWN_FILE, "warning")["value"] == "ATTR{loop/backing_file}=/images/etcd.img"
    assert said(outcome, "loop3 scheduler")["value"] == "mq-deadline"


def test_the_file_that_overrides_ours_is_named(host: FakeHost) -> None:
    host.file("/etc/sysctl.d/99-zzz-mine.conf", "vm.swappiness = 60\n")
    outcome = tune(host)
    assert live(host, "vm.swappiness") == "1"
    assert "/etc/sysctl.d/99-zzz-mine.conf is read after" in said(outcome, "vm.swappiness", "warning")["reason"]


def test_a_line_without_a_value_takes_ours_out(host: FakeHost) -> None:
    host.file("/run/sysctl.d/99-zzz.conf", "-vm.swappiness\n")
    assert "/run/sysctl.d/99-zzz.conf is read after" in said(tune(host), "vm.swappiness", "warning")["reason"]


def test_an_earlier_file_that_says_the_same_keeps_its_place(host: FakeHost) -> None:
    """systemd-sysctl writes the percentage first then, and the bytes of the file between the two undo it."""
    host.file("/usr/lib/sysctl.d/10-a.conf", "vm.dirty_ratio = 15\n")
    host.file("/usr/lib/sysctl.d/50-b.conf", "vm.dirty_bytes = 4294967296\n")
    reason = said(tune(host), "vm.dirty_ratio", "warning")["reason"]
    assert "10-a.conf says the same" in reason and "50-b.conf comes after that" in reason


def test_a_file_that_only_procps_reads_is_named(host: FakeHost) -> None:
    host.file("/etc/sysctl.conf", "vm.swappiness = 60\n")
    reason = said(tune(host), "vm.swappiness", "warning")["reason"]
    assert reason.startswith("/etc/sysctl.conf is read after") and "sysctl --system sets vm.swappiness = 60" in reason


@pytest.mark.parametrize("path", [sysctl.OWN_FILE, udev.OWN_FILE, logins.OWN_FILE])
def test_a_file_of_ours_that_is_switched_off_is_not_overwritten(host: FakeHost, path: str) -> None:
    before = host.snapshot()
    Path(host.locate(path)).symlink_to("/dev/null")
    with pytest.raises(Refusal, match=f"{path} is a symbolic link"):
        tune(host)
    assert host.writes == []
    host.remove(path)
    tune(host)
    host.remove(path)
    Path(host.locate(path)).symlink_to("/dev/null")
    tune(host, state="absent")
    assert host.is_link(path)
    host.remove(path)
    assert host.snapshot() == before


def test_login_limits_of_others(host: FakeHost) -> None:
    host.file("/etc/security/limits.d/10-x.conf", "etcd - nofile 200000\n")
    outcome = tune(host)
    assert said(outcome, "nofile of logins as etcd")["verdict"] == "kept" and not host.exists(logins.OWN_FILE)
    host.file("/etc/security/limits.d/zzz.conf", "etcd hard nofile 1024\n")
    assert "zzz.conf is read after" in said(tune(host), "nofile of logins as etcd", "warning")["reason"]
    tune(host, nofile=100000)
    assert "etcd hard nofile 100000" in (host.read(logins.OWN_FILE) or "")


class TestContainerRuntime:
    """containerd's unit asks for 4096 open files, and so etcd runs with 4095."""

    @pytest.fixture
    def host(self, tmp_path: Path) -> FakeHost:
        host = ordinary_host(tmp_path)
        host.file("/lib/systemd/system/containerd.service", "[Service]\nLimitNOFILE=4096\n")
        host.process(300, "containerd", 4096, 4096, "/system.slice/containerd.service")
        host.process(900, "etcd", 4095, 4096, "/kubepods/burstable/pod1/abc")
        return host

    def test_its_limit_is_raised_and_waits_for_a_restart(self, host: FakeHost) -> None:
        outcome = tune(host)
        assert host.read(DROP_IN) == f"{sysctl.OWN_HEADER}\n[Service]\nLimitNOFILE=65536\n"
        assert ["systemctl", "daemon-reload"] in host.commands and [
            "systemctl",
            "restart",
            "containerd.service",
        ] not in host.commands
        pending = said(outcome, "containerd.service LimitNOFILE", "pending")
        assert "runs with 4096 until it is restarted" in pending["reason"]
        assert said(outcome, "nofile of the running etcd")["verdict"] == "pending"
        assert not tune(host).changed

    def test_it_is_restarted_where_that_is_allowed(self, host: FakeHost) -> None:
        outcome = tune(host, restart_container_runtime=True)
        assert host.commands[-2:] == [["systemctl", "daemon-reload"], ["systemctl", "restart", "containerd.service"]]
        assert said(outcome, "containerd.service LimitNOFILE")["verdict"] == "changed"
        assert said(outcome, "nofile of the running etcd")["reason"] == "it gets 65536 when its pod is created anew"
        host.process(300, "containerd", 65536, 65536, "/system.slice/containerd.service")
        host.commands.clear()
        assert not tune(host, restart_container_runtime=True).changed and host.commands == []

    def test_a_restart_that_fails_is_taken_back(self, host: FakeHost) -> None:
        before = host.snapshot()

        def execute(command: Any) -> None:
            host.execute(command)
            if command[1] == "restart" and host.exists(DROP_IN):
                raise KubetuneError("containerd.service does not start")

        with pytest.raises(KubetuneError, match="does not start; everything this run had changed is undone$"):
            run(host, {**DEFAULTS, "restart_container_runtime": True}, execute=execute)
        assert host.snapshot() == before
        assert host.commands[-3:] == [
            ["udevadm", "control", "--reload"],
            ["systemctl", "daemon-reload"],
            ["systemctl", "restart", "containerd.service"],
        ]

    def test_it_is_not_restarted_for_an_etcd_that_has_enough(self, host: FakeHost) -> None:
        host.process(900, "etcd", 65535, 65536, "/kubepods/burstable/pod1/abc")
        outcome = tune(host, restart_container_runtime=True)
        assert ["systemctl", "restart", "containerd.service"] not in host.commands
        assert said(outcome, "nofile of the running etcd")["verdict"] == "already_right"

    def test_beyond_the_machines_hard_limit_nothing_is_written(self, host: FakeHost) -> None:
        host.process(1, "systemd", 1024, 20000, capabilities="000001fffeffffff")
        outcome = tune(host)
        assert not host.exists(DROP_IN)
        assert (
            "the hard limit of this machine is 20000"
            in said(outcome, "containerd.service LimitNOFILE", "refused")["reason"]
        )
        assert said(outcome, "nofile of the running etcd")["verdict"] == "refused"
        assert not tune(host).changed

    def test_a_later_drop_in_is_named(self, host: FakeHost) -> None:
        host.file("/etc/systemd/system/containerd.service.d/zzz.conf", "[Service]\nLimitNOFILE=5000\n")
        assert "zzz.conf is read after" in said(tune(host), "containerd.service LimitNOFILE", "warning")["reason"]


class TestEtcdOfASystemdUnit:
    """As kubespray installs it on the host: 40000 open files."""

    UNIT_DROP_IN = units.drop_in("etcd.service")

    @pytest.fixture
    def host(self, tmp_path: Path) -> FakeHost:
        host = ordinary_host(tmp_path)
        host.file("/etc/systemd/system/etcd.service", "[Service]\nLimitNOFILE=40000\n")
        host.process(900, "etcd", 39999, 40000, "/system.slice/etcd.service")
        return host

    def test_its_limit_is_raised_and_it_is_never_restarted(self, host: FakeHost) -> None:
        before = host.snapshot()
        outcome = tune(host, restart_container_runtime=True)
        assert host.read(self.UNIT_DROP_IN) == f"{sysctl.OWN_HEADER}\n[Service]\nLimitNOFILE=65536\n"
        assert host.commands == [["udevadm", "control", "--reload"], ["systemctl", "daemon-reload"]]
        reason = said(outcome, "etcd.service LimitNOFILE", "pending")["reason"]
        assert "`systemctl restart etcd.service`, one member at a time, when all others are healthy" in reason
        running = said(outcome, "nofile of the running etcd", "pending")
        assert (running["value"], running["reason"]) == (39999, "it gets 65536 when etcd.service is restarted")
        assert not tune(host).changed
        host.process(900, "etcd", 65535, 65536, "/system.slice/etcd.service")
        outcome = tune(host)
        assert said(outcome, "etcd.service LimitNOFILE")["verdict"] == "already_right"
        assert said(outcome, "nofile of the running etcd")["verdict"] == "already_right"
        host.process(900, "etcd", 39999, 40000, "/system.slice/etcd.service")
        tune(host, state="absent")
        assert host.snapshot() == before

    def test_a_runtime_with_too_few_is_not_restarted_for_it(self, host: FakeHost) -> None:
        host.file("/lib/systemd/system/containerd.service", "[Service]\nLimitNOFILE=4096\n")
        host.process(300, "containerd", 4096, 4096, "/system.slice/containerd.service")
        outcome = tune(host, restart_container_runtime=True)
        assert ["systemctl", "restart", "containerd.service"] not in host.commands and host.exists(DROP_IN)
        assert said(outcome, "containerd.service LimitNOFILE")["verdict"] == "changed"

    def test_infinity_stays(self, host: FakeHost) -> None:
        host.file("/etc/systemd/system/etcd.service", "[Service]\nLimitNOFILE=infinity\n")
        host.process(900, "etcd", 1048575, 1048576, "/system.slice/etcd.service")
        assert said(tune(host), "etcd.service LimitNOFILE")["verdict"] == "kept"
        assert not host.exists(self.UNIT_DROP_IN)

    def test_a_unit_that_only_starts_a_container_is_none_of_ours(self, host: FakeHost) -> None:
        host.process(900, "etcd", 524287, 524288, "/system.slice/docker-0a1b.scope")
        assert "etcd.service LimitNOFILE" not in verdicts(tune(host)) and not host.exists(self.UNIT_DROP_IN)

    def test_before_its_first_start(self, host: FakeHost) -> None:
        Path(host.locate("/proc/900/comm")).unlink()
        assert said(tune(host), "etcd.service LimitNOFILE")["verdict"] == "changed"

    def test_beyond_the_machines_hard_limit(self, host: FakeHost) -> None:
        host.process(1, "systemd", 1024, 20000, capabilities="000001fffeffffff")
        assert said(tune(host), "etcd.service LimitNOFILE")["verdict"] == "refused"
        assert not host.exists(self.UNIT_DROP_IN)


def test_host_without_runtime_and_etcd(host: FakeHost) -> None:
    Path(host.locate("/lib/systemd/system/containerd.service")).unlink()
    Path(host.locate("/proc/900/comm")).unlink()
    outcome = tune(host)
    assert said(outcome, "container runtime LimitNOFILE")["verdict"] == "left_out"
    assert said(outcome, "nofile of the running etcd")["verdict"] == "left_out"


def test_upstream_profile_takes_the_guide_back(host: FakeHost) -> None:
    before = host.snapshot()
    tune(host)
    tune(host, profile="upstream")
    assert host.snapshot() == before


def test_run_that_was_cut_off_is_finished_and_taken_back(host: FakeHost) -> None:
    """The originals are on disk before the first write: a power cut right after it loses nothing."""
    before = host.snapshot()

    class PowerCut(BaseException):
        pass

    def cut(path: str, text: str) -> None:
        if path.endswith("dirty_ratio"):
            raise PowerCut
        FakeHost.set(host, path, text)

    host.set = cut  # type: ignore[method-assign]
    with pytest.raises(PowerCut):
        tune(host)
    del host.set
    assert host.snapshot() != before and not host.exists(sysctl.OWN_FILE)
    tune(host)
    tune(host, state="absent")
    assert host.snapshot() == before


def test_only_one_run_at_a_time(host: FakeHost) -> None:
    host.make_directories("/var/lib/kubetune", 0o700)
    with open(host.locate(str(LOCK)), "a", encoding="ascii") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(KubetuneError, match="another run of kubetune changes this host"):
            tune(host)
        assert tune(host, check=True).changed
    assert host.writes == []


def test_lost_record_does_not_make_our_own_files_originals(host: FakeHost) -> None:
    tune(host)
    host.remove(record.PATH)
    tune(host, sysctls={"vm.swappiness": 5})
    tune(host, state="absent")
    assert not any(host.exists(path) for path in (udev.OWN_FILE, sysctl.OWN_FILE, logins.OWN_FILE))


def test_programs_really_run() -> None:
    apply.execute(["true"])
    with pytest.raises(KubetuneError, match="failed with status 3: no"):
        apply.execute(["sh", "-c", "echo no >&2; exit 3"])


def test_names_with_slashes_are_the_same_names(host: FakeHost) -> None:
    outcome = tune(host, sysctls={"vm/swappiness": 5})
    assert said(outcome, "vm.swappiness")["value"] == "5"


def test_btrfs_has_a_read_ahead_of_its_own(host: FakeHost) -> None:
    disk = host.disk("sdb", "8:16", schedulers="[none] mq-deadline\n", udev={"ID_SERIAL": "b"})
    host.place("/data", (0, 60))
    host.file("/dev/sdb")
    host.link("/sys/fs/btrfs/0a1b/devices/sdb", disk)
    host.file("/proc/self/mountinfo", "50 22 0:61 / /data rw - btrfs /dev/sdb rw\n")
    outcome = tune(host, paths=["/data"])
    assert said(outcome, "read_ahead_kb of /data")["verdict"] == "left_out"
    assert host.read(f"{disk}/queue/scheduler") == "none [mq-deadline]\n"
    with pytest.raises(Refusal, match="read_ahead_kb 512 of /data: btrfs has"):
        tune(host, paths=["/data"], read_ahead_kb=512)
