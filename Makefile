# `make demo` tunes a real three-node control plane; `make test` runs the tests. Both begin on a bare Debian 12, as root.
SHELL := /bin/bash
VENV := $(CURDIR)/.work/venv
export PATH := $(VENV)/bin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.work/collections

.PHONY: help bootstrap lab demo test test-faults test-maintenance test-upgrade test-vm test-versions benchmark benchmark-rolling benchmark-defragmentation benchmark-leadership benchmark-backup benchmark-wal clean

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

bootstrap: ## packages, Python environment and collection path (cheap when done)
	@tests/lab/bootstrap.sh

lab: bootstrap ## three real control-plane nodes on this machine
	@python -m tests.lab up

demo: lab ## the lab, tuned by the collection
	@ansible-playbook -i .work/lab/inventory.yml kubetune.control_plane.site

test: bootstrap ## the tests: lint, unit, real processes, the molecule scenario, the short faults
	@tests/run.sh

test-faults: bootstrap ## every fault on the real lab (long)
	@tests/run.sh faults

test-maintenance: bootstrap ## the lab's etcd defragmented, destroyed and restored (long)
	@tests/run.sh maintenance

test-upgrade: bootstrap ## a tuned cluster from one Kubernetes minor to the next with kubeadm (builds a second release)
	@tests/upgrade/run.sh

test-vm: ## the collection in a virtual machine with a kernel, disks and reboots of its own (emulated where there is no KVM)
	@tests/lab/bootstrap.sh vm
	@python -m pytest tests/vm -v

test-versions: bootstrap ## the guide on every version of etcd and kube-apiserver that can be built; writes docs/versions.md
	@python -m tests.lab versions
	@KUBETUNE_TEST_VERSIONS=all python -m pytest tests/integration/test_versions.py -v

benchmark: lab ## what a client notices of site.yml: longest gap, lost writes, each node's window
	@python -m tests.benchmarks.site_gap

benchmark-rolling: lab ## 20 rolling changes under 50 writes a second: gaps, losses, windows, how each process ended
	@python -m tests.benchmarks.rolling

benchmark-defragmentation: lab ## what clients feel of a defragmentation: the guide's script and both methods of the maintenance, in turns
	@ansible-playbook -i .work/lab/inventory.yml kubetune.control_plane.site
	@python -m tests.benchmarks.defragmentation

benchmark-leadership: lab ## what clients feel when etcd's leadership moves
	@python -m tests.benchmarks.leadership

benchmark-backup: bootstrap ## a backup of the maintenance beside etcdctl's, in turns
	@python -m tests.lab assets
	@python -m tests.benchmarks.backup

benchmark-wal: ## the WAL's fsync on a shared disk and on its own, in a virtual machine
	@tests/lab/bootstrap.sh vm
	@python -m tests.benchmarks.wal_disk

clean: ## remove the lab, the engine that it started, and .work
	@if [ -x $(VENV)/bin/python ]; then $(VENV)/bin/python -m tests.lab down --all --purge; fi
	@rm -rf .work
