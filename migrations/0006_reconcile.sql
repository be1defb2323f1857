-- Rechecks in bulk, and what was said about verifications at risk.

CREATE TABLE rechecks (
    recheck_id  uuid PRIMARY KEY,
    filter      json NOT NULL,
    created_at  timestamptz NOT NULL,
    created_by  text,
    finished_at timestamptz,
    stopped_at  timestamptz
);
COMMENT ON TABLE rechecks IS 'An operator''s wish to ask again about every final verification that a filter matches.';
COMMENT ON COLUMN rechecks.recheck_id IS 'UUIDv7 of the time of the wish.';
COMMENT ON COLUMN rechecks.filter IS 'Which verifications, as the API took it.';
COMMENT ON COLUMN rechecks.created_at IS 'When it was wished for. What is registered or decided later is no part of it.';
COMMENT ON COLUMN rechecks.created_by IS 'Name of the key that wished for it; null: keys are not asked for.';
COMMENT ON COLUMN rechecks.finished_at IS 'When the last check of it ended; null: it has not, or it was stopped.';
COMMENT ON COLUMN rechecks.stopped_at IS 'When an operator stopped it; null: nobody did.';

CREATE TABLE recheck_parts (
    recheck_id uuid NOT NULL,
    account    text COLLATE "C" NOT NULL,
    status     text COLLATE "C" NOT NULL,
    state      text COLLATE "C" NOT NULL DEFAULT 'feeding' CHECK (state IN ('feeding', 'fed', 'stopped')),
    matched    bigint NOT NULL,
    queued     bigint NOT NULL DEFAULT 0,
    skipped    bigint NOT NULL DEFAULT 0,
    seen       uuid NOT NULL,
    PRIMARY KEY (recheck_id, account, status)
);
CREATE INDEX recheck_parts_feeding ON recheck_parts (account, recheck_id, status) WHERE state = 'feeding';
COMMENT ON TABLE recheck_parts IS 'How far a recheck has come with the verifications of one account and one final status.';
COMMENT ON COLUMN recheck_parts.recheck_id IS 'The recheck.';
COMMENT ON COLUMN recheck_parts.account IS 'The account, whose rate sets the pace.';
COMMENT ON COLUMN recheck_parts.status IS 'The final status that verdicts had when the recheck was wished for.';
COMMENT ON COLUMN recheck_parts.state IS 'feeding: there may be more to put into collect_jobs; fed: all are there, or were; stopped: no more.';
COMMENT ON COLUMN recheck_parts.matched IS 'How many the filter matched at the beginning.';
COMMENT ON COLUMN recheck_parts.queued IS 'How many were put into collect_jobs so far.';
COMMENT ON COLUMN recheck_parts.skipped IS 'How many were passed over because they had a job already.';
COMMENT ON COLUMN recheck_parts.seen IS 'All verifications up to this id were looked at. Moved by the statement that inserts the jobs.';

CREATE TABLE recheck_revisions (
    recheck_id      uuid NOT NULL,
    verification_id uuid NOT NULL,
    PRIMARY KEY (recheck_id, verification_id)
);
COMMENT ON TABLE recheck_revisions IS 'What a recheck changed. Written by the statement that stores the new revision.';
COMMENT ON COLUMN recheck_revisions.recheck_id IS 'The recheck.';
COMMENT ON COLUMN recheck_revisions.verification_id IS 'A verification that has another verdict since.';

ALTER TABLE collect_jobs ADD COLUMN recheck_id uuid;
-- Only rows of bulk rechecks are in it, so it costs other work nothing.
CREATE INDEX collect_jobs_of_rechecks ON collect_jobs (recheck_id) WHERE recheck_id IS NOT NULL;
COMMENT ON COLUMN collect_jobs.recheck_id IS 'The bulk recheck that put it here; null: none did.';

CREATE TABLE risk_warnings (
    account    text COLLATE "C" NOT NULL,
    kind       text COLLATE "C" NOT NULL CHECK (kind IN ('video', 'result')),
    percent    smallint NOT NULL,
    told_until timestamptz NOT NULL,
    PRIMARY KEY (account, kind, percent)
);
COMMENT ON TABLE risk_warnings IS 'Up to when the log has told what is at risk, so that one replica tells it once.';
COMMENT ON COLUMN risk_warnings.account IS 'The account.';
COMMENT ON COLUMN risk_warnings.kind IS 'What the provider deletes: video or result.';
COMMENT ON COLUMN risk_warnings.percent IS 'How much of its time is used: 50, 80 or 95.';
COMMENT ON COLUMN risk_warnings.told_until IS 'What came to use so much of its time before this was told.';
