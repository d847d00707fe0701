# SPDX-License-Identifier: Apache-2.0
"""YggdrasilAdapter beside the packets' program: what the contract suite cannot see."""

import asyncio
import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support.bpf import BPFFS, XDP_DROP, XDP_PASS
from support.calls import Book, Calls
from support.nobody import AS_NOBODY
from support.policy import limit
from support.reference.frames import ethernet, ipv4, udp
from valkyrie.adapters.errors import (
    AuthorizationFailed,
    ConsistencyError,
    OutcomeUnknown,
    StoreConfigurationError,
    StoreConnectionError,
    StoreUnavailable,
)
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.settings import YggdrasilSettings
from valkyrie.adapters.store import Request
from valkyrie.adapters.yggdrasil import checks
from valkyrie.adapters.yggdrasil.adapter import YggdrasilAdapter
from valkyrie.control import abi
from valkyrie.control.cost import Cost
from valkyrie.control.dataplane import build, migrate, pins
from valkyrie.control.dataplane.keyname import opaque
from valkyrie.control.dataplane.maps import Dataplane
from valkyrie.control.dataplane.source import Sizes
from valkyrie.control.dataplane.testrun import Run
from valkyrie.control.errors import InvalidInput, NotFound

FRAME = ethernet(0x0800, ipv4(b"\n\0\0\1", b"\xc6\x33\x64\1", 17, udp(1, 2)))
OWN = Limit.of("own", "3/h", "3")


async def test_an_application_and_packets_share_a_limit(calls: Calls) -> None:
    calls.publish([limit(rate="4/h", burst="4", key="src")])
    async with calls.adapter() as store:
        first = await store.try_consume("10.0.0.1", 3, limit="one")
        assert (first.allowed, first.remaining) == (True, 1)
        assert calls.kernel.run(FRAME, time.monotonic_ns()).action == XDP_PASS
        refused = await store.try_consume("10.0.0.1", limit="one")
        assert (refused.allowed, refused.remaining) == (False, 0)
        assert 895 < refused.retry_after <= 900
        assert calls.kernel.run(FRAME, time.monotonic_ns()).action == XDP_DROP


async def test_a_limit_that_has_moved_is_found_again_by_name(calls: Calls) -> None:
    calls.publish([limit("m", rate="9/h", key="id")])
    async with calls.adapter() as store:
        await store.try_consume("u", limit="m")
        calls.publish([limit("z", rate="1/h", key="global"), limit("m", rate="2/h", burst="2", key="id")])
        moved = [await store.try_consume("v", limit="m") for _ in range(3)]
        assert [one.allowed for one in moved] == [True, True, False]
        many = await store.try_consume_many([Request("w", "m"), Request("g", OWN), Request("w", "m", 2)])
        assert [one.allowed for one in many] == [True, True, False]
        assert calls.book.asked == 2


async def test_a_batch_that_meets_a_new_ruleset_takes_each_key_once(calls: Calls) -> None:
    calls.publish([limit("m", rate="9/h", burst="9", key="id")])
    keys = [f"u{i}" for i in range(100)]
    async with calls.adapter() as store:
        await store.consume_batch(keys, limit="m")
        calls.publish([limit("z", rate="1/h", key="global"), limit("m", rate="9/h", burst="9", key="id")])
        batch = await store.consume_batch(keys, limit="m")
        assert batch.allowed.all()
        assert {one.remaining for one in batch.decisions()} == {7}


async def test_a_limit_that_this_kernel_has_not_is_unavailable(calls: Calls) -> None:
    calls.publish([limit("m", rate="9/h", key="id")])
    async with calls.adapter() as store:
        calls.publish()
        calls.book.limits = {
            "m": Limit("m", Cost(1, 0, 1), True, uid=9),
            "n": Limit("n", Cost(1, 0, 1), True),
        }
        for gone in (Limit("m", Cost(1, 0, 1), True, uid=9), Limit("n", Cost(1, 0, 1), True)):
            with pytest.raises(StoreUnavailable, match="not in force"):
                await store.try_consume("u", limit=gone)
        assert calls.book.forgotten == "m"


async def test_a_limit_that_is_gone_is_not_found_however_it_is_named(calls: Calls) -> None:
    calls.publish([limit("m", rate="9/h", key="id")])
    async with calls.adapter() as store:
        once = calls.book.limits["m"]
        await store.try_consume("u", limit=once)
        calls.publish()
        for gone in (once, "m"):
            with pytest.raises(NotFound):
                await store.try_consume("u", limit=gone)


