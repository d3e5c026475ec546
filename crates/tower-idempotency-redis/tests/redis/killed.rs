//! Scripts that an operator kills, while several processes write.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use testkit::process::until;

use crate::lab::{builder, own_server};
use crate::writers::Writers;

#[tokio::test]
async fn no_claim_is_lost_or_granted_twice_while_scripts_block_the_server_and_are_killed() {
    let Some(server) = own_server("what a killed script loses", &["lua-time-limit 1"]) else { return };
    let writers = Writers::new(&builder(&server.url(), "n")).await;
    let kills = async {
        for _ in 0..30 {
            writers.complete_more(10).await;
            let mut endless = TcpStream::connect(server.address()).unwrap();
            endless.write_all(b"EVAL \"while true do end\" 0\r\n").unwrap();
            until("the server is busy", async || server.say("PING").starts_with("-BUSY")).await;
            let refused = writers.refused();
            until("a call meets it", async || writers.refused() > refused).await;
            endless.set_nonblocking(true).unwrap();
            let mut answer = [0; 64];
            until("it is killed", async || {
                server.say("SCRIPT KILL");
                endless.read(&mut answer).is_ok_and(|count| count > 0)
            })
            .await;
            assert!(answer.starts_with(b"-ERR"), "{}", String::from_utf8_lossy(&answer));
        }
        // Whichever script it meets: one of the writers is killed if it has not written yet.
        for _ in 0..200 {
            writers.complete_more(1).await;
            server.say("SCRIPT KILL");
        }
        writers.end();
    };
    tokio::join!(writers.run(), kills);
    writers.check(&builder(&server.url(), "n").open().await.unwrap()).await;
}
