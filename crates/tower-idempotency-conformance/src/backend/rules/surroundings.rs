//! Other processes, other namespaces, the server.

use futures_util::{FutureExt as _, StreamExt as _};
use tower_idempotency_shared::{Backend, Clocks, Expect, Kind, Write};

use crate::backend::rule::{Bears, Rule};
use crate::backend::sample::{HOUR, claim, complete, session};
use crate::backend::subject::BackendSubject;
use crate::fresh::fresh_id;

/// The same id in two namespaces is two rows; sessions and lists are each namespace's own.
pub(crate) async fn namespaces_do_not_meet<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "make the namespace a part of the key, and compare it wherever rows are read: in the list, and among the \
                  sessions, too";
    let rule = Rule::new(subject, "namespaces_do_not_meet", advice);
    let Some(other) = &subject.another_namespace else { return rule.leave_out("`another_namespace`") };
    let (id, of) = (fresh_id(), fresh_id());
    rule.done(&session(of, HOUR)).await;
    let row = rule.done(&Write { kind: Kind::Interrupted, session: Some(of), ..claim(id) }).await;
    let there = rule.get_by(other, &[id, of]).await.rows;
    rule.check(there == [None, None], || format!("another namespace has {there:?}"));
    let write = Write { kind: Kind::Interrupted, session: Some(of), ..claim(id) };
    let theirs = rule.put_by(other, std::slice::from_ref(&write)).await.rows.remove(0);
    rule.check(theirs.as_ref().is_some_and(|row| row.token == write.token), || {
        format!("an id that is claimed in one namespace could not be claimed in another: {theirs:?}")
    });
    let sessions = rule.answered("read the sessions", other.sessions(Clocks::default()).await).rows;
    rule.check(!sessions.iter().any(|row| row.id == of), || "a session of another namespace is read".to_owned());
    rule.done(&complete(&row)).await;
    let there = rule.get_by(other, &[id]).await.rows.remove(0);
    rule.check(there.as_ref().is_some_and(|row| row.token == write.token), || {
        format!("a write in one namespace has changed the row of another: {there:?}")
    });
    let again = Write { expect: Expect::Token(write.token), ..complete(&row) };
    rule.refused(&again).await;
    let listed = rule.answered("list", subject.backend.list(Clocks::default(), &[], None, 10_000).await).rows;
    rule.check(!listed.iter().any(|row| row.id == id), || "a row of another namespace is listed".to_owned());
}

/// Each process reads the other's writes, and can write over them, as soon as they were answered.
pub(crate) async fn processes_see_each_others_writes<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "read from the server that takes the writes, and cache nothing";
    let rule = Rule::new(subject, "processes_see_each_others_writes", advice);
    let Some(another) = &subject.another_process else { return rule.leave_out("`another_process`") };
    let id = fresh_id();
    let mut found = rule.done(&claim(id)).await;
    for round in 0..20 {
        let (writer, reader) = if round % 2 == 0 { (another, &subject.backend) } else { (&subject.backend, another) };
        let read = rule.get_by(writer, &[id]).await.rows.remove(0);
        rule.check(read.as_ref() == Some(&found), || format!("{found:?} was answered, and then read as {read:?}"));
        let write = complete(&found);
        let row = rule.put_by(writer, std::slice::from_ref(&write)).await.rows.remove(0);
        found = row.filter(|row| row.token == write.token).unwrap_or_else(|| rule.fail("a write was not done"));
        let read = rule.get_by(reader, &[id]).await.rows.remove(0);
        rule.check(read.as_ref() == Some(&found), || format!("{found:?} was answered, and then read as {read:?}"));
    }
}

/// The stream of changes has no end, and ids of this namespace only. It may be empty.
pub(crate) async fn changes_do_not_end<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "never end the stream: the default has no changes and no end, and a connection that broke is opened \
                  again behind it";
    let rule = Rule::new(subject, "changes_do_not_end", advice);
    let mut changes = subject.backend.changes();
    let mut own = Vec::new();
    for _ in 0..20 {
        let id = fresh_id();
        rule.done(&claim(id)).await;
        own.push(id);
        if let Some(other) = &subject.another_namespace {
            rule.put_by(other, &[claim(fresh_id())]).await;
        }
        while let Some(change) = changes.next().now_or_never() {
            match change {
                None => rule.fail("the stream of changes has ended"),
                Some(id) if subject.another_process.is_none() && !own.contains(&id) => {
                    rule.fail(format_args!("a change of {id} came, and no process in this namespace wrote it"))
                }
                Some(_) => {}
            }
        }
    }
}

/// The server's number is the same in every answer, of every process, until it is started again; rows survive that.
pub(crate) async fn the_server_is_another_one_after_its_start_only<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "answer a number that changes whenever rows that were shown may be gone, and only then: at a start of the \
                  server, a promotion, a wipe. A number of the server's process alone misses the last two";
    let rule = Rule::new(subject, "the_server_is_another_one_after_its_start_only", advice);
    let write = claim(fresh_id());
    let put = rule.put(std::slice::from_ref(&write)).await;
    let server = put.server;
    let mut others = vec![rule.get_by(&subject.backend, &[]).await.server];
    others.push(rule.answered("list", subject.backend.list(Clocks::default(), &[], None, 1).await).server);
    if let Some(another) = &subject.another_process {
        others.push(rule.get_by(another, &[write.id]).await.server);
    }
    rule.check(others.iter().all(|other| *other == server), || format!("{server:?} has answered, and {others:?}"));
    let Some(restart) = &subject.restart else { return rule.leave_out("`restarted_by`") };
    restart().await;
    // A connection from before may first report its end.
    let row = rule.within(rule.settled(&subject.backend, std::slice::from_ref(&write), Bears::Any)).await.remove(0);
    let fence = put.rows[0].as_ref().map(|row| row.fence);
    rule.check(row.as_ref().map(|row| row.fence) == fence, || format!("a row was lost at the restart: {row:?}"));
    let started = rule.get_by(&subject.backend, &[]).await.server;
    rule.check(started != server, || format!("the server is {started:?} after it was started again"));
}

/// The guarantee can be asked for, and says what the database is.
pub(crate) async fn the_guarantee_names_the_set_up<B: Backend>(subject: &BackendSubject<B>) {
    let advice = "say in `Guarantee::setup` what the database is and how it is set up: operators read it in a log line";
    let rule = Rule::new(subject, "the_guarantee_names_the_set_up", advice);
    let guarantee = rule.answered("say what it guarantees", subject.backend.guarantee().await);
    rule.check(!guarantee.setup.trim().is_empty(), || "the set-up is empty".to_owned());
    let empty = guarantee.loses.iter().any(|loses| loses.trim().is_empty());
    rule.check(!empty, || "one of the ways in which it loses is empty".to_owned());
}
