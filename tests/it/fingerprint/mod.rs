//! The comparison of two requests: another request with a key never gets its answer, and the changes that clients make
//! between two tries make no other request (promise 6).

mod another_request;
mod cookies;
mod credentials;
mod digest;
mod same_request;
mod strangers;
