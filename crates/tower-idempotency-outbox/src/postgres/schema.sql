-- An outbox of HTTP calls. The table `call` has a row for each, and the function `put` is what applications call.

CREATE TABLE IF NOT EXISTS outbox.call (
    -- The order in which calls were stored.
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- {"key", "method", "uri", "headers": [["name", "value"]], "body": base64, "partition_key"?}
    request jsonb NOT NULL,
    key text NOT NULL GENERATED ALWAYS AS (request ->> 'key') STORED UNIQUE,
    partition_key text COLLATE "C" GENERATED ALWAYS AS (request ->> 'partition_key') STORED
        CHECK (partition_key <> ''),
    -- Scheme, host and port, without a default port, and without a password that a program may have put before the host.
    destination text COLLATE "C" NOT NULL GENERATED ALWAYS AS (regexp_replace(regexp_replace(
        lower(coalesce(substring(request ->> 'uri' FROM '^[^:/]+://[^/?#]*'), '') COLLATE "C"),
        '^([^:/]+://).*@', E'\\1'), '^(http:.*):80$|^(https:.*):443$', E'\\1\\2')) STORED,
    -- What a relay reads of it, in bytes.
    size integer NOT NULL GENERATED ALWAYS AS (octet_length(request::text)) STORED
        CONSTRAINT call_is_too_large CHECK (size <= 16777216),
    stored timestamptz NOT NULL DEFAULT statement_timestamp(),
    state text NOT NULL DEFAULT 'waiting'
        CHECK (state IN ('waiting', 'sending', 'delivered', 'refused', 'given_up', 'damaged')),
    -- Each call and each lease draws one at random, each other change takes the next one, and all compare the last one.
    fence bigint NOT NULL DEFAULT (random() * 4e18)::bigint,
    tries integer NOT NULL DEFAULT 0,
    -- When the first of these tries began, by the database, by the relay's wall clock, and by the time that relays had
    -- seen go by; and by the monotonic clock of the process that made it, in seconds.
    first_try timestamptz,
    first_wall timestamptz,
    first_seen timestamptz,
    first_process bigint,
    first_elapsed double precision,
    -- While the call is sent, when the relay's lease began, by the database and by the relay's wall clock.
    leased timestamptz,
    leased_wall timestamptz,
    -- The next try; while the call is sent, the end of the relay's lease, by the database.
    due timestamptz NOT NULL DEFAULT statement_timestamp(),
    may_have_taken_place boolean NOT NULL DEFAULT false,
    ended timestamptz,
    reason text,
    -- {"status", "headers", "body": base64, "is_cut"}
    answer jsonb
) USING heap;

-- For relays: the calls to each destination that have no order, by the time when they are due, and the first one of each
-- partition key.
CREATE INDEX IF NOT EXISTS call_due ON outbox.call (destination, due, position)
    WHERE partition_key IS NULL AND state IN ('waiting', 'sending');
CREATE INDEX IF NOT EXISTS call_in_order ON outbox.call (partition_key, position)
    WHERE state IN ('waiting', 'sending', 'given_up', 'damaged');
-- For times that are too far ahead.
CREATE INDEX IF NOT EXISTS call_late ON outbox.call (due) WHERE state IN ('waiting', 'sending');
CREATE INDEX IF NOT EXISTS call_listed ON outbox.call (state, position);
CREATE INDEX IF NOT EXISTS call_ended ON outbox.call (ended) WHERE ended IS NOT NULL;

-- The time that the relays have seen go by: it stops while there are none, and never runs ahead.
CREATE TABLE IF NOT EXISTS outbox.clock (single boolean PRIMARY KEY DEFAULT true CHECK (single), time timestamptz NOT NULL)
    USING heap;

-- Puts a call in. One that is there already is not put in again; another one with the same key is an error.
-- Names are those of the database, whatever the search path of the application is.
CREATE OR REPLACE FUNCTION outbox.put(new_request text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    there jsonb;
BEGIN
    FOR round IN 1..10 LOOP
        INSERT INTO outbox.call (request) VALUES (new_request::jsonb) ON CONFLICT (key) DO NOTHING;
        IF FOUND THEN
            RETURN;
        END IF;
        SELECT request INTO there FROM outbox.call WHERE key = new_request::jsonb ->> 'key';
        -- A relay may have deleted it meanwhile.
        IF FOUND AND there = new_request::jsonb THEN
            RETURN;
        ELSIF FOUND THEN
            RAISE EXCEPTION 'the outbox has another call with this key'
                USING ERRCODE = 'TI003', HINT = 'Use a new key for a new operation.';
        END IF;
    END LOOP;
    -- For instance because a trigger or a policy keeps it away.
    RAISE EXCEPTION 'the outbox has not taken a call, and has none with its key';
END $$;
