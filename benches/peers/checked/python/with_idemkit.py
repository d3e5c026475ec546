"""Charges behind `idemkit`, set up as its README has it, with its store in memory. See `../run`.

Keys belong to an account, as the README says for production: here it is who sends `Authorization`. A key is not
required, which is the default.
"""

from charges import add_charges, serve
from fastapi import FastAPI
from idemkit import HttpConfig, IdempotencyMiddleware, InMemoryBackend

app = FastAPI()
app.add_middleware(
    IdempotencyMiddleware,
    backend=InMemoryBackend(),
    config=HttpConfig(scope=lambda request: request.headers.get("authorization", "anonymous")),
)
add_charges(app)
serve(app)
