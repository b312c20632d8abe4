from . import errors as errors
from . import events as events
from .chat import Chat as Chat
from .engine.block import CacheBlock as CacheBlock
from .engine.cache import SharedCache as SharedCache
from .engine.log import set_log_hook as set_log_hook
from .engine.model import Model as Model
from .engine.sampling import Sampler as Sampler
from .hogwild import Hogwild as Hogwild
from .options import SamplingParams as SamplingParams
from .options import Worker as Worker
from .prompts.style import PromptStyle as PromptStyle
from .workers.layouts import Layout as Layout
from .workers.result import Result as Result
from .workers.run import Run as Run

__version__: str
