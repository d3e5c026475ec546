//! The page. It has one path, and its query and forms say what of it is shown: so its links hold under any path.

// - `routes.rs` decides what is shown. `frame.rs` is around everything; `files.rs` are its style sheet and script.
// - `home.rs` puts together `live.rs`, `list.rs`, `find.rs` and `disputed.rs`. `detail.rs` shows one operation.
// - `outbox.rs` is the sections for outboxes, and the way to a change of a call.
// - `settle.rs` leads from a button to a change: `answer_form.rs`, a confirmation, and the results.

mod answer_form;
mod detail;
mod disputed;
mod files;
mod find;
mod frame;
mod home;
mod list;
mod live;
mod operation;
#[cfg(feature = "outbox")]
mod outbox;
mod routes;
mod settle;

pub(crate) use routes::router;
