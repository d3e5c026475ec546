-- What a shared store of tower-idempotency has in PostgreSQL, 13 or later.
--
-- `PostgresBackend::migrate` runs this file, if what is there is older, and then view.sql. By hand:
--   psql -1 -v ON_ERROR_STOP=1 -c 'CREATE SCHEMA IF NOT EXISTS idempotency' -f schema.sql -f view.sql
-- To use another schema than `idempotency`, replace `idempotency.` everywhere by its name and a dot, and create that one.
--
-- This file is ASCII: a database of any encoding takes it.
--
-- A role that the store runs as needs:
--   GRANT USAGE ON SCHEMA idempotency TO ...;
--   GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency.record TO ...;
--   GRANT SELECT ON idempotency.version TO ...;
--   GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA idempotency TO ...; (which every role has unless it was revoked)

-- Names are those of the database, whatever the search path of the role is.
SET LOCAL search_path = pg_catalog, pg_temp;

CREATE TABLE IF NOT EXISTS idempotency.version (
  version integer PRIMARY KEY,
  since timestamptz NOT NULL DEFAULT clock_timestamp()
) USING heap;

-- All times are whole milliseconds. An id and a session have 32 bytes each. A constraint that says so would be parsed and
-- compiled for each statement that writes, which is a tenth of what the statement costs; every store writes that length.
--
-- `USING heap`: functions and queries read `xmin` and `ctid`, and a role may have another method by default.
CREATE TABLE IF NOT EXISTS idempotency.record (
  namespace text COLLATE "C" NOT NULL,
  id bytea NOT NULL,
  -- Of the last write.
  token uuid NOT NULL,
  fence bigint NOT NULL,
  -- 1 running, 2 interrupted, 3 completed, 4 consumed, 5 released, 6 session, 7 disputed
  kind smallint NOT NULL,
  -- The row of the process that sees to it.
  session bytea,
  -- Of a run: until when it may take. Of a session: a note for people.
  until timestamptz,
  began timestamptz NOT NULL,
  since timestamptz NOT NULL,
  -- From then on the row counts as absent. It is deleted ten minutes later, and never before.
  expires timestamptz NOT NULL,
  state bytea NOT NULL,
  PRIMARY KEY (namespace, id)
) USING heap WITH (fillfactor = 80);

-- No query but those for lists and sessions has a condition on `kind` by itself. That for sessions has no other condition
-- that fits an index.
CREATE INDEX IF NOT EXISTS record_open ON idempotency.record (kind, namespace, began, id) WHERE kind IN (1, 2, 6, 7);
-- By another collation than the column's, so that no search for a row by namespace and id can use it: among a few rows it
-- looks as cheap as the primary key, and the plan is kept when there are many. Both collations are that of the bytes. An
-- expression would do the same, but is compiled for each statement that writes.
CREATE INDEX IF NOT EXISTS record_expires ON idempotency.record (namespace COLLATE pg_catalog."POSIX", expires);

-- No decision rests on the clock of the database alone. `earliest` and `latest` are the clocks of the process that calls:
-- a row is judged by the earlier of `earliest` and the database's clock, and `until`, `expires` and fences count from the
-- later of `latest` and the database's clock. `began` is the earlier one: an effect of the operation never looks earlier
-- than that. `since` and the time of an answer are the database's. A write that comes again, whose token the row has
-- already, lowers neither `until` nor `expires`: these clocks may have been set back since its first copy was answered.

-- A fence: microseconds since 1970, or more.
CREATE OR REPLACE FUNCTION idempotency.fence_1(at_least bigint, latest timestamptz)
RETURNS bigint LANGUAGE sql VOLATILE AS $$
  SELECT greatest((extract(epoch FROM greatest(clock_timestamp(), latest)) * 1000000)::bigint, at_least)
$$;

-- Several writes: each is done, or its row left alone. Returns the rows as they are then, in the order of `ids`.
--
-- Each statement has a snapshot of its own: what has made one of them do nothing is seen by the next. A write that is not
-- done locks nothing and takes no transaction id.
--
-- Each row is found by its primary key, whatever the planner believes of a table that was small a moment ago: namespace
-- and id come out of a materialized list, or are given to a subquery that stays one (hence OFFSET 0); no other condition
-- fits an index (hence IS TRUE); and there are no sequential scans.
--
-- What others have made in the schemas of the role's search path is not used: an operator there that takes exactly these
-- types would be preferred to one of the database that converts them.
CREATE OR REPLACE FUNCTION idempotency.put_1(
  in_namespace text, ids bytea[], expects uuid[], tokens uuid[], exactly bigint[], above bigint[], kinds smallint[],
  sessions bytea[], untils bigint[], began_now boolean[], since_now boolean[], expiries bigint[], states bytea[],
  earliest timestamptz, latest timestamptz)
