//! `idem find`.

use serde_json::Value;
use tower_idempotency::{Key, Scope};

use crate::arguments::{OfStore, StoreOptions};
use crate::failure::{Ended, Failure};
use crate::input::{self, KeyInScope};
use crate::open::Opened;
use crate::screen::{self, Screen};

pub(crate) async fn run(options: &StoreOptions, of: OfStore, screen: Screen) -> Result<Ended, Failure> {
    let KeyInScope { scope, key } = input::key()?;
    let opened = Opened::at(of.store, options).await?;
    opened.closed_after(async |opened| look(opened, scope.as_ref(), &key, screen).await).await
}

async fn look(opened: &Opened, scope: Option<&Scope>, key: &Key, screen: Screen) -> Result<Ended, Failure> {
    let Some(found) = opened.operations.find(scope, key).await.map_err(Failure::of)? else {
        screen.answer(
            "no operation has this key in this scope: none was recorded, or its record has expired, or the service \
             has another scope for it. There are other ways: `idem show` with the eight digits that the client quotes \
             (record_id), and `idem ls --scope DIGEST` with the digest that the page or `idem show` shows for another \
             operation of this client",
            &Value::Null,
        )?;
        return Ok(Ended::Badly);
    };
    opened.say_remark(std::slice::from_ref(&found))?;
    let now = opened.now();
    screen.answer(screen::details(&found, now), &screen::operation_as_json(&found, now))?;
    Ok(Ended::Well)
}
