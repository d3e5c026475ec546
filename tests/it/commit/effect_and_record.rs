//! Effect and record in one transaction: both are there or neither, and every client gets the answer that was
//! committed.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::future::join_all;
use http::StatusCode;
use http_body_util::Full;
use testkit::lab::asked::Asked;
use testkit::lab::charges::{
    Home, Left, OWN, assert_receipt, charge, charged, charges as table_of, charging, commit, commit_behind,
    commit_outcome, deliver, layer, policies, receipt, replaying, serve, take, unmarked,
};
use testkit::lab::disk::{Disk, Table as _, View as _};
use testkit::lab::{post, settle};
use testkit::{Gate, on_both};
use tower_idempotency::engine::{EffectError, OnceContext, Reconciled, Rerun};
use tower_idempotency::store::Abort;
use tower_idempotency::store::{CommitError, TransactionError};
use tower_idempotency::{OnInterrupted, Once, Release, Secret};

on_both!(effect_and_answer_are_both_there_after_reopening_and_every_retry_is_the_marked_replay);
async fn effect_and_answer_are_both_there_after_reopening_and_every_retry_is_the_marked_replay<D: Disk>() {
    for policy in policies() {
        for close in [true, false] {
            let home = Home::<D>::new();
            let lab = charging(&home.store, policy);
            let first = lab.post("k", "a").await;
            assert_receipt(&first, "k", false);
            let retry = lab.post("k", "a").await;
            assert_receipt(&retry, "k", true);
            assert_eq!(unmarked(retry), first, "byte for byte");
            lab.post("k", "b").await.assert_refusal(422, "key-reused", false, None);
            drop(lab);
            let home = if close { home.reopened().await } else { home.dropped().await };
            assert_eq!(unmarked(replaying(&home.store, policy).post("k", "a").await), first);
            assert_eq!(home.charged("k"), 1);
        }
    }
}

on_both!(a_message_s_effect_and_outcome_are_both_there_after_reopening);
async fn a_message_s_effect_and_outcome_are_both_there_after_reopening<D: Disk>() {
    for policy in policies() {
        let home = Home::<D>::new();
        let (once, store) = (Once::new(home.store.clone()).on_interrupted(policy), home.store.clone());
        let effect = move |context: OnceContext<String>| async move {
            commit_outcome(&context, &store, "k", || ()).await.expect("it can be committed");
            Err(EffectError::MaybeStarted("what it returns afterwards"))
        };
        let outcome = deliver(&once, "k", effect).await.unwrap();
        assert_eq!((outcome.value.as_str(), outcome.replayed), ("charged k", false));
        drop(once);
        let home = home.dropped().await;
        let once = Once::new(home.store.clone()).on_interrupted(policy);
        let outcome = deliver(&once, "k", |_| async { Ok("it ran again".to_owned()) }).await.unwrap();
        assert_eq!((outcome.value.as_str(), outcome.replayed), ("charged k", true));
        assert_eq!(home.charged("k"), 1);
    }
}

on_both!(an_answer_of_a_hundred_kilobytes_is_committed_with_its_effect);
async fn an_answer_of_a_hundred_kilobytes_is_committed_with_its_effect<D: Disk>() {
    let (home, long) = (Home::<D>::new(), Bytes::from(vec![b'x'; 100_000]));
    let (store, body) = (home.store.clone(), long.clone());
    let lab = serve(layer(store.clone(), OnInterrupted::Rerun), move |context| {
        let body = body.clone();
        let committed = store.complete_in(&context, [&table_of(&store)], move |[charges]| {
            charge(&charges, "k")?;
            Ok::<_, Abort<&str>>(receipt("k").map(|_| body.clone()))
        });
        async move { committed.await.expect("it can be committed") }
    });
    let first = lab.post("k", "a").await;
    assert_eq!(first.body, long);
    drop(lab);
    let home = home.dropped().await;
    let retry = replaying(&home.store, OnInterrupted::Rerun).post("k", "a").await;
    assert!(retry.is_replay());
    assert_eq!((unmarked(retry), home.charged("k")), (first, 1));
}

