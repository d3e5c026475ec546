-- What tower-idempotency has in PostgreSQL for people who look with SQL: the view `operation`, and comments on all there is.
-- It is version 2 of the schema. A store needs only version 1, which is in schema.sql.
--
-- `PostgresBackend::migrate` runs this file after that one. By hand:
--   psql -1 -v ON_ERROR_STOP=1 -c 'CREATE SCHEMA IF NOT EXISTS idempotency' -f schema.sql -f view.sql
-- It takes no lock that a store would wait for. This file is ASCII, as that one is.
--
-- The view reads the table with the rights of its owner. A role that may look at it needs:
--   GRANT USAGE ON SCHEMA idempotency TO ...;
--   GRANT SELECT ON idempotency.operation TO ...;
-- It sees the operations of all namespaces, and no answer's headers or body.

-- The operators in the view are those of the database, whatever the search path of the role is. No text has a backslash:
-- it would be another one for a role with `standard_conforming_strings` off.
SET LOCAL search_path = pg_catalog, pg_temp;

-- The number at `place` of the bytes, counted from 0, and the place after it. A number has seven bits in each byte, the lowest
-- first, and each byte but the last has its highest bit set. NULL if no number is there.
CREATE OR REPLACE FUNCTION idempotency.number_1(bytes bytea, place integer, OUT number bigint, OUT next_place integer)
LANGUAGE plpgsql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  byte integer;
BEGIN
  number := 0;
  FOR n IN 0..9 LOOP
    EXIT WHEN place + n >= length(bytes);
    byte := get_byte(bytes, place + n);
    number := number | ((byte & 127)::bigint << (7 * n));
    IF byte < 128 THEN
      next_place := place + n + 1;
      RETURN;
    END IF;
  END LOOP;
  number := NULL;
END $$;

-- What the column `state` says of an operation. All is NULL if it is of another format than 1, or its length is not what its
-- parts say. The checksum at its end is not looked at.
--
-- A place that is not known is NULL, and so is all that would follow it.
CREATE OR REPLACE FUNCTION idempotency.described_1(
  state bytea,
  OUT attempt bigint, OUT scope text, OUT label text, OUT trace_id text, OUT status bigint, OUT bytes bigint, OUT cause text)
LANGUAGE plpgsql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  -- All but the outcome, and of that its beginning, is within these: the rest of a long row is not even read.
  head bytea := substring(state FROM 1 FOR 512);
  -- Behind the version (1 byte), and of the fingerprint its version (1), and the digests of options (8), request (32) and
  -- operation (16), each behind its length (1).
  place integer := 61;
  -- A number that was read: 0 or 1 says whether an optional part is there.
  n bigint;
  -- Within an outcome.
  inner_place integer;
