# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Encryption with age or GPG: recipients' public keys are enough to write, only who has a private key can read.

gpg works with an empty home of its own each time, so that nobody's key ring or configuration takes part.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Iterator

from .._commands import ENVIRONMENT, background, output
from .._errors import KubetuneError
from .config import Config

#: Seconds after the last byte was written to it.
_TIMEOUT = 3600.0
_CHUNK = 1 << 20


@contextmanager
def encrypting(config: Config, target: Path) -> Iterator[IO[bytes]]:
    """What is written to what this yields is encrypted into ``target``, which has to be new.

    Raises:
        KubetuneError: the program is missing, or does not take the recipients.
    """
    recipients = config.backup.recipients_file
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with _home(config) as home:
        if config.backup.encryption == "age":
            command = ["age", "--encrypt", "--recipients-file", recipients, "--output", str(target)]
        else:
            # A database of JSON and protobuf shrinks well, and the first level costs least.
            command = [*_gpg(home), "--trust-model", "always", "--compress-level", "1", "--recipient-file", recipients]
            command += ["--output", str(target), "--encrypt"]
        with background(command, ENVIRONMENT, feed=True) as program:
            assert program.process.stdin is not None
            try:
                yield program.process.stdin
                program.process.stdin.close()
            except BrokenPipeError:
                pass  # it has ended, and says why
            program.finish(_TIMEOUT)
    os.chmod(target, 0o600)


def encrypt_file(config: Config, source: Path, target: Path) -> None:
    """See `encrypting`."""
    with encrypting(config, target) as sink, open(source, "rb") as stream:
        shutil.copyfileobj(stream, sink, _CHUNK)


@contextmanager
def plain(config: Config, path: Path, method: str) -> Iterator[Path]:
    """The file itself, or what it holds, for the time of the block.

    Args:
        method: by which it was encrypted: none, age or gpg.

    Raises:
        KubetuneError: no private key is configured, or it is not one of those which the file was encrypted for.
    """
    if method == "none":
        yield path
        return
    identity = config.backup.identity_file
    if not identity:
        raise KubetuneError(
            f"{path.name} is encrypted with {method}, and no private key is configured on this host (backup.identity_file): configure it, or "
            f"decrypt the file where the key is, and take the plain one, with {path.name.removesuffix(f'.db.{method}')}.json beside it"
        )
    directory = Path(config.drill.directory)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="plain-", dir=directory) as scratch, _home(config) as home:
        target = Path(scratch) / "snapshot.db"
        if method == "age":
            command = ["age", "--decrypt", "--identity", identity, "--output", str(target), str(path)]
        else:
            output([*_gpg(home), "--import", identity], environment=ENVIRONMENT, timeout=60)
            command = [*_gpg(home), "--pinentry-mode", "loopback", "--passphrase", "", "--output", str(target), "--decrypt", str(path)]
        output(command, environment=ENVIRONMENT, timeout=_TIMEOUT)
        os.chmod(target, 0o600)
        yield target


def _gpg(home: str) -> list[str]:
    # --yes: the target is there already, empty and private.
    return ["gpg", "--homedir", home, "--batch", "--no-tty", "--quiet", "--no-options", "--yes"]


@contextmanager
def _home(config: Config) -> Iterator[str]:
    """A directory for gpg's files and sockets; its agent, if one was started, ends with the block."""
    # A socket's path may have 107 bytes, so the state directory, however deep, is no place for it.
    with tempfile.TemporaryDirectory(prefix="kubetune-gpg-") as home:
        try:
            yield home
        finally:
            # private-keys-v1.d comes with the agent.
            if (Path(home) / "private-keys-v1.d").exists():
                output(["gpgconf", "--homedir", home, "--kill", "all"], check=False)
