//! `idem check` finds nothing in the proxy, in each profile.

use http::request::Parts;
use tower_idempotency::Scope;
use tower_idempotency::server::Profile;
use tower_idempotency_check::{Outcome, Plan};
use tower_idempotency_proxy::Upstream;

use crate::service::{Service, layer, proxied};

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_keeps_every_check_in_each_profile() {
    let checks = [Profile::draft(), Profile::stripe(), Profile::acp(), Profile::iceberg()].map(async |profile| {
        let (name, envelope) = (profile.name, profile.envelope);
        let service = Service::default().start().await;
        let upstream = Upstream::new(format!("http://{service}").parse().unwrap()).unwrap().envelope(envelope);
        let account = |parts: &Parts| Scope::new(parts.headers.get("authorization")?.as_bytes()).ok();
        let proxy = proxied(layer().profile(profile).scope(account), upstream).await;
        let plan = format!(
            r#"
            url = "http://{proxy}/orders"
            profile = "{name}"
            data = "amount=5"
            headers = ["Authorization: Bearer alice"]
            other_account = "Authorization: Bearer bob"
            other_path = "/refunds"
            count = "GET /orders"
            slow = "slow"
            declined = "402 keep"
            server_error = "500"
            rate_limited = "429"
            "#
        );
        let report = Plan::from_toml(&plan).unwrap().run(|_| {}).await;
        assert_eq!(report.exit_code(), 0, "{}", report.to_text());
        let skipped = report.checks.iter().filter(|check| matches!(check.outcome, Outcome::Skipped(_)));
        let skipped: Vec<_> = skipped.map(|check| check.name).collect();
        let skips = ["probe", "other-detail", "other-query", "same-meaning", "retention", "restart", "kill"];
        assert!(skipped.iter().all(|name| skips.contains(name)), "{name}: {skipped:?}");
    });
    futures_util::future::join_all(checks).await;
}
