-- The charges of the servers that share a database. A server with `--atomic` runs this file when it starts.

CREATE SCHEMA IF NOT EXISTS payment_server;

CREATE TABLE IF NOT EXISTS payment_server.charge (
  -- That of the records: servers of another namespace have other charges.
  namespace text COLLATE "C" NOT NULL,
  account bytea NOT NULL,
  id bytea NOT NULL,
  -- Amount, currency, description, refunds. It is kept as it is written: jsonb has no \u0000.
  entry json NOT NULL,
  -- By which the runs that charged and refunded are known.
  intents bytea[] NOT NULL,
  PRIMARY KEY (namespace, account, id)
);

CREATE INDEX IF NOT EXISTS charge_intents ON payment_server.charge USING gin (intents);
