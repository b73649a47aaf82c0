//! The version a client speaks: `/v1.43/containers/json`.

use axum::http::{
    Request, Uri,
    uri::{InvalidUriParts, PathAndQuery},
};

use crate::error::ApiError;

/// The newest version we speak, and what a request without a version gets.
pub(crate) const NEWEST: Version = Version(50);
/// The oldest.
pub(crate) const OLDEST: Version = Version(24);

/// The minor number of a version whose major is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Version(pub(crate) u16);

// === impl Version ===

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

/// Every request that passed the door bears its version.
impl<S: Sync> axum::extract::FromRequestParts<S> for Version {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or(NEWEST))
    }
}

/// Takes the version off the request's path and writes it on the request. The router sees paths of one shape.
pub(crate) fn admit<B>(request: &mut Request<B>) -> Result<(), ApiError> {
    let path = request.uri().path();
    let (version, rest) = strip(path)?;
    let path = one_segment_names(request.method().as_str(), rest);
    if path != request.uri().path() {
        let changed =
            with_path(request.uri(), &path).map_err(|error| ApiError::invalid(format!("invalid path: {error}")))?;
        *request.uri_mut() = changed;
    }
    request.extensions_mut().insert(version);
    Ok(())
}

/// The version at the head of a path and what follows it.
fn strip(path: &str) -> Result<(Version, &str), ApiError> {
    let Some((major, minor, rest)) = version_of(path) else {
        return Ok((NEWEST, path));
    };
    let given = format!("{major}.{minor}");
    if (major, minor) < (1, OLDEST.0) {
        return Err(ApiError::invalid(format!(
            "client version {given} is too old. Minimum supported API version is {OLDEST}, please upgrade your client to a newer version"
        )));
    }
    if (major, minor) > (1, NEWEST.0) {
        return Err(ApiError::invalid(format!(
            "client version {given} is too new. Maximum supported API version is {NEWEST}"
        )));
    }
    Ok((Version(minor), rest))
}

/// `/v1.43/rest` as (1, 43, `/rest`); none when the path does not begin so.
fn version_of(path: &str) -> Option<(u16, u16, &str)> {
    let rest = path.strip_prefix("/v")?;
    let slash = rest.find('/')?;
    let (major, minor) = rest[..slash].split_once('.')?;
    let number = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| text.parse().ok())
            .flatten()
    };
    Some((number(major)?, number(minor)?, &rest[slash..]))
}

/// Names of images hold slashes (`library/nginx`); here they become one segment, so that the router can say `/images/{name}/json`.
/// Doubled slashes, as in `/containers//web/json`, become one.
fn one_segment_names(method: &str, path: &str) -> String {
    let path = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .fold(String::new(), |path, segment| path + "/" + segment);
    if let Some(rest) = path.strip_prefix("/containers/") {
        // what a container is called by a link: `web/cache`
        return match rest.split('/').collect::<Vec<_>>()[..] {
            [container, alias] if method == "DELETE" => format!("/containers/{container}%2F{alias}"),
            [container, alias, verb] if alias != "attach" => format!("/containers/{container}%2F{alias}/{verb}"),
            _ => path,
        };
    }
    let Some((family, rest)) = ["/images/", "/distribution/"]
        .iter()
        .find_map(|family| Some((family, path.strip_prefix(family)?)))
    else {
        return if path.is_empty() { "/".to_owned() } else { path };
    };
    match rest.rsplit_once('/') {
        _ if method == "DELETE" => format!("{family}{}", rest.replace('/', "%2F")),
        Some((name, verb)) => format!("{family}{}/{verb}", name.replace('/', "%2F")),
        None => path.clone(),
    }
}

fn with_path(uri: &Uri, path: &str) -> Result<Uri, InvalidUriParts> {
    let text = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(text).ok();
    Uri::from_parts(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(method: &str, path: &str) -> Result<(Version, String), String> {
        let mut request = Request::builder().method(method).uri(path).body(()).unwrap();
        admit(&mut request).map_err(|error| error.message)?;
        Ok((*request.extensions().get().unwrap(), request.uri().to_string()))
    }

    #[test]
    fn a_version_is_taken_off_and_the_query_stays() {
        assert_eq!(
            admitted("GET", "/v1.43/containers/json?all=1"),
            Ok((Version(43), "/containers/json?all=1".into()))
        );
    }

    #[test]
    fn a_path_without_version_gets_the_newest() {
        assert_eq!(admitted("GET", "/_ping"), Ok((NEWEST, "/_ping".into())));
        assert_eq!(admitted("GET", "/volumes"), Ok((NEWEST, "/volumes".into())));
        assert_eq!(admitted("GET", "/version"), Ok((NEWEST, "/version".into())));
    }

    #[test]
    fn the_ends_of_the_range_are_inside_and_their_neighbours_are_told_so() {
        assert_eq!(admitted("GET", "/v1.24/info"), Ok((Version(24), "/info".into())));
        assert_eq!(admitted("GET", "/v1.50/info"), Ok((Version(50), "/info".into())));
        assert_eq!(
            admitted("GET", "/v1.23/info"),
            Err("client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version".into())
        );
        assert_eq!(
            admitted("GET", "/v1.99/info"),
            Err("client version 1.99 is too new. Maximum supported API version is 1.50".into())
        );
        assert!(admitted("GET", "/v2.0/info").unwrap_err().contains("too new"));
        assert!(admitted("GET", "/v0.9/info").unwrap_err().contains("too old"));
    }

    #[test]
    fn what_only_looks_like_a_version_is_left_alone() {
        for path in ["/v1/info", "/vx.y/info", "/v1.43", "/v1.+3/info", "/v99999.1/info"] {
            assert_eq!(admitted("GET", path), Ok((NEWEST, path.into())), "{path}");
        }
    }

    #[test]
    fn slashes_in_names_of_images_stay_inside_one_segment() {
        assert_eq!(
            admitted("GET", "/v1.43/images/a/b:c/json").unwrap().1,
            "/images/a%2Fb:c/json"
        );
        assert_eq!(
            admitted("DELETE", "/images/a/b/c?force=1").unwrap().1,
            "/images/a%2Fb%2Fc?force=1"
        );
        assert_eq!(
            admitted("POST", "/images/r:5000/x/y/tag?repo=z").unwrap().1,
            "/images/r:5000%2Fx%2Fy/tag?repo=z"
        );
        assert_eq!(admitted("GET", "/images/json").unwrap().1, "/images/json");
        assert_eq!(admitted("POST", "/images/load").unwrap().1, "/images/load");
    }

    #[test]
    fn what_links_call_containers_stays_inside_one_segment() {
        assert_eq!(
            admitted("DELETE", "/v1.41/containers//web/cache?link=1").unwrap().1,
            "/containers/web%2Fcache?link=1"
        );
        assert_eq!(
            admitted("GET", "/containers/web/cache/json").unwrap().1,
            "/containers/web%2Fcache/json"
        );
        for path in ["/containers/web/json", "/containers/web/attach/ws", "/containers/json"] {
            assert_eq!(admitted("GET", path).unwrap().1, path);
        }
    }

    #[test]
    fn doubled_slashes_become_one() {
        assert_eq!(
            admitted("GET", "/v1.43/containers//web/json").unwrap().1,
            "/containers/web/json"
        );
    }
}
