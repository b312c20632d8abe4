"""Turns the C headers into the source of the extension module: `python -m cffi.gen_src exec-python cffi_build.py OUT`.

The headers are the only description of the interface: cffi reads them as they are, less the preprocessor lines.
"""

import re
from pathlib import Path

import cffi

INCLUDE = Path(__file__).parent.parent / "include"
HEADERS = ["hogwild.h", "hogwild-sampler.h", "hogwild-attention.h", "hogwild-trial.h", "hogwild-parts.h"]
CALLBACKS = """
extern "Python" bool hogwild_on_progress(float, void *);
extern "Python" bool hogwild_on_exchange(int32_t, void *);
extern "Python" void hogwild_on_log(int32_t, const char *, void *);
"""


def declarations(header: str) -> str:
    """A header as cffi's cdef understands it."""
    text = (INCLUDE / header).read_text(encoding="utf-8")
    text = re.sub(r"#ifdef __cplusplus.*?#endif", "", text, flags=re.DOTALL)
    return re.sub(r"^#.*$", "", text, flags=re.MULTILINE)


ffibuilder = cffi.FFI()
ffibuilder.cdef("".join(declarations(header) for header in HEADERS) + CALLBACKS)
ffibuilder.set_source("hogwild_local.engine._hogwild", "".join(f'#include "{header}"\n' for header in HEADERS))
