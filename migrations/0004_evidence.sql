-- Evidence: what there is of each verification's images and video, and who captures it.

CREATE TABLE evidence (
    verification_id uuid NOT NULL,
    kind            text COLLATE "C" NOT NULL
        CHECK (kind IN ('face_image', 'reference_image', 'id_front_image', 'id_back_image', 'video')),
    account         text COLLATE "C" NOT NULL,
    state           text COLLATE "C" NOT NULL CHECK (state IN ('pending', 'stored', 'absent', 'missed', 'erased')),
    noted_at        timestamptz NOT NULL,
    deadline        timestamptz NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    due_at          timestamptz NOT NULL,
    reason          text,
    lease_token     uuid,
    leased_until    timestamptz,
    stored_at       timestamptz,
    object          text COLLATE "C",
    content_type    text COLLATE "C",
    bytes           bigint CHECK (bytes > 0),
    sha256          bytea CHECK (octet_length(sha256) = 32),
    sealed          boolean,
    PRIMARY KEY (verification_id, kind),
    CHECK ((lease_token IS NULL) = (leased_until IS NULL)),
    -- Nothing is stored before it is complete and hashed.
    CHECK (state <> 'stored' OR (stored_at IS NOT NULL AND object IS NOT NULL AND content_type IS NOT NULL
        AND bytes IS NOT NULL AND sha256 IS NOT NULL AND sealed IS NOT NULL))
) WITH (fillfactor = 80);
-- What the provider is to be asked for again.
CREATE INDEX evidence_due ON evidence (due_at) WHERE state = 'pending' AND lease_token IS NULL;
-- What nobody can have any more.
CREATE INDEX evidence_deadline ON evidence (deadline) WHERE state = 'pending' AND lease_token IS NULL;
-- Captures whose worker may have died.
CREATE INDEX evidence_leased ON evidence (leased_until) WHERE lease_token IS NOT NULL;
COMMENT ON TABLE evidence IS 'Images and videos of verifications, one row for each kind that an answer named or should have named. The bytes are in the evidence store; links are nowhere.';
COMMENT ON COLUMN evidence.verification_id IS 'The verification.';
COMMENT ON COLUMN evidence.kind IS 'face_image, reference_image, id_front_image, id_back_image or video.';
COMMENT ON COLUMN evidence.account IS 'Its account, copied because the object''s name begins with it.';
COMMENT ON COLUMN evidence.state IS 'pending: being captured, or to be asked for again; stored; absent: the provider had none; missed: it had one that could not be kept; erased.';
COMMENT ON COLUMN evidence.noted_at IS 'When an answer first named it, or did not although it should have.';
COMMENT ON COLUMN evidence.deadline IS 'When the provider deletes it; nothing is asked for after that.';
COMMENT ON COLUMN evidence.attempts IS 'How often the provider was asked for it.';
COMMENT ON COLUMN evidence.due_at IS 'While pending and nobody captures it: when the provider is to be asked again, if no check is under way then.';
COMMENT ON COLUMN evidence.reason IS 'Why it is absent or missed; while pending, what the last attempt ended with; null: nothing went wrong.';
COMMENT ON COLUMN evidence.lease_token IS 'Names the capture under way; every write of a worker carries it, and so does the name of its object. Whoever erases leaves it in place: the worker, or whoever finds it dead, destroys what it still brings. Null: no capture.';
COMMENT ON COLUMN evidence.leased_until IS 'When the lease runs out, by the clock of the database; null: not leased.';
COMMENT ON COLUMN evidence.stored_at IS 'When it was stored; null: it was not.';
COMMENT ON COLUMN evidence.object IS 'Its name in the evidence store; null: not stored.';
COMMENT ON COLUMN evidence.content_type IS 'What its first bytes say it is; null: not stored.';
COMMENT ON COLUMN evidence.bytes IS 'Its length, not encrypted; null: not stored.';
COMMENT ON COLUMN evidence.sha256 IS 'Its hash, not encrypted; null: not stored.';
COMMENT ON COLUMN evidence.sealed IS 'It is stored encrypted; null: not stored.';
