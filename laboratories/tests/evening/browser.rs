//! A browser without a window, through its driver (WebDriver, W3C).

use std::io::{self, BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::process::until;
use testkit::{Call, Connection, skipped};

/// The key under which an element's name is sent.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// What a program sends for these keys of a keyboard.
pub(crate) const TAB: &str = "\u{e004}";
pub(crate) const ENTER: &str = "\u{e007}";
/// How often a driver is started before the test fails.
const STARTS: usize = 50;

/// A browser with an empty profile. Ended, with its driver, when dropped.
pub(crate) struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _profile: TempDir,
}

/// What is different about a browser.
#[derive(Default)]
pub(crate) struct Manner {
    /// Arguments besides those that keep it to itself.
    pub(crate) arguments: &'static [&'static str],
    pub(crate) has_no_javascript: bool,
}

/// Starts a driver. It ends at once if the port that is free on `::1` is in use on 127.0.0.1, which every connection of
/// every test needs one of; then another is started.
fn start_driver() -> io::Result<(Child, SocketAddr)> {
    let mut command = Command::new("chromedriver");
    // The browser belongs to the driver's group, and ends with it.
    command.arg("--port=0").process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut said = Vec::new();
    for _ in 0..STARTS {
        let mut driver = command.spawn()?;
        let mut lines = BufReader::new(driver.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            let port = line.strip_suffix('.').and_then(|line| line.split_once(" on port ")?.1.parse().ok());
            said.push(line);
            port
        });
        if let Some(port) = port {
            // It goes on writing.
            std::thread::spawn(move || lines.for_each(drop));
            return Ok((driver, SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
        }
        driver.wait()?;
    }
    panic!("chromedriver does not listen: {}", said.join("\n"));
}

impl Browser {
    /// Starts a browser; `None` if there is none on this machine.
    pub(crate) async fn start(promise: &str, manner: Manner) -> Option<Self> {
        let profile = tempfile::tempdir().expect("a temporary directory");
        let (driver, address) = match start_driver() {
            Ok(started) => started,
            Err(error) => {
                skipped(promise, &format!("chromedriver (package chromium-driver): {error}"));
                return None;
            }
        };
        let mut browser = Self { driver, address, session: String::new(), _profile: profile };
        let wanted = browser.wanted(&manner);
        let session = browser.call(Method::POST, "/session", wanted).await;
        browser.session = session["sessionId"].as_str().expect("a session").to_owned();
        Some(browser)
    }

    fn wanted(&self, manner: &Manner) -> Value {
        let profile = format!("--user-data-dir={}", self._profile.path().display());
        let own = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--hide-scrollbars", &profile,
        ];
        let arguments: Vec<_> = own.iter().chain(manner.arguments).collect();
        let javascript = json!({ "profile.managed_default_content_settings.javascript": 2 });
        let prefs = if manner.has_no_javascript { javascript } else { json!({}) };
        let options = json!({ "args": arguments, "prefs": prefs });
        json!({ "capabilities": { "alwaysMatch": { "browserName": "chrome", "goog:chromeOptions": options } } })
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> Value {
        self.try_call(method, path, body).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    async fn try_call(&self, method: Method, path: &str, body: Value) -> Result<Value, String> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let call = Call { method, body, ..Call::get(path) }.header("host", "localhost");
        let mut connection = Connection::http1(self.address).await.expect("the driver listens");
        let answer = connection.send(&call).await.expect("the driver answers").json();
        match answer["value"]["error"].as_str() {
            Some(error) => Err(format!("{error}: {}", answer["value"]["message"])),
            None => Ok(answer["value"].clone()),
        }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.call(Method::POST, &format!("/session/{}{path}", self.session), body).await
    }

    async fn get(&self, path: &str) -> Value {
        self.call(Method::GET, &format!("/session/{}{path}", self.session), Value::Null).await
    }

    pub(crate) async fn go(&self, url: &str) {
        self.post("/url", json!({ "url": url })).await;
    }

    pub(crate) async fn url(&self) -> String {
        self.get("/url").await.as_str().expect("a text").to_owned()
    }

    /// The elements that a CSS selector selects.
    pub(crate) async fn all(&self, selector: &str) -> Vec<String> {
        let found = self.post("/elements", json!({ "using": "css selector", "value": selector })).await;
        let names =
            found.as_array().expect("a list").iter().map(|found| found[ELEMENT].as_str().expect("a name").to_owned());
        names.collect()
    }

    /// The one element that a CSS selector selects, once it is there: the browser may be on its way to another page.
    pub(crate) async fn one(&self, selector: &str) -> String {
        until(&format!("one {selector}"), async || self.all(selector).await.len() == 1).await;
        self.all(selector).await.remove(0)
    }

    /// The text of an element, as it is seen.
    pub(crate) async fn text(&self, selector: &str) -> String {
        let element = self.one(selector).await;
        self.get(&format!("/element/{element}/text")).await.as_str().expect("a text").to_owned()
    }

    /// The name that a screen reader says of an element, and what it says that it is.
    pub(crate) async fn said(&self, element: &str) -> (String, String) {
        let text = |value: Value| value.as_str().unwrap_or_default().to_owned();
        let name = text(self.get(&format!("/element/{element}/computedlabel")).await);
        (name, text(self.get(&format!("/element/{element}/computedrole")).await))
    }

    pub(crate) async fn click(&self, selector: &str) {
        let element = self.one(selector).await;
        self.post(&format!("/element/{element}/click"), json!({})).await;
    }

    /// Enters a text in the place of what was there.
    pub(crate) async fn enter(&self, selector: &str, text: &str) {
        let element = self.one(selector).await;
        self.post(&format!("/element/{element}/clear"), json!({})).await;
        self.post(&format!("/element/{element}/value"), json!({ "text": text })).await;
    }

    /// Presses keys, one after the other, wherever the focus is.
    pub(crate) async fn press(&self, keys: &str) {
        let steps: Vec<_> = keys
            .chars()
            .flat_map(|key| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })])
            .collect();
        self.post("/actions", json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": steps }] })).await;
    }

    /// Presses the tabulator until this element has the focus.
    pub(crate) async fn tab_to(&self, selector: &str) {
        let wanted = self.one(selector).await;
        for _ in 0..200 {
            self.press(TAB).await;
            if self.get("/element/active").await[ELEMENT] == wanted {
                return;
            }
        }
        panic!("{selector} can't be reached with the keyboard at {}", self.url().await);
    }

    /// Looks into a frame from here on.
    pub(crate) async fn enter_frame(&self, selector: &str) {
        let frame = self.one(selector).await;
        self.post("/frame", json!({ "id": { ELEMENT: frame } })).await;
    }

    /// What the browser has complained about: files that are missing, and what a policy forbids.
    pub(crate) async fn errors(&self) -> Vec<String> {
        let log = self.post("/se/log", json!({ "type": "browser" })).await;
        log.as_array().expect("a list").iter().map(|entry| entry["message"].to_string()).collect()
    }

    pub(crate) async fn script(&self, script: &str) -> Value {
        self.post("/execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// Calls the browser's own protocol.
    pub(crate) async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.post("/goog/cdp/execute", json!({ "cmd": command, "params": parameters })).await
    }

    /// Sets the size of the window, in CSS pixels, and what the person's system asks for.
    pub(crate) async fn look(&self, (width, height): (u32, u32), scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// The window as a PNG.
    pub(crate) async fn picture(&self) -> Vec<u8> {
        let picture = self.get("/screenshot").await;
        STANDARD.decode(picture.as_str().expect("a text")).expect("Base64")
    }

    /// Waits until the text of an element is as wanted, while the browser may be on its way to another page.
    pub(crate) async fn until_text(&self, selector: &str, is_wanted: impl Fn(&str) -> bool) {
        let look = async || self.seen(selector).await.is_ok_and(|text| is_wanted(&text));
        until(&format!("the text of {selector}"), look).await;
    }

    async fn seen(&self, selector: &str) -> Result<String, String> {
        let session = format!("/session/{}", self.session);
        let wanted = json!({ "using": "css selector", "value": selector });
        let element = self.try_call(Method::POST, &format!("{session}/element"), wanted).await?;
        let element = element[ELEMENT].as_str().unwrap_or_default();
        let text = self.try_call(Method::GET, &format!("{session}/element/{element}/text"), Value::Null).await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Errors: they have ended already.
        let _ = Command::new("sh").args(["-c", "kill -s KILL -- -$0", &self.driver.id().to_string()]).status();
        let _ = self.driver.wait();
    }
}
