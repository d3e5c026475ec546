//! The problem types of rejections: what happened, and what the client can do. Each problem type has a section.
//!
//! A [`Profile`](crate::server::Profile) may give some of them another status, and another form. By default a rejection
//! is `application/problem+json` (RFC 9457) with the members `type`, `title`, `status`, `detail` and
//! `retry_with_same_key`. The last one says whether the same request with the same key may get another answer later. A
//! problem that an operator can settle has a `record_id` too: eight hex digits to quote when you ask the operator. An
//! `outcome-unknown` may have a `label`, the application's own name for the operation. Unless a section says otherwise,
//! nothing ran.
//!
//! ## key-missing
//! Status 400. The server requires a key. Send the request with a key.
//!
//! ## key-malformed
//! Status 400. The key has more than one field line, is a quoted value that is not a structured-field String (RFC
//! 9651), is empty or blank, is longer than 255 bytes, has a byte that is not accepted, or is no UUID of version 7
//! where the server asks for one. Send one valid key.
//!
//! ## body-too-large
//! Status 413. The server reads a request with a key as a whole, up to a limit, and this body is longer. Make the
//! request smaller.
//!
//! ## body-incomplete
//! Status 400 if the body broke off. Status 408 if none of it arrived for 30 seconds, or less than 512 bytes a second.
//! Send the request again with the same key.
//!
//! ## store-unavailable
//! Status 503, with `Retry-After`. The store of keys cannot be reached, and a request that asks for protection never
//! runs without it. Try again with the same key. Without `Retry-After`, the record of this key is damaged; ask the
//! operator, and quote the `record_id`.
//!
//! ## store-full
//! Status 503. The store has reached a limit. Try again later with the same key.
//!
//! ## overloaded
//! Status 503, with `Retry-After`. The server has too much under way: runs, bodies that it reads, or work for the
//! store. Nothing was done. Try again with the same key, after a pause.
//!
//! ## shutting-down
//! Status 503, with `Retry-After`. The server is shutting down and takes no new operations. Try again with the same
//! key.
//!
//! ## key-reused
//! Status 422. The key belongs to another request: the method, host, path, query, content type, body, or a header that
//! the server compares is different. Or its header has another key than its body. Nothing was done for this request.
//!
//! The other request may be an earlier attempt of this one that was sent in another way: to another host name, to the
//! address to which a redirect led, or with another spelling of the same JSON. It may have been done. Send the request
//! again as it was. Use a new key only for a new operation.
//!
//! ## credentials-changed
//! Status 422. The key was used with other credentials than those of this request. The answer is the same whatever else
//! of the request differs, and whatever has become of the other one.
//!
//! If you have sent this request with this key before, and your token has been renewed since: **Do not create a new
//! key**, because it would run the operation again. Use the credentials of the first try. If this is the first time
//! that you use the key, another client uses it too: create a new one. Operators avoid this rejection with a `scope`.
//! It is also given after an operator has changed which credentials are compared.
//!
//! ## not-verifiable
//! Status 409. The record was made by rules that this server cannot apply, such as those of a later release, or with
//! other options. If you have sent this request with this key before, **do not create a new key**.
//!
//! ## not-found
//! Status 404, for a request with `Idempotency-Probe: ?1` alone. The server has no record of the key that these
//! credentials may see. **It does not say that nothing was done**: a request that is still on its way may arrive later,
//! and a record ends with its retention. For as long as the server remembers keys, send the request with the same key,
//! without the header: if it has taken place since, the answer is its replay. Without `retry_with_same_key`, the server
//! keeps no records of such requests.
//!
//! ## in-flight
//! Status 409, with `Retry-After`. A request with this key is being processed, or it has just ended without an effect.
//! Try again with the same key.
//!
//! ## not-replayable
//! Status 409. The operation **has ended**, with the status in `original_status`. Its answer was not stored, because
//! it was too large or too slow, was a stream, or broke off, or because it showed a secret once, such as a new API key;
//! or it is not kept any longer. The operation is not run again. Have a secret that you have lost revoked, and ask for
//! another one.
//!
//! ## outcome-unknown
//! Status 409, or 500 for the request whose own run it was. The operation **may have taken place**: its run was
//! interrupted by a crash, a panic, an error or a timeout, or its handler answered that it does not know. Find out
//! before you use a new key; the operator can settle the operation, by its `record_id`. If the server finds out by
//! itself, `retry_with_same_key` is true.
//!
//! Status 503 if the store failed while the operation was being committed. Try again later with the same key.
//!
//! ## custom
//! The application's own rejection, from the function that says whose a key is (`scope`), or from the one that is asked
//! before a replay (`on_replay`). It has the status, title and detail that the application gave it: 401, say, for a
//! request that names no account. If it has `original_status`, the operation **has ended**, with that status.
