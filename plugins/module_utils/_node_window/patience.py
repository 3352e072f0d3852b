# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a window waits for what, and how much room it needs."""

from __future__ import annotations

#: Seconds on top of a pod's grace period, after which the kubelet kills it: the kubelet's own reaction.
EXIT = 45
#: Seconds for the kubelet to forget a pod that has ended; without it the next one only starts later.
HOUSEKEEPING = 6
#: Seconds more for the pod's worker in it, which shows nowhere; ten times as many are lost when the next pod comes before that.
FORGOTTEN = 1.0
#: Seconds for a kubelet to run before anything is touched: kubeadm's unit starts it again after 10 s (RestartSec).
KUBELET = 30
#: Seconds for the API server to be ready before anything is touched.
API_SERVER_PATIENCE = 10
#: Seconds until etcd answers, and the same for the API server, which kubeadm's startup probe allows 240. With a database for
#: which that probe needs a larger budget (`_static_pod.timing.startup_seconds`) both are as much longer.
ETCD_READY = 180
API_SERVER_READY = 300
#: Seconds between two looks at processes which have to stay.
WATCH_POLL = 0.5
#: Seconds until all members are whole and caught up again.
WHOLE = 120
#: Seconds to wait for somebody else's cluster lock, the same for a window that was cut off, and between two tries.
LOCK_WAIT = 300
LOCK_WAIT_CUT_OFF = 20
LOCK_PAUSE = 2.0
#: How many snapshots taken before a change a host keeps, and the bytes that must stay free beside one.
SNAPSHOTS_KEPT = 3
FREE_MARGIN = 256 * 2**20
#: Bytes of memory for each byte of log that a starting etcd reads: 3.3 GiB of it ended at a limit of 4 GiB (etcd 3.6.16).
REPLAY = 1.5
#: Bytes and inodes that a file system needs for manifests and journal.
FREE_BYTES, FREE_INODES = 16 * 2**20, 64
