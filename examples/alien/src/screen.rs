//! What is shown while it runs: a table in a terminal, and lines elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table, Wrap};
use ratatui::{DefaultTerminal, Frame};

use crate::counts::{Side, Story};

/// How often there is a line, where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// What is seen, in one sentence.
const SEEN: &str = "The same customers pay a naive server and one with tower-idempotency while an alien swallows, doubles \
                    and delays messages and stops the servers; the numbers of a side are of one moment, and CHARGED TWICE \
                    and LOST have to stay 0.";

/// Whether a number of this name has to be zero.
pub(crate) fn is_verdict(name: &str) -> bool {
    matches!(name, "CHARGED TWICE" | "LOST")
}

/// Where it is shown.
pub(crate) enum Screen {
    Terminal(DefaultTerminal),
    Lines(Instant),
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if matches!(self, Self::Terminal(_)) { "Terminal" } else { "Lines" })
    }
}

impl Screen {
    /// Takes the terminal, if there is one.
    pub(crate) fn open() -> Self {
        if io::stdout().is_terminal() {
            return Self::Terminal(ratatui::init());
        }
        println!("{SEEN}");
        Self::Lines(Instant::now())
    }

    /// Shows this moment. The error [`Interrupted`](io::ErrorKind::Interrupted): the user wants to stop.
    pub(crate) fn show(&mut self, story: &Story) -> io::Result<()> {
        match self {
            Self::Terminal(terminal) => {
                terminal.draw(|frame| draw(frame, story))?;
                if is_stopped()? { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
            }
            Self::Lines(last) if last.elapsed() > LINE_EVERY => {
                *last = Instant::now();
                let mut out = io::stdout().lock();
                for side in Side::BOTH {
                    let numbers = story.numbers(side).map(|(name, number)| format!("{name} {number}")).join(", ");
                    writeln!(out, "{:>3} s  {:18} {numbers}", story.at() / 1_000, side.name())?;
                }
                Ok(())
            }
            Self::Lines(_) => Ok(()),
        }
    }

    /// Gives the terminal back.
    pub(crate) fn close(self) {
        if matches!(self, Self::Terminal(_)) {
            ratatui::restore();
        }
    }
}

/// Whether `q` or Ctrl-C was pressed. The terminal sends no signal while this program draws on it.
fn is_stopped() -> io::Result<bool> {
    while event::poll(Duration::ZERO)? {
        if let Event::Key(key) = event::read()? {
            let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
            if key.code == KeyCode::Char('q') || with_control && key.code == KeyCode::Char('c') {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn draw(frame: &mut Frame<'_>, story: &Story) {
    let sides = Side::BOTH.map(|side| story.numbers(side));
    let row = |index: usize| {
        let [naive, ours] = sides.each_ref().map(|side| side[index]);
        let is_bad = is_verdict(naive.0);
        let cell = |number: u64| {
            let color = if number > 0 { Color::Red } else { Color::Green };
            let style = if is_bad { Style::new().fg(color).bold() } else { Style::new() };
            Cell::from(format!("{number:>12}")).style(style)
        };
        Row::new([Cell::from(naive.0), cell(naive.1), cell(ours.1)])
    };
    let last = story.blows().last().map_or_else(String::new, |blow| format!(" {} ", blow.what));
    let head = Row::new(["".to_owned(), format!("{:>12}", Side::Naive.name()), Side::Ours.name().to_owned()]).bold();
    let title = format!(" the alien, {} s ", story.at() / 1_000);
    let widths = [Constraint::Length(16), Constraint::Length(14), Constraint::Length(18)];
    let table = Table::new((0..sides[0].len()).map(row), widths)
        .header(head)
        .block(Block::bordered().title(title).title_bottom(last));
    let [above, below] = Layout::vertical([Constraint::Length(4), Constraint::Fill(1)]).areas(frame.area());
    frame.render_widget(Paragraph::new(SEEN).wrap(Wrap { trim: true }), above);
    frame.render_widget(table, below);
}