async def test_a_limit_with_another_number_is_asked_of_the_book_anew(calls: Calls) -> None:
    calls.publish([limit("m", rate="9/h", key="id")])
    async with calls.adapter() as store:
        old = calls.book.limits["m"]
        await store.try_consume("u", limit=old)
        calls.publish([limit("a", rate="1/h", key="global"), limit("m", rate="1/h", burst="1", key="id")])
        calls.kernel.dp.limits["uid"][:, 0] = 999
        assert [(await store.try_consume("u", limit=old)).allowed for _ in range(2)] == [True, False]


async def test_a_batch_by_array_means_the_same_keys_as_by_text(calls: Calls) -> None:
    calls.publish([limit("m", rate="9/h", burst="9", key="id"), limit("s", rate="9/h", burst="9", key="src")])
    async with calls.adapter() as store:
        texts = [f"u{i}" for i in range(70)]
        hashes = np.frombuffer(b"".join(opaque(key).addr for key in texts), np.uint8).reshape(-1, 16)
        await store.consume_batch(hashes, limit="m")
        assert {one.remaining for one in (await store.consume_batch(texts, 2, limit="m")).decisions()} == {6}
        address = np.frombuffer(bytes(10) + b"\xff\xff\n\0\0\1", np.uint8).reshape(1, 16)
        await store.consume_batch(address, limit="s")
        for text in ("10.0.0.1", "10.0.0.1/32", "::ffff:10.0.0.1", "2002:a00:1::5"):
            assert (await store.consume_batch([text], 0, limit="s")).decisions()[0].remaining == 8
            assert (await store.try_consume(text, 0, limit="s")).remaining == 8
        for wrong in (hashes[:, :8], hashes.astype(np.uint16)):
            with pytest.raises(InvalidInput):
                await store.consume_batch(wrong, limit="m")  # type: ignore[arg-type]


async def test_a_batch_with_a_wrong_key_takes_nothing(calls: Calls) -> None:
    calls.publish([limit("s", rate="9/h", key="src")])
    async with calls.adapter() as store:
        for refused in (
            store.consume_batch(["10.0.0.1", "nowhere"], limit="s"),
            store.try_consume_many([Request("10.0.0.1", "s"), Request("nowhere", "s")]),
        ):
            with pytest.raises(InvalidInput):
                await refused
    assert calls.kernel.buckets() == {}


async def test_while_another_table_takes_over_nothing_is_taken(calls: Calls) -> None:
    calls.publish([limit("m", rate="9/h", key="id")])
    async with calls.adapter() as store:
        calls.kernel.dp.control["abi"] = 0  # as if it had taken over, and were not there yet
        for failing in (
            store.try_consume("u", limit=OWN),
            store.consume_batch([f"u{i}" for i in range(100)], limit="m"),
            store.try_consume_many([Request("u", OWN), Request("v", OWN)]),
        ):
            with pytest.raises(StoreUnavailable, match="being replaced"):
                await failing


