//! The checks, in the order in which they run.

mod answers;
mod bodies;
mod calls;
mod connections;
mod crowds;
mod differences;
mod keys;
mod leaks;
mod meanwhile;
mod outcomes;
mod pairs;
mod repeats;
mod restarts;

use futures_util::future::BoxFuture;

use crate::probe::{Probe, Stop};

/// A question to a server.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) question: &'static str,
    pub(crate) run: for<'a> fn(&'a Probe<'a>) -> BoxFuture<'a, Result<(), Stop>>,
}

macro_rules! checks {
    ($($name:literal, $question:literal, $($run:ident)::+;)*) => {
        pub(crate) const CHECKS: &[Check] = &[$(
            Check { name: $name, question: $question, run: |probe| Box::pin($($run)::+(probe)) },
        )*];
    };
}

checks! {
    "works", "Does a request with a key succeed, and have one effect?", repeats::works;
    "same-key-again", "Does a retry get the first answer, without an effect of its own?", repeats::same_key_again;
    "new-key", "Is the same request with another key another operation?", repeats::another_key;
    "probe", "Does a probe get what a retry would get, and never run?", repeats::look;
    "at-once", "Do a hundred copies at once have one effect?", repeats::at_once;
    "keys-at-once", "Does each of many keys at once get its own answer, and its retry too?", crowds::keys_at_once;
    "after-many-keys", "Is an answer still there after 300 other keys?", crowds::after_many_keys;
    "in-flight", "What does a retry get while the first request runs?", meanwhile::in_flight;
    "in-flight-others", "Does another body or another account get the answer of a request that still runs?", meanwhile::others_in_flight;
    "other-body", "Is a key refused for another body, and is its answer still there after that?", differences::other_body;
    "other-detail", "Is a key refused for JSON that differs in one detail, wherever that is?", differences::other_detail;
    "other-query", "Is a key refused for another query?", differences::other_query;
    "other-path", "What becomes of a key on another path?", differences::other_path;
    "other-method", "Does another method with the key get an answer that is not its own?", differences::other_method;
    "other-account", "Does another account get an answer that is not its own?", differences::other_account;
    "same-meaning", "Is JSON that means the same compared as the profile says?", differences::same_meaning;
    "key-missing", "What becomes of a request without a key?", keys::missing;
    "key-empty", "Is an empty key refused?", keys::empty;
    "key-doubled", "Are two keys in one request refused?", keys::doubled;
    "key-malformed", "Is a key refused that is no String of structured fields?", keys::malformed;
    "key-long", "Is a key of 255 characters one key, and is each of two longer ones refused or a key of its own?", keys::long;
    "key-case", "Are keys that differ in case two keys?", keys::case;
    "key-pairs", "Are keys that differ in one character, or after many, two keys?", pairs::pairs_of_keys;
    "key-quoted", "Is a key in quotes the same as the bare key?", keys::quoted;
    "truncated-body", "Does half a body have no effect, and is its key free after that?", bodies::truncated;
    "hang-up-before-answer", "Does a client that hangs up before the answer find it later?", bodies::before_the_answer;
    "answer-swallowed", "Does a client whose answer is swallowed find it later?", bodies::answer_swallowed;
    "connection-after-rejection", "Is the connection usable after a rejection?", connections::after_rejection;
    "connection-after-replay", "Is the connection usable after a replay?", connections::after_replay;
    "stream-cut", "Does a client whose stream of a tool is cut find the result later?", bodies::stream_cut;
    "other-id", "Does a call of a tool get its answer under each `id`?", calls::other_id;
    "other-session", "Does a call of a tool get its answer in another session?", calls::other_session;
    "declined", "Does the retry of a declined request get the same answer?", outcomes::declined;
    "server-error", "What does the retry of a request get that has failed?", outcomes::server_error;
    "rate-limited", "Is a 429 forgotten, so that a retry runs?", outcomes::rate_limited;
    "replayed-headers", "Does a replay leave out what belongs to one answer?", leaks::replayed_headers;
    "retention", "Does a key live as long as it is said to, and no longer?", outcomes::retention;
    "restart", "Is an answer still there after a restart?", restarts::restart;
    "kill", "Does a kill in the middle of a request lead to no second effect?", restarts::kill;
}
