//! The macro that expands the list of the rules of either half.

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
