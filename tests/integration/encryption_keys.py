# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Key pairs for encrypted backups, by the real programs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def age_keys(directory: Path) -> tuple[Path, Path]:
    """(recipients, identity)."""
    identity, recipients = directory / "identity.txt", directory / "recipients.txt"
    subprocess.run(["age-keygen", "-o", identity], check=True, capture_output=True)
    recipients.write_text(subprocess.run(["age-keygen", "-y", identity], check=True, capture_output=True, text=True).stdout)
    return recipients, identity


def gpg_keys(directory: Path) -> tuple[Path, Path]:
    home, public, private = directory / "gnupg", directory / "public.asc", directory / "private.asc"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", home, "--batch", "--pinentry-mode", "loopback", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-gen-key", "backup@example.org", "default", "default", "never"], check=True, capture_output=True)
    for path, command in ((public, "--export"), (private, "--export-secret-keys")):
        subprocess.run([*gpg, "--armor", "--output", path, command], check=True, capture_output=True)
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)
    return public, private


METHODS = [
    pytest.param(name, keys, marks=pytest.mark.skipif(not shutil.which(name), reason=f"{name} is not on this machine"))
    for name, keys in (("age", age_keys), ("gpg", gpg_keys))
]
