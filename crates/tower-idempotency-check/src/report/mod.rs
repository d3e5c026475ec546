//! The forms of a report.

mod html;
mod junit;
mod text;

#[cfg(test)]
mod tests;
