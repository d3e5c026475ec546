# The six things one does here. Each calls cargo or `.ci/run`, and has no logic of its own.

_list:
    @just --list --unsorted

# All tests of the crate.
test:
    cargo test

# One subject: a file or a directory in tests/, such as `just subject traps_run`.
subject name *arguments:
    cargo test --test {{name}} {{arguments}}

# A laboratory, with its figures, such as `KILLS=1000 just laboratory kill_loop`. `flags` are cargo's, such as `--release`.
laboratory name *flags:
    cargo build {{flags}} --example payment_server
    cargo test {{flags}} --test {{name}} -- --nocapture

# A bench, such as `just bench replay`.
bench name *arguments:
    cargo bench --bench {{name}} {{arguments}}

# The documentation, in a browser.
doc:
    cargo doc --no-deps --all-features --open

# All checks.
ci:
    .ci/run
