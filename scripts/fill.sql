-- Fills a migrated, empty database with finished verifications, every thousandth of them open, so that the cost of
-- leasing and listing can be looked at:
--   psql -v finished=10000000 -f scripts/fill.sql DATABASE
-- `-v open_every=10000` leaves fewer open (8 or more). However many there are, they were registered in the last 29 days,
-- so that databases of two sizes have the same work open.
\set ON_ERROR_STOP on
\if :{?open_every}
\else
\set open_every 1000
\endif
SET synchronous_commit = off;

INSERT INTO accounts (account) VALUES ('alibaba-sg'), ('alibaba-hk') ON CONFLICT DO NOTHING;

CREATE TEMP TABLE filled AS
SELECT n,
    (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint
            - ((:finished - n) * 2505600000.0 / :finished)::bigint), 12, '0')
        || '7000a000' || lpad(to_hex(n), 12, '0'))::uuid AS verification_id,
    CASE WHEN n % 10 = 0 THEN 'alibaba-hk' ELSE 'alibaba-sg' END AS account,
    now() - make_interval(secs => ((:finished - n) * 2505600.0 / :finished)::double precision) AS at,
    n % :open_every = 7 AS open
FROM generate_series(1::bigint, :finished) AS n;

INSERT INTO verifications (verification_id, account, transaction_id, merchant_biz_id, product, expect_video, metadata,
    registered_at)
SELECT verification_id, account, 'hksb7ba1b28130d24e' || lpad(n::text, 14, '0'), 'biz' || n, 'FACE_LIVENESS', false,
    '{"order":"A-17"}', at
FROM filled;

INSERT INTO verdicts (verification_id, revision, account, status, sub_code, reason, scores, signals, answer, decided_at,
    callback_at, hinted_at, checks)
SELECT verification_id, 1, account,
    CASE WHEN n % 100000 = 1 THEN 'expired' WHEN n % 12 = 1 THEN 'failed' ELSE 'passed' END, '200',
    'Authentication passed.', '{"face_comparison":99.99}', '{"face_passed":true}', '{"Code":"Success"}', at, at, at, 1
FROM filled
WHERE NOT open;

INSERT INTO collect_jobs (verification_id, account, lane, due_at)
SELECT verification_id, account, CASE WHEN n / :open_every % 3 = 0 THEN 2 ELSE 3 END,
    now() + make_interval(secs => (n / :open_every % 3600)::double precision - 60)
FROM filled
WHERE open;

DROP TABLE filled;
ANALYZE;
