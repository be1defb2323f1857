-- What is asked for next: the clock that leases and slots are read from, and how an account's calls are paced.

-- One function, so that a test can replace it and move the database's time. The planner puts its body in place of the
-- call, so it costs nothing.
CREATE FUNCTION database_now() RETURNS timestamptz
    LANGUAGE sql VOLATILE PARALLEL RESTRICTED
    AS 'SELECT clock_timestamp()';
COMMENT ON FUNCTION database_now() IS 'The clock of leases and slots: the time of the database.';

ALTER TABLE accounts
    ADD COLUMN next_bulk_at     timestamptz NOT NULL DEFAULT 'epoch',
    ADD COLUMN recent_slots     timestamptz[] NOT NULL DEFAULT '{}',
    ADD COLUMN other_calls      bigint NOT NULL DEFAULT 0,
    ADD COLUMN refused_rate     double precision,
    ADD COLUMN unanswered       integer NOT NULL DEFAULT 0,
    ADD COLUMN unanswered_since timestamptz,
    ADD COLUMN unanswered_of    uuid[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN accounts.next_slot_at IS 'When the next urgent call may be sent, by the clock of the database. Replicas take slots by moving it on.';
COMMENT ON COLUMN accounts.next_bulk_at IS 'When the next call may be sent that is not urgent (a retry or a poll). Every call moves it on.';
COMMENT ON COLUMN accounts.recent_slots IS 'The slots given last, newest first: as many as the configured rate allows in a second, or the newest alone for rates from 22 on, where the spacing is enough.';
COMMENT ON COLUMN accounts.other_calls IS 'Slots given so far for anything but polls: what polls may use is what this leaves.';
COMMENT ON COLUMN accounts.refused_rate IS 'The rate that was throttled again soon after it had recovered; it is tried again only slowly. Null: none.';
COMMENT ON COLUMN accounts.unanswered IS 'Calls in a row to which the provider gave no usable answer.';
COMMENT ON COLUMN accounts.unanswered_since IS 'When the first of them failed; null with none.';
COMMENT ON COLUMN accounts.unanswered_of IS 'Verifications that they were about, the first five.';

-- What goes first within a lane: the earliest deadline, which is the oldest hint, among retries and videos, and the
-- longest due among fresh ones and polls.
CREATE INDEX collect_jobs_in_order ON collect_jobs (
    account,
    lane,
    (CASE WHEN lane IN (0, 2) THEN coalesce(hinted_at, TIMESTAMPTZ '9999-12-31 00:00:00+00') ELSE due_at END),
    due_at
) WHERE lease_token IS NULL;
-- When the first of those that are not in the order of being due is due. No index for leasing: with one in the order of
-- lane and due_at, a plan made before an ANALYZE might read all that is due and sort it.
CREATE INDEX collect_jobs_due ON collect_jobs (account, due_at) WHERE lease_token IS NULL AND lane IN (0, 2);
DROP INDEX collect_jobs_available;

-- The calls a second that an account may make after throttling: it wins back `recovery` of its whole rate each second,
-- and a twentieth of that from a tenth below the rate that was refused before.
CREATE FUNCTION effective_rate(
    rate double precision, rate_at timestamptz, refused double precision, qps double precision,
    recovery double precision, now_at timestamptz
) RETURNS double precision
    LANGUAGE plpgsql IMMUTABLE
    AS $$
DECLARE
    grown double precision := rate + qps * recovery * greatest(0, extract(epoch FROM now_at - rate_at)::double precision);
    bound double precision := greatest(rate, 0.9 * refused);
BEGIN
    IF grown IS NULL THEN
        RETURN qps;
    END IF;
    IF refused IS NOT NULL AND grown > bound THEN
        grown := bound + (grown - bound) / 20;
    END IF;
    RETURN least(qps, grown);
END $$;
COMMENT ON FUNCTION effective_rate(double precision, timestamptz, double precision, double precision, double precision, timestamptz)
    IS 'Calls a second that an account may make now, with its rate lowered by throttling and growing back.';

-- When the next calls of an account may be sent. A slot is when a call is sent; it may arrive `slack` seconds later, so
-- at most `qps` slots may lie in any 1 + slack seconds. Slots are given in order (none before the newest), so:
--
-- Below 22 calls a second, each slot comes at least 1 + slack after the n-th newest, n <= qps: any n + 1 slots in a row
-- span more than that. Calls that are not urgent keep one place free (from 3 a second), so that an urgent one finds it.
--
-- From 22 on a log would be long, and spacing does: with d = (1 + slack) / (qps - 1), urgent calls are d apart, and one
-- that is not urgent comes d times k after any call that is k calls before it, because each moves next_bulk_at on by d.
-- Take qps + 1 slots in a row, and of them the last one that is not urgent, the k-th: it is (k - 1) d after the first,
-- the urgent one after it may follow at once, the others are d apart. That is at least (qps - 1) d = 1 + slack.
-- (A thousandth is added for rounding, and a lowered rate only makes d longer.)
--
-- A database's clock that was set back would hold everything still until it is where it was: slots more than ten
-- minutes ahead are therefore forgotten.
CREATE FUNCTION account_pace(
    a accounts, qps double precision, slack double precision, recovery double precision, now_at timestamptz,
    OUT spacing double precision, OUT database_at timestamptz, OUT urgent_at timestamptz, OUT bulk_at timestamptz,
    OUT next_bulk timestamptz, OUT recent timestamptz[], OUT kept integer
)
    LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED
    AS $$
DECLARE
    second CONSTANT double precision := (1 + slack) * 1.001;
    effective CONSTANT double precision := effective_rate(a.rate, a.rate_at, a.refused_rate, qps, recovery, now_at);
    n CONSTANT integer := greatest(1, floor(effective));
    span CONSTANT interval := make_interval(secs => second * greatest(1, 1 / effective));
BEGIN
    database_at := database_now();
    IF qps < 22 THEN
        kept := qps;
        spacing := second / CASE WHEN effective < 1 THEN effective ELSE n END;
    ELSE
        kept := 1;
        spacing := second / greatest(effective - 1, effective / 2);
    END IF;
    recent := a.recent_slots;
    next_bulk := a.next_bulk_at;
    urgent_at := a.next_slot_at;
    IF greatest(next_bulk, urgent_at, recent[1]) > database_at + interval '10 minutes' THEN
        recent := '{}';
        next_bulk := database_at;
        urgent_at := database_at;
    END IF;
    urgent_at := greatest(database_at, recent[1], urgent_at, recent[n] + span);
    bulk_at := greatest(urgent_at, next_bulk, recent[CASE WHEN n < 3 THEN n ELSE n - 1 END] + span);
END $$;
COMMENT ON FUNCTION account_pace(accounts, double precision, double precision, double precision, timestamptz)
    IS 'When the next urgent and the next other call of an account may be sent.';
