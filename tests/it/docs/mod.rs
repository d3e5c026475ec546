//! What the documentation says is so: the table of failures and the README's table of options.

mod failure_table;
mod options;
