//! One effect per key while the first request still runs: duplicates, waiters, layers within each other and other
//! processes (promise 1).

mod copied;
mod layers;
mod nested;
mod one_run;
mod second_process;
mod waiters_are_told;
mod waiting;
