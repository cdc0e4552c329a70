"""What the ledger keeps ready of every set: how many members it has, how many are filled, and when that last changed.

Triggers keep it, inside whatever transaction writes, so that it is right after every insert, update and delete,
whoever makes it. `changes` grows with all that a verdict is judged from: a verdict kept with the same number is that of
the trials as they are.
"""

from __future__ import annotations

import sqlalchemy as sa

SQLITE = (
    """
CREATE TRIGGER member_added AFTER INSERT ON member BEGIN
    INSERT INTO summary (set_uid, planned, filled, changes, judged_at, state, members, cells)
        VALUES (new.set_uid, 1, new.trial IS NOT NULL, 1, 0, '', '', '')
        ON CONFLICT (set_uid) DO UPDATE
        SET planned = planned + 1, filled = filled + excluded.filled, changes = changes + 1;
END
""",
    """
CREATE TRIGGER member_removed AFTER DELETE ON member BEGIN
    UPDATE summary SET planned = planned - 1, filled = filled - (old.trial IS NOT NULL), changes = changes + 1
        WHERE set_uid = old.set_uid;
END
""",
    """
CREATE TRIGGER member_filled AFTER UPDATE ON member BEGIN
    UPDATE summary SET filled = filled + (new.trial IS NOT NULL) - (old.trial IS NOT NULL), changes = changes + 1
        WHERE set_uid = new.set_uid;
END
""",
    """
CREATE TRIGGER trial_lost AFTER INSERT ON trial WHEN new.status = 'lost' BEGIN
    UPDATE summary SET changes = changes + 1 WHERE set_uid IN (SELECT set_uid FROM member WHERE key = new.key);
END
""",
    """
CREATE TRIGGER trial_changed AFTER UPDATE ON trial BEGIN
    UPDATE summary SET changes = changes + 1 WHERE set_uid IN (SELECT set_uid FROM member WHERE key = new.key);
END
""",
    """
CREATE TRIGGER trial_removed AFTER DELETE ON trial BEGIN
    UPDATE summary SET changes = changes + 1 WHERE set_uid IN (SELECT set_uid FROM member WHERE key = old.key);
END
""",
    """
CREATE TRIGGER verdict_given AFTER INSERT ON verdict BEGIN
    UPDATE summary SET state = new.state, judged_at = changes, members = '', cells = '' WHERE set_uid = new.set_uid;
END
""",
)

# Once a statement and not once a row: a bulk insert writes each summary once.
POSTGRESQL = (
    """
CREATE FUNCTION member_added() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN
    INSERT INTO summary AS kept (set_uid, planned, filled, changes, judged_at, state, members, cells)
        SELECT set_uid, count(*), count(trial), 1, 0, '', '', '' FROM rows_added GROUP BY set_uid
        ON CONFLICT (set_uid) DO UPDATE SET planned = kept.planned + excluded.planned,
            filled = kept.filled + excluded.filled, changes = kept.changes + 1;
    RETURN NULL;
END $$
""",
    """
CREATE TRIGGER member_added AFTER INSERT ON member
    REFERENCING NEW TABLE AS rows_added FOR EACH STATEMENT EXECUTE FUNCTION member_added()
""",
    """
CREATE FUNCTION member_removed() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN
    UPDATE summary SET planned = planned - gone.members, filled = filled - gone.trials, changes = changes + 1
        FROM (SELECT set_uid, count(*) AS members, count(trial) AS trials FROM rows_removed GROUP BY set_uid) AS gone
        WHERE summary.set_uid = gone.set_uid;
    RETURN NULL;
END $$
""",
    """
CREATE TRIGGER member_removed AFTER DELETE ON member
    REFERENCING OLD TABLE AS rows_removed FOR EACH STATEMENT EXECUTE FUNCTION member_removed()
""",
    """
CREATE FUNCTION member_filled() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN
    UPDATE summary SET filled = filled + moved.trials, changes = changes + 1
        FROM (SELECT set_uid, sum(one) AS trials FROM (
            SELECT set_uid, CASE WHEN trial IS NULL THEN 0 ELSE 1 END AS one FROM rows_after
            UNION ALL SELECT set_uid, CASE WHEN trial IS NULL THEN 0 ELSE -1 END FROM rows_before) AS both_tables
            GROUP BY set_uid) AS moved
        WHERE summary.set_uid = moved.set_uid;
    RETURN NULL;
END $$
""",
    """
CREATE TRIGGER member_filled AFTER UPDATE ON member
    REFERENCING OLD TABLE AS rows_before NEW TABLE AS rows_after FOR EACH STATEMENT EXECUTE FUNCTION member_filled()
""",
    """
CREATE FUNCTION trial_differs() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN
    UPDATE summary SET changes = changes + 1
        WHERE set_uid IN (SELECT set_uid FROM member WHERE key = COALESCE(NEW.key, OLD.key));
    RETURN NULL;
END $$
""",
    """
CREATE TRIGGER trial_lost AFTER INSERT ON trial
    FOR EACH ROW WHEN (NEW.status = 'lost') EXECUTE FUNCTION trial_differs()
""",
    """
CREATE TRIGGER trial_changed AFTER UPDATE OR DELETE ON trial FOR EACH ROW EXECUTE FUNCTION trial_differs()
""",
    """
CREATE FUNCTION verdict_given() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN
    UPDATE summary SET state = NEW.state, judged_at = changes, members = '', cells = '' WHERE set_uid = NEW.set_uid;
    RETURN NULL;
END $$
""",
    """
CREATE TRIGGER verdict_given AFTER INSERT ON verdict FOR EACH ROW EXECUTE FUNCTION verdict_given()
""",
)

RECOUNT = """
INSERT INTO summary (set_uid, planned, filled, changes, judged_at, state, members, cells)
    SELECT set_uid, count(*), count(trial), 1, 0, '', '', '' FROM member GROUP BY set_uid
"""
LATEST = """
UPDATE summary SET judged_at = changes, state = (
        SELECT state FROM verdict WHERE verdict.set_uid = summary.set_uid ORDER BY id DESC LIMIT 1
    ) WHERE set_uid IN (SELECT set_uid FROM verdict)
"""


def add_triggers(connection: sa.Connection) -> None:
    """Make the triggers of a store whose tables are there."""
    for statement in POSTGRESQL if connection.dialect.name == "postgresql" else SQLITE:
        connection.exec_driver_sql(statement)


def recount(connection: sa.Connection) -> None:
    """Count everything anew. The latest verdicts stand as they did; what they were judged from is looked at again."""
    connection.exec_driver_sql("DELETE FROM summary")
    connection.exec_driver_sql(RECOUNT)
    connection.exec_driver_sql(LATEST)
