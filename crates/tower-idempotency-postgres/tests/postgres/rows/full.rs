//! A database that has no room.

use std::sync::atomic::Ordering;

use crate::app::App;
use crate::lab::{Lab, own_server, until};

/// A trigger that refuses outcomes as a full disk does, or a lack of memory.
const FULL: &str = "
    CREATE FUNCTION is_full() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE 'no room' USING ERRCODE = 'WHY'; END $$;
    CREATE TRIGGER is_full BEFORE UPDATE ON idempotency.record FOR EACH ROW WHEN (new.kind = 3) EXECUTE FUNCTION is_full()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_106_an_outcome_for_which_a_database_has_no_room_is_recorded_as_soon_as_it_has() {
    let Some(server) = own_server("what becomes of an outcome for which there is no room", &[]) else { return };
    let lab = Lab::new(&server.url()).await;
    let (one, other) = (App::new(&lab).await, App::new(&lab).await);
    for (key, why) in [("disk", "disk_full"), ("memory", "out_of_memory")] {
        lab.client.batch_execute(&FULL.replace("WHY", why)).await.unwrap();
        let before = one.runs.load(Ordering::SeqCst);
        one.gate.admit(1);
        let (_, answer, _) = one.send(key).await;
        assert_eq!(answer, format!("run {before}"));
        assert_ne!(other.send(key).await.1, answer, "it is not recorded");
        lab.sql("DROP FUNCTION is_full CASCADE").await;
        until("the outcome", async || other.send(key).await == (http::StatusCode::OK, answer.clone(), true)).await;
        assert_eq!((one.runs.load(Ordering::SeqCst), other.runs.load(Ordering::SeqCst)), (before + 1, 0));
    }
}
