-- Names for what several statements say. All are inlined, so plans are those of the words behind them.

-- Equal to the expression of the index collect_jobs_in_order, which serves what is written with it.
CREATE FUNCTION lane_place(lane smallint, hinted_at timestamptz, due_at timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN lane IN (0, 2) THEN coalesce(hinted_at, TIMESTAMPTZ '9999-12-31 00:00:00+00')
        ELSE due_at
    END
$$;
COMMENT ON FUNCTION lane_place IS 'By what a job stands in its lane: the lanes of videos and retries go by the deadline, which is so long after hinted_at; the others by due_at.';

CREATE FUNCTION first_due(of_account text) RETURNS TABLE (due_at timestamptz)
LANGUAGE sql STABLE ROWS 1
AS $$
    SELECT min(c.due_at)
    FROM (
        SELECT (
            SELECT j.due_at
            FROM collect_jobs j
            WHERE j.account = of_account COLLATE "C"
            AND j.lane IN (0, 2)
            AND j.lease_token IS NULL
            ORDER BY j.due_at
            LIMIT 1
        ) AS due_at
        UNION ALL
        SELECT (
            SELECT j.due_at
            FROM collect_jobs j
            WHERE j.account = of_account COLLATE "C"
            AND j.lane = lanes.lane
            AND j.lease_token IS NULL
            -- Of these lanes that is due_at.
            ORDER BY lane_place(j.lane, j.hinted_at, j.due_at)
            LIMIT 1
        )
        FROM unnest(ARRAY[1, 3]::smallint[]) AS lanes (lane)
    ) c
$$;
COMMENT ON FUNCTION first_due IS 'When the first job of an account is due, leased ones aside; NULL: there is none. One short look at each lane.';

CREATE VIEW pending_videos AS
-- In two parts, because each has its index.
SELECT account, verification_id, deadline
FROM evidence
WHERE kind = 'video'
AND state = 'pending'
AND lease_token IS NULL
UNION ALL
SELECT account, verification_id, deadline
FROM evidence
WHERE kind = 'video'
AND state = 'pending'
AND lease_token IS NOT NULL;
COMMENT ON VIEW pending_videos IS 'Videos of verifications with a verdict that are not captured yet.';
COMMENT ON COLUMN pending_videos.account IS 'The account.';
COMMENT ON COLUMN pending_videos.verification_id IS 'The verification.';
COMMENT ON COLUMN pending_videos.deadline IS 'When the provider deletes it.';
