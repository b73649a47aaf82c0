//! Images.

use axum::{
    Json,
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::{
    body,
    error::{Answer, ApiError},
    name::Name,
    query::Query,
    routes::{State, container::files::stream},
    version::Version,
    wire::image,
};

/// `GET /images/json?filters=`
pub(crate) async fn list(state: State, version: Version, query: Query) -> Answer<Json<Vec<Value>>> {
    let images = image::choose(state.list_images().await?, &query.filters()?)?;
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
    Ok(Json(image::history(&state.inspect_image(&name).await?)))
}

/// `POST /images/create?fromSrc=-&repo=&tag=&message=&changes=`: an image of a tar stream. Pulling (`fromImage`) is not in this version.
pub(crate) async fn create(state: State, query: Query, body: Body) -> Answer<Response> {
    if let Some(image) = query.text("fromImage") {
        return Err(cannot_pull(image, query.text("tag")));
    }
    match query.text("fromSrc") {
        Some("-") => {}
        Some(_) => return Err(ApiError::not_offered("importing an image from a URL")),
        None => {
            return Err(ApiError::invalid(
                "neither fromSrc nor fromImage says where the image comes from",
            ));
        }
    }
    let reference = query.text("repo").map(|name| named(name, query.text("tag")));
    let changes = query
        .values("changes")
        .flat_map(str::lines)
        .map(str::to_owned)
        .collect();
    let message = query.text("message").unwrap_or_default().to_owned();
    let tar = body::upload(body);
    let image = state.import_image(tar, reference, changes, message).await?;
    Ok(progress([json!({ "status": image.id })]))
}

/// `POST /images/load`
pub(crate) async fn load(state: State, body: Body) -> Answer<Response> {
    let tar = body::upload(body);
    let lines = state.load_images(tar).await?;
    Ok(progress(
        lines.iter().map(|line| json!({ "stream": format!("{line}\n") })),
    ))
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
    Ok(([(header::CONTENT_TYPE, "application/x-tar")], stream(tar)).into_response())
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

/// `docker run` pulls what is not here, and shows this sentence to its user; scripts look for the first half of it.
fn cannot_pull(image: &str, tag: Option<&str>) -> ApiError {
    let image = image.strip_prefix("docker.io/").unwrap_or(image);
    let image = image.strip_prefix("library/").unwrap_or(image);
    let name = named(image, tag);
    let version = env!("CARGO_PKG_VERSION");
    ApiError {
        status: StatusCode::NOT_FOUND,
        message: format!(
            "pull access denied for {name}, repository does not exist or may require 'docker login': \
             this version of Sluice ({version}) does not pull from registries, bring the image with 'docker load' or 'docker import'"
        ),
    }
}

/// A name with its tag or digest.
pub(crate) fn named(repository: &str, tag: Option<&str>) -> String {
    match tag {
        Some(digest) if digest.starts_with("sha256:") => format!("{repository}@{digest}"),
        Some(tag) => format!("{repository}:{tag}"),
        None => repository.to_owned(),
    }
}

/// Lines of progress, as clients print them.
fn progress(lines: impl IntoIterator<Item = Value>) -> Response {
    let text: String = lines.into_iter().map(|line| format!("{line}\r\n")).collect();
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
