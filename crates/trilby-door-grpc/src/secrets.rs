//! Secrets: decode, call the block, encode.

use trilby_core::{Api, Ctx, Result};
use trilby_proto::runtime::v1::{
    GetBulkSecretRequest, GetBulkSecretResponse, GetSecretRequest, GetSecretResponse, SecretResponse,
};

use crate::codec;

pub(crate) async fn get(api: &Api, ctx: &Ctx, message: GetSecretRequest) -> Result<GetSecretResponse> {
    let metadata = codec::from_map(message.metadata);

    let secret = api.secrets.get(ctx, &message.store_name, &message.key, &metadata).await?;

    Ok(GetSecretResponse { data: codec::to_map(secret) })
}

pub(crate) async fn bulk_get(api: &Api, ctx: &Ctx, message: GetBulkSecretRequest) -> Result<GetBulkSecretResponse> {
    let metadata = codec::from_map(message.metadata);

    let secrets = api.secrets.bulk_get(ctx, &message.store_name, &metadata).await?;

    let data = secrets.into_iter().map(|(name, secret)| (name, SecretResponse { secrets: codec::to_map(secret) }));
    Ok(GetBulkSecretResponse { data: data.collect() })
}
