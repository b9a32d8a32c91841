"""Reading tables whole, in pieces, by a cursor, and by keys."""

from __future__ import annotations

import pytest
from pymysql.cursors import Cursor

from churnguard_pipelines.connectors.mysql import MySQL
from churnguard_pipelines.connectors.mysql import snapshot as mysql_snapshot
from tests.connectors.mysql.conftest import copied, lines, table
from tests.sources.mariadb import MariaDBServer

COMPOSITE = (
    "CREATE TABLE t (a varchar(10) CHARACTER SET latin1, b int unsigned, c datetime(3), n int, PRIMARY KEY (a, b, c))"
)
KEYS = {
    "int": "CREATE TABLE t (id int PRIMARY KEY, n int)",
    "letters": "CREATE TABLE t (id varchar(20) PRIMARY KEY, n int)",
    "bytes": "CREATE TABLE t (id varbinary(20) PRIMARY KEY, n int)",
    "decimal": "CREATE TABLE t (id decimal(20,5) PRIMARY KEY, n int)",
    "unique": "CREATE TABLE t (n int, id bigint unsigned NOT NULL UNIQUE)",
    "euckr": "CREATE TABLE t (id varchar(20) CHARACTER SET euckr PRIMARY KEY, n int)",
    "geostd8": "CREATE TABLE t (id varchar(20) CHARACTER SET geostd8 PRIMARY KEY, n int)",
    "enum": "CREATE TABLE t (kind enum('b','a') NOT NULL, id int, n int, PRIMARY KEY (kind, id))",
    "uuid": "CREATE TABLE t (id uuid PRIMARY KEY, n int)",
}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mysql_snapshot, "PIECE_ROWS", 70)


@pytest.mark.parametrize("kind", KEYS)
def test_pieces_cover_every_row_once(connector: MySQL, source: Cursor, kind: str) -> None:
    source.execute(KEYS[kind])
    value = "uuid()" if kind == "uuid" else "seq * 7"
    source.execute(f"INSERT INTO t (id, n) SELECT {value}, seq FROM seq_1_to_1000")
    place = [column.name for column in table(connector, "t").columns].index("n")
    assert sorted(int(row[place] or 0) for row in copied(connector, "t")) == list(range(1, 1001))


def test_pieces_of_a_composite_key_resume_in_another_view(connector: MySQL, source: Cursor) -> None:
    source.execute(COMPOSITE)
    values = "concat('ké', seq % 3), seq % 20, '2024-01-01' + INTERVAL seq SECOND, seq"
    source.execute(f"INSERT INTO t SELECT {values} FROM seq_1_to_1000")
    wanted = table(connector, "t")
    read: list[int] = []
    with connector.snapshot([wanted], followed=False) as snapshot:
        pieces = list(snapshot.pieces(wanted, None))
        assert len(pieces) == 15
        for piece in pieces[:6]:
            read += [int(row[3] or 0) for row in lines(b"".join(snapshot.copy(wanted, piece)))]
    with connector.snapshot([wanted], followed=False) as snapshot:
        for piece in snapshot.pieces(wanted, pieces[5].end):
            read += [int(row[3] or 0) for row in lines(b"".join(snapshot.copy(wanted, piece)))]
    assert sorted(read) == list(range(1, 1001))


LENGTHS = [0, 1, 2, *range(225, 262), 4090, 4096, *range(65_500, 65_545), 262_140, 262_144, 2**24 - 20, 2**24, 1]


@pytest.mark.parametrize("order", ["", "reversed", "doubled"])
def test_rows_of_every_length_come_as_they_are(
    connector: MySQL, source: Cursor, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    """How a row's length is told changes at 251 bytes, at 64 KiB and at 16 MiB; what comes at once ends anywhere."""
    monkeypatch.setattr(mysql_snapshot, "PIECE_ROWS", 1000)
    lengths = {"": LENGTHS, "reversed": LENGTHS[::-1], "doubled": [n for n in LENGTHS[:-3] for _ in range(2)]}[order]
    source.execute("CREATE TABLE t (id int PRIMARY KEY, a longtext)")
    source.execute("SELECT @@max_allowed_packet")
    most = int(source.fetchone()[0])  # type: ignore[index]
    wanted = [length for length in lengths if length < most - 100]
    for number, length in enumerate(wanted):
        source.execute("INSERT INTO t VALUES (%s, REPEAT(%s, %s))", [number, "abcdefghij"[number % 10], length])
    rows = copied(connector, "t")
    assert [(int(row[0] or 0), len(row[1] or "")) for row in rows] == list(enumerate(wanted))
    assert all(set(row[1] or "") <= {"abcdefghij"[number % 10]} for number, row in enumerate(rows))


def test_an_empty_table_has_one_piece(connector: MySQL, source: Cursor) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY)")
    wanted = table(connector, "t")
    with connector.snapshot([wanted], followed=True) as snapshot:
        assert [piece.end for piece in snapshot.pieces(wanted, None)] == [None]
    assert copied(connector, "t") == []


