//! Effect and record in one transaction: both are there or neither, whatever fails (promises 1 to 3).

#[cfg(unix)]
mod disk;
mod effect_and_record;
mod faults;
mod refused;
mod what_is_left;
mod without_a_run;
