//! The macros that expand the list of the rules of each contract.

/// Makes of a list of rules, by the files that have them, what is named first.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance {
    (names {} $($file:ident: $($rule:ident)*;)*) => {
        &[$($(stringify!($rule)),*),*]
    };
    (by_name { $name:expr, $subject:expr } $($file:ident: $($rule:ident)*;)*) => {
        match $name {
            $($(stringify!($rule) => ended(stringify!($rule), Box::pin(super::rules::$file::$rule($subject))).await,)*)*
            name => panic!("there is no rule called `{name}`"),
        }
    };
    (tests { $half:ident $attribute:tt $make:path } $($file:ident: $($rule:ident)*;)*) => {
        $($(
            # $attribute
            async fn $rule() {
                $crate::$half::rule(stringify!($rule), $make().await).await;
            }
        )*)*
    };
}

/// Defines what each contract offers besides its macro. `$rules` is the macro that lists its rules, `$subject` the
/// type of what they are tried on, and `$contract` the trait of its parameter.
macro_rules! checks {
    ($rules:ident, $subject:ident, $contract:path) => {
        /// The names of all rules.
        pub const RULES: &[&str] = crate::$rules! { names {} };

        /// Checks one rule, by its name, on a subject if there is one.
        ///
        /// # Panics
        /// Panics if the rule does not hold, or if there is none of that name.
        pub async fn rule<T: $contract>(name: &str, subject: impl Into<Option<$subject<T>>>) {
            let Some(subject) = subject.into() else { return };
            crate::$rules! { by_name { name, &subject } }
        }

        /// Checks all rules, one after the other, each on a subject that `make` makes.
        ///
        /// # Panics
        /// Panics at the first rule that does not hold.
        pub async fn all<T: $contract>(make: impl AsyncFn() -> $subject<T>) {
            for name in RULES {
                rule(name, make().await).await;
            }
        }
    };
}
pub(crate) use checks;
