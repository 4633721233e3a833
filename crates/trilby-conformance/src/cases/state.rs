//! What every state store must do, as an application sees it. Each case is a sentence and uses keys of its own.

use std::time::Duration;

use serde_json::{Value, json};
use trilby_component::state::Feature;

use super::{Case, Outcome, Running, check, check_eq, keep_trying};
use crate::client::{Client, FailureKind, Step, Write};

/// All cases, with the features that a store needs for each.
#[must_use]
pub fn all() -> Vec<Case> {
    vec![
        case("a_missing_item_is_nothing", &[], |c, s| Box::pin(missing_item(c, s))),
        case("what_was_saved_can_be_read", &[], |c, s| Box::pin(round_trip(c, s))),
        case("every_kind_of_json_survives", &[], |c, s| Box::pin(json_survives(c, s))),
        case("a_second_save_replaces_the_first", &[], |c, s| Box::pin(replaced(c, s))),
        case("a_deleted_item_is_gone", &[], |c, s| Box::pin(deleted(c, s))),
        case("deleting_what_does_not_exist_succeeds", &[], |c, s| Box::pin(delete_missing(c, s))),
        case("many_items_are_saved_in_one_request", &[], |c, s| Box::pin(bulk_save(c, s))),
        case("a_bulk_read_answers_in_the_order_of_the_keys", &[], |c, s| Box::pin(bulk_order(c, s))),
        case("a_key_with_the_separator_is_refused", &[], |c, s| Box::pin(separator_refused(c, s))),
        case("keys_may_hold_spaces_slashes_and_any_script", &[], |c, s| Box::pin(odd_keys(c, s))),
        case("every_write_gives_a_new_etag", &[Feature::Etag], |c, s| Box::pin(etag_changes(c, s))),
        case("the_current_etag_is_accepted", &[Feature::Etag], |c, s| Box::pin(current_etag(c, s))),
        case("a_stale_etag_is_rejected", &[Feature::Etag], |c, s| Box::pin(stale_etag(c, s))),
        case("a_stale_etag_does_not_delete", &[Feature::Etag], |c, s| Box::pin(stale_delete(c, s))),
        case("first_write_succeeds_only_once", &[Feature::Etag], |c, s| Box::pin(first_write(c, s))),
        case("of_many_concurrent_first_writes_one_wins", &[Feature::Etag], |c, s| Box::pin(one_wins(c, s))),
        case("one_failed_item_does_not_undo_the_others", &[Feature::Etag], |c, s| Box::pin(partial_bulk(c, s))),
        case("an_item_with_a_ttl_expires", &[Feature::Ttl], |c, s| Box::pin(ttl_expires(c, s))),
        case("a_life_of_minus_one_takes_the_life_away", &[Feature::Ttl], |c, s| Box::pin(ttl_removed(c, s))),
        case("a_transaction_applies_all_its_operations", &[Feature::Transactional], |c, s| {
            Box::pin(transaction_applies(c, s))
        }),
        case("a_failed_transaction_applies_nothing", &[Feature::Transactional, Feature::Etag], |c, s| {
            Box::pin(transaction_is_atomic(c, s))
        }),
        case("operations_on_one_key_apply_in_order", &[Feature::Transactional], |c, s| {
            Box::pin(transaction_order(c, s))
        }),
        case("an_empty_transaction_does_nothing", &[Feature::Transactional], |c, s| Box::pin(empty_transaction(c, s))),
        case("concurrent_transactions_do_not_lose_updates", &[Feature::Transactional, Feature::Etag], |c, s| {
            Box::pin(no_lost_updates(c, s))
        }),
    ]
}

fn case(
    name: &'static str,
    needs: &'static [Feature],
    run: for<'a> fn(&'a dyn Client, &'a str) -> Running<'a>,
) -> Case {
    Case::new(name, needs.iter().map(|feature| feature.name()).collect(), run)
}

async fn read(c: &dyn Client, s: &str, key: &str) -> Result<Option<String>, String> {
    let item = c.get(s, key).await.map_err(|failure| failure.to_string())?;
    item.map(|item| String::from_utf8(item.value).map_err(|error| error.to_string())).transpose()
}

