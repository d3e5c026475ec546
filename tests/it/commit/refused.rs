//! Effect and record in one transaction: a transaction that is given up, or comes at the wrong time or place, writes
//! nothing, and its error names the remedy.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use testkit::lab::charges::{
    Committing, Home, Left, OWN, assert_receipt, charge, charges as table_of, commit, commit_behind, commit_with,
    deliver, layer, policies, receipt, replaying, serve, take, unmarked,
};
use testkit::lab::disk::{Disk, Table as _, View as _};
use testkit::lab::{id, post, settle};
use testkit::{Gate, on_both};
use tower_idempotency::engine::{EffectError, OnceContext, OnceError};
use tower_idempotency::server::Committed;
use tower_idempotency::store::CommitError;
use tower_idempotency::store::{Abort, TransactionError};
use tower_idempotency::test_util::{StoreCall, TestStore};
use tower_idempotency::{AnyStore, Fingerprint, IdempotencyContext, OnInterrupted, Once};

/// The reason why a transaction writes nothing.
#[derive(Debug, Clone, Copy)]
enum Fault {
    OwnError,
    Panic,
    LargeValue,
    LargeKey,
    Overlooked,
    StoresTable,
    Twice,
    ForeignTable,
}

impl Fault {
    const ALL: [Self; 8] = [
        Self::OwnError,
        Self::Panic,
        Self::LargeValue,
        Self::LargeKey,
        Self::Overlooked,
        Self::StoresTable,
        Self::Twice,
        Self::ForeignTable,
    ];

