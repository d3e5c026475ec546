"""A server of the official SDK that knows nothing of keys: each payment is a line of a file, its effect.

`server.py ADDRESS FILE json|stream sessions|stateless`
"""

import json
import pathlib
import sys
import uuid

import uvicorn
from mcp.server.mcpserver import Context, MCPServer

ADDRESS, FILE, SHAPE, SESSIONS = sys.argv[1:]
HOST, PORT = ADDRESS.rsplit(":", 1)

server = MCPServer("shop")


@server.tool()
async def pay(amount: int, note: str, context: Context) -> str:
    """Pays an amount."""
    # With it, a server of the newer revision streams, too.
    await context.report_progress(1, 2)
    payment = str(uuid.uuid4())
    with open(FILE, "a") as file:
        file.write(f"{note} {amount} {payment}\n")
    return payment


@server.tool()
async def payments() -> str:
    """Says what was paid."""
    file = pathlib.Path(FILE)
    return json.dumps(file.read_text().splitlines() if file.exists() else [])


# The host decides which names a request may call it by.
app = server.streamable_http_app(json_response=SHAPE == "json", stateless_http=SESSIONS == "stateless", host=HOST)
uvicorn.run(app, host=HOST, port=int(PORT), log_level="critical")
