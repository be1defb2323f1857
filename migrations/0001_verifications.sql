-- The record of each verification, the open work on it, the verdicts it ended with, and everything that happened.
--
-- What is written often stays narrow: a registration is never updated, a verdict is only inserted, and the one
-- table that is updated (collect_jobs) holds open work alone, so that its size follows what is under way and not
-- what has ever been. Hot tables carry no foreign keys: each check would write a lock into the referenced row.

CREATE TABLE accounts (
    account          text COLLATE "C" PRIMARY KEY,
    next_slot_at     timestamptz NOT NULL DEFAULT 'epoch',
    hold_until       timestamptz,
    rate             double precision CHECK (rate > 0),
    rate_at          timestamptz,
    throttles        integer NOT NULL DEFAULT 0,
    failing_since    timestamptz,
    failing_reason   text,
    failing_code     text,
    probe_at         timestamptz,
    probes           integer NOT NULL DEFAULT 0
);
COMMENT ON TABLE accounts IS 'What all replicas share about an account at a provider: its budget of calls and its health.';
COMMENT ON COLUMN accounts.account IS 'Name of the account in the configuration.';
COMMENT ON COLUMN accounts.next_slot_at IS 'When the next call may be sent, by the clock of the database. Replicas take slots by moving it on.';
COMMENT ON COLUMN accounts.hold_until IS 'No call before this time, because the provider throttled; null: no hold.';
COMMENT ON COLUMN accounts.rate IS 'Calls a second at rate_at, lowered by throttling; it grows back by itself. Null: the configured rate.';
COMMENT ON COLUMN accounts.rate_at IS 'When rate was set; null with it.';
COMMENT ON COLUMN accounts.throttles IS 'Throttled answers in a row.';
COMMENT ON COLUMN accounts.failing_since IS 'Since when the account is in trouble; null: it is not.';
COMMENT ON COLUMN accounts.failing_reason IS 'Kind of trouble; null when the account is well.';
COMMENT ON COLUMN accounts.failing_code IS 'The provider''s code for the trouble; null when the account is well.';
COMMENT ON COLUMN accounts.probe_at IS 'While failing: when one call may try again.';
COMMENT ON COLUMN accounts.probes IS 'While failing: probes that failed so far.';

CREATE TABLE verifications (
    verification_id       uuid PRIMARY KEY,
    account               text COLLATE "C" NOT NULL,
    transaction_id        text COLLATE "C" NOT NULL,
    merchant_biz_id       text COLLATE "C" NOT NULL,
    product               text,
    expect_video          boolean NOT NULL,
    return_url            text,
    callback_token_sha256 bytea CHECK (octet_length(callback_token_sha256) = 32),
    metadata              json,
    registered_at         timestamptz NOT NULL,
    CONSTRAINT verifications_transaction UNIQUE (account, transaction_id)
);
-- Ids are ordered by time, so these serve "newest first" with a filter.
CREATE INDEX verifications_by_account ON verifications (account, verification_id);
CREATE INDEX verifications_by_merchant_biz_id ON verifications (merchant_biz_id, verification_id);
COMMENT ON TABLE verifications IS 'What was registered. Rows are never updated.';
COMMENT ON COLUMN verifications.verification_id IS 'UUIDv7 of the time of registration.';
COMMENT ON COLUMN verifications.account IS 'The account whose provider knows the transaction.';
COMMENT ON COLUMN verifications.transaction_id IS 'The provider''s handle. Results are asked for with this value and no other.';
COMMENT ON COLUMN verifications.merchant_biz_id IS 'The merchant''s own reference, sent to the provider with each check.';
COMMENT ON COLUMN verifications.product IS 'The provider''s product; null: not told.';
COMMENT ON COLUMN verifications.expect_video IS 'An evidence video is expected, so its deadline counts.';
COMMENT ON COLUMN verifications.return_url IS 'Where the browser goes after /returns; null: nowhere.';
COMMENT ON COLUMN verifications.callback_token_sha256 IS 'SHA-256 of the token that callbacks of this transaction must carry; null: the account''s token counts.';
COMMENT ON COLUMN verifications.metadata IS 'The merchant''s own object, kept as written; null: none.';
COMMENT ON COLUMN verifications.registered_at IS 'When it was registered.';

