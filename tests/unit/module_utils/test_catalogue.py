# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The flag table against what the real binaries say of themselves (fixtures/help, by fixtures/record-help.sh).

kube-apiserver 1.29 to 1.32 cannot be built here and have no recording: for them the table rests on their sources.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.catalogue import COMPONENTS, ETCD, KUBE_APISERVER
from ansible_collections.kubetune.control_plane.plugins.module_utils._static_pod.flags import Flag, version_of

from tests.unit.hosts import FIXTURES

#: What etcd puts in the place of a default that its help gives as 0 or as nothing (server/embed/config.go, server/storage/backend.go).
EFFECTIVE = {
    "quota-backend-bytes": "2147483648", "backend-batch-limit": "10000", "backend-batch-interval": "100ms",
    "compaction-sleep-interval": "10ms",
}
#: Flags whose default no help of etcd gives: theirs are from server/embed/config.go.
NOT_IN_HELP = {"downgrade-check-time", "snapshot-catchup-entries"}
#: pflag's words for types -> the table's.
PFLAG = {
    "int": {"int", "seconds", "milliseconds", "bytes"}, "duration": {"duration"}, "": {"bool"}, "float": {"number"},
    "string": {"string"}, "strings": {"cache sizes", "string"}, "colonSeparatedMultimapStringString": {"gates"},
}


@dataclass(frozen=True)
class Recording:
    """flags: name -> (type in pflag's words, default); etcd tells no types. taken: of flags and "gate NAME", which are accepted."""

    program: str
    version: str
    flags: dict[str, tuple[str, str]]
    taken: dict[str, bool]

    @property
    def id(self) -> str:
        return f"{self.program}-{self.version}"

    @property
    def number(self) -> tuple[int, ...]:
        return version_of(self.version)

    def has(self, name: str) -> bool | None:
        """None where the recording does not tell."""
        if name in self.taken:
            return self.taken[name]
        # What kube-apiserver's help does not show may be hidden; etcd's shows all, but for the one in its usage lines.
        return name in self.flags or (None if self.program == KUBE_APISERVER else False)


def etcd_flags(text: str) -> dict[str, tuple[str, str]]:
    """``  --name 'default'``, ``  --name default``, ``  --name``; a default of a boolean may be left out."""
    found = re.findall(r"^  --([a-z0-9-]+)(?: +(?:'([^']*)'|(\S+)))?\s*$", text, re.MULTILINE)
    return {name: ("", quoted or bare) for name, quoted, bare in found}


def apiserver_flags(text: str) -> dict[str, tuple[str, str]]:
    flags = {}
    for name, kind, usage in re.findall(r"^ {2,6}(?:-\w, )?--([a-z0-9-]+)(?: (\S+))? {2,}(.*(?:\n {20,}.*)*)", text, re.MULTILINE):
        default = re.search(r"\(default ([^()]*)\)\s*$", usage)
        flags[name] = (kind, default[1].strip('"') if default else "")
    return flags


def load(program: str, version: str) -> Recording:
    stem = FIXTURES / "help" / f"{program}-{version}"
    text = stem.with_name(f"{stem.name}.txt").read_text()
    lines = stem.with_name(f"{stem.name}.taken.txt").read_text().splitlines()
    taken = {name: status == "0" for name, _space, status in (line.rpartition(" ") for line in lines)}
    return Recording(program, version, (etcd_flags if program == ETCD else apiserver_flags)(text), taken)


RECORDINGS = [
    load(ETCD if path.name.startswith(ETCD) else KUBE_APISERVER, path.name.rpartition("-")[2].removesuffix(".taken.txt"))
    for path in sorted((FIXTURES / "help").glob("*.taken.txt"))
]
recorded = pytest.mark.parametrize("recording", RECORDINGS, ids=lambda each: each.id)


def test_every_minor_that_can_be_run_is_recorded() -> None:
    assert {each.number[:2] for each in RECORDINGS if each.program == ETCD} == {(3, 5), (3, 6), (3, 7)}
    assert {each.number[:2] for each in RECORDINGS if each.program == KUBE_APISERVER} == {(1, minor) for minor in range(33, 38)}


@recorded
def test_the_recordings_are_read(recording: Recording) -> None:
    known = {ETCD: ("heartbeat-interval", "100"), KUBE_APISERVER: ("max-requests-inflight", "400")}[recording.program]
    assert recording.flags[known[0]][1] == known[1]
    assert len(recording.flags) > (80 if recording.program == ETCD else 150)


