"""Charges behind `asgi-idempotency-header`, set up as its README has it, with its store in memory. See `../run`.

It has no option for an account, and none that requires a key.
"""

from charges import add_charges, serve
from fastapi import FastAPI
from idempotency_header_middleware import IdempotencyHeaderMiddleware
from idempotency_header_middleware.backends import MemoryBackend

app = FastAPI()
app.add_middleware(IdempotencyHeaderMiddleware, backend=MemoryBackend())
add_charges(app)
serve(app)
