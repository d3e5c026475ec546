//! One effect per key while the first request still runs: duplicates, waiters and layers within each other (promise 1).

mod copied;
mod layers;
mod nested;
mod one_run;
mod waiters_are_told;
mod waiting;
