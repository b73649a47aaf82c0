//! Builds.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Body,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sluice_engine::{BuildImage, BuildNews};
use sluice_model::{
    HostConfig,
    container::{self as model, NetworkMode},
};

use crate::{
    body, credentials,
    error::{Answer, ApiError},
    query::Query,
    routes::State,
    stream,
    wire::{image, progress},
};

/// `--ulimit`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ulimit {
    name: String,
    soft: i64,
    hard: i64,
}

/// `POST /build?remote=&buildid=&dockerfile=&t=&target=&buildargs=&labels=&nocache=&pull=&q=&rm=&forcerm=&networkmode=&memory=&…`
pub(crate) async fn build(state: State, query: Query, headers: HeaderMap, body: Body) -> Answer<Response> {
    let mut wish = wish(&query)?;
    wish.credentials = credentials::of_build(&headers)?;
    let transfer = state.build_image(wish, body::upload(body)).await?;
    Ok(stream::lines_of(futures_util::stream::unfold(
        transfer,
        |mut transfer| async move {
            let document = match transfer.next().await? {
                Ok(BuildNews::Text(text)) => json!({ "stream": text }),
                Ok(BuildNews::Pull(news)) => progress::of_news(&news),
                Ok(BuildNews::Image(id)) => json!({ "aux": { "ID": id } }),
                Ok(BuildNews::Failed(code, message)) => {
                    // the error that follows says the same in other words
                    transfer.end();
                    json!({ "errorDetail": { "code": code, "message": message }, "error": message })
                }
                Err(error) => progress::of_error(&error),
            };
            Some((progress::line(&document), transfer))
        },
    )))
}

fn wish(query: &Query) -> Answer<BuildImage> {
    if query.text("version") == Some("2") {
        return Err(ApiError::not_offered(
            "building with BuildKit (set DOCKER_BUILDKIT=0 for the classic builder)",
        ));
    }
    if query.flag("squash") {
        return Err(ApiError::not_offered("squashing the layers of a build"));
    }
    if query
        .text("outputs")
        .is_some_and(|outputs| outputs != "[]" && outputs != "null")
    {
        return Err(ApiError::not_offered(
            "writing the result of a build elsewhere (--output)",
        ));
    }
    if query
        .text("securityopt")
        .is_some_and(|options| options != "[]" && options != "null")
    {
        return Err(ApiError::not_offered("--security-opt of builds"));
    }
    let number = |name: &str| Ok::<i64, ApiError>(query.number(name)?.unwrap_or(0));
    let text = |name: &str| query.text(name).unwrap_or_default().to_owned();
    let host_config = HostConfig {
        network_mode: match query.text("networkmode").unwrap_or("default") {
            "default" | "bridge" => NetworkMode::Default,
            "host" => NetworkMode::Host,
            "none" => NetworkMode::None,
            other => match other.strip_prefix("container:") {
                Some(container) => NetworkMode::Container(container.to_owned()),
                None => NetworkMode::Network(other.to_owned()),
            },
        },
        memory: number("memory")?,
        memory_swap: number("memswap")?,
        cpu_shares: number("cpushares")?,
        cpu_period: number("cpuperiod")?,
        cpu_quota: number("cpuquota")?,
        cpuset_cpus: text("cpusetcpus"),
        cpuset_mems: text("cpusetmems"),
        shm_size: number("shmsize")?,
        cgroup_parent: text("cgroupparent"),
        extra_hosts: query
            .values("extrahosts")
            .flat_map(|hosts| hosts.split(','))
            .filter(|host| !host.is_empty())
            .map(str::to_owned)
            .collect(),
        ulimits: document::<Vec<Ulimit>>(query, "ulimits")?
            .into_iter()
            .map(|Ulimit { name, soft, hard }| model::Ulimit { name, soft, hard })
            .collect(),
        ..HostConfig::default()
    };
    let tags: Vec<String> = query
        .values("t")
        .filter(|tag| !tag.is_empty())
        .map(str::to_owned)
        .collect();
    Ok(BuildImage {
        remote: query
            .text("remote")
            .filter(|remote| *remote != "client-session")
            .map(str::to_owned),
        build_id: query.text("buildid").map(str::to_owned),
        cache_from: document(query, "cachefrom")?,
        dockerfile: query.text("dockerfile").map(str::to_owned),
        tags,
        target: query.text("target").map(str::to_owned),
        arguments: document(query, "buildargs")?,
        labels: document::<BTreeMap<String, String>>(query, "labels")?,
        no_cache: query.flag("nocache"),
        pull: query.flag("pull"),
        quiet: query.flag("q"),
        keep: !query.flag_or("rm", true),
        force_remove: query.flag("forcerm"),
        platform: query.text("platform").map(str::to_owned),
        host_config,
        credentials: BTreeMap::new(),
    })
}

/// `POST /build/prune?all=&filters=&keep-storage=`
pub(crate) async fn prune(state: State, query: Query) -> Answer<Json<Value>> {
    if query.number::<u64>("keep-storage")?.is_some_and(|bytes| bytes > 0) {
        return Err(ApiError::not_offered(
            "keeping so much of the builder's cache (--keep-storage): without it, all goes that nothing stands on",
        ));
    }
    let wanted = image::aged(query.filters()?)?;
    let (removed, bytes) = state.prune_builds(query.flag("all"), wanted).await?;
    Ok(Json(json!({ "CachesDeleted": removed, "SpaceReclaimed": bytes })))
}

/// `POST /build/cancel?id=`
pub(crate) async fn cancel(state: State, query: Query) -> Answer<StatusCode> {
    let id = query
        .text("id")
        .ok_or_else(|| ApiError::invalid("build ID not provided"))?;
    state.cancel_build(id);
    Ok(StatusCode::OK)
}

/// A parameter that is JSON; nothing and `null` are its default.
fn document<T: DeserializeOwned + Default>(query: &Query, name: &str) -> Answer<T> {
    let Some(text) = query.text(name) else {
        return Ok(T::default());
    };
    let read: Result<Option<T>, _> = serde_json::from_str(text);
    read.map(Option::unwrap_or_default)
        .map_err(|why| ApiError::invalid(format!("invalid value {text:?} for {name}: {why}")))
}