/// The value of `key`, which a store may have written in another form of the same JSON.
async fn read_json(c: &dyn Client, s: &str, key: &str) -> Result<Option<Value>, String> {
    let text = read(c, s, key).await?;
    text.map(|text| serde_json::from_str(&text).map_err(|error| format!("{error} in {text}"))).transpose()
}

async fn etag(c: &dyn Client, s: &str, key: &str) -> Result<String, String> {
    let item = c.get(s, key).await.map_err(|failure| failure.to_string())?;
    item.and_then(|item| item.etag).ok_or_else(|| format!("{key} has no etag"))
}

async fn save(c: &dyn Client, s: &str, write: Write) -> Outcome {
    c.save(s, &[write]).await.map_err(|failure| failure.to_string())
}

async fn missing_item(c: &dyn Client, s: &str) -> Outcome {
    check_eq("value", read(c, s, "missing").await?, None)
}

async fn round_trip(c: &dyn Client, s: &str) -> Outcome {
    save(c, s, Write::new("trip", r#"{"a":1}"#)).await?;
    check_eq("value", read_json(c, s, "trip").await?, Some(json!({"a": 1})))
}

async fn json_survives(c: &dyn Client, s: &str) -> Outcome {
    for text in ["null", "true", "0", "-1.5", r#""""#, r#""žluť €""#, "[]", "{}", r#"[1,"a",null,{"b":[true]}]"#] {
        save(c, s, Write::new("json", text)).await?;
        let saved: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        check_eq("value", read_json(c, s, "json").await?, Some(saved))?;
    }
    Ok(())
}

async fn replaced(c: &dyn Client, s: &str) -> Outcome {
    save(c, s, Write::new("again", "1")).await?;
    save(c, s, Write::new("again", "2")).await?;
    check_eq("value", read(c, s, "again").await?.as_deref(), Some("2"))
}

async fn deleted(c: &dyn Client, s: &str) -> Outcome {
    save(c, s, Write::new("doomed", "1")).await?;
    c.delete(s, "doomed", None).await.map_err(|failure| failure.to_string())?;
    check_eq("value", read(c, s, "doomed").await?, None)
}

async fn delete_missing(c: &dyn Client, s: &str) -> Outcome {
    c.delete(s, "never-there", None).await.map_err(|failure| failure.to_string())
}

async fn bulk_save(c: &dyn Client, s: &str) -> Outcome {
    let writes: Vec<_> = (0..50).map(|n| Write::new(format!("bulk-{n}"), n.to_string())).collect();
    c.save(s, &writes).await.map_err(|failure| failure.to_string())?;
    for n in [0, 25, 49] {
        check_eq("value", read(c, s, &format!("bulk-{n}")).await?, Some(n.to_string()))?;
    }
    Ok(())
}

async fn bulk_order(c: &dyn Client, s: &str) -> Outcome {
    c.save(s, &[Write::new("order-a", "1"), Write::new("order-b", "2")])
        .await
        .map_err(|failure| failure.to_string())?;
    let keys = ["order-b", "order-missing", "order-a", "order-b"];
    let items = c.bulk_get(s, &keys).await.map_err(|failure| failure.to_string())?;
    let found: Vec<_> = items
        .iter()
        .map(|(key, item)| (key.as_str(), item.as_ref().map(|item| String::from_utf8_lossy(&item.value).into_owned())))
        .collect();
    let expect = [("order-b", Some("2")), ("order-missing", None), ("order-a", Some("1")), ("order-b", Some("2"))];
    check_eq("items", found, expect.map(|(key, value)| (key, value.map(str::to_owned))).to_vec())
}

async fn separator_refused(c: &dyn Client, s: &str) -> Outcome {
    let refused = [
        c.get(s, "a||b").await.err(),
        c.bulk_get(s, &["fine", "a||b"]).await.err(),
        c.save(s, &[Write::new("a||b", "1")]).await.err(),
        c.delete(s, "a||b", None).await.err(),
    ];
    for failure in refused {
        check_eq("failure", failure.map(|failure| failure.kind), Some(FailureKind::Invalid))?;
    }
    Ok(())
}

async fn odd_keys(c: &dyn Client, s: &str) -> Outcome {
    for key in ["with space", "a/b/c", "ключ", "per%cent", "quo'te\"", "a|b", "."] {
        save(c, s, Write::new(key, "1")).await?;
        let items = c.bulk_get(s, &[key]).await.map_err(|failure| failure.to_string())?;
        check(items.iter().all(|(name, item)| name == key && item.is_some()), || format!("{key:?} was not found"))?;
    }
    Ok(())
}

async fn etag_changes(c: &dyn Client, s: &str) -> Outcome {
    save(c, s, Write::new("versioned", "1")).await?;
    let first = etag(c, s, "versioned").await?;
    check_eq("etag without a write", etag(c, s, "versioned").await?, first.clone())?;
    save(c, s, Write::new("versioned", "1")).await?;
    check(etag(c, s, "versioned").await? != first, || "the etag did not change".to_owned())
}

async fn current_etag(c: &dyn Client, s: &str) -> Outcome {
    save(c, s, Write::new("guarded", "1")).await?;
    let current = etag(c, s, "guarded").await?;
    save(c, s, Write::new("guarded", "2").over(current)).await?;
    let current = etag(c, s, "guarded").await?;
    c.delete(s, "guarded", Some(&current)).await.map_err(|failure| failure.to_string())?;
    check_eq("value", read(c, s, "guarded").await?, None)
}

async fn stale_etag(c: &dyn Client, s: &str) -> Outcome {
    save(c, s, Write::new("stale", "1")).await?;
    let old = etag(c, s, "stale").await?;
    save(c, s, Write::new("stale", "2")).await?;
    for write in [Write::new("stale", "3").over(&old), Write::new("stale", "3").over(&old).first()] {
        let failure = c.save(s, &[write]).await.err();
        check_eq("failure", failure.map(|failure| failure.kind), Some(FailureKind::Conflict))?;
    }
    check_eq("value", read(c, s, "stale").await?.as_deref(), Some("2"))
}

async fn stale_delete(c: &dyn Client, s: &str) -> Outcome {
    save(c, s, Write::new("kept", "1")).await?;
    let old = etag(c, s, "kept").await?;
    save(c, s, Write::new("kept", "2")).await?;
    let failure = c.delete(s, "kept", Some(&old)).await.err();
    check_eq("failure", failure.map(|failure| failure.kind), Some(FailureKind::Conflict))?;
    check_eq("value", read(c, s, "kept").await?.as_deref(), Some("2"))
}

async fn first_write(c: &dyn Client, s: &str) -> Outcome {
    save(c, s, Write::new("once", "1").first()).await?;
    check(c.save(s, &[Write::new("once", "2").first()]).await.is_err(), || "the second write succeeded".to_owned())?;
    check_eq("value", read(c, s, "once").await?.as_deref(), Some("1"))
}

async fn one_wins(c: &dyn Client, s: &str) -> Outcome {
    let attempts =
        (0..16).map(|n| async move { c.save(s, &[Write::new("race", n.to_string()).first()]).await.is_ok() });
    let winners = futures_util::future::join_all(attempts).await.into_iter().filter(|won| *won).count();
    check_eq("winners", winners, 1)
}

async fn partial_bulk(c: &dyn Client, s: &str) -> Outcome {
    save(c, s, Write::new("partial-old", "1")).await?;
    let old = etag(c, s, "partial-old").await?;
    save(c, s, Write::new("partial-old", "2")).await?;
    let writes = [Write::new("partial-old", "3").over(old), Write::new("partial-new", "3")];
    let failure = c.save(s, &writes).await.err();
    check_eq("failure", failure.map(|failure| failure.kind), Some(FailureKind::Conflict))?;
    check_eq("the failed item", read(c, s, "partial-old").await?.as_deref(), Some("2"))?;
    check_eq("the other item", read(c, s, "partial-new").await?.as_deref(), Some("3"))
}

async fn ttl_expires(c: &dyn Client, s: &str) -> Outcome {
    save(c, s, Write::new("brief", "1").living(1)).await?;
    check(read(c, s, "brief").await?.is_some(), || "it was gone at once".to_owned())?;
    keep_trying(Duration::from_secs(10), || async { Ok(read(c, s, "brief").await?.is_none()) }).await?;
    save(c, s, Write::new("brief", "2").first()).await
}

async fn ttl_removed(c: &dyn Client, s: &str) -> Outcome {
    save(c, s, Write::new("saved", "1").living(1)).await?;
    save(c, s, Write::new("saved", "2").living(-1)).await?;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    check_eq("value", read(c, s, "saved").await?.as_deref(), Some("2"))
}

async fn transaction_applies(c: &dyn Client, s: &str) -> Outcome {
    save(c, s, Write::new("tx-old", "1")).await?;
    let steps = [
        Step::Upsert(Write::new("tx-a", "1")),
        Step::Upsert(Write::new("tx-b", r#"{"n":2}"#)),
        Step::Delete("tx-old".into(), None),
    ];
    c.transact(s, &steps).await.map_err(|failure| failure.to_string())?;
    check_eq("a", read(c, s, "tx-a").await?.as_deref(), Some("1"))?;
    check_eq("b", read_json(c, s, "tx-b").await?, Some(json!({"n": 2})))?;
    check_eq("deleted", read(c, s, "tx-old").await?, None)
}

async fn transaction_is_atomic(c: &dyn Client, s: &str) -> Outcome {
    save(c, s, Write::new("atomic-guard", "1")).await?;
    let old = etag(c, s, "atomic-guard").await?;
    save(c, s, Write::new("atomic-guard", "2")).await?;
    let steps = [
        Step::Upsert(Write::new("atomic-new", "1")),
        Step::Upsert(Write::new("atomic-guard", "3").over(old)),
        Step::Upsert(Write::new("atomic-late", "1")),
    ];
    check(c.transact(s, &steps).await.is_err(), || "a stale etag was accepted".to_owned())?;
    check_eq("guard", read(c, s, "atomic-guard").await?.as_deref(), Some("2"))?;
    Ok(())
}

async fn transaction_order(c: &dyn Client, s: &str) -> Outcome {
    let key = "same-key";
    let steps = [
        Step::Upsert(Write::new(key, "1")),
        Step::Delete(key.into(), None),
        Step::Upsert(Write::new(key, "2")),
        Step::Upsert(Write::new(key, "3")),
    ];
    c.transact(s, &steps).await.map_err(|failure| failure.to_string())?;
    check_eq("value", read(c, s, key).await?.as_deref(), Some("3"))
}

async fn empty_transaction(c: &dyn Client, s: &str) -> Outcome {
    c.transact(s, &[]).await.map_err(|failure| failure.to_string())
}

async fn no_lost_updates(c: &dyn Client, s: &str) -> Outcome {
    const WRITERS: usize = 4;
    const EACH: usize = 5;
    save(c, s, Write::new("counter", "0")).await?;
    let writers = (0..WRITERS).map(|_| async {
        for _ in 0..EACH {
            keep_trying(Duration::from_secs(20), || async {
                let item = c.get(s, "counter").await.map_err(|failure| failure.to_string())?;
                let item = item.ok_or("the counter is gone")?;
                let count: usize = String::from_utf8_lossy(&item.value).parse().map_err(|_| "not a number")?;
                let write = Write { etag: item.etag, ..Write::new("counter", (count + 1).to_string()) };
                Ok(c.transact(s, &[Step::Upsert(write)]).await.is_ok())
            })
            .await?;
        }
        Ok::<_, String>(())
    });
    for outcome in futures_util::future::join_all(writers).await {
        outcome?;
    }
    check_eq("count", read(c, s, "counter").await?, Some((WRITERS * EACH).to_string()))
}
