"""Tests for the store in an SQLite file."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ariproxy.errors import StoreRefused, StoreUnavailable
from ariproxy.store import sqlite
from ariproxy.store.sqlite import BATCH, SqliteStore
from ariproxy.threads import Workers
from tests.fake_workers import HeldWorkers, SynchronousWorkers
from tests.store_contract import StoreContract

START = 1_800_000_000.7


class _SqliteContract(StoreContract):
    """Shared by the contract tests over different workers and files."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(START)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


class SqliteStoreContractTests(_SqliteContract, TestCase):
    """SqliteStore keeps the contract of IStore, in a file."""

    async def make_store(self) -> SqliteStore:
        store = SqliteStore(
            self.mktemp(), self.ttl, self.clock.seconds, SynchronousWorkers()
        )
        self.addCleanup(lambda: ensureDeferred(store.close()))
        return store


class SqliteInMemoryContractTests(_SqliteContract, TestCase):
    """SqliteStore keeps the contract of IStore, in memory and in a real thread."""

    async def make_store(self) -> SqliteStore:
        workers = Workers(reactor, "sqlite", 1)
        workers.start()
        self.addCleanup(lambda: ensureDeferred(workers.stop(5)))
        store = SqliteStore(":memory:", self.ttl, self.clock.seconds, workers)
        self.addCleanup(lambda: ensureDeferred(store.close()))
        return store


