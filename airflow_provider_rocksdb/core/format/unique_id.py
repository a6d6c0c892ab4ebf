"""Unique ids of SST files, as far as they tell which session wrote one (RocksDB: ``table/unique_id.cc``).

A MANIFEST has 16 bytes for each SST file since RocksDB 7.3: two fixed64. The first is the lower half of the session id
of the process that wrote the file, the second a hash of the other half and the database's id, with the file's original
number in it. A session id in text is two numbers to the base 36, the second of 12 digits: ``upper << 2 | lower >> 62``
and ``lower & (2**62 - 1)``.
"""

from __future__ import annotations

_BYTES = 16
_LOW_DIGITS = 12
_LENGTHS = range(13, 25)  # of a session id: what RocksDB decodes
_UINT62 = (1 << 62) - 1
_UINT64 = (1 << 64) - 1


def lower_session_of_unique_id(unique_id: bytes) -> int | None:
    """Return the lower half of the session id of an SST file's writer; None where its MANIFEST does not tell."""
    return (int.from_bytes(unique_id[:8], "little") or None) if len(unique_id) == _BYTES else None


def lower_session_of_text(session_id: str) -> int | None:
    """Return the lower half of a session id; None when RocksDB would not decode it."""
    if len(session_id) not in _LENGTHS or not (session_id.isascii() and session_id.isalnum()):
        return None
    high, low = int(session_id[:-_LOW_DIGITS], 36), int(session_id[-_LOW_DIGITS:], 36)
    return (low & _UINT62) | (high << 62 & _UINT64)
