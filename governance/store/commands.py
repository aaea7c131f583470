"""Answers of mutating calls by command_id, so that a repeat gets the first answer, and claims of periodic ticks."""

from sqlalchemy import Connection

from governance.store.engine import Store, rows


def claim(connection: Connection, command_id: str, kind: str, digest: str, answer: str, now_us: int) -> bool:
    """Takes `command_id` in the caller's transaction; False when it was taken before."""
    return bool(
        rows(
            connection,
            """INSERT INTO commands (id, digest, kind, answer, at_us) VALUES (:id, :digest, :kind, :answer, :now)
                ON CONFLICT DO NOTHING RETURNING id""",
            {"id": command_id, "digest": digest, "kind": kind, "answer": answer, "now": now_us},
        )
    )


def find(store: Store, command_id: str) -> tuple[str, str, str] | None:
    """(kind, digest, answer) of an earlier call."""
    found = store.read("SELECT kind, digest, answer FROM commands WHERE id = :id", {"id": command_id})
    return (str(found[0][0]), str(found[0][1]), str(found[0][2])) if found else None


def claim_tick(store: Store, job: str, tick: int, now_us: int, ahead: int) -> bool:
    """True for the one caller that may do `job` for `tick`; old ticks are forgotten on the way.

    So are those more than `ahead` later ones that the clock was put back from: otherwise the job would rest until it is
    as late again.
    """
    claimed = store.run(
        "INSERT INTO ticks (job, tick, claimed_us) VALUES (:job, :tick, :now) ON CONFLICT DO NOTHING RETURNING job",
        {"job": job, "tick": tick, "now": now_us},
    )
    if not claimed:
        store.run("DELETE FROM ticks WHERE job = :job AND tick > :latest", {"job": job, "latest": tick + ahead})
    elif tick % 100 == 0:
        store.run("DELETE FROM ticks WHERE job = :job AND tick < :tick - 10000", {"job": job, "tick": tick})
    return bool(claimed)


def finish_tick(store: Store, job: str, tick: int, *, looked: int | None, now_us: int) -> None:
    """The job of this tick came to its end, after it looked at so much, if it is one that says so."""
    store.run(
        "UPDATE ticks SET finished_us = :now, looked = :looked WHERE job = :job AND tick = :tick",
        {"job": job, "tick": tick, "looked": looked, "now": now_us},
    )
