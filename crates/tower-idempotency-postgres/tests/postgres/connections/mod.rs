//! Connections, poolers and links, and the calls that are lost on them.

pub(crate) mod connect;
pub(crate) mod counted;
pub(crate) mod demoted;
pub(crate) mod lost_answers;
pub(crate) mod notifications;
pub(crate) mod pooler;
pub(crate) mod proxy;
pub(crate) mod slow_link;
