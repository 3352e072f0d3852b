# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command line of the lab."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import subprocess
import sys

from . import binaries, cluster, engine, host_sysctls, images, machines, nodes, versions
from .console import run, say
from .errors import LabError
from .settings import Settings, from_environment, names_in_checkout, state_folder

_VARIABLES = """\
variables:
  KUBETUNE_LAB_NAME        prefix of containers and network (kubetune); other names are other labs
  KUBETUNE_LAB_KUBERNETES  version of Kubernetes (1.36.3)
  KUBETUNE_LAB_ETCD        version of etcd (3.6.16)
  KUBETUNE_LAB_NODES       number of control-plane nodes (3)
  KUBETUNE_ASSETS          cache of binaries and images (~/.cache/kubetune)
"""


def _empty_lab(settings: Settings, network: str) -> nodes.Lab:
    return nodes.Lab(
        name=settings.name, state=settings.state, assets=settings.assets, kubernetes=settings.kubernetes, etcd=settings.etcd,
        network=network, nodes=[], bare=[],
    )  # fmt: skip


def _known_lab(settings: Settings, network: str) -> nodes.Lab:
    """The lab as written down, or an empty one; LabError when it runs other versions than asked for."""
    try:
        lab = nodes.load(settings)
    except LabError:
        return _empty_lab(settings, network)
    if (lab.kubernetes, lab.etcd) != (settings.kubernetes, settings.etcd):
        raise LabError(
            f"lab {lab.name} runs Kubernetes {lab.kubernetes} and etcd {lab.etcd}, asked for are {settings.kubernetes} and "
            f"{settings.etcd}: `python -m tests.lab down` first, or choose another KUBETUNE_LAB_NAME"
        )
    return lab


def up(settings: Settings, bare: str | None) -> None:
    """Brings the cluster, or a bare node, up from whatever is there."""
    settings.state.mkdir(parents=True, exist_ok=True)
    binaries.provide(settings)
    engine.start(settings)
    images.provide_archive(settings)
    images.provide_node_image(settings)
    host_sysctls.prepare()
    lab = _known_lab(settings, machines.network(settings))
    if bare:
        lab = cluster.create_bare(settings, lab, bare)
        say(f"bare node {bare} is up: {lab.node(bare).container}, inventory {lab.state / f'inventory-{bare}.yml'}")
        return
    surplus = {node.name for node in lab.nodes} - set(settings.node_names)
    if surplus:
        raise LabError(f"lab {lab.name} has more nodes than asked for ({', '.join(sorted(surplus))}): `python -m tests.lab reset` starts over")
    lab = cluster.create(settings, lab)
    say(f"lab {lab.name} is up: {len(lab.nodes)} nodes, Kubernetes {lab.kubernetes}, etcd {lab.etcd}, inventory {lab.inventory}")


def down(settings: Settings, bare: str | None = None, *, purge: bool = False) -> None:
    """Removes a bare node, or all of the lab; the last lab also gives back what the machine shares with its nodes."""
    if engine.answers():
        if bare:
            _down_bare(settings, bare)
            return
        for name in machines.names(settings):
            machines.remove(settings, name)
        if run(["docker", "network", "inspect", settings.name], check=False).returncode == 0:
            run(["docker", "network", "rm", settings.name])
        others = engine.labs()
        if others:
            say(f"other labs are up ({', '.join(sorted(others))}): the engine and the kernel's values stay")
        else:
            host_sysctls.restore()
            if purge:
                images.purge()
            ours = engine.own_pid() is not None
            engine.stop()
            if purge and ours:
                shutil.rmtree(settings.assets / "engine", ignore_errors=True)
    else:
        host_sysctls.restore()
        for name in {file.name.rpartition("-")[0] for file in (settings.state / "disks").glob("*.img")}:
            for file in machines.disk_files(settings, name):
                machines.disks.remove(file)
    shutil.rmtree(settings.state, ignore_errors=True)
    say(f"lab {settings.name} is down")


def _down_bare(settings: Settings, name: str) -> None:
    machines.remove(settings, name)
    lab = nodes.load(settings)
    (lab.state / f"inventory-{name}.yml").unlink(missing_ok=True)
    nodes.Lab(**{**vars(lab), "bare": [node for node in lab.bare if node.name != name]}).save()
    say(f"bare node {name} is gone")


def reset(settings: Settings) -> None:
    """Makes the cluster anew; binaries, images and bare nodes stay."""
    engine.start(settings)
    lab = _known_lab(settings, machines.network(settings))
    bare = {node.name for node in lab.bare}
    for name in machines.names(settings):
        if name not in bare:
            machines.remove(settings, name)
    nodes.Lab(**{**vars(lab), "nodes": []}).save()
    up(settings, None)


def status(settings: Settings) -> int:
    """Prints what is up; status 0 when every node is healthy."""
    lab = nodes.load(settings)
    print(f"lab {lab.name}: Kubernetes {lab.kubernetes}, etcd {lab.etcd}, network {lab.network}.0/24, inventory {lab.inventory}")
    healthy = True
    for node in [*lab.nodes, *lab.bare]:
        state = machines.state_of(node.container)
        running = state == "running"
        etcd, api = (running and node.etcd_ready()), (running and node.api_ready())
        healthy = healthy and (node.bare or (etcd and api))
        words = {True: "ready", False: "not ready"}
        kind = "bare" if node.bare else "member"
        print(
            f"  {node.container} ({kind}) {state or 'missing'}, {node.address}, etcd {words[etcd]}, API server {words[api]}, "
            f"data {node.data_device}, WAL disk {node.wal_device}"
        )
    return 0 if healthy else 1


def main(arguments: list[str]) -> int:
    """Runs one command; gives its status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab", description="Real Kubernetes control planes in containers on this machine.",
        epilog=_VARIABLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (("up", "bring the cluster up, from whatever is there"), ("down", "remove the lab")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--bare", metavar="NAME", help="a single node with certificates but no manifests, beside the cluster")
        if name == "down":
            command.add_argument("--all", action="store_true", help="every lab of this checkout, whatever its name")
            command.add_argument("--purge", action="store_true", help="images in the engine too")
    commands.add_parser("reset", help="make the cluster anew")
    commands.add_parser("status", help="print what is up; status 1 when something is not ready")
    command = commands.add_parser("run", help="run a command in a node")
    command.add_argument("node")
    command.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND ...")
    command = commands.add_parser("assets", help="fill the cache and stop there")
    command.add_argument("--benchmark", action="store_true", help="etcd's load generator too; prints where it is")
    commands.add_parser("versions", help="fill the cache with the binaries of every version that is tested; prints their folders")
    options = parser.parse_args(arguments)
    try:
        settings = from_environment()
        if options.command == "up":
            up(settings, options.bare)
        elif options.command == "down":
            for name in (names_in_checkout() if options.all else [settings.name]):
                lab = dataclasses.replace(settings, name=name, state=state_folder(name))
                down(lab, options.bare, purge=options.purge)
        elif options.command == "reset":
            reset(settings)
        elif options.command == "status":
            return status(settings)
        elif options.command == "run":
            terminal = ["--interactive", "--tty"] if sys.stdin.isatty() else ["--interactive"]
            container = nodes.load(settings).node(options.node).container
            return subprocess.run(["docker", "exec", *terminal, container, *(options.words or ["bash"])], check=False).returncode
        elif options.command == "assets":
            binaries.provide(settings)
            images.provide_base(settings)
            images.provide_archive(settings)
            if options.benchmark:
                print(binaries.provide_benchmark(settings))
        elif options.command == "versions":
            print(*versions.provide(settings), sep="\n")
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
