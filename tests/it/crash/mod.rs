//! Interrupted runs, which are never hidden, and clients that go away, which changes nothing (promises 4 and 5).

mod causes;
mod change_of_policy;
mod client_gone;
mod interrupted;
