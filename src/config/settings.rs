//! The structs, one for each builder.

#[cfg(feature = "server")]
use std::time::Duration;

#[cfg(any(feature = "server", feature = "memory", feature = "sled", feature = "fjall"))]
use {super::from_text::setting, serde::Deserialize};
#[cfg(feature = "server")]
use {
    crate::server::{KeptHeaders, KeyFrom, Profile},
    crate::store::Store,
    crate::{FingerprintBody, IdempotencyLayer, OnInFlight, OnInterrupted},
    http::{HeaderName, Method},
    tower_idempotency_meaning::BodyJudge,
    tracing::Level,
};

/// Defines a struct with a field for each option of a builder, and the methods that look at all of them. `setting` of
/// this module has to be in scope. The second form is for a builder that may refuse a value: it has the options that
/// may be refused, then those whose method takes no value, and then all others.
#[doc(hidden)]
#[macro_export]
macro_rules! settings {
    ($(#[$about:meta])* $name:ident for [$($generics:tt)*] $builder:ty: $($field:ident: $type:ty,)*) => {
        $crate::settings! { @with_apply
            $(#[$about])* $name ($($field: $type,)*)
            /// Sets the options that these settings have.
            pub fn apply<$($generics)*>(self, builder: $builder) -> $builder {
                $(let builder = match self.$field {
                    Some(value) => builder.$field(value),
                    None => builder,
                };)*
                builder
            }
        }
    };
    (
        $(#[$about:meta])* $name:ident for $builder:ty, $error:ty:
        [$($refusable:ident: $refusable_type:ty,)*] [$($flag:ident,)*] $($field:ident: $type:ty,)*
    ) => {
        $crate::settings! { @with_apply
            $(#[$about])* $name ($($refusable: $refusable_type,)* $($flag: bool,)* $($field: $type,)*)
            /// Sets the options that these settings have. One that takes no value is set by `true`.
            ///
            /// # Errors
            /// That of the builder, if it refuses a value.
            pub fn apply(self, builder: $builder) -> Result<$builder, $error> {
                $(let builder = match self.$refusable { Some(value) => builder.$refusable(value)?, None => builder };)*
                $(let builder = if self.$flag == Some(true) { builder.$flag() } else { builder };)*
                $(let builder = match self.$field { Some(value) => builder.$field(value), None => builder };)*
                Ok(builder)
            }
        }
    };
    (@with_apply $(#[$about:meta])* $name:ident ($($field:ident: $type:ty,)*) $($apply:tt)*) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        #[non_exhaustive]
        pub struct $name {
            $(
                #[doc = concat!("The option `", stringify!($field), "` of the builder; `None` leaves it as it is.")]
                #[serde(deserialize_with = "setting")]
                pub $field: Option<$type>,
            )*
        }

        impl $name {
            /// Returns whether any option is set. A section of a store that is not opened changes nothing: warn of one
            /// that is set.
            #[must_use]
            pub fn is_set(&self) -> bool {
                $(self.$field.is_some())||*
            }

            $($apply)*
        }
    };
}

#[cfg(feature = "server")]
settings! {
    /// The options of an [`IdempotencyLayer`] that are no functions.
    LayerConfig for [St: Store, M] IdempotencyLayer<St, M>:
    profile: Profile,
    discoverable: Vec<String>,
    header_name: HeaderName,
    replay_header_name: HeaderName,
    outcome_header_name: HeaderName,
    methods: Vec<Method>,
    require_key: bool,
    strict_keys: bool,
    key_from: KeyFrom,
    credential_headers: Vec<HeaderName>,
    credential_cookies: Vec<String>,
    on_in_flight: OnInFlight,
    on_interrupted: OnInterrupted,
    classify: BodyJudge,
    fingerprint_headers: Vec<HeaderName>,
    fingerprint_body: FingerprintBody,
    retention: Duration,
    outcome_retention: Duration,
    interrupted_retention: Duration,
    max_run: Duration,
    max_runs: usize,
    max_request_body: usize,
    max_buffered: usize,
    max_response_body: usize,
    outcome_body_timeout: Duration,
    max_stream: Duration,
    max_stream_bytes: usize,
    kept_headers: KeptHeaders,
    fail_open: bool,
    problem_base: String,
    run_level: Level,
    replay_level: Level,
    rejection_level: Level,
}

#[cfg(feature = "memory")]
settings! {
    /// The options of a [`MemoryStore`](crate::MemoryStore).
    MemoryConfig for [] crate::store::MemoryStoreBuilder:
    max_records: usize,
    max_bytes: usize,
}

#[cfg(feature = "sled")]
settings! {
    /// The options of a [`SledStore`](crate::SledStore).
    SledConfig for [] crate::store::SledStoreBuilder:
    cache_bytes: u64,
    outcome_cache_bytes: u64,
    max_records: u64,
    max_bytes: u64,
    min_free_space: u64,
    create: bool,
    accept_loss_after: u64,
}

#[cfg(feature = "fjall")]
settings! {
    /// The options of a [`FjallStore`](crate::FjallStore).
    FjallConfig for [] crate::store::FjallStoreBuilder:
    cache_bytes: u64,
    outcome_cache_bytes: u64,
    max_records: u64,
    max_bytes: u64,
    min_free_space: u64,
    create: bool,
    accept_loss_after: u64,
}
