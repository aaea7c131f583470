"""Every error a caller can meet, in one tree.

    GovernanceError
    ├── ActionDenied              the action was refused; also the exception Celery reports
    │   └── ActionCancelled       a kill switch ended it, before it ran or while it did
    ├── InvalidInput              the caller can mend it
    │   ├── CommandConflict
    │   ├── InvalidOption
    │   ├── InvalidAmount
    │   ├── ArgumentsNotJson
    │   ├── ArgumentsTooLarge
    │   ├── ResourceTemplateInvalid
    │   ├── ResultNotJson
    │   ├── PolicyInvalid
    │   ├── DirectoryInvalid
    │   ├── SettingsInvalid
    │   ├── CasesInvalid
    │   └── StateDirUnusable
    ├── NotFound
    ├── NotAuthenticated          who decides is not known
    ├── NotAllowed                who decides lacks the role for it
    ├── StateConflict             somebody decided first
    ├── AttemptFenced             this attempt no longer owns its action
    ├── NoCurrentRun
    ├── ToolCallParked            an agent's tool call waits, and its run with it
    ├── ExtraMissing              an optional library is not installed
    ├── ActionFailed              the recorded failure of an earlier delivery, told again
    ├── ModelCallRefused          governance said no to a call of a model inside an action
    ├── ModelCallFailed           its endpoint did, or could not be reached
    ├── BrokerUnavailable
    └── StoreUnavailable          nothing runs until it is back
        ├── SchemaMismatch
        └── AdmissionUncertain

A class's docstring is its message, and its `args` are exactly its fields, so that an error survives pickling and
Celery's JSON results on the way from a worker to a caller.
"""

import inspect
from typing import ClassVar


class GovernanceError(Exception):
    """An error of the governance layer."""

    fields: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *args: object) -> None:
        if len(args) != len(self.fields):
            raise TypeError(f"{type(self).__name__} takes {', '.join(self.fields) or 'no arguments'}, got {args!r}")
        super().__init__(*args)
        for name, value in zip(self.fields, args, strict=True):
            setattr(self, name, value)

    def __str__(self) -> str:
        template = inspect.cleandoc(type(self).__doc__ or "").replace("\n", " ")
        return template.format(**dict(zip(self.fields, self.args, strict=True)))


class ActionDenied(GovernanceError):
    """action {action_id} was denied by {rule}: {reason}{advice}"""

    fields = ("action_id", "rule", "reason", "guidance", "suggest")
    action_id: str
    rule: str
    reason: str
    guidance: str | None
    suggest: list[str]

    def __str__(self) -> str:
        advice = f". {self.guidance}" if self.guidance else ""
        if self.suggest:
            advice += f" (try instead: {', '.join(self.suggest)})"
        return f"action {self.action_id} was denied by {self.rule}: {self.reason}{advice}"


class ActionCancelled(ActionDenied):
    """action {action_id} was cancelled by {rule}: {reason}"""

    def __str__(self) -> str:
        return f"action {self.action_id} was cancelled by {self.rule}: {self.reason}"


class InvalidInput(GovernanceError):
    """The caller can mend this."""


class CommandConflict(InvalidInput):
    """command_id {command_id!r} was already used for {first}, with other content: send a repeat with exactly the same
    content, or give a new call a new command_id"""

    fields = ("command_id", "first")
    command_id: str
    first: str


class InvalidOption(InvalidInput):
    """{option}={value!r} is not accepted: expected {expected}"""

    fields = ("option", "value", "expected")
    option: str


class InvalidAmount(InvalidInput):
    """{name}={value!r} is not an amount: expected {expected}"""

    fields = ("name", "value", "expected")


class ArgumentsNotJson(InvalidInput):
    """the arguments of {action} are not JSON ({problem}): pass ids, strings, numbers, lists and dicts only"""

    fields = ("action", "problem")


class ArgumentsTooLarge(InvalidInput):
    """the arguments of {action} take {size_bytes} bytes, the limit is {limit_bytes}: pass a reference (a path, a
    row id) instead of the content, or raise ACP_ARGUMENTS_BYTES_MAX"""

    fields = ("action", "size_bytes", "limit_bytes")


class ResourceTemplateInvalid(InvalidInput):
    """the resource template {template!r} of {action} names {missing!r}, which is not among its arguments
    ({known}): name an argument of the task, or pass it"""

    fields = ("action", "template", "missing", "known")