RETURNS TABLE (
  now timestamptz, server timestamptz, id bytea, token uuid, fence bigint, kind smallint, session bytea,
  until timestamptz, began timestamptz, since timestamptz, expires timestamptz, state bytea)
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '1s' SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  fresh bytea[] := '{}';
  t timestamptz;
  -- By which rows are judged, and from which durations count.
  judged timestamptz;
  counted timestamptz;
BEGIN
  -- A role may have commits that are answered before they are durable; a put never has.
  IF current_setting('synchronous_commit') IN ('off', 'local') THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;
  -- The server says by a warning that it did not wait for its standbys.
  IF current_setting('client_min_messages') = 'error' THEN
    PERFORM set_config('client_min_messages', 'warning', true);
  END IF;
  -- Under another isolation the statements would share one snapshot.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'the transaction is %, and must be read committed', current_setting('transaction_isolation')
      USING ERRCODE = 'feature_not_supported';
  END IF;
  IF array_position(expects, NULL) IS NOT NULL THEN
    t := date_trunc('milliseconds', clock_timestamp());
    counted := greatest(t, latest);
    WITH w AS (
      SELECT * FROM unnest(ids, expects, tokens, exactly, above, kinds, sessions, untils, expiries, states)
        AS w(id, expect, token, exactly, above, kind, session, until, expiry, state)
      WHERE w.expect IS NULL),
    i AS (
      INSERT INTO idempotency.record AS r
        (namespace, id, token, fence, kind, session, until, began, since, expires, state)
      SELECT in_namespace, w.id, w.token,
        coalesce(w.exactly, idempotency.fence_1(coalesce(w.above, 0) + 1, latest)),
        w.kind, w.session, counted + w.until * interval '1 ms', least(t, earliest), t, counted + w.expiry * interval '1 ms', w.state
      FROM w
      -- If there is a row, an insert would wait for the transaction that is about to write it.
      WHERE NOT EXISTS (
        SELECT FROM idempotency.record r WHERE r.namespace = in_namespace AND r.id = w.id OFFSET 0)
      ORDER BY w.id
      ON CONFLICT (namespace, id) DO NOTHING RETURNING r.id)
    SELECT coalesce(array_agg(i.id), '{}') INTO fresh FROM i;
  END IF;
  IF cardinality(fresh) < cardinality(ids) THEN
    t := date_trunc('milliseconds', clock_timestamp());
    judged := least(t, earliest);
    counted := greatest(t, latest);
    WITH w AS MATERIALIZED (
      SELECT in_namespace AS namespace, w.*
      FROM unnest(ids, expects, tokens, exactly, above, kinds, sessions, untils, began_now, since_now, expiries, states)
        AS w(id, expect, token, exactly, above, kind, session, until, began_now, since_now, expiry, state)
      WHERE w.id <> ALL (fresh)),
    l AS MATERIALIZED (
      SELECT r.namespace, r.id FROM w JOIN idempotency.record r ON r.namespace = w.namespace AND r.id = w.id
      WHERE CASE WHEN r.expires > judged THEN r.token = w.expect OR r.token = w.token ELSE w.expect IS NULL END
      ORDER BY r.id FOR NO KEY UPDATE OF r SKIP LOCKED)
    UPDATE idempotency.record r SET
      token = w.token,
      fence = CASE WHEN r.expires > judged AND r.token = w.token THEN r.fence
                   WHEN w.exactly IS NOT NULL THEN greatest(w.exactly, r.fence)
                   WHEN w.above IS NULL AND r.expires > judged THEN r.fence
                   ELSE idempotency.fence_1(greatest(r.fence, w.above) + 1, latest) END,
      kind = w.kind,
      session = w.session,
      until = greatest(counted + w.until * interval '1 ms',
        CASE WHEN r.expires > judged AND r.token = w.token THEN r.until END),
      began = CASE WHEN r.expires <= judged OR w.began_now AND r.token <> w.token THEN judged ELSE r.began END,
      since = CASE WHEN r.expires <= judged OR w.since_now AND r.token <> w.token THEN t ELSE r.since END,
      expires = coalesce(
        greatest(counted + w.expiry * interval '1 ms',
          CASE WHEN r.expires > judged AND r.token = w.token THEN r.expires END),
        r.expires),
      state = w.state
    FROM l JOIN w ON w.id = l.id WHERE r.namespace = l.namespace AND r.id = l.id;
  END IF;
  t := date_trunc('milliseconds', clock_timestamp());
  judged := least(t, earliest);
  RETURN QUERY
    WITH w AS MATERIALIZED (SELECT in_namespace AS namespace, w.* FROM unnest(ids) WITH ORDINALITY AS w(id, n))
    SELECT t, pg_postmaster_start_time(), r.id, r.token, r.fence, r.kind, r.session,
      r.until, r.began, r.since, r.expires, r.state
    FROM w
    LEFT JOIN idempotency.record r ON r.namespace = w.namespace AND r.id = w.id AND (r.expires > judged) IS TRUE
    ORDER BY w.n;
