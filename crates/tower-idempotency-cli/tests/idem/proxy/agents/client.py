"""An agent with the official SDK: it pays a number of times, with a key for each payment, and sends a payment again
with its key until it has the result. Prints each as a line of JSON.

`client.py URL KEY PAYMENTS json|stream sessions|stateless`: the keys are KEY-0, KEY-1 and so on. It begins with
the second half when its standard input ends, in the sessions of the first one.
"""

import asyncio
import json
import logging
import os
import sys

from mcp import Client

URL, KEY, PAYMENTS, SHAPE, SESSIONS = sys.argv[1:]
# At once, as agents do it; tries of a payment; and seconds of a try.
WORKERS, TRIES, BOUND = 10, 40, 4
HALF = int(PAYMENTS) // 2

logging.disable(logging.CRITICAL)


async def pay(client, number):
    async def seen(*_):
        pass

    arguments = {"amount": number, "note": f"{KEY}-{number}"}
    result = await client.call_tool(
        "pay", arguments, BOUND, seen if SHAPE == "stream" else None, meta={"idempotencyKey": f"{KEY}-{number}"}
    )
    if result.is_error:
        raise RuntimeError(result.content[0].text)
    return result.content[0].text


async def work(payments, second_half):
    mode = "legacy" if SESSIONS == "sessions" else "2026-07-28"
    failures = []
    while payments:
        # A client is of no use after a connection has broken.
        try:
            async with Client(URL, mode=mode, read_timeout_seconds=BOUND) as client:
                while payments:
                    if payments[0] >= HALF:
                        await second_half.wait()
                    payment = await pay(client, payments[0])
                    said = {"key": f"{KEY}-{payments[0]}", "payment": payment, "failures": failures}
                    print(json.dumps(said), flush=True)
                    payments.pop(0)
                    failures = []
        except Exception as error:
            # What happens in a client comes out of it in groups.
            failures.append("timeout" if " timed out" in repr(error) else repr(error))
            if len(failures) == TRIES:
                print(f"{KEY}-{payments[0]}: {failures}", file=sys.stderr, flush=True)
                # A thread waits for the input.
                os._exit(1)
            await asyncio.sleep(0.05)


async def main():
    second_half = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for worker in range(WORKERS):
            group.create_task(work(list(range(worker, int(PAYMENTS), WORKERS)), second_half))
        await asyncio.to_thread(sys.stdin.read)
        second_half.set()


asyncio.run(main())
