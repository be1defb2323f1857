-- The order of the current verdict's look-up is that of the key. Without it a plan that was made before there were any
-- verdicts read all of another index for each.

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
    ORDER BY revision DESC
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
