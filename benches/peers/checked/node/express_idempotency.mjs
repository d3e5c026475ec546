// Charges behind `express-idempotency`, set up as its README has it, on Express 4, whose paths it uses. See `../run`.
//
// The data is in memory, by default. It has no option for an account, and none that requires a key. An own
// `intentValidator` could refuse another account, but the README has none.
import express from 'express';
import idempotency from 'express-idempotency';

import { charge, list, listens, port } from './charges.mjs';

const app = express();
app.use(express.json());
app.post('*', idempotency.idempotency());

app.post('/charges', async (request, response, next) => {
  try {
    // The middleware has answered, or will.
    if (idempotency.getSharedIdempotencyService().isHit(request)) return;
    const [status, body] = await charge(request.body);
    response.status(status).send(body);
  } catch (error) {
    next(error);
  }
});

app.get('/charges', (_request, response) => {
  response.send(list());
});

const server = app.listen(port, '127.0.0.1', () => listens(server));
