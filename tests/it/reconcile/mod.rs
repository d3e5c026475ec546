//! What was cut short is asked about, once, and settled as the application says (promise 5).

mod all;
mod faults;
mod one_question;
mod verdicts;
