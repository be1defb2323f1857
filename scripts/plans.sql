-- The plans behind the statements that lease and list, on a database filled by scripts/fill.sql:
--   psql -f scripts/plans.sql DATABASE
\set QUIET on
\pset format unaligned
\pset tuples_only on
\echo == lease_due: candidates
EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF)
SELECT c.verification_id
    FROM (VALUES
        (0::smallint, now() - interval '30 minutes', TIMESTAMPTZ '9999-12-31 00:00:00+00'),
        (1::smallint, TIMESTAMPTZ 'epoch', now()),
        (2::smallint, TIMESTAMPTZ 'epoch', TIMESTAMPTZ '9999-12-31 00:00:00+00'),
        (3::smallint, TIMESTAMPTZ 'epoch', now())) AS lanes (lane, after, until)
CROSS JOIN LATERAL (SELECT j.verification_id, j.lane, lane_place(j.lane, j.hinted_at, j.due_at) AS place
    FROM collect_jobs j
    WHERE j.account = 'alibaba-sg'
    AND j.lane=lanes.lane
    AND j.lease_token IS NULL
    AND j.due_at <= now()
    AND lane_place(j.lane, j.hinted_at, j.due_at) > lanes.after
    AND lane_place(j.lane, j.hinted_at, j.due_at) <= lanes.until
    ORDER BY lane_place(j.lane, j.hinted_at, j.due_at)
    LIMIT 11) c
    ORDER BY c.lane, c.place
    LIMIT 11;
\echo == next_due
EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF)
SELECT due_at FROM first_due('alibaba-sg');
\echo == sort_lanes: what is in the wrong lane
EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF)
SELECT w.verification_id
    FROM (VALUES (0::smallint, now() - interval '30 minutes'), (1::smallint, now() - interval '1 minute'))
        AS lanes (lane, until)
CROSS JOIN LATERAL (SELECT j.verification_id
    FROM collect_jobs j
    WHERE j.account = 'alibaba-sg'
    AND j.lane=lanes.lane
    AND j.lease_token IS NULL
    AND lane_place(j.lane, j.hinted_at, j.due_at) <= lanes.until
    ORDER BY lane_place(j.lane, j.hinted_at, j.due_at)
    LIMIT 500) w;
\echo == list: newest
EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF)
SELECT c.verification_id
    FROM accounts a
    CROSS JOIN LATERAL (SELECT v.verification_id
    FROM verifications v
    WHERE v.account=a.account
    AND v.verification_id >= '00000000-0000-0000-0000-000000000000'
    AND v.verification_id < 'ffffffff-ffff-ffff-ffff-ffffffffffff'
    ORDER BY v.verification_id DESC
    LIMIT 51) c
    ORDER BY 1 DESC
    LIMIT 51;
\echo == list: by final status (rare)
EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF)
SELECT c.verification_id
    FROM accounts a
    CROSS JOIN LATERAL (SELECT d.verification_id
    FROM verdicts d
    WHERE d.account=a.account
    AND d.status='expired'
    AND d.superseded_at IS NULL
    AND d.verification_id >= '00000000-0000-0000-0000-000000000000'
    AND d.verification_id < 'ffffffff-ffff-ffff-ffff-ffffffffffff'
    ORDER BY d.verification_id DESC
    LIMIT 51) c
    ORDER BY 1 DESC
    LIMIT 51;
\echo == list: by open status
EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF)
SELECT j.verification_id
    FROM collect_jobs j
    WHERE NOT j.recheck
    AND j.verification_id >= '00000000-0000-0000-0000-000000000000'
    AND j.verification_id < 'ffffffff-ffff-ffff-ffff-ffffffffffff'
    AND false = (j.hinted_at IS NOT NULL OR j.callback_at IS NOT NULL OR EXISTS (SELECT
    FROM hints h
    WHERE h.verification_id=j.verification_id))
    ORDER BY j.verification_id DESC
    LIMIT 51;
\echo == list: at risk
EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF)
SELECT j.verification_id, coalesce(j.hinted_at, v.registered_at + interval '24 h') + interval '30 min' AS deadline
    FROM unnest(ARRAY['alibaba-sg', 'alibaba-hk']) AS w (account)
    JOIN collect_jobs j ON j.account = w.account
    CROSS JOIN LATERAL (SELECT registered_at, expect_video
    FROM verifications
    WHERE verifications.verification_id = j.verification_id
    LIMIT 1) v
    WHERE NOT j.recheck
    AND CASE WHEN j.hinted_at IS NULL THEN j.verification_id < (lpad(to_hex((extract(epoch FROM now()
        - interval '24 h 15 min') * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid ELSE j.hinted_at <= now() - interval '15 min' END
    AND v.expect_video
    ORDER BY 2, 1
    LIMIT 51;
\echo == list: by transaction, list: by merchant biz id
EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF)
SELECT verification_id
    FROM verification_records
    WHERE transaction_id = 'hksb7ba1b28130d24e00000000500000'
    AND account IN (SELECT account
    FROM accounts)
    ORDER BY 1 DESC
    LIMIT 51;
EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF)
SELECT verification_id
    FROM verification_records
    WHERE merchant_biz_id = 'biz500000'
    ORDER BY 1 DESC
    LIMIT 51;
\echo == records
EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF)
SELECT *
    FROM verification_records
    WHERE verification_id = ANY(ARRAY(SELECT verification_id
    FROM verifications
    ORDER BY verification_id DESC
    LIMIT 51))
    ORDER BY verification_id DESC;
