//! What conditions and metrics say of a cause: a name in one word, and how much it matters.

/// Makes an enum of reasons: with `ALL` of them, `as_str` for the name as conditions and metrics have it, and a
/// method that says how much one matters.
///
/// ```
/// #[derive(Clone, Copy, Debug, PartialEq, Eq)]
/// pub enum Gravity { Fatal, Advice }
///
/// mesh_kube::reasons! {
///     /// Why the tea is late.
///     pub enum Reason, gravity: Gravity;
///     /// There is no water.
///     NoWater: Fatal;
///     /// The cup is chipped.
///     ChippedCup: Advice;
/// }
///
/// assert_eq!(Reason::ALL, [Reason::NoWater, Reason::ChippedCup]);
/// assert_eq!(Reason::NoWater.as_str(), "NoWater");
/// assert_eq!(Reason::ChippedCup.gravity(), Gravity::Advice);
/// ```
#[macro_export]
macro_rules! reasons {
    (
        $(#[$about:meta])*
        $visible:vis enum $name:ident, $matters:ident: $degree:ident;
        $($(#[$doc:meta])* $reason:ident: $value:ident;)*
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $visible enum $name {
            $($(#[$doc])* $reason,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$reason),*];

            /// The name.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$reason => stringify!($reason),)*
                }
            }

            /// How much it matters.
            pub const fn $matters(self) -> $degree {
                match self {
                    $(Self::$reason => $degree::$value,)*
                }
            }
        }
    };
}
