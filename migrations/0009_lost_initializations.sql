-- Calls of Initialize whose answer was lost, for people to find.
--
-- The table holds 30 days of calls and this index hardly any of them, so building it takes no longer than a second.

CREATE INDEX initializations_lost ON initializations (started_at) WHERE state = 'lost';

COMMENT ON COLUMN service_secrets.name IS 'What it is for: return_state signs the state of browsers on their way back, console_session the sessions of the console.';
