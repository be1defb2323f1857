-- Verifications that the service itself starts at the provider, and the secret behind the browser's way back.

CREATE TABLE initializations (
    initialization_id uuid PRIMARY KEY,
    account           text COLLATE "C" NOT NULL,
    idempotency_key   text COLLATE "C",
    request_sha256    bytea NOT NULL CHECK (octet_length(request_sha256) = 32),
    merchant_biz_id   text COLLATE "C" NOT NULL,
    state             text COLLATE "C" NOT NULL CHECK (state IN ('started', 'registered', 'refused', 'lost')),
    code              text COLLATE "C",
    verification_id   uuid,
    client            text,
    started_at        timestamptz NOT NULL,
    finished_at       timestamptz,
    CHECK ((state = 'started') = (finished_at IS NULL)),
    CHECK ((state = 'registered') = (verification_id IS NOT NULL))
);
-- A key stands for one request until that request is known to have made nothing.
CREATE UNIQUE INDEX initializations_by_key ON initializations (account, idempotency_key) WHERE state <> 'refused';
-- What never ended, because its process did.
CREATE INDEX initializations_started ON initializations (started_at) WHERE state = 'started';
-- Answers that are to be forgotten.
CREATE INDEX initializations_answered ON initializations (finished_at) WHERE client IS NOT NULL;
-- Rows that are to be forgotten.
CREATE INDEX initializations_by_age ON initializations (started_at);
COMMENT ON TABLE initializations IS 'Calls of Initialize. A row is committed before its call, so that no call is made twice and none is forgotten.';
COMMENT ON COLUMN initializations.initialization_id IS 'UUIDv7 of the time of the request.';
COMMENT ON COLUMN initializations.account IS 'The account that the call was made with.';
COMMENT ON COLUMN initializations.idempotency_key IS 'The request''s Idempotency-Key; null: it had none, so nothing repeats it.';
COMMENT ON COLUMN initializations.request_sha256 IS 'SHA-256 of the request''s body as JSON in one fixed form: the same key with another body is refused.';
COMMENT ON COLUMN initializations.merchant_biz_id IS 'The reference that was sent along; names a lost transaction when asking the provider''s support.';
COMMENT ON COLUMN initializations.state IS 'started: the call may be under way; registered; refused: the provider made nothing; lost: nobody knows whether it made a transaction.';
COMMENT ON COLUMN initializations.code IS 'Why it was refused or lost: the provider''s code, or ours in lower case; null: neither.';
COMMENT ON COLUMN initializations.verification_id IS 'What it became; null: nothing.';
COMMENT ON COLUMN initializations.client IS 'What the client SDK needs, as JSON, for the repeated answer. May open the flow, so it is kept for a day at most; null: none, or forgotten.';
COMMENT ON COLUMN initializations.started_at IS 'When the call was about to be made.';
COMMENT ON COLUMN initializations.finished_at IS 'When its end was stored; null: not yet.';

CREATE TABLE service_secrets (
    name       text COLLATE "C" PRIMARY KEY,
    secret     bytea NOT NULL CHECK (octet_length(secret) = 32),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE service_secrets IS 'Secrets that the replicas share and that outlive a restart, made by whoever needs one first.';
COMMENT ON COLUMN service_secrets.name IS 'What it is for: return_state signs the state of browsers on their way back.';
COMMENT ON COLUMN service_secrets.secret IS '32 random bytes.';
COMMENT ON COLUMN service_secrets.created_at IS 'When it was made.';
