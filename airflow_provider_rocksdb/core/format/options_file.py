r"""RocksDB's OPTIONS file, as far as a copy of the database needs it changed (RocksDB: ``options/options_parser.cc``).

::

    [DBOptions]
      wal_dir=/var/lib/db/wal
    [CFOptions "name"]
      comparator=leveldb.BytewiseComparator
    [TableOptions/BlockBasedTable "name"]
      block_size=4096

Lines end with a line feed; blanks around them and comments (from a ``#`` on that no backslash precedes) count for
nothing. Names and values are escaped: ``\\ \# \: \n \r`` (``EscapeOptionString``). Of an option that stands there twice
the first counts. Opening a database with its OPTIONS needs exactly the column families that its MANIFEST has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from airflow_provider_rocksdb.core.errors import CorruptionError

_COMMENT = re.compile(rb"(?<!\\)#.*", re.DOTALL)
_SECTION = re.compile(rb'\[\s*+([A-Za-z]++)(?:/[^"\]]*+|\s*+)(?:"(.*)"[^"\]]*+)?\]', re.DOTALL)
_EMPTIED = (b"wal_dir", b"db_log_dir")
_FAMILY_SECTIONS = (b"CFOptions", b"TableOptions")
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_UNESCAPE = {b"n": b"\n", b"r": b"\r"}


def _strip(line: bytes) -> bytes:
    """Return what counts of a line (``RocksDBOptionsParser::TrimAndRemoveComment``)."""
    return (_COMMENT.sub(b"", line) if b"#" in line else line).strip()


def _statement(line: bytes) -> tuple[bytes, bytes]:
    """Return name and value, as they stand there."""
    name, _, value = _strip(line).partition(b"=")
    return name.strip(), value.strip()


def _iter_lines(text: bytes, word: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each line with a word in it begins and ends."""
    position = text.find(word)
    while position >= 0:
        begin = text.rfind(b"\n", 0, position) + 1
        end = text.find(b"\n", position)
        if end < 0:
            end = len(text)
        yield begin, end
        position = text.find(word, end)


def _unescape(data: bytes) -> bytes:
    return _ESCAPED.sub(lambda match: _UNESCAPE.get(match[1], match[1]), data)


def _escape(data: bytes) -> bytes:
    data = re.sub(rb"([\\#:])", rb"\\\1", data)
    return data.replace(b"\n", b"\\n").replace(b"\r", b"\\r")


class OptionsFile:
    """A parsed OPTIONS file that keeps every line as it was.

    :raises CorruptionError: when it has no ``[DBOptions]`` or no ``[CFOptions "default"]`` section, so is cut or is not
        an OPTIONS file (``RocksDBOptionsParser::ValidityCheck``).
    """

    def __init__(self, data: bytes, name: str = "OPTIONS") -> None:
        content = data.removesuffix(b"\n")
        self._sections: list[tuple[bytes, bytes, bytes]] = []  # title, argument, lines with the title's
        title, argument, start = b"", b"", 0
        for begin, end in _iter_lines(content, b"["):
            match = _SECTION.fullmatch(_strip(content[begin:end]))
            if match:
                if begin:
                    self._sections.append((title, argument, content[start : begin - 1]))
                title, argument, start = match[1], _unescape(match[2] or b""), begin
        self._sections.append((title, argument, content[start:]))
        titles = {(title, argument) for title, argument, _ in self._sections}
        for expected in ((b"DBOptions", b""), (b"CFOptions", b"default")):
            if expected not in titles:
                text = " ".join(part.decode() for part in expected).strip()
                raise CorruptionError(f"{name}: expected a section [{text}], {len(data)} bytes hold none")

    @property
    def column_families(self) -> set[bytes]:
        """Names of the column families it describes."""
        return {name for title, name, _ in self._sections if title == b"CFOptions"}

    def db_option(self, option: str) -> str:
        """Value of an option of the whole database; empty where it is not set."""
        values = self._values(b"DBOptions", option.encode())
        return values[0] if values else ""

    def family_options(self, option: str) -> list[str]:
        """Values of an option in all column families that set it."""
        return self._values(b"CFOptions", option.encode())

    def _values(self, wanted: bytes, option: bytes) -> list[str]:
        values = []
        for title, _, text in self._sections:
            for begin, end in _iter_lines(text, option) if title == wanted else ():
                name, value = _statement(text[begin:end])
                if name == option:
                    values.append(_unescape(value).decode("utf-8", "surrogateescape"))
        return values

    def for_copy(self, column_families: Mapping[bytes, str], *, wal_dir: str = "") -> tuple[bytes, dict[str, object]]:
        """Return the content for a copy of the database, and what was changed: for ``wal_dir`` its old value.

        ``wal_dir`` and ``db_log_dir`` are emptied: with them, opening the copy would recover and delete the running
        database's WALs.

        :param column_families: name to comparator of the copy's column families. Others lose their sections; one that
            has none yet gets a section with its comparator, every other option being RocksDB's default.
        :param wal_dir: where the copy's WALs are, if not beside its other files: what ``wal_dir`` is set to.
        """
        changes: dict[str, object] = {}
        out: list[bytes] = []
        removed = []
        for title, name, text in self._sections:
            if title in _FAMILY_SECTIONS and name not in column_families:
                if title == b"CFOptions":
                    removed.append(name.decode("utf-8", "backslashreplace"))
                continue
            out.append(self._fit_directories(text, wal_dir, changes) if title == b"DBOptions" else text)
        added = []
        for name in sorted(set(column_families) - self.column_families):
            added.append(name.decode("utf-8", "backslashreplace"))
            comparator = _escape(column_families[name].encode("utf-8", "surrogateescape"))
            out += [b"", b'[CFOptions "' + _escape(name) + b'"]', b"  comparator=" + comparator]
        if removed:
            changes["removed_column_families"] = removed
        if added:
            changes["added_column_families"] = added
        return b"\n".join(out) + b"\n", changes

    def _fit_directories(self, text: bytes, wal_dir: str, changes: dict[str, object]) -> bytes:
        """Return the lines of ``[DBOptions]`` with the directories of a copy."""
        emptied = list(_EMPTIED)
        if wal_dir and self.db_option("wal_dir") == wal_dir:
            wal_dir = ""
            emptied.remove(b"wal_dir")
        out, done = [], 0
        for begin, end in _iter_lines(text, b"_dir"):  # which both names hold
            option, value = _statement(text[begin:end])
            if option not in emptied:
                continue
            if value:
                changes.setdefault(option.decode(), _unescape(value).decode("utf-8", "backslashreplace"))
            is_replaced = bool(wal_dir) and option == b"wal_dir"
            if value or is_replaced:
                out += [text[done : begin - 1], b"" if is_replaced else b"\n  " + option + b"="]
                done = end
        text = b"".join([*out, text[done:]])
        if wal_dir:
            changes.setdefault("wal_dir", "")
            title, line_feed, rest = text.partition(b"\n")
            text = title + b"\n  wal_dir=" + _escape(wal_dir.encode("utf-8", "surrogateescape")) + line_feed + rest
        return text
