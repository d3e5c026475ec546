//! The evening, step by step, as the guide's page "The operators' page" tells it.

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::payment_server::{Server, Setup};
use testkit::process::{eventually, until};
use testkit::{Call, Connection};

use crate::alert;
use crate::browser::{Browser, ENTER};
use crate::pictures::Pictures;

const KEY: &str = "order-17";
const OWNER: &str = "Bearer alice";

/// Waits as long as five polls take.
const FIVE_ANSWERS: &str =
    "return (async () => { for (let n = 0; n < 5; n += 1) await (await fetch('/admin/api/stats')).text() })()";

/// How the operator uses the page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hands {
    /// With JavaScript.
    Mouse,
    /// Without JavaScript.
    Keyboard,
}

pub(crate) struct Evening {
    pub(crate) setup: Setup,
    pub(crate) browser: Browser,
    pub(crate) pictures: Pictures,
    pub(crate) hands: Hands,
}

fn charge(source: &str) -> Call {
    Call::charge(KEY, source).header("authorization", OWNER)
}

/// Some charges of other clients, each sent twice.
async fn traffic(server: &Server, name: &str) {
    for number in 0..20 {
        let call = Call::charge(&format!("{name}-{number}"), "tok_visa");
        for is_replay in [false, true] {
            assert_eq!(server.send(&call).await.is_replay(), is_replay);
        }
    }
}

/// Half a second of it, more or less, so that there is something to draw.
async fn some_traffic(server: &Server, number: usize) {
    let begin = Instant::now();
    let wave = 8.0 + 6.0 * (number as f64 / 9.0).sin() + (number % 7) as f64;
    for charge in 0..wave as usize {
        let call = Call::charge(&format!("picture-{number}-{charge}"), "tok_visa");
        for _ in 0..1 + (number / 20) % 2 {
            server.send(&call).await;
        }
    }
    tokio::time::sleep(Duration::from_millis(500).saturating_sub(begin.elapsed())).await;
}

/// The ledger knows of one charge with this derived key: its JSON.
async fn charged(server: &Server, derived_key: &str) -> String {
    let list = server.send(&Call::get("/v1/charges").header("authorization", OWNER)).await.json();
    let charges = list["data"].as_array().expect("a list");
    assert_eq!(charges.len(), 2, "an equal one, and this one: {list}");
    let mut found = charges.iter().filter(|charge| charge["derived_key"] == derived_key);
    let charge = found.next().unwrap_or_else(|| panic!("no charge has {derived_key}: {list}"));
    assert!(found.next().is_none(), "{list}");
    charge.to_string()
}

impl Evening {
    pub(crate) async fn pass(&self) {
        let mut server = self.setup.start();
        traffic(&server, "before").await;
        assert!(!alert::is_true(&server).await, "nothing is interrupted yet");

        // The same client has an equal order.
        let equal = Call::charge("order-16", "tok_visa").header("authorization", OWNER);
        assert_eq!(server.send(&equal).await.status, 200);

        // The process dies after the charge and before its answer.
        let mut connection = Connection::http1(server.address).await.expect("the server listens");
        connection.send(&charge("tok_crash")).await.expect_err("the process ends before any answer");
        assert_eq!(server.exit().await.code(), Some(70));
        let server = self.setup.start();
        traffic(&server, "after").await;
        until("the alert's condition is true", async || alert::is_true(&server).await).await;

        // The client asks again, is refused, and quotes eight digits.
        let refused = server.send_until_settled(&charge("tok_crash")).await;
        assert_eq!(refused.refusal(), (409, "outcome-unknown".to_owned()));
        let quoted = refused.json()["record_id"].as_str().expect("a record id").to_owned();

        self.look(&server).await;
        self.find(&quoted).await;
        let derived = self.derived_key().await;
        let found = charged(&server, &derived).await;
        self.settle(&found).await;

        let replay = server.send(&charge("tok_crash")).await;
        assert_eq!((replay.status.as_u16(), replay.is_replay()), (200, true), "{}", replay.text());
        assert_eq!(replay.text(), found);
        assert_eq!(charged(&server, &derived).await, found, "there is one charge");
        until("the alert's condition is false", async || !alert::is_true(&server).await).await;
        self.audited(&server, &quoted).await;
        server.stop().await;
    }

    /// The page shows what the alert was about.
    async fn look(&self, server: &Server) {
        let page = &self.browser;
        page.go(&format!("http://{}/admin", server.address)).await;
        assert_eq!(page.text("[data-summary=interrupted] [data-part=count]").await, "1");
        assert_eq!(page.all("table.operations tbody tr").await.len(), 1);
        self.is_said_in_words().await;
        if self.hands == Hands::Keyboard {
            assert!(page.all(".script-only:not([hidden])").await.is_empty(), "this needs a script");
            return;
        }
        self.pictures.take(page, "list-light").await;
        self.live(server).await;
        for size in [(390, 760), (320, 600), (1_400, 900)] {
            page.look(size, "light").await;
            let is_too_wide = "return document.documentElement.scrollWidth > document.documentElement.clientWidth";
            assert_eq!(page.script(is_too_wide).await, false, "{size:?}");
        }
        page.script("scrollTo(0, 0)").await;
        self.pictures.take_phone(page, "list-phone").await;
    }

    /// Each control has a name for those who do not see it.
    async fn is_said_in_words(&self) {
        for element in self.browser.all("a, button, input:not([type=hidden]), select, textarea, table").await {
            let (name, role) = self.browser.said(&element).await;
            // What is hidden has no role.
            assert!(!name.is_empty() || role == "none", "a {role} has no name at {}", self.browser.url().await);
        }
    }

