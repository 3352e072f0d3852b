#!/bin/sh
# Prepares a bare Debian 12 for the lab and the tests, as root: Debian packages, a Python environment in .work/venv and
# the checkout as a collection in .work/collections. Cheap when run again: only what is missing or outdated is done.
#
#   bootstrap.sh vm  installs QEMU too, for the virtual machines of tests/vm
#   KUBETUNE_PYTHON  the Python (>= 3.11) to use instead of the best one on PATH
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
work=$root/.work
venv=$work/venv
requirements=$root/tests/requirements.txt
begun=$(date +%s)
purpose=${1:-lab}

say() { printf '[bootstrap %3ds] %s\n' $(($(date +%s) - begun)) "$*" >&2; }
die() {
	printf 'bootstrap: %s\n' "$*" >&2
	exit 1
}

# Debian's packages which bring the commands that are missing.
missing_packages() {
	[ "$purpose" != vm ] || set -- "qemu-system-x86_64 qemu-system-x86" "qemu-img qemu-utils" "ssh openssh-client"
	while read -r command package; do
		[ -n "$command" ] || continue
		PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null 2>&1 || echo "$package"
	done <<-COMMANDS
		dockerd docker.io
		docker docker.io
		iptables iptables
		mmdebstrap mmdebstrap
		losetup mount
		mkfs.ext4 e2fsprogs
		mkfs.xfs xfsprogs
		sfdisk fdisk
		blkid util-linux
		ip iproute2
		git git
		make make
		age age
		gpg gnupg
		python3 python3
		$(printf '%s\n' "$@")
	COMMANDS
	[ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
	# A Python without ensurepip makes no usable environment; Debian keeps it in a package of its own.
	if [ -z "${KUBETUNE_PYTHON:-}" ] && ! best_python >/dev/null; then
		echo python3
		echo python3-venv
	fi
}

usable_python() {
	"$1" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

best_python() {
	for name in python3.14 python3.13 python3.12 python3.11 python3; do
		if command -v "$name" >/dev/null 2>&1 && usable_python "$name"; then
			command -v "$name"
			return
		fi
	done
	return 1
}

install_packages() {
	packages=$(missing_packages | sort -u | tr '\n' ' ')
	[ -n "$packages" ] || return 0
	[ "$(id -u)" = 0 ] || die "not root, and these packages are missing: $packages"
	command -v apt-get >/dev/null 2>&1 || die "no apt-get; install by hand what brings these Debian packages: $packages"
	log=$work/apt.log
	say "installing Debian packages: $packages(log in $log)"
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -q >"$log" 2>&1 || die "apt-get update failed, see $log"
	# RUNLEVEL=1 keeps a machine without systemd from starting an engine here: the lab starts its own, and stops it.
	# shellcheck disable=SC2086
	RUNLEVEL=1 apt-get install -q -y --no-install-recommends $packages >>"$log" 2>&1 || die "apt-get install failed, see $log"
}

make_environment() {
	python=${KUBETUNE_PYTHON:-$(best_python)} || die "no Python >= 3.11 with venv; set KUBETUNE_PYTHON"
	usable_python "$python" || die "KUBETUNE_PYTHON=$python: needs Python >= 3.11 with venv and ensurepip"
	stamp="$("$python" -V) $(sha256sum <"$requirements")"
	if [ -x "$venv/bin/python" ] && [ "$(cat "$venv/.stamp" 2>/dev/null)" = "$stamp" ]; then
		return
	fi
	say "making the Python environment with $("$python" -V) (log in $work/pip.log)"
	"$python" -m venv --clear "$venv"
	"$venv/bin/python" -m pip install --quiet -r "$requirements" >"$work/pip.log" 2>&1 || die "pip failed, see $work/pip.log"
	printf '%s\n' "$stamp" >"$venv/.stamp"
}

link_collection() {
	mkdir -p "$work/collections/ansible_collections/kubetune"
	ln -sfn "$root" "$work/collections/ansible_collections/kubetune/control_plane"
}

mkdir -p "$work"
install_packages
make_environment
link_collection
say "ready: $("$venv/bin/python" -V), $("$venv/bin/ansible" --version | sed -n 1p)"