class SqliteStoreTests(SynchronousTestCase):
    """The file, and what may be wrong with it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.path = self.mktemp()
        self.store = self.make(self.path)
        self.patch(sqlite, "BUSY_SECONDS", 0.01)

    def make(self, path: str, ttl: float = 100) -> SqliteStore:
        store = SqliteStore(path, ttl, self.clock.seconds, SynchronousWorkers())
        self.addCleanup(lambda: ensureDeferred(store.close()))
        return store

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run one statement as another program would."""
        connection = sqlite3.connect(self.path)
        with connection:
            rows = connection.execute(statement, parameters).fetchall()
        connection.close()
        return rows

    def set(self, key: str, value: str) -> None:
        self.successResultOf(self.store.set(key, value))

    def get(self, key: str) -> str | None:
        return self.successResultOf(self.store.get(key))

    def test_nothing_before_the_first_call(self) -> None:
        """Building the store touches no file."""
        self.assertFalse(os.path.exists(self.path))

    def test_form(self) -> None:
        """The table, the index and the mode are the original's."""
        self.set("key", "value")
        self.assertEqual(
            self.sql(
                'SELECT name, type, "notnull", pk FROM pragma_table_info(?)',
                "ari_proxy",
            ),
            [
                ("key", "TEXT", 1, 1),
                ("value", "TEXT", 1, 0),
                ("created_at", "INTEGER", 1, 0),
            ],
        )
        self.assertEqual(
            self.sql(
                'SELECT name, "desc" FROM pragma_index_xinfo(?) WHERE key',
                "ari_proxy_created_at_index",
            ),
            [("created_at", 1)],
        )
        self.assertEqual(self.sql("PRAGMA journal_mode"), [("wal",)])
        self.assertEqual(
            self.sql("SELECT *, typeof(created_at) FROM ari_proxy"),
            [("key", "value", 1_800_000_000, "integer")],
        )

    def test_file_of_the_original(self) -> None:
        """Rows that another program wrote are read, refreshed and replaced."""
        self.sql(
            "CREATE TABLE ari_proxy(key TEXT not null primary key, "
            "value TEXT not null, created_at integer not null)"
        )
        self.sql("INSERT INTO ari_proxy VALUES('key', 'theirs', ?)", int(START) - 50)
        self.assertEqual(self.get("key"), "theirs")
        self.successResultOf(self.store.refresh("key"))
        self.assertEqual(
            self.sql("SELECT * FROM ari_proxy"), [("key", "theirs", int(START))]
        )

    def test_outlives_the_process(self) -> None:
        """Another store on the same file finds the entry, and its age."""
        self.set("key", "value")
        self.successResultOf(ensureDeferred(self.store.close()))
        self.clock.advance(60)
        self.store = self.make(self.path)
        self.assertEqual(self.get("key"), "value")
        self.clock.advance(60)
        self.assertIsNone(self.get("key"))

    def test_two_processes(self) -> None:
        """What another store on the same file writes is seen at once."""
        other = self.make(self.path)
        self.assertIsNone(self.get("key"))
        self.successResultOf(other.set("key", "theirs"))
        self.assertEqual(self.get("key"), "theirs")

    def test_expired_rows_are_removed(self) -> None:
        """Each write removes expired rows, so the file stays bounded."""
        for i in range(20):
            self.set(f"key {i}", "value")
        self.clock.advance(101)
        self.set("another", "value")
        self.assertEqual(self.sql("SELECT key FROM ari_proxy"), [("another",)])

    def test_many_expired_rows(self) -> None:
        """A large number of expired rows goes in parts that do not stop a call."""
        self.set("first", "value")
        self.sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?) "
            "INSERT INTO ari_proxy SELECT i, 'v', 1 FROM n",
            BATCH + 10,
        )
        count = "SELECT count(*) FROM ari_proxy WHERE created_at = 1"
        self.set("key", "value")
        self.assertEqual(self.sql(count), [(10,)])
        self.set("key", "value")
        self.assertEqual(self.sql(count), [(0,)])

    def test_purge_uses_the_index(self) -> None:
        """Looking for expired rows reads no table from end to end."""
        self.set("key", "value")
        [plan] = self.sql(
            "EXPLAIN QUERY PLAN SELECT rowid FROM ari_proxy "
            "WHERE created_at <= 5 LIMIT 5"
        )
        self.assertIn("SEARCH", plan[3])
        self.assertIn("ari_proxy_created_at_index", plan[3])

    def test_check_leaves_nothing(self) -> None:
        """The probe's row is gone when the check is done."""
        self.successResultOf(self.store.check())
        self.assertEqual(self.sql("SELECT * FROM ari_proxy"), [])

    def failure(
        self, answer: Deferred[Any], kind: type[Exception], *words: str
    ) -> None:
        """The answer failed in one line that names the file and has the words."""
        text = str(self.failureResultOf(answer, kind).value)
        for word in (self.path, *words):
            self.assertIn(word, text)
        self.assertNotIn("\n", text)

    def test_missing_folder(self) -> None:
        """The daemon starts; calls fail until the folder is there."""
        self.path = os.path.join(self.mktemp(), "ari.db")
        self.store = self.make(self.path)
        self.failure(self.store.get("key"), StoreRefused, "make its folder")
        self.failure(self.store.set("key", "value"), StoreRefused, "make its folder")
        self.failure(self.store.check(), StoreRefused, "service.sqlite.url")
        os.mkdir(os.path.dirname(self.path))
        self.set("key", "value")
        self.assertEqual(self.get("key"), "value")

    def test_a_folder(self) -> None:
        """A folder in place of the file is refused."""
        os.mkdir(self.path)
        self.failure(self.store.get("key"), StoreRefused, "unable to open")

    def test_no_database(self) -> None:
        """A file that is no database is refused and left as it is."""
        Path(self.path).write_text("a text, and not a short one. " * 100)
        self.failure(self.store.set("key", "value"), StoreRefused, "name another file")
        self.assertTrue(Path(self.path).read_text().startswith("a text"))

    def test_other_table(self) -> None:
        """A table of another form is refused."""
        self.sql("CREATE TABLE ari_proxy(key TEXT)")
        self.failure(self.store.get("key"), StoreRefused, "changed its table")

    def test_locked(self) -> None:
        """A lock held by another program fails the write, and not for ever."""
        self.set("key", "old")
        holder = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(holder.close)
        holder.execute("BEGIN IMMEDIATE")
        self.failure(self.store.set("key", "new"), StoreUnavailable, "locked")
        self.failure(self.store.check(), StoreUnavailable, "another process")
        self.assertEqual(self.get("key"), "old")
        holder.execute("COMMIT")
        self.set("key", "new")
        self.assertEqual(self.get("key"), "new")

    def test_full(self) -> None:
        """A full disk fails writing with its mend, reading goes on."""
        self.set("key", "value")
        connection = self.store._connection
        assert connection is not None
        connection.execute("PRAGMA max_page_count = 1")
        self.failure(self.store.set("more", "x" * 100_000), StoreRefused, "make room")
        self.assertEqual(self.get("key"), "value")
        self.assertIsNone(self.get("more"))

    def test_read_only(self) -> None:
        """A file that this user must not write is refused, with its mend."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        self.path = os.path.join(folder, "ari.db")
        self.sql("PRAGMA user_version = 1")
        self.store = self.make(self.path)
        os.chmod(self.path, 0o444)
        os.chmod(folder, 0o555)
        if os.geteuid() == 0:  # The permissions of files do not bind root.
            os.seteuid(65534)
            self.addCleanup(os.seteuid, 0)
        for answer in self.store.set("key", "value"), self.store.check():
            self.failure(answer, StoreRefused, "readonly", "writable for this user")

    def test_made_read_only(self) -> None:
        """A file that is made read-only meanwhile is still read."""
        self.set("key", "value")
        connection = self.store._connection
        assert connection is not None
        connection.execute("PRAGMA query_only = 1")
        self.failure(self.store.set("key", "new"), StoreRefused, "writable")
        self.assertEqual(self.get("key"), "value")

    def test_logged_once(self) -> None:
        """Trouble and its end are logged once each, not for every call."""
        self.set("key", "old")
        holder = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(holder.close)
        with capturedLogs() as logged:
            holder.execute("BEGIN IMMEDIATE")
            for _ in range(3):
                self.failureResultOf(self.store.set("key", "new"), StoreUnavailable)
                self.get("key")
            holder.execute("COMMIT")
            self.set("key", "new")
            self.set("key", "newer")
        self.assertEqual(
            [event["log_level"] for event in logged], [LogLevel.warn, LogLevel.info]
        )

    def test_one_line_for_reading_and_writing(self) -> None:
        """The same trouble with both is one line, and so is its end."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        self.path = os.path.join(folder, "later", "ari.db")
        store = self.make(self.path)
        with capturedLogs() as logged:
            for _ in range(2):
                self.failure(store.set("key", "value"), StoreRefused, "make its folder")
                self.failure(store.get("key"), StoreRefused, "make its folder")
            os.mkdir(os.path.dirname(self.path))
            self.assertIsNone(self.successResultOf(store.get("key")))
            self.successResultOf(store.set("key", "value"))
        self.assertEqual(
            [event["log_level"] for event in logged], [LogLevel.warn, LogLevel.info]
        )