class ResultNotJson(InvalidInput):
    """{action} returned a {kind}, which is not JSON ({problem}): its effect may have happened, its result is
    lost; return strings, numbers, lists and dicts only"""

    fields = ("action", "kind", "problem")


class PolicyInvalid(InvalidInput):
    """the policy {path} is refused as a whole, nothing of it was loaded: {problems}"""

    fields = ("path", "problems")
    path: str
    problems: list[str]

    def __str__(self) -> str:
        listed = "".join(f"\n  {problem}" for problem in self.problems)
        return f"the policy {self.path} is refused as a whole, nothing of it was loaded:{listed}"


class DirectoryInvalid(InvalidInput):
    """the directory {path} is refused as a whole, nothing of it was loaded: {problems}"""

    fields = ("path", "problems")
    path: str
    problems: list[str]

    def __str__(self) -> str:
        listed = "".join(f"\n  {problem}" for problem in self.problems)
        return f"the directory {self.path} is refused as a whole, nothing of it was loaded:{listed}"


class SettingsInvalid(InvalidInput):
    """the settings are not usable: {problems}"""

    fields = ("problems",)
    problems: list[str]

    def __str__(self) -> str:
        return "the settings are not usable:" + "".join(f"\n  {problem}" for problem in self.problems)


class CasesInvalid(InvalidInput):
    """the cases file {path} is not usable: {problem}"""

    fields = ("path", "problem")


class StateDirUnusable(InvalidInput):
    """the state directory {path} cannot be written ({problem}): create it, mend its permissions, or set
    ACP_STATE_DIR"""

    fields = ("path", "problem")


class NotFound(GovernanceError):
    """there is no {kind} {id!r}: {hint}"""

    fields = ("kind", "id", "hint")


class NotAuthenticated(GovernanceError):
    """who decides is not known ({problem}): put your token into ACP_TOKEN; an admin makes one with `acp tokens create
    NAME --role ROLE`, the first admin with `acp tokens create NAME --role admin`"""

    fields = ("problem",)


class NotAllowed(GovernanceError):
    """{principal} may not {wanted} (has the roles {has}): ask somebody who may, or an admin for a token that does"""

    fields = ("principal", "wanted", "has")


class StateConflict(GovernanceError):
    """{kind} {id} is {state}, so it cannot be {wanted}: {hint}"""

    fields = ("kind", "id", "state", "wanted", "hint")


class AttemptFenced(GovernanceError):
    """attempt {attempt} of action {action_id} no longer owns it: recovery gave the action up for this worker,
    stop here"""

    fields = ("action_id", "attempt")


class NoCurrentRun(GovernanceError):
    """current_run() was called outside a governed action: call it inside the body of a governed task"""


class ToolCallParked(GovernanceError):
    """the tool call became action {action_id}, which waits ({rule}: {reason}): stop the run here and call again with
    the same ids once that is over"""

    fields = ("action_id", "ticket_id", "rule", "reason")
    action_id: str
    ticket_id: str | None
    rule: str
    reason: str


class ExtraMissing(GovernanceError):
    """{library} is not installed: pip install 'acp-tasks[{extra}]'"""

    fields = ("library", "extra")


class ActionFailed(GovernanceError):
    """action {action_id} failed earlier with {error_type}: {error}"""

    fields = ("action_id", "error_type", "error")


class ModelCallRefused(GovernanceError):
    """the call of model {model} was refused by {rule}: {reason}"""

    fields = ("model", "rule", "reason")
    model: str
    rule: str
    reason: str


class ModelCallFailed(GovernanceError):
    """the call of model {model} failed: {problem}"""

    fields = ("model", "problem")
    model: str
    problem: str


class BrokerUnavailable(GovernanceError):
    """the broker {url} does not answer ({problem}): start it, or set ACP_BROKER_URL"""

    fields = ("url", "problem")


class StoreUnavailable(GovernanceError):
    """the database {url} does not answer ({problem}): start it, or set ACP_DATABASE_URL; no action runs until it
    is back"""

    fields: ClassVar[tuple[str, ...]] = ("url", "problem")
    url: str
    problem: str


class SchemaMismatch(StoreUnavailable):
    """the database {url} has {found}, this release needs {expected}: run `acp db upgrade`"""

    fields = ("url", "found", "expected")


class AdmissionUncertain(StoreUnavailable):
    """the database {url} went away while an admission was being written at {started_us} ({problem})"""

    fields = ("url", "problem", "started_us")
    started_us: int
