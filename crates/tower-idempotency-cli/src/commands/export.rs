//! `idem export`.

use std::collections::HashSet;
use std::io::{self, BufWriter, Write as _};
use std::pin::pin;

use futures_util::TryStreamExt as _;
use serde_json::Map;
use tower_idempotency::operations::StateKind;

use crate::arguments::{Export, StoreOptions};
use crate::failure::{Ended, Failure};
use crate::open::Opened;
use crate::screen;

pub(crate) async fn run(options: &StoreOptions, export: Export) -> Result<Ended, Failure> {
    let opened = Opened::at(export.of.store.clone(), options).await?;
    opened.closed_after(async |opened| write(opened, &export).await).await?;
    Ok(Ended::Well)
}

async fn write(opened: &Opened, export: &Export) -> Result<(), Failure> {
    let mut filter = export.selected.filter();
    filter.state.get_or_insert(StateKind::Interrupted);
    let (mut output, mut remark) = (BufWriter::new(io::stdout()), None);
    // One that changes between two pages may be on both.
    let mut written = HashSet::new();
    let mut operations = pin!(opened.each(Some(&filter)));
    while let Some(operation) = operations.try_next().await? {
        if !written.insert(operation.id) {
            continue;
        }
        let mut line = screen::operation_as_json(&operation, opened.now());
        let keys = export.step.iter().filter_map(|step| Some((step.clone(), operation.derived_key(step)?.into())));
        line["derived_keys"] = keys.collect::<Map<_, _>>().into();
        writeln!(output, "{line}")?;
        remark = remark.or_else(|| opened.remark(std::slice::from_ref(&operation)));
    }
    output.flush()?;
    remark.map_or(Ok(()), screen::remark)
}
