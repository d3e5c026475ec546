//! What was interrupted is never papered over, and a client that has gone changes nothing (promises 4 and 5).

mod change_of_policy;
mod client_gone;
mod interrupted;
