//! What was interrupted is asked about, once, and settled as the application says (promise 5).

mod all;
mod answers;
mod faults;
mod one_question;
mod slow;
mod verdicts;