CREATE TABLE hints (
    hint_id         bigint GENERATED ALWAYS AS IDENTITY,
    account         text COLLATE "C" NOT NULL,
    lane            smallint NOT NULL,
    verification_id uuid NOT NULL,
    at              timestamptz NOT NULL,
    kind            text COLLATE "C" NOT NULL CHECK (kind IN ('callback', 'collect')),
    authenticated   boolean NOT NULL,
    detail          json NOT NULL,
    PRIMARY KEY (account, lane, hint_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
CREATE INDEX hints_by_verification ON hints (verification_id);
COMMENT ON TABLE hints IS 'Accepted callbacks and collect requests that are not yet worked into collect_jobs and history. A callback is acknowledged when its row here is committed.';
COMMENT ON COLUMN hints.hint_id IS 'Order of arrival.';
COMMENT ON COLUMN hints.account IS 'The account of the verification.';
COMMENT ON COLUMN hints.lane IS 'The lane that it puts its verification into: 0 video deadline, 1 fresh.';
COMMENT ON COLUMN hints.verification_id IS 'The verification that may have a result now.';
COMMENT ON COLUMN hints.at IS 'When it was accepted.';
COMMENT ON COLUMN hints.kind IS 'callback, or collect for a request of the merchant.';
COMMENT ON COLUMN hints.authenticated IS 'It carried the right token, or came over the API.';
COMMENT ON COLUMN hints.detail IS 'Becomes the detail of its row in history.';

CREATE TABLE collect_jobs (
    verification_id uuid PRIMARY KEY,
    account         text COLLATE "C" NOT NULL,
    lane            smallint NOT NULL CHECK (lane BETWEEN 0 AND 3),
    due_at          timestamptz NOT NULL,
    callback_at     timestamptz,
    callbacks       integer NOT NULL DEFAULT 0,
    hinted_at       timestamptz,
    nudged_at       timestamptz,
    recheck         boolean NOT NULL DEFAULT false,
    checks          integer NOT NULL DEFAULT 0,
    running         integer NOT NULL DEFAULT 0,
    faults          integer NOT NULL DEFAULT 0,
    last_error      text,
    nudged_again    boolean NOT NULL DEFAULT false,
    lease_token     uuid,
    leased_until    timestamptz,
    CHECK ((lease_token IS NULL) = (leased_until IS NULL))
) WITH (fillfactor = 70);
-- What to lease next: one short range for each lane.
CREATE INDEX collect_jobs_available ON collect_jobs (account, lane, due_at) WHERE lease_token IS NULL;
-- Leases that ran out because their worker died.
CREATE INDEX collect_jobs_leased ON collect_jobs (leased_until) WHERE lease_token IS NOT NULL;
COMMENT ON TABLE collect_jobs IS 'Open work: one row for each verification whose result is still to be collected, deleted with the verdict.';
COMMENT ON COLUMN collect_jobs.verification_id IS 'The verification.';
COMMENT ON COLUMN collect_jobs.account IS 'Its account, copied so that leasing reads this table alone.';
COMMENT ON COLUMN collect_jobs.lane IS 'What goes first under a short budget: 0 video deadline, 1 fresh hint, 2 retry, 3 poll.';
COMMENT ON COLUMN collect_jobs.due_at IS 'When the provider is to be asked next.';
COMMENT ON COLUMN collect_jobs.callback_at IS 'First accepted callback; null: none yet.';
COMMENT ON COLUMN collect_jobs.callbacks IS 'Accepted callbacks, repeats included.';
COMMENT ON COLUMN collect_jobs.hinted_at IS 'First authenticated callback or collect: the deadlines run from here; null: none yet.';
COMMENT ON COLUMN collect_jobs.nudged_at IS 'When a hint last made a check due; null: never.';
COMMENT ON COLUMN collect_jobs.recheck IS 'There is a verdict already; only a different answer adds a revision.';
COMMENT ON COLUMN collect_jobs.checks IS 'Checks made so far.';
COMMENT ON COLUMN collect_jobs.running IS 'Answers in a row that there is no result yet.';
COMMENT ON COLUMN collect_jobs.faults IS 'Faults in a row.';
COMMENT ON COLUMN collect_jobs.last_error IS 'What the last check brought instead of a result; null: nothing went wrong.';
COMMENT ON COLUMN collect_jobs.nudged_again IS 'A hint came while the provider was being asked, so that answer may have been too early.';
COMMENT ON COLUMN collect_jobs.lease_token IS 'Names the lease; every write of a worker carries it. Null: available.';
COMMENT ON COLUMN collect_jobs.leased_until IS 'When the lease runs out, by the clock of the database; null: not leased.';

CREATE TABLE verdicts (
    verification_id uuid NOT NULL,
    revision        integer NOT NULL CHECK (revision > 0),
    account         text COLLATE "C" NOT NULL,
    status          text COLLATE "C" NOT NULL CHECK (status IN ('passed', 'failed', 'review', 'void', 'expired', 'unresolvable')),
    sub_code        text,
    reason          text NOT NULL,
    scores          json NOT NULL,
    signals         json NOT NULL,
    answer          text,
    decided_at      timestamptz NOT NULL,
    callback_at     timestamptz,
    hinted_at       timestamptz,
    checks          integer NOT NULL,
    last_error      text,
    superseded_at   timestamptz,
    PRIMARY KEY (verification_id, revision)
);
CREATE INDEX verdicts_by_status ON verdicts (account, status, verification_id) WHERE superseded_at IS NULL;
COMMENT ON TABLE verdicts IS 'How verifications ended. A later different answer adds a revision and supersedes the one before.';
COMMENT ON COLUMN verdicts.verification_id IS 'The verification.';
COMMENT ON COLUMN verdicts.revision IS 'Counts from 1.';
COMMENT ON COLUMN verdicts.account IS 'Its account, copied for the index.';
COMMENT ON COLUMN verdicts.status IS 'The final status.';
COMMENT ON COLUMN verdicts.sub_code IS 'The provider''s code for the result, as text; null: none.';
COMMENT ON COLUMN verdicts.reason IS 'Why, in words.';
COMMENT ON COLUMN verdicts.scores IS 'Numbers by name.';
COMMENT ON COLUMN verdicts.signals IS 'Flags and other findings by name.';
COMMENT ON COLUMN verdicts.answer IS 'The provider''s answer without images. Personal data: shown only to the scope evidence. Null: there was none.';
COMMENT ON COLUMN verdicts.decided_at IS 'When the verdict was stored.';
COMMENT ON COLUMN verdicts.callback_at IS 'First accepted callback; null: none before the verdict.';
COMMENT ON COLUMN verdicts.hinted_at IS 'First authenticated callback or collect; null: none before the verdict.';
COMMENT ON COLUMN verdicts.checks IS 'Checks that it took.';
COMMENT ON COLUMN verdicts.last_error IS 'What the last check brought instead of a result; null: a result.';
COMMENT ON COLUMN verdicts.superseded_at IS 'When a later revision took its place; null: current.';

CREATE TABLE history (
    history_id      bigint GENERATED ALWAYS AS IDENTITY,
    verification_id uuid NOT NULL,
    at              timestamptz NOT NULL,
    kind            text COLLATE "C" NOT NULL,
    detail          json NOT NULL,
    PRIMARY KEY (verification_id, history_id)
);
-- Rows come in the order of their ids, so this costs almost nothing and finds what is new.
CREATE INDEX history_in_order ON history USING brin (history_id) WITH (autosummarize = on);
COMMENT ON TABLE history IS 'Everything that happened to a verification: callbacks and checks included. Rows are only added.';
COMMENT ON COLUMN history.history_id IS 'Grows over all verifications.';
COMMENT ON COLUMN history.verification_id IS 'The verification.';
COMMENT ON COLUMN history.at IS 'When it happened.';
COMMENT ON COLUMN history.kind IS 'registered, callback, check, evidence, verdict, webhook, operator or erased.';
COMMENT ON COLUMN history.detail IS 'Members by kind; never a secret, a score or a piece of an answer.';

CREATE TABLE unmatched_callbacks (
    account        text COLLATE "C" NOT NULL,
    transaction_id text COLLATE "C" NOT NULL,
    received_at    timestamptz NOT NULL,
    callbacks      integer NOT NULL DEFAULT 1,
    passed         text,
    sub_code       text,
    PRIMARY KEY (account, transaction_id)
);
CREATE INDEX unmatched_callbacks_by_age ON unmatched_callbacks (account, received_at);
COMMENT ON TABLE unmatched_callbacks IS 'Authenticated callbacks of transactions that nobody has registered yet; kept for a day.';
COMMENT ON COLUMN unmatched_callbacks.account IS 'The account they came to.';
COMMENT ON COLUMN unmatched_callbacks.transaction_id IS 'The transaction they name.';
COMMENT ON COLUMN unmatched_callbacks.received_at IS 'When the first came.';
COMMENT ON COLUMN unmatched_callbacks.callbacks IS 'How many came.';
COMMENT ON COLUMN unmatched_callbacks.passed IS 'What the first claimed: a hint for the history, nothing else; null: nothing.';
COMMENT ON COLUMN unmatched_callbacks.sub_code IS 'What the first claimed; null: nothing.';

CREATE VIEW verification_records AS
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
    CASE WHEN j.verification_id IS NOT NULL THEN j.last_error ELSE d.last_error END AS last_error
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
) h ON true;
COMMENT ON VIEW verification_records IS 'Each verification as it stands: registration, state of the work, current verdict. Made for reading by people and programs.';
COMMENT ON COLUMN verification_records.status IS 'waiting, collecting, or the final status.';
COMMENT ON COLUMN verification_records.due_at IS 'When the provider is asked next; null: never again.';
COMMENT ON COLUMN verification_records.checking IS 'The provider is being asked at this moment.';
