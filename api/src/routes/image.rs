//! Images.

use axum::{
    Json,
    body::Body,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use sluice_engine::{PullImage, PushImage, Transfer};

use crate::{
    body, credentials,
    error::{Answer, ApiError},
    name::Name,
    query::Query,
    routes::{State, container::files},
    stream,
    version::Version,
    wire::{image, progress},
};

/// `GET /images/json?filters=`
pub(crate) async fn list(state: State, version: Version, query: Query) -> Answer<Json<Vec<Value>>> {
    let mut images = image::choose(state.list_images().await?, &query.filters()?)?;
    if !query.flag("all") {
        images.retain(|image| !image.is_intermediate);
    }
    Ok(Json(
        images.iter().map(|found| image::summary(found, version)).collect(),
    ))
}

/// `GET /images/{name}/json`
pub(crate) async fn inspect(state: State, Name(name): Name, version: Version) -> Answer<Json<Value>> {
    Ok(Json(image::document(&state.inspect_image(&name).await?, version)))
}

/// `GET /images/{name}/history`
pub(crate) async fn history(state: State, Name(name): Name) -> Answer<Json<Value>> {
    Ok(Json(image::history(&state.line_of_image(&name).await?)))
}

/// `POST /images/create?fromImage=&tag=&platform=`: an image of a registry. `?fromSrc=-&repo=&tag=&message=&changes=`: one of a tar stream,
/// or, with a URL for `-`, of a tar in the web.
pub(crate) async fn create(state: State, query: Query, headers: HeaderMap, body: Body) -> Answer<Response> {
    if let Some(image) = query.text("fromImage") {
        let reference = named(image, query.text("tag"));
        let request = PullImage {
            all_tags: query.text("tag").is_none() && !has_tag(image),
            reference,
            platform: query.text("platform").map(str::to_owned),
            credentials: credentials::of_request(&headers),
        };
        return Ok(transfer(state.pull_image(request).await?));
    }
    let from = query
        .text("fromSrc")
        .ok_or_else(|| ApiError::invalid("neither fromSrc nor fromImage says where the image comes from"))?;
    let reference = query.text("repo").map(|name| named(name, query.text("tag")));
    let changes = query
        .values("changes")
        .flat_map(str::lines)
        .map(str::to_owned)
        .collect();
    let message = query.text("message").unwrap_or_default().to_owned();
    let image = match from {
        "-" => {
            state
                .import_image(body::upload(body), reference, changes, message)
                .await?
        }
        url => state.import_from_web(url, reference, changes, message).await?,
    };
    Ok(told([json!({ "status": image.id })]))
}

/// `POST /images/load`
pub(crate) async fn load(state: State, body: Body) -> Answer<Response> {
    let tar = body::upload(body);
    let lines = state.load_images(tar).await?;
    Ok(told(lines.iter().map(|line| json!({ "stream": format!("{line}\n") }))))
}

/// `POST /images/{name}/tag?repo=&tag=`
pub(crate) async fn tag(state: State, Name(name): Name, query: Query) -> Answer<StatusCode> {
    let repository = query
        .text("repo")
        .ok_or_else(|| ApiError::invalid("no name was given to tag the image with"))?;
    let reference = named(repository, query.text("tag"));
    state.tag_image(&name, &reference).await?;
    Ok(StatusCode::CREATED)
}

/// `DELETE /images/{name}?force=`
pub(crate) async fn remove(state: State, Name(name): Name, query: Query) -> Answer<Json<Value>> {
    let force = query.flag("force");
    let removed = state.remove_image(&name, force).await?;
    Ok(Json(image::removed(&removed)))
}

/// `POST /images/{name}/push?tag=`; without a tag, all of them.
pub(crate) async fn push(state: State, Name(name): Name, query: Query, headers: HeaderMap) -> Answer<Response> {
    let request = PushImage {
        all_tags: query.text("tag").is_none() && !has_tag(&name),
        reference: named(&name, query.text("tag")),
        credentials: credentials::of_request(&headers),
    };
    Ok(transfer(state.push_image(request).await?))
}

/// `GET /distribution/{name}/json`
pub(crate) async fn distribution(state: State, Name(name): Name, headers: HeaderMap) -> Answer<Json<Value>> {
    let found = state.distribution(&name, credentials::of_request(&headers)).await?;
    Ok(Json(image::distribution(&found)))
}

/// `GET /images/search`: refused.
pub(crate) async fn search() -> ApiError {
    ApiError::not_offered(
        "searching for images (registries of OCI's kind have no search: look at the registry's own site, or list a private one with GET /v2/_catalog)",
    )
}

/// `GET /images/{name}/get`
pub(crate) async fn save(state: State, Name(name): Name) -> Answer<Response> {
    archive_of(&state, vec![name]).await
}

/// `GET /images/get?names=a&names=b`
pub(crate) async fn save_all(state: State, query: Query) -> Answer<Response> {
    let names: Vec<String> = query
        .values("names")
        .flat_map(|names| names.split(','))
        .map(str::to_owned)
        .collect();
    if names.is_empty() {
        return Err(ApiError::invalid("no image was named to save"));
    }
    archive_of(&state, names).await
}

async fn archive_of(state: &State, names: Vec<String>) -> Answer<Response> {
    let tar = state.save_images(names).await?;
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], files::stream(tar)).into_response())
}

/// `POST /images/prune?filters=`
pub(crate) async fn prune(state: State, query: Query) -> Answer<Json<Value>> {
    let (removed, bytes) = state.prune_images(image::prunable(query.filters()?)?).await?;
    let gone = if removed.is_empty() {
        Value::Null
    } else {
        image::removed(&removed)
    };
    Ok(Json(json!({ "ImagesDeleted": gone, "SpaceReclaimed": bytes })))
}

/// A name with its tag or digest.
pub(crate) fn named(repository: &str, tag: Option<&str>) -> String {
    match tag {
        Some(digest) if digest.starts_with("sha256:") => format!("{repository}@{digest}"),
        Some(tag) => format!("{repository}:{tag}"),
        None => repository.to_owned(),
    }
}

/// Does the name say which of a repository's images it means?
fn has_tag(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.contains([':', '@'])
}

/// What happens in a transfer, line by line.
fn transfer(transfer: Transfer) -> Response {
    stream::lines_of(futures_util::stream::unfold(transfer, |mut transfer| async move {
        let document = match transfer.next().await? {
            Ok(news) => progress::of_news(&news),
            Err(error) => progress::of_error(&error),
        };
        Some((progress::line(&document), transfer))
    }))
}

/// Lines of progress, as clients print them.
fn told(lines: impl IntoIterator<Item = Value>) -> Response {
    let text: String = lines.into_iter().map(|line| format!("{line}\r\n")).collect();
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
