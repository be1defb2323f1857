-- What is destroyed: everything about one person on request, and each class of data when its time is over.

ALTER TABLE verifications ADD COLUMN erased_at timestamptz;
COMMENT ON TABLE verifications IS 'What was registered. A row is updated once at most: by its erasure.';
COMMENT ON COLUMN verifications.return_url IS 'Where the browser goes after /returns; null: nowhere, or erased.';
COMMENT ON COLUMN verifications.callback_token_sha256 IS 'SHA-256 of the token that callbacks of this transaction must carry; null: the account''s token counts, or erased.';
COMMENT ON COLUMN verifications.metadata IS 'The merchant''s own object, kept as written; null: none, or erased.';
COMMENT ON COLUMN verifications.erased_at IS 'When it was erased: from then on nothing is asked or written about it. Whoever gives a final verification new work locks this row and looks here first. Null: it was not.';

ALTER TABLE verdicts ALTER COLUMN reason DROP NOT NULL;
COMMENT ON COLUMN verdicts.reason IS 'Why, in words; null: erased.';
COMMENT ON COLUMN verdicts.sub_code IS 'The provider''s code for the result, as text; null: none, or erased.';
COMMENT ON COLUMN verdicts.scores IS 'Numbers by name; empty where they were destroyed.';
COMMENT ON COLUMN verdicts.signals IS 'Flags and other findings by name; empty where they were destroyed.';
COMMENT ON COLUMN verdicts.answer IS 'The provider''s answer without images. Personal data: shown only to the scope evidence. Null: there was none, or it was destroyed.';

-- What retention destroys next is read from here, from where it stands on.
CREATE INDEX verdicts_by_time ON verdicts (decided_at, verification_id);
CREATE INDEX history_by_time ON history (at, history_id);
-- Evidence whose object is still to be deleted.
CREATE INDEX evidence_to_delete ON evidence (verification_id) WHERE state = 'erased' AND object IS NOT NULL;
-- An erasure finds the answer for the client, which is kept for a day.
CREATE INDEX initializations_by_verification ON initializations (verification_id) WHERE client IS NOT NULL;

CREATE TABLE erasures (
    verification_id  uuid PRIMARY KEY,
    account          text COLLATE "C" NOT NULL,
    erased_at        timestamptz NOT NULL,
    erased_by        text,
    reason           text,
    destroyed        json NOT NULL,
    open_until       timestamptz,
    evidence_state   text COLLATE "C" NOT NULL CHECK (evidence_state IN ('pending', 'destroyed')),
    evidence_objects bigint NOT NULL DEFAULT 0,
    evidence_reason  text,
    evidence_at      timestamptz,
    provider_state   text COLLATE "C" NOT NULL CHECK (provider_state IN ('pending', 'destroyed', 'refused', 'not_offered')),
    provider_reason  text,
    provider_at      timestamptz,
    attempts         integer NOT NULL DEFAULT 0,
    due_at           timestamptz,
    lease_token      uuid,
    leased_until     timestamptz,
    CHECK ((lease_token IS NULL) = (leased_until IS NULL)),
    CHECK ((due_at IS NULL) = (evidence_state <> 'pending' AND provider_state <> 'pending'))
);
-- What is not complete yet: a few rows, however many are.
CREATE INDEX erasures_open ON erasures (due_at) WHERE due_at IS NOT NULL;
COMMENT ON TABLE erasures IS 'Erasures on request: the receipt, and the work outside the database that is still to be done. Holds no personal data.';
COMMENT ON COLUMN erasures.verification_id IS 'The verification.';
COMMENT ON COLUMN erasures.account IS 'Its account.';
COMMENT ON COLUMN erasures.erased_at IS 'When everything in the database was destroyed.';
COMMENT ON COLUMN erasures.erased_by IS 'Name of the API key; null: keys are not asked for.';
COMMENT ON COLUMN erasures.reason IS 'What the caller gave as reason; null: nothing.';
COMMENT ON COLUMN erasures.destroyed IS 'How many of each kind were destroyed in the database, by the names of the receipt.';
COMMENT ON COLUMN erasures.open_until IS 'Until when the person may still complete the flow, so that the provider may have more to delete later; null: it was completed.';
COMMENT ON COLUMN erasures.evidence_state IS 'pending, or destroyed: the evidence store holds nothing of it, and no capture of it is under way.';
COMMENT ON COLUMN erasures.evidence_objects IS 'How many objects were deleted from the evidence store.';
COMMENT ON COLUMN erasures.evidence_reason IS 'Why it is still pending, or that objects were not there; null: nothing to say.';
COMMENT ON COLUMN erasures.evidence_at IS 'When the evidence store was found empty; null: pending.';
COMMENT ON COLUMN erasures.provider_state IS 'pending; destroyed; refused: the provider will not, see provider_reason; not_offered: it has no call for this.';
COMMENT ON COLUMN erasures.provider_reason IS 'Why it is not destroyed; null: it is, or was not tried yet.';
COMMENT ON COLUMN erasures.provider_at IS 'When the provider''s part ended; null: pending.';
COMMENT ON COLUMN erasures.attempts IS 'Attempts at the parts outside the database.';
COMMENT ON COLUMN erasures.due_at IS 'When the next attempt is due; null: complete.';
COMMENT ON COLUMN erasures.lease_token IS 'Names the lease of an attempt under way; null: none is.';
COMMENT ON COLUMN erasures.leased_until IS 'When the lease runs out, by the clock of the database; null: not leased.';

