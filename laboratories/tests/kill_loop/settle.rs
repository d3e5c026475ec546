//! The settling after some kills: everything is retried on a server that is left alone, until every key is settled.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use testkit::dice::below;
use testkit::history::{ClientAnswer, History};
use testkit::payment_server::Server;
use testkit::{Answer, Call, Connection};
use tokio::task::JoinSet;

use crate::load::{CLIENTS, Intent};
use crate::policies::Treatment;

/// The time for which keys may say "come again" before they count as stuck, and the pause between two tries.
const TIMEOUT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// A key, and its last answer.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) intent: Intent,
    pub(crate) told: ClientAnswer,
    /// The id of the charge in the client's answer.
    pub(crate) charge: Option<String>,
}

impl Settled {
    fn of(intent: Intent, sent: Option<(ClientAnswer, Answer)>) -> Self {
        let Some((told, answer)) = sent else { return Self { intent, told: ClientAnswer::Nothing, charge: None } };
        let is_success = matches!(told, ClientAnswer::Outcome { success: true, .. });
        let charge = is_success.then(|| answer.json()["id"].as_str().expect("a charge has an id").to_owned());
        Self { intent, told, charge }
    }

    /// Returns whether the key stays refused without need.
    pub(crate) fn is_stuck(&self, treatment: Treatment) -> bool {
        match &self.told {
            ClientAnswer::Outcome { .. } => false,
            ClientAnswer::Refused(slug) => !(treatment.refuses && slug == "outcome-unknown"),
            ClientAnswer::Nothing => true,
        }
    }
}

/// Retries all charges in any order, over as many connections as there are clients.
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
    let until = Instant::now() + TIMEOUT;
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
            if matches!(settled.told, ClientAnswer::Outcome { .. }) && below(16) == 0 {
                self.ask_as_another(&intent).await;
            }
            if !settled.is_stuck(self.treatment) || Instant::now() > self.until {
                return settled;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Sends the charge. Returns `None` if no answer came; the next charge then gets another connection.
    async fn send(&mut self, intent: &Intent) -> Option<(ClientAnswer, Answer)> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::http1(self.address).await.ok()?,
        };
        let answer = intent.send(&mut connection, &self.history, self.treatment).await?;
        self.connection = Some(connection);
        Some(answer)
    }

    /// Sends a charge of another amount with the same key.
    async fn ask_as_another(&mut self, intent: &Intent) {
        let Some(connection) = &mut self.connection else { return };
        let call = intent.call();
        let other = Call { body: call.body.replace("amount=1000", "amount=2000"), ..call };
        let sent = self.history.sent(&intent.key, "another amount");
        let told = connection.send(&other).await.map_or(ClientAnswer::Nothing, |answer| ClientAnswer::of(&answer));
        self.history.answered(sent, told);
    }
}
