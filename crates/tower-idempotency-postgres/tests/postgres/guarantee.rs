//! The losses that the backend reports as possible.

use tower_idempotency_shared::Backend as _;

use crate::lab::{Lab, own_server};

#[tokio::test]
async fn trap_58_what_can_be_lost_is_said() {
    let settings = ["fsync=off", "full_page_writes=off", "synchronous_commit=local"];
    let Some(server) = own_server("what can be lost", &settings) else { return };
    let lab = Lab::new(&server.url()).await;
    lab.sql("ALTER TABLE idempotency.record SET UNLOGGED").await;
    let guarantee = lab.backend.guarantee().await.unwrap();
    let loses = guarantee.loses.join("\n");
    for expected in ["unlogged", "fsync is off", "full_page_writes is off", "synchronous_standby_names is empty"] {
        assert!(loses.contains(expected), "{expected}: {loses}");
    }
    assert!(guarantee.setup.starts_with("PostgreSQL 1") && guarantee.setup.contains("primary"), "{}", guarantee.setup);
    assert!(guarantee.setup.contains("synchronous_commit on for puts"), "{}", guarantee.setup);
    // It was counted with that. No call is under way.
    let gauges = lab.backend.gauges();
    assert_eq!((gauges.records, gauges.connections), (Some(0), Some(0)), "{gauges:?}");
    assert!(gauges.bytes.is_some());
}
