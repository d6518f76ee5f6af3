"""``ari-proxy cassandra-schema``: the keyspace and table of the store."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ariproxy.config import load
from ariproxy.errors import ConfigError
from ariproxy.store.cassandra_connection import (
    TABLE,
    ConnectTrouble,
    connect,
    require_driver,
    server,
)
from ariproxy.store.cassandra_settings import CassandraSettings, cassandra_settings

__all__ = ["add_arguments", "run", "schema"]

ROW_TTL = 21600
"""Seconds that a row is kept whose writer sets no ttl, as the original."""

GRACE = 86400
"""Seconds that traces of expired and forgotten rows are kept. Safe, as no row
lives as long: one that a node has kept by mistake has expired by itself."""

DDL_TIMEOUT = 30.0
"""Seconds in which the nodes have to carry out one statement."""

COLUMNS = {"key": ("text", "partition_key"), "value": ("text", "regular")}


def schema(keyspace: str, datacentre: str, replication_factor: int) -> list[str]:
    """The statements, without a semicolon; harmless where all is there already.

    :param datacentre: the one that keeps the rows; empty for any.
    :param replication_factor: how many of its nodes keep each row.
    """
    if datacentre:
        where = datacentre.replace("'", "''")
        strategy = f"'class': 'NetworkTopologyStrategy', '{where}'"
    else:
        strategy = "'class': 'SimpleStrategy', 'replication_factor'"
    return [
        f'CREATE KEYSPACE IF NOT EXISTS "{keyspace}"\n'
        f"  WITH replication = {{{strategy}: {replication_factor}}}",
        f'CREATE TABLE IF NOT EXISTS "{keyspace}".{TABLE} (\n'
        '  "key" text PRIMARY KEY,\n'
        '  "value" text\n'
        f") WITH default_time_to_live = {ROW_TTL} AND gc_grace_seconds = {GRACE}",
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the subcommand takes."""
    parser.add_argument("file", help="the configuration (service.conf)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="service.KEY=VALUE",
        help="override one setting of the file; repeatable",
    )
    parser.add_argument(
        "--replication-factor",
        type=_count,
        default=3,
        metavar="N",
        help="how many nodes keep each row (default: 3)",
    )
    parser.add_argument(
        "--apply",
        action="store_true",
        help="run the statements instead of printing them",
    )


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def run(options: argparse.Namespace) -> int:
    """Print the statements, or run them; gives the exit status of the process."""
    try:
        config = load(options.file, options.set)
        settings = cassandra_settings(config.datastax)
        if options.apply:
            require_driver()
    except ConfigError as error:
        return _fail(*error.problems)
    statements = schema(
        settings.keyspace, settings.datacentre, options.replication_factor
    )
    if options.apply:
        return _apply(settings, statements)
    for statement in statements:
        print(f"{statement};\n")
    return 0


def _fail(*problems: str) -> int:
    for problem in problems:
        print(f"ari-proxy: {problem}", file=sys.stderr)
    return 1


def _apply(settings: CassandraSettings, statements: list[str]) -> int:
    try:
        cluster, session = connect(settings)
    except ConnectTrouble as problem:
        return _fail(f"{server(settings)}: {problem.trouble.text}")
    from cassandra import DriverException
    from cassandra.cluster import NoHostAvailable

    made, kept = "made", "was there already, nothing changed"
    keyspace = settings.keyspace
    try:
        has_keyspace, columns = _found(session, keyspace)
        for statement in statements:
            session.execute(statement, timeout=DDL_TIMEOUT)
    except (DriverException, NoHostAvailable) as problem:
        text = " ".join(str(problem).split())
        return _fail(f"{server(settings)}: {text}")
    finally:
        cluster.shutdown()
    print(f"keyspace {keyspace}: {kept if has_keyspace else made}")
    print(f"table {keyspace}.{TABLE}: {kept if columns else made}")
    if columns and any(columns.get(name) != kind for name, kind in COLUMNS.items()):
        return _fail(
            f"{server(settings)}: table {keyspace}.{TABLE} is another one: it must "
            'have the columns "key" text PRIMARY KEY and "value" text'
        )
    return 0


def _found(session: Any, keyspace: str) -> tuple[bool, dict[str, tuple[str, str]]]:
    """Whether the keyspace is there, and the columns of the table."""
    keyspaces = session.execute(
        "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = %s",
        (keyspace,),
    )
    columns = session.execute(
        "SELECT column_name, type, kind FROM system_schema.columns "
        "WHERE keyspace_name = %s AND table_name = %s",
        (keyspace, TABLE),
    )
    found = {name: (kind, place) for name, kind, place in columns}
    return keyspaces.one() is not None, found
