//! After some kills: everything is retried on a server that is left alone, until there is nothing more to be said.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use testkit::dice::below;
use testkit::history::{History, Told};
use testkit::payment_server::Server;
use testkit::{Answer, Call, Connection};
use tokio::task::JoinSet;

use crate::load::{CLIENTS, Intent};
use crate::policies::Treatment;

/// How long keys may say "come again" before they count as stuck, and how long to wait in between.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// A key, and the last word on it.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) intent: Intent,
    pub(crate) told: Told,
    /// The id of the charge in the client's answer.
    pub(crate) charge: Option<String>,
}

impl Settled {
    fn of(intent: Intent, sent: Option<(Told, Answer)>) -> Self {
        let Some((told, answer)) = sent else { return Self { intent, told: Told::Nothing, charge: None } };
        let is_success = matches!(told, Told::Outcome { success: true, .. });
        let charge = is_success.then(|| answer.json()["id"].as_str().expect("a charge has an id").to_owned());
        Self { intent, told, charge }
    }

    /// Returns whether the key stays refused though it need not.
    pub(crate) fn is_stuck(&self, treatment: Treatment) -> bool {
        match &self.told {
            Told::Outcome { .. } => false,
            Told::Refused(slug) => !(treatment.refuses && slug == "outcome-unknown"),
            Told::Nothing => true,
        }
    }
}

/// Retries all, over as many connections as clients, in any order.
pub(crate) async fn retry(
    server: &Server,
    history: &History,
    treatment: Treatment,
    intents: Vec<Intent>,
) -> Vec<Settled> {
    let mut shares = vec![Vec::new(); CLIENTS];
    for intent in intents {
        shares[below(CLIENTS)].push(intent);
    }
    let mut clients = JoinSet::new();
    let until = Instant::now() + PATIENCE;
    for share in shares {
        let (address, history) = (server.address, history.clone());
        let mut client = Client { address, history, treatment, until, connection: None };
        clients.spawn(async move {
            let mut settled = Vec::new();
            for intent in share {
                settled.push(client.settle(intent).await);
            }
            settled
        });
    }
    clients.join_all().await.into_iter().flatten().collect()
}

struct Client {
    address: SocketAddr,
    history: History,
    treatment: Treatment,
    until: Instant,
    connection: Option<Connection>,
}

impl Client {
    async fn settle(&mut self, intent: Intent) -> Settled {
        loop {
            let settled = Settled::of(intent.clone(), self.send(&intent).await);
            if matches!(settled.told, Told::Outcome { .. }) && below(16) == 0 {
                self.ask_as_another(&intent).await;
            }
            if !settled.is_stuck(self.treatment) || Instant::now() > self.until {
                return settled;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// `None`: no answer came. The next time it is another connection.
    async fn send(&mut self, intent: &Intent) -> Option<(Told, Answer)> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::http1(self.address).await.ok()?,
        };
        let answer = intent.send(&mut connection, &self.history, self.treatment).await?;
        self.connection = Some(connection);
        Some(answer)
    }

    /// A charge of another amount with the same key.
    async fn ask_as_another(&mut self, intent: &Intent) {
        let Some(connection) = &mut self.connection else { return };
        let call = intent.call();
        let other = Call { body: call.body.replace("amount=1000", "amount=2000"), ..call };
        let sent = self.history.sent(&intent.key, "another amount");
        let told = connection.send(&other).await.map_or(Told::Nothing, |answer| Told::of(&answer));
        self.history.answered(sent, told);
    }
}
