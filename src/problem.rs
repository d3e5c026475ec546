//! What the `type` of a refusal means, what was done, and what to do: one section per problem type.
//!
//! A refusal is `application/problem+json` (RFC 9457) with `type`, `title`, `status`, `detail`, and
//! `retry_with_same_key`: whether the same request with the same key may be answered otherwise later. Unless a section
//! says otherwise, nothing ran.
//!
//! ## key-missing
//! Status 400. The server requires a key. Send one.
//!
//! ## key-malformed
//! Status 400. More than one field line, a quoted value that is no structured-field String (RFC 9651), empty or blank, over 255
//! bytes, or a byte that is not accepted. Send one valid key.
//!
//! ## body-too-large
//! Status 413. Requests with a key are read as a whole, up to a limit. Make the request smaller.
//!
//! ## body-incomplete
//! Status 400. The body broke off; or 408: nothing of it came for 30 seconds, or less than 512 bytes a second. Send it again with the same key.
//!
//! ## store-unavailable
//! Status 503, with `Retry-After`. The store of keys can't be reached, and what asked for protection never runs without it. Try
//! again with the same key. Without `Retry-After`: what is stored for this key is damaged; ask the operator.
//!
//! ## store-full
//! Status 503. A limit of the store is reached. Try again later with the same key.
//!
//! ## overloaded
//! Status 503, with `Retry-After`. More is under way than this server takes: runs, bodies that are being read, or the store's
//! work. Nothing was done. Try again with the same key, not at once.
//!
//! ## shutting-down
//! Status 503, with `Retry-After`. This server takes no new operations. Try again with the same key.
//!
//! ## key-reused
//! Status 422. The key belongs to another request: its method, host, path, query, content type, body, or a header that the
//! server compares differs. A new operation needs a new key.
//!
//! ## credentials-changed
//! Status 422. The same request with other credentials than the first try's. **Do not mint a new key**: it would run the
//! operation again. Use the first try's credentials; operators avoid this with a `scope`.
//!
//! ## not-verifiable
//! Status 409. What was recorded was made by rules that this server can't apply, such as a later release's, or with other
//! options. **Do not mint a new
//! key.**
//!
//! ## in-flight
//! Status 409, with `Retry-After`. A request with this key is being processed, or was until now and ended without an effect. Try
//! again with the same key.
//!
//! ## not-replayable
//! Status 409. The operation **took place**, with the status in `original_status`; its answer was not stored, because it was too
//! large, too slow, a stream, or broke off. It is not run again.
//!
//! ## outcome-unknown
//! Status 409, or 500 for the request whose own run it was. The operation **may have taken place**: its run was interrupted by a
//! crash, a panic, an error or a timeout, or its handler answered that it does not know. Find out before you use a new key; the operator can settle it. Where the server finds
//! out by itself, `retry_with_same_key` is true. Status 503: the store failed while the operation was being committed; try again
//! later with the same key.
//!
//! ## custom
//! The application's own refusal, from the function that says whose a key is (`scope`). It has the status, title and detail that
//! the application gave it: 401, say, for a request that names no account.
