//! The same answer to every later request, and no answer before it is durable (promises 2 and 3).

mod classified;
mod not_applied;
mod not_storable;
mod on_replay;
mod outcome_retention;
mod payment;
mod probe;
mod recording;
mod replaced;
mod replay;
mod retention;
mod secret;
mod unknown;
mod unrecognised;
mod validation;
