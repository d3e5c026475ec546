//! The runs: the faults of the servers, the database and the links.

pub(crate) mod away;
pub(crate) mod chaos;
pub(crate) mod clocks;
pub(crate) mod cuts;
pub(crate) mod failover;
pub(crate) mod mid_charge;
pub(crate) mod mixed;
pub(crate) mod one_charge;
pub(crate) mod outages;
pub(crate) mod rolling;
