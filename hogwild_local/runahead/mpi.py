"""MPI as the transport. All its calls are made by one thread, so that messages go on while this process computes.

MPI itself may notice nothing when a rank dies. So each rank sends every other a sign each second, and one that has been
silent for LOST_S is lost: whatever waits raises RankLost. A rank that fails says so before it leaves.
"""

from __future__ import annotations

import contextlib
import marshal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..engine.wire import error_of, plain_error
from ..errors import Cancelled, HogwildError, RankLost, RunaheadError
from .place import Place, chain, here
from .transport import Bytes

BEAT_S = 1.0
LOST_S = 5.0
WAITING_S, COMPUTING_S, IDLE_S = 0.0002, 0.002, 0.005  # between two looks at the messages
LONGEST_ERROR = 4096
TAG_BEAT, TAG_ERROR = 32001, 32002  # MPI promises tags up to 32767; those of layers are far below
INSTALL = "install one with: python -m pip install 'hogwild-local[runahead]'"


def load_mpi4py() -> Any:
    """The package, which touches no MPI yet. Raises RunaheadError."""
    try:
        import mpi4py
    except ImportError:
        raise RunaheadError(f"there is no MPI for several ranks: mpi4py is missing; {INSTALL}") from None
    return mpi4py


def load_mpi() -> Any:
    """The module mpi4py.MPI, which takes part in MPI from now on. Raises RunaheadError."""
    mpi4py = load_mpi4py()
    mpi4py.rc.finalize = False  # it would wait for ranks that are lost
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise RunaheadError(f"mpi4py finds no MPI library ({error}); {INSTALL}") from None
    return MPI


class Message:
    """One that is on its way."""

    def __init__(self, owner: MpiTransport, request: Any, data: Bytes, is_received: bool) -> None:
        self.request, self.done = request, threading.Event()
        self._owner, self._data = owner, data  # MPI reads or writes it
        self._is_received, self._is_empty = is_received, False

    def wait(self) -> None:
        with self._owner.waiting():
            while not self.done.wait(BEAT_S):
                self._owner.tick()
        self._owner.check()
        if self._is_empty:
            raise Cancelled("another rank has given up this prompt")

    def settle(self) -> None:
        with self._owner.waiting():
            self.done.wait()
        self._owner.check()

    def end(self, n_bytes: int) -> None:
        """n_bytes: what has come, if something was to come."""
        self._is_empty = self._is_received and n_bytes < len(self._data)
        self.done.set()


