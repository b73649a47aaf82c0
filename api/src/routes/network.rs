//! Networks.

use axum::http::StatusCode;
use serde_json::{Value, json};
use sluice_engine::PruneNetworks;

use crate::{
    body::Json,
    error::{Answer, ApiError},
    name::Name,
    query::Query,
    routes::State,
    time,
    wire::network::{self, Connect, Create, Disconnect},
};

/// `GET /networks?filters=`
pub(crate) async fn list(state: State, query: Query) -> Answer<axum::Json<Vec<Value>>> {
    let filters = query.filters()?;
    let mut documents = Vec::new();
    for (found, is_used) in state.list_networks().await? {
        if network::agrees(&found, is_used, &filters)? {
            documents.push(network::document(&found, &[], None));
        }
    }
    Ok(axum::Json(documents))
}

/// `GET /networks/{id}`
pub(crate) async fn inspect(state: State, Name(name): Name) -> Answer<axum::Json<Value>> {
    Ok(axum::Json(network::view(&state.inspect_network(&name).await?)))
}

/// `POST /networks/create`
pub(crate) async fn create(state: State, Json(wish): Json<Create>) -> Answer<(StatusCode, axum::Json<Value>)> {
    let id = state.create_network(wish.into_request()?).await?;
    Ok((StatusCode::CREATED, axum::Json(json!({ "Id": id, "Warning": "" }))))
}

/// `DELETE /networks/{id}`
pub(crate) async fn remove(state: State, Name(name): Name) -> Answer<StatusCode> {
    state.remove_network(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /networks/{id}/connect`
pub(crate) async fn connect(state: State, Name(name): Name, Json(wish): Json<Connect>) -> Answer<StatusCode> {
    let place = wish.endpoint_config.into_wish(&name)?;
    state.connect_network(&name, &wish.container, place).await?;
    Ok(StatusCode::OK)
}

/// `POST /networks/{id}/disconnect`
pub(crate) async fn disconnect(state: State, Name(name): Name, Json(wish): Json<Disconnect>) -> Answer<StatusCode> {
    state.disconnect_network(&name, &wish.container, wish.force).await?;
    Ok(StatusCode::OK)
}

/// `POST /networks/prune?filters=`
pub(crate) async fn prune(state: State, query: Query) -> Answer<axum::Json<Value>> {
    let filters = query.filters()?;
    filters.only(&["until", "label", "label!"])?;
    let until = match filters.values("until").as_slice() {
        [] => None,
        [text] => {
            time::moment(text).map_err(|why| ApiError::invalid(format!("invalid filter 'until={text}': {why}")))?
        }
        _ => return Err(ApiError::invalid("more than one until filter specified")),
    };
    let removed = state
        .prune_networks(PruneNetworks {
            until,
            labels: filters.values("label"),
            labels_not: filters.values("label!"),
        })
        .await?;
    Ok(axum::Json(json!({ "NetworksDeleted": removed })))
}