def test_all_readers_see_one_moment_and_it_has_its_place_in_the_log(connector: MySQL, source: Cursor) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY)")
    source.execute("INSERT INTO t SELECT seq FROM seq_1_to_200")
    wanted = table(connector, "t")
    with connector.snapshot([wanted], followed=True) as snapshot:
        source.execute("DELETE FROM t WHERE id < 150")
        rows = [row for piece in snapshot.pieces(wanted, None) for row in lines(b"".join(snapshot.copy(wanted, piece)))]
        assert len(rows) == 200
        position = connector.begin_changes([wanted])
        assert snapshot.version < (int(position["file"].split(".")[1]) << 32) + position["position"]


def test_a_table_without_a_key_has_its_rows_numbered(connector: MySQL, source: Cursor) -> None:
    source.execute("CREATE TABLE t (a int, UNIQUE (a))")
    source.execute("INSERT INTO t VALUES (5), (NULL), (NULL)")
    wanted = table(connector, "t")
    assert wanted.keyless
    assert wanted.key == ("source_row",)
    assert [row[0] for row in copied(connector, "t")] == ["1", "2", "3"]
    assert "ADD PRIMARY KEY" in str(connector.unfollowable(wanted))


def test_views_are_left_out_and_estimates_are_told(connector: MySQL, source: Cursor) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY)")
    source.execute("INSERT INTO t SELECT seq FROM seq_1_to_500")
    source.execute("ANALYZE TABLE t")
    source.execute("CREATE VIEW v AS SELECT * FROM t")
    assert [(found.object, found.rows) for found in connector.discover()] == [("t", 500)]


@pytest.mark.parametrize(
    ("column", "values", "after", "expected"),
    [
        (
            "timestamp(6)",
            ["2024-01-01 10:00", "2024-01-01 11:55:00.000001", "2024-01-01 12:00"],
            "2024-01-01 14:00:00+02",
            2,
        ),
        ("datetime", ["2024-01-01 10:00", "2024-01-01 11:56", "2024-01-01 12:00"], "2024-01-01 12:00:00", 2),
        ("date", ["2023-12-30", "2024-01-01"], "2024-01-01", 1),
        ("bigint unsigned", ["1", "18446744073709551615"], "18446744073709551615", 1),
        ("decimal(10,2)", ["1.10", "1.09"], "1.10", 1),
        ("varchar(10)", ["a", "b", "c"], "b", 2),
    ],
)
def test_an_increment_has_ties_and_nulls(
    connector: MySQL, source: Cursor, column: str, values: list[str], after: str, expected: int
) -> None:
    source.execute(f"CREATE TABLE t (id int PRIMARY KEY, c {column} NULL)")
    source.execute("SET time_zone = '+00:00'")
    for number, value in enumerate([None, *values]):
        source.execute("INSERT INTO t VALUES (%s, %s)", [number, value])
    wanted = table(connector, "t")
    with connector.snapshot([wanted], followed=False) as snapshot:
        parts = list(snapshot.increment(wanted, "c", after))
        assert sum(len(lines(part)) for part, _ in parts) == expected + 1
        everything = list(snapshot.increment(wanted, "c", None))
        assert sum(len(lines(part)) for part, _ in everything) == len(values) + 1
        again = list(snapshot.increment(wanted, "c", everything[-1][1]))
        assert again[-1][1] == everything[-1][1]


@pytest.mark.parametrize("column", ["timestamp(6)", "datetime", "date"])
def test_a_moment_that_is_still_to_come_hides_nothing(connector: MySQL, source: Cursor, column: str) -> None:
    source.execute(f"CREATE TABLE t (id int PRIMARY KEY, c {column} NULL)")
    source.execute("INSERT INTO t VALUES (1, '2024-01-01'), (2, '2037-01-01')")
    wanted = table(connector, "t")
    with connector.snapshot([wanted], followed=False) as snapshot:
        *_, (_, cursor) = snapshot.increment(wanted, "c", None)
    assert str(cursor).startswith("2024-01-01")
    source.execute("INSERT INTO t VALUES (3, '2024-02-01')")
    with connector.snapshot([wanted], followed=False) as snapshot:
        rows = lines(b"".join(part for part, _ in snapshot.increment(wanted, "c", cursor)))
    assert {row[0] for row in rows} == {"1", "2", "3"}


def test_keys_and_rows_by_key(connector: MySQL, source: Cursor) -> None:
    source.execute("CREATE TABLE t (a varchar(5), b timestamp, n int, PRIMARY KEY (a, b))")
    source.execute("SET time_zone = '+00:00'")
    source.execute("INSERT INTO t VALUES ('x', '2024-01-01 00:00:00', 1), ('y\t', '2024-01-01 00:00:00', 2)")
    wanted = table(connector, "t")
    with connector.snapshot([wanted], followed=False) as snapshot:
        assert b"".join(snapshot.keys(wanted)) == b"x\t2024-01-01 00:00:00+00\ny\\t\t2024-01-01 00:00:00+00\n"
    key = ("y\t", "2024-01-01 00:00:00+00")
    assert connector.fetch(wanted, [key, ("z", "2024-01-01 00:00:00+00")]) == [(*key, "2")]


def test_a_row_that_is_too_long_is_said(connector: MySQL, source: Cursor, source_server: MariaDBServer) -> None:
    source.execute("CREATE TABLE t (id int PRIMARY KEY, a longblob)")
    source.execute("INSERT INTO t VALUES (1, repeat('x', 9000000))")
    with pytest.raises(Exception, match="SET GLOBAL max_allowed_packet"):
        copied(connector, "t")
