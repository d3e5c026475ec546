"""What Stripe's own client for Python makes of the example server. Prints it as one JSON object."""

import json
import os
import threading

import stripe

API, LOSING = os.environ["API"], os.environ["LOSING"]


def client(base, retries):
    return stripe.StripeClient("sk_test_alice", base_addresses={"api": base}, max_network_retries=retries)


def charge(of, key=None, source="tok_visa", amount=1000, currency="eur"):
    params = {"amount": amount, "currency": currency, "source": source}
    return of.v1.charges.create(params, {"idempotency_key": key} if key else {})


def seen(call):
    """The id of a charge, or the error, and whether it was replayed."""
    try:
        answer = call()
        headers = answer.last_response.headers
        return {"id": answer.id, "replayed": headers.get("Idempotent-Replayed"), "key": headers.get("Idempotency-Key")}
    except stripe.StripeError as error:
        headers = error.headers or {}
        return {
            "error": type(error).__name__,
            "status": error.http_status,
            "code": error.json_body["error"].get("code"),
            "replayed": headers.get("Idempotent-Replayed"),
            "retry": headers.get("Stripe-Should-Retry"),
        }


def at_once(of, key):
    """Two calls at once. If one comes after the other, it is a replay, and another pair is sent."""
    for number in range(10):
        results = []
        ask = lambda: results.append(seen(lambda: charge(of, f"{key}-{number}", "tok_slow")))
        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if any("error" in result for result in results) or of is patient:
            break
    return {"answers": results, "pairs": number + 1}


plain, patient = client(API, 0), client(API, 5)
print(json.dumps({
    "lost": seen(lambda: charge(client(LOSING, 2))),
    "first": seen(lambda: charge(plain, "first")),
    "again": seen(lambda: charge(plain, "first")),
    "reused": seen(lambda: charge(plain, "first", amount=2000)),
    "at once": at_once(plain, "at-once"),
    "at once, patient": at_once(patient, "patient"),
    "invalid": seen(lambda: charge(plain, "invalid", currency="euros")),
    "corrected": seen(lambda: charge(plain, "invalid")),
    "declined": seen(lambda: charge(plain, "declined", "tok_chargeDeclined")),
    "declined again": seen(lambda: charge(plain, "declined", "tok_chargeDeclined")),
    "failed": seen(lambda: charge(client(API, 2), "failed", "tok_error")),
    "unknown": seen(lambda: charge(client(API, 5), "unknown", "tok_timeout")),
}))
