# Everyday commands. Each calls cargo, or `.ci/run`, which has all checks.

_list:
    @just --list --unsorted

# All tests of the crate.
test:
    .ci/run test

# One subject: a module of tests/it, such as `just subject fingerprint`.
subject name *arguments:
    cargo test --test it {{name}} {{arguments}}

# A laboratory, with its figures, such as `KILLS=1000 just laboratory kill_loop`. `flags` are cargo's, such as `--release`.
laboratory name *flags:
    cargo test {{flags}} --package laboratories --test {{name}} -- --nocapture

# A bench, such as `just bench replay`.
bench name *arguments:
    cargo bench --features fjall --bench {{name}} {{arguments}}

# The documentation, in a browser.
doc:
    cargo doc --no-deps --all-features --open

# The checks of a small change.
check:
    .ci/run small

# The whole run.
ci:
    .ci/run