on_both!(an_answer_that_shows_a_secret_is_not_committed);
async fn an_answer_that_shows_a_secret_is_not_committed<D: Disk>() {
    let home = Home::<D>::new();
    let store = home.store.clone();
    let lab = serve(layer(store.clone(), OnInterrupted::Rerun), move |context| {
        let committed = store.complete_in(&context, [&table_of(&store)], move |[charges]| {
            charge(&charges, "k")?;
            let mut answer = receipt("k");
            answer.extensions_mut().insert(Secret);
            Ok::<_, Abort<&str>>(answer)
        });
        async move { matches!(committed.await, Err(CommitError::Refused(TransactionError::Unrecordable))).to_string() }
    });
    assert_eq!(lab.post("k", "a").await.text(), "true");
    drop(lab);
    assert_eq!(home.dropped().await.charged("k"), 0);
}

on_both!(a_run_that_takes_over_one_that_was_interrupted_commits_like_any_other);
async fn a_run_that_takes_over_one_that_was_interrupted_commits_like_any_other<D: Disk>() {
    let home = Home::<D>::new();
    let cut = serve(layer(home.store.clone(), OnInterrupted::Refuse), |_| async { panic!("on purpose") as &str });
    assert_eq!(cut.post("k", "a").await.refusal(), (500, "outcome-unknown".to_owned()));
    let store = home.store.clone();
    let again = Asked::default().says([Reconciled::<http::Response<Full<Bytes>>>::RunAgain]);
    let lab = serve(layer(store.clone(), OnInterrupted::Refuse).reconcile_with(again), move |context| {
        assert_eq!((context.rerun(), context.attempt()), (Rerun::Yes, 2));
        let committed = commit(&context, &store);
        async move { committed.await.expect("it can be committed") }
    });
    assert_receipt(&lab.post("k", "a").await, "k", false);
    drop((cut, lab));
    let home = home.dropped().await;
    assert_receipt(&replaying(&home.store, OnInterrupted::Refuse).post("k", "a").await, "k", true);
    assert_eq!((home.charged("k"), home.store.tables(&home.path())), (1, 2));
}

on_both!(
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    a_commit_that_races_with_the_handler_s_answer_makes_one_answer_and_says_which
);
async fn a_commit_that_races_with_the_handler_s_answer_makes_one_answer_and_says_which<D: Disk>() {
    let (home, told) = (Home::<D>::new(), Left::default());
    let (store, left) = (home.store.clone(), Arc::clone(&told));
    let lab = serve(layer(store.clone(), OnInterrupted::Rerun), move |context| {
        let (store, left) = (store.clone(), Arc::clone(&left));
        left.lock().unwrap().push(tokio::spawn(async move { commit(&context, &store).await }));
        async {
            tokio::task::yield_now().await;
            OWN
        }
    });
    for round in 0..200 {
        let key = format!("k{round}");
        let (first, second) = tokio::join!(lab.post(&key, "a"), lab.post(&key, "a"));
        let retry = lab.post(&key, "a").await;
        let committed = take(&told).pop().unwrap().await.unwrap();
        assert!(committed.is_ok() || matches!(committed, Err(CommitError::Over)), "{committed:?}");
        assert_eq!(home.charged(&key), u64::from(committed.is_ok()));
        assert_eq!(first.status == StatusCode::CREATED, committed.is_ok(), "{first:?}");
        let [first, second, retry] = [first, second, retry].map(unmarked);
        assert!(first == second && second == retry, "{first:?} {second:?} {retry:?}");
    }
}

on_both!(a_transaction_sees_what_it_wrote_in_all_its_tables_and_others_see_it_only_afterwards);
async fn a_transaction_sees_what_it_wrote_in_all_its_tables_and_others_see_it_only_afterwards<D: Disk>() {
    let home = Home::<D>::new();
    let accounts = |store: &D| ["a", "b"].map(|name| store.table(name));
    accounts(&home.store)[0].insert("stock", "old");
    for gives_up in [true, false] {
        let (store, key) = (home.store.clone(), if gives_up { "no" } else { "yes" });
        let lab = serve(layer(store.clone(), OnInterrupted::Rerun), move |context| {
            let [one, two] = accounts(&store);
            let committed = store.complete_in(&context, [&one, &two], move |[one, two]| {
                assert_eq!(one.get("stock")?.unwrap(), "old");
                one.insert("stock", "new")?;
                assert_eq!((one.get("stock")?.unwrap(), two.get("stock")?), ("new".into(), None));
                two.insert("stock", "moved")?;
                one.remove("stock")?;
                assert_eq!((one.get("stock")?, two.get("stock")?.unwrap()), (None, "moved".into()));
                if gives_up { Err(Abort::Because("seen enough")) } else { Ok(receipt("moved")) }
            });
            async move { committed.await.is_ok().to_string() }
        });
        lab.post(key, "a").await;
        let outside = accounts(&home.store).map(|account| account.get("stock"));
        let expected = if gives_up { [Some("old".into()), None] } else { [None, Some("moved".into())] };
        assert_eq!(outside, expected);
    }
}

