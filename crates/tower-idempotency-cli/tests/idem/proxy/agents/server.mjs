// A server of the official SDK that knows nothing of keys: each payment is a line of a file, its effect.
// `server.mjs ADDRESS FILE json|stream sessions|stateless`

import { randomUUID } from "node:crypto";
import { appendFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.MCP_NODE}/`);
const { McpServer, createMcpHandler } = require("@modelcontextprotocol/server");
const { NodeStreamableHTTPServerTransport, toNodeHandler } = require("@modelcontextprotocol/node");
const { z } = require("zod");

const [address, file, shape, sessions] = process.argv.slice(2);
const [host, port] = address.split(":");

function server() {
  const server = new McpServer({ name: "shop", version: "1" });
  const inputSchema = z.object({ amount: z.number(), note: z.string() });
  server.registerTool("pay", { description: "Pays an amount.", inputSchema }, async ({ amount, note }, { mcpReq }) => {
    const progressToken = mcpReq._meta?.progressToken;
    if (progressToken !== undefined) {
      await mcpReq.notify({ method: "notifications/progress", params: { progressToken, progress: 1, total: 2 } });
    }
    const payment = randomUUID();
    appendFileSync(file, `${note} ${amount} ${payment}\n`);
    return { content: [{ type: "text", text: payment }] };
  });
  return server;
}

const open = new Map();
/** The revision with sessions: each has a server of its own. */
async function inSessions(request, response) {
  const id = request.headers["mcp-session-id"];
  let transport = open.get(id);
  if (!transport && id) {
    const error = { jsonrpc: "2.0", error: { code: -32001, message: "Session not found" }, id: null };
    return response.writeHead(404, { "content-type": "application/json" }).end(JSON.stringify(error));
  }
  if (!transport) {
    const onsessioninitialized = (id) => open.set(id, transport);
    const options = { sessionIdGenerator: randomUUID, onsessioninitialized, enableJsonResponse: shape === "json" };
    transport = new NodeStreamableHTTPServerTransport(options);
    await server().connect(transport);
  }
  return transport.handleRequest(request, response);
}

const responseMode = shape === "json" ? "json" : "auto";
const handle = sessions === "sessions" ? inSessions : toNodeHandler(createMcpHandler(server, { responseMode }));
createServer(handle).listen(Number(port), host);
