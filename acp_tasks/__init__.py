"""The Celery shell: knows Celery, decides nothing.

    app = Celery("shop", task_cls="acp_tasks:GovernedTask")

and `ACP_DATABASE_URL` are all that another project needs. `celery -A acp_tasks ...` finds the fleet's own app as
`acp_tasks.celery`, made only when it is asked for, so that importing GovernedTask creates no second app.
"""

from typing import Any

from acp_tasks.governed import GovernedTask
from acp_tasks.run import Run, current_run
from governance.errors import ActionDenied

__all__ = ["ActionDenied", "GovernedTask", "Run", "current_run"]


def __getattr__(name: str) -> Any:
    if name == "celery":
        from acp_tasks.app import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
