//! The command.

use super::compare;
use super::records;
use super::report::CopyReport;
use super::sides::{Side, Sides};
use crate::address::Address;
use crate::arguments::{Copy, StoreOptions};
use crate::failure::{Ended, Failure};
use crate::screen::{self, Screen};

pub(crate) async fn run(options: &StoreOptions, copy: Copy, screen: Screen) -> Result<Ended, Failure> {
    let (from, to) = (Address::of(Some(copy.from))?, Address::of(Some(copy.to))?);
    let sides = Sides::open(from, to, options).await?;
    let copied = copied(&sides).await;
    let closed = sides.close().await;
    let report = copied?;
    closed?;
    report.end(screen)
}

async fn copied(Sides { from, to }: &Sides) -> Result<CopyReport, Failure> {
    if has_disputed(from).await? {
        screen::remark(
            "outcomes that came too late are not copied: list them in the old store with `idem ls --disputed`",
        )?;
    }
    let copied = records::copy(from, to).await?;
    let compared = compare::both(from, to, &copied).await?;
    for end in [from, to] {
        end.require_unused("was used during the copy, so its records may have changed: stop it, and copy again")
            .await?;
    }
    Ok(CopyReport { copied, compared })
}

async fn has_disputed(from: &Side) -> Result<bool, Failure> {
    use tower_idempotency::internals::{List, Records as _};
    let disputed = from.store.list(List::Disputed, None, 1).await.map_err(Failure::of)?;
    Ok(!disputed.records.is_empty())
}