/// The end of a handler after it has committed.
#[derive(Debug, Clone, Copy)]
enum Then {
    Panics,
    Succeeds,
    Fails,
    Releases,
    Hangs,
}

impl Then {
    async fn go(self) -> Response {
        match self {
            Self::Panics => panic!("on purpose"),
            Self::Succeeds => "another answer".into_response(),
            Self::Fails => (StatusCode::INTERNAL_SERVER_ERROR, "another answer").into_response(),
            Self::Releases => (StatusCode::SERVICE_UNAVAILABLE, Release, "another answer").into_response(),
            Self::Hangs => pending().await,
        }
    }
}

on_both!(whatever_a_handler_does_after_its_commit_everybody_gets_the_committed_answer);
async fn whatever_a_handler_does_after_its_commit_everybody_gets_the_committed_answer<D: Disk>() {
    let all = [Then::Panics, Then::Succeeds, Then::Fails, Then::Releases, Then::Hangs];
    for (policy, then) in policies().into_iter().flat_map(|policy| all.map(|then| (policy, then))) {
        let (home, gate) = (Home::<D>::new(), Gate::default());
        let (store, pass) = (home.store.clone(), gate.on_a_thread());
        let mut layer = layer(store.clone(), policy);
        if let Then::Hangs = then {
            layer = layer.max_run(Duration::from_millis(20));
        }
        let lab = serve(layer.clone(), move |context| {
            let pass = pass.clone();
            let committed = commit_behind(&context, &store, pass);
            async move {
                drop(committed.await.expect("it can be committed"));
                then.go().await
            }
        });
        let first = lab.spawn(post("k", "a"));
        gate.arrival().await;
        let duplicates: Vec<_> = (0..5).map(|_| lab.spawn(post("k", "a"))).collect();
        settle().await;
        gate.open();
        assert_receipt(&first.await.unwrap(), "k", false);
        join_all(duplicates).await.into_iter().for_each(|answer| assert_receipt(&answer.unwrap(), "k", true));
        assert_receipt(&lab.post("k", "a").await, "k", true);
        let counts = layer.stats();
        assert_eq!((counts.runs, counts.interrupted, counts.unsaved), (1, 0, 0), "{then:?}");
        drop((lab, layer));
        let home = home.dropped().await;
        assert_receipt(&replaying(&home.store, policy).post("k", "a").await, "k", true);
        assert_eq!(home.charged("k"), 1, "{then:?}");
    }
}

on_both!(a_commit_that_nobody_awaits_is_a_commit_all_the_same);
async fn a_commit_that_nobody_awaits_is_a_commit_all_the_same<D: Disk>() {
    for policy in policies() {
        let home = Home::<D>::new();
        let store = home.store.clone();
        let lab = serve(layer(store.clone(), policy), move |context| {
            drop(commit(&context, &store));
            async { OWN }
        });
        assert_receipt(&lab.post("k", "a").await, "k", false);
        assert_receipt(&lab.post("k", "a").await, "k", true);
        assert_eq!(home.charged("k"), 1);
    }
}

on_both!(a_client_that_goes_away_during_the_commit_changes_nothing);
async fn a_client_that_goes_away_during_the_commit_changes_nothing<D: Disk>() {
    for policy in policies() {
        let (home, gate) = (Home::<D>::new(), Gate::default());
        let (store, pass) = (home.store.clone(), gate.on_a_thread());
        let lab = serve(layer(store.clone(), policy), move |context| {
            let pass = pass.clone();
            let committed = commit_behind(&context, &store, pass);
            async move { committed.await.expect("it can be committed") }
        });
        let first = lab.spawn(post("k", "a"));
        gate.arrival().await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        let retry = lab.spawn(post("k", "a"));
        settle().await;
        gate.open();
        assert_receipt(&retry.await.unwrap(), "k", true);
        assert_eq!(charged(&home.store, "k"), 1);
    }
}
