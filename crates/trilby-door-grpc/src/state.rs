//! State: decode, call the block, encode.

use bytes::Bytes;
use trilby_component::state::{DeleteRequest, GetRequest, Item, Operation, Query};
use trilby_core::{Api, Ctx, Result, state::unsupported_operation};
use trilby_proto::runtime::v1::{
    BulkStateItem, DeleteBulkStateRequest, DeleteStateRequest, ExecuteStateTransactionRequest, GetBulkStateRequest,
    GetBulkStateResponse, GetStateRequest, GetStateResponse, QueryStateItem, QueryStateRequest, QueryStateResponse,
    SaveStateRequest, TransactionalStateOperation,
};

use crate::codec;

pub(crate) async fn get(api: &Api, ctx: &Ctx, message: GetStateRequest) -> Result<GetStateResponse> {
    let store = api.state.store(&message.store_name)?;
    let request = GetRequest {
        key: message.key,
        consistency: codec::consistency(message.consistency),
        metadata: codec::from_map(message.metadata),
    };

    let found = store.get(ctx, request).await?;

    // A missing item is an empty answer.
    Ok(found.map_or_else(GetStateResponse::default, |item| GetStateResponse {
        data: item.value,
        etag: item.etag.unwrap_or_default(),
        metadata: codec::to_map(item.metadata),
    }))
}

pub(crate) async fn bulk_get(api: &Api, ctx: &Ctx, message: GetBulkStateRequest) -> Result<GetBulkStateResponse> {
    let store = api.state.store(&message.store_name)?;
    let parallelism = usize::try_from(message.parallelism).unwrap_or(0);

    let found = store.bulk_get(ctx, message.keys, parallelism, codec::from_map(message.metadata)).await?;

    let items = found.into_iter().map(|(key, found)| match found {
        Ok(Some(item)) => BulkStateItem {
            key,
            data: item.value,
            etag: item.etag.unwrap_or_default(),
            error: String::new(),
            metadata: codec::to_map(item.metadata),
        },
        Ok(None) => BulkStateItem { key, ..BulkStateItem::default() },
        Err(error) => BulkStateItem { key, error: error.to_string(), ..BulkStateItem::default() },
    });
    Ok(GetBulkStateResponse { items: items.collect() })
}

pub(crate) async fn save(api: &Api, ctx: &Ctx, message: SaveStateRequest) -> Result<()> {
    let store = api.state.store(&message.store_name)?;
    let items = message.states.into_iter().map(codec::set).collect();

    store.save(ctx, items).await
}

pub(crate) async fn delete(api: &Api, ctx: &Ctx, message: DeleteStateRequest) -> Result<()> {
    let store = api.state.store(&message.store_name)?;
    let request = DeleteRequest {
        key: message.key,
        etag: codec::etag(message.etag),
        options: codec::write_options(message.options),
        metadata: codec::from_map(message.metadata),
    };

    store.delete(ctx, request).await
}

pub(crate) async fn bulk_delete(api: &Api, ctx: &Ctx, message: DeleteBulkStateRequest) -> Result<()> {
    let store = api.state.store(&message.store_name)?;
    let requests = message.states.into_iter().map(codec::delete).collect();

    store.bulk_delete(ctx, requests).await
}

pub(crate) async fn transact(api: &Api, ctx: &Ctx, message: ExecuteStateTransactionRequest) -> Result<()> {
    let store = api.state.store(&message.store_name)?.transactional()?;
    let operations = message.operations.into_iter().map(operation).collect::<Result<_>>()?;

    store.transact(ctx, operations, codec::from_map(message.metadata)).await
}

pub(crate) async fn query(api: &Api, ctx: &Ctx, message: QueryStateRequest) -> Result<QueryStateResponse> {
    let query = Query { document: Bytes::from(message.query), metadata: codec::from_map(message.metadata) };

    let found = api.state.query(ctx, &message.store_name, &query).await?;

    let results = found.items.into_iter().map(|(key, Item { value, etag, .. })| QueryStateItem {
        key,
        data: value,
        etag: etag.unwrap_or_default(),
        error: String::new(),
    });
    Ok(QueryStateResponse {
        results: results.collect(),
        token: found.token.unwrap_or_default(),
        metadata: codec::to_map(found.metadata),
    })
}

fn operation(wire: TransactionalStateOperation) -> Result<Operation> {
    let item = wire.request.unwrap_or_default();
    match wire.operation_type.as_str() {
        "upsert" => Ok(Operation::Upsert(codec::set_bytes(item))),
        "delete" => Ok(Operation::Delete(codec::delete(item))),
        other => Err(unsupported_operation(other)),
    }
}
