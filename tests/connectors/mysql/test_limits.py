"""What a server sets for its own users does not end a copy of ours, nor cut it short without a word."""

from __future__ import annotations

from pymysql.cursors import Cursor

from churnguard_pipelines.connectors.mysql import MySQL
from tests.connectors.mysql.conftest import BOTH, copied, numbers

SERVERS = BOTH
LIMITS = {"sql_select_limit": "2", "wait_timeout": "1"}
OF_STATEMENTS = {"mariadb": {"max_statement_time": "0.05"}, "mysql": {"max_execution_time": "50"}}


def test_a_copy_outlasts_the_limits_of_the_source(connector: MySQL, source: Cursor, flavour: str) -> None:
    """It takes longer than a statement may, and has more rows than one may answer with."""
    source.execute("CREATE TABLE t (id int PRIMARY KEY, a mediumtext)")
    source.execute(f"INSERT INTO t SELECT seq, repeat('x', 500000) FROM {numbers(1, 60)}")
    limits = LIMITS | OF_STATEMENTS[flavour]
    source.execute("SET " + ", ".join(f"GLOBAL {name} = {value}" for name, value in limits.items()))
    try:
        assert len(copied(connector, "t")) == 60
    finally:
        source.execute("SET " + ", ".join(f"GLOBAL {name} = DEFAULT" for name in limits))
