"""What the database itself guards; created by the migrations.

Triggers keep the trail and the ledger append-only. An event may change once: from unsealed to sealed, its content
untouched. Events, and the entries of a session's accounts, may be deleted once an anchor says how their session's
history ended, and entries of a budget's account once, or as far as, that says what they summed to; on PostgreSQL only
in a transaction that says that it prunes. An anchor itself is never changed or deleted.
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
# What the revision that brought anchors makes of the two above.
PRUNING_SQLITE = (
    "DROP TRIGGER events_kept",
    """CREATE TRIGGER events_kept BEFORE DELETE ON events
        WHEN NOT EXISTS (SELECT 1 FROM anchors
            WHERE session_id = OLD.session_id AND seq >= OLD.seq AND cleared_us IS NULL)
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END""",
    "DROP TRIGGER entries_kept",
    """CREATE TRIGGER entries_kept BEFORE DELETE ON entries
        WHEN NOT EXISTS (SELECT 1 FROM accounts JOIN anchors ON anchors.session_id = accounts.scope_id
            WHERE accounts.id = OLD.account_id AND accounts.scope = 'session' AND anchors.cleared_us IS NULL)
        BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END""",
    """CREATE TRIGGER anchors_cleared_once BEFORE UPDATE ON anchors
        WHEN OLD.cleared_us IS NOT NULL OR NEW.session_id <> OLD.session_id OR NEW.seq <> OLD.seq
            OR NEW.hash <> OLD.hash OR NEW.events <> OLD.events OR NEW.pruned_us <> OLD.pruned_us
            OR NEW.recorded_in <> OLD.recorded_in
        BEGIN SELECT RAISE(ABORT, 'anchors are append-only'); END""",
    """CREATE TRIGGER anchors_kept BEFORE DELETE ON anchors
        BEGIN SELECT RAISE(ABORT, 'anchors are append-only'); END""",
)
# The setting of a transaction that prunes.
PRUNES = "acp.prunes"
PRUNING_POSTGRESQL = (
    f"""CREATE FUNCTION keep_event() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF current_setting('{PRUNES}', true) = 'on' AND EXISTS (SELECT 1 FROM anchors
                    WHERE session_id = OLD.session_id AND seq >= OLD.seq AND cleared_us IS NULL) THEN
                RETURN OLD;
            END IF;
            RAISE EXCEPTION 'events are append-only';
        END $$""",
    f"""CREATE FUNCTION keep_entry() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF current_setting('{PRUNES}', true) = 'on' AND EXISTS (SELECT 1 FROM accounts
                    JOIN anchors ON anchors.session_id = accounts.scope_id
                    WHERE accounts.id = OLD.account_id AND accounts.scope = 'session'
                    AND anchors.cleared_us IS NULL) THEN
                RETURN OLD;
            END IF;
            RAISE EXCEPTION 'entries are append-only';
        END $$""",
    "DROP TRIGGER events_kept ON events",
    "CREATE TRIGGER events_kept BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION keep_event()",
    "DROP TRIGGER entries_fixed ON entries",
    "CREATE TRIGGER entries_fixed BEFORE UPDATE ON entries FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER entries_kept BEFORE DELETE ON entries FOR EACH ROW EXECUTE FUNCTION keep_entry()",
    """CREATE TRIGGER anchors_cleared_once BEFORE UPDATE ON anchors FOR EACH ROW
        WHEN (OLD.cleared_us IS NOT NULL OR (NEW.session_id, NEW.seq, NEW.hash, NEW.events, NEW.pruned_us,
            NEW.recorded_in) IS DISTINCT FROM (OLD.session_id, OLD.seq, OLD.hash, OLD.events, OLD.pruned_us,
            OLD.recorded_in)) EXECUTE FUNCTION refuse_change()""",
    "CREATE TRIGGER anchors_kept BEFORE DELETE ON anchors FOR EACH ROW EXECUTE FUNCTION refuse_change()",
)
# What the revision that brought budgets makes of the guard of entries.
_SUMMED_UP = """SELECT 1 FROM accounts
    WHERE accounts.id = OLD.account_id AND accounts.scope = 'budget' AND accounts.pruned_us IS NOT NULL"""
BUDGETS_SQLITE = (
    "DROP TRIGGER IF EXISTS entries_kept",
    f"""CREATE TRIGGER entries_kept BEFORE DELETE ON entries
        WHEN NOT EXISTS (SELECT 1 FROM accounts JOIN anchors ON anchors.session_id = accounts.scope_id
            WHERE accounts.id = OLD.account_id AND accounts.scope = 'session' AND anchors.cleared_us IS NULL)
            AND NOT EXISTS ({_SUMMED_UP})
        BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END""",
)
BUDGETS_POSTGRESQL = (
    f"""CREATE OR REPLACE FUNCTION keep_entry() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF current_setting('{PRUNES}', true) = 'on' AND (EXISTS (SELECT 1 FROM accounts
                    JOIN anchors ON anchors.session_id = accounts.scope_id
                    WHERE accounts.id = OLD.account_id AND accounts.scope = 'session'
                    AND anchors.cleared_us IS NULL) OR EXISTS ({_SUMMED_UP})) THEN
                RETURN OLD;
            END IF;
            RAISE EXCEPTION 'entries are append-only';
        END $$""",
)
# What the revision that sums up budgets which never end makes of it.
_SUMMED = """SELECT 1 FROM accounts WHERE accounts.id = OLD.account_id AND accounts.scope = 'budget'
    AND (accounts.pruned_us IS NOT NULL OR accounts.summed_us >= OLD.at_us)"""
SUMMED_SQLITE = tuple(statement.replace(_SUMMED_UP, _SUMMED) for statement in BUDGETS_SQLITE)
SUMMED_POSTGRESQL = tuple(statement.replace(_SUMMED_UP, _SUMMED) for statement in BUDGETS_POSTGRESQL)
