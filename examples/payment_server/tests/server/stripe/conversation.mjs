// What Stripe's own client for Node makes of the example server. Prints it as one JSON object.

import { createRequire } from "node:module";

const Stripe = createRequire(`${process.env.STRIPE_NODE}/`)("stripe");

const { API, LOSING } = process.env;

function client(base, maxNetworkRetries) {
  const { hostname, port } = new URL(base);
  return new Stripe("sk_test_alice", { host: hostname, port, protocol: "http", maxNetworkRetries, telemetry: false });
}

function charge(of, key, source = "tok_visa", amount = 1000, currency = "eur") {
  return of.charges.create({ amount, currency, source }, key ? { idempotencyKey: key } : {});
}

/** The id of a charge, or the error, and whether it was replayed. */
async function seen(call) {
  try {
    const { id, lastResponse } = await call;
    const { headers } = lastResponse;
    return { id, replayed: headers["idempotent-replayed"] ?? null, key: headers["idempotency-key"] };
  } catch (error) {
    if (!(error instanceof Stripe.errors.StripeError)) throw error;
    const headers = error.headers ?? {};
    return {
      error: error.type.replace("Stripe", ""),
      status: error.statusCode,
      code: error.code ?? null,
      replayed: headers["idempotent-replayed"] ?? null,
      retry: headers["stripe-should-retry"] ?? null,
    };
  }
}

/** Two calls at once. If one comes after the other, it is a replay, and another pair is sent. */
async function atOnce(of, key) {
  for (let pairs = 1; ; pairs++) {
    const answers = await Promise.all([1, 2].map(() => seen(charge(of, `${key}-${pairs}`, "tok_slow"))));
    if (answers.some((answer) => answer.error) || of === patient || pairs === 10) return { answers, pairs };
  }
}

const [plain, patient] = [client(API, 0), client(API, 5)];
const said = {};
said["lost"] = await seen(charge(client(LOSING, 2)));
said["first"] = await seen(charge(plain, "first"));
said["again"] = await seen(charge(plain, "first"));
said["reused"] = await seen(charge(plain, "first", "tok_visa", 2000));
said["at once"] = await atOnce(plain, "at-once");
said["at once, patient"] = await atOnce(patient, "patient");
said["invalid"] = await seen(charge(plain, "invalid", "tok_visa", 1000, "euros"));
said["corrected"] = await seen(charge(plain, "invalid"));
said["declined"] = await seen(charge(plain, "declined", "tok_chargeDeclined"));
said["declined again"] = await seen(charge(plain, "declined", "tok_chargeDeclined"));
said["failed"] = await seen(charge(client(API, 2), "failed", "tok_error"));
said["unknown"] = await seen(charge(client(API, 5), "unknown", "tok_timeout"));
console.log(JSON.stringify(said));