    fn attempt<D: Disk>(self, context: &IdempotencyContext, store: &D) -> Committing<Committed> {
        let with = |other: D::Table| -> Committing<Committed> {
            store.complete_in(context, [&table_of(store), &other], |[charges, _]| {
                charge(&charges, "k")?;
                Ok(receipt("k"))
            })
        };
        let charged_first =
            |then: fn(&D::View<'_>) -> Result<(), Abort<&'static str>>| commit_with(context, store, then);
        match self {
            Self::OwnError => charged_first(|_| Err(Abort::Because("too poor"))),
            Self::Panic => charged_first(|_| panic!("on purpose")),
            Self::LargeValue => charged_first(|charges| Ok(charges.insert("large", vec![1; D::MAX_VALUE + 1])?)),
            Self::LargeKey => charged_first(|charges| Ok(charges.insert(vec![1; D::MAX_KEY + 1], "large")?)),
            Self::Overlooked => charged_first(|charges| {
                let _ = charges.insert("large", vec![1; D::MAX_VALUE + 1]);
                Ok(())
            }),
            Self::StoresTable => with(store.records()),
            Self::Twice => with(table_of(store)),
            Self::ForeignTable => with(D::elsewhere().1),
        }
    }

    /// Asserts that the error is this one, and names the remedy.
    fn assert_told<D: Disk>(self, error: &CommitError<&'static str>) {
        let of = |what, most| format!("a {what} has {} bytes; at most {most}", most + 1);
        let (value, key) = (of("value", D::MAX_VALUE), of("key", D::MAX_KEY));
        let (expected, remedy) = match self {
            Self::OwnError => (matches!(error, CommitError::Aborted("too poor")), "aborted"),
            Self::Panic => (matches!(error, CommitError::Panicked), "panicked"),
            Self::LargeValue | Self::Overlooked => (
                matches!(error, CommitError::Refused(TransactionError::TooLarge { what: "value", .. })),
                value.as_str(),
            ),
            Self::LargeKey => {
                (matches!(error, CommitError::Refused(TransactionError::TooLarge { what: "key", .. })), key.as_str())
            }
            Self::StoresTable | Self::Twice | Self::ForeignTable => (
                matches!(error, CommitError::Trees(_)),
                "give trees or keyspaces that were opened from this store, each once",
            ),
        };
        assert!(expected && error.to_string().contains(remedy), "{self:?}: {error:?}: {error}");
    }
}

on_both!(a_transaction_that_is_given_up_writes_nothing_and_the_handler_s_own_answer_counts);
async fn a_transaction_that_is_given_up_writes_nothing_and_the_handler_s_own_answer_counts<D: Disk>() {
    for (policy, fault) in policies().into_iter().flat_map(|policy| Fault::ALL.map(|fault| (policy, fault))) {
        let (home, errors) = (Home::<D>::new(), Left::default());
        let (store, told) = (home.store.clone(), Arc::clone(&errors));
        let lab = serve(layer(store.clone(), policy), move |context| {
            let (attempt, told) = (fault.attempt(&context, &store), Arc::clone(&told));
            async move {
                let error = attempt.await.unwrap_err();
                told.lock().unwrap().push(error);
                OWN
            }
        });
        let first = lab.post("k", "a").await;
        assert_eq!((first.status, first.text(), first.is_replay()), (OWN.0, OWN.1, false), "{fault:?}");
        let [error] = &take(&errors)[..] else { panic!("{fault:?}: it ran again") };
        fault.assert_told::<D>(error);
        assert!(table_of(&home.store).is_empty(), "{fault:?}");
        drop(lab);
        let home = home.dropped().await;
        let retry = replaying(&home.store, policy).post("k", "a").await;
        assert!(retry.is_replay(), "{fault:?}: recorded as ever");
        assert_eq!(unmarked(retry), first, "{fault:?}");
        assert!(table_of(&home.store).is_empty(), "{fault:?}");
    }
}

on_both!(after_a_transaction_that_was_given_up_another_may_succeed);
async fn after_a_transaction_that_was_given_up_another_may_succeed<D: Disk>() {
    for (policy, fault) in policies().into_iter().flat_map(|policy| Fault::ALL.map(|fault| (policy, fault))) {
        let home = Home::<D>::new();
        let store = home.store.clone();
        let lab = serve(layer(store.clone(), policy), move |context| {
            let (attempt, store) = (fault.attempt(&context, &store), store.clone());
            async move {
                fault.assert_told::<D>(&attempt.await.unwrap_err());
                commit(&context, &store).await.expect("another may be tried")
            }
        });
        assert_receipt(&lab.post("k", "a").await, "k", false);
        drop(lab);
        let home = home.dropped().await;
        assert_receipt(&replaying(&home.store, policy).post("k", "a").await, "k", true);
        assert_eq!(home.charged("k"), 1, "{fault:?}");
    }
}

on_both!(a_run_commits_once_whether_the_first_is_done_or_under_way);
async fn a_run_commits_once_whether_the_first_is_done_or_under_way<D: Disk>() {
    for under_way in [false, true] {
        let (home, gate) = (Home::<D>::new(), Gate::default());
        if !under_way {
            gate.open();
        }
        let (store, pass) = (home.store.clone(), gate.on_a_thread());
        let lab = serve(layer(store.clone(), OnInterrupted::Rerun), move |context| {
            let (store, pass) = (store.clone(), pass.clone());
            async move {
                let first = commit_behind(&context, &store, pass);
                if !under_way {
                    drop(first.await.expect("it can be committed"));
                }
                let second = commit(&context, &store).await.unwrap_err();
                assert!(matches!(second, CommitError::Twice), "{second:?}");
                assert!(second.to_string().contains("do all of the effect in one transaction"), "{second}");
                OWN
            }
        });
        let first = lab.spawn(post("k", "a"));
        if under_way {
            gate.arrival().await;
            settle().await;
            gate.open();
        }
        assert_receipt(&first.await.unwrap(), "k", false);
        assert_eq!(home.charged("k"), 1);
    }
}

on_both!(a_commit_after_the_handler_has_answered_is_refused_and_writes_nothing);
async fn a_commit_after_the_handler_has_answered_is_refused_and_writes_nothing<D: Disk>() {
    for policy in policies() {
        let (home, contexts) = (Home::<D>::new(), Left::default());
        let left = Arc::clone(&contexts);
        let lab = serve(layer(home.store.clone(), policy), move |context| {
            left.lock().unwrap().push(context);
            async { OWN }
        });
        let first = lab.post("k", "a").await;
        let [context] = &take(&contexts)[..] else { panic!("it ran once") };
        let late = commit(context, &home.store).await.unwrap_err();
        assert!(matches!(late, CommitError::Over), "{late:?}");
        assert!(late.to_string().contains("commit before the handler answers"), "{late}");
        let retry = lab.post("k", "a").await;
        assert!(retry.is_replay());
        assert_eq!((unmarked(retry), home.charged("k")), (first, 0));
    }
}

on_both!(a_commit_in_another_store_than_the_layer_s_is_refused);
async fn a_commit_in_another_store_than_the_layer_s_is_refused<D: Disk>() {
    let (home, other) = (Home::<D>::new(), Home::<D>::new());
    let (erased, store, wrong) = (AnyStore::new(home.store.clone()), home.store.clone(), other.store.clone());
    let lab = serve(layer(erased, OnInterrupted::Rerun), move |context| {
        let (store, wrong) = (store.clone(), wrong.clone());
        async move {
            let foreign = commit(&context, &wrong).await.unwrap_err();
            assert!(matches!(foreign, CommitError::Foreign), "{foreign:?}");
            assert!(foreign.to_string().contains("commit in the store of its layer"), "{foreign}");
            commit(&context, &store).await.expect("the layer's store, though its layer doesn't know its type")
        }
    });
    assert_receipt(&lab.post("k", "a").await, "k", false);
    assert_eq!((home.charged("k"), other.charged("k")), (1, 0));
}

on_both!(a_run_without_a_store_or_with_one_that_has_no_transactions_commits_nothing);
async fn a_run_without_a_store_or_with_one_that_has_no_transactions_commits_nothing<D: Disk>() {
    for away in [true, false] {
        let (home, test) = (Home::<D>::new(), TestStore::new());
        let store = home.store.clone();
        let lab = serve(layer(test.clone(), OnInterrupted::Rerun).fail_open(true), move |context| {
            let committed = commit(&context, &store);
            async move {
                match committed.await {
                    Err(CommitError::FailOpen) => "fail-open",
                    Err(CommitError::Foreign) => "foreign",
                    other => panic!("{other:?}"),
                }
            }
        });
        if away {
            test.fail_next(StoreCall::Claim);
        }
        assert_eq!(lab.post("k", "a").await.text(), if away { "fail-open" } else { "foreign" });
        assert_eq!(home.charged("k"), 0);
    }
}

on_both!(an_answer_that_is_longer_than_what_is_recorded_is_not_committed);
async fn an_answer_that_is_longer_than_what_is_recorded_is_not_committed<D: Disk>() {
    let home = Home::<D>::new();
    let store = home.store.clone();
    let lab = serve(layer(store.clone(), OnInterrupted::Rerun).max_response_body(100), move |context| {
        let committed = store.complete_in(&context, [&table_of(&store)], move |[charges]| {
            charges.insert("k", "charged")?;
            Ok::<_, Abort<()>>(receipt("k").map(|_| Bytes::from(vec![b'x'; 101])))
        });
        async move { matches!(committed.await, Err(CommitError::Refused(_))).to_string() }
    });
    assert_eq!(lab.post("k", "a").await.text(), "true", "the bound of `max_response_body` binds here too");
    assert!(table_of(&home.store).is_empty());
}

on_both!(what_is_too_long_for_one_step_is_not_committed);
async fn what_is_too_long_for_one_step_is_not_committed<D: Disk>() {
    let home = Home::<D>::new();
    let once = Once::new(home.store.clone()).on_interrupted(OnInterrupted::Rerun);
    for (values, outcome_bytes, fits) in [(20, 10, true), (0, 100_000, true), (40, 10, false), (0, 200_000, false)] {
        let (store, key) = (home.store.clone(), format!("{values} {outcome_bytes}"));
        let told = deliver(&once, &key, move |context| async move {
            let committed = store.complete_in(&context, [&table_of(&store)], move |[charges]| {
                for number in 0_u32..values {
                    charges.insert(number.to_be_bytes(), vec![1; 4_000])?;
                }
                Ok::<_, Abort<()>>("x".repeat(outcome_bytes))
            });
            Ok(committed.await.map_or_else(|error| error.to_string(), |_| "committed".to_owned()))
        });
        let told = told.await.unwrap().value;
        assert_eq!(told.starts_with("a transaction has"), !fits, "{key}: {told:?}");
    }
}

on_both!(an_outcome_that_json_can_t_have_is_not_committed_and_the_effect_is_undone);
async fn an_outcome_that_json_can_t_have_is_not_committed_and_the_effect_is_undone<D: Disk>() {
    let home = Home::<D>::new();
    let (once, store) = (Once::new(home.store.clone()).on_interrupted(OnInterrupted::Rerun), home.store.clone());
    let effect = async move |context: OnceContext<BTreeMap<(u8, u8), u8>>| {
        let committed = store.complete_in(&context, [&table_of(&store)], move |[charges]| {
            charge(&charges, "k")?;
            Ok::<_, Abort<()>>(BTreeMap::from([((1, 2), 3)]))
        });
        match committed.await {
            Err(CommitError::Refused(error @ TransactionError::Unwritable(_))) => {
                Err(EffectError::NotStarted(error.to_string()))
            }
            committed => panic!("{committed:?}"),
        }
    };
    let refused = once.run(id("k"), Fingerprint::of(b"m"), effect).await;
    let Err(OnceError::Effect(EffectError::NotStarted(why))) = refused else { panic!("{refused:?}") };
    assert!(why.contains("key must be a string"), "{why}");
    assert_eq!(home.charged("k"), 0);
    // The id is free.
    let effect = async |_| Ok::<_, EffectError<()>>(BTreeMap::new());
    assert!(!once.run(id("k"), Fingerprint::of(b"m"), effect).await.unwrap().replayed);
}
