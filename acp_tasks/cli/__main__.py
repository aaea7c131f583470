"""`python -m acp_tasks.cli` is `acp`."""

from acp_tasks.cli import main

main()