END $$;

-- One write, in half of the time that `put_1` takes for it.
CREATE OR REPLACE FUNCTION idempotency.put_one_1(
  in_namespace text, in_id bytea, expect uuid, in_token uuid, exactly bigint, above bigint, in_kind smallint,
  in_session bytea, until_in bigint, began_now boolean, since_now boolean, expires_in bigint, in_state bytea,
  earliest timestamptz, latest timestamptz,
  OUT now timestamptz, OUT server timestamptz, OUT id bytea, OUT token uuid, OUT fence bigint, OUT kind smallint,
  OUT session bytea, OUT until timestamptz, OUT began timestamptz, OUT since timestamptz,
  OUT expires timestamptz, OUT state bytea)
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '1s' SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  t timestamptz := date_trunc('milliseconds', clock_timestamp());
  judged timestamptz;
  counted timestamptz := greatest(t, latest);
BEGIN
  -- A role may have commits that are answered before they are durable; a put never has.
  IF current_setting('synchronous_commit') IN ('off', 'local') THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;
  -- The server says by a warning that it did not wait for its standbys.
  IF current_setting('client_min_messages') = 'error' THEN
    PERFORM set_config('client_min_messages', 'warning', true);
  END IF;
  -- Under another isolation the statements would share one snapshot.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'the transaction is %, and must be read committed', current_setting('transaction_isolation')
      USING ERRCODE = 'feature_not_supported';
  END IF;
  IF expect IS NULL THEN
    INSERT INTO idempotency.record AS r
      (namespace, id, token, fence, kind, session, until, began, since, expires, state)
    SELECT in_namespace, in_id, in_token, coalesce(exactly, idempotency.fence_1(coalesce(above, 0) + 1, latest)), in_kind, in_session,
      counted + until_in * interval '1 ms', least(t, earliest), t, counted + expires_in * interval '1 ms', in_state
    -- If there is a row, an insert would wait for the transaction that is about to write it.
    WHERE NOT EXISTS (SELECT FROM idempotency.record r WHERE r.namespace = in_namespace AND r.id = in_id)
    ON CONFLICT (namespace, id) DO NOTHING
    RETURNING r.id, r.token, r.fence, r.kind, r.session, r.until, r.began, r.since, r.expires, r.state
      INTO id, token, fence, kind, session, until, began, since, expires, state;
  END IF;
  IF id IS NULL THEN
    t := date_trunc('milliseconds', clock_timestamp());
    judged := least(t, earliest);
    counted := greatest(t, latest);
    PERFORM FROM idempotency.record r
      WHERE r.namespace = in_namespace AND r.id = in_id
        AND CASE WHEN r.expires > judged THEN r.token = expect OR r.token = in_token ELSE expect IS NULL END
      FOR NO KEY UPDATE SKIP LOCKED;
    IF FOUND THEN
      UPDATE idempotency.record r SET
        token = in_token,
        fence = CASE WHEN r.expires > judged AND r.token = in_token THEN r.fence
                     WHEN exactly IS NOT NULL THEN greatest(exactly, r.fence)
                     WHEN above IS NULL AND r.expires > judged THEN r.fence
                     ELSE idempotency.fence_1(greatest(r.fence, above) + 1, latest) END,
        kind = in_kind,
        session = in_session,
        until = greatest(counted + until_in * interval '1 ms',
          CASE WHEN r.expires > judged AND r.token = in_token THEN r.until END),
        began = CASE WHEN r.expires <= judged OR began_now AND r.token <> in_token THEN judged ELSE r.began END,
        since = CASE WHEN r.expires <= judged OR since_now AND r.token <> in_token THEN t ELSE r.since END,
        expires = coalesce(
          greatest(counted + expires_in * interval '1 ms',
            CASE WHEN r.expires > judged AND r.token = in_token THEN r.expires END),
          r.expires),
        state = in_state
      WHERE r.namespace = in_namespace AND r.id = in_id
      RETURNING r.id, r.token, r.fence, r.kind, r.session, r.until, r.began, r.since, r.expires, r.state
        INTO id, token, fence, kind, session, until, began, since, expires, state;
    ELSE
      t := date_trunc('milliseconds', clock_timestamp());
      judged := least(t, earliest);
      SELECT r.id, r.token, r.fence, r.kind, r.session, r.until, r.began, r.since, r.expires, r.state
        INTO id, token, fence, kind, session, until, began, since, expires, state
        FROM idempotency.record r
        WHERE r.namespace = in_namespace AND r.id = in_id AND (r.expires > judged) IS TRUE;
    END IF;
  END IF;
  now := t;
  server := pg_postmaster_start_time();
