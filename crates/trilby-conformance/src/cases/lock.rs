//! What every lock store must do, as an application sees it.

use std::time::Duration;

use trilby_component::lock::UnlockStatus;

use super::{Case, Outcome, check, check_eq, keep_trying, unique};
use crate::client::{Client, FailureKind};

/// All cases.
#[must_use]
pub fn all() -> Vec<Case> {
    vec![
        Case::new("a_lock_keeps_everybody_out_until_its_owner_gives_it_back", Vec::new(), |c, s| {
            Box::pin(excludes(c, s))
        }),
        Case::new("a_lock_ends_by_itself_after_its_time", Vec::new(), |c, s| Box::pin(expires(c, s))),
        Case::new("a_lock_without_resource_owner_or_time_is_invalid", Vec::new(), |c, s| Box::pin(incomplete(c, s))),
        Case::new("a_resource_with_the_separator_in_its_name_is_refused", Vec::new(), |c, s| Box::pin(separator(c, s))),
        Case::new("a_lock_store_that_does_not_exist_is_an_error_that_names_it", Vec::new(), |c, _| {
            Box::pin(missing(c))
        }),
    ]
}

/// Longer than a case takes, in seconds.
const LONG: u32 = 60;

async fn take(c: &dyn Client, s: &str, resource: &str, owner: &str, seconds: u32) -> Result<bool, String> {
    c.try_lock(s, resource, owner, seconds).await.map_err(|failure| failure.to_string())
}

async fn give_back(c: &dyn Client, s: &str, resource: &str, owner: &str) -> Result<UnlockStatus, String> {
    c.unlock(s, resource, owner).await.map_err(|failure| failure.to_string())
}

async fn excludes(c: &dyn Client, s: &str) -> Outcome {
    let resource = &unique("resource");
    check_eq("nobody holds it", give_back(c, s, resource, "ann").await?, UnlockStatus::LockDoesNotExist)?;
    check_eq("ann takes it", take(c, s, resource, "ann", LONG).await?, true)?;
    check_eq("bob takes it", take(c, s, resource, "bob", LONG).await?, false)?;
    check_eq("ann takes it again", take(c, s, resource, "ann", LONG).await?, false)?;
    check_eq("another resource", take(c, s, &unique("other"), "bob", 1).await?, true)?;
    check_eq("bob gives it back", give_back(c, s, resource, "bob").await?, UnlockStatus::LockBelongsToOthers)?;
    check_eq("ann gives it back", give_back(c, s, resource, "ann").await?, UnlockStatus::Success)?;
    check_eq("ann gives it back again", give_back(c, s, resource, "ann").await?, UnlockStatus::LockDoesNotExist)?;
    check_eq("bob takes it at last", take(c, s, resource, "bob", LONG).await?, true)?;
    check_eq("bob gives it back at last", give_back(c, s, resource, "bob").await?, UnlockStatus::Success)
}

async fn expires(c: &dyn Client, s: &str) -> Outcome {
    let resource = &unique("resource");
    check_eq("ann takes it", take(c, s, resource, "ann", 1).await?, true)?;
    keep_trying(Duration::from_secs(10), || take(c, s, resource, "bob", LONG)).await?;
    check_eq("ann gives it back", give_back(c, s, resource, "ann").await?, UnlockStatus::LockBelongsToOthers)?;
    check_eq("bob gives it back", give_back(c, s, resource, "bob").await?, UnlockStatus::Success)
}

async fn incomplete(c: &dyn Client, s: &str) -> Outcome {
    for (resource, owner, seconds, expected) in [
        ("", "ann", LONG, "ResourceId is empty in lock store"),
        ("r", "", LONG, "LockOwner is empty in lock store"),
        ("r", "ann", 0, "ExpiryInSeconds is not positive in lock store"),
    ] {
        let Err(failure) = c.try_lock(s, resource, owner, seconds).await else { return Err("it was taken".to_owned()) };
        check(failure.kind == FailureKind::Invalid && failure.text.contains(expected), || failure.to_string())?;
    }
    let Err(failure) = c.unlock(s, "r", "").await else { return Err("it was given back".to_owned()) };
    check(failure.kind == FailureKind::Invalid, || failure.to_string())
}

async fn separator(c: &dyn Client, s: &str) -> Outcome {
    let Err(failure) = c.try_lock(s, "a||b", "ann", LONG).await else { return Err("it was taken".to_owned()) };
    check(failure.text.contains("input key/keyPrefix 'a||b' can't contain '||'"), || failure.to_string())
}

async fn missing(c: &dyn Client) -> Outcome {
    let Err(failure) = c.try_lock("other", "r", "ann", LONG).await else { return Err("it was taken".to_owned()) };
    check(failure.text.contains("lock store other not found"), || failure.to_string())?;
    let Err(failure) = c.unlock("other", "r", "ann").await else { return Err("it was given back".to_owned()) };
    check(failure.text.contains("lock store other not found"), || failure.to_string())
}
