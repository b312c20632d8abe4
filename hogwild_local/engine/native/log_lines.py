"""Log lines of the library on their way to the hook (engine/log.py)."""

from __future__ import annotations

import sys
from typing import Any

from .. import log
from .calls import keep_for_caller
from .library import ffi, lib


def _tell(kind: type[BaseException], exception: BaseException, trace: Any) -> None:
    """A hook that fails spoils no call; Ctrl+C inside it is the caller's."""
    if isinstance(exception, Exception):
        sys.excepthook(kind, exception, trace)
    else:
        keep_for_caller(kind, exception, trace)


@ffi.def_extern(onerror=_tell)  # type: ignore[untyped-decorator]
def hogwild_on_log(level: int, text: Any, user_data: Any) -> None:
    log.tell(level, ffi.string(text).decode("utf-8", errors="replace"))


log.connect(lambda wanted: lib.hw_log_set(lib.hogwild_on_log if wanted else ffi.NULL, ffi.NULL))
