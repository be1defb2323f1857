-- Outgoing webhooks: what happened, who is to be told, and how far telling has come.

CREATE TABLE events (
    event_id        uuid PRIMARY KEY,
    verification_id uuid NOT NULL,
    type            text COLLATE "C" NOT NULL,
    account         text COLLATE "C" NOT NULL,
    merchant_biz_id text COLLATE "C" NOT NULL,
    status          text COLLATE "C" NOT NULL,
    revision        integer NOT NULL,
    occurred_at     timestamptz NOT NULL
);
-- Replays by time.
CREATE INDEX events_by_time ON events (occurred_at, event_id);
-- Replays by verification.
CREATE INDEX events_by_verification ON events (verification_id);
COMMENT ON TABLE events IS 'What webhooks tell: one row for each event that an endpoint wanted, written in the transaction of what it tells. Holds ids, status and times alone.';
COMMENT ON COLUMN events.event_id IS 'UUIDv7; sent as webhook-id with every attempt, so that a receiver knows repeats.';
COMMENT ON COLUMN events.verification_id IS 'The verification.';
COMMENT ON COLUMN events.type IS 'verification.passed and its like.';
COMMENT ON COLUMN events.account IS 'Its account.';
COMMENT ON COLUMN events.merchant_biz_id IS 'The merchant''s own reference.';
COMMENT ON COLUMN events.status IS 'The status at that moment.';
COMMENT ON COLUMN events.revision IS 'The revision of the verdict at that moment.';
COMMENT ON COLUMN events.occurred_at IS 'When it happened.';

CREATE TABLE endpoints (
    endpoint        text COLLATE "C" PRIMARY KEY,
    disabled_at     timestamptz,
    disabled_reason text,
    failures        integer NOT NULL DEFAULT 0,
    paused_until    timestamptz,
    last_success_at timestamptz,
    last_failure_at timestamptz,
    last_failure    text,
    CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL))
) WITH (fillfactor = 50);
COMMENT ON TABLE endpoints IS 'How receivers of webhooks fare, as far as replicas share it. What they are is in the configuration.';
COMMENT ON COLUMN endpoints.endpoint IS 'The name in the configuration.';
COMMENT ON COLUMN endpoints.disabled_at IS 'Since when nothing is sent, until an operator enables it; null: it is enabled.';
COMMENT ON COLUMN endpoints.disabled_reason IS 'Why; null: it is enabled.';
COMMENT ON COLUMN endpoints.failures IS 'Attempts in a row that failed. From a few on, one delivery at a time is tried.';
COMMENT ON COLUMN endpoints.paused_until IS 'While it fails: when the next one is tried; null: it does not.';
COMMENT ON COLUMN endpoints.last_success_at IS 'When an attempt last succeeded, to about ten seconds; null: never.';
COMMENT ON COLUMN endpoints.last_failure_at IS 'When an attempt last failed; null: never.';
COMMENT ON COLUMN endpoints.last_failure IS 'Why, in words of ours; null: never.';

CREATE TABLE deliveries (
    delivery_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id        uuid NOT NULL,
    endpoint        text COLLATE "C" NOT NULL,
    verification_id uuid NOT NULL,
    state           text COLLATE "C" NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'failed')),
    due_at          timestamptz NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    replays         integer NOT NULL DEFAULT 0,
    lease_token     uuid,
    leased_until    timestamptz,
    last_attempt_at timestamptz,
    last_result     text COLLATE "C",
    last_status     integer,
    last_duration_ms bigint,
    ended_at        timestamptz,
    UNIQUE (event_id, endpoint),
    CHECK ((lease_token IS NULL) = (leased_until IS NULL)),
    CHECK ((state = 'pending') = (ended_at IS NULL))
) WITH (fillfactor = 70);
-- What is due, in order. Leased ones among them are as many as are under way.
CREATE INDEX deliveries_due ON deliveries (endpoint, due_at, delivery_id) WHERE state = 'pending';
CREATE INDEX deliveries_by_state ON deliveries (endpoint, state, delivery_id);
CREATE INDEX deliveries_by_verification ON deliveries (verification_id, delivery_id);
-- What is over and may be destroyed.
CREATE INDEX deliveries_ended ON deliveries (ended_at, delivery_id) WHERE state <> 'pending';
COMMENT ON TABLE deliveries IS 'An event on its way to an endpoint.';
COMMENT ON COLUMN deliveries.delivery_id IS 'Order of writing.';
COMMENT ON COLUMN deliveries.event_id IS 'The event.';
COMMENT ON COLUMN deliveries.endpoint IS 'Whom it goes to.';
COMMENT ON COLUMN deliveries.verification_id IS 'The verification, copied for lists.';
COMMENT ON COLUMN deliveries.state IS 'pending; delivered: the endpoint answered 2xx; failed: the last attempt of the schedule failed.';
COMMENT ON COLUMN deliveries.due_at IS 'While pending: when the next attempt is due.';
COMMENT ON COLUMN deliveries.attempts IS 'Attempts whose end is known, since the last replay.';
COMMENT ON COLUMN deliveries.replays IS 'How often an operator had it begin anew.';
COMMENT ON COLUMN deliveries.lease_token IS 'Names the attempt under way; its write carries it. Null: none is.';
COMMENT ON COLUMN deliveries.leased_until IS 'When the lease runs out, by the clock of the database; null: not leased.';
COMMENT ON COLUMN deliveries.last_attempt_at IS 'When the last attempt ended; null: there was none.';
COMMENT ON COLUMN deliveries.last_result IS 'How it ended; null: there was none.';
COMMENT ON COLUMN deliveries.last_status IS 'The status of the endpoint''s answer; null: no answer.';
COMMENT ON COLUMN deliveries.last_duration_ms IS 'How long it took; null: there was none.';
COMMENT ON COLUMN deliveries.ended_at IS 'When it was delivered or given up; null: pending.';

ALTER TABLE retention_cursors DROP CONSTRAINT retention_cursors_class_check;
ALTER TABLE retention_cursors ADD CONSTRAINT retention_cursors_class_check
    CHECK (class IN ('evidence', 'raw_answer', 'scores', 'callbacks', 'history', 'webhooks'));
INSERT INTO retention_cursors (class)
VALUES ('webhooks');
