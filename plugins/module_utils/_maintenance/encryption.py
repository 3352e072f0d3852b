# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Encryption with age or GPG: recipients' public keys are enough to write, only who has a private key can read.

gpg works with an empty home of its own each time, so that nobody's key ring or configuration takes part.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Iterator

from .._commands import ENVIRONMENT, background, output
from .._errors import KubetuneError
from .._node.state import free_bytes
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
            command = [*_gpg(home), "--trust-model", "always", "--compress-level", "1", *_gpg_recipients(home, recipients)]
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
def plain(config: Config | None, path: Path, method: str, size: int) -> Iterator[Path]:
    """The file itself, or what it holds, for the time of the block.

    Args:
        config: where the private key is, and where there is room; not needed for what is not encrypted.
        method: by which it was encrypted: none, age or gpg.
        size: bytes of what it holds.

    Raises:
        KubetuneError: no private key is configured, it is not one of those which the file was encrypted for, or there is no room.
    """
    if method == "none":
        yield path
        return
    identity = config.backup.identity_file if config else ""
    if config is None or not identity:
        raise KubetuneError(
            f"{path.name} is encrypted with {method}, and no private key is configured on this host (backup.identity_file): configure it, or "
            f"decrypt the file where the key is, and take the plain one, with {path.name.removesuffix(f'.db.{method}')}.json beside it"
        )
    directory = Path(config.drill.directory)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _private_directory(directory) as scratch, _home(config) as home:
        free, needed = free_bytes(directory), size + config.backup.min_free_bytes
        if free < needed:
            raise KubetuneError(
                f"{directory} has {free >> 20} MiB free, and {needed >> 20} are needed to decrypt {path.name}: give it space, or set drill.directory"
            )
        target = scratch / "snapshot.db"
        if method == "age":
            command = ["age", "--decrypt", "--identity", identity, "--output", str(target), str(path)]
        else:
            output([*_gpg(home), "--import", identity], environment=ENVIRONMENT, timeout=60)
            command = [*_gpg(home), "--pinentry-mode", "loopback", "--passphrase", "", "--output", str(target), "--decrypt", str(path)]
        output(command, environment=ENVIRONMENT, timeout=_TIMEOUT)
        os.chmod(target, 0o600)
        yield target


@contextmanager
def _private_directory(parent: Path) -> Iterator[Path]:
    """A directory for what is not encrypted. What a killed process left there goes first: nobody holds its lock any more."""
    with _locked(parent):
        for left in parent.glob("plain-*"):
            with suppress(BlockingIOError), _locked(left, fcntl.LOCK_NB):
                shutil.rmtree(left)
        made = Path(tempfile.mkdtemp(prefix="plain-", dir=parent))
        held = ExitStack()
        held.enter_context(_locked(made))
    with held:
        try:
            yield made
        finally:
            shutil.rmtree(made)


@contextmanager
def _locked(directory: Path, flags: int = 0) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | flags)
        yield
    finally:
        os.close(descriptor)


def _gpg_recipients(home: str, keys: str) -> list[str]:
    """Options that name every key of a file: gpg's own --recipient-file takes the first of them, and says nothing of the others."""
    output([*_gpg(home), "--import", keys], environment=ENVIRONMENT, timeout=60)
    told = output([*_gpg(home), "--list-keys", "--with-colons"], environment=ENVIRONMENT, timeout=60)
    fields = [line.split(":") for line in told.splitlines()]
    # The first fingerprint behind a key is its own, those behind a subkey are the subkeys'.
    fingerprints = [after[9] for before, after in zip(fields, fields[1:]) if before[0] == "pub" and after[0] == "fpr"]
    return [option for each in fingerprints for option in ("--recipient", each)]


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
