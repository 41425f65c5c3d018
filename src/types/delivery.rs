//! Ways in which a value leaves the broker.

/// Where a leased value goes. What is not [`Delivery::Shown`] goes past the caller, into a program that it
/// starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// To the caller.
    #[default]
    Shown,
    /// Into a sealed file in memory.
    File,
    /// Through an inherited descriptor.
    Descriptor,
    /// To a child's standard input.
    Stdin,
    /// Into a child's environment.
    Environment,
    /// Through the protocol of a credential helper.
    Helper,
}

impl Delivery {
    /// The ways past the caller, as `inject` lists them.
    pub const INJECTED: [Self; 5] =
        [Self::File, Self::Descriptor, Self::Stdin, Self::Environment, Self::Helper];

    /// As the configuration writes it; `shown` is not written there.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shown => "shown",
            Self::File => "file",
            Self::Descriptor => "fd",
            Self::Stdin => "stdin",
            Self::Environment => "env",
            Self::Helper => "helper",
        }
    }
}
