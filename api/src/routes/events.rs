//! Events.

use axum::response::Response;
use sluice_engine::EventFilter;

use crate::{error::Answer, query::Query, routes::State, stream, wire};

/// `GET /events?since=&until=&filters=`
pub(crate) async fn events(state: State, query: Query) -> Answer<Response> {
    let filter = EventFilter {
        since: query.time("since")?,
        until: query.time("until")?,
        filters: query.filters()?.into_pairs(),
    };
    let events = state.events(filter).await?;
    Ok(stream::lines(events, |event| wire::events::line(&event)))
}
