"""The append-only store of trials, and the sets and verdicts that refer to them.

SQLite (WAL, BEGIN IMMEDIATE, busy timeout) by default. A trial's row is written once and never changed; a set's
members point at the rows that count for it, so that a verdict is a function of one set and nothing else.
The ledger holds names, numbers and hashes, never code or pickles.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from claimbench.currency import changed
from claimbench.errors import UserError
from claimbench.paths import data_dir
from claimbench.rules import Judged, Verdict
from claimbench.spec import Result, SubjectRef, TrialSpec, canonical, digest

SCHEMA_VERSION = 1
LEASE_SECONDS = 90.0

_meta = sa.MetaData()
_text, _int, _real = sa.Text, sa.Integer, sa.Float(53)


def _col(name: str, kind: Any = _text, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=options.pop("nullable", False), **options)


META = sa.Table("meta", _meta, _col("name", primary_key=True), _col("value"))
ENVIRONMENT = sa.Table("environment", _meta, _col("id", primary_key=True), _col("machine"), _col("facts"))
CODE = sa.Table("code", _meta, _col("id", primary_key=True), _col("modules"), _col("packages"))
TRIAL = sa.Table(
    "trial",
    _meta,
    _col("id", _int, primary_key=True),
    _col("key"),
    _col("environment"),
    _col("fence", _int),
    _col("code"),
    _col("paper"),
    _col("measure"),
    _col("arm"),
    _col("point"),
    _col("seed", _int),
    _col("size"),
    _col("subjects"),
    _col("device"),
    _col("dtype"),
    _col("threads", _int),
    _col("tuned"),
    _col("company"),
    _col("status"),
    _col("metrics"),
    _col("failure"),
    _col("seconds", _real),
    _col("peak_bytes", sa.BigInteger),
    _col("timing"),
    _col("artefacts"),
    _col("created"),
    sa.UniqueConstraint("key", "environment", "fence"),
    sa.Index("trial_paper", "paper", "measure"),
)
TRIAL_SET = sa.Table(
    "trial_set",
    _meta,
    _col("uid", primary_key=True),
    _col("serial", _int, unique=True),
    _col("paper"),
    _col("claim"),
    _col("scale"),
    _col("environment"),
    _col("fingerprint"),
    _col("replication", _int),
    _col("own", _int),
    _col("plan"),
    _col("rules_digest"),
    _col("claim_text"),
    _col("created"),
    sa.Index("set_claim", "paper", "claim", "serial"),
    sa.Index("set_fingerprint", "fingerprint", "environment"),
)
MEMBER = sa.Table(
    "member",
    _meta,
    _col("set_uid", primary_key=True),
    _col("key", primary_key=True),
    _col("seed", _int),
    _col("trial", _int, nullable=True),
    sa.Index("member_key", "key"),
)
VERDICT = sa.Table(
    "verdict",
    _meta,
    _col("id", _int, primary_key=True),
    _col("set_uid", index=True),
    _col("state"),
    _col("content"),
    _col("rules_digest"),
    _col("created"),
)
CARRY = sa.Table(  # a recheck found the same numbers under changed code: the set counts as measured with it
    "carry",
    _meta,
    _col("id", _int, primary_key=True),
    _col("set_uid", index=True),
    _col("code"),
    _col("trials", _int),
    _col("created"),
)
LEASE = sa.Table(
    "lease",
    _meta,
    _col("key", primary_key=True),
    _col("environment", primary_key=True),
    _col("owner"),
    _col("expires", _real),
    _col("fence", _int),
)
ARTEFACT = sa.Table(
    "artefact",
    _meta,
    _col("key", primary_key=True),
    _col("environment"),
    _col("seconds", _real),
    _col("created"),
)

Migration = Callable[[sa.Connection], None]
MIGRATIONS: dict[int, Migration] = {}  # from version -> what brings the schema to the next one


@dataclass(frozen=True)
class SetRow:
    """One set as stored."""

    uid: str
    serial: int
    paper: str
    claim: str
    scale: str
    environment: str
    fingerprint: str
    replication: int
    own: bool
    plan: dict[str, Any]
    rules_digest: str
    claim_text: str
    created: str


def moment() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def default_url() -> str:
    return f"sqlite:///{data_dir() / 'ledger.sqlite'}"


class Ledger:
    """Open with a path, a URL, or nothing for the default ledger. Close it, or use it as a context manager."""

    def __init__(self, where: str | Path | None = None) -> None:
        text = str(where) if where else default_url()
        self.url = text if "://" in text else f"sqlite:///{Path(text).expanduser().resolve()}"
        self._sqlite = self.url.startswith("sqlite")
        if self._sqlite:
            self._prepare_folder()
        self._engine = sa.create_engine(self.url, connect_args={"timeout": 30.0} if self._sqlite else {})
        if self._sqlite:
            _configure_sqlite(self._engine)
        self._migrate()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._engine.dispose()

    # --- opening ---

    def _prepare_folder(self) -> None:
        folder = Path(self.url.removeprefix("sqlite:///")).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"ledger: cannot make {folder}: {error.strerror}; choose another place with --ledger"
            ) from None

    def _migrate(self) -> None:
        with self._read() as connection:
            fresh = not sa.inspect(connection).has_table("meta")
            version = (
                None if fresh else connection.scalar(sa.select(META.c.value).where(META.c.name == "schema"))
            )
        if version is not None and int(version) == SCHEMA_VERSION:
            return
        if version is not None and int(version) > SCHEMA_VERSION:
            raise UserError(
                f"ledger: {self.url} has schema {version}, this claimbench knows {SCHEMA_VERSION}; update claimbench"
            )
        with self._write() as connection:
            if version is None:
                _meta.create_all(connection)  # checks each table first, so that two first runs do no harm
                found = connection.scalar(sa.select(META.c.value).where(META.c.name == "schema"))
                if found is None:
                    connection.execute(META.insert().values(name="schema", value=str(SCHEMA_VERSION)))
                return
            for step in range(int(version), SCHEMA_VERSION):
                MIGRATIONS[step](connection)
            connection.execute(META.update().where(META.c.name == "schema").values(value=str(SCHEMA_VERSION)))

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        with self._plainly(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        writing = self._engine.execution_options(claimbench_write=True)
        with self._plainly(), writing.begin() as connection:
            yield connection

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """The user's troubles with the place of the ledger, in one line."""
        try:
            yield
        except (exc.OperationalError, exc.DatabaseError) as error:
            if isinstance(error, exc.IntegrityError | exc.ProgrammingError):
                raise
            reason = str(error.orig)
            if any(
                word in reason
                for word in ("readonly", "unable to open", "full", "disk I/O", "not a database", "locked")
            ):
                raise UserError(
                    f"ledger: {self.url}: {reason}; free it, or choose another with --ledger"
                ) from error
            raise

    # --- environments and code ---

    def remember_environment(self, facts: dict[str, Any], machine: str) -> str:
        identity = digest(facts)
        with self._write() as connection:
            known = connection.scalar(sa.select(ENVIRONMENT.c.id).where(ENVIRONMENT.c.id == identity))
            if known is None:
                connection.execute(
                    ENVIRONMENT.insert().values(id=identity, machine=machine, facts=canonical(facts))
                )
        return identity

    def environment(self, identity: str) -> dict[str, Any]:
        with self._read() as connection:
            facts = connection.scalar(sa.select(ENVIRONMENT.c.facts).where(ENVIRONMENT.c.id == identity))
        return json.loads(facts) if facts else {}

    # --- sets ---

    def create_set(
        self,
        *,
        paper: str,
        claim: str,
        scale: str,
        environment: str,
        fingerprint: str,
        replication: int,
        own: bool,
        plan: dict[str, Any],
        rules_digest: str,
        claim_text: str,
    ) -> SetRow:
        """Write a set with its plan, before its first trial."""
        with self._write() as connection:
            serial = (connection.scalar(sa.select(sa.func.max(TRIAL_SET.c.serial))) or 0) + 1
            created = moment()
            uid = digest([paper, claim, scale, environment, fingerprint, serial, created, time.time_ns()])[
                :16
            ]
            row = SetRow(
                uid,
                serial,
                paper,
                claim,
                scale,
                environment,
                fingerprint,
                replication,
                own,
                plan,
                rules_digest,
                claim_text,
                created,
            )
            connection.execute(TRIAL_SET.insert().values(**_set_values(row)))
        return row

    def add_members(self, uid: str, specs: Iterable[TrialSpec]) -> None:
        """Plan trials into a set. A member that is there already stays as it is."""
        rows = [{"set_uid": uid, "key": spec.key, "seed": spec.seed, "trial": None} for spec in specs]
        with self._write() as connection:
            known = set(connection.scalars(sa.select(MEMBER.c.key).where(MEMBER.c.set_uid == uid)))
            missing = [row for row in rows if row["key"] not in known]
            if missing:
                connection.execute(MEMBER.insert(), missing)

    def sets(
        self,
        *,
        paper: str | None = None,
        claim: str | None = None,
        fingerprint: str | None = None,
        environment: str | None = None,
    ) -> list[SetRow]:
        """Sets, oldest first."""
        query = sa.select(TRIAL_SET).order_by(TRIAL_SET.c.serial)
        for column, value in (
            (TRIAL_SET.c.paper, paper),
            (TRIAL_SET.c.claim, claim),
            (TRIAL_SET.c.fingerprint, fingerprint),
            (TRIAL_SET.c.environment, environment),
        ):
            if value is not None:
                query = query.where(column == value)
        with self._read() as connection:
            return [_set_row(row) for row in connection.execute(query)]

    def unfinished(self, uid: str) -> set[str]:
        """Keys of the set's members that no trial has filled."""
        with self._read() as connection:
            query = sa.select(MEMBER.c.key).where(MEMBER.c.set_uid == uid, MEMBER.c.trial.is_(None))
            return set(connection.scalars(query))

    def members(self, uid: str) -> dict[str, int | None]:
        """The set's members: trial key -> row of the trial that fills it, or None."""
        with self._read() as connection:
            query = sa.select(MEMBER.c.key, MEMBER.c.trial).where(MEMBER.c.set_uid == uid)
            return {row.key: row.trial for row in connection.execute(query)}

    def discarded(self, uid: str) -> int:
        """How many timing rounds of the set were discarded as disturbed and then measured."""
        query = (
            sa.select(TRIAL.c.seed, TRIAL.c.point, TRIAL.c.fence)
            .join(MEMBER, MEMBER.c.key == TRIAL.c.key)
            .join(TRIAL_SET, TRIAL_SET.c.uid == MEMBER.c.set_uid)
            .where(MEMBER.c.set_uid == uid, TRIAL.c.environment == TRIAL_SET.c.environment)
            .where(TRIAL.c.status == "lost", TRIAL.c.failure.like("disturbed%"))
            .distinct()
        )
        with self._read() as connection:
            return len(connection.execute(query).all())

    def stale(self, uid: str) -> list[str]:
        """What changed in code or packages since the set's trials were measured; empty if the set is current."""
        with self._read() as connection:
            carried = connection.scalar(
                sa.select(CARRY.c.code).where(CARRY.c.set_uid == uid).order_by(CARRY.c.id.desc()).limit(1)
            )
            codes = (
                sa.select(TRIAL.c.code)
                .join(MEMBER, MEMBER.c.trial == TRIAL.c.id)
                .where(MEMBER.c.set_uid == uid)
            )
            wanted = [carried] if carried else list(connection.scalars(codes.distinct()))
        return sorted({name for code in wanted for name in self._changed(code)})

    def carry(self, uid: str, code: str, trials: int) -> None:
        """A recheck under changed code gave the same numbers: the set goes on as current."""
        with self._write() as connection:
            connection.execute(CARRY.insert().values(set_uid=uid, code=code, trials=trials, created=moment()))

    def _changed(self, code: str) -> list[str]:
        with self._read() as connection:
            row = connection.execute(sa.select(CODE).where(CODE.c.id == code)).one()
        return changed(json.loads(row.modules), json.loads(row.packages))

    def reuse(self, uid: str, environment: str) -> int:
        """Fill members from trials that other sets have measured and that are current. Returns how many."""
        with self._read() as connection:
            query = (
                sa.select(TRIAL.c.key, TRIAL.c.id, TRIAL.c.code)
                .join(MEMBER, MEMBER.c.key == TRIAL.c.key)
                .where(MEMBER.c.set_uid == uid, MEMBER.c.trial.is_(None))
                .where(TRIAL.c.environment == environment, TRIAL.c.status != "lost")
                .order_by(TRIAL.c.id)
            )
            found = {(row.key, row.code): row.id for row in connection.execute(query)}
        current = {code: not self._changed(code) for code in {code for _, code in found}}
        fill = {key: trial for (key, code), trial in found.items() if current[code]}
        with self._write() as connection:
            for key, trial in fill.items():
                where = (MEMBER.c.set_uid == uid) & (MEMBER.c.key == key)
                connection.execute(MEMBER.update().where(where).values(trial=trial))
        return len(fill)

    def judged(self, uid: str) -> list[Judged]:
        """The set's trials as the rules see them: those that fill its members, and lost ones where nothing does."""
        columns = [TRIAL.c[n] for n in ("arm", "point", "seed", "status", "metrics", "failure", "timing")]
        filled = (
            sa.select(*columns, TRIAL.c.id)
            .join(MEMBER, MEMBER.c.trial == TRIAL.c.id)
            .where(MEMBER.c.set_uid == uid)
        )
        latest = (
            sa.select(sa.func.max(TRIAL.c.id))
            .join(MEMBER, MEMBER.c.key == TRIAL.c.key)
            .join(TRIAL_SET, TRIAL_SET.c.uid == MEMBER.c.set_uid)
            .where(MEMBER.c.set_uid == uid, MEMBER.c.trial.is_(None), TRIAL.c.status == "lost")
            .where(TRIAL.c.environment == TRIAL_SET.c.environment)
            .group_by(TRIAL.c.key)
        )
        query = sa.union_all(filled, sa.select(*columns, TRIAL.c.id).where(TRIAL.c.id.in_(latest))).order_by(
            "seed", "id"
        )
        with self._read() as connection:
            return [
                Judged(
                    arm=row.arm,
                    point=json.loads(row.point),
                    seed=row.seed,
                    status=row.status,
                    metrics=json.loads(row.metrics),
                    failure=row.failure,
                    aa=json.loads(row.timing).get("aa"),
                )
                for row in connection.execute(query)
            ]

    def trials(self, uid: str) -> list[dict[str, Any]]:
        """The set's trials in full, JSON columns decoded."""
        query = (
            sa.select(TRIAL)
            .join(MEMBER, MEMBER.c.trial == TRIAL.c.id)
            .where(MEMBER.c.set_uid == uid)
            .order_by(TRIAL.c.id)
        )
        with self._read() as connection:
            return [_decoded(row) for row in connection.execute(query)]

    def newest_trial(self) -> int:
        """A watermark: the last trial's row number."""
        with self._read() as connection:
            return connection.scalar(sa.select(sa.func.max(TRIAL.c.id))) or 0

    def finished_since(self, watermark: int, keys: Sequence[str], environment: str) -> bool:
        """Whether somebody finished any of these trials after the watermark."""
        query = sa.select(TRIAL.c.id).where(
            TRIAL.c.id > watermark,
            TRIAL.c.key.in_(keys),
            TRIAL.c.environment == environment,
            TRIAL.c.status != "lost",
        )
        with self._read() as connection:
            return connection.scalar(query.limit(1)) is not None

    def held(self, keys: Iterable[str], environment: str, owner: str) -> bool:
        """Whether another owner holds a live lease on any of these trials."""
        query = sa.select(LEASE.c.key, LEASE.c.owner).where(
            LEASE.c.environment == environment,
            LEASE.c.owner.not_in(["", owner]),
            LEASE.c.expires > time.time(),
        )
        with self._read() as connection:
            return not {row.key for row in connection.execute(query)}.isdisjoint(keys)

    def expected_seconds(self, paper: str, measure: str) -> float | None:
        """Median seconds of this measure's finished trials (contended; for expectations only)."""
        query = sa.select(TRIAL.c.seconds).where(
            TRIAL.c.paper == paper, TRIAL.c.measure == measure, TRIAL.c.status == "ok"
        )
        with self._read() as connection:
            seconds = sorted(connection.scalars(query.order_by(TRIAL.c.id.desc()).limit(200)))
        return seconds[len(seconds) // 2] if seconds else None

    # --- leases and results ---

    def take(self, specs: Sequence[TrialSpec], environment: str, owner: str) -> bool:
        """Lease trials together before they run: False if somebody else holds any of them."""
        until = time.time() + LEASE_SECONDS
        with self._write() as connection:
            held = {}
            for spec in specs:
                row = connection.execute(
                    sa.select(LEASE).where(LEASE.c.key == spec.key, LEASE.c.environment == environment)
                ).one_or_none()
                if row is not None and row.owner != owner and row.owner and row.expires > time.time():
                    return False
                held[spec.key] = row
            for spec in specs:
                row = held[spec.key]
                values = {
                    "owner": owner,
                    "expires": until,
                    "fence": (row.fence if row else self._last_fence(connection, spec, environment)) + 1,
                }
                if row is None:
                    connection.execute(LEASE.insert().values(key=spec.key, environment=environment, **values))
                else:
                    where = (LEASE.c.key == spec.key) & (LEASE.c.environment == environment)
                    connection.execute(LEASE.update().where(where).values(**values))
        return True

    def _last_fence(self, connection: sa.Connection, spec: TrialSpec, environment: str) -> int:
        query = sa.select(sa.func.max(TRIAL.c.fence)).where(
            TRIAL.c.key == spec.key, TRIAL.c.environment == environment
        )
        return connection.scalar(query) or 0

    def renew(self, owner: str) -> None:
        with self._write() as connection:
            values = {"expires": time.time() + LEASE_SECONDS}
            connection.execute(LEASE.update().where(LEASE.c.owner == owner).values(**values))

    def release(self, owner: str) -> None:
        with self._write() as connection:
            connection.execute(LEASE.update().where(LEASE.c.owner == owner).values(owner="", expires=0.0))

    def record(
        self, results: Sequence[Result], environment: str, owner: str, sets: Sequence[str] = ()
    ) -> int:
        """Store a group's results in one transaction and fill the waiting members of these sets.

        A result whose lease has passed to another owner (this one slept or was cut off) is dropped: nothing is
        recorded twice. A lost trial is stored but fills no member, so that the next run tries it again.
        Returns how many were stored.
        """
        stored = 0
        with self._write() as connection:
            for result in results:
                spec = result.spec
                where = (LEASE.c.key == spec.key) & (LEASE.c.environment == environment)
                lease = connection.execute(sa.select(LEASE).where(where)).one_or_none()
                if lease is None or lease.owner != owner:
                    continue
                trial = connection.execute(
                    TRIAL.insert().values(
                        **trial_values(result, environment, lease.fence, self._code(connection, result))
                    )
                ).inserted_primary_key
                assert trial is not None
                if result.status != "lost":
                    here = (MEMBER.c.key == spec.key) & MEMBER.c.trial.is_(None) & MEMBER.c.set_uid.in_(sets)
                    connection.execute(MEMBER.update().where(here).values(trial=trial[0]))
                connection.execute(LEASE.update().where(where).values(owner="", expires=0.0))
                for key, seconds in result.artefacts.items():
                    if connection.scalar(sa.select(ARTEFACT.c.key).where(ARTEFACT.c.key == key)) is None:
                        values = {
                            "key": key,
                            "environment": environment,
                            "seconds": seconds,
                            "created": moment(),
                        }
                        connection.execute(ARTEFACT.insert().values(**values))
                stored += 1
        return stored

    def code_of(self, result: Result) -> str:
        """The identity of the code that a result was measured with."""
        with self._write() as connection:
            return self._code(connection, result)

    def _code(self, connection: sa.Connection, result: Result) -> str:
        identity = digest([result.modules, result.packages])
        if connection.scalar(sa.select(CODE.c.id).where(CODE.c.id == identity)) is None:
            values = {
                "id": identity,
                "modules": canonical(result.modules),
                "packages": canonical(result.packages),
            }
            connection.execute(CODE.insert().values(**values))
        return identity

    def artefact_seconds(self, keys: Iterable[str]) -> dict[str, float]:
        with self._read() as connection:
            rows = connection.execute(
                sa.select(ARTEFACT.c.key, ARTEFACT.c.seconds).where(ARTEFACT.c.key.in_(list(keys)))
            )
            return {row.key: row.seconds for row in rows}

    # --- verdicts ---

    def save_verdict(self, uid: str, verdict: Verdict, rules_digest: str) -> None:
        """Append a set's verdict unless it is what stands there already."""
        content = canonical(verdict.to_json())
        with self._write() as connection:
            last = connection.execute(
                sa.select(VERDICT).where(VERDICT.c.set_uid == uid).order_by(VERDICT.c.id.desc()).limit(1)
            ).one_or_none()
            if last is None or last.content != content or last.rules_digest != rules_digest:
                values = {
                    "set_uid": uid,
                    "state": verdict.state,
                    "content": content,
                    "rules_digest": rules_digest,
                }
                connection.execute(VERDICT.insert().values(**values, created=moment()))

    def verdict(self, uid: str) -> Verdict | None:
        with self._read() as connection:
            content = connection.scalar(
                sa.select(VERDICT.c.content)
                .where(VERDICT.c.set_uid == uid)
                .order_by(VERDICT.c.id.desc())
                .limit(1)
            )
        return None if content is None else Verdict.from_json(json.loads(content))

    def first_rules(self, paper: str, claim: str, scale: str, replication: int) -> str | None:
        """The digest of the rules under which these seeds were first measured."""
        query = (
            sa.select(TRIAL_SET.c.rules_digest)
            .where(TRIAL_SET.c.paper == paper, TRIAL_SET.c.claim == claim, TRIAL_SET.c.scale == scale)
            .where(TRIAL_SET.c.replication == replication)
            .order_by(TRIAL_SET.c.serial)
            .limit(1)
        )
        with self._read() as connection:
            return connection.scalar(query)


def _configure_sqlite(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, by name
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout=30000")
        if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        write = connection.get_execution_options().get("claimbench_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def trial_values(result: Result, environment: str, fence: int, code: str) -> dict[str, Any]:
    """A trial's row. NaN and infinities round-trip through JSON as Python writes them."""
    spec = result.spec
    return {
        "key": spec.key,
        "environment": environment,
        "fence": fence,
        "code": code,
        "paper": spec.paper,
        "measure": spec.measure,
        "arm": spec.arm,
        "point": canonical(spec.point),
        "seed": spec.seed,
        "size": canonical(spec.size),
        "subjects": canonical({name: asdict(ref) for name, ref in spec.subjects.items()}),
        "device": spec.device,
        "dtype": spec.dtype,
        "threads": spec.threads,
        "tuned": canonical(spec.tuned),
        "company": canonical(list(spec.company)),
        "status": result.status,
        "metrics": json.dumps(result.metrics),
        "failure": result.failure,
        "seconds": result.seconds,
        "peak_bytes": result.peak_bytes,
        "timing": json.dumps(result.timing),
        "artefacts": canonical(sorted(result.artefacts)),
        "created": moment(),
    }


JSON_COLUMNS = ("point", "size", "subjects", "tuned", "company", "metrics", "timing", "artefacts")


def _decoded(row: Any) -> dict[str, Any]:
    values = dict(row._mapping)
    return {name: json.loads(value) if name in JSON_COLUMNS else value for name, value in values.items()}


def spec_of(trial: dict[str, Any]) -> TrialSpec:
    """The specification that a stored trial was run from."""
    names = ("paper", "measure", "arm", "point", "seed", "size", "device", "dtype", "threads", "tuned")
    subjects = {name: SubjectRef(**ref) for name, ref in trial["subjects"].items()}
    return TrialSpec(**{n: trial[n] for n in names}, subjects=subjects, company=tuple(trial["company"]))


def _set_values(row: SetRow) -> dict[str, Any]:
    return {**asdict(row), "own": int(row.own), "plan": canonical(row.plan)}


def _set_row(row: Any) -> SetRow:
    return SetRow(**{**row._mapping, "own": bool(row.own), "plan": json.loads(row.plan)})
