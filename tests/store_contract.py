"""What every store promises; mixed into the tests of each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import ensureDeferred, gatherResults
from zope.interface.verify import verifyObject

from ariproxy.errors import StoreRefused, StoreUnavailable
from ariproxy.interfaces import IStore

# Not a TestCase by itself, or every module that imports it would run it.
if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as Base
else:
    Base = object

TEXTS = [
    "1724500000.1234",
    "007",
    "1e3",
    "-1",
    "None",
    "true",
    "null",
    "QUEUED",
    " ",
    " leading and trailing ",
    "PJSIP/anonymous-00000001",
    'it\'s "quoted" `so` \\ or so',
    "'; DROP TABLE ari_proxy; --",
    "% _ * ? [a] {b} $1 :key",
    "line one\nline two\r\nline three\r\n",
    "$5\r\nhello\r\n",
    "tab\tand\0nul\x7f",
    "Grüße, Ολυμπία, 東京, \u202eright to left, \U0001f4de",
    "e\u0301 is not \u00e9",
    "x" * 10_000,
    "\u20ac" * 3_333,
]


class StoreContract(Base):
    """The contract of ``IStore``.

    Mix into a ``TestCase`` and give ``make_store`` and ``pass_time``. Entries
    of the made store live for ``ttl`` seconds.
    """

    ttl: float = 100.0

    async def make_store(self) -> Any:
        """A new store on empty ground, closed by the test's clean-up."""
        raise NotImplementedError

    async def pass_time(self, seconds: float) -> None:
        """Let this time pass for the store."""
        raise NotImplementedError

    async def test_interface(self) -> None:
        """It is an IStore with a name for the metrics."""
        store = await self.make_store()
        verifyObject(IStore, store)
        self.assertIn(store.name, {"memory", "sqlite", "redis", "cassandra"})

    async def test_absent(self) -> None:
        """A key that was never set is None."""
        store = await self.make_store()
        self.assertIsNone(await store.get("absent"))

    async def test_set_and_get(self) -> None:
        """What was set is read, as often as wanted."""
        store = await self.make_store()
        self.assertIsNone(await store.set("1700000000.1", "context"))
        self.assertEqual(await store.get("1700000000.1"), "context")
        self.assertEqual(await store.get("1700000000.1"), "context")

    async def test_replaced(self) -> None:
        """The last value counts, and a repeated write is harmless."""
        store = await self.make_store()
        for value in ("one", "two", "two"):
            await store.set("key", value)
        self.assertEqual(await store.get("key"), "two")

    async def test_odd_values(self) -> None:
        """Any text is a value, and text stays text."""
        store = await self.make_store()
        for text in [*TEXTS, ""]:
            await store.set("key", text)
            found = await store.get("key")
            self.assertEqual(found, text)
            self.assertIs(type(found), str)

    async def test_odd_keys(self) -> None:
        """Any text is a key; no two of them are taken for one another."""
        store = await self.make_store()
        for number, text in enumerate(TEXTS):
            await store.set(text, f"value {number}")
        for number, text in enumerate(TEXTS):
            self.assertEqual(await store.get(text), f"value {number}")
        for text in ("7", "1000.0", "key ", "KEY", "pjsip/anonymous-00000001"):
            self.assertIsNone(await store.get(text))

    async def test_not_unicode(self) -> None:
        """Half a surrogate pair cannot be written in UTF-8 and is refused."""
        store = await self.make_store()
        for key, value in (("\ud800", "value"), ("key", "\ud800")):
            with self.assertRaises(StoreRefused):
                await store.set(key, value)
        await store.set("key", "value")
        self.assertEqual(await store.get("key"), "value")

    async def test_forget(self) -> None:
        """A forgotten entry is absent; the others stay."""
        store = await self.make_store()
        await store.set("one", "1")
        await store.set("two", "2")
        self.assertIsNone(await store.forget("one"))
        self.assertIsNone(await store.get("one"))
        self.assertEqual(await store.get("two"), "2")

    async def test_forget_absent(self) -> None:
        """Forgetting what is not there is harmless."""
        store = await self.make_store()
        self.assertIsNone(await store.forget("absent"))
        self.assertIsNone(await store.get("absent"))

    async def test_expiry(self) -> None:
        """An entry is there before its ttl has passed and gone after."""
        store = await self.make_store()
        await store.set("key", "value")
        await self.pass_time(self.ttl * 0.5)
        self.assertEqual(await store.get("key"), "value")
        await self.pass_time(self.ttl)
        self.assertIsNone(await store.get("key"))

    async def test_set_starts_ttl_anew(self) -> None:
        """Writing again, also the same value, starts the ttl anew."""
        store = await self.make_store()
        await store.set("key", "value")
        await self.pass_time(self.ttl * 0.6)
        await store.set("key", "value")
        await self.pass_time(self.ttl * 0.6)
        self.assertEqual(await store.get("key"), "value")

    async def test_refresh_starts_ttl_anew(self) -> None:
        """A refreshed entry lives on; one beside it does not."""
        store = await self.make_store()
        await store.set("live", "1")
        await store.set("dead", "2")
        await self.pass_time(self.ttl * 0.6)
        self.assertIsNone(await store.refresh("live"))
        await self.pass_time(self.ttl * 0.6)
        self.assertIsNone(await store.get("dead"))
        self.assertEqual(await store.get("live"), "1")
        await self.pass_time(self.ttl * 1.2)
        self.assertIsNone(await store.get("live"))

    async def test_refresh_absent(self) -> None:
        """Refreshing what is not there, or has expired, makes nothing."""
        store = await self.make_store()
        self.assertIsNone(await store.refresh("absent"))
        self.assertIsNone(await store.get("absent"))
        await store.set("expired", "value")
        await self.pass_time(self.ttl * 1.5)
        await store.refresh("expired")
        self.assertIsNone(await store.get("expired"))

    async def test_refresh_keeps_value(self) -> None:
        """Refreshing changes no value."""
        store = await self.make_store()
        await store.set("key", "007")
        await store.refresh("key")
        self.assertEqual(await store.get("key"), "007")

    async def test_concurrent(self) -> None:
        """Calls side by side each get their own answer."""
        store = await self.make_store()
        await gatherResults(
            [ensureDeferred(store.set(f"k{i}", f"v{i}")) for i in range(500)]
        )
        found = await gatherResults(
            [ensureDeferred(store.get(f"k{i}")) for i in range(501)]
        )
        self.assertEqual(found, [f"v{i}" for i in range(500)] + [None])

    async def test_order(self) -> None:
        """Calls take effect in the order in which they were made."""
        store = await self.make_store()
        calls = []
        for i in range(50):
            calls.append(store.set("key", str(i)))
            calls.append(store.get("key"))
        calls += [store.forget("key"), store.get("key"), store.set("key", "last")]
        outcomes = await gatherResults([ensureDeferred(call) for call in calls])
        self.assertEqual(outcomes[1:100:2], [str(i) for i in range(50)])
        self.assertIsNone(outcomes[101])
        self.assertEqual(await store.get("key"), "last")

    async def test_check(self) -> None:
        """A store that works says so by None, however often it is asked."""
        store = await self.make_store()
        await store.set("key", "value")
        for _ in range(3):
            self.assertIsNone(await store.check())
        self.assertEqual(await store.get("key"), "value")

    async def test_close(self) -> None:
        """After close every call raises StoreUnavailable; close itself does not."""
        store = await self.make_store()
        await store.set("key", "value")
        self.assertIsNone(await store.close())
        self.assertIsNone(await store.close())
        for call in (
            lambda: store.set("key", "value"),
            lambda: store.get("key"),
            lambda: store.refresh("key"),
            lambda: store.forget("key"),
            lambda: store.check(),
        ):
            with self.assertRaises(StoreUnavailable):
                await call()

    async def test_close_unused(self) -> None:
        """A store that was never used can be closed."""
        store = await self.make_store()
        self.assertIsNone(await store.close())