class BatchTests(SynchronousTestCase):
    """Calls that come while the worker is busy are carried out together."""

    def setUp(self) -> None:
        self.workers = HeldWorkers()
        self.path = self.mktemp()
        self.store = SqliteStore(self.path, 100, lambda: START, self.workers)

    def tearDown(self) -> None:
        closing = ensureDeferred(self.store.close())
        self.workers.release_all()
        self.successResultOf(closing)

    def test_first_call_does_not_wait(self) -> None:
        """A call on an idle store is handed to the worker at once."""
        answer = self.store.set("key", "value")
        self.assertEqual(len(self.workers.calls), 1)
        self.assertNoResult(answer)
        self.workers.release()
        self.successResultOf(answer)

    def test_together(self) -> None:
        """What waits is one call of the worker and one transaction, in order."""
        self.store.set("key", "0")
        answers: list[Deferred[Any]] = []
        for i in range(1, 50):
            answers.append(self.store.set("key", str(i)))
            answers.append(self.store.get("key"))
        answers += [self.store.forget("key"), self.store.get("key")]
        self.workers.release()
        self.assertEqual(len(self.workers.calls), 1)
        statements: list[str] = []
        assert self.store._connection is not None
        self.store._connection.set_trace_callback(statements.append)
        self.workers.release()
        self.assertEqual(statements.count("BEGIN IMMEDIATE"), 1)
        found = self.successResultOf(gatherResults(answers))
        self.assertEqual(found[1:98:2], [str(i) for i in range(1, 50)])
        self.assertEqual(found[-1], None)

    def test_bounded(self) -> None:
        """Many calls go in several transactions, each within its bound."""
        answers = [self.store.set(f"k{i}", "v") for i in range(2 * BATCH + 2)]
        sizes = []
        while self.workers.calls:
            sizes.append(len(self.workers.calls[0][2][0]))
            self.workers.release()
        self.assertEqual(sizes, [1, BATCH, BATCH, 1])
        self.successResultOf(gatherResults(answers))

    def test_own_errors(self) -> None:
        """When writing fails, the reads of the same batch get their values."""
        self.patch(sqlite, "BUSY_SECONDS", 0.01)
        self.store.set("key", "old")
        self.workers.release_all()
        holder = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(holder.close)
        holder.execute("BEGIN IMMEDIATE")
        self.store.get("first")
        before, write, after = (
            self.store.get("key"),
            self.store.set("key", "new"),
            self.store.get("key"),
        )
        self.workers.release_all()
        self.assertEqual(self.successResultOf(before), "old")
        self.failureResultOf(write, StoreUnavailable)
        self.assertEqual(self.successResultOf(after), "old")

    def test_all_or_nothing(self) -> None:
        """A write that was reported as failed is not in the file."""
        self.store.set("key", "old")
        self.workers.release_all()
        assert self.store._connection is not None
        self.store._connection.execute("PRAGMA max_page_count = 1")
        self.store.get("first")
        small, large = self.store.set("key", "new"), self.store.set("b", "x" * 100_000)
        self.workers.release_all()
        self.failureResultOf(small, StoreRefused)
        self.failureResultOf(large, StoreRefused)
        after = self.store.get("key")
        self.workers.release_all()
        self.assertEqual(self.successResultOf(after), "old")

    def test_given_up(self) -> None:
        """A call whose caller gave up is carried out; the others are answered."""
        first, second = self.store.set("a", "1"), self.store.set("b", "2")
        first.cancel()
        self.failureResultOf(first)
        self.workers.release_all()
        self.successResultOf(second)
        found = self.store.get("a")
        self.workers.release_all()
        self.assertEqual(self.successResultOf(found), "1")

    def test_close_unused(self) -> None:
        """Closing a store that was never used needs no worker."""
        store = SqliteStore(self.mktemp(), 100, lambda: START, self.workers)
        self.successResultOf(ensureDeferred(store.close()))
        self.assertEqual(len(self.workers.calls), 0)

    def test_close_waits(self) -> None:
        """What was taken before close is carried out."""
        answers = [self.store.set("a", "1"), self.store.set("b", "2")]
        closing = ensureDeferred(self.store.close())
        self.assertNoResult(closing)
        self.failureResultOf(self.store.get("a"), StoreUnavailable)
        self.workers.release_all()
        self.successResultOf(closing)
        self.successResultOf(gatherResults(answers))
