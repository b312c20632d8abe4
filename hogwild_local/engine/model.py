"""A loaded GGUF model: weights, tokenizer, metadata, chat template."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self, get_args

from ..checks import flag, number, one_of, text, whole
from ..errors import InvalidArgument
from ..options import MOST_THREADS, ControlVector, EngineOptions, Lora, Servers, SplitMode
from .adapters import checked_control_vectors, checked_loras
from .arguments import c_path
from .devices import devices_of
from .rpc import greet, listed, load_backend, parse_servers, short_address
from .trial import try_file

if TYPE_CHECKING:
    from .native import NativeModel


class Model:
    """A model, loaded once and shared by any number of caches.

    path: the GGUF file (the first one of a split model). n_gpu_layers: layers on GPUs or servers, if there are any; -1
    or None for all. n_threads: of its caches; None for as many as a pass of it can use. progress: called with 0..1
    while loading, returns False (or raises) to stop. lora, control_vectors: GGUF files with what changes the model,
    each a path, or a path and a scale; a control vector may name the first and the last layer it is added in, from 1
    on. Several are added up. rpc: servers of other machines, "host:port,..." or a list; their devices come before those
    of this machine. If such a server dies, ggml ends the process: see isolate. tensor_split: how much of the layers
    each device takes; without it, as much as it has memory. split_mode: "layer", or "none" for all on the device
    main_gpu. device: names of this machine's GPUs that are used (hogwild rpc-server --list-devices); without it all.
    vocab_only: tokenizer, metadata and chat template without the weights, of any model, also one that cannot
    run here; a SharedCache on it raises InvalidArgument, and n_ctx_train is 0. trust: load the file without a trial in
    a process of its own, which is made once for a file (see trial.py). isolate: the model, its caches and samplers live
    in a process of their own, which ends with close(); whatever else ends that process (an RPC server that died) is an
    EngineDied here, and there is no trial. Hogwild(rpc=...) does so unless told otherwise.
    native: what stands for the compiled module, where that is several ranks (see hogwild_local.runahead).
    Raises ModelError, UnsupportedModel, OutOfMemory, Cancelled, InvalidArgument, DeviceError; ImportError where what is
    compiled, or its llama.cpp, is not there or is another one.

        with Model("model.gguf", n_threads=4, lora=[("adapter.gguf", 0.5)]) as model:
            tokens = model.tokenize("Hello")
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        n_gpu_layers: int | None = None,
        n_threads: int | None = None,
        *,
        use_mmap: bool = True,
        vocab_only: bool = False,
        progress: Callable[[float], object] | None = None,
        lora: Sequence[Lora] = (),
        control_vectors: Sequence[ControlVector] = (),
        rpc: Servers = (),
        tensor_split: Sequence[float] = (),
        split_mode: SplitMode = EngineOptions.split_mode,
        main_gpu: int = EngineOptions.main_gpu,
        device: str | Sequence[str] = EngineOptions.device,
        trust: bool = EngineOptions.trust,
        isolate: bool = False,
        native: Any = None,
    ) -> None:
        file = c_path(path, "path")
        self.path = os.fsdecode(file)
        loras, vectors = checked_loras(lora), checked_control_vectors(control_vectors)
        if not (trust or isolate or native):
            try_file(file, *([path for path, *_ in given] for given in (loras, vectors)))
        servers, devices = parse_servers(rpc), listed(device, "device", "name")
        if progress is not None and not callable(progress):
            raise InvalidArgument(f"progress must be a function of one number, not {progress!r}")
        settings = {
            "path": file,
            "n_gpu_layers": -1 if n_gpu_layers is None else whole(n_gpu_layers, "n_gpu_layers", -1),
            "n_threads": None if n_threads is None else whole(n_threads, "n_threads", 1, MOST_THREADS),
            "use_mmap": bool(use_mmap),
            "vocab_only": bool(vocab_only),
            "loras": loras,
            "control_vectors": vectors,
            "tensor_split": _checked_split(tensor_split),
            "split_mode": one_of(split_mode, "split_mode", get_args(SplitMode)),
            "main_gpu": whole(main_gpu, "main_gpu", 0),
            "devices": [text(name, "device").encode() for name in devices] or None,
        }
        with _engine(flag(isolate, "isolate"), servers, native) as module:
            if servers:
                load_backend(module)
                servers = [short_address(server) for server in servers]
                for server in servers:
                    greet(server)
            settings["rpc_servers"] = [server.encode() for server in servers]
            self._native: NativeModel = module.NativeModel(settings, progress)
            self._ask_native()
        self.vocab_only = bool(vocab_only)
        self._bytes: dict[int, bytes] = {}
        self._ends: dict[int, bool] = {}

    def _ask_native(self) -> None:
        self.n_threads = self._native.number("n_threads")
        self.n_vocab = self._native.number("n_vocab")
        self.n_ctx_train = self._native.number("n_ctx_train")
        self.metadata = self._native.metadata()
        self.description = self._native.text("description") or ""
        self.devices = devices_of(self._native.placement())
        self.chat_template = self._native.text("chat_template")
        self.bos = self._native.special("BOS")
        self.eos = self._native.special("EOS")

    def tokenize(self, text: str | bytes, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """The tokens of a text. add_special: with what the model wants around it, such as BOS; parse_special:
        names of control tokens in the text become these tokens."""
        if not isinstance(text, str | bytes):
            raise InvalidArgument(f"text must be a text or its UTF-8 bytes, not {text!r}")
        flag(add_special, "add_special")
        flag(parse_special, "parse_special")
        try:
            data = text.encode("utf-8", errors="surrogateescape") if isinstance(text, str) else text
        except UnicodeEncodeError as error:
            raise InvalidArgument(f"text holds what is no character: {error}") from None
        return self._native.tokenize(data, add_special, parse_special)

    def detokenize(self, ids: Sequence[int], special: bool = False) -> str:
        """The text of tokens; bytes that are not UTF-8 become U+FFFD. special: with names of control tokens."""
        if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
            raise InvalidArgument(f"ids must be a list of tokens, not {ids!r}")
        flag(special, "special")
        tokens = [whole(token, "a token", 0, self.n_vocab - 1) for token in ids]
        return self._native.detokenize(tokens, special).decode("utf-8", errors="replace")

    def token_bytes(self, token: int, special: bool = False) -> bytes:
        """The bytes of one token, which need not be whole characters. Control tokens have none, unless special."""
        token = whole(token, "token", 0, self.n_vocab - 1)
        if special:
            return self._native.token_bytes(token, True)
        known = self._bytes.get(token)
        if known is None:
            known = self._bytes[token] = self._native.token_bytes(token, False)
        return known

    def token_text(self, token: int) -> str:
        """One token as text, control tokens by name."""
        return self.token_bytes(token, special=True).decode("utf-8", errors="replace")

    def is_eog(self, token: int) -> bool:
        """Whether the token ends the generation."""
        token = whole(token, "token", 0, self.n_vocab - 1)
        known = self._ends.get(token)
        if known is None:
            known = self._ends[token] = self._native.is_end(token)
        return known

    @property
    def llama_address(self) -> int:
        """The address of the llama_model, for use with llama_cpp's own functions while this object lives. Raises
        InvalidArgument where it lives in another process."""
        if self._native.place is not None:
            raise InvalidArgument("the model lives in a process of its own (isolate): its address means nothing here")
        return self._native.address()

    @property
    def pid(self) -> int:
        """The process that holds the model."""
        return os.getpid() if self._native.place is None else self._native.place.pid

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._native.closed

    def close(self) -> None:
        """Frees the model, once its caches are closed too; a process of its own ends, with caches and samplers, at the
        latest 3 seconds later. Using it afterwards raises Closed."""
        self._native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Model({self.path!r}, {self.description!r})"


@contextlib.contextmanager
def _engine(isolate: bool, servers: Sequence[str], given: Any = None) -> Iterator[Any]:
    """The native module, here or in a process of its own, which ends where a model cannot be had of it."""
    if given is not None:
        yield given
        return
    if not isolate:
        from . import native

        yield native
        return
    from .pipe import RemoteNative

    remote = RemoteNative(servers)
    try:
        yield remote
    except BaseException:
        remote.place.close()
        raise


def _checked_split(parts: Sequence[float]) -> list[float]:
    if isinstance(parts, str | bytes) or not isinstance(parts, Sequence):
        raise InvalidArgument(f"tensor_split must be a list of numbers, not {parts!r}")
    return [number(part, "a number of tensor_split") for part in parts]
