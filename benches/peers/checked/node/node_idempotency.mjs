// Charges behind `@node-idempotency/nestjs`, set up as its README has it. See `../run`.
//
// It has no option for an account. The decorators are called by hand, so that no compiler is needed.
import 'reflect-metadata';
import { Body, Controller, Get, HttpException, Module, Post } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { Idempotent, NodeIdempotencyModule, StorageAdapterEnum } from '@node-idempotency/nestjs';

import { charge, list, listens, port } from './charges.mjs';

class ChargesController {
  async make(body) {
    const [status, answer] = await charge(body);
    // A POST is answered with 201 unless something is thrown.
    if (status >= 400) throw new HttpException(answer, status);
    return answer;
  }

  list() {
    return list();
  }
}

function decorate(name, ...decorators) {
  const method = Object.getOwnPropertyDescriptor(ChargesController.prototype, name);
  for (const decorator of decorators) decorator(ChargesController.prototype, name, method);
}

Body()(ChargesController.prototype, 'make', 0);
// The name of the header is the default. The README's examples don't require a key, so they are not required here.
decorate('make', Post(), Idempotent({}));
decorate('list', Get());
Controller('charges')(ChargesController);

class AppModule {}
Module({
  imports: [NodeIdempotencyModule.forRootAsync({ storage: { adapter: StorageAdapterEnum.memory } })],
  controllers: [ChargesController],
})(AppModule);

const app = await NestFactory.create(AppModule, { logger: ['error'] });
listens(await app.listen(port, '127.0.0.1'));
