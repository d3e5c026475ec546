//! Pictures of the page, for the guide.

use std::path::PathBuf;

use crate::browser::Browser;

/// The directory of the pictures, if any are wanted.
pub(crate) struct Pictures(Option<PathBuf>);

const DESK: (u32, u32) = (1_000, 760);
const PHONE: (u32, u32) = (390, 760);

impl Pictures {
    pub(crate) fn wanted() -> Self {
        Self(std::env::var_os("SCREENSHOTS").map(PathBuf::from))
    }

    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Takes the page as it is, at a desk by day.
    pub(crate) async fn take(&self, browser: &Browser, name: &str) {
        self.take_as(browser, name, DESK, "light").await;
    }

    /// Takes the page by night.
    pub(crate) async fn take_dark(&self, browser: &Browser, name: &str) {
        self.take_as(browser, name, DESK, "dark").await;
    }

    /// Lets some time pass with traffic, so that there is something to see.
    pub(crate) async fn let_pass(&self, mut traffic: impl AsyncFnMut(usize)) {
        for number in 0..self.0.as_ref().map_or(0, |_| 90) {
            traffic(number).await;
        }
    }

    /// Takes the page on a phone.
    pub(crate) async fn take_phone(&self, browser: &Browser, name: &str) {
        self.take_as(browser, name, PHONE, "light").await;
    }

    async fn take_as(&self, browser: &Browser, name: &str, size: (u32, u32), scheme: &str) {
        browser.look(size, scheme).await;
        if let Some(directory) = &self.0 {
            std::fs::write(directory.join(format!("{name}.png")), browser.picture().await)
                .expect("the directory is there");
        }
        browser.look(DESK, "light").await;
    }
}
