//! The same answer to every later request, and nothing said before it is durable (promises 2 and 3).

mod classified;
mod not_storable;
mod recording;
mod replay;
mod retention;
mod unknown;
mod validation;
