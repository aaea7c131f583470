"""Alembic's entry: runs on the connection it is handed, inside its transaction."""

from alembic import context

from governance.store.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=False)
context.run_migrations()
