//! Networks.

use axum::Json;
use serde_json::Value;

use crate::{error::Answer, name::Name, query::Query, routes::State, wire::network};

/// `GET /networks?filters=`
pub(crate) async fn list(state: State, query: Query) -> Answer<Json<Vec<Value>>> {
    let filters = query.filters()?;
    let mut documents = Vec::new();
    for found in state.list_networks().await? {
        if network::agrees(&found, &filters)? {
            documents.push(network::document(&found, &[]));
        }
    }
    Ok(Json(documents))
}

/// `GET /networks/{id}`
pub(crate) async fn inspect(state: State, Name(name): Name) -> Answer<Json<Value>> {
    let (found, endpoints) = state.inspect_network(&name).await?;
    Ok(Json(network::document(&found, &endpoints)))
}
