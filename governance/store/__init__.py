"""The store: SQLAlchemy Core tables, guarded statements, migrations; the same behaviour on SQLite and PostgreSQL."""
