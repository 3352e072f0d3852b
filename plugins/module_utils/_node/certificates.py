# Copyright (c) 2026, kubetune contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a certificate ends, read from its PEM file with the standard library alone."""

from __future__ import annotations

import re
import ssl
from datetime import datetime, timezone
from pathlib import Path

from .._errors import KubetuneError

_UTC_TIME, _GENERALIZED_TIME, _SEQUENCE = 0x17, 0x18, 0x30
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def not_after(path: Path) -> datetime:
    """The end of the first certificate of the file.

    Raises:
        KubetuneError: the file is missing, unreadable or no certificate.
    """
    der = first(path)
    try:
        return _validity_end(der)
    except (ValueError, IndexError) as exc:
        raise KubetuneError(f"the certificate cannot be read: {exc}") from exc


def first(path: Path) -> bytes:
    """The first certificate of a PEM file, which is the one that is presented, as DER.

    Raises:
        KubetuneError: the file is missing, unreadable or holds none.
    """
    try:
        text = path.read_text(errors="replace")
    except OSError as exc:
        raise KubetuneError(f"{exc.strerror or exc}") from exc
    found = _PEM.search(text)
    if not found:
        raise KubetuneError("the file holds no PEM certificate")
    try:
        return ssl.PEM_cert_to_DER_cert(found.group(0))
    except ValueError as exc:
        raise KubetuneError(f"the certificate cannot be read: {exc}") from exc


def _validity_end(der: bytes) -> datetime:
    """X.509: Certificate{TBSCertificate{[0] version, serial, algorithm, issuer, validity{notBefore, notAfter}}}."""
    _tag, start, _end = _element(der, 0)
    _tag, position, end = _element(der, start)
    while position < end:
        tag, inner, position_after = _element(der, position)
        if tag == _SEQUENCE and der[inner] in (_UTC_TIME, _GENERALIZED_TIME):
            _tag, _inner, second = _element(der, inner)
            tag, inner, stop = _element(der, second)
            return _time(tag, der[inner:stop].decode("ascii"))
        position = position_after
    raise ValueError("it has no validity")


def _element(der: bytes, position: int) -> tuple[int, int, int]:
    """(tag, start of the content, end of the content) of the DER element at a position."""
    length = der[position + 1]
    start = position + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(der[start:start + count], "big")
        start += count
    if start + length > len(der):
        raise ValueError("it is cut short")
    return der[position], start, start + length


def _time(tag: int, text: str) -> datetime:
    form = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text, form).replace(tzinfo=timezone.utc)
