//! The application is asked about each interrupted operation once, and its answer settles the operation (promise 5).

mod all;
mod answers;
mod faults;
mod one_question;
mod others;
mod slow;
mod verdicts;
