"""What the database itself guards; created by the migrations.

Triggers keep the trail and the ledger append-only. An event may change once: from unsealed to sealed, its content
untouched.
"""

_CONTENT = ("id", "session_id", "kind", "actor", "at_us", "action_id", "attempt", "state", "payload")

_SAME_ON_SQLITE = " AND ".join(f"NEW.{column} IS OLD.{column}" for column in _CONTENT)
SQLITE = (
    f"""CREATE TRIGGER events_sealed_once BEFORE UPDATE ON events
        WHEN NOT (OLD.seq IS NULL AND NEW.seq IS NOT NULL AND {_SAME_ON_SQLITE})
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END""",
    """CREATE TRIGGER events_kept BEFORE DELETE ON events
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END""",
    """CREATE TRIGGER entries_fixed BEFORE UPDATE ON entries
        BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END""",
    """CREATE TRIGGER entries_kept BEFORE DELETE ON entries
        BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END""",
)

_SAME_ON_POSTGRESQL = " AND ".join(f"NEW.{column} IS NOT DISTINCT FROM OLD.{column}" for column in _CONTENT)
POSTGRESQL = (
    """CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION '% are append-only', TG_TABLE_NAME; END $$""",
    f"""CREATE TRIGGER events_sealed_once BEFORE UPDATE ON events FOR EACH ROW
        WHEN (NOT (OLD.seq IS NULL AND NEW.seq IS NOT NULL AND {_SAME_ON_POSTGRESQL}))
        EXECUTE FUNCTION refuse_change()""",
    "CREATE TRIGGER events_kept BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER entries_fixed BEFORE UPDATE OR DELETE ON entries FOR EACH ROW EXECUTE FUNCTION refuse_change()",
)
