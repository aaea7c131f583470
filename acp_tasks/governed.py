"""GovernedTask: the only seam between Celery and governance.

`apply_async` submits before it publishes; `__call__` admits before it runs. A message that reaches a worker on any
other way (another language, `send_task`, Flower) is submitted by the worker first, and a direct call, `.apply()`,
starmap and chunks go through the same door at once: there is no way to the body past `__call__`.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar
from uuid import NAMESPACE_OID, uuid5

import structlog
from celery import Celery, Task, current_task
from celery.result import AsyncResult

from acp_tasks import bootstrap
from acp_tasks.arrival import call_of
from acp_tasks.batched_events import SentEvents, sent_events
from acp_tasks.body import run_body
from acp_tasks.conclusion import conclude, echo, told_again
from acp_tasks.header import asked_of, header_of, names_in, surrounding_header
from acp_tasks.heart import keep_alive
from acp_tasks.install import install
from acp_tasks.onward import goes_on, published_or_submitted
from acp_tasks.publish import BROKER_ERRORS, HELD_BY_CELERY_S_MAX, options_of, redelivered
from acp_tasks.run import Run, find_run
from acp_tasks.signature import Proof, check_moving, examined, flaw_of_new, hand_nothing_on, refused, sign_moving
from acp_tasks.starts import starts
from acp_tasks.submission import make_submission, wait_s
from acp_tasks.terms import Terms, read_terms, resource_of, take_asked
from governance.errors import ActionCancelled, ActionDenied, InvalidOption, ResourceTemplateInvalid, StoreUnavailable
from governance.faults import point
from governance.middleware import DEFAULT, compose
from governance.middleware.call import Call, Outcome, Retrying, StoppedShort, StoreAway
from governance.operations.admit import ended
from governance.operations.answers import Dropped, NotSubmitted
from governance.operations.clearing import withdraw
from governance.operations.relay import Outgoing, keep_echo, not_published
from governance.operations.submit import Repeated, submit
from governance.tracing import span

log = structlog.get_logger(__name__)


class GovernedTask(Task[Any, Any]):
    """A Celery task whose body runs only behind governance: `Celery(..., task_cls="acp_tasks:GovernedTask")`."""

    abstract = True
    Request = "acp_tasks.request:GovernedRequest"

    # A redelivery is safe because attempts are fenced in the store.
    acks_late = True
    reject_on_worker_lost = True
    # Said by `run_body` instead, of admitted attempts only: a duplicate message must not overwrite an outcome.
    track_started = False
    # A denial is an answer, not a defect: no traceback in the worker's log.
    throws = (ActionDenied,)

    governed: ClassVar[bool] = True
    #: One of Celery's own: it runs nothing, it publishes or calls others.
    moves_others: ClassVar[bool] = False
    risk: ClassVar[str | None] = None
    cost_usd: ClassVar[object] = None
    tokens: ClassVar[object] = None
    idempotent: ClassVar[bool] = False
    resource: ClassVar[str | None] = None
    stream: ClassVar[str] = "default"
    model: ClassVar[str | None] = None
    terms: ClassVar[Terms]
    signature_of_run: ClassVar[inspect.Signature]
    sent_events: ClassVar[SentEvents]

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Checks the task's options when Celery binds it, and brings what governance needs into its app."""
        install(app)
        if cls.__module__ == "celery.app.builtins":
            # Celery's own (chords, maps) only move what is governed by itself.
            cls.governed = False
            cls.moves_others = True
        if cls.governed:
            options = ("risk", "cost_usd", "tokens", "idempotent", "resource", "stream", "model")
            cls.terms = read_terms(cls.name, {option: getattr(cls, option) for option in options})
            cls.signature_of_run = _signature_of(cls)
            cls.sent_events = sent_events(app)

    # --- the producer's side -----------------------------------------------------------------------------------------

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """Celery's own, after submission. Also takes command_id, stream, agent_id, identity, cost_usd, tokens, model.

        Raises CommandConflict, InvalidOption, InvalidAmount, ArgumentsNotJson, ArgumentsTooLarge,
        ResourceTemplateInvalid, SchemaMismatch, StoreUnavailable; then nothing was recorded and nothing published.
        """
        if not self.governed or self.app.conf.task_always_eager:
            if not self.governed:
                take_asked(options)
                options |= {"link": link, "link_error": link_error}
                sign_moving(self, args, kwargs, options)
                return super().apply_async(args, kwargs, task_id, producer, shadow=shadow, **options)
            return super().apply_async(args, kwargs, task_id, producer, link, link_error, shadow, **options)
        args, kwargs = tuple(args or ()), dict(kwargs or {})
        options |= {"link": link, "link_error": link_error, "shadow": shadow}
        with span("acp.submit", kind="producer", attributes={"acp.action.name": self.name}):
            return self._submit(args, kwargs, task_id, producer, options)

    def _submit(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], task_id: str | None, producer: Any, options: dict[str, Any]
    ) -> AsyncResult[Any]:
        run = find_run()
        if run is not None and task_id == run.action_id:
            return self._next_attempt(run, args, kwargs, options)
        asked = take_asked(options).inheriting(surrounding_header(run))
        if self.typing and hasattr(self, "__header__"):
            self.__header__(*args, **kwargs)
        if options.get("serializer") not in (None, "json"):
            raise InvalidOption("serializer", options["serializer"], "json: an action's arguments are kept as JSON")
        action_id = task_id or bootstrap.new_id()
        parts = bootstrap.parts()
        submission = make_submission(self, parts, action_id, args, kwargs, asked, options)
        try:
            bootstrap.check_schema()
            submitted = submit(parts.gov, submission)
        except StoreUnavailable:
            if not goes_on():
                raise
            publish = partial(Task.apply_async, self, args, kwargs, task_id=action_id, producer=producer, **options)
            published_or_submitted(parts.gov, submission, publish)
            return self.AsyncResult(action_id)
        if isinstance(submitted, Repeated) and (task_id is None or submitted.action_id == task_id):
            return self.AsyncResult(submitted.action_id)
        if isinstance(submitted, Repeated):
            # A repeat inside a canvas has an id that somebody waits for: its message brings it the first one's outcome.
            keep_echo(parts.gov, Outgoing(action_id, submission.message), submitted.action_id, published=True)
        point("after_submit_before_publish")
        countdown_s = wait_s(parts.gov, submission)
        if countdown_s > HELD_BY_CELERY_S_MAX:
            not_published(parts.gov, action_id)
            return self.AsyncResult(action_id)
        for said in ("countdown", "eta", "expires"):
            options.pop(said, None)
        if countdown_s:
            options["countdown"] = countdown_s
        options.setdefault("event_dispatcher", self.sent_events)
        # The expiry is the action's, not the message's: Celery would drop the message and tell governance nothing.
        options["expires"] = None
        try:
            return Task.apply_async(self, args, kwargs, task_id=action_id, producer=producer, **options)
        except BROKER_ERRORS as problem:
            log.warning("not published", problem=str(problem), **names_in(action_id, options["headers"]["acp"]))
            not_published(parts.gov, action_id)
            return self.AsyncResult(action_id)
        except Exception as problem:
            # Nobody can publish what Celery refuses, now or later: its caller has the exception, the record an end.
            withdraw(parts.gov, action_id, f"Celery refused its message: {problem!r}")
            raise

    def apply(self, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> Any:
        """Celery's own: runs here and now, admitted or refused; takes the same governance options as `apply_async`."""
        if self.governed:
            headers = dict(options.get("headers") or {})
            asked = take_asked(options).header()
            options["headers"] = {**headers, "acp": asked or headers.get("acp") or {}}
        return super().apply(args, kwargs, *rest, **options)

    def _next_attempt(
        self, run: Run, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
    ) -> AsyncResult[Any]:
        """`self.retry()` publishes through here; the next attempt goes out once the record of this one is closed."""
        if self.name != run.name or options.get("retries", 0) <= (self.request.retries or 0):
            raise InvalidOption("task.replace()", self.name, "a governed action to end as itself: use a chain instead")
        run.retry = (args, kwargs, options)
        return self.AsyncResult(run.action_id)

    # --- the worker's side -------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the body if governance admits it; raises ActionDenied, or Celery's Ignore when this message is done."""
        request = self.request
        if not self.governed:
            if request.called_directly:
                return super().__call__(*args, **kwargs)
            if not request.is_eager:
                check_moving(self, args, kwargs)
            return self.run(*args, **kwargs)
        run = find_run()
        if request.called_directly or request.id is None or (run is not None and run.action_id == request.id):
            return self._direct(_direct_id(run), run, args, kwargs, lambda: Task.__call__(self, *args, **kwargs))
        if request.is_eager:
            return self._direct(request.id, run, args, kwargs, lambda: self.run(*args, **kwargs))
        # First of all: what is not signed hands nothing on, whatever else is wrong with it.
        proof = examined(self)
        header = header_of(request)
        with structlog.contextvars.bound_contextvars(**names_in(request.id, header)):
            return self._from_message(request, header, proof, args, kwargs)

    def _from_message(
        self,
        request: Any,
        header: Mapping[str, Any],
        proof: Proof | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        action_id = request.id
        call = call_of(self, action_id, header, args, kwargs, redelivered=redelivered(request))
        if proof is not None:
            call.arrival = replace(call.arrival, forged=proof.forged, command_id=header.get("command_id"))
        outcome = self._delivered(call, header, args, kwargs)
        if isinstance(outcome, NotSubmitted):
            flaw = None if proof is None else flaw_of_new(proof, header, call.arrival.digest)
            if flaw is not None:
                hand_nothing_on(request)
                try:
                    raise refused(call.gov, self, action_id, args, kwargs, flaw)
                except StoreUnavailable as problem:
                    return conclude(self, call, StoreAway(str(problem)))
            # Nobody submitted this message, so it is submitted here; what its header asks for is checked like a call.
            options = options_of(request)
            asked = take_asked(asked_of(header))
            try:
                submission = make_submission(self, bootstrap.parts(), action_id, args, kwargs, asked, options)
                submitted = submit(call.gov, submission)
            except StoreUnavailable as problem:
                return conclude(self, call, StoreAway(str(problem)))
            if submitted.action_id != action_id:
                return echo(self, call, Outgoing(action_id, submission.message), submitted.action_id)
            outcome = self._delivered(call, header, args, kwargs)
        return conclude(self, call, outcome)

    def _direct(
        self, action_id: str, run: Run | None, args: tuple[Any, ...], kwargs: dict[str, Any], body: Callable[[], Any]
    ) -> Any:
        """A call that cannot wait: it is admitted now, or refused now. Nobody publishes it, now or later."""
        bootstrap.check_schema()
        keep_alive()
        parts = bootstrap.parts()
        options: dict[str, Any] = {}
        own = header_of(self.request) if self.request.is_eager else {}
        asked = take_asked(asked_of(own)).inheriting(surrounding_header(run))
        submission = make_submission(self, parts, action_id, args, kwargs, asked, options, can_wait=False)
        submitted = submit(parts.gov, submission)
        if isinstance(submitted, Repeated):
            first = ended(parts.gov, submitted.action_id)
            if first is not None:
                return told_again(first)
            if submitted.action_id != action_id:
                why = f"action {submitted.action_id} has the same command_id and has not ended"
                raise ActionDenied(action_id, "direct-call", why, None, [])
        header = options["headers"]["acp"]
        call = call_of(self, action_id, header, args, kwargs, redelivered=False, can_wait=False)
        match self._deliver(call, header, body):
            case StoreAway(problem):
                raise StoreUnavailable(parts.gov.store.masked_url, problem)
            case Retrying(error):
                raise error
            case Dropped(_, why):
                raise ActionDenied(action_id, "direct-call", why, None, [])
            case StoppedShort(ending):
                reason = f"{ending.reason}; it is in doubt" if ending.in_doubt else ending.reason
                raise ActionCancelled(action_id, ending.rule, reason, None, [])
            case outcome:
                return conclude(self, call, outcome)

    def _delivered(
        self, call: Call, header: Mapping[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Outcome:
        try:
            return self._deliver(call, header, lambda: self.run(*args, **kwargs))
        finally:
            # Its end is on record: whatever limit it had is past.
            starts.over(call.arrival.action_id, call.interrupts)

    def _deliver(self, call: Call, header: Mapping[str, Any], body: Callable[[], Any]) -> Outcome:
        attributes = {"acp.action.id": call.arrival.action_id, "acp.action.name": self.name}
        with span("acp.action", kind="consumer", parent=header.get("trace"), attributes=attributes):
            return compose(DEFAULT, call, lambda: run_body(self, call, header, body))

    def update_state(self, task_id: str | None = None, *rest: Any, **state: Any) -> None:
        """Celery's own; what a body says of itself is not overwritten by its start, which is told a little later."""
        starts.over(task_id or self.request.id or "")
        super().update_state(task_id, *rest, **state)

    def resource_of(self, named: dict[str, Any]) -> str | None:
        """What arguments touch that an approver put in place, perhaps without knowing this task."""
        try:
            return resource_of(self.name, self.terms.resource, named)
        except ResourceTemplateInvalid:
            # The one that is recorded counts. Raised here it would end the message and leave the action queued.
            return None

    def named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments by name, for rules and the resource template."""
        if not args:
            return kwargs
        try:
            return dict(self.signature_of_run.bind_partial(*args, **kwargs).arguments)
        except TypeError:
            return kwargs


def _signature_of(task: type[GovernedTask]) -> inspect.Signature:
    """What a caller passes: without the task itself, which bound tasks and class-based ones have in front."""
    signature = inspect.signature(task.run)
    if isinstance(inspect.getattr_static(task, "run"), staticmethod):
        return signature
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _direct_id(run: Run | None) -> str:
    """A new id, but for the items of a map, starmap or chunk: theirs are the same when its message comes again."""
    task = current_task
    if run is not None or not task or task.__class__.__module__ != "celery.app.builtins" or not task.request.id:
        return bootstrap.new_id()
    number = task.request.get("acp_items", 0)
    task.request.update(acp_items=number + 1)
    return str(uuid5(NAMESPACE_OID, f"{task.request.id}/{number}"))
