#!/usr/bin/env bash
# A tuned cluster from one Kubernetes minor to the next, on a lab of its own which is gone afterwards, whatever happens.
#
#   KUBETUNE_UPGRADE_FROM=1.35.4 KUBETUNE_UPGRADE_TO=1.36.3 tests/upgrade/run.sh
#
# Called by make, which provides the Python environment on PATH. Not part of `make test`: a second release has to be built.
set -euo pipefail
cd "$(dirname "$0")/../.."
export KUBETUNE_LAB_NAME=kubetune-upgrade ANSIBLE_COLLECTIONS_PATH=$PWD/.work/collections ANSIBLE_NOCOLOR=1
export KUBETUNE_LAB_KUBERNETES=${KUBETUNE_UPGRADE_FROM:-1.35.4} KUBETUNE_UPGRADE_TO=${KUBETUNE_UPGRADE_TO:-1.36.3}
trap 'status=$?; python -m tests.lab down || status=1; exit "$status"' EXIT
python -m tests.lab up
python -m pytest tests/upgrade -v
