"""The exceptions of hogwild_local. Everything it raises on purpose is a HogwildError:

HogwildError
├── ModelError            the file is missing, truncated, foreign, or does not fit into memory
│   └── UnsupportedModel  the file is a model, but not one that can run here
├── CacheFull             not enough free cells (.needed, .free)
├── InvalidArgument       an argument is wrong (named); also a ValueError
│   └── BatchTooLarge     more tokens in one call than n_batch
├── Closed                use after close()
│   └── Forked            use in a child that fork() made: it has the objects, but not their threads
├── Busy                  something is in use, would wait for its own caller, or is called by a log hook
├── OutOfMemory           memory could not be had; also a MemoryError
├── ComputeError          a backend failed
├── DeviceError           a device, or the backend of one, cannot be had: an RPC server that is not there, ...
├── EngineDied            the process that the engine lived in has ended: an RPC server died, ...
├── RunaheadError         the ranks of a prefill cannot be had: no MPI, a host that does not answer, ...
│   └── RankLost          a rank has died, or cannot be reached any more
└── Cancelled             a callback, or close() from another thread, ended the call

    try:
        result = hogwild.generate(prompt)
    except hogwild_local.errors.CacheFull as full:
        print(f"{full.needed} tokens do not fit into {full.free}")

None but EngineDied changes what it was raised from: the objects are as they were before the call.
"""

from __future__ import annotations


class HogwildError(Exception):
    """Base class of every error of this package."""


class ModelError(HogwildError):
    """The model cannot be loaded. Nothing was kept."""


class UnsupportedModel(ModelError):
    """The model holds something (named) that cannot be run here. Nothing was kept."""


class CacheFull(HogwildError):
    """The cache has too few free cells. Nothing was fed: free, clear or truncate blocks, or feed less."""

    def __init__(self, needed: int, free: int, message: str | None = None) -> None:
        super().__init__(message or f"the cache is full: {needed} cells are needed, {free} are free")
        self.needed = needed
        self.free = free


class InvalidArgument(HogwildError, ValueError):
    """An argument (named) is out of range or makes no sense. Nothing was changed: correct the call."""


class BatchTooLarge(InvalidArgument):
    """The tokens of one decode of several views do not fit n_batch. Nothing was fed: use several calls."""


class Closed(HogwildError):
    """The object was closed before, or during, the call."""


class Forked(Closed):
    """The object was made before fork(), and this is the child: nothing was done. The message says what to do."""


class Busy(HogwildError):
    """A run waits for others that only this thread can end; more was said to it than it has read; a layout or a file is
    in use by another one; or a log hook calls the engine that it runs in (note the line, and call afterwards). Nothing
    is disturbed: wait for, finish or close what is in the way."""


class OutOfMemory(HogwildError, MemoryError):
    """Memory for weights, cache or a forward pass could not be had. Nothing was changed: ask for less."""


class ComputeError(HogwildError):
    """A backend failed in a forward pass. Nothing was fed: the call can be repeated."""


class DeviceError(HogwildError):
    """A device, or the backend of one, cannot be had (named, with what to do). Nothing was kept."""


class EngineDied(HogwildError):
    """The process that the engine lived in has ended, and model and cache with it: an RPC server died (ggml ends its
    client then), or the process was killed. The message names the servers. Close the Hogwild and make a new one."""


class RunaheadError(HogwildError):
    """The processes that are to prefill together cannot be had (named, with what to do). Nothing was kept."""


class RankLost(RunaheadError):
    """One of these processes (named) has died, or cannot be reached any more. Nothing was fed: caches of the last rank
    are as before, and read what they hold; for another long prompt close the Hogwild and make a new one."""


class Cancelled(HogwildError):
    """The call was cancelled. Nothing was kept of what it did."""
