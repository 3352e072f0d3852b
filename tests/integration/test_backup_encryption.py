# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups that are encrypted, with files of the host, and taken elsewhere."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Callable

import pytest

from tests.integration.backup_files import files, flip, sidecar_of
from tests.integration.encryption_keys import METHODS, gpg_keys
from tests.integration.maintenance_node import Node


def run_node_with(node: Node, method: str, recipients: Path, identity: Path | None) -> None:
    node.config["backup"].update(encryption=method, recipients_file=str(recipients), identity_file=str(identity or ""))


@pytest.mark.parametrize(("method", "keys"), METHODS)
def test_encrypted_backup_with_files_of_the_host(
    shared_node: Callable[[], Node], tmp_path_factory: pytest.TempPathFactory, method: str, keys: Callable[[Path], tuple[Path, Path]]
) -> None:
    node = shared_node()
    # gpg's sockets take a short path.
    recipients, identity = keys(tmp_path_factory.mktemp("k"))
    secret = node.root / "pki/ca.key"
    secret.parent.mkdir()
    secret.write_text("the key of the cluster")
    run_node_with(node, method, recipients, None)
    node.config["backup"]["host_paths"] = [str(secret.parent)]
    node.cluster.client().put("/registry/secrets/plain", "in-clear-text")
    run = node.run("backup")
    assert run.status == 0, run.text
    (snapshot,) = node.backups.glob(f"*/*.db.{method}")
    stem = snapshot.name.removesuffix(f".db.{method}")
    assert files(node) == [snapshot.name, f"{stem}.host.tar.{method}", f"{stem}.json"]
    assert {path.stat().st_mode & 0o777 for path in node.backups.glob("*/*")} == {0o600}
    for path in node.root.rglob("*"):
        if path.is_file() and path != secret:
            content = path.read_bytes()
            assert b"in-clear-text" not in content and b"the key of the cluster" not in content, path
    # Without the private key only what is encrypted can be compared; with it all is.
    assert "what is in it was not looked at" in node.run("verify").text
    assert "no private key is configured on this host" in node.run("drill").text
    run_node_with(node, method, recipients, identity)
    good = node.run("verify")
    assert good.status == 0 and good.of("verify", "ok")[0]["verified_by"].startswith("etcdutl"), good.text
    drill = node.run("drill")
    assert drill.status == 0, drill.text
    assert [path for path in (node.root / "drill").iterdir()] == []

    archive = node.backups / snapshot.parent.name / f"{stem}.host.tar.{method}"
    if method == "age":
        tar = subprocess.run(["age", "-d", "-i", identity, archive], check=True, capture_output=True).stdout
        out = tmp_path_factory.mktemp("out")
        subprocess.run(["tar", "-x", "-C", out], input=tar, check=True)
        assert (out / str(secret).lstrip("/")).read_text() == "the key of the cluster"
    flip(archive, 300)
    assert "is damaged" in node.run("verify").text


@pytest.mark.parametrize(("method", "keys"), METHODS)
def test_recipients_that_are_none_leave_no_backup_and_no_plain_file(
    shared_node: Callable[[], Node], tmp_path: Path, method: str, keys: object
) -> None:
    node = shared_node()
    (tmp_path / "nobody").write_text("nobody\n")
    run_node_with(node, method, tmp_path / "nobody", None)
    run = node.run("backup")
    assert run.status == 13 and method in run.text and "failed with status" in run.text and "nobody" in run.text, run.text
    assert files(node) == []


@pytest.mark.parametrize(("method", "keys"), METHODS)
def test_an_encrypted_snapshot_becomes_a_data_directory_where_its_key_is(
    shared_node: Callable[[], Node], tmp_path_factory: pytest.TempPathFactory, method: str, keys: Callable[[Path], tuple[Path, Path]]
) -> None:
    node, directory = shared_node(), tmp_path_factory.mktemp("k")
    recipients, identity = keys(directory)
    run_node_with(node, method, recipients, None)
    assert node.run("backup").status == 0
    (snapshot,) = node.backups.glob(f"*/*.db.{method}")
    into = directory / "data"
    options = ["--into", str(into), "--name", "cp1", "--peer-url", "https://127.0.0.1:1", "--token", "another"]
    run = node.run("restore", str(snapshot), *options)
    assert run.status == 14 and "no private key is configured on this host" in run.text and not into.exists()
    run_node_with(node, method, recipients, identity)
    # One that was copied here without its sidecar, too.
    for path in (snapshot, Path(shutil.copy(snapshot, directory))):
        run = node.run("restore", str(path), *options)
        assert run.status == 0, run.text
        assert (into / "member/snap/db").exists()
        shutil.rmtree(into)
    assert list((node.root / "drill").iterdir()) == []


