# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The target's own binary judges a command line before it is put into a live manifest (law 2).

``etcd FLAGS --version`` and ``kube-apiserver FLAGS --version`` parse all flags and feature gates, print the version and
exit: 0 when they are acceptable, 2 (etcd) or 1 (kube-apiserver) otherwise. Nothing listens, no file is opened.
Relations between flags are not checked that way; `_static_pod.checks` does that.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from typing import Any, Sequence

from .._errors import KubetuneError

#: What the line that tells why has in it, the most telling first.
_REASON_MARKS = (
    "unknown flag", "flag provided but not defined", "invalid argument", "invalid value", "unrecognized", "cannot set", 'err="', "rror",
)
#: What kube-apiserver (component-base/featuregate) says of a bad gate, without naming --feature-gates.
_GATE_MARKS = ("feature gate", "invalid value of", "missing bool value for")
#: Seconds. The binaries answer within one; a cold disk may need longer.
TIMEOUT = 30
#: The user who owns nothing (Linux' overflow uid and gid).
NOBODY = 65534


@dataclass(frozen=True)
class Verdict:
    """
    Attributes:
        accepted: the binary would start parsing-wise.
        flag: the flag that it names as the culprit, without dashes; empty where it names none.
        text: what it said, one line.
        notices: deprecation notices.
    """

    accepted: bool
    flag: str
    text: str
    notices: tuple[str, ...]


def version(program: str) -> str:
    """``3.6.16`` or ``1.36.3``; the path may be /proc/PID/exe, whatever the container runtime."""
    done = _run([program, "--version"])
    found = re.search(r"v?(\d+\.\d+\.\d+\S*)", done.stdout)
    if done.returncode != 0 or not found:
        raise KubetuneError(f"{program} --version says nothing usable (status {done.returncode}): {done.stdout[:200]!r}")
    return found.group(1)


def judge(program: str, flags: Sequence[str]) -> Verdict:
    done = _run([program, *flags, "--version"])
    return understand(done.returncode, done.stderr + "\n" + done.stdout, flags)


def understand(status: int, output: str, flags: Sequence[str]) -> Verdict:
    """The verdict in what a binary said, which ended with ``status``, of ``flags``."""
    said = [line.strip() for line in output.splitlines() if line.strip()]
    notices = tuple(line for line in said if "deprecated" in line.lower())
    if status == 0:
        return Verdict(True, "", "", notices)
    text = _reason(said)
    return Verdict(False, _culprit(text, flags), text, notices)


def _reason(lines: Sequence[str]) -> str:
    """The line that tells why; the rest is usage text."""
    for mark in _REASON_MARKS:
        for line in lines:
            if mark in line:
                said = re.search(r'err="((?:[^"\\]|\\.)*)"', line)  # klog's structured form
                return said.group(1).replace('\\"', '"') if said else re.sub(r"^Error: ", "", line)
    return lines[0] if lines else "it exits without a word"


def _culprit(text: str, flags: Sequence[str]) -> str:
    given = {flag.lstrip("-").partition("=")[0] for flag in flags}
    named = re.findall(r"(?<!\w)-{1,2}([a-z0-9][a-z0-9-]*)", text)
    if any(mark in text for mark in _GATE_MARKS):
        named.append("feature-gates")
    return next((str(name) for name in named if name in given), "")


def _run(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a binary that may be anything as nobody: it only has to read its own flags."""
    try:
        program = os.open(argv[0], os.O_RDONLY)
    except OSError as exc:
        raise KubetuneError(f"{argv[0]} cannot be asked for its verdict: {exc}") from exc
    nobody: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    try:
        return subprocess.run(
            [f"/proc/self/fd/{program}", *argv[1:]],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            stdin=subprocess.DEVNULL,
            env={"LC_ALL": "C"},
            pass_fds=(program,),
            **nobody,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise KubetuneError(f"{argv[0]} cannot be asked for its verdict: {exc}") from exc
    finally:
        os.close(program)
