"""The worker loop, in halves: plan() says what to feed, take() makes events of what was sampled. It calls no engine
but to make blocks and samplers (paper, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from time import perf_counter

from .. import events as ev
from ..engine.protocols import CacheLike, ModelLike, SamplerLike
from ..engine.views import Sampled
from ..errors import CacheFull
from ..options import Worker
from ..prompts.prompt import Prompt
from ..prompts.style import Wording
from .admission import Place
from .asides import Asides
from .commands import Cancel, Commands, Join, Say, Stop
from .context import Context
from .feeds import Feed, Phase
from .finisher import Finisher
from .held import free_all
from .joining import Joining
from .layouts import Block, Layout, free_block
from .opening import Opening
from .passes import Passes
from .prefill import Prefill
from .reply import Reply
from .samplers import Role, Samplers
from .saying import Saying
from .settings import RunSettings
from .team import Team


class Loop:
    """One run: prefill, passes, finisher, reply, one after the other. It owns its place, the samplers, and the blocks
    through its layout; close() frees them.

    wait() until it returns None; begin(); then plan() and take() until plan() has nothing; end(), close(), ended().
    It must not refer to its Run: a run that is dropped frees everything at once only without a cycle.
    """

    def __init__(
        self,
        model: ModelLike,
        cache: CacheLike,
        layout: Layout,
        wording: Wording,
        prompt: Callable[[], Prompt],
        samplers: Samplers,
        settings: RunSettings,
        place: Place,
        commands: Commands,
    ) -> None:
        """prompt: made with the first event."""
        self.commands, self.settings, self.place = commands, settings, place
        self._run = Context(model, cache, layout, wording, settings, place, samplers.closing.turn_ends)
        self._prompt, self._samplers = prompt, samplers
        self._team, self._asides = Team(self._run, samplers.closing.token), Asides()
        self._opening: Opening | None = None
        self._phase: Phase | None = None
        self._finisher: Finisher | None = None
        self._reply: Reply | None = None
        self._cancelled = False
        self._held: list[Callable[[], object]] = [place.leave]
        self._plan_s = self._planned_at = 0.0
        self._planned: list[Feed] = []
        self._n_before = 0
        self._usage = ev.Usage()

    @property
    def done(self) -> bool:
        """Whether it holds nothing any more."""
        return not self._held

    def wait(self) -> ev.RunQueued | None:
        """Waits for its place; None: it can begin. Raises what the prompt, Opening.of() and Place.wait() raise."""
        if self._opening is None:
            self._opening = Opening.of(
                self._run.model, self._prompt(), self._samplers.closing.text, self._run.wording, self.settings
            )
        opening = self._opening
        # The last token is fed in any case, to have a block of its own that the history follows.
        prompt = opening.prompt[:-1] if self.settings.cache_prompt else ()
        position = self.place.wait(opening.least(opening.n_prompt), opening.wanted(opening.n_prompt), prompt)
        return ev.RunQueued(position) if position else None

    def begin(self) -> list[ev.Event]:
        """Makes all that the run needs. Raises CacheFull if a layout of the user's needs more than its place has."""
        self._obey()
        if not self.place.inside:
            return []
        assert self._opening is not None
        run, layout, opening = self._run, self._run.layout, self._opening
        n_before = self.place.reach()
        texts = (opening.prompt[n_before:], opening.header, opening.separator)
        layout.open(run.cache, len(opening.firsts), *texts, before=self.place, roles=opening.roles)
        self._held.append(layout.close)
        layout.check()
        n_cached = run.meter.cached_tokens = n_before + sum(map(len, layout.blocks))
        n_prompt = run.meter.prompt_tokens = n_before + sum(len(tokens) for _, tokens in layout.prefills)
        if n_prompt != opening.n_prompt and not self.place.grow(0, opening.least(n_prompt)):
            raise CacheFull(opening.least(n_prompt), self.place.left)
        for index, (worker, first) in enumerate(zip(self.settings.workers, opening.firsts, strict=True)):
            self._team.join(worker, self._sampler_of(worker, index), first)
        self._phase = prefill = Prefill(run, self._team.workers)
        self._held.append(prefill.keep_prompt)
        names, n_ctx = self.settings.names, run.cache.n_ctx
        seed, date = self.settings.seed, self.settings.date
        run.tell(ev.RunStarted(run.model.description, names, layout.name, n_ctx, seed, n_prompt, date))
        run.tell(ev.PromptProgress(n_cached, n_prompt))
        return run.told()

    def steady(self) -> AbstractContextManager[None]:
        """From plan() to the end of its pass."""
        return self.place.steady()

    def plan(self) -> list[Feed]:
        """What to feed in the next pass, after what was asked of the run in the meantime; nothing: it has ended."""
        start = perf_counter()
        self._obey()
        feeds: list[Feed] = []
        while self._phase is not None and not self._cancelled:
            feeds = self._phase.plan()
            if feeds:
                break
            self._phase = self._next_phase(self._phase)
        self._planned_at = perf_counter()
        self._plan_s = self._planned_at - start
        self._planned, self._n_before = feeds, _n_own(feeds)
        return feeds

    def give_way(self) -> bool:
        """The cache had no room for the pass that was planned: what layers with a sliding window hold is not counted
        before. Afterwards plan() plans another one. False: there can be none."""
        assert self._phase is not None
        self._phase.undo(_n_own(self._planned) - self._n_before)
        if self.place.make_room() or self._phase.give_way():
            return True
        self._obey()
        return self._cancelled

    def take(self, tokens: Sequence[Sampled | None]) -> list[ev.Event]:
        """The pass was made: a token of each feed that has a sampler, None for the others."""
        assert self._phase is not None
        run, kind = self._run, self._phase.kind
        engine_s = perf_counter() - self._planned_at
        run.meter.count(kind)
        self._phase.take(tokens)
        run.meter.add(kind, engine_s, self._plan_s + perf_counter() - self._planned_at)
        if kind != "prompt":
            run.tell(ev.PassEnded(run.meter.n_pass, run.meter.timings(), run.usage()))
        return run.told()

    def end(self) -> list[ev.Event]:
        """What is left to tell: who was still writing, and the answer."""
        run = self._run
        self._end_work()
        if self._team.workers:
            self._team.retire_all("cancelled")
            if self._reply is not None:
                self._reply.cancel()
        else:  # it never began
            run.tell(*(ev.WorkerFinished(name, "cancelled") for name in self.settings.names))
        if answer := self._answer():
            run.tell(answer)
        self._usage = run.usage()
        return run.told()

    def close(self) -> None:
        """Frees what the run holds. May be called twice, and goes on where Ctrl+C left it."""
        free_all(self._held, lambda free: free())

    def ended(self) -> ev.RunEnded:
        """The last event, after everything is free again."""
        answer = self._answer()
        reason: ev.Reason = "cancelled" if self._cancelled and not answer else self._team.reason
        return ev.RunEnded(reason, answer.text if answer else None, self._run.meter.timings(), self._usage)

    def _obey(self) -> None:
        for command in self.commands.take():
            match command:
                case Cancel():
                    self._cancelled = True
                case Stop(name):
                    self._team.to_stop.add(name)
                case Say():
                    done = partial(self.commands.done, command)
                    self._asides.ask(Saying(self._run, self._team, done, command))
                case Join(worker):
                    done, leave_out = partial(self.commands.done, command), self.commands.leave_out
                    self._asides.ask(Joining(self._run, self._team, done, worker, self._sampler_of, leave_out))

    def _end_work(self) -> None:
        """Whatever was asked before this is told; what comes later is refused at once. May be called twice."""
        self.commands.end_work()
        self._obey()
        self._asides.end()

    def _next_phase(self, phase: Phase) -> Phase | None:
        assert self._opening is not None
        if isinstance(phase, Prefill):
            return Passes(self._run, self._team, self._asides, self._opening)
        if isinstance(phase, Passes):
            self._end_work()
        if isinstance(phase, Passes) and self.settings.finisher_tokens and not self._team.answer:
            self._finisher = Finisher(self._run, self._opening.finisher, *self._voice("finisher"))
            return self._finisher
        if isinstance(phase, Passes | Finisher) and self.settings.reply_tokens:
            self._reply = Reply(self._run, self._opening, *self._voice("reply"))
            return self._reply
        return None

    def _voice(self, role: Role) -> tuple[SamplerLike, Block]:
        block = self._run.cache.block(role)
        self._held.append(partial(free_block, block))
        return self._hold(self._samplers.of_voice(role)), block

    def _sampler_of(self, worker: Worker, index: int) -> SamplerLike:
        return self._hold(self._samplers.of_worker(worker, index))

    def _hold(self, sampler: SamplerLike) -> SamplerLike:
        self._held.append(sampler.close)
        return sampler

    def _answer(self) -> ev.Answer | None:
        voices = (self._team, self._finisher, self._reply)
        return next((voice.answer for voice in voices if voice is not None and voice.answer), None)


def _n_own(feeds: Sequence[Feed]) -> int:
    """Tokens of the blocks that are fed."""
    return sum([len(feed.view[-1]) for feed in feeds])
