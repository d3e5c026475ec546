// A service that knows nothing of idempotency: each order is a line of a file, its effect. `service.mjs ADDRESS FILE`
import { appendFileSync } from "node:fs";
import { createServer } from "node:http";

const [address, file] = process.argv.slice(2);
const [host, port] = address.split(":");

createServer((request, response) => {
  request.resume().on("end", () => {
    response.setHeader("content-type", "application/json");
    const key = request.headers["idempotency-key"] ?? "none";
    appendFileSync(file, `${key}\n`);
    // Services do more after their effect, and may be killed then.
    setTimeout(() => response.writeHead(201).end(JSON.stringify({ key })), 20);
  });
}).listen(Number(port), host);