    /// The numbers move, until they are paused.
    async fn live(&self, server: &Server) {
        let page = &self.browser;
        let runs = "[data-count=runs] [data-part=total]";
        page.until_text("[data-count=runs] [data-part=rate]", |rate| rate != "–").await;
        let before = page.text(runs).await;
        traffic(server, "live").await;
        page.until_text(runs, |runs| runs != before).await;
        page.until_text("[data-time=claim] [data-part=median]", |median| median != "–").await;
        assert!(!page.all("[data-count=runs] svg polyline").await.is_empty(), "it is drawn");
        self.pictures.let_pass(async |number| some_traffic(server, number).await).await;
        page.script("document.getElementById('live').scrollIntoView()").await;
        self.pictures.take_dark(page, "live-dark").await;
        // From here on it asks again at once.
        page.script("const wait = setTimeout; polls = 0; setTimeout = (f) => { polls += 1; return wait(f, 0) }").await;
        until("it asks again and again", async || page.script("return polls").await.as_u64() > Some(3)).await;
        page.click("#pause").await;
        assert_eq!(page.text("#pause").await, "Go on");
        assert_eq!(page.text("#live-status").await, "Paused.");
        // What was asked before is answered by then.
        page.script(FIVE_ANSWERS).await;
        let (paused, polls) = (page.text(runs).await, page.script("return polls").await);
        traffic(server, "paused").await;
        page.script(FIVE_ANSWERS).await;
        assert_eq!((page.text(runs).await, page.script("return polls").await), (paused.clone(), polls));
        page.click("#pause").await;
        page.until_text(runs, |runs| runs != paused).await;
        self.asks_for_less_motion().await;
    }

    /// A system that asks for less motion gets a view that begins paused.
    async fn asks_for_less_motion(&self) {
        let page = &self.browser;
        let less = json!({ "features": [{ "name": "prefers-reduced-motion", "value": "reduce" }] });
        page.devtools("Emulation.setEmulatedMedia", less).await;
        page.go(&page.url().await).await;
        page.until_text("#pause", |text| text == "Go on").await;
        assert!(page.text("#live-status").await.contains("less motion"));
        page.script(FIVE_ANSWERS).await;
        assert_eq!(page.text("[data-count=runs] [data-part=rate]").await, "–");
        page.devtools("Emulation.setEmulatedMedia", json!({ "features": [] })).await;
        page.go(&page.url().await).await;
    }

    /// The operator finds the operation by what the client knows.
    async fn find(&self, quoted: &str) {
        let page = &self.browser;
        match self.hands {
            Hands::Mouse => {
                page.enter("#key", KEY).await;
                page.enter("#owner", OWNER).await;
                page.click("form.find button").await;
            }
            Hands::Keyboard => {
                page.tab_to("#key").await;
                page.press(KEY).await;
                page.tab_to("#owner").await;
                page.press(OWNER).await;
                page.tab_to("form.find button").await;
                page.press(ENTER).await;
            }
        }
        page.until_text("h1", |title| title.starts_with("Operation ")).await;
        assert!(page.text("h1").await.ends_with(quoted), "it is the one that the client quotes");
        let url = page.url().await;
        assert!(!url.contains(KEY) && !url.contains("alice"), "{url}");
        self.is_said_in_words().await;
        if self.hands == Hands::Mouse {
            self.pictures.take_dark(page, "operation-dark").await;
        }
    }

    /// The page says by which key the charge is found.
    async fn derived_key(&self) -> String {
        let facts = self.browser.text("dl.facts").await;
        let (_, rest) = facts.split_once("Derived key, charge").expect("it is shown");
        rest.split_whitespace().next().expect("a key").to_owned()
    }

    /// The operator gives retries the charge that was found, after reading what that leads to.
    async fn settle(&self, found: &str) {
        let page = &self.browser;
        match self.hands {
            Hands::Mouse => {
                page.enter("#body", found).await;
                page.click("form.answer button").await;
            }
            Hands::Keyboard => {
                page.tab_to("#body").await;
                page.press(found).await;
                page.tab_to("form.answer button").await;
                page.press(ENTER).await;
            }
        }
        page.until_text("h1", |title| title == "Give retries this answer?").await;
        assert!(page.text(".consequence").await.contains("each retry with this key gets this answer"));
        assert!(page.text("pre").await.contains(found));
        self.is_said_in_words().await;
        match self.hands {
            Hands::Mouse => {
                self.pictures.take(page, "confirmation-light").await;
                page.click("#confirm").await;
            }
            Hands::Keyboard => {
                page.tab_to("#confirm").await;
                page.press(ENTER).await;
            }
        }
        page.until_text("h1", |title| title == "Result").await;
        assert!(page.text("#results").await.contains("Done: retries get this answer."));
    }

    /// The log says who did it. It has neither the key nor its owner.
    async fn audited(&self, server: &Server, quoted: &str) {
        let log = eventually("the audit event", || {
            Some(server.log.text()).filter(|log| log.contains("tower_idempotency::audit"))
        });
        let log = log.await;
        let line = log.lines().find(|line| line.contains("tower_idempotency::audit")).expect("it is there");
        for part in
            [r#"actor="this machine""#, r#"action="answer""#, &format!("record_id={quoted}"), r#"result="done""#]
        {
            assert!(line.contains(part), "{line}");
        }
        assert!(!log.contains(KEY) && !log.contains("alice"), "{log}");
    }
}