class MpiTransport:
    """The ranks of MPI's world, in the order of chain(): launchers number them in any."""

    def __init__(self, n_ranks: int, can_be_last: bool = True) -> None:
        """n_ranks: how many the launcher has started. Raises RunaheadError where there is no MPI, or another one."""
        self._mpi = load_mpi()
        everybody = self._mpi.COMM_WORLD
        if everybody.Get_size() != n_ranks:
            mine = self._mpi.Get_library_version().split(",")[0].split("\n")[0].strip()
            raise RunaheadError(
                f"the launcher has started {n_ranks} ranks, of which MPI knows {everybody.Get_size()}: it belongs to "
                f"another MPI than the library that mpi4py has found ({mine}). Name the right one in HOGWILD_MPIEXEC"
            )
        at, can = zip(*everybody.allgather((here(), can_be_last)), strict=True)
        if not any(can):
            raise RunaheadError("no rank is on the machine that wants them")
        order = chain(at, max(rank for rank in range(n_ranks) if can[rank]))
        self._world = everybody.Split(0, order.index(everybody.Get_rank()))
        self.rank, self.size = int(self._world.Get_rank()), n_ranks
        self.places: Sequence[Place] = [at[rank] for rank in order]
        self._lock = threading.Lock()
        self._open: list[Message] = []
        self._statuses: list[Any] = []
        self._failure: HogwildError | None = None
        self._is_ended = False
        self._n_waiting, self._waits_since_s = 0, 0.0
        self.watch: Callable[[list[int]], object] | None = None
        self._layer = self._given_up = 0
        peers = [rank for rank in range(self.size) if rank != self.rank]
        self._beats = {rank: _Beat(self._world, rank) for rank in peers}
        self._errors = {rank: self._listen(rank, TAG_ERROR, LONGEST_ERROR) for rank in peers}
        self._thread = threading.Thread(target=self._run, daemon=True, name="hogwild MPI")
        self._thread.start()

    def send(self, rank: int, tag: int, data: Bytes) -> Message:
        return self._start(self._world.Isend, rank, tag, data, False)

    def receive(self, rank: int, tag: int, into: Bytes) -> Message:
        return self._start(self._world.Irecv, rank, tag, into, True)

    @property
    def given_up(self) -> int:
        return max([self._given_up, *(beat.heard_given_up for beat in self._beats.values())])

    def give_up(self, number: int) -> None:
        self._given_up = number
        for beat in self._beats.values():
            beat.given_up, beat.sent_s = number, 0.0

    def reached(self, layer: int) -> None:
        self._layer = layer
        for beat in self._beats.values():
            beat.layer = layer
        self.tick()

    def tick(self) -> None:
        if self.watch is not None:
            layers = {rank: beat.heard_layer for rank, beat in self._beats.items()} | {self.rank: self._layer}
            if self.watch([layers[rank] for rank in range(self.size)]) is False:
                raise Cancelled("the prompt was cancelled")

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Has the messages looked at more often: nothing is computed meanwhile."""
        with self._lock:
            self._n_waiting, self._waits_since_s = self._n_waiting + 1, time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._n_waiting -= 1

    def check(self) -> None:
        """Raises RankLost, or what a rank raised: from then on the ranks are of no use."""
        if self._failure is not None:
            raise self._failure

    def name(self, rank: int) -> str:
        return f"rank {rank} on {self.places[rank].host}"

    def fail(self, error: BaseException) -> None:
        """Tells all ranks that this one is of no use any more."""
        name, text = plain_error(error)
        text = f"{self.name(self.rank)}: {text}".encode()[: LONGEST_ERROR - 64].decode(errors="ignore")
        data = np.frombuffer(marshal.dumps((name, text)), dtype=np.uint8)
        sends = []
        with contextlib.suppress(HogwildError):
            sends = [self.send(rank, TAG_ERROR, data) for rank in self._beats]
        for message in sends:
            message.done.wait(BEAT_S)
        with self._lock:
            self._fail(RankLost(f"the ranks gave up an earlier prompt ({text}): close this Hogwild, make a new one"))

    def end(self) -> None:
        """Leaves MPI, if all ranks are there to do so. May be called twice."""
        with self._lock:
            is_first, self._is_ended = not self._is_ended, True
        self._thread.join()
        if is_first and self._failure is None:
            # All ranks meet there. One that dies on the way must not keep the others.
            last = threading.Thread(target=self._finalize, daemon=True, name="hogwild MPI's end")
            last.start()
            last.join(LOST_S)

    def outlast(self, rank: int) -> None:
        """Waits, when the ranks are of no use to each other any more, until that rank has ended: a launcher takes the
        end of one for the end of all, and that one may have something left to do."""
        while time.monotonic() - self._beats[rank].heard_s < LOST_S:
            time.sleep(IDLE_S)

    def _finalize(self) -> None:
        beats = [beat.request for beat in self._beats.values()]
        for request in [*beats, *(request for request, _ in self._errors.values())]:
            request.Cancel()
            request.Wait()
        self._mpi.Finalize()

    def _listen(self, rank: int, tag: int, n: int) -> tuple[Any, Bytes]:
        into = np.zeros(n, dtype=np.uint8)
        return self._world.Irecv(into, rank, tag), into

    def _start(self, call: Any, rank: int, tag: int, data: Bytes, is_received: bool) -> Message:
        with self._lock:
            self.check()
            message = Message(self, call(data, rank, tag), data, is_received)
            self._open.append(message)
        return message

    # -- the thread --

    def _run(self) -> None:
        looked_s, listened_s = time.monotonic(), 0.0
        while not self._is_ended:
            now = time.monotonic()
            if now - looked_s > LOST_S / 2:  # this process was stopped, or starved: nobody is to blame
                for beat in self._beats.values():
                    beat.heard_s = now
            looked_s = now
            with self._lock:
                try:
                    if now - listened_s >= IDLE_S:
                        listened_s = now
                        self._hear(now)
                    if self._failure is None:
                        self._look()
                except HogwildError as error:
                    self._fail(error)
                except self._mpi.Exception as error:
                    self._fail(RankLost(f"MPI failed: {error}"))
                pause = self._pause_s(now)
            time.sleep(pause)

    def _pause_s(self, now: float) -> float:
        """Looking costs 15 microseconds: of the core that computes, unless somebody waits. A helper between two prompts
        waits too, for a single message, and long."""
        if self._n_waiting:
            return WAITING_S if len(self._open) > 1 or now - self._waits_since_s < BEAT_S else IDLE_S
        return COMPUTING_S if self._open else IDLE_S

    def _hear(self, now: float) -> None:
        for rank, beat in self._beats.items():
            if not beat.is_heard(now) and self._failure is None:
                raise RankLost(f"{self.name(rank)} has died, or cannot be reached any more")
        for request, data in self._errors.values():
            if self._failure is None and request.Test():
                raise error_of(*marshal.loads(data.tobytes()))

    def _look(self) -> None:
        if self._open:
            n_new = len(self._open) - len(self._statuses)
            self._statuses += [self._mpi.Status() for _ in range(n_new)]
            done = self._mpi.Request.Testsome([message.request for message in self._open], self._statuses) or ()
            for message, status in zip([self._open[index] for index in done], self._statuses, strict=False):
                self._open.remove(message)
                message.end(status.Get_count(self._mpi.BYTE))

    def _fail(self, error: HogwildError) -> None:
        self._failure = self._failure or error
        for message in self._open:
            message.done.set()


class _Beat:
    """What goes between this rank and another one each second, and as soon as a prompt is given up: the layer that it
    computes, and the number of that prompt."""

    def __init__(self, world: Any, rank: int) -> None:
        self._world, self._rank = world, rank
        self._out, self._into = np.zeros(2, dtype=np.int32), np.zeros(2, dtype=np.int32)
        self.layer = self.given_up = 0
        self.heard_layer = self.heard_given_up = 0
        self._sent: Any = None
        self.sent_s = 0.0
        self.heard_s = time.monotonic()
        self.request = world.Irecv(self._into, rank, TAG_BEAT)

    def is_heard(self, now: float) -> bool:
        """Whether the other one was heard lately; and lets it hear of us."""
        if self.request.Test():
            self.heard_s = now
            self.heard_layer, self.heard_given_up = map(int, self._into)
            self.request = self._world.Irecv(self._into, self._rank, TAG_BEAT)
        if now - self.sent_s >= BEAT_S and (self._sent is None or self._sent.Test()):
            self._out[:] = self.layer, self.given_up
            self._sent = self._world.Isend(self._out, self._rank, TAG_BEAT)
            self.sent_s = now
        return now - self.heard_s < LOST_S