END $$;

-- Completes a run in a transaction of the application, which commits its effect and the record of its outcome together.
-- Fails with TI001 if the operation is not the run's any more, and with TI002 within a savepoint or an EXCEPTION block.
-- The whole transaction has to be rolled back then.
--
-- The row tells the two apart: it carries the id of the (sub)transaction that wrote it. This function must have no
-- EXCEPTION block of its own, which would be such a subtransaction.
--
-- `record`: the run's fence (8 bytes), for how many milliseconds it is kept (8), the latest clock of its process in
-- milliseconds since 1970 (8), its token (16), its id (32), the length
-- of the namespace (4), the namespace in UTF-8, the state. Numbers have their highest byte first.
CREATE OR REPLACE FUNCTION idempotency.record_run_1(record bytea) RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  t timestamptz := date_trunc('milliseconds', clock_timestamp());
  run_fence bigint := ('x' || encode(substring(record FROM 1 FOR 8), 'hex'))::bit(64)::bigint;
  kept bigint := ('x' || encode(substring(record FROM 9 FOR 8), 'hex'))::bit(64)::bigint;
  latest bigint := ('x' || encode(substring(record FROM 17 FOR 8), 'hex'))::bit(64)::bigint;
  counted timestamptz := greatest(t, to_timestamp(0) + latest * interval '1 ms');
  new_token uuid := encode(substring(record FROM 25 FOR 16), 'hex')::uuid;
  run_id bytea := substring(record FROM 41 FOR 32);
  name_length integer := ('x' || encode(substring(record FROM 73 FOR 4), 'hex'))::bit(32)::integer;
  run_namespace text := convert_from(substring(record FROM 77 FOR name_length), 'UTF8');
  written_by xid;
BEGIN
  -- The commit must not be answered before it is durable.
  IF current_setting('synchronous_commit') IN ('off', 'local') THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;
  UPDATE idempotency.record r
    SET token = new_token, kind = 3, session = NULL, until = NULL, since = t, expires = counted + kept * interval '1 ms',
      state = substring(record FROM 77 + name_length)
    WHERE r.namespace = run_namespace AND r.id = run_id AND r.fence = run_fence
      -- So that no index but the primary key fits. Whether the row has expired does not matter: with this fence, it has
      -- not been claimed again.
      AND r.kind + 0 = 1
    RETURNING r.xmin INTO written_by;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the operation is not this run''s any more: it was taken over, settled, or completed already'
      USING ERRCODE = 'TI001', HINT = 'Roll the whole transaction back. Nothing of it may take effect.';
  END IF;
  -- Both are the low 32 bits of an id, and of the same transaction if they are equal.
  IF written_by <> pg_current_xact_id()::xid THEN
    RAISE EXCEPTION 'called within a savepoint or an EXCEPTION block: rolling back to it would keep effects without their record'
      USING ERRCODE = 'TI002', HINT = 'Call it in the outermost transaction, and roll that back now.';
  END IF;
END $$;

-- Deletes rows that have been past their expiry for `grace` milliseconds. Such a deletion may be lost in a crash.
CREATE OR REPLACE FUNCTION idempotency.delete_expired_1(
  in_namespace text, grace bigint, most bigint, earliest timestamptz DEFAULT 'infinity')
RETURNS bigint LANGUAGE plpgsql VOLATILE
SET lock_timeout = '1s' SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  -- A value, not the clock itself: no index serves a condition that may change from row to row.
  latest timestamptz := least(clock_timestamp(), earliest) - grace * interval '1 ms';
  deleted bigint;
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  WITH d AS MATERIALIZED (
    SELECT r.namespace, r.id FROM idempotency.record r
    WHERE r.namespace = in_namespace COLLATE "POSIX" AND r.expires <= latest
    ORDER BY r.expires LIMIT most FOR UPDATE SKIP LOCKED)
  DELETE FROM idempotency.record r USING d WHERE r.namespace = d.namespace AND r.id = d.id;
  GET DIAGNOSTICS deleted = ROW_COUNT;
  RETURN deleted;
END $$;

INSERT INTO idempotency.version (version) VALUES (1) ON CONFLICT DO NOTHING;
