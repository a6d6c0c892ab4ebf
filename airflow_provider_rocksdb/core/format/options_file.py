r"""RocksDB's OPTIONS file, as far as a copy of the database needs it changed (RocksDB: ``options/options_parser.cc``).

::

    [DBOptions]
      wal_dir=/var/lib/db/wal
    [CFOptions "name"]
      comparator=leveldb.BytewiseComparator
    [TableOptions/BlockBasedTable "name"]
      block_size=4096

Names and values are escaped: ``\\ \# \: \n \r`` (``EscapeOptionString``). Opening a database with its OPTIONS needs
exactly the column families that its MANIFEST has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from airflow_provider_rocksdb.core.errors import CorruptionError

_SECTION = re.compile(rb'\s*\[\s*([A-Za-z]+)(?:/[^"\]]*)?\s*(?:"(.*)")?\s*\]\s*(?:#.*)?')
_STATEMENT = re.compile(rb"\s*([^=#\s]+)\s*=(.*)")
_EMPTIED = (b"wal_dir", b"db_log_dir")
_FAMILY_SECTIONS = (b"CFOptions", b"TableOptions")
_UNESCAPE = {b"n": b"\n", b"r": b"\r"}


def _unescape(data: bytes) -> bytes:
    return re.sub(rb"\\(.)", lambda match: _UNESCAPE.get(match[1], match[1]), data, flags=re.DOTALL)


def _escape(data: bytes) -> bytes:
    data = re.sub(rb"([\\#:])", rb"\\\1", data)
    return data.replace(b"\n", b"\\n").replace(b"\r", b"\\r")


class OptionsFile:
    """A parsed OPTIONS file that keeps every line as it was.

    :raises CorruptionError: when it has no ``[DBOptions]`` section, so is cut or is not an OPTIONS file.
    """

    def __init__(self, data: bytes, name: str = "OPTIONS") -> None:
        self._sections: list[tuple[bytes, bytes, list[bytes]]] = [(b"", b"", [])]
        for line in data.splitlines(keepends=True):
            match = _SECTION.fullmatch(line.rstrip(b"\r\n"))
            if match:
                self._sections.append((match[1], _unescape(match[2] or b""), []))
            self._sections[-1][2].append(line)
        if not any(title == b"DBOptions" for title, _, _ in self._sections):
            raise CorruptionError(f"{name}: expected a [DBOptions] section, {len(data)} bytes hold none")

    @property
    def column_families(self) -> set[bytes]:
        """Names of the column families it describes."""
        return {name for title, name, _ in self._sections if title == b"CFOptions"}

    def db_option(self, option: str) -> str:
        """Value of an option of the whole database; empty where it is not set."""
        values = self._values(b"DBOptions", option.encode())
        return values[-1] if values else ""

    def family_options(self, option: str) -> list[str]:
        """Values of an option in all column families that set it."""
        return self._values(b"CFOptions", option.encode())

    def _values(self, wanted: bytes, option: bytes) -> list[str]:
        values = []
        for title, _, lines in self._sections:
            for line in lines if title == wanted else ():
                match = _STATEMENT.fullmatch(line.strip())
                if match and match[1] == option:
                    values.append(_unescape(match[2].strip()).decode("utf-8", "surrogateescape"))
        return values

    def for_copy(self, column_families: Mapping[bytes, str]) -> tuple[bytes, dict[str, object]]:
        """Return the content for a copy of the database, and what was changed.

        ``wal_dir`` and ``db_log_dir`` are emptied: with them, opening the copy would recover and delete the running
        database's WALs.

        :param column_families: name to comparator of the copy's column families. Others lose their sections; one that
            has none yet gets a section with its comparator, every other option being RocksDB's default.
        """
        changes: dict[str, object] = {}
        out: list[bytes] = []
        removed = []
        for title, name, lines in self._sections:
            if title in _FAMILY_SECTIONS and name not in column_families:
                if title == b"CFOptions":
                    removed.append(name.decode("utf-8", "backslashreplace"))
                continue
            for line in lines:
                match = _STATEMENT.fullmatch(line.strip())
                if title == b"DBOptions" and match and match[1] in _EMPTIED and match[2].strip():
                    changes[match[1].decode()] = _unescape(match[2].strip()).decode("utf-8", "backslashreplace")
                    out.append(b"  " + match[1] + b"=\n")
                else:
                    out.append(line)
        added = []
        for name in sorted(set(column_families) - self.column_families):
            added.append(name.decode("utf-8", "backslashreplace"))
            comparator = _escape(column_families[name].encode("utf-8", "surrogateescape"))
            out.append(b'\n[CFOptions "' + _escape(name) + b'"]\n  comparator=' + comparator + b"\n")
        if removed:
            changes["removed_column_families"] = removed
        if added:
            changes["added_column_families"] = added
        return b"".join(out), changes
