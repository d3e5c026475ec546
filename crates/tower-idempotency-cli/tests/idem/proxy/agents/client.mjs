// An agent with an official SDK: it pays a number of times, with a key for each payment, and sends a payment again with
// its key until it has the result. Prints each as a line of JSON.
// `client.mjs URL KEY PAYMENTS json|stream sessions|stateless [SDK]`: the keys are KEY-0, KEY-1 and so on. It
// begins with the second half when its standard input ends, in the sessions of the first one. SDK is the package of the client, which has sessions alone if it
// is the older one, `@modelcontextprotocol/sdk`.

import { createRequire } from "node:module";
import { text } from "node:stream/consumers";

const [url, key, payments, shape, sessions, sdk = "@modelcontextprotocol/client"] = process.argv.slice(2);
const require = createRequire(`${process.env.MCP_NODE}/`);
const isOlder = sdk.endsWith("/sdk");
const { Client } = require(isOlder ? `${sdk}/client/index.js` : sdk);
const { StreamableHTTPClientTransport } = require(isOlder ? `${sdk}/client/streamableHttp.js` : sdk);
// At once, as agents do it; tries of a payment; and milliseconds of a try.
const [WORKERS, TRIES, timeout] = [10, 40, 4000];

async function connect() {
  const mode = sessions === "sessions" ? "legacy" : { pin: "2026-07-28" };
  const client = new Client({ name: "agent", version: "1" }, { versionNegotiation: { mode } });
  await client.connect(new StreamableHTTPClientTransport(new URL(url)), { timeout });
  return client;
}

async function pay(client, number) {
  const _meta = { idempotencyKey: `${key}-${number}` };
  const call = { name: "pay", arguments: { amount: number, note: `${key}-${number}` }, _meta };
  const options = shape === "stream" ? { timeout, onprogress() {} } : { timeout };
  const result = await (isOlder ? client.callTool(call, undefined, options) : client.callTool(call, options));
  if (result.isError) throw new Error(result.content[0].text);
  return result.content[0].text;
}

async function work(numbers) {
  let client;
  for (const number of numbers) {
    if (number >= half) await secondHalf;
    const failures = [];
    for (let payment; !payment; ) {
      try {
        client ??= await connect();
        payment = await pay(client, number);
        console.log(JSON.stringify({ key: `${key}-${number}`, payment, failures }));
      } catch (error) {
        const isTimeout = error.message.includes("Request timed out");
        failures.push(isTimeout ? "timeout" : `${error.name}: ${error.message}`);
        if (failures.length === TRIES) throw new Error(`${key}-${number}: ${failures}`);
        // Its session may be over.
        await client?.close().catch(() => {});
        client = undefined;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }
  await client?.close();
}

const numbers = Array.from({ length: Number(payments) }, (_, number) => number);
const half = numbers.length / 2;
// Its session is open meanwhile.
const secondHalf = text(process.stdin);
await Promise.all(Array.from({ length: WORKERS }, (_, worker) => work(numbers.filter((at) => at % WORKERS === worker))));
process.exit();