BEGIN
  -- With the highest bit set, a transaction of the application wrote the row.
  IF length(head) < place OR get_byte(head, 0) NOT IN (1, 129) THEN
    RETURN;
  END IF;
  -- The digest of the credentials.
  SELECT * INTO n, place FROM idempotency.number_1(head, place);
  place := place + CASE n WHEN 0 THEN 0 WHEN 1 THEN 33 END;
  -- The marks of the request's parts (10), behind their length.
  place := place + 11;
  SELECT * INTO attempt, place FROM idempotency.number_1(head, place);
  -- The origin.
  SELECT * INTO n, place FROM idempotency.number_1(head, place);
  IF n = 1 THEN
    SELECT * INTO n, place FROM idempotency.number_1(head, place);
    scope := CASE n WHEN 1 THEN encode(substring(head FROM place + 2 FOR 32), 'hex') END;
    place := place + CASE n WHEN 0 THEN 0 WHEN 1 THEN 33 END;
    SELECT * INTO n, place FROM idempotency.number_1(head, place);
    IF n = 1 THEN
      SELECT * INTO n, place FROM idempotency.number_1(head, place);
      -- A longer one would not be within the head.
      IF n BETWEEN 0 AND 200 THEN
        BEGIN
          label := convert_from(substring(head FROM place + 1 FOR n::integer), 'UTF8');
        EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
          -- The database has no letters for it.
          label := NULL;
        END;
        place := place + n::integer;
      ELSE
        place := NULL;
      END IF;
    ELSIF n <> 0 THEN
      place := NULL;
    END IF;
    SELECT * INTO n, place FROM idempotency.number_1(head, place);
    trace_id := CASE n WHEN 1 THEN encode(substring(head FROM place + 2 FOR 16), 'hex') END;
    place := place + CASE n WHEN 0 THEN 0 WHEN 1 THEN 17 END;
  ELSIF n <> 0 THEN
    place := NULL;
  END IF;
  -- The state.
  SELECT * INTO n, place FROM idempotency.number_1(head, place);
  IF n = 0 THEN
    -- Running: the policy, and for how long it is kept if it is interrupted, in seconds and nanoseconds.
    FOR skipped IN 1..3 LOOP
      SELECT * INTO n, place FROM idempotency.number_1(head, place);
    END LOOP;
  ELSIF n = 1 THEN
    -- Interrupted: the policy, the fence of the run, and the cause: the status that its client got, another number, or none.
    SELECT * INTO n, place FROM idempotency.number_1(head, place);
    SELECT * INTO n, place FROM idempotency.number_1(head, place);
    SELECT * INTO n, place FROM idempotency.number_1(head, place);
    IF n = 1 THEN
      SELECT * INTO n, place FROM idempotency.number_1(head, place);
      status := CASE WHEN n >= 100 THEN n END;
      cause := CASE WHEN n >= 100 THEN 'answered' ELSE coalesce((ARRAY['process-ended', 'panicked', 'max-run', 'lease', 'shutdown',
        'failed', 'broken', 'unsaved', 'answered'])[n::integer], 'unknown') END;
    ELSIF n = 0 THEN
      cause := 'unknown';
    ELSE
      place := NULL;
    END IF;
  ELSIF n = 2 THEN
    -- Completed: the length of the outcome, and the outcome. One of HTTP is its version, the status, the number of headers, and
    -- for each the length of its name, the name, and its value; then 0, or 1 and the trailers. What the outcome of a message's
    -- consumer says is the application's: hardly any begins like this.
    SELECT * INTO bytes, place FROM idempotency.number_1(head, place);
    IF get_byte(substring(head FROM place + 1 FOR 1) || decode('00', 'hex'), 0) = 1 THEN
      SELECT * INTO status, inner_place FROM idempotency.number_1(head, place + 1);
      SELECT * INTO n, inner_place FROM idempotency.number_1(head, inner_place);
      IF n = 0 THEN
        SELECT * INTO n, inner_place FROM idempotency.number_1(head, inner_place);
        status := CASE WHEN n IN (0, 1) THEN status END;
      ELSE
        SELECT * INTO n, inner_place FROM idempotency.number_1(head, inner_place);
        status := CASE WHEN n BETWEEN 1 AND 65535 AND encode(substring(head FROM inner_place + 1 FOR least(n, 16)::integer), 'escape')
          ~ '^[a-z0-9!#$%&''*+.^_`|~-]+$' THEN status END;
      END IF;
      status := CASE WHEN status BETWEEN 100 AND 999 THEN status END;
    END IF;
    -- An outcome that is longer than any row ends at no place.
    place := CASE WHEN bytes BETWEEN 0 AND 1073741823 THEN place + bytes::integer END;
  ELSIF n = 3 THEN
    -- Consumed: the status.
    SELECT * INTO status, place FROM idempotency.number_1(head, place);
  ELSE
    place := NULL;
  END IF;
  -- Behind it are the 8 bytes of the checksum.
  IF place + 8 IS DISTINCT FROM octet_length(state) THEN
    SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL INTO attempt, scope, label, trace_id, status, bytes, cause;
  END IF;
END $$;

-- One branch for each kind: a query for one of them leaves out the others, and finds open ones by the index `record_open`,
-- which begins with the kind.
-- `state` is looked at only for the columns that are asked for.
CREATE OR REPLACE VIEW idempotency.operation AS
SELECT o.namespace, encode(o.id, 'hex') AS id, o.kind,
  (idempotency.described_1(o.state)).label AS label,
  (idempotency.described_1(o.state)).attempt AS attempt,
  (idempotency.described_1(o.state)).status AS status,
  (idempotency.described_1(o.state)).bytes AS bytes,
  (idempotency.described_1(o.state)).cause AS cause,
  o.fence, o.began, o.since, o.until, o.expires,
  encode(o.session, 'hex') AS session,
  (idempotency.described_1(o.state)).scope AS scope,
  (idempotency.described_1(o.state)).trace_id AS trace_id
FROM (
  SELECT 'running' AS kind, r.namespace, r.id, r.fence, r.began, r.since, r.until, r.expires, r.session, r.state
    FROM idempotency.record r WHERE r.kind = 1
  UNION ALL
  SELECT 'interrupted', r.namespace, r.id, r.fence, r.began, r.since, r.until, r.expires, r.session, r.state
    FROM idempotency.record r WHERE r.kind = 2
  UNION ALL
  SELECT 'completed', r.namespace, r.id, r.fence, r.began, r.since, r.until, r.expires, r.session, r.state
    FROM idempotency.record r WHERE r.kind = 3
  UNION ALL
  SELECT 'consumed', r.namespace, r.id, r.fence, r.began, r.since, r.until, r.expires, r.session, r.state
    FROM idempotency.record r WHERE r.kind = 4
  UNION ALL
  -- Such a row names its operation where others name a session.
  SELECT 'disputed', r.namespace, r.session, r.fence, r.began, r.since, r.until, r.expires, NULL, r.state
    FROM idempotency.record r WHERE r.kind = 7
) o;

-- The schema may be another role's, or have a comment of its own.
DO $$
DECLARE
  home regnamespace := (SELECT c.relnamespace FROM pg_class c WHERE c.oid = 'idempotency.record'::regclass);
