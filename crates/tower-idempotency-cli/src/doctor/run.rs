//! The command.

use super::report::Report;
use super::{directory, postgres, redis};
use crate::address::Address;
use crate::arguments::{OfStore, StoreOptions};
use crate::failure::{Ended, Failure};
use crate::screen::Screen;

pub(crate) async fn run(options: &StoreOptions, of: OfStore, screen: Screen) -> Result<Ended, Failure> {
    let mut report = Report::new(screen);
    report.note("release", concat!("idem ", env!("CARGO_PKG_VERSION")))?;
    match Address::of(of.store)? {
        Address::Directory(named) => directory::test(&named, &mut report).await?,
        Address::Postgres(database) => postgres::test(&database, options, &mut report).await?,
        Address::Redis(database) => redis::test(&database, options, &mut report).await?,
    }
    report.end()
}
