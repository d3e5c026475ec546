//! What `--help` says.

use crate::program::idem;

fn help(command: &[&str]) -> String {
    let said = idem(&[command, &["--help"]].concat());
    assert_eq!(said.code, 0, "{said:?}");
    said.stdout
}

#[test]
fn the_exit_codes_are_those_of_the_guide() {
    let guide = include_str!("../../../../docs/running/idem.md");
    let help = help(&[]);
    for meaning in ["2 wrong usage, or not confirmed", "1 not found, nothing changed, or a fault found"] {
        assert!(help.contains(meaning), "{help}");
        assert!(guide.contains(&format!("| {} |", meaning.replacen(' ', " | ", 1))), "{meaning}");
    }
}

#[test]
fn the_options_of_every_command_come_after_its_own() {
    for (command, own) in [
        ("ls", &["--state", "--cause", "--label", "--since", "--before", "--limit", "--after"][..]),
        ("show", &["--body"]),
        ("settle", &["--fence", "--answer", "--release", "--from"]),
        ("export", &["--state", "--since", "--step"]),
        ("forget", &["--fence", "--answer", "--yes"]),
    ] {
        let help = help(&[command]);
        let (own_options, common) = help.split_once("Options of every command:").unwrap();
        for option in own {
            assert!(own_options.contains(option), "{option}: {help}");
        }
        for option in ["--json", "--wait", "--schema", "--behind-pooler", "--ca"] {
            // `--cause` is another option than `--ca`.
            let has = |text: &str| {
                text.split(|char: char| !char.is_ascii_alphabetic() && char != '-').any(|word| word == option)
            };
            assert!(has(common) && !has(own_options), "{option}: {help}");
        }
    }
}

#[test]
fn an_option_is_where_it_does_something() {
    for command in ["ls", "find", "show", "forget", "verify", "copy", "doctor"] {
        assert!(!help(&[command]).contains("--retention"), "{command}");
    }
    assert!(help(&["settle"]).contains("--retention"));
}

#[test]
fn words_of_its_own_are_explained() {
    for command in ["settle", "forget"] {
        assert!(help(&[command]).contains("a number that grows with"), "{command}");
    }
    assert!(help(&["forget"]).contains("The key stays used: retries get `not-replayable`"));
    assert!(help(&["ls"]).contains("consumed (done, but its answer was not kept)"));
}

#[test]
fn each_store_is_named_where_one_is_taken() {
    for command in ["ls", "export", "find", "show", "settle", "forget", "verify", "copy", "doctor"] {
        let help = help(&[command]);
        let redis = if command == "copy" { "a URL of PostgreSQL or Redis" } else { "redis://USER@HOST" };
        for store in ["sled:PATH", "fjall:PATH", redis] {
            assert!(help.contains(store), "{command}: {help}");
        }
    }
    assert!(help(&["copy"]).contains("may be run again"));
}

#[test]
fn the_commands_of_the_readme_are_understood() {
    let readme = include_str!("../../README.md");
    let commands: Vec<_> = readme.lines().filter_map(|line| line.strip_prefix("$ idem ")).collect();
    assert!(commands.len() >= 3, "{commands:?}");
    for command in commands {
        let words = command.split('#').next().unwrap_or_default().split_whitespace().map(|word| match word {
            word if word.starts_with("sled:") => "sled:/nowhere",
            word if word.starts_with("postgres:") => "postgres://127.0.0.1:1/nowhere",
            word if word.starts_with("redis:") => "redis://127.0.0.1:1",
            word => word,
        });
        let said = idem(&words.collect::<Vec<_>>());
        // There is no such store. What clap does not understand has a line on its usage.
        assert!(said.code != 0 && !said.stderr.contains("Usage"), "{command}: {said:?}");
    }
}
