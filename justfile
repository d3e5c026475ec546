# Everyday commands. Each calls cargo or `.ci/run`, and has no logic of its own.

_list:
    @just --list --unsorted

# All tests of the crate.
test:
    cargo test

# One subject: a module of tests/it, such as `just subject fingerprint`.
subject name *arguments:
    cargo test --test it {{name}} {{arguments}}

# A laboratory, with its figures, such as `KILLS=1000 just laboratory kill_loop`. `flags` are cargo's, such as `--release`.
laboratory name *flags:
    cargo test {{flags}} --package laboratories --test {{name}} -- --nocapture

# A bench, such as `just bench replay`.
bench name *arguments:
    cargo bench --bench {{name}} {{arguments}}

# The documentation, in a browser.
doc:
    cargo doc --no-deps --all-features --open

# What to run before a change is sent: about ten minutes from nothing, two after that.
check:
    cargo fmt --all --check
    .ci/traps
    .ci/separations
    .ci/words
    cargo clippy --all-targets --all-features -- -D warnings
    cargo test
    .ci/surface

# All checks.
ci:
    .ci/run
