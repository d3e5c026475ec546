"""The operation of the servers that `../run` examines: the same in front of which each middleware is."""

import asyncio
import itertools
import socket
import sys

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

# The most charges that a list shows.
LISTED = 200


def add_charges(app: FastAPI) -> None:
    ids: list[str] = []
    # So that a refusal which comes again can be told from a replay.
    refused = itertools.count(1)

    @app.post("/charges")
    async def charge(request: Request) -> JSONResponse:
        kind = (await request.json()).get("kind")
        # What a payment provider would take.
        await asyncio.sleep(1.5 if kind == "slow" else 0.02)
        if kind == "declined":
            return JSONResponse({"error": "declined", "number": next(refused)}, 402)
        if kind == "limited":
            return JSONResponse({"error": "limited", "number": next(refused)}, 429)
        ids.append(f"ch_{len(ids) + 1}")
        if kind == "fails":
            return JSONResponse({"error": "failed"}, 500)
        return JSONResponse({"id": ids[-1]}, 201)

    @app.get("/charges")
    async def charges() -> list[dict[str, str]]:
        return [{"id": id} for id in reversed(ids[-LISTED:])]


def serve(app: FastAPI) -> None:
    """Serves on the port of the first argument, or on a free one, and prints the URL."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0))
    listener.listen(1024)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
