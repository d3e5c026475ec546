//! The commands that are for a store, but `doctor`: one file each, and what they share.
//!
//! - `look_up.rs`: finds the operation that an argument names.
//! - `change.rs`: makes a change, and says what became of it. `settle_all.rs`, `settle_file.rs`: many of them.

mod change;
mod copy;
mod export;
mod find;
mod forget;
mod look_up;
mod ls;
mod migrations;
mod outbox;
mod settle;
mod settle_all;
mod settle_file;
mod show;
mod verify;

pub(crate) use outbox::run as run_outbox;

use crate::arguments::{StoreCommand, StoreOptions};
use crate::failure::{Ended, Failure};
use crate::screen::Screen;

pub(crate) async fn run(options: &StoreOptions, command: StoreCommand, screen: Screen) -> Result<Ended, Failure> {
    match command {
        StoreCommand::Ls(ls) => ls::run(options, *ls, screen).await,
        StoreCommand::Find(find) => find::run(options, find, screen).await,
        StoreCommand::Show(show) => show::run(options, show, screen).await,
        StoreCommand::Export(export) => export::run(options, *export).await,
        StoreCommand::Settle(settle) => settle::run(options, *settle, screen).await,
        StoreCommand::Forget(forget) => forget::run(options, forget, screen).await,
        StoreCommand::Verify(verify) => verify::run(options, verify, screen).await,
        StoreCommand::Copy(copy) => copy::run(options, copy, screen).await,
        StoreCommand::Migrations(migrations) => migrations::run(options, &migrations, screen),
        StoreCommand::Doctor(doctor) => crate::doctor::run(options, doctor, screen).await,
    }
}
