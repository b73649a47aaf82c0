//! Documents on who may speak to whom.

use axum::{
    Json,
    body::Body,
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
};
use serde_json::Value;
use sluice_agent::view::Explanation;
use sluice_engine::{Asked, Standing};
use sluice_policy::{Policy, Traffic, document, traffic};

use crate::{
    error::{Answer, ApiError},
    name::Name,
    query::Query,
    routes::State,
    wire::policy,
};

/// The largest text that is read, bytes: ten thousand rules are two million.
const MOST_TEXT: usize = 16 << 20;
/// A web page can make a browser send any text to a port of this machine, but not with these types: so one is asked for.
const TYPES: [&str; 2] = ["application/yaml", "application/json"];

/// `GET /sluice/v1/policies`
pub(crate) async fn list(state: State) -> Answer<Json<Vec<Value>>> {
    Ok(Json(state.policies().await?.iter().map(policy::document).collect()))
}

/// `GET /sluice/v1/standing-rules`
pub(crate) async fn standing(state: State) -> Json<Vec<Standing>> {
    Json(state.standing_rules())
}

/// `GET /sluice/v1/policies/{name}`
pub(crate) async fn inspect(state: State, Name(name): Name) -> Answer<Json<Value>> {
    Ok(Json(policy::document(&state.policy(&name).await?)))
}

/// `PUT /sluice/v1/policies?dry-run=`
pub(crate) async fn apply(state: State, query: Query, headers: HeaderMap, body: Body) -> Answer<Json<Value>> {
    let policies = read(&headers, body).await?;
    let applied = state.apply_policies(policies, query.flag("dry-run")).await?;
    Ok(Json(policy::applied(&applied)))
}

/// `PUT /sluice/v1/policies/{name}?dry-run=`
pub(crate) async fn apply_one(
    state: State,
    Name(name): Name,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Answer<Json<Value>> {
    let policies = read(&headers, body).await?;
    match &policies[..] {
        [one] if one.name.as_str() == name => {}
        [one] => {
            return Err(ApiError::invalid(format!(
                "the policy is called {}, and was to be applied as {name}",
                one.name.as_str()
            )));
        }
        _ => return Err(ApiError::invalid(format!("one policy is wanted here, {name}"))),
    }
    let applied = state.apply_policies(policies, query.flag("dry-run")).await?;
    Ok(Json(policy::applied(&applied)))
}

/// `DELETE /sluice/v1/policies/{name}`
pub(crate) async fn remove(state: State, Name(name): Name) -> Answer<StatusCode> {
    state.delete_policy(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /sluice/v1/judge?from=&to=&traffic=`
pub(crate) async fn test(state: State, query: Query, headers: HeaderMap, body: Body) -> Answer<Json<Value>> {
    let asked = asked(&query)?;
    let policies = match headers.contains_key(CONTENT_TYPE) {
        true => read(&headers, body).await?,
        false => Vec::new(),
    };
    Ok(Json(policy::judged(&state.test_policies(policies, &asked).await?)))
}

/// `GET /sluice/v1/explain?from=&to=&traffic=`
pub(crate) async fn explain(state: State, query: Query) -> Answer<Json<Explanation>> {
    Ok(Json(state.explain(&asked(&query)?).await?))
}

/// The conversation that is asked about.
fn asked(query: &Query) -> Result<Asked, ApiError> {
    let wanted = |name: &str| {
        let text = query.text(name).map(str::to_owned);
        text.ok_or_else(|| ApiError::invalid(format!("who speaks to whom is to be said: {name} is missing")))
    };
    let (protocol, port) = conversation(query.text("traffic").unwrap_or("tcp"))?;
    Ok(Asked {
        from: wanted("from")?,
        to: wanted("to")?,
        protocol,
        port,
    })
}

/// One conversation of such traffic: of a protocol without ports, or of which none was said, the port is 0.
fn conversation(text: &str) -> Result<(u8, u16), ApiError> {
    let several = || ApiError::invalid(format!("{text} is more than one conversation: say one port"));
    let parsed: Traffic = text
        .parse()
        .map_err(|error: traffic::NotTraffic| ApiError::invalid(error.to_string()))?;
    match parsed {
        Traffic::Ports { protocol, first, last } if first == last => Ok((protocol, first)),
        Traffic::Ports { .. } => Err(several()),
        Traffic::Protocol(protocol) => Ok((protocol, 0)),
        Traffic::Icmp | Traffic::Echo => Ok((traffic::ICMP, 8)),
        Traffic::IcmpType { protocol, kind } => Ok((protocol, kind.into())),
    }
}

async fn read(headers: &HeaderMap, body: Body) -> Result<Vec<Policy>, ApiError> {
    let declared = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media_type = declared.split(';').next().unwrap_or_default().trim();
    if !TYPES.contains(&media_type) {
        return Err(ApiError::invalid(format!(
            "unsupported Content-Type header ({media_type}): must be {}",
            TYPES.join(" or ")
        )));
    }
    let bytes = axum::body::to_bytes(body, MOST_TEXT)
        .await
        .map_err(|error| ApiError::invalid(format!("cannot read the request's body: {error}")))?;
    let text = str::from_utf8(&bytes).map_err(|_| ApiError::invalid("policies are text in UTF-8"))?;
    document::read(text).map_err(|error| ApiError::invalid(error.to_string()))
}
