"""The group `acp`: finds a command's module when it is asked for, and turns every error into a message and a code."""

from collections.abc import Mapping
from enum import IntEnum
from importlib import import_module
from typing import Any

import click

from acp_tasks.cli.output import write_error
from governance.errors import (
    ActionDenied,
    BrokerUnavailable,
    GovernanceError,
    InvalidInput,
    NotAllowed,
    NotAuthenticated,
    SettingsInvalid,
    StateDirUnusable,
    StoreUnavailable,
)


class Exit(IntEnum):
    """What the command line's exit codes mean; scripts rely on them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    DENIED = 3
    NOT_READY = 5


# The first class that an error belongs to counts.
_CODES: tuple[tuple[type[GovernanceError], Exit], ...] = (
    (SettingsInvalid, Exit.NOT_READY),
    (StateDirUnusable, Exit.NOT_READY),
    (StoreUnavailable, Exit.NOT_READY),
    (BrokerUnavailable, Exit.NOT_READY),
    (ActionDenied, Exit.DENIED),
    (NotAuthenticated, Exit.DENIED),
    (NotAllowed, Exit.DENIED),
    (InvalidInput, Exit.USAGE),
    (GovernanceError, Exit.FAILED),
)


def exit_code(error: GovernanceError) -> Exit:
    return next(code for kind, code in _CODES if isinstance(error, kind))


class GovernedGroup(click.Group):
    """A group of commands given as `module:attribute`, so that help is quick and a broken one harms no other."""

    def __init__(self, *args: Any, commands_at: Mapping[str, str], summaries: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._commands_at = commands_at
        self._summaries = summaries

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = self._commands_at.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the summaries, so that help loads no command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._summaries[name]) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GovernanceError as error:
            write_error(ctx, error)
            ctx.exit(exit_code(error))
