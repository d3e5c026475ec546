//! `idem export`.

use std::collections::HashSet;
use std::io::{self, BufWriter, Write as _};

use serde_json::Map;
use tower_idempotency::operations::StateKind;

use crate::arguments::{Export, StoreOptions};
use crate::failure::{Ended, Failure};
use crate::open::Opened;
use crate::screen;

/// The number of operations that are read at a time.
const PAGE: usize = 1_000;

pub(crate) async fn run(options: &StoreOptions, export: Export) -> Result<Ended, Failure> {
    let opened = Opened::at(export.of.store.clone(), options).await?;
    let written = write(&opened, &export).await;
    opened.close().await?;
    written.map(|()| Ended::Well)
}

async fn write(opened: &Opened, export: &Export) -> Result<(), Failure> {
    let state = export.selected.state.unwrap_or(StateKind::Interrupted);
    let filter = export.selected.in_any_state().in_state(state);
    let (mut output, mut after, mut remark) = (BufWriter::new(io::stdout()), None, None);
    // One that changes between two pages may be on both.
    let mut written = HashSet::new();
    loop {
        let page = opened.operations.list(&filter, after.as_ref(), PAGE).await.map_err(Failure::of)?;
        for operation in page.operations.iter().filter(|operation| written.insert(operation.id)) {
            let mut line = screen::operation_as_json(operation, page.now);
            let keys = export.step.iter().filter_map(|step| Some((step.clone(), operation.derived_key(step)?.into())));
            line["derived_keys"] = keys.collect::<Map<_, _>>().into();
            writeln!(output, "{line}")?;
        }
        remark = remark.or_else(|| opened.remark(&page.operations));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    output.flush()?;
    remark.map_or(Ok(()), screen::remark)
}
