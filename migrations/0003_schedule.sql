-- What is asked for next: the clock that leases and slots are read from, and how an account's calls are paced.

-- One function, so that a test can replace it and move the database's time. The planner puts its body in place of the
-- call, so it costs nothing.
CREATE FUNCTION database_now() RETURNS timestamptz
    LANGUAGE sql VOLATILE PARALLEL RESTRICTED
    AS 'SELECT clock_timestamp()';
COMMENT ON FUNCTION database_now() IS 'The clock of leases and slots: the time of the database.';
