-- A claim as a function that answers with one composite, with the rules of the statement `INSERT` in `src/queries.rs`.
CREATE FUNCTION public.claim(
  in_namespace text, in_id bytea, in_token uuid, above bigint, in_kind smallint, in_session bytea, until_in interval,
  expires_in interval, in_state bytea, earliest timestamptz, latest timestamptz,
  OUT now timestamptz, OUT server timestamptz, OUT id bytea, OUT token uuid, OUT fence bigint, OUT kind smallint,
  OUT session bytea, OUT until timestamptz, OUT began timestamptz, OUT since timestamptz, OUT expires timestamptz,
  OUT state bytea, OUT recovered pg_lsn)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  t timestamptz := date_trunc('milliseconds', clock_timestamp());
  counted timestamptz := greatest(t, latest);
BEGIN
  server := pg_postmaster_start_time();
  recovered := pg_last_wal_replay_lsn();
  IF current_setting('synchronous_commit') IN ('off', 'local') THEN
    RETURN;
  END IF;
  INSERT INTO idempotency.record AS r
    (namespace, id, token, fence, kind, session, until, began, since, expires, state)
  SELECT in_namespace, in_id, in_token,
    greatest((date_part('epoch', greatest(clock_timestamp(), latest)) * 1000000::float8)::bigint, above),
    in_kind, in_session, counted + until_in, least(t, earliest), t, counted + expires_in, in_state
  WHERE NOT EXISTS (SELECT FROM idempotency.record r WHERE r.namespace = in_namespace AND r.id = in_id)
  ON CONFLICT (namespace, id) DO NOTHING
  RETURNING r.fence, r.until, r.began, r.since, r.expires INTO fence, until, began, since, expires;
  IF FOUND THEN
    now := since;
    id := in_id;
    token := in_token;
    kind := in_kind;
    session := in_session;
    state := '';
    RETURN;
  END IF;
  now := clock_timestamp();
  SELECT r.id, r.token, r.fence, r.kind, r.session, r.until, r.began, r.since, r.expires,
      CASE WHEN octet_length(r.state) <= 16384 THEN r.state ELSE '' END
    INTO id, token, fence, kind, session, until, began, since, expires, state
    FROM idempotency.record r
    WHERE r.namespace = in_namespace AND r.id = in_id AND r.token <> in_token
      AND (r.expires > least(now, earliest)) IS TRUE;
END $$;
