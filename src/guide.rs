//! The guide: how to use the layer, how to run it, and what to expect of it.
//!
//! - To begin: [`try_it`], [`answers`], [`layer_order`], [`options`], [`profiles`], [`stacks`], [`proxy`],
//!   [`agents`], [`browsers`], [`consumers`]
//! - To call an API: [`calling`], and for its clients in any language [`clients`], [`meanings`], [`payments`]
//! - To decide: [`promises`], [`policies`], [`exactly_once`], [`same_request`], [`unknown_answers`], [`handlers`],
//!   [`comparison`]
//! - To run: [`which_store`], [`operators`], [`page`], [`idem`], [`security`], [`mod@metrics`], [`mod@embedded`],
//!   [`mod@sled`], [`mod@shared`], [`redis`], [`performance`], [`mod@budget`]
//! - To trust: [`testing`], [`check`], [`laboratories`], [`failures`](mod@crate::failures)
//!
//! The pages are the files under `docs/` of the repository.

/// Makes a module of each page: its name, and its file under `docs/`.
///
/// Each page has its links twice: at its end to files, for those who read it in the repository, and here, in front of
/// it, to these docs. Of two definitions of a link the first one counts.
macro_rules! pages {
    ($($(#[$about:meta])* $name:ident: $file:literal,)*) => {$(
        $(#[$about])*
        ///
        #[doc = include_str!("guide/links.md")]
        #[doc = include_str!(concat!("../docs/", $file))]
        pub mod $name {}
    )*};
}

// A page is always part of these docs. Its examples are compiled only where the features are there that they need.
pages! {
    /// A payment server to try, with what can go wrong.
    try_it: "try-it.md",

    /// Every situation of a request, and its answer.
    #[cfg(any(not(doctest), all(feature = "utoipa", feature = "memory")))]
    answers: "answers.md",

    /// For those who write clients of your API: which key to use, and what each rejection means.
    clients: "clients.md",

    /// The client's layer, and the outbox.
    calling: "calling.md",

    /// What each answer says about the operation: whether it was done, and whether a retry helps.
    #[cfg(any(not(doctest), all(feature = "server", feature = "memory")))]
    meanings: "meanings.md",

    /// Payments that are asked for with a 402: x402, and the HTTP authentication scheme `Payment`.
    payments: "payments.md",

    /// The order of layers: which go outside and which inside, with `ServiceBuilder` and with axum's `Router`.
    #[cfg(any(not(doctest), all(feature = "axum", feature = "memory")))]
    layer_order: "layer-order.md",

    /// All options, their defaults, and the limits of the stores.
    #[cfg(any(not(doctest), all(feature = "server", feature = "memory")))]
    options: "options.md",

    /// What clients of an API expect of its keys: those of the draft, of Stripe, of the Agentic Commerce Protocol, of
    /// Apache Iceberg, of JSON-RPC, of MCP.
    #[cfg(any(not(doctest), all(feature = "axum", feature = "memory")))]
    profiles: "profiles.md",

    /// `idem check`: whether an API in any language keeps what its keys promise.
    check: "check.md",

    /// `idem proxy`: the layer in front of a service in any language.
    proxy: "proxy.md",

    /// Tools over MCP: a server that pays once, what an agent sends, and what it sees.
    // Its examples are tested with the example server, because the root does not know its SDK.
    #[cfg(not(doctest))]
    agents: "agents.md",

    /// Keys that a browser sends by itself, and what a replayed `Set-Cookie` means.
    #[cfg(any(not(doctest), all(feature = "server", feature = "memory")))]
    browsers: "browsers.md",

    /// Plain Tower and hyper, and gRPC with tonic.
    #[cfg(any(not(doctest), all(feature = "server", feature = "memory")))]
    stacks: "stacks.md",

    /// For message consumers: which id to use, when to acknowledge, and what else can go wrong.
    #[cfg(any(not(doctest), feature = "sled"))]
    consumers: "consumers.md",

    /// The promises of the layer, and their limits.
    promises: "promises.md",

    /// The retry of an interrupted run: a rejection, another run, or the application's answer.
    #[cfg(any(not(doctest), all(feature = "axum", feature = "sled", feature = "memory")))]
    policies: "policies.md",

    /// Effect and record in one transaction: of sled, of PostgreSQL, or of a database of your own.
    // Its examples are tested with the crate for PostgreSQL, which the root does not know.
    #[cfg(not(doctest))]
    exactly_once: "exactly-once.md",

    /// The parts of a request that are compared with the first one that had its key.
    #[cfg(any(not(doctest), all(feature = "server", feature = "memory")))]
    same_request: "same-request.md",

    /// Answers of a handler that does not know whether it took effect.
    #[cfg(any(not(doctest), feature = "axum"))]
    unknown_answers: "unknown-answers.md",

    /// The handler's side: what it can ask about its run, and say about its answer.
    #[cfg(any(not(doctest), feature = "axum"))]
    handlers: "handlers.md",

    /// Starting, settling, shutting down; logs, counts and health.
    #[cfg(any(not(doctest), all(feature = "axum", feature = "sled")))]
    operators: "running/operators.md",

    /// `idem`, a program for the shell: list, find, settle and verify operations, and test a store.
    idem: "running/idem.md",

    /// The operators' page: how to mount it, who may do what, and an evening with it.
    // Its examples are tested with the page's crate.
    #[cfg(not(doctest))]
    page: "running/page.md",

    /// What an operator can measure, and when to worry.
    #[cfg(any(not(doctest), all(feature = "metrics", feature = "server", feature = "sled")))]
    metrics: "running/metrics.md",

    /// Whose a key is, what a replay leaves out, and slow uploads.
    #[cfg(any(not(doctest), all(feature = "axum", feature = "memory")))]
    security: "running/security.md",

    /// Which store when: what sled, fjall, PostgreSQL and Redis lose, what they cost, and who should not use them.
    which_store: "running/which-store.md",

    /// Which embedded store: sled or fjall, and how to move from one to the other.
    embedded: "running/embedded.md",

    /// The sled store: how it makes sled durable, your own trees in the same database, and what is on disk.
    sled: "running/sled.md",

    /// Several servers over one PostgreSQL database, or over a database of your own.
    // As those of `exactly_once`.
    #[cfg(not(doctest))]
    shared: "running/shared.md",

    /// Several servers over Redis or Valkey: what it loses, and what refuses keys.
    redis: "running/redis.md",

    /// The costs of the layer, measured, and compared with other crates.
    performance: "running/performance.md",

    /// The bytes that runs, waiters, records and connections take, and what bounds them.
    budget: "running/budget.md",

    /// Other crates, and what one would write by hand.
    comparison: "comparison.md",

    /// Tests of what your handler does when a process crashes or a store fails.
    #[cfg(any(not(doctest), all(feature = "axum", feature = "test-util")))]
    testing: "testing.md",

    /// The tests that look for a broken promise, and how to run them for longer.
    laboratories: "laboratories.md",
}
