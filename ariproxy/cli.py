"""The console command ``ari-proxy``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ariproxy import __version__
from ariproxy.config import load
from ariproxy.errors import ConfigError
from ariproxy.kafka import dead_letters
from ariproxy.store import cassandra_schema
from ariproxy.store.cassandra_settings import cassandra_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; gives the exit status of the process."""
    parser = argparse.ArgumentParser(
        prog="ari-proxy",
        description="Connects Asterisk's REST interface (ARI) to Apache Kafka. "
        "The daemon itself is started by: twistd ari-proxy --config FILE",
    )
    parser.add_argument(
        "--version", action="version", version=f"ari-proxy {__version__}"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check",
        help="read a configuration and name every fault in it; opens no socket",
    )
    check.add_argument("file", help="the configuration (service.conf)")
    check.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="service.KEY=VALUE",
        help="override one setting of the file; repeatable",
    )
    check.set_defaults(run=_check)
    schema = commands.add_parser(
        "cassandra-schema",
        help="print the statements that make Cassandra's keyspace and table, or run "
        "them",
    )
    cassandra_schema.add_arguments(schema)
    schema.set_defaults(run=cassandra_schema.run)
    letters = commands.add_parser(
        "dead-letters",
        help="list, show or send again the commands that the proxy could not read",
    )
    dead_letters.add_arguments(letters)
    letters.set_defaults(run=dead_letters.run)
    _add_demo(commands)
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status


def _check(options: argparse.Namespace) -> int:
    try:
        config = load(options.file, options.set)
        if config.persistence_store == "cassandra":
            cassandra_settings(config.datastax)
    except ConfigError as error:
        for problem in error.problems:
            print(f"ari-proxy: {problem}", file=sys.stderr)
        return 1
    print(f"{options.file}: no fault found")
    return 0


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from ariproxy.sandbox import demo

    parser = commands.add_parser(
        "demo",
        help="a whole system on this machine: simulated Asterisk, embedded Kafka, "
        "the proxy and a sample call-controller",
    )
    demo.add_arguments(parser)
    parser.set_defaults(run=demo.run)


if __name__ == "__main__":
    sys.exit(main())
