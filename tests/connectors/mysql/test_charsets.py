"""Every character of every character set of the server, by both ways: copied and as a change it is the same."""

from __future__ import annotations

from pymysql.cursors import Cursor

from churnguard_pipelines.connectors.mysql import MySQL
from tests.connectors.mysql.conftest import BOTH, copied, read_all, replayed, table

SERVERS = BOTH
DIGITS = " UNION ALL ".join(f"SELECT {digit} AS n" for digit in range(16))
BYTES = f"(SELECT CONCAT(HEX(l.n), HEX(r.n)) AS x FROM ({DIGITS}) AS l, ({DIGITS}) AS r)"
ONE = f"SELECT x, '0' AS row_of FROM {BYTES} AS a"
TWO = f"SELECT CONCAT(a.x, b.x) AS x, a.x AS row_of FROM {BYTES} AS a, {BYTES} AS b WHERE a.x >= '80'"
THREE = f"SELECT CONCAT('8F', a.x, b.x) AS x, CONCAT('8F', a.x) AS row_of FROM {BYTES} AS a, {BYTES} AS b"
FOUR = (
    f"SELECT CONCAT(a.x, b.x, c.x, d.x) AS x, CONCAT(a.x, b.x) AS row_of "
    f"FROM {BYTES} AS a, {BYTES} AS b, {BYTES} AS c, {BYTES} AS d "
    "WHERE a.x IN ('81', '84', '90') AND b.x BETWEEN '30' AND '39' AND c.x >= '81' AND d.x BETWEEN '30' AND '39'"
)
UNICODE = (
    f"SELECT CONCAT('00', p.x, a.x, b.x) AS x, CONCAT(p.x, a.x) AS row_of "
    f"FROM (SELECT '00' AS x UNION ALL SELECT '01') AS p, {BYTES} AS a, {BYTES} AS b "
    "WHERE a.x NOT BETWEEN 'D8' AND 'DF' AND (p.x = '00' OR a.x = 'F6')"
)
OF_UNICODE = ("utf8mb3", "utf8mb4", "ucs2", "utf16", "utf16le", "utf32")
FEWEST = {"euckr": 17_000, "big5": 13_000, "sjis": 6_900, "ujis": 12_000, "gbk": 21_000, "cp866": 255, "koi8u": 255}
"""Of some sets: how many characters they have at least."""


def test_a_change_has_the_characters_that_a_copy_has(connector: MySQL, source: Cursor) -> None:
    source.execute(
        "SELECT CHARACTER_SET_NAME, MAXLEN FROM information_schema.CHARACTER_SETS "
        "WHERE CHARACTER_SET_NAME NOT IN ('binary', 'filename') ORDER BY 1"
    )
    charsets = {str(name): int(longest) for name, longest in source.fetchall()}
    columns = ", ".join(f"{name} mediumtext CHARACTER SET {name}" for name in charsets)
    source.execute(f"CREATE TABLE t (id varchar(30) PRIMARY KEY, {columns}) CHARACTER SET utf8mb4")
    wanted = table(connector, "t")
    position = connector.begin_changes([wanted])
    source.execute("SET SESSION sql_mode = '', group_concat_max_len = 1000000")
    for name, longest in charsets.items():
        if name in OF_UNICODE:
            fill(source, name, UNICODE, "utf32")
            continue
        for size, codes in enumerate((ONE, TWO, THREE, FOUR)[:longest], 1):
            if size != 3 or longest == 3:
                fill(source, name, codes, name)
    with connector.changes([wanted], position) as log:
        changes, _ = read_all(log, 5)
    changed = {key: row[1:] for key, row in replayed(changes, wanted, {}).items()}
    copy = {(row[0],): tuple(map(unescaped, row[1:])) for row in copied(connector, "t")}
    assert changed.keys() == copy.keys()
    differ = [
        (name, key, [pair for pair in zip(mine or "", other or "", strict=False) if len({*pair}) > 1][:3])
        for key, row in changed.items()
        for name, mine, other in zip(charsets, row, copy[key], strict=True)
        if mine != other
    ]  # fmt: skip
    assert not differ
    lengths = {name: sum(len(row[place] or "") for row in copy.values()) for place, name in enumerate(charsets)}
    assert {name: lengths[name] for name, fewest in FEWEST.items() if lengths[name] < fewest} == {}


def fill(source: Cursor, charset: str, codes: str, of: str) -> None:
    """A row for some hundred characters at once. ``of``: the set that the codes are of."""
    source.execute(
        f"SELECT CONCAT(LENGTH(x), ' ', row_of), GROUP_CONCAT(x ORDER BY x SEPARATOR '') FROM ({codes}) AS code "
        f"WHERE CHAR_LENGTH(CONVERT(UNHEX(x) USING {of})) = 1 GROUP BY LENGTH(x), row_of"
    )
    rows = [
        f"('{charset} {id}', CONVERT(CONVERT(x'{all}' USING {of}) USING {charset}))" for id, all in source.fetchall()
    ]
    source.execute(f"INSERT INTO t (id, {charset}) VALUES {', '.join(rows)}")


def unescaped(field: str | None) -> str | None:
    """Of COPY's text."""
    if field is None:
        return None
    for written, character in (("\\t", "\t"), ("\\n", "\n"), ("\\r", "\r"), ("\\\\", "\\")):
        field = field.replace(written, character)
    return field


def test_labels_and_characters_are_those_of_when_the_row_was_logged(connector: MySQL, source: Cursor) -> None:
    source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, e enum('free', 'päid') CHARACTER SET latin1, "
        "s set('a', 'б') CHARACTER SET cp1251, c varchar(9) CHARACTER SET greek, y year, n int unsigned)"
    )
    wanted = table(connector, "t")
    position = connector.begin_changes([wanted])
    source.execute("INSERT INTO t VALUES (1, 'päid', 'a,б', 'αβγ', 2024, 4294967295)")
    source.execute(
        "ALTER TABLE t MODIFY e enum('none', 'päid', 'free') CHARACTER SET utf8mb4, "
        "MODIFY s set('б', 'x', 'a') CHARACTER SET koi8r, MODIFY c varchar(9) CHARACTER SET utf8mb4"
    )
    source.execute("INSERT INTO t VALUES (2, 'free', 'a,б', 'αβγ漢', 1999, 7)")
    with connector.changes([wanted], position) as log:
        changes = read_all(log)[0]
    assert [change.values for change in changes if change.kind == "upsert"] == [
        ("1", "päid", '{"a","б"}', "αβγ", "2024", "4294967295"),
        ("2", "free", '{"б","a"}', "αβγ漢", "1999", "7"),
    ]
