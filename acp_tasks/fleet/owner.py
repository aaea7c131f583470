"""The owner of a local stack decides in it: their token is made once and kept in its state directory."""

import getpass
from pathlib import Path

from acp_tasks.token_file import keep_token, kept_token
from governance.core.principals import ADMIN
from governance.errors import NotAuthenticated
from governance.operations.context import Governance
from governance.operations.principals import authenticate, create_token, local_token


def let_owner_decide(gov: Governance, state_dir: Path, *, owns_database: bool) -> bool:
    """Whether the state directory holds a token that counts; makes one where nobody else has to be asked.

    In a database that is somebody else's, only while it has no admin. Raises NotAuthenticated for a token that others
    can read, StateDirUnusable.
    """
    text = kept_token(state_dir)
    if text is not None and _counts(gov, text):
        return True
    name = getpass.getuser()
    try:
        made = local_token(gov, name) if owns_database else create_token(gov, principal=name, roles=[ADMIN], by=None)
    except NotAuthenticated:
        return False
    keep_token(state_dir, made.text)
    return True


def _counts(gov: Governance, text: str) -> bool:
    try:
        authenticate(gov, text)
    except NotAuthenticated:
        return False
    return True