@recorded
def test_each_flag_is_there_in_exactly_the_versions_of_the_table(recording: Recording) -> None:
    component = COMPONENTS[recording.program]
    table = {name: flag.has(name, recording.number) for flag in component.flags for name in flag.lives}
    assert {name: recording.has(name) for name in table} == table


@recorded
def test_identity_is_made_of_real_flags(recording: Recording) -> None:
    """Each belongs to some version of the program, so that a slip of the pen cannot leave one unprotected."""
    of_any = {name for each in RECORDINGS if each.program == recording.program for name in (*each.flags, *each.taken)}
    assert COMPONENTS[recording.program].identity - {"config-file"} <= of_any  # that one is in etcd's usage lines


@recorded
def test_defaults_are_those_of_the_binary(recording: Recording) -> None:
    wrong: dict[str, Any] = {}
    for flag in COMPONENTS[recording.program].flags:
        name = flag.name_in(recording.number)
        if not flag.defaults or name not in recording.flags or flag.name in NOT_IN_HELP:
            continue
        said, table = recording.flags[name][1], flag.default(recording.number)
        if flag.type == "bool":
            # A boolean's help often gives no default, and pflag gives none that is false.
            said = said or (table or "" if recording.program == ETCD else "false")
        elif said in ("", "0", "0s"):
            said = EFFECTIVE.get(flag.name, "0" if not said and table in ("0", "0s") else said)
        if table is None or not flag.same(said, table):
            wrong[name] = (said, table)
    assert wrong == {}


@recorded
def test_types_and_bounds_let_the_default_pass(recording: Recording) -> None:
    """A boolean that only its flag gives, a number of ten digits and a list all parse as the table says."""
    for flag in COMPONENTS[recording.program].flags:
        default = flag.default(recording.number)
        if flag.known(recording.number) and default is not None:
            flag.parse(default)
        if flag.guide is not None:
            flag.parse(flag.guide)


@pytest.mark.parametrize("recording", [each for each in RECORDINGS if each.program == KUBE_APISERVER], ids=lambda each: each.id)
def test_types_are_those_of_the_binary(recording: Recording) -> None:
    wrong = {}
    for flag in COMPONENTS[KUBE_APISERVER].flags:
        if flag.name in recording.flags and flag.type not in PFLAG[recording.flags[flag.name][0]]:
            wrong[flag.name] = (flag.type, recording.flags[flag.name][0])
    assert wrong == {}


@recorded
def test_gates_are_there_in_exactly_the_versions_of_the_table(recording: Recording) -> None:
    component = COMPONENTS[recording.program]
    table = {gate: recording.number < gone for gate, gone in component.gates_gone.items()}
    table.update({flag.gate: recording.number >= flag.gate_since for flag in component.flags if flag.gate})
    assert {gate: recording.taken[f"gate {gate}"] for gate in table} == table
    recorded_gates = {name.removeprefix("gate ") for name in recording.taken if name.startswith("gate ")}
    assert recorded_gates == set(table)


@pytest.mark.parametrize("component", COMPONENTS.values(), ids=lambda each: each.name)
def test_no_name_stands_for_two_flags(component: Any) -> None:
    names = [name for flag in component.flags for name in flag.lives]
    assert sorted(names) == sorted(set(names))
    for flag in component.flags:
        assert list(flag.defaults) == sorted(flag.defaults, key=lambda each: each[0])
        assert bool(flag.formerly) == bool(flag.formerly_removed)


@pytest.mark.parametrize(
    ("version", "name"),
    [((3, 4, 45), "experimental-corrupt-check-time"), ((3, 5, 30), "experimental-corrupt-check-time"), ((3, 6), "corrupt-check-time"),
     ((3, 6, 16), "corrupt-check-time"), ((3, 7, 3), "corrupt-check-time"), ((4, 0), "corrupt-check-time")],
)
def test_a_renamed_flag_is_one_flag(version: tuple[int, ...], name: str) -> None:
    flag: Flag = COMPONENTS[ETCD].flag("experimental-corrupt-check-time")
    assert flag is COMPONENTS[ETCD].flag("corrupt-check-time")
    assert flag.name_in(version) == name
    assert flag.known(version)
