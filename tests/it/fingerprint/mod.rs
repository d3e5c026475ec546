//! What makes two requests the same: another request with a key never gets its answer, and what clients change between
//! two tries makes no other request (promise 6).

mod another_request;
mod cookies;
mod credentials;
mod same_request;
mod strangers;
