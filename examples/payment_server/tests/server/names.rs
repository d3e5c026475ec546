//! The names of stores, variables and files: what is not recognised is refused, and no password is shown.

use tempfile::{TempDir, tempdir};
use testkit::payment_server::Setup;

const CANARY: &str = "canary-5e7c";

/// Runs a server that does not start, and returns what it says.
fn refused(directory: &TempDir, code: i32, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    refused_setup(directory, &Setup::new(directory), code, arguments, variables)
}

fn refused_setup(
    directory: &TempDir,
    setup: &Setup,
    code: i32,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> String {
    let mut command = setup.command();
    command.args(arguments).current_dir(directory.path()).envs(variables.iter().copied());
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(!said.contains(CANARY), "{arguments:?}: {said}");
    assert!(!setup.data.exists(), "{arguments:?}: nothing was opened");
    said
}

fn is_empty(directory: &TempDir) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn a_name_that_is_no_stores_is_refused_and_makes_nothing() {
    let directory = tempdir().unwrap();
    let redis = format!("redis://:{CANARY}@127.0.0.1:1");
    let postgres = format!("postgres://u:{CANARY}@127.0.0.1:1/d");
    for (name, hint) in [
        (format!("\"{redis}\""), "quotes"),
        (format!("'{postgres}'"), "quotes"),
        ("\"sled:x\"".to_owned(), "quotes"),
        ("sled:\"x\"".to_owned(), "quotes"),
        ("sled: x".to_owned(), "blanks"),
        (format!("{postgres}\n"), "line breaks"),
        (format!("\u{feff}{redis}"), "invisible"),
        (format!("sled:{redis}"), "no ://"),
        ("sled:$HOME/x".to_owned(), "variable"),
        ("fjall:~/x".to_owned(), "variable"),
        ("sled:".to_owned(), "variable"),
        ("undefined".to_owned(), "variable"),
        (format!("REDIS://:{CANARY}@h"), "small letters"),
        ("10.0.0.7:6379".to_owned(), "the URL alone"),
        ("./payments.db".to_owned(), "write the engine"),
        ("Sled".to_owned(), "small letters"),
    ] {
        let said = refused(&directory, 1, &["--store", &name], &[]);
        assert!(said.contains(hint) && said.contains("--store is not understood"), "{name:?}: {said}");
    }
    let of = |data: &str| {
        let mut setup = Setup::new(&directory);
        setup.data = data.into();
        setup
    };
    // The directory of the charges is another's, too, if a variable in it was not set.
    for data in ["", "\"./x\"", "undefined", "${DATA}/x", &redis, "~/x", "cache:6379"] {
        let setup = of(data);
        let said = refused_setup(&directory, &setup, 2, &["--store", "memory"], &[]);
        assert!(said.contains("--data"), "{data:?}: {said}");
    }
    for namespace in ["", "'a'", " a", "a\n", "$NAME", "undefined"] {
        let arguments = ["--store", "redis://127.0.0.1:1", &format!("--namespace={namespace}")];
        assert!(refused(&directory, 2, &arguments, &[]).contains("--namespace"), "{namespace:?}");
    }
    for arguments in [&[&*redis][..], &["--listen", &redis], &["--lease", &redis], &["--on-in-flight", &redis]] {
        refused(&directory, 2, arguments, &[]);
    }
    assert!(is_empty(&directory), "no directory was made");
}

#[test]
fn a_variable_of_this_server_that_is_no_setting_is_refused() {
    let directory = tempdir().unwrap();
    // It is wrong in what is looked at after the variables, too.
    let with = |name: &str, value: &str| refused(&directory, 1, &["--store", "undefined"], &[(name, value)]);
    for name in ["PAYMENTS_RETENTION", "PAYMENTS_LAYER_RETENTION", "PAYMENTS_STORE"] {
        assert!(with(name, CANARY).contains(&format!("the variable {name} is no setting")), "{name}");
    }
    for (name, value) in [("PAYMENTS_LAYER__RETENTIONS", "48h"), ("PAYMENTS_LAYERS__RETENTION", "48h")] {
        assert!(with(name, value).contains("unknown field"), "{name}");
    }
    assert!(with("PAYMENTS_LAYER__RETENTION", "").contains("a duration"));
    // Kubernetes sets these for the services `payments` and `payments-layer`.
    for name in [
        "PAYMENTS_SERVICE_HOST", "PAYMENTS_SERVICE_PORT", "PAYMENTS_SERVICE_PORT_HTTP", "PAYMENTS_PORT",
        "PAYMENTS_PORT_80_TCP", "PAYMENTS_PORT_80_TCP_ADDR", "PAYMENTS_LAYER_SERVICE_HOST", "PAYMENTS_LAYER_PORT",
    ] {
        assert!(with(name, "10.0.0.7").contains("--store is not understood"), "{name}");
    }
}

#[test]
fn a_mark_of_utf_8_is_skipped_in_a_file_of_settings_and_utf_16_is_named() {
    let directory = tempdir().unwrap();
    for (name, text) in [
        ("settings.toml", "[layer]\nretention = \"48h\"\n"),
        ("settings.json", "{\"layer\": {\"retention\": \"48h\"}}"),
    ] {
        let file = directory.path().join(name);
        let arguments = ["--store", "undefined", "--config", name];
        std::fs::write(&file, format!("\u{feff}{text}")).unwrap();
        assert!(refused(&directory, 1, &arguments, &[]).contains("--store is not understood"));
        for text in [format!("\u{feff}{text}"), text.to_owned()] {
            std::fs::write(&file, text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()).unwrap();
            assert!(refused(&directory, 1, &arguments, &[]).contains("UTF-16: save it as UTF-8"));
        }
    }
}
