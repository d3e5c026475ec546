//! Who calls, and what they may do.

use std::sync::Arc;

/// The caller of a request, as the `authorize` hook knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    pub(crate) name: Arc<str>,
    pub(crate) access: Access,
}

impl Actor {
    /// Creates the caller of this name. The page shows the name, and the audit event of each change has it: use what
    /// names a person in your organisation, such as an address, and no secret.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, access: Access) -> Self {
        Self { name: name.into(), access }
    }
}

/// What a caller may do that not every caller may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Permission {
    /// See operations, and find them by their key: all that the page and the API show but the bodies of answers.
    Read,
    /// See the recorded answers with their bodies, which are what your clients were told.
    Bodies,
    /// Give an interrupted operation an answer.
    Answer,
    /// Free the key of an interrupted operation.
    Release,
    /// Delete the record of an operation that is done, which frees its key.
    Forget,
    /// Let the application look up what became of an interrupted operation.
    Reconcile,
    /// Delete all records of done operations that match a filter. Only the API has this.
    Purge,
    /// Retry, give up or settle a call of an outbox.
    Outbox,
}

impl Permission {
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of permissions.
///
/// ```
/// use tower_idempotency_admin::{Access, Permission};
///
/// let support = Access::READ.and(Permission::Release).and(Permission::Reconcile);
/// assert!(support.permits(Permission::Release) && !support.permits(Permission::Forget));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
pub struct Access(u8);

impl Access {
    /// Nothing: each request is answered with 403.
    pub const NONE: Self = Self(0);
    /// [`Permission::Read`] alone.
    pub const READ: Self = Self(Permission::Read.bit());
    /// All permissions, those of later versions included.
    pub const ALL: Self = Self(u8::MAX);

    /// Adds a permission.
    pub const fn and(self, permission: Permission) -> Self {
        Self(self.0 | permission.bit())
    }

    /// Returns whether the set has a permission.
    #[must_use]
    pub const fn permits(self, permission: Permission) -> bool {
        self.0 & permission.bit() != 0
    }
}
