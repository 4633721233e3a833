//! Writes of many items under a policy: what is tried again is what failed, and not what is written already.

use std::sync::{Mutex, PoisonError};

use trilby_component::{
    ComponentError,
    state::{BulkError, StateStore},
};

use crate::{
    Ctx,
    handle::{Calling, Handle},
    metrics::Op,
    resiliency::Failure as _,
};

type One<I> = for<'a> fn(&'a dyn StateStore, &'a I) -> Calling<'a, (), ComponentError>;
type Many<I> = for<'a> fn(&'a dyn StateStore, &'a [I]) -> Calling<'a, (), BulkError>;

/// How far a bulk write has come.
struct Progress {
    /// Positions of what is still to be written.
    open: Vec<usize>,
    /// What can never be.
    lost: Vec<(usize, ComponentError)>,
}

/// Writes many items, each on its own.
///
/// # Errors
/// The failures of the last attempt, and those that no attempt could mend.
pub(super) async fn write<I: Clone + Send + Sync>(
    handle: &Handle<dyn StateStore>,
    ctx: &Ctx,
    op: Op,
    items: &[I],
    one: One<I>,
    many: Many<I>,
) -> Result<(), BulkError> {
    if !handle.has_retries() {
        return handle.call(ctx, op, |store| many(store, items)).await;
    }
    let progress = Mutex::new(Progress { open: (0..items.len()).collect(), lost: Vec::new() });
    let progress = &progress;
    let attempt = |store| -> Calling<'_, (), BulkError> {
        Box::pin(async move {
            let open = progress.lock().unwrap_or_else(PoisonError::into_inner).open.clone();
            let written = match open.as_slice() {
                [index] => one(store, &items[*index]).await.map_err(|error| BulkError::Items(vec![(0, error)])),
                all if all.len() == items.len() => many(store, items).await,
                some => {
                    let rest: Vec<I> = some.iter().map(|index| items[*index].clone()).collect();
                    many(store, &rest).await
                }
            };
            let Err(BulkError::Items(failed)) = written else { return written };
            let failed = failed.into_iter().map(|(place, error)| (open[place], error));
            let (again, lost): (Vec<_>, Vec<_>) = failed.partition(|(_, error)| error.is_retryable());
            if again.is_empty() {
                return Err(BulkError::Items(lost));
            }
            let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
            progress.open = again.iter().map(|(index, _)| *index).collect();
            progress.lost.extend(lost);
            Err(BulkError::Items(again))
        })
    };
    let written = handle.call(ctx, op, attempt).await;

    let mut lost = std::mem::take(&mut progress.lock().unwrap_or_else(PoisonError::into_inner).lost);
    match written {
        Ok(()) if lost.is_empty() => Ok(()),
        Ok(()) => Err(BulkError::Items(lost)),
        Err(BulkError::Items(failed)) => {
            lost.extend(failed);
            lost.sort_by_key(|(index, _)| *index);
            Err(BulkError::Items(lost))
        }
        whole => whole,
    }
}
