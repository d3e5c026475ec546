//! `idem check`.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use tower_idempotency_check::{Plan, Settings};

use crate::arguments::Check;
use crate::failure::{Ended, Failure};
use crate::screen::Screen;
use crate::text;

pub(crate) async fn run(check: Check, screen: Screen) -> Result<Ended, Failure> {
    let is_meant = check.yes;
    let (junit, html) = (check.junit.clone(), check.html.clone());
    let plan = Plan::new(settings(check)?).map_err(Failure::usage)?;
    if !plan.is_local() && !is_meant {
        let origin = plan.origin();
        return Err(Failure::Usage(format!(
            "{origin} is not on this machine, and the checks make effects there. If that is meant, add --yes"
        )));
    }
    // Before the run, which makes effects.
    let files = [junit.map(created).transpose()?, html.map(created).transpose()?];
    let mut endpoint = String::new();
    let report = plan
        .run(|checked| {
            // The run goes on, and decides the exit code, if its reader has gone.
            if endpoint != checked.endpoint {
                endpoint.clone_from(&checked.endpoint);
                let _ = screen.line(&endpoint);
            }
            let _ = screen.line(checked.line());
        })
        .await;
    for (file, text) in files.into_iter().zip([report.to_junit(), report.to_html()]) {
        if let Some((path, mut file)) = file {
            let written = file.write_all(text.as_bytes());
            written.map_err(|error| Failure::Store(format!("{}: {error}", path.display())))?;
        }
    }
    let _ = if screen.is_json {
        screen.answer("", &serde_json::to_value(&report).unwrap_or_default())
    } else {
        screen.line(report.to_text())
    };
    Ok(match report.exit_code() {
        0 => Ended::Well,
        1 => Ended::Badly,
        _ => Ended::Unchecked,
    })
}

fn created(path: PathBuf) -> Result<(PathBuf, File), Failure> {
    let file = File::create(&path).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    Ok((path, file))
}

/// Reads the plan, and puts the command line over it and over each of its endpoints.
fn settings(check: Check) -> Result<Settings, Failure> {
    let plan = match &check.plan {
        Some(file) => Settings::from_toml(&text::of_file(file)?)
            .map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))?,
        None => Settings::default(),
    };
    if check.url.is_some() && plan.endpoint.iter().any(|endpoint| endpoint.url.is_some()) {
        return Err(Failure::usage("the plan's endpoints have URLs of their own: leave out the one here"));
    }
    let mut given = Settings::default();
    macro_rules! texts { ($($field:ident),*) => { $(given.$field = check.$field;)* }; }
    macro_rules! bodies { ($($field:ident),*) => { $(given.$field = check.$field.map(body).transpose()?;)* }; }
    texts!(
        url, profile, judge, tool, key_from, count, other_account, other_path, method, key_header, restart, kill,
        max_requests, retention
    );
    texts!(headers, only);
    bodies!(data, other_data, declined, server_error, rate_limited, slow);
    Ok(given.over_plan(plan))
}

/// A body is given as it is, or as `@FILE`.
fn body(text: String) -> Result<String, Failure> {
    text.strip_prefix('@').map_or_else(|| Ok(text.clone()), |file| text::of_file(Path::new(file)))
}