CREATE TABLE retention_cursors (
    class      text COLLATE "C" PRIMARY KEY CHECK (class IN ('evidence', 'raw_answer', 'scores', 'callbacks', 'history')),
    passed_at  timestamptz NOT NULL DEFAULT 'epoch',
    passed_id  uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    passed_row bigint NOT NULL DEFAULT 0,
    back_at    timestamptz NOT NULL DEFAULT 'epoch'
);
INSERT INTO retention_cursors (class)
VALUES ('evidence'), ('raw_answer'), ('scores'), ('callbacks'), ('history');
COMMENT ON TABLE retention_cursors IS 'How far retention has come, one row for each class of data. Whoever works on a class locks its row.';
COMMENT ON COLUMN retention_cursors.class IS 'The key in the section retention of the configuration.';
COMMENT ON COLUMN retention_cursors.passed_at IS 'Everything up to this time is destroyed: of verdicts their decided_at, of history its at.';
COMMENT ON COLUMN retention_cursors.passed_id IS 'Of the verdicts with exactly that time, everything up to this verification; nil for the history.';
COMMENT ON COLUMN retention_cursors.passed_row IS 'Of the rows of the history with exactly that time, everything up to this history_id; 0 for verdicts.';
COMMENT ON COLUMN retention_cursors.back_at IS 'When the cursor was last moved back a little, for rows that were committed late.';

CREATE OR REPLACE VIEW verification_records AS
SELECT
    v.verification_id,
    v.account,
    v.transaction_id,
    v.merchant_biz_id,
    v.product,
    v.expect_video,
    v.return_url,
    v.metadata,
    v.registered_at,
    CASE
        WHEN d.status IS NOT NULL THEN d.status
        WHEN j.hinted_at IS NOT NULL OR j.callback_at IS NOT NULL OR h.first_at IS NOT NULL THEN 'collecting'
        ELSE 'waiting'
    END AS status,
    d.revision,
    d.sub_code,
    d.reason,
    d.scores,
    d.signals,
    d.decided_at,
    coalesce(d.callback_at, j.callback_at, h.callback_at) AS callback_at,
    coalesce(d.hinted_at, j.hinted_at, h.hinted_at) AS hinted_at,
    coalesce(j.checks, d.checks, 0) AS checks,
    CASE WHEN h.first_at IS NOT NULL THEN h.first_at ELSE j.due_at END AS due_at,
    j.lease_token IS NOT NULL AS checking,
    CASE WHEN j.verification_id IS NOT NULL THEN j.last_error ELSE d.last_error END AS last_error,
    v.erased_at
FROM verifications v
-- LIMIT 1 has each row looked up by its key, also by a plan that was made when a table was empty.
LEFT JOIN LATERAL (
    SELECT *
    FROM verdicts
    WHERE verdicts.verification_id = v.verification_id
    AND superseded_at IS NULL
    LIMIT 1
) d ON true
LEFT JOIN LATERAL (
    SELECT *
    FROM collect_jobs
    WHERE collect_jobs.verification_id = v.verification_id
    LIMIT 1
) j ON true
LEFT JOIN LATERAL (
    SELECT
        min(at) AS first_at,
        min(at) FILTER (WHERE kind = 'callback') AS callback_at,
        min(at) FILTER (WHERE authenticated) AS hinted_at
    FROM hints
    WHERE hints.verification_id = v.verification_id
    -- A callback that comes after the erasure waits here for a moment, and is dropped.
    AND v.erased_at IS NULL
) h ON true;
COMMENT ON COLUMN verification_records.erased_at IS 'When it was erased; null: it was not.';
