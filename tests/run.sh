#!/usr/bin/env bash
# All tests that `make test` promises, on a lab of their own which is gone afterwards, whatever happens.
#
#   tests/run.sh              lint, unit, real processes, the molecule scenario, the short faults
#   tests/run.sh faults       the molecule scenario's lab, and every fault (over an hour); with --write-table docs/faults.md is written,
#                             with --table-rows docs/faults.json --only-missing it goes on where a session before ended
#   tests/run.sh maintenance  the lab's etcd defragmented, destroyed and restored
#
# Called by make, which provides the Python environment on PATH.
set -euo pipefail
cd "$(dirname "$0")/.."
export KUBETUNE_LAB_NAME=kubetune-test ANSIBLE_COLLECTIONS_PATH=$PWD/.work/collections ANSIBLE_NOCOLOR=1
began=$SECONDS

part() { printf '\n===== %s (%d s)\n' "$1" $((SECONDS - began)); }

clean_up() {
	status=$?
	part "the lab goes away"
	python -m tests.lab down || status=1
	exit "$status"
}
trap clean_up EXIT

if [ "${1:-all}" = all ]; then
	part "lint"
	ansible-lint
	part "unit tests"
	python -m pytest tests/unit -q
	part "binaries of Kubernetes and etcd"
	python -m tests.lab assets
	part "tests with real processes"
	python -m pytest tests/integration -q
fi

if [ "${1:-all}" = maintenance ]; then
	part "the lab, tuned"
	python -m tests.lab up
	ansible-playbook -i .work/lab-$KUBETUNE_LAB_NAME/inventory.yml kubetune.control_plane.site -e node_window_watch_seconds=0
	part "maintenance and restores"
	python -m pytest tests/maintenance -v
	exit
fi

part "molecule: check, converge, idempotence, verify on three real nodes"
molecule reset --scenario-name default >/dev/null
molecule test --scenario-name default --destroy never --no-report --no-command-borders

part "molecule: a control plane from our manifests alone"
molecule reset --scenario-name standalone >/dev/null
molecule test --scenario-name standalone --no-report --no-command-borders

part "faults, and what kubeadm keeps, on the three nodes"
if [ "${1:-all}" = faults ]; then
	python -m pytest tests/faults tests/persistence -v "${@:2}"
else
	python -m pytest tests/faults tests/persistence -v -m "not long"
fi