async def test_a_failure_amid_many_says_that_some_were_taken(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls.publish([limit("m", rate="9/h", key="id")])
    run, runs = Run.go, []

    def failing(self: Run, length: int) -> None:
        runs.append(length)
        if len(runs) == 2:
            raise OSError(errno.ENOMEM, "out of memory")
        run(self, length)

    async with calls.adapter() as store:
        monkeypatch.setattr(Run, "go", failing)
        with pytest.raises(OutcomeUnknown):
            await store.consume_batch([f"u{i}" for i in range(100)], limit="m")
        runs.clear()
        with pytest.raises(OutcomeUnknown):
            await store.try_consume_many([Request("u", OWN), Request("u", "m")])
        runs[:] = [0]
        with pytest.raises(StoreUnavailable):
            await store.try_consume_many([Request("u", OWN), Request("u", "m")])
    assert len(calls.kernel.buckets()) == 64 + 1


async def test_two_limits_of_the_callers_own_keep_their_buckets_apart(calls: Calls) -> None:
    calls.publish()
    other = Limit.of("other", "3/h", "3")
    async with calls.adapter() as store:
        await store.try_consume("u", 3, limit=OWN)
        assert (await store.try_consume("u", 0, limit=other)).remaining == 3
        assert (await store.try_consume("u", 0, limit=Limit.of("own", "3/h", "3"))).remaining == 0


@pytest.mark.parametrize(("setting", "value"), [("bind_address", "0.0.0.0:9000"), ("hash_replicas", 2)])
def test_settings_that_cannot_hold_are_refused_with_the_reason(setting: str, value: object) -> None:
    with pytest.raises(StoreConfigurationError, match=setting):
        checks.check(YggdrasilSettings.model_validate({setting: value}), 1)


def test_numa_awareness_is_refused_only_where_it_would_mean_something() -> None:
    aware = YggdrasilSettings(numa_aware=True)
    checks.check(aware, 1)
    with pytest.raises(StoreConfigurationError, match="2 memory nodes"):
        checks.check(aware, 2)
    assert [checks.numa_nodes(text) for text in ("0\n", "0-1\n", "0,2-3\n")] == [1, 2, 3]


async def test_tables_larger_than_allowed_are_refused(calls: Calls) -> None:
    taken = checks.memory(calls.kernel.dp.pin_dir)
    assert taken > 8 << 20
    with pytest.raises(StoreConfigurationError, match="max_memory_mb allows 8"):
        await calls.adapter(max_memory_mb=8).start()
    async with calls.adapter(max_memory_mb=-(-taken >> 20) + 1):
        pass


async def test_without_pins_it_says_what_to_start() -> None:
    store = YggdrasilAdapter(YggdrasilSettings(), "edge", Book(), pin_dir=BPFFS / "valkyrie-none")
    with pytest.raises(StoreConnectionError, match="not there") as caught:
        await store.start()
    assert "valkyried" in caught.value.hint
    with pytest.raises(StoreConnectionError):
        await store.try_consume("u", limit=OWN)
    assert not (await store.health_check()).ok


def test_without_the_right_it_says_which(calls: Calls) -> None:
    program = (
        "import asyncio, sys; from pathlib import Path\n"
        "from valkyrie.adapters.yggdrasil.adapter import YggdrasilAdapter\n"
        "from valkyrie.adapters.settings import YggdrasilSettings\n"
        "store = YggdrasilAdapter(YggdrasilSettings(), 'edge', None, pin_dir=Path(sys.argv[1]))\n"
        "asyncio.run(store.start())\n"
    )
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [*AS_NOBODY, sys.executable, "-c", program, str(calls.kernel.dp.pin_dir)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert AuthorizationFailed.__name__ in done.stderr
    assert "CAP_BPF" in done.stderr


async def test_a_process_of_another_version_is_told_to_start_again(calls: Calls) -> None:
    calls.publish()
    async with calls.adapter() as store:
        calls.kernel.dp.control["abi"] = abi.ABI_VERSION + 1
        with pytest.raises(ConsistencyError, match="ABI"):
            await store.try_consume("u", limit=OWN)
        with pytest.raises(ConsistencyError):
            await calls.adapter().start()
    assert calls.kernel.buckets() == {}


@pytest.fixture
def migrated(tmp_path: Path) -> Iterator[Path]:
    pin_dir = BPFFS / f"valkyrie-callmove-{os.getpid()}"
    yield pin_dir
    for place in (pin_dir, migrate.aside(pin_dir, "next"), migrate.aside(pin_dir, "old")):
        pins.remove(place)


async def test_when_another_table_takes_over_calls_go_on_there_with_their_debts(
    calls: Calls, migrated: Path, tmp_path: Path
) -> None:
    cpus = calls.kernel.dp.sizes.cpus
    small, large, records = Sizes(64, 32768, cpus), Sizes(128, 32768, cpus), [tmp_path / "a", tmp_path / "b"]
    build.ensure(migrated, small, records[0])
    assert build.ensure_call(migrated, small, records[1], 16).how == "built"
    assert build.ensure_call(migrated, small, records[1], 16).how == "adopted"
    with Dataplane(migrated) as plane:
        plane.control["abi"] = abi.ABI_VERSION
    store = YggdrasilAdapter(YggdrasilSettings(), "edge", Book(), pin_dir=migrated)
    async with store:
        await store.set("k", b"v")
        assert (await store.try_consume("u", 2, limit=OWN)).remaining == 1
        migrate.begin(migrated, large, records[0], lambda plane: None, time.monotonic_ns)
        assert (await store.try_consume("u", limit=OWN)).allowed
        migrate.finish(migrated, time.monotonic_ns())
        with pytest.raises(StoreConnectionError):
            await store.try_consume("u", limit=OWN)  # until the daemon has built `call` again
        assert build.ensure_call(migrated, large, records[1], 16).how == "built"
        assert not (await store.try_consume("u", limit=OWN)).allowed
        assert await store.get("k") == b"v"


async def test_tasks_that_call_at_once_each_get_their_own_answer(calls: Calls) -> None:
    calls.publish([limit("m", rate="1/h", burst="1", key="id")])
    async with calls.adapter() as store:
        asked = [store.try_consume(f"u{i % 50}", limit="m") for i in range(150)]
        assert sum(one.allowed for one in await asyncio.gather(*asked)) == 50


def test_nothing_stays_open_after_close(calls: Calls) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))

    async def use() -> None:
        async with calls.adapter() as store:
            await store.try_consume("u", limit=OWN)
            await store.set("k", b"v")

    calls.publish()
    for _ in range(3):
        asyncio.run(use())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
