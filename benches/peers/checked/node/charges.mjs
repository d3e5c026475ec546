// The operation of the servers that `../run` examines: the same in front of which each middleware is.
import { setTimeout } from 'node:timers/promises';

// The most charges that a list shows.
const LISTED = 200;
const ids = [];
// So that a refusal which comes again can be told from a replay.
let refused = 0;

// Answers a status and a body.
export async function charge({ kind }) {
  // What a payment provider would take.
  await setTimeout(kind === 'slow' ? 1500 : 20);
  if (kind === 'declined') return [402, { error: 'declined', number: ++refused }];
  if (kind === 'limited') return [429, { error: 'limited', number: ++refused }];
  ids.push(`ch_${ids.length + 1}`);
  return kind === 'fails' ? [500, { error: 'failed' }] : [201, { id: ids.at(-1) }];
}

export function list() {
  return ids.slice(-LISTED).reverse().map((id) => ({ id }));
}

// The port of the first argument, or a free one.
export const port = Number(process.argv[2] ?? 0);

export function listens(server) {
  console.log(`http://127.0.0.1:${server.address().port}`);
}