BEGIN
  IF obj_description(home, 'pg_namespace') IS NULL THEN
    EXECUTE format('COMMENT ON SCHEMA %s IS %L', home,
      'tower-idempotency: which requests were answered, and how. The view "operation" is for people.');
  END IF;
EXCEPTION WHEN insufficient_privilege THEN NULL;
END $$;

COMMENT ON TABLE idempotency.version IS 'The versions of the schema that were made here. A store needs 1; 2 adds the view "operation".';
COMMENT ON COLUMN idempotency.version.since IS 'When it was made.';
COMMENT ON TABLE idempotency.record IS 'One row for each operation, each disputed outcome and each process. Only tower-idempotency writes it. To look, use the view "operation".';
COMMENT ON COLUMN idempotency.record.namespace IS 'The service whose row it is.';
COMMENT ON COLUMN idempotency.record.id IS 'A digest of the idempotency key and its scope.';
COMMENT ON COLUMN idempotency.record.token IS 'Of the last write: another number for each.';
COMMENT ON COLUMN idempotency.record.fence IS 'Grows with each claim, question and settlement, and never repeats.';
COMMENT ON COLUMN idempotency.record.kind IS '1 running, 2 interrupted, 3 completed, 4 consumed, 5 released (no operation), 6 session (a process), 7 disputed';
COMMENT ON COLUMN idempotency.record.session IS 'The row of the process that sees to it. Of a disputed outcome: the row of its operation.';
COMMENT ON COLUMN idempotency.record.until IS 'Of a run: until when it may take. Of a session: a note. Of a done operation: when its record expires, if that is before its row.';
COMMENT ON COLUMN idempotency.record.began IS 'When the first attempt began.';
COMMENT ON COLUMN idempotency.record.since IS 'When it came to its state.';
COMMENT ON COLUMN idempotency.record.expires IS 'From then on the row counts as absent. It is deleted ten minutes later.';
COMMENT ON COLUMN idempotency.record.state IS 'The other parts of the record, with the answer: it may have personal data.';
COMMENT ON VIEW idempotency.operation IS 'Operations and disputed outcomes, for people. A row whose "expires" is over counts as absent. No headers and no body are shown.';
COMMENT ON COLUMN idempotency.operation.namespace IS 'The service whose operation it is.';
COMMENT ON COLUMN idempotency.operation.id IS 'The record id. Logs and refusals have its first eight digits.';
COMMENT ON COLUMN idempotency.operation.kind IS 'running (also if its process is gone and no other has noticed yet), interrupted, completed, consumed, or disputed: an outcome that came after its operation was taken over or settled';
COMMENT ON COLUMN idempotency.operation.label IS 'The name that the application gave it.';
COMMENT ON COLUMN idempotency.operation.attempt IS 'How often it was claimed and not released, from 1.';
COMMENT ON COLUMN idempotency.operation.status IS 'The HTTP status of the answer, or the one that the client of an interrupted run got. NULL for the outcome of a message''s consumer.';
COMMENT ON COLUMN idempotency.operation.bytes IS 'The size of the outcome: status, kept headers and body.';
COMMENT ON COLUMN idempotency.operation.cause IS 'Why it is unknown whether an interrupted operation took effect.';
COMMENT ON COLUMN idempotency.operation.fence IS 'What a settlement has to name.';
COMMENT ON COLUMN idempotency.operation.began IS 'When the first attempt began.';
COMMENT ON COLUMN idempotency.operation.since IS 'When it came to its state.';
COMMENT ON COLUMN idempotency.operation.until IS 'Of a run: until when it may take. Of a done operation: when its record expires, if that is before its row.';
COMMENT ON COLUMN idempotency.operation.expires IS 'From then on it counts as absent.';
COMMENT ON COLUMN idempotency.operation.session IS 'The process that sees to it: the id of a row of kind 6.';
COMMENT ON COLUMN idempotency.operation.scope IS 'The digest of the scope that its key belongs to.';
COMMENT ON COLUMN idempotency.operation.trace_id IS 'The trace id of its first run.';
COMMENT ON FUNCTION idempotency.fence_1 IS 'Gives a fence.';
COMMENT ON FUNCTION idempotency.put_1 IS 'Compares and sets several rows.';
COMMENT ON FUNCTION idempotency.put_one_1 IS 'Compares and sets one row.';
COMMENT ON FUNCTION idempotency.record_run_1 IS 'Completes a run in a transaction of the application.';
COMMENT ON FUNCTION idempotency.delete_expired_1 IS 'Deletes rows long past their expiry, of one namespace.';
COMMENT ON FUNCTION idempotency.number_1 IS 'Reads a number of the column "state", for the view "operation".';
COMMENT ON FUNCTION idempotency.described_1 IS 'Reads the column "state", for the view "operation". All is NULL if it is not understood.';

INSERT INTO idempotency.version (version) VALUES (2) ON CONFLICT DO NOTHING;
