"""Pieces of a call on several threads: the same results, one thread an operation, and nothing changed for the rest."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
import warnings
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from outpace.kernels.attention import BlockIndex, searched_attention, sparse_attention
from outpace.kernels.threads import _making, _pools, share_out


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    _pools.clear()  # every test makes its own
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def in_a_thread(run: object) -> object:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(run()))  # type: ignore[operator]
    thread.start()
    thread.join()
    return found[0]


def inputs(heads: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, BlockIndex]:
    generator = torch.Generator().manual_seed(heads)
    q, k, v = (torch.randn(2, heads, 192, 16, generator=generator) for _ in range(3))
    kept = torch.rand(2, heads, 6, 12, generator=generator) < 0.4
    kept[..., 0] = True
    index = BlockIndex.from_mask(kept, queries=192, keys=192, query_block=32, key_block=16)
    return q, k, v, index


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_sparse_attention_is_the_same_on_two_threads(two_threads: None, mode: type) -> None:
    q, k, v, index = inputs()
    with mode():
        out, lse = sparse_attention(q, k, v, index, return_lse=True, backend="torch")
        true, true_lse = sparse_attention(q, k, v, index, return_lse=True, backend="reference")
        assert out.is_inference() == (mode is torch.inference_mode)
        torch.testing.assert_close(out, true, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(lse, true_lse, rtol=1e-4, atol=1e-5)
        found = searched_attention(q, k, v, query_block=32, key_block=16)
        torch.set_num_threads(1)
        alone = searched_attention(q, k, v, query_block=32, key_block=16)
    for one, other in zip(found, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_every_piece_runs_once_elsewhere_and_with_one_thread(two_threads: None) -> None:
    at_once = threading.Barrier(2, timeout=20)  # broken where the two do not run side by side
    seen: list[tuple[int, int, int]] = []

    def run(piece: int) -> None:
        at_once.wait()
        seen.append((piece, threading.get_ident(), torch.get_num_threads()))

    share_out(run, range(2))
    assert sorted(piece for piece, _, _ in seen) == [0, 1]
    assert len({thread for _, thread, _ in seen} | {threading.get_ident()}) == 3
    assert [count for _, _, count in seen] == [1, 1]
    assert torch.get_num_threads() == 2
    assert in_a_thread(torch.get_num_threads) == 2


@pytest.mark.parametrize(
    "reason", ["one piece", "one thread", "threads that spin", "operations are counted", "another device"]
)
def test_pieces_stay_where_threads_would_be_in_the_way(
    two_threads: None, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    pieces = range(1 if reason == "one piece" else 4)
    if reason == "one thread":
        torch.set_num_threads(1)
    if reason == "threads that spin":
        monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    places: list[tuple[int, int]] = []

    def run(piece: int) -> None:
        places.append((piece, threading.get_ident()))
        torch.ones(2, 3) @ torch.ones(3, 5)

    if reason == "operations are counted":
        with FlopCounterMode(display=False) as counter:
            share_out(run, pieces)
        assert counter.get_total_flops() == 4 * 2 * 2 * 3 * 5
    else:
        share_out(run, pieces, torch.device("cuda" if reason == "another device" else "cpu"))
    assert places == [(piece, threading.get_ident()) for piece in pieces]


@pytest.mark.parametrize("pools", [0, 1])
def test_pieces_are_run_while_the_interpreter_ends(
    two_threads: None, monkeypatch: pytest.MonkeyPatch, pools: int
) -> None:
    """A thread that the main one does not wait for goes on when nothing can be submitted any more."""
    for _ in range(pools):
        share_out(lambda _: None, range(4))
    with monkeypatch.context() as ending:
        ending.setattr("concurrent.futures.thread._shutdown", True)
        done: list[int] = []
        share_out(done.append, range(4))
        assert done == [0, 1, 2, 3]
    assert torch.get_num_threads() == in_a_thread(torch.get_num_threads) == 2


def test_pieces_are_run_where_the_system_starts_no_more_threads(
    two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, started = threading.Thread.start, list[threading.Thread]()

    def once(self: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    with monkeypatch.context() as short:
        short.setattr(threading.Thread, "start", once)
        done: list[int] = []
        share_out(done.append, range(4))
    assert done == [0, 1, 2, 3]
    started[0].join(20)
    assert not started[0].is_alive(), "the thread that was started waits for the others"
    assert torch.get_num_threads() == in_a_thread(torch.get_num_threads) == 2


def test_the_first_failure_is_told_when_all_have_ended(two_threads: None) -> None:
    ended: list[int] = []

    def run(piece: int) -> None:
        if piece in (1, 2):
            raise ValueError(f"piece {piece}")
        time.sleep(0.05)
        ended.append(piece)

    with pytest.raises(ValueError, match="piece 1"):
        share_out(run, range(6))
    assert sorted(ended) == [0, 3, 4, 5]


def test_a_failure_keeps_hold_of_nothing(two_threads: None) -> None:
    kept = torch.zeros(3)
    freed = weakref.ref(kept)

    def run(piece: int, kept: torch.Tensor = kept) -> None:
        raise ValueError(f"piece {piece}")

    gc.disable()
    try:
        with contextlib.suppress(ValueError):
            share_out(run, range(4))
        del run, kept
        patience = time.monotonic() + 20
        while freed() is not None and time.monotonic() < patience:
            time.sleep(0.001)  # a thread may not have left its piece yet
        assert freed() is None
    finally:
        gc.enable()


def test_gradients_are_as_the_caller_has_them(two_threads: None) -> None:
    seen: list[bool] = []
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            share_out(lambda _: seen.append(torch.is_grad_enabled()), range(4))
    assert seen == [True] * 4 + [False] * 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_makes_threads_of_its_own(two_threads: None) -> None:
    share_out(lambda _: None, range(4))
    reader, writer = os.pipe()
    held = threading.Event()

    def make() -> None:
        with _making:  # as while another pool is made
            held.set()
            time.sleep(0.2)

    making = threading.Thread(target=make)
    making.start()
    assert held.wait(20)
    with warnings.catch_warnings():  # of Python 3.12 and later, of threads that may hold locks: none is held here
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        signal.alarm(20)
        done: list[int] = []
        share_out(done.append, range(4))
        os.write(writer, bytes(sorted(done)))
        os._exit(0)
    os.close(writer)
    making.join()
    assert os.read(reader, 16) == bytes(range(4))
    os.waitpid(child, 0)