@pytest.mark.parametrize(("method", "keys"), METHODS)
def test_every_recipient_can_read_an_encrypted_backup(
    shared_node: Callable[[], Node], tmp_path_factory: pytest.TempPathFactory, method: str, keys: Callable[[Path], tuple[Path, Path]]
) -> None:
    node, directory = shared_node(), tmp_path_factory.mktemp("k")
    pairs = [keys(tmp_path_factory.mktemp("k")) for _each in range(2)]
    recipients = directory / "recipients"
    recipients.write_text("".join(public.read_text() for public, _private in pairs))
    run_node_with(node, method, recipients, None)
    assert node.run("backup").status == 0
    for _public, private in pairs:
        run_node_with(node, method, recipients, private)
        run = node.run("verify")
        assert run.status == 0 and "was not looked at" not in run.text, run.text


def test_what_a_killed_process_had_decrypted_goes_with_the_next_one_that_decrypts(
    shared_node: Callable[[], Node], tmp_path_factory: pytest.TempPathFactory
) -> None:
    node = shared_node()
    recipients, identity = gpg_keys(tmp_path_factory.mktemp("k"))
    run_node_with(node, "gpg", recipients, identity)
    assert node.run("backup").status == 0
    left = node.root / "drill/plain-of-a-killed-one/snapshot.db"
    left.parent.mkdir(parents=True)
    left.write_text("every secret of the cluster")
    assert node.run("verify").status == 0
    assert list((node.root / "drill").iterdir()) == []
    node.config["backup"]["min_free_bytes"] = 1 << 40
    run = node.run("verify")
    assert run.status == 14 and "are needed to decrypt etcd-snapshot-" in run.text and list((node.root / "drill").iterdir()) == []


def test_a_link_among_the_files_of_the_host_is_followed(shared_node: Callable[[], Node], tmp_path_factory: pytest.TempPathFactory) -> None:
    node, directory = shared_node(), tmp_path_factory.mktemp("k")
    recipients, identity = gpg_keys(directory)
    run_node_with(node, "gpg", recipients, identity)
    real, link = node.root / "elsewhere", node.root / "pki"
    real.mkdir()
    (real / "ca.key").write_text("the key of the cluster")
    link.symlink_to(real)
    node.config["backup"]["host_paths"] = [str(link)]
    assert node.run("backup").status == 0
    (archive,) = node.backups.glob("*/*.host.tar.gpg")
    home = directory / "gnupg"
    tar = subprocess.run(
        ["gpg", "--homedir", home, "--batch", "--pinentry-mode", "loopback", "--passphrase", "", "--decrypt", archive], check=True, capture_output=True
    ).stdout
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)
    with tarfile.open(fileobj=io.BytesIO(tar)) as content:
        member = content.extractfile(f"{link}/ca.key".lstrip("/"))
        assert member and member.read() == b"the key of the cluster"


@pytest.fixture
def offsite(tmp_path: Path) -> Path:
    """A tool that copies what it is given, and tells what it was told."""
    tool = tmp_path / "offsite"
    tool.write_text(
        "#!/bin/sh\n"
        'test "$1" = --to || exit 9\n'
        'target=$2; shift 2; cp "$@" "$target" || exit 1\n'
        'env | grep -E "^(KUBETUNE_|HOME=)" > "$target/environment"; touch "$HOME/kept" || exit 2\n'
        'echo "copied $# files"\n'
    )
    tool.chmod(0o755)
    return tool


def test_copy_command_takes_every_file_elsewhere(shared_node: Callable[[], Node], offsite: Path, tmp_path: Path) -> None:
    node = shared_node()
    target = tmp_path / "bucket"
    target.mkdir()
    node.config["backup"]["copy_command"] = [str(offsite), "--to", str(target)]
    run = node.run("backup")
    assert run.status == 0, run.text
    assert "copied 2 files" in run.text and not run.of("backup", "warning")
    (snapshot,) = node.snapshots()
    for path in (snapshot, sidecar_of(snapshot)):
        assert (target / path.name).read_bytes() == path.read_bytes()
    lines = (target / "environment").read_text().splitlines()
    # Of the tests themselves there may be others, such as the lab's name.
    told = dict(line.split("=", 1) for line in lines if line.startswith(("KUBETUNE_BACKUP_", "HOME=")))
    assert told == {
        "KUBETUNE_BACKUP_FILE": str(snapshot),
        "KUBETUNE_BACKUP_SIDECAR": str(sidecar_of(snapshot)),
        "KUBETUNE_BACKUP_DIRECTORY": str(node.backups),
        "KUBETUNE_BACKUP_MEMBER": "cp1",
        "HOME": str(node.root / "state/copy"),
    }
    assert node.metrics()["backup_copied_elsewhere"] == 1


def test_copy_that_fails_is_a_failure_of_its_own_and_the_backup_stays(shared_node: Callable[[], Node], offsite: Path) -> None:
    node = shared_node()
    node.config["backup"]["copy_command"] = [str(offsite), "--to", "/does/not/exist"]
    run = node.run("backup")
    assert run.status == 15
    assert run.of("backup", "done") and "failed with status 1: cp:" in run.text
    assert len(node.snapshots()) == 1
    metrics = node.metrics()
    assert (metrics['step_success{step="backup"}'], metrics['step_success{step="copy"}']) == (1, 0)
    node.config["backup"].update(copy_command=["sh", "-c", "exec sleep 60"], copy_timeout_seconds=1)
    assert "did not end within 1 s, and was killed" in node.run("backup").text
