//! Enums whose values have names.

/// Makes enums with `ALL`, the list of their values, and `name`, which is a value's name.
macro_rules! named {
    ($($(#[$about:meta])* $enum:ident { $($(#[$value_about:meta])* $value:ident: $name:literal,)+ })+) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $enum {
            $($(#[$value_about])* $value,)+
        }

        impl $enum {
            /// All values.
            pub const ALL: &'static [Self] = &[$(Self::$value),+];

            /// Returns its name in logs and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)+
                }
            }
        }
    )+};
}
pub(crate) use named;
